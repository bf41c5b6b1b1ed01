"""Two processes that train one model take the steps of one on the global batch."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import SparseAdam
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from course_utils.data import OlympicRings
from course_utils.models.flow_matching import (
    FlowMatching,
    FlowMatchingLoss,
    mlp_velocity,
    train_flow_matching,
)
from course_utils.models.normalizing_flow import affine_flow, negative_log_likelihood
from course_utils.training import History, Turn, adamw, train, train_fresh
from course_utils.training.history import BatchesEndedError, TrainingDivergedError

Outcome = dict[str, Any]
STEPS = 12


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def outcome(model: nn.Module, history: History, **more: Any) -> Outcome:
    weights = {k: v.double() for k, v in model.state_dict().items()}
    return {"weights": weights, "losses": history.losses, **more}


# --- what is trained, in one process or in two ----------------------------------------


def likelihood(fabric: Fabric) -> Outcome:
    """A flow on fresh points; 65 of them do not divide by two."""
    torch.manual_seed(fabric.global_rank)  # what a process begins with does not count
    flow = affine_flow(couplings=2, width=8, frequencies=2).double()
    torch.manual_seed(0)
    if fabric.global_rank == 0:
        flow.load_state_dict(affine_flow(2, 8, 2).double().state_dict())
    history = train(
        flow,
        negative_log_likelihood,
        (x.double() for x in OlympicRings().batches(65, seeded(1), labelled=False)),
        STEPS,
        clip=0.3,
        ema=0.9,
        fabric=fabric,
    )
    return outcome(flow, history)


def given_noise(fabric: Fabric) -> Outcome:
    """Flow matching whose noise and times come with the batch."""
    torch.manual_seed(0)
    model, draws = FlowMatching(mlp_velocity(width=8)).double(), seeded(3)

    def batches() -> Iterator[tuple[Tensor, ...]]:
        while True:
            y0, y1 = torch.randn(2, 32, 2, generator=draws, dtype=torch.float64)
            yield y1, y0, torch.rand(32, generator=draws, dtype=torch.float64)

    def loss(model: FlowMatching, batch: tuple[Tensor, ...]) -> Tensor:
        y1, y0, t = batch
        return FlowMatchingLoss().at(model, y0, y1, t)

    return outcome(model, train(model, loss, batches(), STEPS, fabric=fabric))


def squares(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]).square().sum(1)


def shared_out_by_a_sampler(fabric: Fabric) -> Outcome:
    """A DataLoader that gives each process batches of its own: they are the shares."""
    torch.manual_seed(0)
    model, draws = nn.Linear(3, 2).double(), seeded(4)
    x, y = (torch.randn(64, n, generator=draws, dtype=torch.float64) for n in (3, 2))
    data = TensorDataset(x, y)
    sampler: Any = None
    if fabric.world_size > 1:
        sampler = DistributedSampler(data, shuffle=False)
    size = 16 // fabric.world_size
    loader = DataLoader(data, size, sampler=sampler)
    return outcome(model, train(model, squares, loader, STEPS, fabric=fabric))


class Pair(nn.Module):
    """Two parts that work against each other."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = nn.Linear(2, 2), nn.Linear(2, 1)


def adversaries(fabric: Fabric) -> Outcome:
    """Turns that move a part of the model each."""
    torch.manual_seed(0)
    pair, draws = Pair().double(), seeded(5)

    def fooled(pair: Pair, z: Tensor) -> Tensor:
        return -pair.critic(pair.generator(z)).squeeze(1)

    def judged(pair: Pair, z: Tensor) -> Tensor:
        apart = pair.critic(pair.generator(z).detach()) - pair.critic(z + 1)
        return (apart + apart.square()).squeeze(1)

    turns = [
        Turn(judged, [adamw(pair.critic.parameters())], repeats=2, name="critic"),
        Turn(fooled, [adamw(pair.generator.parameters())], name="generator", clip=0.1),
    ]
    batches = iter(
        lambda: torch.randn(10, 2, generator=draws, dtype=torch.float64), None
    )
    return outcome(pair, train(pair, turns, batches, STEPS, fabric=fabric))


