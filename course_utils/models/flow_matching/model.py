"""The loss of flow matching, sampling, and the likelihood.

    loss = E‖v(y_t, t) − (y₁ − y₀)‖²       (summed over the values of a sample)
    dy/dt = v(y, t),   from noise at t = 0 to data at t = 1      (sampling)
    log p₁(y₁) = log N(y₀; 0, I) − ∫₀¹ div v(y_t, t) dt          (change of variables)

Sources: Lipman et al. 2023 (arXiv:2210.02747); Chen et al. 2018, the instantaneous
change of variables (arXiv:1806.07366).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.checks import (
    check_count,
    check_option,
    check_positive,
    check_samples,
    check_shape,
    split_batch,
)
from course_utils.distributions import (
    normal,
    normal_like,
    normal_log_prob,
    reference,
    same_time,
)
from course_utils.models.flow_matching.path import (
    LinearPath,
    draw_time,
    independent,
    optimal_transport,
)
from course_utils.models.flow_matching.velocity import Velocity
from course_utils.networks.basic import gradient_if_asked
from course_utils.networks.conditioning import Condition
from course_utils.solvers import (
    RK4,
    Euler,
    Field,
    Solver,
    end_and_divergence,
    even_times,
)
from course_utils.training.history import History
from course_utils.training.loop import Stream, train_fresh
from course_utils.training.processes import own_generator


@dataclass
class FlowMatchingLoss:
    """‖v(y_t, t) − (y₁ − y₀)‖² of every sample, shape (B,).

    Args:
        power: how t is drawn, as in :func:`draw_time`.
        reduction: "sum" over the values of a sample, or "mean".
        coupling: which y₀ goes with which y₁, see :func:`optimal_transport`.
        generator: source of y₀ and t.
        path: from y₀ to y₁.
    """

    power: float = 2.0
    reduction: str = "sum"
    coupling: Callable[[Tensor, Tensor], Tensor] = independent
    generator: torch.Generator | None = None
    path: LinearPath = field(default_factory=LinearPath)

    def __post_init__(self) -> None:
        check_option("reduction", self.reduction, ["sum", "mean"])
        check_positive("power", self.power)

    def __call__(self, model: FlowMatching, batch: Any) -> Tensor:
        """The loss of a batch: samples, or samples and their condition.

        Raises:
            TypeError, ValueError: not a batch of finite samples of the model's shape,
                dtype and device; a condition that is missing, malformed or unexpected,
                or that a coupling would tie to the noise.
        """
        y1, condition = split_batch(batch)
        model.check(y1, condition)
        if condition is not None and self.coupling is optimal_transport:
            raise ValueError(
                "optimal transport gives each class noise of its own, while sampling"
                " starts all of them from N(0, I): expected no condition beside it"
            )
        y0 = self.coupling(normal_like(y1, self.generator), y1)
        t = draw_time(y1, self.power, self.generator)
        return self.at(model, y0, y1, t, condition)

    def at(
        self,
        model: FlowMatching,
        y0: Tensor,
        y1: Tensor,
        t: Tensor,
        condition: Condition = None,
    ) -> Tensor:
        """The same for given noise and times."""
        v = model.velocity(self.path.point(y0, y1, t), t, condition)
        square = (v - self.path.velocity(y0, y1)).square().flatten(1)  # (B, D)
        return square.sum(1) if self.reduction == "sum" else square.mean(1)


class FlowMatching(nn.Module):
    """dy/dt = v(y, t) between noise at t = 0 and data at t = 1.

    Args:
        velocity: v. If it knows a condition that is not optional, every call below
            needs one.
        shape: of one sample.
    """

    def __init__(self, velocity: Velocity, shape: Sequence[int] = (2,)) -> None:
        super().__init__()
        self.velocity = velocity
        self.shape = check_shape(shape)

    @property
    def classes(self) -> int:
        """The number of classes that it knows, 0 for none."""
        return self.velocity.classes

    def field(self, condition: Condition = None) -> Field:
        """f(y, t) for a solver: the velocity at one time t for all samples."""

        def f(y: Tensor, t: float) -> Tensor:
            return self.velocity(y, same_time(t, y), condition)

        return f

    @torch.no_grad()
    def trajectory(
        self,
        start: Tensor,
        condition: Condition = None,
        *,
        steps: int = 50,
        solver: Solver | None = None,
        reverse: bool = False,
    ) -> Tensor:
        """Where noise goes, or where samples come from: (steps + 1, B, *shape).

        Args:
            start: noise y₀ (B, *shape); with ``reverse`` samples y₁.
            condition: what the velocity has to know.
            steps: number of steps.
            solver: one step; the default is Euler's.
            reverse: from t = 1 back to t = 0.

        Raises:
            TypeError, ValueError: not a batch of finite samples of the model's shape,
                dtype and device; a condition that is missing, malformed or unexpected;
                steps < 1.
        """
        self.check(start, condition)
        times = even_times(1.0, 0.0, steps) if reverse else even_times(0.0, 1.0, steps)
        return (solver or Euler()).path(self.field(condition), start, times)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        condition: Condition = None,
        *,
        steps: int = 50,
        solver: Solver | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n samples (n, *shape), each with its condition if the model needs one.

        Raises:
            TypeError, ValueError: n < 1 or steps < 1; a condition that is missing,
                malformed or unexpected.
        """
        y0 = self.base_sample(n, generator)
        self.check(y0, condition)
        times = even_times(0.0, 1.0, steps)
        return (solver or Euler()).end(self.field(condition), y0, times)

    def base_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n samples (n, *shape) of the noise N(0, I), like the model's weights."""
        return normal((check_count("n", n), *self.shape), reference(self), generator)

    def log_prob(
        self,
        y1: Tensor,
        condition: Condition = None,
        *,
        steps: int = 50,
        solver: Solver | None = None,
    ) -> Tensor:
        """log p₁(y₁), or log p₁(y₁ | condition), in nats: (B,) for y₁ (B, *shape).

        The solver carries y and the integral of div v together back to t = 0. Too few
        steps bias the result, and the biased one often looks better. The divergence
        costs a backward pass for each value of a sample. There is a gradient, for
        points and weights, if the points require one: it keeps all steps in memory.

        Raises:
            TypeError, ValueError: as for :meth:`trajectory`.
        """
        self.check(y1, condition)
        with gradient_if_asked(y1):
            y0, integral = end_and_divergence(  # integral from 1 to 0 of div v
                lambda y, t: self.velocity_and_divergence(y, t, condition),
                y1,
                even_times(1.0, 0.0, steps),
                solver or RK4(),
            )
            return normal_log_prob(y0) + integral

    def velocity_and_divergence(
        self, y: Tensor, t: float, condition: Condition = None
    ) -> tuple[Tensor, Tensor]:
        """v (B, *shape) and div v = Σ_i ∂v_i/∂y_i (B,), exact."""
        return self.velocity.value_and_divergence(y, t, condition)

    def check(self, y: Tensor, condition: Condition) -> None:
        """Refuse what is no batch of samples for this model, or a wrong condition."""
        check_samples(y, shape=self.shape, like=next(self.parameters(), None))
        self.velocity.condition.check(condition, len(y))


def train_flow_matching(
    model: FlowMatching,
    data: Stream,
    *,
    steps: int = 8000,
    loss: FlowMatchingLoss | None = None,
    seed: int = 2,
    **settings: Any,
) -> History:
    """Train on fresh data, with labels if the model knows classes.

    Args:
        model: trained in place.
        data: where the samples come from.
        steps: number of steps.
        loss: by default the book's: t = √u, independent noise, seeded.
        seed: of the data and, by default, of the loss.
        settings: what else :func:`~course_utils.training.train_fresh` takes.
    """
    generator = torch.Generator().manual_seed(check_count("seed", seed, least=0))
    noise = own_generator(generator, settings.get("fabric"))
    loss = loss or FlowMatchingLoss(generator=noise)
    settings = {"steps_per_epoch": 400, **settings}
    return train_fresh(model, data, loss, steps=steps, generator=generator, **settings)
