"""Turns: losses that take turns, each moving parameters of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from pictures import splits
from test_training import Mean, batches, same, squared_distance, weights
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import SGD, Adam, Optimizer, SparseAdam

from course_utils.models.vae import (
    LatentVAE,
    latent_turns,
    latent_vae,
    negative_row_elbo,
)
from course_utils.notebook import seeded
from course_utils.training import (
    History,
    TrainingDivergedError,
    Turn,
    adamw,
    train,
    warmup_cosine,
)

# --- two that play against each other -------------------------------------------------


class Adversaries(nn.Module):
    """x = a·ε + b against data of one value, judged by a logistic regression."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator = nn.Linear(1, 1)
        self.discriminator = nn.Linear(1, 1)

    def sample(self, n: int) -> Tensor:
        return self.generator(torch.randn(n, 1))

    def judge(self, x: Tensor) -> Tensor:
        """The log-odds of being real, (B,)."""
        return self.discriminator(x)[:, 0]


def discriminator_loss(model: Adversaries, x: Tensor) -> Tensor:
    with torch.no_grad():
        fake = model.sample(len(x))
    return softplus(-model.judge(x)) + softplus(model.judge(fake))


def generator_loss(model: Adversaries, x: Tensor) -> Tensor:
    return softplus(-model.judge(model.sample(len(x))))


def real(seed: int = 1) -> Iterator[Tensor]:
    generator = seeded(seed)
    while True:
        yield 2 + 0.5 * torch.randn(64, 1, generator=generator)


def game(model: Adversaries, repeats: int = 1) -> list[Turn[Adversaries, Tensor]]:
    judge = Adam(model.discriminator.parameters(), 0.1, weight_decay=0.3)
    maker = Adam(model.generator.parameters(), 0.03)
    return [
        Turn(discriminator_loss, [judge], repeats, name="discriminator"),
        Turn(generator_loss, [maker], name="generator"),
    ]


def test_adversaries_end_where_the_data_are() -> None:
    model = Adversaries()
    history = train(model, game(model), real(), 300)
    fake = model.sample(1000)
    assert float(fake.mean().detach()) == pytest.approx(2, abs=0.2)
    assert {name: len(values) for name, values in history.losses.items()} == {
        "discriminator": 300,
        "generator": 300,
    }
    assert history.loss == history.losses["generator"]
    # neither wins: each is as good as a guess
    end = {name: sum(values[-50:]) / 50 for name, values in history.losses.items()}
    assert end["generator"] == pytest.approx(0.69, abs=0.1)
    assert end["discriminator"] == pytest.approx(2 * 0.69, abs=0.1)


def test_each_turn_moves_its_own_parameters_alone() -> None:
    """Watched from inside: what has moved, and what has a gradient, at each turn."""
    model, seen = Adversaries(), []
    parts = {"generator": model.generator, "discriminator": model.discriminator}

    def look(name: str) -> None:
        learns = [p.grad is not None for p in model.discriminator.parameters()]
        seen.append((name, {part: weights(parts[part]) for part in parts}, learns))

    def watched(turn: Turn[Adversaries, Tensor]) -> Turn[Adversaries, Tensor]:
        def loss(model: Adversaries, x: Tensor) -> Tensor:
            look(turn.name)
            return turn.loss(model, x)

        return replace(turn, loss=loss)

    # the generator first: its loss goes through the discriminator, which must not learn
    judge, maker = game(model, repeats=2)
    train(model, [watched(maker), watched(judge)], real(), 2, warmup=1)
    look("end")
    turns = [name for name, _, _ in seen]
    assert turns == 2 * ["generator", "discriminator", "discriminator"] + ["end"]
    for (name, before, _), (_, after, _) in pairwise(seen):
        moved = [part for part in parts if not same(before[part], after[part])]
        assert moved == [name]
    assert [any(learns) for _, _, learns in seen[:3]] == [False, False, True]


def test_a_turn_leaves_the_gradients_of_the_others() -> None:
    """What another loss would add to them is not there."""
    model = Adversaries()
    judge, maker = game(model)
    torch.manual_seed(3)
    train(model, [judge, maker], real(), 1)
    twin = Adversaries()
    torch.manual_seed(3)
    discriminator_loss(twin, next(real())).mean().backward()
    found, expected = (
        [p.grad for p in each.discriminator.parameters()] for each in (model, twin)
    )
    for a, b in zip(found, expected, strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)


