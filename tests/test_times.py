"""A model's time: one for each sample, within its reach, and used for that sample."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from course_utils.data import Square
from course_utils.models.diffusion import (
    DDIM,
    DDPM,
    ContinuousSchedule,
    DDPMSchedule,
    DiffusionLoss,
    GuidedDenoiser,
    OptimalDenoiser,
    ProbabilityFlow,
    Schedule,
    VPCosine,
    bridge,
    jump,
    linear_betas,
    loss_floor,
    mlp_denoiser,
    mutual_information,
    transition,
    walk,
)
from course_utils.models.diffusion.likelihood import flow_and_divergence
from course_utils.models.flow_matching import (
    FlowMatching,
    FlowMatchingLoss,
    GuidedVelocity,
    LinearPath,
    OptimalVelocity,
    mlp_velocity,
)
from course_utils.notebook import seeded

Shape = tuple[int, ...]
Use = Callable[[Tensor, Any], Tensor]  # samples (B, *shape), times (B,) → (B, …)

COSINE = VPCosine(0.1, 0.9)
CHAIN = DDPMSchedule(linear_betas(40, 1e-3, 0.3))
POINTS = torch.tensor([[0.1, -0.7], [1.2, 0.3], [-0.4, 0.4]], dtype=torch.float64)


def shaken(net: nn.Module) -> Any:
    """In float64, with weights far from those it starts with."""
    for k, parameter in enumerate(net.parameters()):
        nn.init.normal_(parameter, std=0.3, generator=seeded(k))
    return net.double()


def labels(x: Tensor) -> Tensor:
    """A class for each sample that does not hang on its place in the batch."""
    return (x.flatten(1).sum(1) > 0).long()


def uses_of_a_flow(shape: Shape) -> dict[str, Use]:
    """All of flow matching that takes a time for each sample."""
    sizes: dict[str, Any] = {"width": 8, "depth": 1, "frequencies": 1}
    plain, knows = (shaken(mlp_velocity(shape, classes=c, **sizes)) for c in (0, 2))
    model, guided = FlowMatching(plain, shape), GuidedVelocity(knows, 2.0, plain)
    return {
        "path": lambda y, t: LinearPath().point(y.cos(), y, t),
        "velocity": plain,
        "guided velocity": lambda y, t: guided(y, t, labels(y)),
        "loss": lambda y, t: FlowMatchingLoss().at(model, y.cos(), y, t),
    }


def uses_of_diffusion(schedule: Schedule, shape: Shape) -> dict[str, Use]:
    """All of diffusion that takes a time for each sample."""
    sizes: dict[str, Any] = {"shape": shape, "width": 8, "depth": 1, "frequencies": 1}
    plain, knows = (
        shaken(mlp_denoiser(schedule, 0.7, classes=c, **sizes)) for c in (0, 2)
    )
    guided = GuidedDenoiser(knows, 2.0, plain)
    return {
        "jump": lambda x, t: jump(schedule, x, t, x.cos()),
        "levels": lambda x, t: torch.cat(schedule.levels(t, x), dim=1),
        "check": lambda x, t: schedule.check(t, len(x)),
        "check of what is learnt": lambda x, t: schedule.check_learnt(t, len(x)),
        "denoiser": plain,
        "prediction": lambda x, t: plain.predict(x, t).x0,
        "guided denoiser": lambda x, t: guided(x, t, labels(x)),
        "guided prediction": lambda x, t: guided.predict(x, t, labels(x)).v,
        "loss": lambda x, t: DiffusionLoss("x0").at(plain, x, t, x.cos()),
    }


def best_denoiser(schedule: Schedule) -> dict[str, Use]:
    best = OptimalDenoiser(Square(), schedule)
    return {"truth": best, "prediction of the truth": lambda x, t: best.predict(x, t).v}


# family → what takes times, a time, times outside
FAMILIES: dict[str, tuple[dict[str, Use], float, list[float]]] = {
    "flow": (
        uses_of_a_flow((2,)) | {"truth": OptimalVelocity(Square())},
        0.5,
        [-0.1, 1.1],
    ),
    "cosine": (
        uses_of_diffusion(COSINE, (2,)) | best_denoiser(COSINE),
        0.5,
        [0.0, 1.0],
    ),
    "chain": (
        uses_of_diffusion(CHAIN, (2,)) | best_denoiser(CHAIN),
        7.0,
        [-1.0, 41.0, 6.5],
    ),
}
USES = [(family, name) for family in FAMILIES for name in FAMILIES[family][0]]

Spoil = Callable[[Tensor], object]
BAD_TIMES: dict[str, tuple[Spoil, type[Exception], str]] = {
    "integers": (
        lambda t: t.long(),
        TypeError,
        r"t must be a floating tensor of shape \(3,\), got torch.int64",
    ),
    "a list": (lambda t: t.tolist(), TypeError, "list"),
    "a column": (lambda t: t[:, None], ValueError, r"shape \(3,\).*got \(3, 1\)"),
    "a row": (lambda t: t[None], ValueError, r"shape \(3,\).*got \(1, 3\)"),
    "too few": (lambda t: t[:2], ValueError, r"shape \(3,\).*got \(2,\)"),
    "one for all": (lambda t: t[:1], ValueError, r"shape \(3,\).*got \(1,\)"),
    "no axis": (lambda t: t[0], ValueError, r"shape \(3,\).*got \(\)"),
    "NaN": (
        lambda t: t.where(t.new_tensor([True, False, True]).bool(), float("nan")),
        ValueError,
        "t must lie in .*got nan",
    ),
    "infinity": (lambda t: t + float("inf"), ValueError, "t must lie in .*got inf"),
}


@pytest.mark.parametrize("bad", BAD_TIMES)
@pytest.mark.parametrize(("family", "name"), USES)
def test_what_is_no_time_for_each_sample_is_refused(
    family: str, name: str, bad: str
) -> None:
    uses, t, _ = FAMILIES[family]
    spoil, error, message = BAD_TIMES[bad]
    with pytest.raises(error, match=message):
        uses[name](POINTS, spoil(torch.full((3,), t)))


@pytest.mark.parametrize(("family", "name"), USES)
def test_times_outside_are_refused(family: str, name: str) -> None:
    uses, t, outside = FAMILIES[family]
    assert uses[name](POINTS, torch.full((3,), t)).isfinite().all()
    for wrong in outside:
        with pytest.raises(ValueError, match=f"t must .*got .*{wrong:g}"):
            uses[name](POINTS, torch.tensor([t, wrong, t]))


# --- a number in place of a tensor ----------------------------------------------------


def uses_of_a_number() -> dict[str, tuple[Callable[[float], object], list[float]]]:
    """What takes one time for all samples, and times outside."""
    found: dict[str, tuple[Callable[[float], object], list[float]]] = {}
    flow = FlowMatching(shaken(mlp_velocity(width=8, depth=1, frequencies=1)))
    for name, use in {
        "field": lambda t: flow.field()(POINTS, t),
        "divergence of the field": lambda t: flow.velocity_and_divergence(POINTS, t),
    }.items():
        found[name] = (use, FAMILIES["flow"][2])
    for family, schedule in (("cosine", COSINE), ("chain", CHAIN)):
        for name, use in uses_with_a_schedule(schedule).items():
            found[f"{family}, {name}"] = (use, FAMILIES[family][2])
    return found


def uses_with_a_schedule(schedule: Schedule) -> dict[str, Callable[[float], object]]:
    net = shaken(mlp_denoiser(schedule, 0.7, width=8, depth=1, frequencies=1))
    inner = schedule.times(2)[1]
    uses: dict[str, Callable[[float], object]] = {
        "level": schedule.at,
        "transition to": lambda t: transition(schedule, inner, t),
        "transition from": lambda t: transition(schedule, t, inner),
        "bridge": lambda t: bridge(schedule, POINTS, POINTS, t, inner),
        "walk": lambda t: walk(schedule, POINTS, [t]),
        "prediction": lambda t: net.predict(POINTS, t),
        "divergence": lambda t: net.x0_and_divergence(POINTS, t),
        "DDIM from": lambda t: DDIM(net).step(POINTS, t, inner),
        "DDIM to": lambda t: DDIM(net).step(POINTS, inner, t),
        "DDPM to": lambda t: DDPM(net).step(POINTS, inner, t),
        "floor": lambda t: loss_floor(Square(), schedule, t),
        "information": lambda t: mutual_information(Square(), schedule, t),
    }
    if isinstance(schedule, ContinuousSchedule):
        flow = ProbabilityFlow(net)
        uses |= {
            "flow from": lambda t: flow.step(POINTS, t, inner),
            "flow to": lambda t: flow.step(POINTS, inner, t),
            "divergence of the flow": lambda t: flow_and_divergence(net, POINTS, t),
        }
    return uses


NUMBERS = uses_of_a_number()


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_outside_is_refused(name: str) -> None:
    use, outside = NUMBERS[name]
    for wrong in (*outside, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f" must .*got .*{wrong:g}"):
            use(wrong)


# --- each sample has its own ----------------------------------------------------------

IMAGES: Shape = (1, 28, 28)  # a batch of 28 broadcasts wherever an axis is forgotten
OF_IMAGES: dict[str, tuple[dict[str, Use], Tensor]] = {
    "flow": (uses_of_a_flow(IMAGES), torch.linspace(0.0, 1.0, 28)),
    "cosine": (uses_of_diffusion(COSINE, IMAGES), torch.linspace(0.1, 0.9, 28)),
    "chain": (uses_of_diffusion(CHAIN, IMAGES), torch.arange(1.0, 29.0)),
}


@pytest.mark.parametrize(
    ("family", "name"), [(f, n) for f in OF_IMAGES for n in OF_IMAGES[f][0]]
)
def test_every_image_has_its_own_time(family: str, name: str) -> None:
    uses, t = OF_IMAGES[family]
    x = torch.randn(28, *IMAGES, generator=seeded(0), dtype=torch.float64)
    pairs = zip(x.split(1), t.double().split(1), strict=True)
    together = uses[name](x, t.double())
    apart = [uses[name](each, its_time) for each, its_time in pairs]
    assert together.shape[0] == 28
    assert torch.allclose(together, torch.cat(apart), rtol=1e-9, atol=1e-12)


# --- the chain ------------------------------------------------------------------------


def test_the_data_are_a_time_of_the_chain_but_nothing_to_learn() -> None:
    x, zero = POINTS, torch.zeros(3)
    assert torch.equal(jump(CHAIN, x, zero, x.cos()), x)
    assert torch.equal(CHAIN.levels(zero, x).sigma, x.new_zeros(3, 1))
    net = shaken(mlp_denoiser(CHAIN, width=8, depth=1, frequencies=1))
    best = OptimalDenoiser(Square(), CHAIN)
    for use in (
        lambda: net(x, zero),
        lambda: net.predict(x, 0.0),
        lambda: best.predict(x, zero),
        lambda: DiffusionLoss().at(net, x, zero, x.cos()),
    ):
        with pytest.raises(ValueError, match=r"t must lie in \[1, 40\], got 0"):
            use()


@pytest.mark.parametrize("t", [-4.0, 0.0, 1004.0])
def test_steps_in_half_precision_have_no_room_for_rounding(t: float) -> None:
    """The spacing of bfloat16 is 8 at T = 1000: past the ends is not near enough."""
    schedule = DDPMSchedule(linear_betas(1000))
    wrong = torch.tensor([t], dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=rf"t must lie in \[1, 1000\], got {t:g}"):
        schedule.check_learnt(wrong, 1)
    if t:
        with pytest.raises(ValueError, match=rf"in \[0, 1000\], got {t:g}"):
            schedule.levels(wrong, torch.zeros(1, 2))


class NoiseFalls(VPCosine):
    """Flow matching's convention: t = 1 is the data."""

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t


