"""The training loop: what it learns, keeps, refuses and stops."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import nan
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils.checks import split_batch
from course_utils.data import Images, OlympicRings
from course_utils.models.classifier import Classifier, augmented_cross_entropy
from course_utils.models.diffusion import (
    DDIM,
    DiffusionLoss,
    VPLinear,
    mlp_denoiser,
)
from course_utils.models.flow_matching import (
    FlowMatching,
    FlowMatchingLoss,
    mlp_velocity,
)
from course_utils.models.normalizing_flow import (
    NormalizingFlow,
    affine_flow,
    negative_log_likelihood,
)
from course_utils.models.vae import conv_vae, negative_elbo
from course_utils.training import (
    BatchesEndedError,
    History,
    TrainingDivergedError,
    TrainingError,
    Turn,
    train,
    train_epochs,
    train_fresh,
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


def stopped(after: int) -> Iterator[Tensor]:
    """The same batches, but the user stops the training after some steps."""
    yield from islice(batches(), after)
    raise KeyboardInterrupt


def weights(model: nn.Module) -> list[Tensor]:
    """All that a model holds, copied."""
    return [value.clone() for value in model.state_dict().values()]


def same(a: Iterable[Tensor], b: Iterable[Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# --- what it learns -------------------------------------------------------------------


def test_it_learns_and_keeps_the_history() -> None:
    model, held_out = Mean(), next(batches(1, 500))
    history = train(
        model,
        squared_distance,
        batches(),
        300,
        lr=0.05,
        measure=lambda model: {"loss": squared_distance(model, held_out)},
        steps_per_epoch=100,
    )
    assert torch.allclose(model.value, torch.tensor([1.0, -2.0]), atol=0.03)
    assert len(history.loss) == 300
    assert history.losses == {"loss": history.loss}
    assert history.step == [0, 100, 200, 300]
    assert history.measured["loss"][0] == pytest.approx(5, abs=0.3)
    assert history.measured["loss"][-1] < 0.05
    assert history.seconds > 0
    assert not history.interrupted


def test_epochs_visit_every_image_and_are_measured() -> None:
    images = Images(torch.rand(50, 1, 28, 28), torch.arange(50) % 10)
    seen = []

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        seen.append(batch[2])
        return squared_distance(model, batch[0].flatten(1)[:, :2])

    history = train_epochs(
        Mean(),
        images,
        loss,
        epochs=3,
        batch=20,
        lr=0.1,
        measure=lambda model: {"loss": torch.zeros(1)},
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
        models.append(weights(flow))
    assert same(*models)


def test_a_frozen_parameter_stays() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    before = weights(model)
    train(model, lambda model, x: ((model(x) - 1) ** 2).sum(1), batches(), 3)
    assert same(weights(model)[:2], before[:2])
    assert not same(weights(model)[2:], before[2:])


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


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        train(Mean(), squared_distance, batches(), 0)
    with pytest.raises(ValueError, match="steps_per_epoch must be at least 1, got -2"):
        train(Mean(), squared_distance, batches(), 5, steps_per_epoch=-2)
    with pytest.raises(ValueError, match="lr must be a finite number above 0, got 0"):
        train(Mean(), squared_distance, batches(), 5, lr=0)


def test_progress_bar_shows_unless_it_is_switched_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    train(nn.Linear(2, 1), lambda model, x: model(x)[:, 0], [torch.ones(4, 2)], 3)
    assert "training" in capsys.readouterr().err
    monkeypatch.setenv("TQDM_DISABLE", "1")
    train(nn.Linear(2, 1), lambda model, x: model(x)[:, 0], [torch.ones(4, 2)], 3)
    assert not capsys.readouterr().err


# --- batches of every form ------------------------------------------------------------


def plane_flow() -> NormalizingFlow:
    torch.manual_seed(0)
    return affine_flow(2, 8)


SMALL: dict[str, Any] = {"width": 8, "depth": 1, "frequencies": 1}
POINTS = next(batches(size=100))
LABELS = torch.arange(100) % 5
COLLECTIONS: dict[str, Iterable[Any]] = {
    "loader of one tensor": DataLoader(TensorDataset(POINTS), 32),
    "loader of two tensors": DataLoader(TensorDataset(POINTS, LABELS), 32),
    "list of batches": list(POINTS.split(32)),
    "list of pairs": list(zip(POINTS.split(32), LABELS.split(32), strict=True)),
}


def without_labels(flow: NormalizingFlow, batch: Any) -> Tensor:
    return negative_log_likelihood(flow, split_batch(batch)[0])


@pytest.mark.parametrize("name", COLLECTIONS)
def test_a_collection_of_batches_starts_again(name: str) -> None:
    """Four batches, ten steps: the same as the batches in a row without end."""
    ours, theirs = plane_flow(), plane_flow()
    in_a_row = iter(3 * list(POINTS.split(32)))
    train(ours, without_labels, COLLECTIONS[name], 10)
    train(theirs, without_labels, in_a_row, 10)
    assert same(weights(ours), weights(theirs))


def test_a_list_arrives_as_a_tuple() -> None:
    """As a DataLoader's lists do: a loss sees one form only."""
    seen = []

    def loss(model: Mean, batch: tuple[Tensor, ...]) -> Tensor:
        seen.append([type(batch), *map(type, batch)])
        return squared_distance(model, batch[0])

    train(Mean(), loss, DataLoader(TensorDataset(POINTS, LABELS), 32), 2)
    assert seen == 2 * [[tuple, Tensor, Tensor]]


