"""The training loop: what it learns, keeps, refuses and stops."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from course_utils.data import Images
from course_utils.models.normalizing_flow import affine_flow, negative_log_likelihood
from course_utils.training import (
    History,
    TrainingDivergedError,
    fit_epochs,
    train,
    warmup_cosine,
)


class Mean(nn.Module):
    """The simplest model: one vector, to be brought to the mean of the data."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(2))


def squared_distance(model: nn.Module, batch: Tensor) -> Tensor:
    assert isinstance(model.value, Tensor)
    return ((batch - model.value) ** 2).sum(1)


def batches(seed: int = 0, size: int = 64) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.tensor([1.0, -2.0]) + 0.1 * torch.randn(
            size, 2, generator=generator
        )


def test_it_learns_and_keeps_the_history() -> None:
    model, held_out = Mean(), next(batches(1, 500))
    history = train(
        model,
        squared_distance,
        batches(),
        300,
        lr=0.05,
        validate=lambda: {"loss": squared_distance(model, held_out)},
        epoch=100,
    )
    assert torch.allclose(model.value, torch.tensor([1.0, -2.0]), atol=0.03)
    assert len(history.loss) == 300
    assert history.step == [0, 100, 200, 300]
    assert history.validation["loss"][0] == pytest.approx(5, abs=0.3)
    assert history.validation["loss"][-1] < 0.05
    assert history.seconds > 0
    assert not history.interrupted


def test_epochs_visit_every_image_and_are_measured() -> None:
    images = Images(torch.rand(50, 1, 28, 28), torch.arange(50) % 10)
    seen = []

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        seen.append(batch[2])
        return squared_distance(model, batch[0].flatten(1)[:, :2])

    history = fit_epochs(
        Mean(),
        images,
        loss,
        epochs=3,
        batch=20,
        lr=0.1,
        validate=lambda: {"loss": torch.zeros(1)},
        keep=[2],
    )
    assert [len(places) for places in seen] == 3 * [20, 20, 10]
    for epoch in torch.cat(seen).split(50):
        assert epoch.sort().values.tolist() == list(range(50))
    assert history.step == [0, 3, 6, 9]
    assert list(history.snapshots) == [2]


def test_one_step_equals_torchs_adamw() -> None:
    ours, theirs = Mean(), Mean()
    train(ours, squared_distance, batches(), 1, lr=0.1)
    optimizer = torch.optim.AdamW(
        theirs.parameters(), 0.1 * warmup_cosine(1)(0), betas=(0.9, 0.99)
    )
    squared_distance(theirs, next(batches())).mean().backward()
    optimizer.step()
    assert torch.allclose(ours.value, theirs.value, rtol=1e-5, atol=1e-8)


def test_schedule_warms_up_and_ends_at_zero() -> None:
    factor = warmup_cosine(1000, warmup=50)
    assert factor(0) == pytest.approx(1 / 50, rel=1e-3)
    assert factor(49) == pytest.approx(1, abs=0.01)
    assert factor(525) == pytest.approx(0.46, abs=0.01)
    assert factor(1000) == pytest.approx(0, abs=1e-9)


def test_the_same_seed_gives_the_same_model() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        flow = affine_flow(2, 8)
        train(flow, negative_log_likelihood, batches(), 20)
        models.append(flow)
    assert all(
        torch.equal(a, b)
        for a, b in zip(*(m.parameters() for m in models), strict=True)
    )


def test_interrupting_returns_the_history_so_far() -> None:
    def stopped() -> Iterator[Tensor]:
        source = batches()
        for _ in range(7):
            yield next(source)
        raise KeyboardInterrupt

    model = Mean()
    history = train(model, squared_distance, stopped(), 1000, lr=0.05)
    assert history.interrupted
    assert len(history.loss) == 7
    assert not torch.equal(model.value, torch.zeros(2))


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    def broken(model: nn.Module, batch: Tensor) -> Tensor:
        return squared_distance(model, batch) / 0.0

    with pytest.raises(
        TrainingDivergedError, match=r"the loss is inf at step 0.*learning rate"
    ):
        train(Mean(), broken, batches(), 10)


@pytest.mark.parametrize(
    ("tails", "stopped_at"),
    [
        ([0, 40, 40, 40, 0, 0], 30),
        ([0, 40, 40, 0, 40, 40], 50),
        ([0, 40, 40, 0, 0, 0], None),
    ],
)
def test_a_tail_that_blows_up_under_a_finite_mean_stops_the_run(
    tails: list[float], stopped_at: int | None
) -> None:
    """Two in a hundred get very bad: thrice in a row, or at the end, is too much."""
    excess = iter(tails)

    def validate() -> dict[str, Tensor]:
        values = torch.full((1000,), 2.0)
        values[:20] += next(excess)
        return {"nll": values}

    def run() -> None:
        train(Mean(), squared_distance, batches(), 50, validate=validate, epoch=10)

    if stopped_at is None:
        run()
        return
    expected = rf"diverged at step {stopped_at}: 1 % .* nll above 42 .*limit is 6"
    with pytest.raises(TrainingDivergedError, match=expected):
        run()


