"""A variational autoencoder whose decoder is Gaussian, with its σ in the open.

    z ~ p(z) = N(0, I)                    a latent, (D,)
    x ~ p(x|z) = N(f(z), σ²I)             an image of P pixels; f is the decoder
    q(z|x) = N(μ(x), diag exp(log σ²(x))) from the encoder

    log p(x) ≥ ELBO(x) = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))     (nats)

The σ of p(x|z) is no detail. A loss a·‖x − f(z)‖² + b·KL is the negative ELBO, up to a
factor and a constant, of one σ only: 1/(2σ²) = a/b (:func:`implied_sigma`).

Source: Kingma and Welling 2014 (arXiv:1312.6114).
"""

from __future__ import annotations

from collections.abc import Collection
from math import log, pi, sqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_utils.artifacts import trained
from course_utils.checks import check_count, check_images, check_positive
from course_utils.data.mnist import MNIST
from course_utils.training import History, fit_epochs


class DiagonalNormal(NamedTuple):
    """N(μ, diag σ²), one for each image.

    Attributes:
        mean: μ, (B, D).
        log_var: log σ², (B, D): not log σ, which is half of it.
    """

    mean: Tensor
    log_var: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """z = μ + σ·ε (B, D), the reparameterization trick: gradients reach μ and σ."""
        eps = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + (self.log_var / 2).exp() * eps

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; μ, diag σ²), z (…, B, D) → (…, B)."""
        square = (z - self.mean).square() / self.log_var.exp()
        return -(square + self.log_var + log(2 * pi)).sum(-1) / 2

    def kl_to_prior(self) -> Tensor:
        """KL(q ‖ N(0, I)) = ½·Σ(μ² + σ² − 1 − log σ²), (B,), in nats."""
        return (self.mean.square() + self.log_var.exp() - 1 - self.log_var).sum(-1) / 2


def prior_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I), z (…, D) → (…)."""
    return -(z.square() + log(2 * pi)).sum(-1) / 2


class GaussianDecoder(nn.Module):
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
        super().__init__()
        self.network = network
        self.latent = check_count("latent", latent)
        sigma = float(check_positive("sigma", sigma))  # of an int, an integer tensor
        self.register_buffer("sigma", torch.tensor(sigma))

    def forward(self, z: Tensor) -> Tensor:
        """f(z), the mean of p(x|z): latents (B, D) to images (B, …).

        Raises:
            ValueError: z of another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(
                f"latents must have shape (B, {self.latent}), got {tuple(z.shape)}"
            )
        return self.network(z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log N(x; f(z), σ²I) (B,), in nats: summed over the pixels, not averaged.

        Raises:
            ValueError: images that are not as f(z) is, NaN or infinite pixels.
        """
        mean = self(z)
        check_images(x, shape=mean.shape[1:])
        square = (x - mean).flatten(1).square() / self.sigma**2  # (B, P)
        return -(square + (2 * pi * self.sigma**2).log()).sum(1) / 2


class Bound(NamedTuple):
    """The ELBO's two parts, one value an image (B,), in nats.

    Attributes:
        reconstruction: log p(x|z) at one z ~ q: an unbiased estimate of its mean.
        kl: KL(q(z|x) ‖ p(z)), exact.
    """

    reconstruction: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """E_q[log p(x|z)] − KL(q ‖ p), (B,)."""
        return self.reconstruction - self.kl


def lower_bound(
    decoder: GaussianDecoder,
    q: DiagonalNormal,
    x: Tensor,
    generator: torch.Generator | None = None,
) -> Bound:
    """The ELBO of images x (B, …) under posteriors q (B, D), with one sample of z."""
    return Bound(decoder.log_likelihood(x, q.sample(generator)), q.kl_to_prior())


