"""A variational autoencoder, and a Gaussian decoder with its σ in the open.

    z ~ p(z) = N(0, I)                    a latent, (D,)
    x ~ p(x|z) = N(f(z), σ²I)             an image of P pixels; f is the decoder
    q(z|x) = N(μ(x), diag exp(log σ²(x))) from the encoder

    log p(x) ≥ ELBO(x) = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))     (nats)

The σ of p(x|z) is no detail. A loss a·‖x − f(z)‖² + b·KL is the negative ELBO, up to a
factor and a constant, of one σ only: 1/(2σ²) = a/b (:func:`implied_sigma`).

Source: Kingma and Welling 2014 (arXiv:1312.6114).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from math import pi, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from course_utils.checks import (
    check_alike,
    check_count,
    check_images,
    check_positive,
    check_samples,
    check_shape,
    split_batch,
)
from course_utils.data.images import ImageSplits
from course_utils.distributions import (
    DiagonalNormal,
    Posterior,
    reference,
    square_distances,
)
from course_utils.networks.images import conv_decoder, conv_encoder
from course_utils.training.history import History
from course_utils.training.loop import train_epochs
from course_utils.training.turns import Loss


class Decoder(nn.Module, ABC):
    """p(x|z): a law of images x for each latent z.

    Args:
        network: from latents (B, D) to images (B, …).
        latent: D.

    Raises:
        ValueError: D below 1.
    """

    def __init__(self, network: nn.Module, latent: int) -> None:
        super().__init__()
        self.network = network
        self.latent = check_count("latent", latent)

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and device of latents and images."""
        return reference(self)

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """The mean of p(x|z): latents (B, D) to images (B, …)."""

    @abstractmethod
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x_b|z_b) of images (B, …) and a latent each (B, D): (B,), in nats."""

    @abstractmethod
    def of_all_pairs(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x_b|z_m) of all images (B, …) and all latents (M, D): (M, B), in nats.

        Each latent is decoded once.
        """