def test_clipping_shortens_long_gradients() -> None:
    """AdamW's first step has the gradient's sign only, so look at the second."""
    steps = []
    for clip in (None, 1e-3, 1e6):
        model = Mean()
        train(model, squared_distance, batches(), 2, lr=0.1, clip=clip)
        steps.append(model.value.detach().clone())
    assert torch.equal(steps[0], steps[2])
    assert not torch.equal(steps[0], steps[1])
    with pytest.raises(ValueError, match="clip must be a finite number above 0, got 0"):
        train(Mean(), squared_distance, batches(), 2, clip=0)


def test_a_real_flow_that_diverges_is_stopped() -> None:
    torch.manual_seed(0)
    flow, held_out = affine_flow(8, 32, 12), next(batches(1, 500))
    with pytest.raises(TrainingDivergedError):
        train(
            flow,
            negative_log_likelihood,
            batches(),
            400,
            lr=0.5,
            validate=lambda: {"nll": negative_log_likelihood(flow, held_out)},
            epoch=20,
        )


def test_another_engine_can_be_passed_in() -> None:
    model = Mean()
    train(
        model,
        squared_distance,
        batches(),
        5,
        fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"),
    )
    assert not torch.equal(model.value, torch.zeros(2))


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        train(Mean(), squared_distance, batches(), 0)
    with pytest.raises(ValueError, match="epoch must be at least 1, got -2"):
        train(Mean(), squared_distance, batches(), 5, epoch=-2)
    with pytest.raises(ValueError, match="lr must be a finite number above 0, got 0"):
        train(Mean(), squared_distance, batches(), 5, lr=0)
    with pytest.raises(TypeError, match=r"steps must be a whole number, got 2\.5"):
        train(Mean(), squared_distance, batches(), 2.5)  # type: ignore[arg-type]


def test_snapshots_are_the_weights_after_whole_epochs() -> None:
    def run(steps: int, model: Mean) -> History:
        return train(
            model, squared_distance, batches(), steps, epoch=10, keep=[0, 2, 3]
        )

    whole = Mean()
    history = run(30, whole)
    assert list(history.snapshots) == [0, 2, 3]
    assert torch.equal(history.snapshots[0]["value"], torch.zeros(2))
    assert torch.equal(history.snapshots[3]["value"], whole.value)
    # the second one is what a twin had when it was stopped after 20 of the 30 steps
    stopped, source = Mean(), batches()

    def twenty() -> Iterator[Tensor]:
        for _ in range(20):
            yield next(source)
        raise KeyboardInterrupt

    early = train(stopped, squared_distance, twenty(), 30, epoch=10, keep={2, 3})
    assert torch.equal(history.snapshots[2]["value"], stopped.value)
    assert early.interrupted
    assert list(early.snapshots) == [2]
    assert torch.equal(early.snapshots[2]["value"], stopped.value)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ([-1], "keep must be at least 0, got -1"),
        ([1, 3], r"from 0 to 2 \(25 steps of 10 an epoch\), got 3"),
    ],
)
def test_snapshots_that_cannot_be_kept_are_refused(
    keep: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(Mean(), squared_distance, batches(), 25, epoch=10, keep=keep)


def first_step(**settings: float) -> Tensor:
    """How far one AdamW step moves the model from (3, 3): its sign times its rate."""
    model = Mean()
    with torch.no_grad():
        model.value.fill_(3)
    train(model, squared_distance, batches(), 1, **settings)  # type: ignore[arg-type]
    return 3 - model.value.detach()


def test_warm_up_and_weight_decay() -> None:
    rate = 0.1 * warmup_cosine(1, 50)(0)
    assert torch.allclose(
        first_step(lr=0.1, weight_decay=0), torch.full((2,), rate), rtol=1e-3
    )
    assert torch.allclose(
        first_step(lr=0.1, weight_decay=0, warmup=1),
        torch.full((2,), 50 * rate),
        rtol=1e-3,
    )
    decayed = first_step(lr=0.1, weight_decay=0.5)
    assert torch.allclose(decayed, torch.full((2,), rate * (1 + 0.5 * 3)), rtol=1e-3)
    assert torch.equal(first_step(), first_step(weight_decay=0.01, warmup=50))
    with pytest.raises(ValueError, match="warmup must be at least 1, got 0"):
        first_step(warmup=0)
    with pytest.raises(ValueError, match=r"weight_decay must be .* at least 0, got -1"):
        first_step(weight_decay=-1)


class Moody(nn.Module):
    """A model with dropout and batch norm, which notes the modes it is called in."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        assert all(module.training is self.training for module in self.modules())
        self.modes.append(self.training)
        return self.net(x)


def moody_loss(model: Moody, batch: Tensor) -> Tensor:
    return (model(batch) ** 2).sum(1)


def test_train_mode_for_steps_eval_mode_for_validation_and_in_the_end() -> None:
    model, held_out = Moody().eval(), next(batches(1, 500))
    seen: list[Tensor] = []

    def validate() -> dict[str, Tensor]:
        seen.append(model.net[1].running_mean.clone())  # type: ignore[operator]
        return {"loss": moody_loss(model, held_out)}

    train(model, moody_loss, batches(), 4, validate=validate, epoch=2)
    assert model.modes == [False, True, True, False, True, True, False]
    assert not any(module.training for module in model.modules())
    # a validation leaves the running mean alone, steps move it
    assert torch.equal(seen[-1], model.net[1].running_mean)  # type: ignore[arg-type]
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("where", ["batch", "loss", "validation"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, TrainingDivergedError])
def test_eval_mode_also_when_training_stops_early(
    where: str, error: type[BaseException]
) -> None:
    model = Moody().eval()

    def stop() -> None:
        assert model.training is (where != "validation")
        raise error

    def source() -> Iterator[Tensor]:
        yield next(batches())
        stop()

    def loss(model: Moody, batch: Tensor) -> Tensor:
        if where == "loss":
            stop()
        return moody_loss(model, batch)

    def validate() -> dict[str, Tensor]:
        stop()
        return {}

    def run() -> History:
        watched = validate if where == "validation" else None
        return train(model, loss, source(), 5, validate=watched)

    if error is KeyboardInterrupt:
        assert run().interrupted
    else:
        with pytest.raises(error):
            run()
    assert not any(module.training for module in model.modules())


class Latents(nn.Module):
    """A decoder, and a table with one latent for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 2, sparse=True)
        self.decoder = nn.Linear(2, 2)