def test_repeats_are_counted() -> None:
    model = Adversaries()
    judge, maker = game(model, repeats=3)
    never = Turn(generator_loss, maker.optimizers, repeats=0, name="never")
    history = train(model, [judge, never, maker], real(), 5)
    counts = [
        {int(state["step"]) for state in turn.optimizers[0].state.values()}
        for turn in (judge, maker)
    ]
    assert counts == [{15}, {5}]
    assert {name: len(values) for name, values in history.losses.items()} == {
        "discriminator": 5,
        "never": 0,
        "generator": 5,
    }


def test_a_turn_that_repeats_says_its_last_loss() -> None:
    model, seen = Mean(), []

    def loss(model: Mean, x: Tensor) -> Tensor:
        value = squared_distance(model, x)
        seen.append(float(value.detach().mean()))
        return value

    turn = Turn(loss, [SGD(model.parameters(), 0.1)], repeats=2)
    history = train(model, [turn], batches(), 3)
    assert history.loss == seen[1::2]
    assert len(seen) == 6


def test_turns_can_be_used_again() -> None:
    """Their optimizers' rates start anew, at the same peak."""
    model = Mean()
    sgd = SGD(model.parameters(), 0.1)
    for _ in range(2):
        before = model.value.detach().clone()
        history = train(model, [Turn(squared_distance, [sgd])], batches(), 1, warmup=1)
        slope = -2 * (next(batches()) - before).mean(0)
        assert torch.allclose(model.value, before - 0.1 * slope, rtol=1e-5)
    assert len(history.loss) == 1


# --- a turn for all, and rows that take more steps ------------------------------------


def test_a_loss_is_one_turn_of_adamw() -> None:
    by_loss, by_turn = Mean(), Mean()
    expected = train(by_loss, squared_distance, batches(), 10, lr=0.1, clip=0.5)
    optimizer = adamw(by_turn.parameters(), 0.1)
    turn = Turn(squared_distance, [optimizer], clip=0.5)
    history = train(by_turn, [turn], batches(), 10)
    assert history.losses == expected.losses
    assert same(weights(by_loss), weights(by_turn))


def by_hand(
    model: LatentVAE, source: Any, steps: int, latent_steps: int
) -> list[float]:
    """The loop of latent optimization, written out."""
    decoder = adamw(model.decoder.parameters(), 1e-3)
    rows = SparseAdam(model.table.parameters(), 0.05, betas=(0.9, 0.99))
    losses = []
    for step, (x, _, index) in zip(range(steps), source, strict=False):
        factor = warmup_cosine(steps, 3)(step)
        decoder.param_groups[0]["lr"] = 1e-3 * factor
        rows.param_groups[0]["lr"] = 0.05 * factor
        for k in range(latent_steps):
            decoder.zero_grad()
            rows.zero_grad()
            loss = -model(x, index).elbo.mean()
            loss.backward()
            rows.step()
            if k == latent_steps - 1:
                decoder.step()
                losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("latent_steps", [1, 3])