def test_an_iterator_goes_on_where_the_training_left_it() -> None:
    source, twin = batches(), batches()
    train(Mean(), squared_distance, source, 3)
    assert torch.equal(next(source), list(islice(twin, 4))[3])


@pytest.mark.parametrize(("source", "there"), [(iter(3 * [POINTS]), 3), ([], 0)])
def test_batches_that_end_say_so(source: Iterable[Tensor], there: int) -> None:
    model = Mean()
    with pytest.raises(
        BatchesEndedError, match=rf"ended after {there} of 10 steps.*DataLoader"
    ) as caught:
        train(model, squared_distance, source, 10)
    assert len(caught.value.history.loss) == there
    assert same(weights(model), [torch.zeros(2)]) is (there == 0)
    assert model.value.isfinite().all()
    assert not model.training


@pytest.mark.parametrize(
    "source", [POINTS, (POINTS, LABELS), 7, None, {"x": POINTS}, TensorDataset(POINTS)]
)
def test_what_is_no_source_of_batches_is_refused(source: Any) -> None:
    expected = rf"an iterator, such as .* a DataLoader, got a {type(source).__name__}$"
    with pytest.raises(TypeError, match=expected):
        train(Mean(), squared_distance, source, 5)


FOUR = [np.int64(4), np.uint8(4), torch.tensor(4), torch.tensor(4, dtype=torch.int8)]
NOT_WHOLE = [True, np.True_, torch.tensor(True), 4.0, np.float64(4), torch.tensor(4.0)]


def images() -> Images:
    return Images(torch.rand(10, 1, 28, 28), torch.arange(10))


def corner(model: Mean, batch: tuple[Tensor, ...]) -> Tensor:
    return squared_distance(model, batch[0].flatten(1)[:, :2])


def nothing(model: nn.Module) -> dict[str, Tensor]:
    return {"nothing": torch.zeros(1)}


@pytest.mark.parametrize("four", FOUR, ids=repr)
def test_whole_numbers_of_numpy_and_torch_count_steps(four: Any) -> None:
    history = train(
        Mean(),
        squared_distance,
        batches(),
        four,
        warmup=four,
        measure=nothing,
        steps_per_epoch=four,
        keep={torch.tensor(1)},  # type: ignore[arg-type]
    )
    assert history.step == [0, 4]
    assert {type(step) for step in history.step} == {int}
    assert list(history.snapshots) == [1]
    history = train_epochs(
        Mean(), images(), corner, epochs=four, batch=four, measure=nothing
    )
    assert history.step == [0, 3, 6, 9, 12]
    flow, rings = affine_flow(1, 4), OlympicRings()
    made = train_fresh(flow, rings, negative_log_likelihood, steps=four, batch=four)
    assert len(made.loss) == 4


