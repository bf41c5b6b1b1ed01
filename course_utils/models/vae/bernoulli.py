"""A decoder of Bernoulli pixels, whose loss is the binary cross-entropy.

    p(b|z) = Π_i π_i(z)^b_i·(1 − π_i(z))^(1 − b_i),    π = sigmoid(f(z)),  b_i ∈ {0, 1}

An image with values x_i in [0, 1] between black and white is no such b. The cross-
entropy is linear in its target, so with x in the place of b it is a mean:

    −Σ_i (x_i·log π_i + (1 − x_i)·log(1 − π_i)) = E_b[−log p(b|z)],    P(b_i = 1) = x_i

Training with it models the image whose pixels are made black or white at random, each
by its value. −ELBO is then a bound on E_b[−log p(b)], not on −log p(x), and no decoder
can bring it below the entropy of those b (:func:`pixel_entropy`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from course_utils.checks import (
    check_alike,
    check_images,
    check_samples,
    has_values,
)
from course_utils.models.vae.model import Decoder


class BernoulliDecoder(Decoder):
    """p(b|z) = Bernoulli(π), π = sigmoid(f(z)), pixel by pixel.

    Args:
        network: f, from latents (B, D) to logits (B, …).
        latent: D.

    Raises:
        ValueError: D below 1.
    """

    def logits(self, z: Tensor) -> Tensor:
        """f(z): latents (B, D) to logits of the pixels (B, …).

        Raises:
            TypeError, ValueError: z of another shape, dtype or device; NaN or infinity.
        """
        check_samples(z, shape=(self.latent,), like=self.like, name="latents")
        return self.network(z)

    def forward(self, z: Tensor) -> Tensor:
        """π(z), the mean of p(b|z): latents (B, D) to images (B, …) in (0, 1)."""
        return self.logits(z).sigmoid()

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """E_b[log p(b|z)] = −BCE(π(z), x) (B,), in nats: summed over the pixels.

        For black and white images it is log p(x|z).

        Raises:
            ValueError: images that are not as f(z) is, values outside [0, 1], NaN.
        """
        logits = self.logits(z)
        self._check(x, logits)
        check_alike("images", x, logits)
        loss = binary_cross_entropy_with_logits(logits, x, reduction="none")
        return -loss.flatten(1).sum(1)

    def of_all_pairs(self, x: Tensor, z: Tensor) -> Tensor:
        """The same of all images (B, …) and all latents (M, D): (M, B), in nats.

        −BCE = Σ_i x_i·f_i − Σ_i log(1 + exp f_i), one product of matrices, in double
        precision.
        """
        logits = self.logits(z)
        self._check(x, logits)
        f = logits.flatten(1).double()  # (M, P)
        return (f @ x.flatten(1).double().T - softplus(f).sum(1)[:, None]).to(x.dtype)

    def _check(self, x: Tensor, logits: Tensor) -> None:
        """Refuse what are no images of this decoder, with values from 0 to 1."""
        check_images(x, shape=logits.shape[1:], like=self.like)
        if has_values(x):
            low, high = x.aminmax()
            if low < 0 or high > 1:
                raise ValueError(
                    "images of a Bernoulli decoder must lie in [0, 1],"
                    f" got {float(low):g} … {float(high):g}"
                )


def pixel_entropy(x: Tensor) -> Tensor:
    """Σ_i H(x_i), (B,), in nats: the floor of the cross-entropy of images x (B, …).

    H(x) = −x·log x − (1 − x)·log(1 − x) is 0 at black and white and log 2 between.

    Raises:
        ValueError: values outside [0, 1], NaN.
    """
    check_images(x, shape=x.shape[1:])
    entropy = torch.special.entr(x) + torch.special.entr(1 - x)
    if not entropy.isfinite().all():  # of a negative number it is −∞
        low, high = x.aminmax()
        raise ValueError(
            f"images must lie in [0, 1], got {float(low):g} … {float(high):g}"
        )
    return entropy.flatten(1).sum(1)