def test_noise_grows_with_time() -> None:
    with pytest.raises(ValueError, match="noise must grow with t"):
        NoiseFalls()


def test_betas_of_any_kind() -> None:
    betas = linear_betas(5)
    kinds: list[Any] = [betas, betas.tolist(), betas.numpy()]
    for same in kinds:
        assert torch.equal(DDPMSchedule(same).alphas_bar, CHAIN_OF_FIVE.alphas_bar)
    with torch.device("meta"):
        assert VPCosine().at(0.5) == VPCosine().at(0.5)


def test_samples_are_checked_where_a_denoiser_is_asked() -> None:
    net = mlp_denoiser(VPCosine(), width=8, depth=1, frequencies=1)
    for use in (lambda x: net.predict(x, 0.5), lambda x: DDPM(net).step(x, 0.5, 0.4)):
        with pytest.raises(ValueError, match=r"shape \(B, 2\), got \(4, 3\)"):
            use(torch.ones(4, 3))
        with pytest.raises(TypeError, match="floating dtype, got"):
            use(torch.ones(4, 2, dtype=torch.int64))
    best = OptimalDenoiser(Square("by class"), VPCosine(), given_label=True)
    with pytest.raises(ValueError, match="expected labels, got None"):
        best.x0_and_divergence(torch.zeros(2, 2), 0.5)


CHAIN_OF_FIVE = DDPMSchedule(linear_betas(5))
