"""A VAE with continuous latents, with categorical ones, or with both.

    p(z, c) = N(z; 0, I)·Π_n 1/K_n
    q(z, c|x) = N(z; μ(x), diag σ²(x))·Π_n softmax(ℓ_n(x))[c_n]

    ELBO(x) = E_q[log p(x|z, c)] − KL(q(z|x) ‖ p(z)) − Σ_n (log K_n − H(q(c_n|x)))

All terms are sums, in nats: a KL that is averaged over the latents where log p(x|z, c)
is summed over the pixels is a weight below 1 on the KL, and no bound.

No gradient passes a drawn code c. In training a Gumbel-softmax sample of temperature τ
stands in its place, and τ falls from one value to another while the training goes on
(:class:`RelaxedLoss`). What is minimised then is **no bound**: the decoder is asked at
points that are no codes, while the KL is that of codes. −ELBO is measured with codes:
one that is drawn (``model(x)``), or all of them (``codes.py``).

Sources: Kingma and Welling 2014 (arXiv:1312.6114); Jang, Gu and Poole 2017
(arXiv:1611.01144); Dupont 2018, JointVAE (arXiv:1804.00104).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy
from math import log, prod
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from course_utils.checks import (
    check_count,
    check_number,
    check_option,
    check_positive,
    check_shape,
    split_batch,
)
from course_utils.data.images import ImageSplits
from course_utils.distributions import (
    Categorical,
    DiagonalNormal,
    Posterior,
    check_sizes,
    product,
)
from course_utils.models.vae.bernoulli import BernoulliDecoder
from course_utils.models.vae.model import (
    Autoencoder,
    Decoder,
    ElboParts,
    train_vae,
)
from course_utils.networks.basic import frozen, mlp
from course_utils.networks.images import conv_decoder, conv_encoder
from course_utils.training.history import History

Networks = Literal["conv", "mlp"]


class JointVAE(Autoencoder):
    """Encoder and decoder, with D continuous latents and N categorical ones.

    A latent is a row of D + ΣK numbers: the continuous ones, then a one-hot row for
    each categorical variable; that of ``given`` comes last.

    Args:
        encoder: images (B, …) to (B, 2D + ΣK): μ, log σ², then the logits of all
            categorical variables but the given one.
        decoder: p(x|z, c), of D + ΣK latents.
        shape: of one image.
        continuous: D, 0 for none.
        discrete: K_1 … K_N, without the given one; () for none.
        given: a network q(c|x) from images (B, …) to logits (B, K), for one more
            categorical variable. The model keeps a copy, which does not learn.
        given_size: its K.

    Raises:
        ValueError: no latent at all, or a decoder of another number of them.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: Decoder,
        shape: Sequence[int] = (3, 28, 28),
        *,
        continuous: int = 2,
        discrete: Sequence[int] = (),
        given: nn.Module | None = None,
        given_size: int = 10,
    ) -> None:
        super().__init__(encoder, decoder, shape)
        self.continuous = check_count("continuous", continuous, least=0)
        self.learnt = check_sizes(discrete) if discrete else ()
        self.given = None if given is None else deepcopy(given).requires_grad_(False)
        self.sizes = self.learnt if given is None else (*self.learnt, given_size)
        latents = self.continuous + sum(self.sizes)
        if decoder.latent != latents:
            raise ValueError(
                f"the decoder must take {latents} latents ({self.continuous} continuous"
                f" and categorical ones of {self.sizes} values), got {decoder.latent}"
            )

    def posterior(self, x: Tensor) -> Posterior:
        """q(z, c|x) of images x (B, …).

        A :class:`Product` of a :class:`DiagonalNormal` and :class:`Categorical`
        variables; where there is only one of them, that one.

        Raises:
            ValueError: images of another shape, NaN or infinite pixels.
        """
        d = self.continuous
        mean, log_var, logits = self.encode(x, 2 * d + sum(self.learnt)).split(
            [d, d, sum(self.learnt)], dim=1
        )
        parts: list[Posterior] = [DiagonalNormal(mean, log_var)] if d else []
        if self.learnt:
            parts.append(Categorical(logits, self.learnt))
        if self.given is not None:
            with frozen(self.given), torch.no_grad():
                parts.append(Categorical(self.given(x), self.sizes[-1:], False))
        return product(parts)

    def prior(self, count: int) -> Posterior:
        """p(z, c), ``count`` times over."""
        zeros = self.decoder.like.new_zeros(count, self.decoder.latent)
        z, c = zeros[:, : self.continuous], zeros[:, self.continuous :]
        parts: list[Posterior] = [DiagonalNormal(z, z)] if self.continuous else []
        if self.sizes:
            parts.append(Categorical(c, self.sizes))
        return product(parts)

    def relaxed(
        self,
        x: Tensor,
        temperature: Tensor | float,
        generator: torch.Generator | None = None,
    ) -> ElboParts:
        """What stands in the place of the ELBO in training: no bound, see above."""
        q = self.posterior(x)
        z = q.relaxed(temperature, generator)
        return ElboParts(self.decoder.log_likelihood(x, z), q.kl_to_prior())

    def units(self) -> list[slice]:
        """The places in a latent of each continuous number and each variable."""
        widths = [1] * self.continuous + list(self.sizes)
        ends = torch.tensor(widths).cumsum(0).tolist()
        return [slice(end - w, end) for end, w in zip(ends, widths, strict=True)]


