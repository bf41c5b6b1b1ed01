"""The training loop: what it learns, keeps, refuses and stops."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from course_utils.models.normalizing_flow import affine_flow, negative_log_likelihood
from course_utils.training import TrainingDivergedError, train, warmup_cosine


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
