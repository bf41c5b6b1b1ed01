"""Flow matching against exact Gaussians, the flow_matching library and Monte Carlo."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from itertools import pairwise
from math import pi
from typing import Any

import pytest
import torch
from flow_matching.path import CondOTProbPath
from flow_matching.solver import ODESolver
from scipy.integrate import quad
from scipy.linalg import expm
from scipy.optimize import linear_sum_assignment
from scipy.stats import kstest
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from course_utils.data import (
    GaussianMixture,
    OlympicRings,
    PlaneData,
    Spiral,
    Square,
)
from course_utils.data.plane import Posterior
from course_utils.metrics import sliced_wasserstein
from course_utils.models.flow_matching import (
    FlowMatching,
    FlowMatchingLoss,
    GapToOptimum,
    LinearPath,
    OptimalVelocity,
    Velocity,
    draw_time,
    independent,
    loss_floor,
    mean_loss_floor,
    mlp_velocity,
    optimal_transport,
    train_flow_matching,
    velocity_gap,
)
from course_utils.networks.conditioning import ClassLabels, Condition
from course_utils.notebook import seeded
from course_utils.solvers import RK4, Euler, Heun, Midpoint, Solver
from course_utils.training import train

# --- data and fields that are known exactly -------------------------------------------


class Gaussian(PlaneData):
    """N(m, σ²I), raw."""

    def __init__(self, centre: tuple[float, float] = (0, 0), sigma: float = 1) -> None:
        self.centre = torch.tensor(centre, dtype=torch.float64)
        self.sigma = sigma
        super().__init__(standardized=False)

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return self.centre + self.sigma * noise

    def law(self, extra: float = 0.0) -> MultivariateNormal:
        variance = (self.sigma**2 + extra) * torch.eye(2, dtype=torch.float64)
        return MultivariateNormal(self.centre, variance)

    def _log_density(self, raw: Tensor, label: Tensor | None) -> Tensor:
        return self.law().log_prob(raw)

    def _moments(self) -> tuple[Tensor, Tensor]:
        return self.centre, torch.full((2,), self.sigma, dtype=torch.float64)

    def _entropy(self, given_label: bool) -> float:
        return float(self.law().entropy())

    def _posterior(self, raw: Tensor, noise: Tensor, label: int | None) -> Posterior:
        gain = self.sigma**2 / (self.sigma**2 + noise**2)
        log_density = self.law(float(noise[0]) ** 2).log_prob(raw)
        mean = self.centre + gain * (raw - self.centre)
        return Posterior(log_density, mean, (gain * noise**2).expand_as(raw))

    def _mmse(self, noise: Tensor, label: int | None) -> Tensor:
        return self.sigma**2 * noise**2 / (self.sigma**2 + noise**2)


class GaussianField(Velocity):
    """The field that carries y₀ to t·m + σ_t·y₀ with σ_t² = t²σ² + (1−t)²."""

    def __init__(self, data: Gaussian) -> None:
        super().__init__()
        self.m, self.sigma = data.centre, data.sigma

    def at(self, y: Tensor, t: Tensor, condition: Condition) -> Tensor:
        t = t[:, None]
        rate = (t * self.sigma**2 - (1 - t)) / (t**2 * self.sigma**2 + (1 - t) ** 2)
        return self.m.to(y) + rate * (y - t * self.m.to(y))


class LinearField(Velocity):
    """A·y + b at all times."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.a, self.b = a, b

    def at(self, y: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return y @ self.a.T + self.b


FAR = Gaussian((6.0, -4.0), 0.1)  # nobody takes these data for the noise


Shape = tuple[int, ...]


def shaken(
    std: float = 0.4, seed: int = 1, shape: Shape = (2,), **sizes: Any
) -> FlowMatching:
    """A model in float64 whose network's weights are far from where they start."""
    torch.manual_seed(seed)
    sizes = {"width": 16, "depth": 2, "frequencies": 2} | sizes
    velocity = mlp_velocity(shape, **sizes)
    for parameter in velocity.parameters():
        nn.init.normal_(parameter, std=std)
    return FlowMatching(velocity.double(), shape)


def small(classes: int = 0) -> FlowMatching:
    return FlowMatching(mlp_velocity(classes=classes, width=8, depth=1, frequencies=1))


def points(n: int, *shape: int, seed: int = 2) -> Tensor:
    size = (n, *(shape or (2,)))
    return torch.randn(size, generator=seeded(seed), dtype=torch.float64)


def within(values: Tensor, expected: float, errors: float = 4.0) -> bool:
    """Whether the mean lies within that many standard errors of what is expected."""
    error = float(values.std()) / len(values) ** 0.5
    return abs(float(values.mean()) - expected) < errors * error


# --- the path, the times, the couplings -----------------------------------------------


def test_the_path_runs_from_noise_to_data() -> None:
    y0, y1 = points(50_000), FAR.sample(50_000, seeded(0)).double()
    path, ones = LinearPath(), torch.ones(50_000, dtype=torch.float64)
    assert torch.equal(path.point(y0, y1, 0 * ones), y0)
    assert torch.equal(path.point(y0, y1, ones), y1)
    at = path.point(y0, y1, 0.75 * ones)
    assert torch.allclose(at.mean(0), 0.75 * FAR.centre, atol=0.01)
    assert torch.allclose(at.std(0), at.new_tensor(0.2610), atol=0.005)
    later = path.point(y0, y1, 0.8 * ones)
    assert torch.allclose((later - at) / 0.05, path.velocity(y0, y1), atol=1e-10)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 4.0])
