"""A model that remembers its images: a Gaussian around each, all equally likely.

    p(x) = 1/N · Σ_i N(x; x_i, σ²I),    i = 1 … N

It is a latent variable model whose latent is the number i of an image and whose decoder
is a table, so its log p(x) can be held against a VAE's of the same σ. With one image it
is the model that ignores its latent.

Source: Parzen 1962, "On estimation of a probability density function and mode".
"""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor

from course_utils.checks import check_images, check_positive
from course_utils.distributions import square_distances

CHUNK = 250  # images at once: bounds the memory


class KernelDensity:
    """Equal parts of N(x_i, σ²I), one for each image x_i.

    Args:
        images: the x_i, (N, …).
        sigma: σ, of every pixel.

    Raises:
        ValueError: σ not above 0, no image, NaN or infinite pixels.
    """

    def __init__(self, images: Tensor, sigma: float) -> None:
        self.shape = tuple(images.shape[1:])
        self.images = check_images(images, shape=self.shape)
        self.sigma = check_positive("sigma", sigma)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) of images x (B, …), exact: (B,), in nats.

        Raises:
            TypeError, ValueError: images of another shape, dtype or device than those
                that it remembers; NaN or infinite pixels.
        """
        check_images(x, shape=self.shape, like=self.images)
        known = self.images.flatten(1).double()  # (N, P)
        count, pixels = known.shape
        parts = []
        for part in x.flatten(1).split(CHUNK):
            square = square_distances(part, known) / self.sigma**2  # (B, N)
            parts.append((-square / 2).logsumexp(dim=1))
        norm = log(count) + pixels * log(2 * pi * self.sigma**2) / 2
        return (torch.cat(parts) - norm).to(x.dtype)
