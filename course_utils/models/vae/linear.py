"""Probabilistic PCA: a VAE with a linear decoder, whose log p(x) is known exactly.

    z ~ N(0, I),  x ~ N(W·z + b, σ²I)   ⇒   x ~ N(b, W·Wᵀ + σ²I)
    p(z|x) = N(M⁻¹·Wᵀ·(x − b), σ²·M⁻¹),     M = Wᵀ·W + σ²·I

For a fixed σ the likelihood of N images is largest with b their mean and the columns of
W their principal directions u_d, of length √(λ_d − σ²) where the variance λ_d along u_d
exceeds σ², and 0 elsewhere. They are orthogonal, so M is diagonal and the posterior is
a diagonal normal whose mean is linear in x: one linear layer is its exact encoder.

Source: Tipping and Bishop 1999, "Probabilistic principal component analysis".
"""

from __future__ import annotations

from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_utils.checks import check_count, check_images, check_positive
from course_utils.models.vae.model import VAE, GaussianDecoder


class PrincipalComponents(NamedTuple):
    """The directions in which images vary most, in double precision.

    Attributes:
        middle: b, the mean image, (P,).
        direction: u_d, orthonormal, as columns (P, D).
        variance: λ_d, of the images along u_d, (D,); the largest comes first.
    """

    middle: Tensor
    direction: Tensor
    variance: Tensor


def principal_components(x: Tensor, latent: int) -> PrincipalComponents:
    """The first ``latent`` principal components of images x (N, …) of P pixels.

    Raises:
        ValueError: more components than pixels or images.
    """
    flat = x.flatten(1).double()  # (N, P)
    most = min(flat.shape)
    latent = check_count("latent", latent, least=0)
    if not 1 <= latent <= most:
        raise ValueError(f"latent must lie in 1 … {most}, got {latent}")
    middle = flat.mean(dim=0)
    variance, direction = torch.linalg.eigh((flat - middle).T.cov(correction=0))
    top = slice(-latent, None)
    return PrincipalComponents(middle, direction[:, top].flip(1), variance[top].flip(0))


class LinearVAE(VAE):
    """Probabilistic PCA of images, fitted by maximum likelihood.

    Args:
        x: the images to fit, (N, …).
        latent: D, at most the number of pixels or images.
        sigma: σ, of every pixel.

    Raises:
        ValueError: more latents than pixels or images.
    """

    decoder: GaussianDecoder
    direction: Tensor
    variance: Tensor
    middle: Tensor

    def __init__(self, x: Tensor, latent: int = 200, sigma: float = 0.4) -> None:
        noise = check_positive("sigma", sigma) ** 2
        middle, direction, variance = principal_components(x, latent)
        variance = variance.clamp(min=noise)
        weight = direction * (variance - noise).sqrt()  # W; M = diag λ

        decode = nn.Linear(latent, len(middle))
        encode = nn.Linear(len(middle), 2 * latent)
        with torch.no_grad():
            decode.weight.copy_(weight)
            decode.bias.copy_(middle)
            encode.weight.zero_()
            encode.weight[:latent] = (weight / variance).T
            encode.bias[:latent] = -(weight / variance).T @ middle
            encode.bias[latent:] = (noise / variance).log()
        shape = tuple(x.shape[1:])
        network = nn.Sequential(decode, nn.Unflatten(1, shape))
        decoder = GaussianDecoder(network, latent, sigma)
        super().__init__(nn.Sequential(nn.Flatten(), encode), decoder, shape)
        self.register_buffer("direction", direction)
        self.register_buffer("variance", variance)
        self.register_buffer("middle", middle)

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x; b, W·Wᵀ + σ²I) of images (B, …), exact: (B,), in nats.

        The covariance has the variance λ_d along u_d, and σ² across all of them, as
        they were fitted: training the decoder afterwards does not change it.

        Raises:
            ValueError: images of another shape, NaN or infinite pixels.
        """
        check_images(x, shape=self.shape)
        variance = self.variance.double()
        off = x.flatten(1).double() - self.middle.double()  # (B, P)
        along = off @ self.direction.double()  # (B, D)
        across = off.square().sum(1) - along.square().sum(1)  # (B,)
        noise = float(self.decoder.sigma) ** 2
        pixels, latent = self.direction.shape
        square = (along.square() / variance).sum(1) + across / noise
        log_det = variance.log().sum() + (pixels - latent) * log(noise)
        return -(square + log_det + pixels * log(2 * pi)).to(x.dtype) / 2