class Rows(nn.Module):
    """A table whose gradients are sparse, and a decoder of its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.decoder = nn.Embedding(20, 2, sparse=True), nn.Linear(2, 3)

    def forward(self, index: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(self.table(index))
        return decoded


def sparse_rows(fabric: Fabric) -> Outcome:
    torch.manual_seed(0)
    model, draws = Rows().double(), seeded(6)
    x = torch.randn(20, 3, generator=draws, dtype=torch.float64)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            index = torch.randperm(20, generator=draws)[:8]
            yield index, x[index]

    turns: list[Turn[Rows, tuple[Tensor, Tensor]]] = [
        Turn(squares, [SparseAdam(model.table.parameters(), 0.1)], name="rows"),
        Turn(squares, [adamw(model.decoder.parameters())], name="decoder"),
    ]
    return outcome(model, train(model, turns, batches(), STEPS, fabric=fabric))


def learnt(fabric: Fabric, draw: Callable[[torch.Generator], Any]) -> Outcome:
    """A linear layer that learns from batches of some form, of two tensors (B, 3)."""
    torch.manual_seed(0)
    model, draws = nn.Linear(3, 3).double(), seeded(7)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        x, y = batch.values() if isinstance(batch, dict) else batch
        if hasattr(batch, "_fields"):
            x, y = batch.x, batch.y
        x, y = torch.as_tensor(x).double(), torch.as_tensor(y).double()
        return (model(x) - y).square().sum(1)

    batches = iter(lambda: draw(draws), None)
    return outcome(model, train(model, loss, batches, STEPS, fabric=fabric))


class Named(NamedTuple):
    """A batch whose parts have names."""

    x: Tensor
    y: Tensor


def named(fabric: Fabric) -> Outcome:
    return learnt(fabric, lambda d: Named(*torch.randn(2, 7, 3, generator=d)))


def of_a_dict(fabric: Fabric) -> Outcome:
    def draw(draws: torch.Generator) -> dict[str, Tensor]:
        x, y = torch.randn(2, 7, 3, generator=draws)
        return {"x": x, "y": y}

    return learnt(fabric, draw)


def of_numpy(fabric: Fabric) -> Outcome:
    def draw(draws: torch.Generator) -> tuple[Any, ...]:
        return tuple(part.numpy() for part in torch.randn(2, 7, 3, generator=draws))

    return learnt(fabric, draw)


def shares_of_other_sizes(fabric: Fabric) -> Outcome:
    """Two samples for one process, six for the other."""
    rows = {1: [slice(0, 8)], 2: [slice(0, 2), slice(2, 8)]}[fabric.world_size]

    def draw(draws: torch.Generator) -> dict[str, Tensor]:
        x, y = torch.randn(2, 8, 3, generator=draws)
        return {"x": x[rows[fabric.global_rank]], "y": y[rows[fabric.global_rank]]}

    return learnt(fabric, draw)


class Scaled(nn.Module):
    """A layer, and a scale that is moved though the module does not own it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2, dtype=torch.float64)
        self.scale = [nn.Parameter(torch.ones(2, dtype=torch.float64))]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale[0]


def a_weight_outside(fabric: Fabric) -> Outcome:
    torch.manual_seed(0)
    model, draws = Scaled(), seeded(8)
    turn: Turn[Any, Any] = Turn(squares, [adamw([*model.parameters(), *model.scale])])

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            both = torch.randn(6, 5, generator=draws, dtype=torch.float64)
            yield both[:, :3], both[:, 3:]

    found = outcome(model, train(model, [turn], batches(), STEPS, fabric=fabric))
    found["weights"]["scale"] = model.scale[0].detach().double()
    return found


EQUAL: list[Callable[[Fabric], Outcome]] = [
    likelihood,
    given_noise,
    shared_out_by_a_sampler,
    adversaries,
    sparse_rows,
    named,
    of_a_dict,
    of_numpy,
    shares_of_other_sizes,
    a_weight_outside,
]


class Watched(FlowMatchingLoss):
    """Remembers what came to it."""

    def at(
        self, model: Any, y0: Tensor, y1: Tensor, t: Tensor, condition: Any = None
    ) -> Tensor:
        self.seen = torch.cat([y0, y1, t[:, None]], dim=1)
        return super().at(model, y0, y1, t, condition)