class VAE(nn.Module):
    """Encoder and Gaussian decoder.

    Args:
        encoder: images (B, …) to (B, 2D): μ, then log σ².
        decoder: p(x|z).
        shape: of one image.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: GaussianDecoder,
        shape: tuple[int, ...] = (1, 28, 28),
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.shape = encoder, decoder, shape

    def posterior(self, x: Tensor) -> DiagonalNormal:
        """q(z|x) of images x (B, …): amortised, one network for all of them.

        Raises:
            ValueError: images of another shape, NaN or infinite pixels.
        """
        check_images(x, shape=self.shape)
        mean, log_var = self.encoder(x).chunk(2, dim=1)  # (B, D), (B, D)
        return DiagonalNormal(mean, log_var)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Bound:
        """The ELBO of images x, in two parts (B,)."""
        return lower_bound(self.decoder, self.posterior(x), x, generator)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """f(μ(x)): the image that the middle of q(z|x) stands for."""
        return self.decoder(self.posterior(x).mean)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` images f(z), z ~ N(0, I): means of p(x|z), without pixel noise."""
        shape = (check_count("count", count), self.decoder.latent)
        return self.decoder(torch.randn(shape, generator=generator))


def negative_elbo(vae: VAE, batch: tuple[Tensor, ...]) -> Tensor:
    """−ELBO of each image of a batch whose first part is the images, (B,), in nats."""
    return -vae(batch[0]).elbo


def conv_encoder(latent: int, width: int = 8, hidden: int = 256) -> nn.Sequential:
    """Two strided convolutions, two linear layers: (B, 1, 28, 28) to (B, 2·latent)."""
    return _fast(
        nn.Conv2d(1, width, 4, stride=2, padding=1),  # (B, w, 14, 14)
        nn.SiLU(),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),  # (B, 2w, 7, 7)
        nn.SiLU(),
        nn.Flatten(),  # (B, 98w)
        nn.Linear(98 * width, hidden),
        nn.SiLU(),
        nn.Linear(hidden, 2 * latent),
    )


def conv_decoder(latent: int, width: int = 8, hidden: int = 256) -> nn.Sequential:
    """The encoder's mirror image: (B, latent) to (B, 1, 28, 28)."""
    return _fast(
        nn.Linear(latent, hidden),
        nn.SiLU(),
        nn.Linear(hidden, 98 * width),
        nn.SiLU(),
        nn.Unflatten(1, (2 * width, 7, 7)),  # (B, 2w, 7, 7)
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),  # (B, w, 14, 14)
        nn.SiLU(),
        nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),  # (B, 1, 28, 28)
    )


def _fast(*layers: nn.Module) -> nn.Sequential:
    """Layers in a row, their weights in the order that a CPU likes best."""
    network: nn.Module = nn.Sequential(*layers)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def conv_vae(
    latent: int = 200, sigma: float = 0.4, width: int = 8, hidden: int = 256
) -> VAE:
    """The convolutional VAE of this book for images of 28 × 28 pixels."""
    decoder = GaussianDecoder(conv_decoder(latent, width, hidden), latent, sigma)
    return VAE(conv_encoder(latent, width, hidden), decoder)


def train_vae(
    vae: VAE,
    data: MNIST,
    *,
    epochs: int = 30,
    batch: int = 128,
    lr: float = 3e-3,
    watched: int = 2000,
    keep: Collection[int] = (),
) -> History:
    """Minimise −ELBO over ``data.train``; measure it on held-out and training images.

    The history's ``validation`` and ``training`` are −ELBO of images of these two sets,
    measured alike; ``reconstruction``, −log p(x|z), and ``KL`` are the two parts of the
    first. All are in nats an image.

    Args:
        vae: trained in place.
        data: its ``train`` and ``validation`` images.
        epochs, batch, lr: passes over the images, images in a batch, peak rate.
        watched: how many images of each of the two sets are measured after an epoch.
        keep: epochs whose weights the history keeps.
    """

    def validate() -> dict[str, Tensor]:
        held_out: Bound = vae(data.validation.image[:watched])
        seen: Bound = vae(data.train.image[:watched])
        return {
            "validation": -held_out.elbo,
            "training": -seen.elbo,
            "reconstruction": -held_out.reconstruction,
            "KL": held_out.kl,
        }

    return fit_epochs(
        vae,
        data.train,
        negative_elbo,
        epochs=epochs,
        batch=batch,
        lr=lr,
        validate=validate,
        keep=keep,
    )


def digits_vae(data: MNIST) -> tuple[VAE, History]:
    """The book's VAE of digits, trained at most once on each machine.

    Its history keeps the weights after 1, 5, 10, 20 and 30 epochs.
    """
    return trained("vae", conv_vae, train_vae, data=data, keep=[1, 5, 10, 20, 30])


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
