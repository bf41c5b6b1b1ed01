"""Solvers of dy/dt = f(y, t): one step each, and one loop for all.

An explicit Runge-Kutta step of size h = t′ − t (negative to go back in time). A solver
of order p leaves an error of O(h^p) at the end of a fixed interval.

Source: Hairer, Nørsett and Wanner 1993, Solving Ordinary
Differential Equations I, II.1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from course_utils.checks import check_alike, check_count

Field = Callable[[Tensor, float], Tensor]  # f(y, t), the shape of y


class Solver(ABC):
    """A way to take one step.

    Attributes:
        order: p of the module's text.
        evaluations: how often a step calls f.
    """

    order: int
    evaluations: int

    @abstractmethod
    def step(self, f: Field, y: Tensor, t: float, h: float) -> Tensor:
        """y(t) → y(t + h)."""

    def states(self, f: Field, y: Tensor, times: Sequence[float]) -> Iterator[Tensor]:
        """y at each of the times, the first of which is that of ``y`` itself.

        Raises:
            ValueError: fewer than two times, or times that turn back.
        """
        yield from _walk(self, f, y, _one_way(times))

    def path(self, f: Field, y: Tensor, times: Sequence[float]) -> Tensor:
        """y at all times, (T, *y.shape)."""
        return torch.stack(list(self.states(f, y, times)))

    def end(self, f: Field, y: Tensor, times: Sequence[float]) -> Tensor:
        """y at the last time, the shape of ``y``."""
        for state in self.states(f, y, times):
            y = state
        return y


class Euler(Solver):
    """y + h·f(y, t)."""

    order, evaluations = 1, 1

    def step(self, f: Field, y: Tensor, t: float, h: float) -> Tensor:
        return y + h * f(y, t)


class Midpoint(Solver):
    """y + h·f(y + ½h·f(y, t), t + ½h): the slope half way."""

    order, evaluations = 2, 2

    def step(self, f: Field, y: Tensor, t: float, h: float) -> Tensor:
        k = f(y, t)
        return y + h * f(y + h / 2 * k, t + h / 2)


class Heun(Solver):
    """y + ½h·(k₁ + k₂): the mean of the slopes at both ends."""

    order, evaluations = 2, 2

    def step(self, f: Field, y: Tensor, t: float, h: float) -> Tensor:
        k1 = f(y, t)
        k2 = f(y + h * k1, t + h)
        return y + h / 2 * (k1 + k2)


class RK4(Solver):
    """y + h/6·(k₁ + 2k₂ + 2k₃ + k₄): the classical Runge-Kutta method."""

    order, evaluations = 4, 4

    def step(self, f: Field, y: Tensor, t: float, h: float) -> Tensor:
        k1 = f(y, t)
        k2 = f(y + h / 2 * k1, t + h / 2)
        k3 = f(y + h / 2 * k2, t + h / 2)
        k4 = f(y + h * k3, t + h)
        return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def even_times(start: float, end: float, steps: int) -> list[float]:
    """steps + 1 times from ``start`` to ``end``, both exact, evenly apart.

    Raises:
        ValueError: steps < 1.
    """
    steps = check_count("steps", steps)
    inner = [start + (end - start) * k / steps for k in range(steps)]
    return [*inner, end]


def value_and_divergence(
    f: Callable[[Tensor], Tensor], y: Tensor
) -> tuple[Tensor, Tensor]:
    """f(y) (B, …) and div f = Σ_i ∂f_i/∂y_i (B,), exact: a backward pass each.

    The sum runs over all D values of a sample; each costs a backward pass. Both carry a
    gradient where ``y`` does.

    Raises:
        RuntimeError: inside ``torch.inference_mode``, where there are no gradients.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "a divergence needs gradients, which torch.inference_mode rules out: use"
            " torch.no_grad instead"
        )
    asked = torch.is_grad_enabled() and y.requires_grad
    with torch.enable_grad():
        flat = y.flatten(1) if asked else y.detach().flatten(1).requires_grad_()
        value = f(flat.view_as(y))  # of (B, D)
        rows = value.flatten(1)
        div = flat.new_zeros(len(y))
        if not value.requires_grad:  # the same everywhere
            return value, div
        last = flat.shape[1] - 1
        for i in range(last + 1):
            (slope,) = torch.autograd.grad(
                rows[:, i].sum(),
                flat,
                retain_graph=asked or i < last,
                create_graph=asked,
                materialize_grads=True,
            )
            div = div + slope[:, i]
    return (value, div) if asked else (value.detach(), div)


def end_and_divergence(
    f: Callable[[Tensor, float], tuple[Tensor, Tensor]],
    y: Tensor,
    times: Sequence[float],
    solver: Solver,
) -> tuple[Tensor, Tensor]:
    """y at the last time (B, …), and the integral of div f along the way (B,).

    The solver carries both together: the divergence is one more value of the state.

    Args:
        f: (y, t) → the field and its divergence.
        y: where the way begins, (B, …).
        times: from the first to the last.
        solver: one step.
    """

    def both(state: Tensor, t: float) -> Tensor:
        value, div = f(state[:, :-1].view_as(y), t)
        return torch.cat([value.flatten(1), div[:, None]], dim=1)

    state = torch.cat([y.flatten(1), y.new_zeros(len(y), 1)], dim=1)  # (B, D + 1)
    state = solver.end(both, state, times)
    return state[:, :-1].view_as(y), state[:, -1]


def _walk(
    solver: Solver, f: Field, y: Tensor, times: Sequence[float]
) -> Iterator[Tensor]:
    yield y
    for t, t_next in pairwise(times):
        y = check_alike("a step of the solver", solver.step(f, y, t, t_next - t), y)
        yield y


def _one_way(times: Sequence[float]) -> Sequence[float]:
    """The times, if they only rise or only fall."""
    if len(times) < 2:
        raise ValueError(f"times must hold a start and an end, got {list(times)}")
    steps = [b - a for a, b in pairwise(times)]
    if not (all(h > 0 for h in steps) or all(h < 0 for h in steps)):
        raise ValueError("times must all rise or all fall, got " + str(list(times)))
    return times
