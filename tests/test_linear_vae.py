"""Probabilistic PCA against the normal it is, and the estimates of log p against it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from course_utils.distributions import DiagonalNormal
from course_utils.models.vae import (
    LinearVAE,
    importance_log_prob,
    log_mean_weight,
    log_weights,
    prior_as_posterior,
    shared_prior_weights,
)
from course_utils.models.vae.linear import principal_components
from course_utils.notebook import seeded

SIGMA = 0.5


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """300 images of 4 × 5 pixels, correlated and not centred."""
    mix = torch.randn(20, 20, generator=seeded(0)) / 4
    x = torch.randn(300, 20, generator=seeded(1)) @ mix + torch.linspace(0, 1, 20)
    return x.view(300, 1, 4, 5)


@pytest.fixture(scope="module")
def pca(images: torch.Tensor) -> LinearVAE:
    return LinearVAE(images, latent=8, sigma=SIGMA)


def linear(pca: LinearVAE) -> nn.Linear:
    """The decoder's one layer."""
    layer = next(pca.decoder.network.children())
    assert isinstance(layer, nn.Linear)
    return layer


def normal(pca: LinearVAE) -> MultivariateNormal:
    """N(b, W·Wᵀ + σ²I) with the decoder's own W and b."""
    layer = linear(pca)
    weight = layer.weight.detach().double()
    covariance = weight @ weight.T + SIGMA**2 * torch.eye(20).double()
    return MultivariateNormal(layer.bias.detach().double(), covariance)


def test_principal_components_are_singular_vectors(images: torch.Tensor) -> None:
    middle, direction, variance = principal_components(images, 8)
    x = images.flatten(1).double().numpy()
    _, singular, rows = np.linalg.svd(x - x.mean(0), full_matrices=False)
    assert middle.numpy() == pytest.approx(x.mean(0))
    assert variance.numpy() == pytest.approx(singular[:8] ** 2 / len(x))
    # the same directions, up to their signs
    assert abs(rows[:8] @ direction.numpy()) == pytest.approx(np.eye(8), abs=1e-8)


def test_log_prob_is_that_of_the_normal(pca: LinearVAE, images: torch.Tensor) -> None:
    expected = normal(pca).log_prob(images.flatten(1).double()).float()
    torch.testing.assert_close(pca.log_prob(images), expected, atol=1e-4, rtol=0)


def test_encoder_is_the_posterior(pca: LinearVAE, images: torch.Tensor) -> None:
    """With the true posterior every weight is p(x), so one sample is enough."""
    log_w = log_weights(pca.decoder, pca.posterior(images), images, 3, seeded(2))
    exact = pca.log_prob(images).expand(3, -1)
    torch.testing.assert_close(log_w, exact, atol=1e-3, rtol=0)


def test_no_other_weights_are_likelier(pca: LinearVAE, images: torch.Tensor) -> None:
    """The fit is the maximum: turning or scaling W a little lowers the likelihood."""
    best = pca.log_prob(images).mean()
    layer = linear(pca)
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    noise = torch.randn(weight.shape, generator=seeded(3)).double() / 20
    for other in (weight * 1.05, weight * 0.95, weight + noise, weight - noise):
        covariance = other @ other.T + SIGMA**2 * torch.eye(20).double()
        law = MultivariateNormal(bias, covariance)
        assert law.log_prob(images.flatten(1).double()).mean() < best


def test_directions_without_variance_stay_out(images: torch.Tensor) -> None:
    pca = LinearVAE(images, latent=20, sigma=0.7)
    weak = pca.variance < 0.7**2 + 1e-9
    assert weak.any()
    assert not weak.all()
    assert torch.all(linear(pca).weight[:, weak] == 0)
    kl = pca.posterior(images).log_var[:, weak]
    torch.testing.assert_close(kl, torch.zeros_like(kl))


@pytest.mark.parametrize("latent", [0, 21])
def test_latents_out_of_range(images: torch.Tensor, latent: int) -> None:
    with pytest.raises(ValueError, match=r"latent must lie in 1 … 20"):
        LinearVAE(images, latent=latent)


def test_sigma_must_be_positive(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="sigma"):
        LinearVAE(images, latent=2, sigma=0.0)


def test_colours_and_other_sides(images: torch.Tensor) -> None:
    """The shape changes nothing: an image is a row of its values."""
    flat, coloured = images.view(300, 1, 4, 5), images.reshape(300, 2, 5, 2)
    grey, colour = (LinearVAE(x, latent=8, sigma=SIGMA) for x in (flat, coloured))
    assert colour.sample(3).shape == (3, 2, 5, 2)
    assert colour.reconstruct(coloured[:3]).shape == (3, 2, 5, 2)
    torch.testing.assert_close(colour.log_prob(coloured), grey.log_prob(flat))
    with pytest.raises(ValueError, match=r"shape \(B, 2, 5, 2\), got \(3, 1, 4, 5\)"):
        colour.log_prob(flat[:3])


def test_images_of_another_shape(pca: LinearVAE) -> None:
    with pytest.raises(ValueError, match="shape"):
        pca.log_prob(torch.zeros(2, 1, 5, 4))


def test_importance_sampling_finds_the_truth(
    pca: LinearVAE, images: torch.Tensor
) -> None:
    """From a q that is too wide: far below at K = 1, close at K = 2,000."""
    x = images[:20]
    mean, log_var = pca.posterior(x)
    wide = DiagonalNormal(mean, log_var + 0.5)
    exact = pca.log_prob(x)
    found = importance_log_prob(pca.decoder, wide, x, 2000, seeded(4))
    assert (found - exact).abs().max() < 0.2
    one = log_weights(pca.decoder, wide, x, 500, seeded(5)).mean(0)  # the ELBO
    assert (exact - one).mean() > 0.5


def test_shared_prior_weights_estimate_the_same(images: torch.Tensor) -> None:
    pca = LinearVAE(images, latent=2, sigma=1.0)
    x, exact = images[:20], pca.log_prob(images[:20])
    shared = shared_prior_weights(pca.decoder, x, 20_000, seeded(6))
    assert shared.shape == (20_000, 20)
    assert (log_mean_weight(shared) - exact).abs().median() < 0.05
    prior = prior_as_posterior(pca.decoder, 20)
    alone = log_weights(pca.decoder, prior, x, 20_000, seeded(7))
    torch.testing.assert_close(shared.mean(0), alone.mean(0), atol=0, rtol=0.03)


def test_shared_prior_weights_are_log_likelihoods(
    pca: LinearVAE, images: torch.Tensor
) -> None:
    shared = shared_prior_weights(pca.decoder, images[:3], 4, seeded(8))
    z = torch.randn(4, 8, generator=seeded(8))
    for i in range(3):
        expected = pca.decoder.log_likelihood(images[i].expand(4, -1, -1, -1), z)
        torch.testing.assert_close(shared[:, i], expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="samples"):
        shared_prior_weights(pca.decoder, images[:3], 0)