def own_noise(fabric: Fabric) -> Outcome:
    """Where and when the velocity was asked in the book's training of a flow."""
    torch.manual_seed(0)
    model = FlowMatching(mlp_velocity(width=8))
    asked: list[Tensor] = []
    model.velocity.register_forward_pre_hook(
        lambda _, given: asked.append(torch.cat([given[0], given[1][:, None]], dim=1))
    )
    history = train_flow_matching(
        model, OlympicRings(), steps=4, batch=8, fabric=fabric
    )
    return outcome(model, history, asked=torch.cat(asked))


def torchs_noise(fabric: Fabric) -> Outcome:
    """The same of a loss that draws from torch's own random numbers."""
    model, watched = FlowMatching(mlp_velocity(width=8)), Watched()
    history = train_fresh(
        model, OlympicRings(), watched, steps=1, batch=8, fabric=fabric
    )
    first = watched.seen
    train_fresh(model, OlympicRings(), watched, steps=1, batch=8, fabric=fabric)
    both = torch.cat([first, watched.seen])  # a second training draws other noise
    return outcome(model, history, asked=both)


def normalised(fabric: Fabric) -> Outcome:
    """The statistics of batch normalization, and what was measured by them."""
    torch.manual_seed(0)
    model, draws = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), seeded(9)
    batch = torch.randn(8, 3, generator=draws), torch.randn(8, 2, generator=draws)
    history = train(
        model,
        squares,
        iter(lambda: (torch.randn(8, 3, generator=draws), batch[1]), None),
        STEPS,
        measure=lambda model: {"loss": squares(model, batch)},
        steps_per_epoch=4,
        fabric=fabric,
    )
    return outcome(model, history, measured=history.measured)


def refused(fabric: Fabric, batches: Any, loss: Any = squares) -> Outcome:
    """What is said when training cannot go on in one of the processes."""
    try:
        train(nn.Linear(3, 2), loss, batches, STEPS, fabric=fabric)
    except (ValueError, RuntimeError) as error:
        history = getattr(error, "history", History())
        return {"error": type(error), "losses": history.loss, "says": str(error)}
    return {"error": None}


def ended(fabric: Fabric) -> Outcome:
    batch = (torch.ones(4, 3) * (fabric.global_rank + 1), torch.ones(4, 2))
    return refused(fabric, iter([batch] * (3 + fabric.global_rank)))


def diverged(fabric: Fabric) -> Outcome:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        factor = float("nan") if fabric.global_rank == 1 else 1.0
        return squares(model, batch) * factor

    return refused(fabric, repeat((torch.ones(4, 3), torch.ones(4, 2))), loss)


def of_one_sample(fabric: Fabric) -> Outcome:
    """Too few to be shared: all take the same step."""
    return learnt(fabric, lambda draws: (torch.randn(1, 3, generator=draws),) * 2)


def fails_in_one(fabric: Fabric) -> Outcome:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if fabric.global_rank == 1:
            raise ValueError("something of this process alone")
        return squares(model, batch)

    return refused(fabric, repeat((torch.ones(4, 3), torch.ones(4, 2))), loss)


def stopped_in_one(fabric: Fabric) -> Outcome:
    """Ctrl-C reaches one process, in its third step."""
    steps = iter(range(STEPS))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if next(steps) == 2 and fabric.global_rank == 1:
            signal.raise_signal(signal.SIGINT)
        return squares(model, batch)

    batches = repeat((torch.ones(4, 3), torch.ones(4, 2)))
    history = train(nn.Linear(3, 2), loss, batches, STEPS, fabric=fabric)
    return {"losses": history.loss, "interrupted": history.interrupted}


def everything(fabric: Fabric, folder: Path) -> None:
    """All of the above in one process of two."""
    cases = [*EQUAL, own_noise, torchs_noise, normalised, of_one_sample]
    cases += [ended, diverged, fails_in_one, stopped_in_one]
    found = {case.__name__: case(fabric) for case in cases}
    torch.save(found, folder / f"{fabric.global_rank}.pt")


# --- what must come out ---------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Outcome]]:
    """What each of two processes has found."""
    folder = tmp_path_factory.mktemp("processes")
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn")
    fabric.launch(partial(everything, folder=folder))
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(2)]


@pytest.mark.parametrize("case", EQUAL, ids=lambda case: case.__name__)
def test_two_processes_equal_one(
    two: list[dict[str, Outcome]], case: Callable[[Fabric], Outcome]
) -> None:
    one = case(Fabric(accelerator="cpu", devices=1))
    for process in two:
        found = process[case.__name__]
        for name, weight in one["weights"].items():
            torch.testing.assert_close(
                found["weights"][name], weight, rtol=0, atol=1e-9, msg=name
            )
        for turn, losses in one["losses"].items():
            assert found["losses"][turn] == pytest.approx(losses, rel=1e-9)
            assert len(set(losses)) == STEPS  # the training moved