class RelaxedLoss:
    """The loss of a training of S steps, whose temperature falls as it goes on.

        τ_s = τ_0·(τ_1/τ_0)^(s/(S − 1)),    s = 0 … S − 1

    The first step has τ_0 and the last one τ_1, whatever S is. A rate that is fixed
    instead, τ_s = τ_0·exp(−r·s), reaches τ_1 after log(τ_0/τ_1)/r steps: with r =
    3·10⁻⁵ it takes 23,000 of them to come from 1 to 0.5.

    Args:
        steps: S.
        first, last: τ_0 and τ_1.

    Attributes:
        step: how many losses were computed, s.
    """

    def __init__(self, steps: int, first: float = 1.0, last: float = 0.5) -> None:
        self.steps = check_count("steps", steps)
        self.first = check_positive("the first temperature", first)
        self.last = check_positive("the last temperature", last)
        self.step = 0

    def temperature(self) -> float:
        """τ_s of the next loss; after the last step it stays τ_1."""
        if self.step >= self.steps - 1:
            return self.last
        along = self.step / (self.steps - 1)
        return self.first * (self.last / self.first) ** along

    def __call__(self, vae: JointVAE, batch: Any) -> Tensor:
        """−(log p(x|z, y) − KL) at a relaxed sample y, (B,), in nats."""
        loss = -vae.relaxed(split_batch(batch)[0], self.temperature()).elbo
        self.step += 1
        return loss


def train_joint_vae(
    vae: JointVAE,
    data: ImageSplits,
    *,
    epochs: int = 6,
    batch: int = 64,
    lr: float = 1e-2,
    temperatures: tuple[float, float] = (1.0, 0.5),
    watched: int = 1000,
    keep: Collection[int] = (),
) -> History:
    """Minimise :class:`RelaxedLoss`; measure −ELBO, as ``train_vae`` does, with codes.

    Args:
        vae: trained in place.
        data: its ``train`` and ``validation`` images.
        epochs, batch, lr: passes over the images, images in a batch, peak rate.
        temperatures: τ at the first step and at the last.
        watched: how many images of each of the two sets are measured after an epoch.
        keep: epochs whose weights the history keeps.
    """
    steps = check_count("epochs", epochs) * data.train.steps(batch)
    return train_vae(
        vae,
        data,
        epochs=epochs,
        batch=batch,
        lr=lr,
        watched=watched,
        keep=keep,
        loss=RelaxedLoss(steps, *temperatures),
    )


def coloured_vae(
    continuous: int = 2,
    discrete: Sequence[int] = (),
    given: nn.Module | None = None,
    *,
    given_size: int = 10,
    networks: Networks = "conv",
    width: int = 8,
    hidden: int = 128,
    shape: Sequence[int] = (3, 28, 28),
    first_mean: float = 0.1,
) -> JointVAE:
    """The VAE of coloured digits, with Bernoulli pixels; see :class:`JointVAE`.

    The decoder starts dark. If it started at π = ½, every code would first have to
    darken the images by a thousand nats: the encoder learns to give all images the code
    that is darkest at the moment, its softmax saturates, and no gradient passes it any
    more.

    Args:
        continuous, discrete, given, given_size: the latents.
        networks: ``conv``; or ``mlp``, 2352–512–256 and back, as in the exercise.
        width, hidden: of the convolutional networks.
        shape: (C, H, W) of an image.
        first_mean: π of every pixel at the start, by the bias of the last layer; 0.5
            leaves it as it comes.

    Raises:
        ValueError: settings out of range.
    """
    check_option("networks", networks, get_args(Networks))
    sizes = tuple(discrete) + (() if given is None else (given_size,))
    latent = check_count("continuous", continuous, least=0) + sum(sizes)
    out = 2 * continuous + sum(discrete)
    if networks == "conv":
        encoder = conv_encoder(out, width, hidden, shape)
        network = conv_decoder(latent, width, hidden, shape)
    else:
        pixels = prod(check_shape(shape))
        encoder = nn.Sequential(nn.Flatten(), *mlp([pixels, 512, 256, out]))
        back = mlp([latent, 256, 512, pixels])
        network = nn.Sequential(*back, nn.Unflatten(1, tuple(shape)))
    if not 0 < check_number("first_mean", first_mean) < 1:
        raise ValueError(f"first_mean must lie in (0, 1), got {first_mean!r}")
    if first_mean != 0.5:
        last = [p for name, p in network.named_parameters() if name.endswith("bias")]
        nn.init.constant_(last[-1], log(first_mean / (1 - first_mean)))
    return JointVAE(
        encoder,
        BernoulliDecoder(network, latent),
        shape,
        continuous=continuous,
        discrete=discrete,
        given=given,
        given_size=given_size,
    )