SAMPLES: dict[str, Callable[[Any], Tensor]] = {
    "rings": lambda n: OlympicRings().sample(n),
    "batch of rings": lambda n: next(OlympicRings().batches(n)),
    "batch of images": lambda n: next(images().batches(n))[0],
    "flow": lambda n: affine_flow(1, 4).sample(n),
    "flow matching": lambda n: FlowMatching(mlp_velocity(**SMALL)).sample(n, steps=n),
    "diffusion": lambda n: DDIM(mlp_denoiser(VPLinear(), **SMALL)).sample(n, steps=n),
    "VAE": lambda n: conv_vae(2, width=1, hidden=4).sample(n),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_whole_numbers_of_numpy_and_torch_count_samples(name: str) -> None:
    for four in FOUR:
        assert len(SAMPLES[name](four)) == 4
    for bad in NOT_WHOLE:
        with pytest.raises(TypeError, match="must be a whole number, got"):
            SAMPLES[name](bad)


@pytest.mark.parametrize("bad", [*NOT_WHOLE, "4", None], ids=repr)
@pytest.mark.parametrize("name", ["steps", "steps_per_epoch", "warmup", "keep"])
def test_what_is_no_whole_number_counts_no_steps(name: str, bad: Any) -> None:
    settings: dict[str, Any] = {"steps": 5, name: [bad] if name == "keep" else bad}
    with pytest.raises(TypeError, match=f"^{name} must be a whole number, got"):
        train(Mean(), squared_distance, batches(), **settings)


# --- losses of every form -------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "got"),
    [
        (lambda loss: loss.mean(), r"\(\)"),
        (lambda loss: loss.mean()[None], r"\(1,\)"),
        (lambda loss: loss[:2], r"\(2,\)"),
        (lambda loss: loss[:, None].expand(-1, 2), r"\(64, 2\)"),
    ],
)
@pytest.mark.parametrize("tupled", [False, True])
def test_a_loss_is_one_value_for_each_sample(
    form: Callable[[Tensor], Tensor], got: str, tupled: bool
) -> None:
    def loss(model: Mean, batch: Any) -> Tensor:
        return form(squared_distance(model, batch[0] if tupled else batch))

    model = Mean()
    source: Iterator[Any] = zip(batches()) if tupled else batches()
    with pytest.raises(ValueError, match=rf"must have shape \(64,\), .* got {got}"):
        train(model, loss, source, 5)
    assert torch.equal(model.value, torch.zeros(2))


@pytest.mark.parametrize(
    ("form", "got"),
    [
        (lambda loss: loss.long(), r"torch\.int64"),
        (lambda loss: loss > 1, r"torch\.bool"),
        (lambda loss: loss.mean().item(), "float"),
        (lambda loss: None, "NoneType"),
    ],
)
def test_a_loss_is_a_floating_tensor(form: Callable[[Tensor], Any], got: str) -> None:
    def loss(model: Mean, batch: Tensor) -> Any:
        return form(squared_distance(model, batch))

    with pytest.raises(
        TypeError, match=rf"must be a floating tensor \(B,\), got {got}"
    ):
        train(Mean(), loss, batches(), 5)


STEP = 3


