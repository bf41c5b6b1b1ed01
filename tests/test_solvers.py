"""The solvers against torchdiffeq, SciPy and Simpson's rule."""

from itertools import pairwise
from math import log2

import pytest
import torch
from scipy.integrate import simpson, solve_ivp
from torch import Tensor
from torchdiffeq import odeint

from course_utils.notebook import seeded
from course_utils.solvers import (
    RK4,
    Euler,
    Heun,
    Midpoint,
    Solver,
    end_and_divergence,
    even_times,
    value_and_divergence,
)

SOLVERS: list[Solver] = [Euler(), Midpoint(), Heun(), RK4()]
TORCHDIFFEQ: list[tuple[Solver, str]] = [
    (Euler(), "euler"),
    (Midpoint(), "midpoint"),
    (Heun(), "heun2"),
]

each_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)


def field(y: Tensor, t: float) -> Tensor:
    """Not linear, not separable, and different at every time."""
    turned = torch.stack([-y[:, 1], y[:, 0]], dim=1)
    return (1 + t) * turned + torch.sin(y + 3 * t) - t**2 * y


def start(n: int = 20) -> Tensor:
    return torch.randn(n, 2, generator=seeded(0), dtype=torch.float64)


def exactly(y: Tensor, ends: tuple[float, float]) -> Tensor:
    """SciPy's adaptive solution at the last time, good to about 1e-12."""
    found = solve_ivp(
        lambda t, flat: field(torch.from_numpy(flat).view_as(y), t).flatten().numpy(),
        ends,
        y.flatten().numpy(),
        method="DOP853",
        rtol=1e-13,
        atol=1e-13,
    )
    return torch.from_numpy(found.y[:, -1]).view_as(y)


@each_solver
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)])
def test_the_error_falls_with_the_declared_order(
    solver: Solver, ends: tuple[float, float]
) -> None:
    truth = exactly(start(), ends)
    errors = [
        float((solver.end(field, start(), even_times(*ends, n)) - truth).norm())
        for n in (40, 80, 160)
    ]
    for coarse, fine in pairwise(errors):
        assert log2(coarse / fine) == pytest.approx(solver.order, abs=0.15)


@pytest.mark.parametrize(("solver", "method"), TORCHDIFFEQ)
@pytest.mark.parametrize("times", [[0.0, 0.1, 0.15, 0.6, 1.0], [1.0, 0.7, 0.65, 0.0]])
def test_every_state_equals_torchdiffeq(
    solver: Solver, method: str, times: list[float]
) -> None:
    grid = torch.tensor(times, dtype=torch.float64)
    expected = odeint(lambda t, y: field(y, float(t)), start(), grid, method=method)
    found = solver.path(field, start(), times)
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)


def test_rk4_is_the_classical_rule() -> None:
    """On dy/dt = f(t) it is Simpson's rule; torchdiffeq's "rk4" is the 3/8 rule."""
    times = even_times(0.0, 2.0, 5)
    found = RK4().end(lambda y, t: y.new_full(y.shape, 2.0**t), start(1), times)
    halves = torch.tensor(even_times(0.0, 2.0, 10), dtype=torch.float64)
    expected = start(1) + simpson(2.0**halves, x=halves)
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)


@each_solver
def test_backward_in_time_returns(solver: Solver) -> None:
    y, n = start(), {1: 5000, 2: 500, 4: 50}[solver.order]
    there = solver.end(field, y, even_times(0.0, 1.0, n))
    assert (there - y).norm(dim=1).mean() > 1
    back = solver.end(field, there, even_times(1.0, 0.0, n))
    assert torch.allclose(back, y, rtol=0, atol=3e-3 if solver.order == 1 else 1e-5)


@each_solver
def test_declared_evaluations_are_the_calls(solver: Solver) -> None:
    calls = []

    def counted(y: Tensor, t: float) -> Tensor:
        calls.append(t)
        return field(y, t)

    solver.end(counted, start(), even_times(0.0, 1.0, 7))
    assert len(calls) == 7 * solver.evaluations
    assert min(calls) == 0
    assert max(calls) <= 1


@each_solver
def test_path_states_and_end_agree(solver: Solver) -> None:
    y, times = start(3), [0.2, 0.3, 0.7]
    before = y.clone()
    path = solver.path(field, y, times)
    assert path.shape == (3, 3, 2)
    assert torch.equal(path[0], before)
    assert torch.equal(path, torch.stack(list(solver.states(field, y, times))))
    assert torch.equal(path[-1], solver.end(field, y, times))
    assert torch.equal(y, before), "the start was changed in place"
    assert solver.path(field, y.float(), times).dtype == torch.float32


# --- the divergence, for samples of any shape -----------------------------------------

SHAPES = [(2,), (1,), (3, 2), (2, 1, 3)]


def images(n: int, *shape: int) -> Tensor:
    y = torch.randn(n, *shape, generator=seeded(1), dtype=torch.float64)
    return y.to(memory_format=torch.channels_last) if y.ndim == 4 else y