def test_times_follow_their_law(power: float) -> None:
    t = draw_time(torch.empty(20_000, 1, 1), power, seeded(0)).double()
    assert t.shape == (20_000,)
    assert kstest(t, lambda x: x**power).pvalue > 1e-3
    assert kstest(t, lambda x: x ** (1.1 * power)).pvalue < 1e-6


@pytest.mark.parametrize("n", [1, 2, 7, 128])
def test_optimal_transport_equals_the_best_assignment(n: int) -> None:
    y0, y1 = points(n, seed=n), OlympicRings().sample(n, seeded(n)).double()
    found = optimal_transport(y0, y1)
    rows, columns = linear_sum_assignment(torch.cdist(y1, y0).numpy() ** 2)
    assert (rows == range(n)).all()
    assert torch.equal(found, y0[torch.from_numpy(columns)])
    assert sorted(found.tolist()) == sorted(y0.tolist())
    cost, drawn = (((y - y1) ** 2).sum() for y in (found, independent(y0, y1)))
    assert cost <= drawn
    assert n < 7 or cost < 0.5 * drawn


# --- the loss -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2,), (3,), (2, 1, 3)])
def test_sum_is_dim_times_mean(shape: Shape) -> None:
    model, y0, y1 = shaken(shape=shape), points(30, *shape), points(30, *shape, seed=3)
    t = torch.rand(30, generator=seeded(4), dtype=torch.float64)
    total = FlowMatchingLoss(reduction="sum").at(model, y0, y1, t)
    mean = FlowMatchingLoss(reduction="mean").at(model, y0, y1, t)
    assert total.shape == (30,)
    assert torch.allclose(total, y1[0].numel() * mean, rtol=1e-14)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_one_step_equals_the_library(
    optimizer: Callable[..., torch.optim.Optimizer],
) -> None:
    ours = shaken()
    theirs = deepcopy(ours.velocity)
    y0, y1 = points(64), OlympicRings().sample(64, seeded(5)).double()
    t = torch.rand(64, generator=seeded(6), dtype=torch.float64)
    drawn = CondOTProbPath().sample(t=t, x_0=y0, x_1=y1)
    losses = [
        FlowMatchingLoss().at(ours, y0, y1, t).mean(),
        ((theirs(drawn.x_t, drawn.t) - drawn.dx_t) ** 2).sum(1).mean(),
    ]
    assert torch.allclose(losses[0], losses[1], rtol=1e-12)
    for loss, module in zip(losses, (ours.velocity, theirs), strict=True):
        step = optimizer(module.parameters(), lr=0.01)
        loss.backward()
        step.step()
    pairs = zip(ours.velocity.parameters(), theirs.parameters(), strict=True)
    start = shaken().velocity
    for (a, b), before in zip(pairs, start.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.allclose(a.grad, b.grad, rtol=1e-9, atol=1e-12)
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)
        assert not torch.equal(a, before)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_loss_of_the_best_field_is_the_floor(power: float) -> None:
    model, loss = FlowMatching(GaussianField(FAR)), FlowMatchingLoss(power)
    loss.generator = seeded(7)
    drawn = loss(model, FAR.sample(200_000, seeded(8)))
    assert within(drawn, mean_loss_floor(FAR, power=power, nodes=200))


