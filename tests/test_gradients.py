"""Likelihoods are differentiable where their points ask for it, and only there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from course_utils.data import OlympicRings, Spiral
from course_utils.models.classifier import Classifier
from course_utils.models.diffusion import (
    OptimalDenoiser,
    VPCosine,
    evidence_lower_bound,
    flow_log_prob,
    mlp_denoiser,
)
from course_utils.models.flow_matching import (
    FlowMatching,
    mlp_velocity,
)
from course_utils.models.kernel_density import KernelDensity
from course_utils.models.normalizing_flow import affine_flow
from course_utils.models.vae import LinearVAE

torch.manual_seed(0)
POINTS = torch.randn(3, 2, dtype=torch.float64) * 0.4
IMAGES = torch.rand(5, 1, 8, 8, dtype=torch.float64)


def away_from_the_start(model: nn.Module) -> Any:
    """A model in float64 whose last layers are not zero."""
    draws = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=draws)
    return model.double()


FLOW = away_from_the_start(FlowMatching(mlp_velocity(width=8)))
NET = away_from_the_start(mlp_denoiser(VPCosine(), width=8))
BEST = OptimalDenoiser(Spiral(), VPCosine())
DIRECT = away_from_the_start(affine_flow(2, 8, 2))
JUDGE = away_from_the_start(Classifier(2, (1, 8, 8), classes=3))
MEMORY = KernelDensity(IMAGES[:2], 0.3)
LINEAR = LinearVAE(IMAGES, latent=2).double()


def bound(x: Tensor) -> Tensor:
    draws = torch.Generator().manual_seed(2)
    return evidence_lower_bound(NET, x, levels=2, repeats=2, generator=draws).value


LIKELIHOODS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor, Any]] = {
    "flow matching": (lambda x: FLOW.log_prob(x, steps=2), POINTS, FLOW),
    "diffusion": (lambda x: flow_log_prob(NET, x, steps=2), POINTS, NET),
    "exact denoiser": (lambda x: flow_log_prob(BEST, x, steps=2), POINTS, None),
    "bound": (bound, POINTS, NET),
    "normalizing flow": (DIRECT.log_prob, POINTS, DIRECT),
    "classifier": (JUDGE.log_prob, IMAGES[:1], JUDGE),
    "kernel density": (MEMORY.log_prob, IMAGES[:1], None),
    "linear VAE": (LINEAR.log_prob, IMAGES[:1], None),
    "spiral": (Spiral().log_prob, POINTS, None),
}
each_likelihood = pytest.mark.parametrize("name", LIKELIHOODS)


@each_likelihood
def test_the_gradient_of_the_points_is_right(name: str) -> None:
    likelihood, points, _ = LIKELIHOODS[name]
    assert gradcheck(likelihood, points.clone().requires_grad_(), atol=1e-4)


@each_likelihood
def test_the_weights_get_theirs_too(name: str) -> None:
    """By central differences along a direction in the space of weights."""
    likelihood, points, model = LIKELIHOODS[name]
    if model is None:
        return
    weights = list(model.parameters())
    draws = torch.Generator().manual_seed(3)
    way = [torch.randn(w.shape, generator=draws, dtype=w.dtype) for w in weights]
    value = likelihood(points.clone().requires_grad_()).sum()
    slopes = torch.autograd.grad(value, weights, allow_unused=True)
    pairs = [(g, d) for g, d in zip(slopes, way, strict=True) if g is not None]
    slope = torch.stack([(g * d).sum() for g, d in pairs]).sum()

    def moved(step: float) -> Tensor:
        with torch.no_grad():
            for weight, d in zip(weights, way, strict=True):
                weight += step * d
            value = likelihood(points).sum()
            for weight, d in zip(weights, way, strict=True):
                weight -= step * d
        return value

    measured = (moved(1e-5) - moved(-1e-5)) / 2e-5
    assert abs(float(measured)) > 1e-3
    torch.testing.assert_close(slope, measured, rtol=1e-4, atol=1e-6)


@each_likelihood
def test_nothing_is_kept_where_no_point_asks(name: str) -> None:
    likelihood, points, _ = LIKELIHOODS[name]
    if name != "normalizing flow":  # direct: as everywhere in torch
        assert not likelihood(points).requires_grad
    with torch.no_grad():
        assert not likelihood(points.clone().requires_grad_()).requires_grad


@each_likelihood
def test_asking_changes_no_value(name: str) -> None:
    likelihood, points, _ = LIKELIHOODS[name]
    asked = likelihood(points.clone().requires_grad_()).detach()
    assert torch.equal(asked, likelihood(points).detach())


def test_rings_are_flat() -> None:
    """Their density is the same everywhere on them, so the score is 0."""
    rings = OlympicRings()
    x = rings.sample(100).requires_grad_()
    density = rings.log_prob(x)
    if density.requires_grad:
        (slope,) = torch.autograd.grad(density.sum(), x)
        assert not slope.any()


def test_a_truth_from_a_table_says_that_it_has_no_gradient() -> None:
    best = OptimalDenoiser(OlympicRings(), VPCosine())
    x = OlympicRings().sample(4).requires_grad_()
    with pytest.raises(RuntimeError, match="read from a table and carries no gradient"):
        flow_log_prob(best, x, steps=2)
    assert flow_log_prob(best, x.detach(), steps=2).isfinite().all()


def test_a_classifier_keeps_its_modes() -> None:
    model = Classifier(2, (1, 8, 8), classes=3).train()
    model.body.eval()  # frozen statistics
    model.log_prob(IMAGES.float())
    assert model.training
    assert not model.body.training
    with pytest.raises(TypeError, match="images must be a"):
        model.log_prob(IMAGES.numpy())  # type: ignore[arg-type]


def test_the_linear_vae_may_change_its_dtype() -> None:
    exact = LinearVAE(IMAGES, latent=2)
    before = exact.log_prob(IMAGES)
    torch.testing.assert_close(
        exact.float().log_prob(IMAGES), before, rtol=1e-4, atol=1e-2
    )