def test_latent_optimization_is_the_loop_written_by_hand(latent_steps: int) -> None:
    """Bit for bit; also that turns can share an optimizer, whose rate falls once."""
    data, steps = splits(), 8
    torch.manual_seed(0)
    ours, theirs = (latent_vae(data, "linear", latent=4) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    torch.manual_seed(1)
    turns = latent_turns(ours, 1e-3, 0.05, latent_steps)
    source = data.train.batches(32, seeded(2))
    history = train(ours, turns, source, steps, warmup=3)
    torch.manual_seed(1)
    source = data.train.batches(32, seeded(2))
    assert history.loss == by_hand(theirs, source, steps, latent_steps)
    assert same(weights(ours), weights(theirs))


def test_rows_that_are_not_finite_stop_before_they_spoil_the_model() -> None:
    """In the second turn, whose gradients of the rows are sparse."""
    data = splits()
    torch.manual_seed(0)
    model = latent_vae(data, "prior", latent=2)

    def broken(model: LatentVAE, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        none = model.table(batch[2]).mean.sum() * 0
        return negative_row_elbo(model, batch) + none.abs().sqrt()

    alone, both = latent_turns(model, latent_steps=2)
    both.loss = broken
    expected = weights(model.decoder)
    with pytest.raises(TrainingDivergedError, match="length of the gradient is nan"):
        train(model, [alone, both], data.train.batches(16), 3)
    assert same(weights(model.decoder), expected)
    assert all(value.isfinite().all() for value in weights(model))


def test_one_turn_can_be_clipped() -> None:
    """SGD's first step is as long as the gradient, so as the clip, times the rate."""
    model = Mean()
    turn = Turn(squared_distance, [SGD(model.parameters(), 0.1)], clip=0.5)
    train(model, [turn], batches(), 1, warmup=1)
    assert float(model.value.detach().norm()) == pytest.approx(0.1 * 0.5, rel=1e-4)


def test_an_interrupt_between_turns_keeps_the_steps_before_it() -> None:
    model = Adversaries()
    judge, maker = game(model)
    calls = iter(range(10))

    def stopped(model: Adversaries, x: Tensor) -> Tensor:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return generator_loss(model, x)

    maker.loss = stopped
    history = train(model, [judge, maker], real(), 10)
    assert history.interrupted
    assert [len(values) for values in history.losses.values()] == [3, 3]


# --- turns that cannot be -------------------------------------------------------------


def play(turns: Any, **settings: Any) -> History:
    model = Adversaries()
    return train(model, turns(model), real(), 2, **settings)


def test_turns_at_odds_with_the_model_are_refused() -> None:
    play(game)
    once = "optimizers must hold every trainable parameter once, got"
    with pytest.raises(ValueError, match=f"{once} 'generator.weight' 0 times"):
        play(lambda model: game(model)[:1])
    both = lambda model: [*game(model), again(model)]  # noqa: E731
    with pytest.raises(ValueError, match=f"{once} 'generator.weight' 2 times"):
        play(both)


def again(model: Adversaries) -> Turn[Adversaries, Tensor]:
    """The generator once more, with an optimizer of its own."""
    return Turn(generator_loss, [Adam(model.generator.parameters())], name="again")


WRONG: dict[str, Callable[[Adversaries], Any]] = {
    "none": lambda model: [],
    "one outside a list": lambda model: game(model)[0],
    "losses": lambda model: [discriminator_loss, generator_loss],
    "optimizers": lambda model: game(model)[0].optimizers,
    "a number": lambda model: 3,
}


@pytest.mark.parametrize("turns", WRONG.values(), ids=WRONG)
def test_what_is_no_list_of_turns_is_refused(turns: Any) -> None:
    with pytest.raises(TypeError, match="expected a loss, or a list of turns, got"):
        play(turns)


def test_turns_of_one_name_are_refused() -> None:
    def unnamed(model: Adversaries) -> list[Turn[Adversaries, Tensor]]:
        return [Turn(turn.loss, turn.optimizers) for turn in game(model)]

    with pytest.raises(ValueError, match=r"of their own, got \['loss', 'loss'\]"):
        play(unnamed)


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"lr": 0.01}, r"lr=0\.01, weight_decay=None and clip=None"),
        ({"weight_decay": 0}, r"lr=None, weight_decay=0 and clip=None"),
        ({"clip": 1.0}, r"lr=None, weight_decay=None and clip=1\.0"),
    ],
)
def test_settings_of_a_loss_beside_turns_are_refused(
    settings: dict[str, Any], got: str
) -> None:
    with pytest.raises(ValueError, match=rf"give them to the turns .*, got {got}"):
        play(game, **settings)


def optimizers(*kinds: Callable[..., Optimizer]) -> list[Optimizer]:
    return [kind([nn.Parameter(torch.zeros(2))], lr=0.1) for kind in kinds]


def test_settings_of_a_turn_are_checked() -> None:
    turn = partial(Turn, squared_distance)
    with pytest.raises(ValueError, match="an optimizer of what it moves, got none"):
        turn([])
    with pytest.raises(TypeError, match="a list of optimizers, got Adam"):
        turn(optimizers(Adam)[0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="repeats must be at least 0, got -1"):
        turn(optimizers(Adam), repeats=-1)
    with pytest.raises(TypeError, match=r"repeats must be a whole number, got 1\.5"):
        turn(optimizers(Adam), repeats=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="clip must be a finite number above 0, got 0"):
        turn(optimizers(Adam), clip=0)
    for kinds, got in (([SparseAdam], "SparseAdam"), ([Adam, SGD], "Adam, SGD")):
        with pytest.raises(ValueError, match=rf"dense gradients: .* got {got}$"):
            turn(optimizers(*kinds), clip=1.0)


def test_a_second_training_starts_from_the_rate_that_is_set() -> None:
    """A run ends at the rate 0, and its peak is not remembered for the next."""
    model = nn.Linear(2, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    rates: list[float] = []

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        rates.append(sgd.param_groups[0]["lr"])
        return model(x)[:, 0].square()

    for lr in (0.1, 1e-4):
        sgd.param_groups[0]["lr"] = lr
        train(model, [Turn(loss, [sgd])], [torch.ones(4, 2)], 5, warmup=1)
        assert sgd.param_groups[0]["lr"] == lr
    assert rates[0] == 0.1
    assert rates[5] == 1e-4
    assert max(rates[5:]) == 1e-4