@pytest.mark.parametrize("case", ["own_noise", "torchs_noise"])
def test_each_process_has_samples_and_noise_of_its_own(
    two: list[dict[str, Outcome]], case: str
) -> None:
    first, second = (process[case] for process in two)
    asked = torch.cat([first["asked"], second["asked"]])
    for column in asked.T:
        assert len(column.unique()) == len(asked)
    assert first["losses"] == second["losses"]
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name])


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("ended", BatchesEndedError),
        ("diverged", TrainingDivergedError),
    ],
)
def test_all_processes_say_why_training_ended(
    two: list[dict[str, Outcome]], case: str, error: type[Exception]
) -> None:
    first, second = (process[case] for process in two)
    assert first == second
    assert first["error"] is error
    assert len(first["losses"]) == (3 if case == "ended" else 0)


def test_an_error_in_one_process_is_known_to_all(
    two: list[dict[str, Outcome]],
) -> None:
    first, second = (process["fails_in_one"] for process in two)
    assert second["says"] == "something of this process alone"
    assert first["error"] is TrainingDivergedError


def test_ctrl_c_in_one_process_stops_all(two: list[dict[str, Outcome]]) -> None:
    first, second = (process["stopped_in_one"] for process in two)
    assert first == second
    assert first["interrupted"]
    assert len(first["losses"]) == 3


@pytest.mark.parametrize("case", ["normalised", "of_one_sample"])
def test_all_processes_have_one_model(two: list[dict[str, Outcome]], case: str) -> None:
    first, second = (process[case] for process in two)
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    assert first.get("measured") == second.get("measured")


# --- device and precision -------------------------------------------------------------

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", EQUAL, ids=lambda case: case.__name__)
def test_the_device_is_the_engines(
    case: Callable[[Fabric], Outcome], device: str
) -> None:
    """The same steps, wherever they are taken; here they are in float64."""
    one = case(Fabric(accelerator="cpu", devices=1))
    found = case(Fabric(accelerator=device, devices=1))
    for name, weight in one["weights"].items():
        there = found["weights"][name]
        assert there.device.type == device
        torch.testing.assert_close(there.cpu(), weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("precision", "weight", "batch"),
    [
        ("32-true", torch.float32, torch.float32),
        ("bf16-mixed", torch.float32, torch.float32),
        ("bf16-true", torch.bfloat16, torch.bfloat16),
        ("64-true", torch.float64, torch.float64),
    ],
)
def test_precision_is_the_engines(
    precision: Any, weight: torch.dtype, batch: torch.dtype, device: str
) -> None:
    """Mixed precision rounds what layers do, and neither the data nor the loss."""
    seen = []

    class Loss(FlowMatchingLoss):
        def at(self, model: Any, y0: Tensor, y1: Tensor, *others: Any) -> Tensor:
            loss = super().at(model, y0, y1, *others)
            seen.append((y0.dtype, y1.dtype, loss.dtype))
            return loss

    fabric = Fabric(accelerator=device, devices=1, precision=precision)
    model = FlowMatching(mlp_velocity(width=8))
    history = train_fresh(
        model, OlympicRings(), Loss(), steps=3, batch=16, fabric=fabric
    )
    assert len(history.loss) == 3
    assert seen == [(batch, batch, batch)] * 3
    assert {p.dtype for p in model.parameters()} == {weight}


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_an_average_in_half_precision_is_refused(precision: Any) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    batches = repeat((torch.ones(4, 3), torch.ones(4, 2)))
    with pytest.raises(ValueError, match="ema needs weights of at least float32"):
        train(nn.Linear(3, 2), squares, batches, 2, ema=0.9, fabric=fabric)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_gradients_too_long_for_their_dtype_are_finite(clip: float | None) -> None:
    model = nn.Linear(100, 1)
    batches = repeat(torch.full((4, 100), 1e20))
    train(model, lambda m, x: m(x)[:, 0], batches, 2, clip=clip, weight_decay=0.0)
    assert all(p.isfinite().all() for p in model.parameters())
