"""Normalizing flow: an invertible map φ from a normal variable to the data.

    y = φ(z),   z ~ N(0, I)
    log p(y) = log p_Z(φ⁻¹(y)) + log|det ∂φ⁻¹(y)/∂y|          (change of variables)
    loss     = −E_y[log p(y)]                                  (nats)

φ = φ_L ∘ … ∘ φ_1 is made of couplings with a permutation of the coordinates between
them. A coupling keeps one half of the coordinates, x_a, and moves the other half, x_b,
by an increasing function whose parameters are computed from x_a; its Jacobian is
triangular, so the log-determinant is a sum of logarithms.

Sources: Dinh et al. 2017, RealNVP (arXiv:1605.08803); Durkan et al. 2019, Neural Spline
Flows (arXiv:1906.04032).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import exp, log, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.checks import (
    check_count,
    check_option,
    check_positive,
    check_samples,
    check_shape,
    split_batch,
)
from course_utils.distributions import normal, normal_log_prob, reference
from course_utils.networks.basic import FourierFeatures, mlp
from course_utils.networks.conditioning import Unconditional
from course_utils.training.history import History
from course_utils.training.loop import Stream, train_fresh
from course_utils.training.run import Measure

# --- layers: each maps x to (y, log|det ∂y/∂x|), shapes (B, D) and (B,) ---------------


class Bijection(nn.Module, ABC):
    """An invertible layer."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x → y = φ_l(x) and log|det ∂y/∂x|."""

    @abstractmethod
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y → x = φ_l⁻¹(y) and log|det ∂x/∂y|."""


class Permutation(Bijection):
    """y_i = x_{order(i)}: a relabelling of the coordinates, whose log-determinant is 0.

    Args:
        order: the permutation, e.g. [1, 0] to swap two coordinates.
    """

    order: Tensor

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        if sorted(order) != list(range(len(order))):
            raise ValueError(
                f"order must be a permutation of 0 … {len(order) - 1}, got {order}"
            )
        self.register_buffer("order", torch.tensor(order))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, self.order], x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y[:, self.order.argsort()], y.new_zeros(len(y))


class AffineCoupling(Bijection):
    """y_a = x_a,   y_b = x_b·exp(s(x_a)) + t(x_a),   log|det| = Σ s(x_a).

    s (the log-scale) and t (the shift) are two small networks. s is kept in
    ±``max_log_scale`` by a tanh, so that a layer can stretch by e² ≈ 7 at most and
    training stays finite.

    Args:
        dim: D; the first ⌊D/2⌋ coordinates are x_a.
        width: width of the two hidden layers of s and of t.
        frequencies: Fourier features of x_a, 0 for none.
        max_log_scale: bound of |s|.
    """

    def __init__(
        self,
        dim: int = 2,
        width: int = 64,
        frequencies: int = 0,
        max_log_scale: float = 2.0,
    ) -> None:
        super().__init__()
        self.split = [check_count("dim", dim, least=2) // 2, dim - dim // 2]
        self.max_log_scale = check_positive("max_log_scale", max_log_scale)
        self.features = FourierFeatures(self.split[0], frequencies)
        sizes = [self.features.out_dim, width, width, self.split[1]]
        self.log_scale = mlp(sizes, zero_last=True)
        self.shift = mlp(sizes, zero_last=True)

    def parameters_from(self, x_a: Tensor) -> tuple[Tensor, Tensor]:
        """s(x_a) and t(x_a), each (B, D − ⌊D/2⌋)."""
        h = self.features(x_a)
        s = self.max_log_scale * torch.tanh(self.log_scale(h) / self.max_log_scale)
        return s, self.shift(h)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x_a, x_b = x.split(self.split, dim=1)
        s, t = self.parameters_from(x_a)
        return torch.cat([x_a, x_b * s.exp() + t], dim=1), s.sum(1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        y_a, y_b = y.split(self.split, dim=1)
        s, t = self.parameters_from(y_a)
        return torch.cat([y_a, (y_b - t) * (-s).exp()], dim=1), -s.sum(1)


class SplineCoupling(Bijection):
    """y_a = x_a,   x_b = RQS(y_b; θ(y_a)),   log|det| = −Σ log RQS'(y_b).

    RQS is a monotone rational-quadratic spline, one per coordinate. It maps [−b, b] to
    itself and is the identity outside. θ holds K bin widths, K bin heights and K − 1
    slopes at the inner knots. The closed form runs from data to noise, the direction of
    training; sampling solves the spline's quadratic equation.

    Args:
        dim: D; the first ⌊D/2⌋ coordinates are x_a.
        bins: K.
        width: width of the two hidden layers of θ.
        frequencies: Fourier features of y_a, 0 for none.
        bound: b, in units of the data.
    """

    def __init__(
        self,
        dim: int = 2,
        bins: int = 32,
        width: int = 64,
        frequencies: int = 12,
        bound: float = 4.0,
    ) -> None:
        super().__init__()
        self.split = [check_count("dim", dim, least=2) // 2, dim - dim // 2]
        self.bins = check_count("bins", bins, least=2)
        self.bound = check_positive("bound", bound)
        self.features = FourierFeatures(self.split[0], frequencies, bound)
        out = self.split[1] * (3 * bins - 1)
        self.theta = mlp([self.features.out_dim, width, width, out], zero_last=True)

    def spline(self, x_a: Tensor) -> RationalQuadraticSpline:
        """The spline that moves x_b, given x_a."""
        theta = self.theta(self.features(x_a)).unflatten(1, (self.split[1], -1))
        return RationalQuadraticSpline(theta, self.bound)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x_a, x_b = x.split(self.split, dim=1)
        y_b, log_slope = self.spline(x_a).inverse(x_b)
        return torch.cat([x_a, y_b], dim=1), log_slope.sum(1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        y_a, y_b = y.split(self.split, dim=1)
        x_b, log_slope = self.spline(y_a)(y_b)
        return torch.cat([y_a, x_b], dim=1), log_slope.sum(1)


class RationalQuadraticSpline:
    """A monotone spline on [−b, b], the identity outside (Durkan et al. 2019).

    Between knots (x_k, y_k) and (x_{k+1}, y_{k+1}) with slopes δ_k, δ_{k+1}, width w,
    height h, mean slope s = h/w and ξ = (x − x_k)/w (eq. 4 to 8):

        q     = s + (δ_{k+1} + δ_k − 2s) ξ(1−ξ)
        y     = y_k + h·(s ξ² + δ_k ξ(1−ξ)) / q
        dy/dx = s²·(δ_{k+1} ξ² + 2s ξ(1−ξ) + δ_k (1−ξ)²) / q²

    Args:
        theta: (B, D, 3K − 1), K unnormalised widths, K heights and K − 1 inner slopes;
            all zeros make the identity.
        bound: b.
    """

    MIN_BIN = 1e-4  # least width and height of a bin, as a share of [−b, b]
    MIN_SLOPE = 1e-4

    def __init__(self, theta: Tensor, bound: float) -> None:
        bins = (theta.shape[-1] + 1) // 3
        # (B, D, 2, K)
        sizes = theta[..., : 2 * bins].unflatten(-1, (2, bins)).softmax(-1)
        sizes = 2 * bound * (self.MIN_BIN + (1 - self.MIN_BIN * bins) * sizes)
        knots = F.pad(sizes.cumsum(-1), (1, 0)) - bound  # (B, D, 2, K + 1)
        at_zero = log(exp(1 - self.MIN_SLOPE) - 1)  # softplus(at_zero) = 1 − MIN_SLOPE
        slopes = self.MIN_SLOPE + F.softplus(theta[..., 2 * bins :] + at_zero)
        self.slopes = F.pad(slopes, (1, 1), value=1.0)  # (B, D, K + 1), 1 at both ends
        self.knots_x, self.knots_y = knots.unbind(-2)
        self.bound = bound

    def _bin(self, value: Tensor, knots: Tensor) -> tuple[Tensor, ...]:
        """x_k, w, y_k, h, δ_k, δ_{k+1} of the bin that holds each value, all (B, D)."""
        inner = knots[..., 1:-1].detach().contiguous()
        # (B, D, 1)
        k = torch.searchsorted(inner, value.detach()[..., None].contiguous())
        both = torch.cat([k, k + 1], dim=-1)  # (B, D, 2)
        x0, x1 = self.knots_x.gather(-1, both).unbind(-1)
        y0, y1 = self.knots_y.gather(-1, both).unbind(-1)
        d0, d1 = self.slopes.gather(-1, both).unbind(-1)
        return x0, x1 - x0, y0, y1 - y0, d0, d1

    def _log_slope(self, xi: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
        """log dy/dx at ξ."""
        mix = xi * (1 - xi)
        numerator = d1 * xi**2 + 2 * s * mix + d0 * (1 - xi) ** 2
        return 2 * s.log() + numerator.log() - 2 * (s + (d1 + d0 - 2 * s) * mix).log()

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D) → y and log dy/dx, each (B, D)."""
        inside = x.abs() < self.bound
        x0, w, y0, h, d0, d1 = self._bin(x, self.knots_x)
        s = h / w
        xi = ((x - x0) / w).clamp(0, 1)
        mix = xi * (1 - xi)
        y = y0 + h * (s * xi**2 + d0 * mix) / (s + (d1 + d0 - 2 * s) * mix)
        log_slope = self._log_slope(xi, s, d0, d1)
        return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y (B, D) → x and log dx/dy, each (B, D).

        ξ is the root of a ξ² + b ξ + c = 0 in [0, 1].
        """
        inside = y.abs() < self.bound
        x0, w, y0, h, d0, d1 = self._bin(y, self.knots_y)
        s = h / w
        rise = (y - y0).clamp(min=0)
        bend = rise * (d1 + d0 - 2 * s)
        a, b, c = h * (s - d0) + bend, h * d0 - bend, -s * rise
        xi = (2 * c / (-b - (b**2 - 4 * a * c).clamp(min=0).sqrt())).clamp(0, 1)
        x = x0 + w * xi
        log_slope = -self._log_slope(xi, s, d0, d1)
        return torch.where(inside, x, y), torch.where(inside, log_slope, 0.0)


# --- the flow -------------------------------------------------------------------------


class NormalizingFlow(nn.Module):
    """φ = φ_L ∘ … ∘ φ_1 with a standard normal base.

    The layers see a sample of any shape as a row of its D values.

    Args:
        layers: φ_1 … φ_L, in the order in which they turn noise into data.
        shape: of one sample.
    """

    layers: Sequence[Bijection]
    classes = 0

    def __init__(
        self, layers: Sequence[Bijection], shape: Sequence[int] = (2,)
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]
        self.shape = check_shape(shape)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, *shape) → y = φ(z) and log|det ∂y/∂z| (B,)."""
        x = self.check(z).flatten(1)  # (B, D)
        log_det = x.new_zeros(len(x))
        for layer in self.layers:
            x, term = layer(x)
            log_det = log_det + term
        return x.view_as(z), log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y (B, *shape) → z = φ⁻¹(y) and log|det ∂z/∂y| (B,)."""
        x = self.check(y).flatten(1)  # (B, D)
        log_det = x.new_zeros(len(x))
        for layer in reversed(self.layers):
            x, term = layer.inverse(x)
            log_det = log_det + term
        return x.view_as(y), log_det

    def log_prob_parts(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """log p_Z(φ⁻¹(y)) and log|det ∂φ⁻¹/∂y|, each (B,), in nats.

        log p(y) is their sum.
        """
        z, log_det = self.inverse(y)
        return normal_log_prob(z), log_det

    def log_prob(self, y: Tensor) -> Tensor:
        """log p(y) in nats, shape (B,), for y (B, *shape).

        Raises:
            TypeError, ValueError: not a batch of finite samples of the model's shape,
                dtype and device.
        """
        log_p_z, log_det = self.log_prob_parts(y)
        return log_p_z + log_det

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n samples (n, *shape) drawn from the model.

        Raises:
            ValueError: n < 1.
        """
        return self(self.base_sample(n, generator))[0]

    def base_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n samples (n, *shape) of the base N(0, I), like the model's weights."""
        return normal((check_count("n", n), *self.shape), reference(self), generator)

    @torch.no_grad()
    def path(self, z: Tensor) -> Tensor:
        """Where every coupling takes z: (C + 1, B, *shape) for C couplings, z to φ(z).

        A permutation is not a step: it relabels the coordinates of all that came
        before, so the whole path is drawn in the coordinates of the data and each step
        moves along x_b only.
        """
        frames = [self.check(z).flatten(1)]
        for layer in self.layers:
            if isinstance(layer, Permutation):
                frames = [layer(frame)[0] for frame in frames]
            else:
                frames.append(layer(frames[-1])[0])
        return torch.stack(frames).unflatten(2, self.shape)

    @torch.no_grad()
    def inverse_path(self, y: Tensor) -> Tensor:
        """The same path backwards: (C + 1, B, *shape), from y to φ⁻¹(y)."""
        y = self.check(y).flatten(1)
        # the data's coordinates are y[:, order]
        frames, order = [y], torch.arange(prod(self.shape), device=y.device)
        for layer in reversed(self.layers):
            y = layer.inverse(y)[0]
            if isinstance(layer, Permutation):
                order = layer.order[order]
            else:
                frames.append(y[:, order])
        return torch.stack(frames).unflatten(2, self.shape)

    def check(self, x: Tensor) -> Tensor:
        """Return ``x`` if it is a batch of samples for this model."""
        return check_samples(x, shape=self.shape, like=next(self.parameters(), None))