class GaussianDecoder(Decoder):
    """p(x|z) = N(f(z), σ²I).

    Args:
        network: f, from latents (B, D) to images (B, …).
        latent: D.
        sigma: σ, of every pixel; the same in training and in evaluation.

    Raises:
        ValueError: σ not above 0, D below 1.
    """

    sigma: Tensor

    def __init__(self, network: nn.Module, latent: int, sigma: float) -> None:
        super().__init__(network, latent)
        sigma = float(check_positive("sigma", sigma))  # of an int, an integer tensor
        self.register_buffer("sigma", torch.tensor(sigma))

    @property
    def like(self) -> Tensor:
        """σ: it is there, whatever the network."""
        return self.sigma

    def forward(self, z: Tensor) -> Tensor:
        """f(z), the mean of p(x|z): latents (B, D) to images (B, …).

        Raises:
            TypeError, ValueError: z of another shape, dtype or device; NaN or infinity.
        """
        check_samples(z, shape=(self.latent,), like=self.sigma, name="latents")
        return self.network(z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log N(x; f(z), σ²I) (B,), in nats: summed over the pixels, not averaged.

        Raises:
            ValueError: images that are not as f(z) is, NaN or infinite pixels.
        """
        mean = self(z)
        check_images(x, shape=mean.shape[1:], like=self.sigma)
        check_alike("images", x, mean)
        square = (x - mean).flatten(1).square() / self.sigma**2  # (B, P)
        return -(square + (2 * pi * self.sigma**2).log()).sum(1) / 2

    def of_all_pairs(self, x: Tensor, z: Tensor) -> Tensor:
        """log N(x_b; f(z_m), σ²I), (M, B), in nats; the squares in double precision.

        Raises:
            TypeError, ValueError: as for the other two.
        """
        mean = self(z)
        check_images(x, shape=mean.shape[1:], like=self.sigma)
        square = square_distances(mean.flatten(1), x.flatten(1))  # (M, B)
        norm = x[0].numel() * (2 * pi * self.sigma**2).log() / 2
        return (-square / (2 * self.sigma**2) - norm).to(x.dtype)


class ElboParts(NamedTuple):
    """The two parts of an estimate of the ELBO, one value an image (B,), in nats.

    Attributes:
        reconstruction: log p(x|z) at one z ~ q: an unbiased estimate of its mean.
        kl: KL(q(z|x) ‖ p(z)), exact.
    """

    reconstruction: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """log p(x|z) − KL(q ‖ p), (B,): an unbiased estimate of the ELBO."""
        return self.reconstruction - self.kl


def lower_bound(
    decoder: Decoder,
    q: Posterior,
    x: Tensor,
    generator: torch.Generator | None = None,
) -> ElboParts:
    """The ELBO of images x (B, …) under posteriors q (B, D), with one sample of z."""
    return ElboParts(decoder.log_likelihood(x, q.sample(generator)), q.kl_to_prior())


class Autoencoder(nn.Module, ABC):
    """Encoder and decoder; which latents there are is for a subclass to say.

    Args:
        encoder: images (B, …) to what describes q(z|x), one row an image.
        decoder: p(x|z).
        shape: of one image.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: Decoder,
        shape: Sequence[int] = (1, 28, 28),
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.shape = encoder, decoder, check_shape(shape)

    @abstractmethod
    def posterior(self, x: Tensor) -> Posterior:
        """q(z|x) of images x (B, …): amortised, one network for all of them.

        Raises:
            ValueError: images of another shape, NaN or infinite pixels.
        """

    @abstractmethod
    def prior(self, count: int) -> Posterior:
        """p(z), ``count`` times over."""

    def encode(self, x: Tensor, width: int) -> Tensor:
        """What the encoder gives for images x (B, …), (B, width).

        Raises:
            ValueError: images of another shape, NaN or infinite pixels; another width.
        """
        check_images(x, shape=self.shape, like=self.decoder.like)
        found = self.encoder(x)
        wanted = found.new_empty(len(x), width)
        return check_alike("what the encoder gives", found, wanted)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> ElboParts:
        """The ELBO of images x, in two parts (B,)."""
        return lower_bound(self.decoder, self.posterior(x), x, generator)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """f(z) at the likeliest z of q(z|x)."""
        return self.decoder(self.posterior(x).mode())

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` images f(z), z ~ p(z): means of p(x|z), without pixel noise."""
        return self.decoder(self.prior(check_count("count", count)).sample(generator))


class VAE(Autoencoder):
    """Encoder and decoder, with a normal posterior and the prior N(0, I).

    Args:
        encoder: images (B, …) to (B, 2D): μ, then log σ².
        decoder: p(x|z).
        shape: of one image.
    """

    def posterior(self, x: Tensor) -> DiagonalNormal:
        """q(z|x) = N(μ(x), diag σ²(x)) of images x (B, …).

        Raises:
            ValueError: images of another shape, NaN or infinite pixels.
        """
        return DiagonalNormal(*self.encode(x, 2 * self.decoder.latent).chunk(2, dim=1))

    def prior(self, count: int) -> DiagonalNormal:
        """p(z) = N(0, I), ``count`` times over."""
        zeros = self.decoder.like.new_zeros(count, self.decoder.latent)
        return DiagonalNormal(zeros, zeros)


def negative_elbo(vae: Autoencoder, batch: Any) -> Tensor:
    """−ELBO of each image of a batch, (B,), in nats; its labels are left out."""
    return -vae(split_batch(batch)[0]).elbo


def conv_vae(
    latent: int = 200,
    sigma: float = 0.4,
    width: int = 8,
    hidden: int = 256,
    shape: Sequence[int] = (1, 28, 28),
) -> VAE:
    """The convolutional VAE of this book, for images (C, H, W) of this shape."""
    latent = check_count("latent", latent)
    network = conv_decoder(latent, width, hidden, shape)
    encoder = conv_encoder(2 * latent, width, hidden, shape)
    return VAE(encoder, GaussianDecoder(network, latent, sigma), shape)


def train_vae(
    vae: Autoencoder,
    data: ImageSplits,
    *,
    epochs: int = 30,
    batch: int = 128,
    lr: float = 3e-3,
    watched: int = 2000,
    keep: Collection[int] = (),
    loss: Loss[Any, Any] = negative_elbo,
) -> History:
    """Minimise −ELBO over ``data.train``; measure it on held-out and training images.

    What the history has measured: ``validation`` and ``training`` are −ELBO of images
    of these two sets; ``reconstruction``, −log p(x|z), and ``KL`` are the two parts of
    the first. All are in nats an image.

    Args:
        vae: trained in place.
        data: its ``train`` and ``validation`` images.
        epochs, batch, lr: passes over the images, images in a batch, peak rate.
        watched: how many images of each of the two sets are measured after an epoch.
        keep: epochs whose weights the history keeps.
        loss: what is minimised; −ELBO of an image, unless it is something like it.
    """

    def measure(vae: Autoencoder) -> dict[str, Tensor]:
        here = vae.decoder.like.device
        held_out: ElboParts = vae(data.validation.image[:watched].to(here))
        seen: ElboParts = vae(data.train.image[:watched].to(here))
        return {
            "validation": -held_out.elbo,
            "training": -seen.elbo,
            "reconstruction": -held_out.reconstruction,
            "KL": held_out.kl,
        }

    return train_epochs(
        vae,
        data.train,
        loss,
        epochs=epochs,
        batch=batch,
        lr=lr,
        measure=measure,
        keep=keep,
    )


def implied_sigma(pixel_weight: float, kl_weight: float) -> float:
    """The σ for which ``pixel_weight·‖x − f(z)‖² + kl_weight·KL`` is a negative ELBO.

    −ELBO = ‖x − f(z)‖²/(2σ²) + KL + const, so 1/(2σ²) = pixel_weight/kl_weight.

    Args:
        pixel_weight: what multiplies the squared error *summed* over the pixels: 1/784
            where the loss averages over 784 of them.
        kl_weight: what multiplies the KL *summed* over the latents: 1/200 where the
            loss averages over 200 of them, 2 where its ½ was forgotten.
    """
    return sqrt(
        check_positive("kl_weight", kl_weight)
        / (2 * check_positive("pixel_weight", pixel_weight))
    )