def test_the_loss_uses_its_coupling_its_labels_and_its_generator() -> None:
    class ByLabel(Velocity):
        def at(self, y: Tensor, t: Tensor, condition: Condition) -> Tensor:
            assert condition is not None
            return condition[:, None].expand_as(y).to(y.dtype)

    batch = (points(50), torch.arange(50) % 3)
    onto_data = FlowMatchingLoss(coupling=lambda y0, y1: y1)  # target 0
    assert torch.equal(
        onto_data(FlowMatching(ByLabel(ClassLabels(3))), batch),
        2.0 * batch[1].double() ** 2,
    )
    model = shaken()
    drawn = [
        FlowMatchingLoss(generator=seeded(s))(model, batch[0]).tolist()
        for s in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


# --- the floor and the best field -----------------------------------------------------


def test_the_floor_of_gaussian_data() -> None:
    assert mean_loss_floor(Gaussian()) == pytest.approx(pi, abs=1e-9)
    for sigma, power in ((0.3, 1.0), (0.3, 2.0), (2.0, 0.5)):

        def weighted(t: float, sigma: float = sigma, power: float = power) -> float:
            covariance = 2 * sigma**2 / (t**2 * sigma**2 + (1 - t) ** 2)
            return power * t ** (power - 1) * covariance

        expected = quad(weighted, 0, 1)[0]
        found = mean_loss_floor(Gaussian((3.0, 1.0), sigma), power=power, nodes=100)
        assert found == pytest.approx(expected, abs=1e-6)


FLOORS: dict[str, tuple[PlaneData, bool, float, float]] = {
    "square": (Square(), False, 1.0, 1.758),
    "square, power 2": (Square(), False, 2.0, 2.083),
    "rings": (OlympicRings(), False, 1.0, 2.966),
    "rings, power 2": (OlympicRings(), False, 2.0, 2.866),
    "given the ring": (OlympicRings("by ring"), True, 1.0, 1.759),
    "spiral, power 2": (Spiral(), False, 2.0, 1.585),
}


@cache
def draws(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y_t, t, y₁ − y₀ and v*: t takes 16 values, one in each 16th of its law."""
    data, given_label, power, _ = FLOORS[name]
    n, times = 32_000, 16
    u = (torch.arange(times) + torch.rand(times, generator=seeded(9))) / times
    t = (u ** (1 / power)).double().repeat_interleave(n // times)
    y1, label = data.sample(n, seeded(10)), None
    if given_label:
        y1, label = data.sample_labelled(n, seeded(10))
    y0 = points(n, seed=11)
    y = y0 + t[:, None] * (y1 - y0)
    return y, t, y1 - y0, OptimalVelocity(data, given_label)(y, t, label)


@pytest.mark.parametrize("name", FLOORS)
def test_the_floor_is_the_loss_of_the_best_field(name: str) -> None:
    data, given_label, power, known = FLOORS[name]
    _, _, target, best = draws(name)
    floor = mean_loss_floor(data, given_label, power, nodes=16)
    assert floor == pytest.approx(known, abs=1e-3)
    assert within(((best - target) ** 2).sum(1), floor, 3.0)


@pytest.mark.parametrize("name", FLOORS)
def test_no_other_field_has_less_loss(name: str) -> None:
    """E‖v − target‖² = floor + E‖v − v*‖², on the same draws."""
    y, t, target, best = draws(name)
    noise = shaken().velocity(y, t) if name != "given the ring" else y.sin()
    others = [
        best + 0.3,
        1.1 * best,
        0.9 * best,
        best + 0.3 * y,
        best - 0.2 * t[:, None],
        best @ torch.tensor([[0.96, -0.28], [0.28, 0.96]], dtype=torch.float64),
        best + 0.3 * noise.detach(),
        (target.mean(0) - best.mean(0)) + best.flip(1),
    ]
    for other in others:
        more = ((other - target) ** 2 - (best - target) ** 2).sum(1)
        assert float(more.mean()) > 4 * float(more.std()) / len(more) ** 0.5
        assert within(more - ((other - best) ** 2).sum(1), 0.0)


@pytest.mark.parametrize("data", [FAR, Gaussian((-1.0, 2.0), 2.5)])
def test_the_best_field_of_gaussian_data(data: Gaussian) -> None:
    y = 2 * points(60)
    t = torch.tensor([0.0, 0.002, 0.05, 0.5, 0.97]).repeat(12).double()
    best, exact = OptimalVelocity(data)(y, t), GaussianField(data)(y, t)
    assert torch.allclose(best[t > 0], exact[t > 0], rtol=1e-9, atol=1e-9)
    assert torch.allclose(best[t == 0], exact[t == 0], rtol=0, atol=0.06)


def test_the_best_field_is_not_defined_at_the_end() -> None:
    field = OptimalVelocity(Square())
    with pytest.raises(ValueError, match=r"t must be below 1, got 1\.0"):
        field(torch.zeros(2, 2), torch.tensor([0.5, 1.0]))
    with pytest.raises(ValueError, match="t must be below 1, got 1"):
        FlowMatching(field).sample(5, solver=Heun())
    with pytest.raises(ValueError, match="OlympicRings has no classes to be given"):
        OptimalVelocity(OlympicRings(), given_label=True)


@pytest.mark.parametrize("data", [OlympicRings(), Square(standardized=True)])
def test_solving_with_the_best_field_gives_data(data: PlaneData) -> None:
    n = 3000
    x = FlowMatching(OptimalVelocity(data)).sample(n, generator=seeded(12))
    assert data.inside(x).double().mean() > 0.98
    truth = [data.sample(n, seeded(s)) for s in range(13, 20)]
    same_law = [sliced_wasserstein(a, b) for a, b in pairwise(truth)]
    noise_level = sum(same_law) / len(same_law)
    assert sliced_wasserstein(x, truth[0]) < 1.6 * noise_level
    assert sliced_wasserstein(points(n), truth[0]) > 3 * noise_level


def test_solving_with_the_best_field_given_the_ring() -> None:
    data = OlympicRings("by ring")
    label = torch.arange(500) % 5
    model = FlowMatching(OptimalVelocity(data, given_label=True))
    x = model.sample(500, label, steps=25, generator=seeded(16))
    on_its_ring = data.log_prob(x, label) > -torch.inf
    assert on_its_ring.double().mean() > 0.97
    assert (data.log_prob(x, label.roll(1)) > -torch.inf).double().mean() < 0.3


def test_the_held_out_gap() -> None:
    data, model = Square(standardized=True), shaken(0.2)
    model.float()
    held_out = GapToOptimum(data, times=10, points=2000, generator=seeded(17))
    found = held_out(model)
    t = [(k + 0.5) / 10 for k in range(10)]
    floor = sum(loss_floor(data, moment) for moment in t) / 10
    assert within(found["loss"] - found["gap"], floor)
    for k in (2, 8):
        gap = found["gap"].double()[2000 * k : 2000 * (k + 1)]
        assert within(gap, velocity_gap(model, data, t[k]))
    best = FlowMatching(OptimalVelocity(data))
    assert float(held_out(best)["gap"].max()) == 0
    assert velocity_gap(best, data, 0.5) < 1e-9


# --- which way time runs --------------------------------------------------------------


def test_noise_goes_to_the_data_and_back() -> None:
    """For Gaussian data y_t = t·m + σ_t·y₀ with σ_t² = t²σ² + (1−t)², at all times."""
    model, y0, n = FlowMatching(GaussianField(FAR)), points(200), 200
    there = model.trajectory(y0, steps=n, solver=RK4())
    assert there.shape == (n + 1, 200, 2)
    for k in (0, 50, 150, n):
        t = k / n
        sigma = (t**2 * FAR.sigma**2 + (1 - t) ** 2) ** 0.5
        assert torch.allclose(there[k], t * FAR.centre + sigma * y0, atol=1e-4)
    y1 = FAR.centre + FAR.sigma * y0
    back = model.trajectory(y1, steps=n, solver=RK4(), reverse=True)
    assert torch.equal(back[0], y1)
    assert torch.allclose(back[-1], y0, atol=1e-3)
    assert torch.allclose(back.flip(0), there, atol=1e-3)


def test_samples_are_where_the_data_are() -> None:
    model = FlowMatching(GaussianField(FAR))
    for solver in (Euler(), Midpoint(), Heun(), RK4()):
        x = model.sample(5000, steps=100, solver=solver, generator=seeded(18)).double()
        assert torch.allclose(x.mean(0), FAR.centre, atol=0.01)
        assert torch.allclose(x.std(0), x.new_tensor(FAR.sigma), rtol=0.15)


def test_defaults_and_generators_of_samples() -> None:
    model, label = shaken(classes=3), torch.arange(6) % 3
    y0 = model.base_sample(6, seeded(19))
    assert y0.dtype == torch.float64
    found = model.sample(6, label, generator=seeded(19))
    expected = model.trajectory(y0, label, steps=50, solver=Euler())[-1]
    assert torch.equal(found, expected)
    assert not torch.equal(found, model.sample(6, label, generator=seeded(20)))
    assert not torch.equal(found, model.sample(6, label.flip(0), generator=seeded(19)))
    assert not found.requires_grad


# --- the likelihood -------------------------------------------------------------------


def test_likelihood_of_a_linear_field() -> None:
    """y₁ = eᴬ·y₀ + ∫₀¹ eᴬ⁽¹⁻ˢ⁾ ds·b, from one exponential of [[A, b], [0, 0]]."""
    spin = torch.tensor([[0.3, -1.1], [0.7, -0.6]], dtype=torch.float64)
    for a in (0 * spin, spin):
        b = torch.tensor([0.8, -1.5], dtype=torch.float64)
        whole = torch.zeros(3, 3, dtype=torch.float64)
        whole[:2, :2], whole[:2, 2] = a, b
        flow = torch.from_numpy(expm(whole.numpy()))
        grown, moved = flow[:2, :2], flow[:2, 2]
        truth = MultivariateNormal(moved, grown @ grown.T)
        y = truth.mean + 2 * points(300)
        model = FlowMatching(LinearField(a, b))
        found = model.log_prob(y, steps=100)
        assert torch.allclose(found, truth.log_prob(y), rtol=0, atol=1e-7)


@pytest.mark.parametrize("data", [FAR, Gaussian((-1.0, 2.0), 2.5)])
def test_likelihood_of_gaussian_data(data: Gaussian) -> None:
    y = data.centre + 2 * data.sigma * points(300)
    found = FlowMatching(GaussianField(data)).log_prob(y, steps=400)
    assert torch.allclose(found, data.log_prob(y), rtol=0, atol=1e-4)


CASES: dict[str, dict[str, Any]] = {
    "two dimensions": {},
    "plain": {"preconditioned": False},
    "no Fourier features": {"frequencies": 0},
    "classes": {"classes": 3},
    "plain classes": {"classes": 3, "preconditioned": False},
    "three dimensions": {"shape": (3,)},
    "three dimensions, classes": {"shape": (3,), "classes": 3},
    "images": {"shape": (2, 1, 3), "classes": 3},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_divergence_is_the_trace_of_the_jacobian(name: str, t: float) -> None:
    model = shaken(**CASES[name])
    y = points(6, *model.shape)
    label = torch.arange(6) % 3 if model.classes else None
    v, div = model.velocity_and_divergence(y, t, label)
    time = torch.full((6,), t, dtype=torch.float64)
    assert torch.equal(v, model.velocity(y, time, label))
    for row in range(6):
        known = None if label is None else label[row : row + 1]

        def at(point: Tensor, known: Tensor | None = known) -> Tensor:
            return model.velocity(point[None], time[:1], known)[0]

        jacobian = torch.autograd.functional.jacobian(at, y[row])
        jacobian = jacobian.view(y[row].numel(), y[row].numel())
        assert float(div[row]) == pytest.approx(float(jacobian.trace()), abs=1e-10)
    assert not v.requires_grad
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("solver", "method", "preconditioned"),
    [
        (Euler(), "euler", True),
        (Midpoint(), "midpoint", True),
        (Midpoint(), "midpoint", False),
        (RK4(), "rk4", False),
    ],
)
def test_likelihood_equals_the_library(
    solver: Solver, method: str, preconditioned: bool
) -> None:
    """Its "rk4" is the 3/8 rule, so that there only fine steps agree."""
    model, y = shaken(preconditioned=preconditioned), points(40)
    steps = 100 if method == "rk4" else 10

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return model.velocity(x, t.expand(len(x)))

    normal = torch.distributions.Normal(0.0, 1.0)
    y0, expected = ODESolver(velocity).compute_likelihood(
        y,
        lambda x: normal.log_prob(x).sum(1),
        step_size=None,
        method=method,
        time_grid=torch.linspace(1, 0, steps + 1, dtype=torch.float64),
        exact_divergence=True,
    )
    near = 1e-6 if method == "rk4" else 1e-10
    found = model.log_prob(y, steps=steps, solver=solver)
    assert torch.allclose(found, expected, rtol=0, atol=near)
    back = model.trajectory(y, steps=steps, solver=solver, reverse=True)[-1]
    assert torch.allclose(back, y0, rtol=0, atol=near)
    assert (found - normal.log_prob(y).sum(1)).abs().mean() > 0.1


@pytest.mark.parametrize("sizes", [{}, {"preconditioned": False}, {"classes": 3}])
def test_density_integrates_to_one_and_is_that_of_the_samples(
    sizes: dict[str, Any],
) -> None:
    model, n, reach = shaken(0.25, **sizes), 100, 7.0
    axis = torch.linspace(-reach, reach, n, dtype=torch.float64)
    y = torch.cartesian_prod(axis, axis)
    label = torch.full((len(y),), 2) if model.classes else None
    p = model.log_prob(y, label, steps=10).exp() * (2 * reach / (n - 1)) ** 2
    assert float(p.sum()) == pytest.approx(1, abs=2e-3)
    count = 20_000
    known = torch.full((count,), 2) if model.classes else None
    x = model.sample(count, known, steps=10, solver=RK4(), generator=seeded(21))
    for moment in (
        lambda z: z[:, 0],
        lambda z: z[:, 1],
        lambda z: z[:, 0] ** 2,
        lambda z: z[:, 0] * z[:, 1],
        lambda z: z[:, 1] ** 2,
        lambda z: (2 * z[:, 0]).sin(),
    ):
        assert within(moment(x), float(p @ moment(y)), 4.5)


# --- training -------------------------------------------------------------------------


@pytest.mark.parametrize("preconditioned", [True, False])
def test_training_moves_the_loss_towards_the_floor(preconditioned: bool) -> None:
    torch.manual_seed(0)
    data = OlympicRings()
    model = FlowMatching(
        mlp_velocity(width=32, depth=2, frequencies=6, preconditioned=preconditioned)
    )
    held_out = data.sample(20_000, seeded(22))

    def measured() -> Tensor:
        with torch.no_grad():
            return FlowMatchingLoss(1.0, generator=seeded(23))(model, held_out)

    # v = 0 has E‖y₁ − y₀‖² = 4; the best field of N(0, I) has π on z-scored data
    assert within(measured(), pi if preconditioned else 4.0)
    loss = FlowMatchingLoss(generator=seeded(24))
    history = train(model, loss, data.batches(256, seeded(25)), 300)
    assert len(history.loss) == 300
    after, floor = measured(), FLOORS["rings"][-1]
    error = float(after.std()) / len(after) ** 0.5
    assert floor - 3 * error < float(after.mean()) < (3.1 if preconditioned else 3.7)


def test_training_with_classes() -> None:
    torch.manual_seed(0)
    data = OlympicRings("by ring")
    model = FlowMatching(mlp_velocity(classes=5, width=32, depth=2, frequencies=6))
    loss = FlowMatchingLoss(1.0, generator=seeded(26))
    train(model, loss, data.batches(256, seeded(27), labelled=True), 300)
    with torch.no_grad():
        after = loss(model, data.sample_labelled(20_000, seeded(28)))
    error = float(after.std()) / len(after) ** 0.5
    floor, blind = FLOORS["given the ring"][-1], FLOORS["rings"][-1]
    # far below what any field that knows no classes can reach
    assert floor - 3 * error < float(after.mean()) < blind - 0.7


@pytest.mark.parametrize("classes", [0, 5])
def test_the_recipe_measures_and_repeats(classes: int) -> None:
    data = Square(standardized=True)
    held_out = GapToOptimum(
        data, bool(classes), times=8, points=100, generator=seeded(29)
    )
    histories = []
    for seed in (2, 2, 3):
        torch.manual_seed(0)
        network = mlp_velocity(classes=classes, width=24, depth=1, frequencies=4)
        histories.append(
            train_flow_matching(
                FlowMatching(network),
                data,
                steps=200,
                batch=64,
                measure=held_out,
                steps_per_epoch=100,
                seed=seed,
            )
        )
    assert histories[0].loss == histories[1].loss != histories[2].loss
    assert histories[0].step == [0, 100, 200]
    gap = histories[0].measured["gap"]
    assert gap[-1] < 0.9 * gap[0]


# --- what is refused ------------------------------------------------------------------


def along(model: FlowMatching) -> list[Callable[..., Tensor]]:
    """What takes samples of a model."""
    back = partial(model.trajectory, reverse=True)
    return [model.log_prob, model.trajectory, back]


BAD_POINTS = [
    (torch.zeros(3, 3), ValueError, r"shape \(B, 2\), got \(3, 3\)"),
    (torch.zeros(0, 2), ValueError, "at least one row"),
    (torch.full((4, 2), float("nan")), ValueError, "got 4 of 4 rows with NaN"),
    (torch.zeros(4, 2).double(), TypeError, "dtype torch.float32 like the model"),
    (torch.zeros(4, 2).long(), TypeError, "floating dtype, got torch.int64"),
    (torch.zeros(4, 2, device="meta"), ValueError, "on cpu like the model, got meta"),
]


@pytest.mark.parametrize(("y", "error", "message"), BAD_POINTS)
def test_bad_points(y: Tensor, error: type[Exception], message: str) -> None:
    model = small()
    loss: Callable[..., Tensor] = partial(FlowMatchingLoss(), model)
    for method in [*along(model), loss]:
        with pytest.raises(error, match=message):
            method(y)


BAD_LABELS = [
    (None, ValueError, "this model has 3 classes: expected labels"),
    (torch.tensor([0, 3]), ValueError, r"lie in 0 … 2, got 0 … 3"),
    (torch.tensor([-1, 0]), ValueError, r"lie in 0 … 2, got -1 … 0"),
    (torch.tensor([0, 1, 2]), ValueError, r"shape \(2,\), got \(3,\)"),
    (torch.tensor([0.0, 1.0]), TypeError, r"torch\.int64 tensor, got torch\.float32"),
]


@pytest.mark.parametrize(("label", "error", "message"), BAD_LABELS)
def test_bad_labels(label: Tensor | None, error: type[Exception], message: str) -> None:
    model, y = small(classes=3), torch.zeros(2, 2)
    for method in along(model):
        with pytest.raises(error, match=message):
            method(y, label)
    with pytest.raises(error, match=message):
        model.sample(2, label)


def test_labels_are_for_models_with_classes() -> None:
    model, y, label = small(), torch.zeros(2, 2), torch.tensor([0, 1])
    for method in along(model):
        with pytest.raises(ValueError, match="no classes: expected no labels"):
            method(y, label)
    with pytest.raises(ValueError, match="no classes: expected no labels"):
        model.sample(2, label)
    rings, t = OlympicRings("by ring"), torch.full((2,), 0.5)
    loss = FlowMatchingLoss()
    for field in (small().velocity, OptimalVelocity(rings)):
        with pytest.raises(ValueError, match="no classes: expected no labels"):
            field(y, t, label)
        with pytest.raises(ValueError, match="no classes: expected no labels"):
            loss(FlowMatching(field), (y, label))
    for field in (small(classes=5).velocity, OptimalVelocity(rings, True)):
        with pytest.raises(ValueError, match="this model has 5 classes: expected lab"):
            field(y, t)
        with pytest.raises(ValueError, match="this model has 5 classes: expected lab"):
            loss(FlowMatching(field), y)


def test_no_optimal_transport_beside_a_condition() -> None:
    batch = points(4).float(), torch.arange(4) % 3
    with pytest.raises(ValueError, match="expected no condition beside it"):
        FlowMatchingLoss(coupling=optimal_transport)(small(classes=3), batch)


def test_forms_of_a_batch() -> None:
    model, y = small(), points(4).float()
    each = [
        FlowMatchingLoss(generator=seeded(0))(model, batch)
        for batch in (y, (y,), [y], (y, None))
    ]
    assert all(torch.equal(loss, each[0]) for loss in each)
    for batch in ({"y": y}, ()):
        with pytest.raises(TypeError, match=r"samples, or \(samples, condition\), got"):
            FlowMatchingLoss()(model, batch)


def test_bad_counts_and_options() -> None:
    model, y = small(), torch.zeros(2, 2)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        model.sample(0)
    with pytest.raises(ValueError, match="n must be at least 1, got -2"):
        model.base_sample(-2)
    for method in along(model):
        with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
            method(y, steps=0)
    with pytest.raises(ValueError, match="steps must be at least 1, got -1"):
        model.sample(2, steps=-1)
    with pytest.raises(ValueError, match=r"shape of y1, \(2, 2\), got \(1, 2\)"):
        LinearPath().point(y[:1], y, torch.zeros(2))
    with pytest.raises(TypeError, match="abstract"):
        Velocity()  # type: ignore[abstract]
    with pytest.raises(ValueError, match="reduction must be one of 'sum', 'mean', got"):
        FlowMatchingLoss(reduction="max")
    for power in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="power must be a finite number above 0"):
            FlowMatchingLoss(power=power)
        with pytest.raises(ValueError, match="power must be a finite number above 0"):
            draw_time(y, power)
        with pytest.raises(ValueError, match="power must be a finite number above 0"):
            mean_loss_floor(Gaussian(), power=power)
    with pytest.raises(ValueError, match="nodes must be at least 1, got 0"):
        mean_loss_floor(Gaussian(), nodes=0)
    for t in (0.0, 1.0, -0.5, 2.0, float("nan")):
        with pytest.raises(ValueError, match="t must lie between 0 and 1, got"):
            loss_floor(Gaussian(), t)
        with pytest.raises(ValueError, match="t must lie between 0 and 1, got"):
            velocity_gap(model, Gaussian(), t)
    with pytest.raises(ValueError, match="Gaussian has no classes"):
        mean_loss_floor(Gaussian(), given_label=True)
    with pytest.raises(ValueError, match="classes must be at least 0, got -1"):
        mlp_velocity(classes=-1)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        mlp_velocity(width=0)
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        mlp_velocity(depth=0)


@pytest.mark.parametrize("given", [False, True])
def test_the_divergence_of_the_best_field_is_its_slope(given: bool) -> None:
    """Against differences of the field, for a mixture whose truth is in closed form."""
    data = GaussianMixture([[0, 1], [1, -1]], 0.3, label=[0, 1], standardized=True)
    best = FlowMatching(OptimalVelocity(data, given_label=given))
    y, h = points(20), 1e-5
    label = torch.arange(20) % 2 if given else None
    v, div = best.velocity_and_divergence(y, 0.6, label)
    assert torch.equal(v, best.field(label)(y, 0.6))
    slope = torch.zeros(20, dtype=torch.float64)
    for i in range(2):
        step = h * torch.eye(2, dtype=torch.float64)[i]
        ends = [best.field(label)(y + sign * step, 0.6)[:, i] for sign in (1, -1)]
        slope += (ends[0] - ends[1]) / (2 * h)
    assert torch.allclose(div, slope, atol=1e-6)
    with pytest.raises(ValueError, match="t must be below 1"):
        best.velocity_and_divergence(y, 1.0, label)


def test_a_likelihood_without_gradients_is_refused() -> None:
    """Inside inference mode the divergence would be 0 in silence."""
    model = FlowMatching(mlp_velocity(width=8, depth=1, frequencies=1))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="rules out"):
        model.log_prob(torch.zeros(2, 2))


def test_samples_are_checked_where_a_field_is_asked() -> None:
    net, t = mlp_velocity(width=8, depth=1, frequencies=1), torch.zeros(4)
    with pytest.raises(TypeError, match="floating dtype, got"):
        net(torch.ones(4, 2, dtype=torch.int64), t)
    with pytest.raises(TypeError, match="like the model, got"):
        net(torch.ones(4, 2, dtype=torch.float64), t)


def test_pairs_by_transport_do_not_go_with_classes() -> None:
    model = FlowMatching(mlp_velocity(width=8, depth=1, frequencies=1, classes=2))
    batch = (torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="expected no condition beside it"):
        FlowMatchingLoss(coupling=optimal_transport)(model, batch)