def mixing(y: Tensor, t: float) -> Tensor:
    """Every value of a sample moves with all of its others."""
    whole = y.flatten(1).sum(1).view(-1, *[1] * (y.ndim - 1))
    return torch.sin(y + t) * torch.cos(whole)


@pytest.mark.parametrize("shape", SHAPES)
def test_divergence_is_the_trace_of_the_jacobian(shape: tuple[int, ...]) -> None:
    y = images(5, *shape)
    value, div = value_and_divergence(lambda p: mixing(p, 0.3), y)
    assert torch.equal(value, mixing(y, 0.3))
    for row, found in zip(y.split(1), div, strict=True):
        slopes = torch.autograd.functional.jacobian(lambda p: mixing(p, 0.3), row)
        trace = slopes.reshape(row.numel(), row.numel()).trace()
        assert float(found) == pytest.approx(float(trace), rel=1e-12)
    assert not any(x.requires_grad for x in (value, div, y))


def test_divergence_of_values_that_hang_on_nothing_is_zero() -> None:
    y = start(4)
    for f in (
        torch.ones_like,
        lambda p: torch.stack([p[:, 1], p[:, 0].detach()], dim=1),
    ):
        with torch.no_grad():
            value, div = value_and_divergence(f, y)
        assert torch.equal(value, f(y))
        assert torch.equal(div, y.new_zeros(4))


def mixing_and_divergence(y: Tensor, t: float) -> tuple[Tensor, Tensor]:
    return value_and_divergence(lambda p: mixing(p, t), y)


@pytest.mark.parametrize(("solver", "method"), TORCHDIFFEQ)
@pytest.mark.parametrize("shape", SHAPES)
def test_end_and_divergence_equal_torchdiffeq(
    solver: Solver, method: str, shape: tuple[int, ...]
) -> None:
    y, times = images(3, *shape), [0.9, 0.5, 0.4, 0.1]
    grid = torch.tensor(times, dtype=torch.float64)
    ends, integrals = odeint(
        lambda t, state: mixing_and_divergence(state[0], float(t)),
        (y, y.new_zeros(3)),
        grid,
        method=method,
    )
    end, integral = end_and_divergence(mixing_and_divergence, y, times, solver)
    assert torch.allclose(end, ends[-1], rtol=0, atol=1e-13)
    assert torch.allclose(integral, integrals[-1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_integral_is_the_log_of_what_volumes_grow_by(
    shape: tuple[int, ...],
) -> None:
    y, times = images(3, *shape), even_times(0.0, 1.0, 40)
    _, integral = end_and_divergence(mixing_and_divergence, y, times, RK4())
    for row, found in zip(y.split(1), integral, strict=True):
        slopes = torch.autograd.functional.jacobian(
            lambda p: RK4().end(mixing, p, times), row
        )
        grown = torch.linalg.slogdet(slopes.reshape(row.numel(), row.numel()))
        assert float(found) == pytest.approx(float(grown.logabsdet), abs=1e-6)


def test_the_integral_of_the_divergence_of_a_linear_field() -> None:
    a = torch.randn(6, 6, generator=seeded(2), dtype=torch.float64)
    y = images(7, 2, 1, 3)
    for ends in ((0.0, 1.5), (1.5, 0.0)):
        _, integral = end_and_divergence(
            lambda p, t: ((p.flatten(1) @ a).view_as(p), a.trace().expand(len(p))),
            y,
            even_times(*ends, 3),
            RK4(),
        )
        way = ends[1] - ends[0]
        assert torch.allclose(integral, (way * a.trace()).expand(7), rtol=1e-12)


# --- times ----------------------------------------------------------------------------


def test_even_times_hit_both_ends() -> None:
    for n in (1, 3, 7, 49):
        times = even_times(0.1, 0.7, n)
        assert (times[0], times[-1], len(times)) == (0.1, 0.7, n + 1)
        steps = torch.tensor(times, dtype=torch.float64).diff()
        assert torch.allclose(steps, steps.new_tensor(0.6 / n), rtol=1e-12)
        assert even_times(0.7, 0.1, n) == pytest.approx(times[::-1])


@pytest.mark.parametrize("steps", [0, -3])
def test_bad_counts(steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps must be at least 1, got {steps}"):
        even_times(0.0, 1.0, steps)
    with pytest.raises(TypeError, match=r"steps must be a whole number, got 2\.5"):
        even_times(0.0, 1.0, 2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("times", [[], [0.5]])
def test_too_few_times(times: list[float]) -> None:
    for method in (Euler().path, Euler().end):
        with pytest.raises(ValueError, match="must hold a start and an end, got"):
            method(field, start(), times)


@pytest.mark.parametrize(
    "times", [[0.0, 0.5, 0.4], [1.0, 0.5, 0.6], [0.0, 0.0], [0.0, float("nan"), 1.0]]
)
def test_times_that_turn_back(times: list[float]) -> None:
    for method in (RK4().path, RK4().end):
        with pytest.raises(ValueError, match="times must all rise or all fall, got"):
            method(field, start(), times)


def test_a_field_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(3,\), got \(3, 3\)"):
        Euler().end(lambda y, t: torch.ones(3, 1), torch.ones(3), [0.0, 1.0])