def spoilt(kind: str) -> Callable[[Mean, Tensor], Tensor]:
    """A loss that goes wrong at one step: it, or its gradient alone."""
    calls = iter(range(1000))

    def loss(model: Mean, batch: Tensor) -> Tensor:
        value = squared_distance(model, batch)
        if next(calls) != STEP:
            return value
        if kind == "gradient":
            return value + (0 * model.value.sum()).sqrt()  # √0 has no slope
        return value.index_fill(0, torch.tensor(5), float(kind))

    return loss


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "the loss is nan at step 3. Try a lower learning rate"),
        ("inf", "the loss is inf at step 3. Try a lower learning rate"),
        ("gradient", "gradient is nan at step 3, though the loss is finite.* root"),
    ],
)
def test_what_is_not_finite_stops_before_it_spoils_the_model(
    kind: str, message: str
) -> None:
    """The weights are those of a twin that was stopped before this step."""
    model, twin = Mean(), Mean()
    with pytest.raises(TrainingDivergedError, match=message) as caught:
        train(model, spoilt(kind), batches(), 10, lr=0.1)
    expected = train(twin, squared_distance, stopped(STEP), 10, lr=0.1)
    assert same(weights(model), weights(twin))
    assert caught.value.history.loss == expected.loss
    assert len(expected.loss) == STEP
    assert isinstance(caught.value, TrainingError)


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

    def measure(model: Mean) -> dict[str, Tensor]:
        values = torch.full((1000,), 2.0)
        values[:20] += next(excess)
        return {"nll": values}

    def run() -> None:
        train(
            Mean(), squared_distance, batches(), 50, measure=measure, steps_per_epoch=10
        )

    if stopped_at is None:
        run()
        return
    expected = rf"diverged at step {stopped_at}: 1 % .* nll above 42 .*limit is 6"
    with pytest.raises(TrainingDivergedError, match=expected) as caught:
        run()
    assert caught.value.history.step[-1] == len(caught.value.history.loss) == stopped_at


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
            measure=lambda flow: {"nll": negative_log_likelihood(flow, held_out)},
            steps_per_epoch=20,
        )


# --- samples that a model cannot take, in every loss ----------------------------------

