"""The space in which a latent diffusion works: the latents of a VAE, normalised.

    u ~ q(u|x) = N(μ(x), diag σ²(x))      the encoder of a VAE, (D,)
    z = (u − m)/s                         m, s: mean and deviation of u over the images
    x̂ = f(m + s·z)                        its decoder, cut to [0, 1]

The noise that a sampler starts from has mean 0 and deviation 1 in each coordinate, and
so has z. An image has 3·28·28 = 2352 values, z has D = 32: a network of linear layers
is enough for it.

Source: Rombach et al. 2022, "High-resolution image synthesis with latent diffusion
models" (arXiv:2112.10752), where one number, 0.18215, takes the place of all 1/s.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_utils.checks import check_images, check_samples
from course_utils.distributions import DiagonalNormal
from course_utils.models.vae.model import VAE
from course_utils.networks.basic import frozen

SMALLEST = 1e-6  # deviation of a coordinate; a smaller one is not divided by


class LatentSpace(nn.Module):
    """Images to normalised latents and back.

    Args:
        vae: trained; frozen from now on.
        x: images (N, C, H, W) that say what mean and deviation are, N ≥ 2.

    Attributes:
        mean, std: m and s, (D,).

    Raises:
        TypeError: not a VAE with a normal posterior; images of another dtype.
        ValueError: images of another shape, fewer than two; NaN or infinite pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vae: VAE, x: Tensor) -> None:
        super().__init__()
        if not isinstance(vae, VAE):
            raise TypeError(f"vae must be a VAE, got {type(vae).__name__}")
        self.vae = vae.eval().requires_grad_(False)
        q = self._posterior(x)
        if len(x) < 2:
            raise ValueError(f"there must be at least two images, got {len(x)}")
        # the law of total variance: Var u = Var μ + E σ²
        variance = q.mean.var(0) + q.log_var.exp().mean(0)
        self.register_buffer("mean", q.mean.mean(0))
        self.register_buffer("std", variance.sqrt().clamp(min=SMALLEST))

    @property
    def dim(self) -> int:
        """D, how many numbers a latent has."""
        return self.vae.decoder.latent

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return self.vae.shape

    def law(self, x: Tensor) -> DiagonalNormal:
        """The law of z of each image x (B, C, H, W): means and log σ², (B, D).

        Raises:
            TypeError, ValueError: images of another shape, dtype or device; NaN or
                infinite pixels.
        """
        q = self._posterior(x)
        return DiagonalNormal(
            (q.mean - self.mean) / self.std, q.log_var - 2 * self.std.log()
        )

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """z (B, D), drawn from that law."""
        return self.law(x).sample(generator)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """x̂ (B, C, H, W) in [0, 1] of latents z (B, D).

        Raises:
            TypeError, ValueError: z of another shape, dtype or device; NaN or infinity.
        """
        check_samples(z, shape=(self.dim,), like=self.mean, name="latents")
        with frozen(self.vae):
            return self.vae.decoder(self.mean + self.std * z).clamp(0, 1)

    @torch.no_grad()
    def _posterior(self, x: Tensor) -> DiagonalNormal:
        """q(u|x), some images at a time."""
        check_images(x, shape=self.shape, like=self.vae.decoder.like)
        with frozen(self.vae):
            parts = [self.vae.posterior(part) for part in x.split(1000)]
        return DiagonalNormal(
            torch.cat([q.mean for q in parts]), torch.cat([q.log_var for q in parts])
        )