def negative_log_likelihood(flow: NormalizingFlow, batch: Any) -> Tensor:
    """−log p(y) of every sample of a batch, (B,), in nats: its mean is the loss."""
    y, condition = split_batch(batch)
    Unconditional().check(condition, len(flow.check(y)))
    return -flow.log_prob(y)


# --- the two flows of the course ------------------------------------------------------


def affine_flow(
    couplings: int = 12,
    width: int = 64,
    frequencies: int = 0,
    permutation: str = "swap",
) -> NormalizingFlow:
    """The exercise's flow on the plane: affine couplings, permutations between them.

    Args:
        couplings: number of couplings.
        width: width of the networks s and t.
        frequencies: Fourier features of their input, 0 for none.
        permutation: "swap", or "random" for torch.randperm(2), which swaps half the
            time only.

    Raises:
        ValueError: a count below 1 (below 0 for frequencies), an unknown permutation.
    """
    couplings = check_count("couplings", couplings)
    layers = [AffineCoupling(2, width, frequencies) for _ in range(couplings)]
    return _interleave(layers, permutation)


def spline_flow(
    couplings: int = 2, bins: int = 24, width: int = 64, frequencies: int = 32
) -> NormalizingFlow:
    """The same flow with rational-quadratic splines in place of the affine functions.

    Args:
        couplings: number of couplings; two can represent any density on the plane.
        bins: bins K of each spline.
        width: width of the network θ.
        frequencies: Fourier features of its input, 0 for none.

    Raises:
        ValueError: a count below 1 (below 0 for frequencies, below 2 for bins).
    """
    couplings = check_count("couplings", couplings)
    layers = [SplineCoupling(2, bins, width, frequencies) for _ in range(couplings)]
    return _interleave(layers, "swap")


def _interleave(couplings: Sequence[Bijection], permutation: str) -> NormalizingFlow:
    """Couplings with a permutation of two coordinates between each and the next."""
    check_option("permutation", permutation, ["swap", "random"])
    layers: list[Bijection] = [couplings[0]]
    for coupling in couplings[1:]:
        order = [1, 0] if permutation == "swap" else torch.randperm(2).tolist()
        layers += [Permutation(order), coupling]
    return NormalizingFlow(layers)


def train_affine_flow(
    flow: NormalizingFlow,
    data: Stream,
    *,
    measure: Measure[NormalizingFlow] | None = None,
    steps_per_epoch: int = 100,
) -> History:
    """Train a flow of affine couplings on fresh points, as the book does.

    Args:
        flow: trained in place.
        data: where the points come from.
        measure: held-out quantities of the flow so far.
        steps_per_epoch: measure at the start and after each epoch of so many steps.
    """
    return train_fresh(
        flow,
        data,
        negative_log_likelihood,
        steps=1800,
        batch=256,
        lr=3e-3,
        clip=0.3,
        measure=measure,
        steps_per_epoch=steps_per_epoch,
        generator=torch.Generator().manual_seed(2),
    )