IMAGES = torch.rand(6, 1, 28, 28)
DIGITS = torch.arange(6)
LOSSES: dict[str, tuple[Callable[[], Any], Callable[[Any, Any], Tensor], Tensor]] = {
    "flow matching": (
        lambda: FlowMatching(mlp_velocity(**SMALL)),
        FlowMatchingLoss(),
        POINTS[:6],
    ),
    "diffusion": (
        lambda: mlp_denoiser(VPLinear(), **SMALL),
        DiffusionLoss(),
        POINTS[:6],
    ),
    "normalizing flow": (plane_flow, negative_log_likelihood, POINTS[:6]),
    "VAE": (lambda: conv_vae(2, width=1, hidden=4), negative_elbo, IMAGES),
    "classifier": (lambda: Classifier(1), augmented_cross_entropy, IMAGES),
}
SPOIL: dict[str, tuple[Callable[[Tensor], Any], type[Exception], str]] = {
    "one NaN": (
        lambda x: x.index_fill(0, torch.tensor(4), nan),
        ValueError,
        r"must be finite, got 1 of 6 rows .* the first at row 4",
    ),
    "a value too many": (
        lambda x: torch.cat([x, x[..., :1]], dim=-1),
        ValueError,
        r"must have shape \(B, .*\), got \(6, .*\)",
    ),
    "a row of values": (
        lambda x: torch.zeros(6, 784),
        ValueError,
        r"must have shape \(B, .*\), got \(6, 784\)",
    ),
    "whole numbers": (
        lambda x: x.long(),
        TypeError,
        "must have a floating dtype, got torch.int64",
    ),
    "double precision": (
        lambda x: x.double(),
        TypeError,
        "must have dtype torch.float32 like the model, got torch.float64",
    ),
    "another device": (
        lambda x: x.to("meta"),
        ValueError,
        "must be on cpu like the model, got meta",
    ),
    "no samples": (lambda x: x[:0], ValueError, "at least one row"),
    "a list": (
        lambda x: x.tolist(),
        TypeError,
        "must be .*, got a? ?list",
    ),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("case", SPOIL)
def test_a_loss_refuses_samples_that_its_model_cannot_take(
    name: str, case: str
) -> None:
    (build, loss, good), (spoil, error, message) = LOSSES[name], SPOIL[case]
    model = build()

    def call(x: Any) -> Tensor:
        return loss(model, (x, DIGITS) if good is IMAGES else x)

    assert call(good).shape == (6,)
    with pytest.raises(error, match=message):
        call(spoil(good))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_another_engine_can_be_passed_in(name: str, precision: Any) -> None:
    build, loss, good = LOSSES[name]
    model = build()
    before = weights(model)
    batch = (good, DIGITS) if good is IMAGES else good
    engine = Fabric(accelerator="cpu", devices=1, precision=precision)
    history = train(model, loss, [batch], 3, fabric=engine)
    after = weights(model)
    assert len(history.loss) == 3
    assert not same((b.to(a) for a, b in zip(after, before, strict=True)), after)


def test_a_bad_batch_in_training_leaves_what_was_learnt() -> None:
    flow, twin = plane_flow(), plane_flow()
    source = [POINTS, POINTS, POINTS * nan, POINTS]
    with pytest.raises(ValueError, match="100 of 100 rows") as caught:
        train(flow, negative_log_likelihood, iter(source), 4)
    with pytest.raises(BatchesEndedError):
        train(twin, negative_log_likelihood, iter(source[:2]), 4)
    history: History = caught.value.history  # type: ignore[attr-defined]
    assert len(history.loss) == 2
    assert same(weights(flow), weights(twin))


# --- stopped by the user --------------------------------------------------------------


def test_interrupting_returns_the_history_so_far() -> None:
    model = Mean()
    history = train(model, squared_distance, stopped(7), 1000, lr=0.05)
    assert history.interrupted
    assert len(history.loss) == 7
    assert not torch.equal(model.value, torch.zeros(2))


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


def moody(seed: int = 0) -> Moody:
    torch.manual_seed(seed)
    return Moody()


def moody_loss(model: Moody, batch: Tensor) -> Tensor:
    return (model(batch) ** 2).sum(1)


def test_train_mode_for_steps_eval_mode_for_measuring_and_in_the_end() -> None:
    model, held_out = Moody().eval(), next(batches(1, 500))
    seen: list[Tensor] = []

    def measure(model: Moody) -> dict[str, Tensor]:
        seen.append(model.net[1].running_mean.clone())  # type: ignore[operator]
        return {"loss": moody_loss(model, held_out)}

    train(model, moody_loss, batches(), 4, measure=measure, steps_per_epoch=2)
    assert model.modes == [False, True, True, False, True, True, False]
    assert not any(module.training for module in model.modules())
    # measuring leaves the running mean alone, steps move it
    assert torch.equal(seen[-1], model.net[1].running_mean)  # type: ignore[arg-type]
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("where", ["batch", "loss", "measure"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, TrainingDivergedError])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_eval_mode_also_when_training_stops_early(
    where: str, error: type[BaseException], ema: float | None
) -> None:
    model = Moody().eval()

    def stop(training: bool) -> None:
        assert training is (where != "measure")
        raise error

    def source() -> Iterator[Tensor]:
        yield next(batches())
        stop(model.training)

    def loss(model: Moody, batch: Tensor) -> Tensor:
        if where == "loss":
            stop(model.training)
        return moody_loss(model, batch)

    def measure(model: Moody) -> dict[str, Tensor]:
        stop(model.training)
        return {}

    def run() -> History:
        watched = measure if where == "measure" else None
        return train(model, loss, source(), 5, measure=watched, ema=ema)

    if error is KeyboardInterrupt:
        assert run().interrupted
    else:
        with pytest.raises(error):
            run()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("ema", [None, 0.5])
def test_an_interrupt_inside_a_step_leaves_the_steps_before_it(
    ema: float | None,
) -> None:
    calls = iter(range(1000))

    def loss(model: Moody, batch: Tensor) -> Tensor:
        value = moody_loss(model, batch)
        if next(calls) == STEP:
            raise KeyboardInterrupt
        return value

    model, twin = moody(), moody()
    torch.manual_seed(1)
    history = train(model, loss, batches(), 10, ema=ema)
    torch.manual_seed(1)
    expected = train(twin, moody_loss, stopped(STEP), 10, ema=ema)
    assert history.interrupted
    assert history.loss == expected.loss
    assert len(history.loss) == STEP
    assert same(model.parameters(), twin.parameters())
    assert not model.training


# --- what is kept ---------------------------------------------------------------------


def test_snapshots_are_the_weights_after_whole_epochs() -> None:
    def run(model: Mean, source: Iterator[Tensor], keep: Iterable[int]) -> History:
        return train(
            model, squared_distance, source, 30, steps_per_epoch=10, keep=set(keep)
        )

    whole, early = Mean(), Mean()
    history = run(whole, batches(), [0, 2, 3])
    assert list(history.snapshots) == [0, 2, 3]
    assert torch.equal(history.snapshots[0]["value"], torch.zeros(2))
    assert torch.equal(history.snapshots[3]["value"], whole.value)
    # the second one is what a twin had when it was stopped after 20 of the 30 steps
    half = run(early, stopped(20), [2, 3])
    assert torch.equal(history.snapshots[2]["value"], early.value)
    assert half.interrupted
    assert list(half.snapshots) == [2]
    assert torch.equal(half.snapshots[2]["value"], early.value)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ([-1], "keep must be at least 0, got -1"),
        ([1, 3], r"from 0 to 2 \(25 steps, 10 an epoch\), got 3"),
    ],
)
def test_snapshots_that_cannot_be_kept_are_refused(
    keep: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(Mean(), squared_distance, batches(), 25, steps_per_epoch=10, keep=keep)


# --- measuring changes nothing --------------------------------------------------------


def measured_run(seed: int, measure: Callable[[Moody], Any] | None) -> Any:
    """A model that needs chance at each step, and its history."""
    model = moody()
    torch.manual_seed(seed)
    history = train(model, moody_loss, batches(), 6, measure=measure, steps_per_epoch=2)
    return history, weights(model)


def greedy(model: Moody) -> dict[str, Tensor]:
    """A measurement that takes random numbers, and says which."""
    values = torch.rand(50)
    return {"chance": values, "loss": moody_loss(model, torch.randn(50, 2))}


def test_measuring_leaves_the_training_as_it_is() -> None:
    (alone, expected), (watched, found) = (
        measured_run(5, measure) for measure in (None, greedy)
    )
    assert alone.loss == watched.loss
    assert same(expected, found)
    assert not same(expected, measured_run(6, None)[1])  # chance there was


def test_measurements_have_the_same_chance_each_time() -> None:
    """A curve shows how the model changes, not which samples were drawn."""
    (first, _), (again, _), (other, _) = (measured_run(s, greedy) for s in (5, 5, 6))
    assert first.measured == again.measured
    assert len(set(first.measured["chance"])) == 1
    assert other.measured["chance"] == first.measured["chance"]
    assert other.measured["loss"] != first.measured["loss"]


# --- the average of the weights -------------------------------------------------------

BETA = 0.8


def averaged(steps: int, ema: float | None, **settings: Any) -> Any:
    """The model, its history, and its weights before each step."""
    model, seen = moody(), []

    def loss(model: Moody, batch: Tensor) -> Tensor:
        seen.append([p.detach().clone() for p in model.parameters()])
        return moody_loss(model, batch)

    torch.manual_seed(1)
    history = train(model, loss, batches(), steps, ema=ema, **settings)
    return model, history, seen


def test_the_average_is_that_of_a_hand_written_loop() -> None:
    """It begins with the weights after the first step; the training stays as it is."""
    model, history, seen = averaged(6, BETA)
    plain, expected, _ = averaged(6, None)
    assert history.loss == expected.loss
    average = seen[1]
    for after in [*seen[2:], list(plain.parameters())]:
        average = [
            BETA * mean + (1 - BETA) * new
            for mean, new in zip(average, after, strict=True)
        ]
    for found, mean in zip(model.parameters(), average, strict=True):
        assert torch.allclose(found, mean, rtol=1e-5, atol=1e-7)
    assert not same(model.parameters(), plain.parameters())
    # statistics of batch norm are averages already: they are those of the last step
    assert same(model.buffers(), plain.buffers())


def test_an_average_without_memory_is_the_model() -> None:
    (ours, history, _), (plain, expected, _) = (averaged(6, ema) for ema in (0, None))
    assert history.loss == expected.loss
    assert same(weights(ours), weights(plain))


def test_the_average_is_what_is_measured_and_kept() -> None:
    seen: list[list[Tensor]] = []

    def measure(model: Moody) -> dict[str, Tensor]:
        assert not model.training
        seen.append(weights(model))
        return {"loss": torch.zeros(1)}

    model, history, _ = averaged(
        6, BETA, measure=measure, steps_per_epoch=3, keep=[0, 1, 2]
    )
    assert same(seen[0], weights(moody()))
    assert same(seen[-1], weights(model))
    assert len(seen) == 3
    for epoch, values in enumerate(seen):
        assert same(history.snapshots[epoch].values(), values)


def test_an_interrupt_leaves_the_average_in_the_model() -> None:
    def run(source: Iterator[Tensor], **settings: Any) -> tuple[Mean, History]:
        model = Mean()
        return model, train(model, squared_distance, source, 10, ema=BETA, **settings)

    early, history = run(stopped(4))
    _, whole = run(batches(), steps_per_epoch=2, keep=[2])
    assert history.interrupted
    assert same(weights(early), whole.snapshots[2].values())
    assert same(weights(run(stopped(0))[0]), weights(Mean()))


@pytest.mark.parametrize("ema", [1, -0.1, nan])
def test_bad_averages(ema: float) -> None:
    with pytest.raises(ValueError, match=r"ema must lie in \[0, 1\), got"):
        train(Mean(), squared_distance, batches(), 5, ema=ema)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_gradients_that_a_scaler_scales_are_no_divergence() -> None:
    """Half precision begins with a scale at which they overflow, and lowers it."""
    scaler = torch.amp.GradScaler("cpu")
    precision = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    model, begin = Mean(), torch.zeros(2)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    steep: Turn[Mean, Tensor] = Turn(
        lambda m, x: 1e3 * squared_distance(m, x), [sgd], clip=0.001
    )
    engine = Fabric(accelerator="cpu", devices=1, plugins=[precision])
    train(model, [steep], batches(), 20, warmup=1, fabric=engine)
    assert model.value.isfinite().all()
    way = float((model.value.detach() - begin).norm())
    assert 0.0005 < way < 0.02  # of 20 steps, each at most 0.001 long


def test_training_inside_no_grad_and_losses_without_gradient() -> None:
    model = Mean()
    with torch.no_grad():
        train(model, squared_distance, batches(), 3)
    assert not torch.equal(model.value, torch.zeros(2))
    with pytest.raises(ValueError, match=r"depend on a weight.*detached"):
        train(model, lambda m, x: squared_distance(m, x).detach(), batches(), 3)


def test_accuracies_are_measured_as_they_come() -> None:
    right = torch.tensor([True, True, False, True])
    history = train(
        Mean(), squared_distance, batches(), 2, measure=lambda _: {"accuracy": right}
    )
    assert history.measured["accuracy"] == [0.75, 0.75]


def test_a_loader_that_drops_all_it_has_says_so() -> None:
    empty = DataLoader(TensorDataset(POINTS), 128, drop_last=True)
    with pytest.raises(BatchesEndedError, match="drop_last gives none"):
        train(Mean(), squared_distance, empty, 3)