def reconstruction(model: Latents, which: Tensor) -> Tensor:
    return ((model.decoder(model.table(which)) - 1) ** 2).sum(1)


def two_optimizers(model: Latents, rate: float = 0.1) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.AdamW(model.decoder.parameters(), 0.01, weight_decay=0),
        torch.optim.SparseAdam(list(model.table.parameters()), rate),
    ]


def rows() -> Iterator[Tensor]:
    while True:
        yield torch.tensor([0, 3, 3])


def latents() -> Latents:
    torch.manual_seed(0)
    return Latents()


def test_optimizers_of_their_own_for_groups_of_parameters() -> None:
    """Equal to a loop written by hand; a row that no batch holds is left alone."""
    ours, theirs, steps = latents(), latents(), 30
    before = ours.table.weight.detach().clone()
    train(ours, reconstruction, rows(), steps, optimizers=two_optimizers, warmup=7)
    by_hand = two_optimizers(theirs)
    for step in range(steps):
        factor = warmup_cosine(steps, 7)(step)
        for optimizer, rate in zip(by_hand, (0.01, 0.1), strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.zero_grad()
        reconstruction(theirs, next(rows())).mean().backward()
        for optimizer in by_hand:
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)
    moved = (ours.table.weight != before).any(1)
    assert moved.tolist() == [True, False, False, True, False, False]


def test_optimizers_at_odds_with_other_settings_are_refused() -> None:
    def run(**settings: object) -> None:
        train(
            latents(),
            reconstruction,
            rows(),
            2,
            **{"optimizers": two_optimizers, **settings},  # type: ignore[arg-type]
        )

    run()
    with pytest.raises(
        ValueError, match=r"give them to optimizers instead, got lr=0\.1"
    ):
        run(lr=0.1)
    with pytest.raises(ValueError, match=r"got lr=0\.01 and weight_decay=0 beside"):
        run(weight_decay=0)
    with pytest.raises(ValueError, match=r"dense gradients.* got AdamW, SparseAdam"):
        run(clip=1.0)
    with pytest.raises(ValueError, match=r"got 'table\.weight' 0 times"):
        run(optimizers=lambda model: two_optimizers(model)[:1])
    with pytest.raises(ValueError, match=r"got 'decoder\.weight' 2 times"):
        run(optimizers=lambda model: two_optimizers(model) + two_optimizers(model)[:1])
    with pytest.raises(ValueError, match=r"got 'table\.weight' 0 times"):
        run(optimizers=lambda model: [])


def test_one_optimizer_asked_for_can_be_clipped() -> None:
    """SGD's first step is as long as the gradient, so as the clip, times the rate."""
    model = Mean()
    sgd = partial(torch.optim.SGD, lr=0.1)
    train(
        model,
        squared_distance,
        batches(),
        1,
        optimizers=lambda model: [sgd(model.parameters())],
        warmup=1,
        clip=0.5,
    )
    length = 0.1 * warmup_cosine(1, 1)(0) * 0.5
    assert float(model.value.detach().norm()) == pytest.approx(length, rel=1e-4)


def test_progress_bar_shows_unless_it_is_switched_off() -> None:
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_training import *\n"
        "train(Mean(), squared_distance, batches(), 3)\n"
    )
    for switch, shown in (({}, True), ({"TQDM_DISABLE": "1"}, False)):
        environment = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**environment, **switch},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ("training" in done.stderr) is shown
