"""A joint VAE whose codes are given: one for the digit, one for the colour.

The continuous z is left with the style.

    p(z, d, c) = N(z; 0, I)·1/10·1/10
    q(z, d, c|x) = N(z; μ(x), diag σ²(x))·q(d|x)·q(c|x)

q(d|x) comes from views (:mod:`~course_utils.models.clustering`) and q(c|x) from k-means
on the images' colours; neither uses a label, and neither learns any more. So nothing
has to be relaxed: the codes are drawn, and what is minimised is −ELBO itself,

    ELBO(x) = E_q[log p(x|z, d, c)] − KL(q(z|x) ‖ N(0, I)) − (2·log 10 − H(d) − H(c))

A z that repeats the code costs little, and the decoder may read digit and colour from
there. So z is dear at first: its KL counts β times, and β falls from a large number to
1 while the training goes on. The codes, whose KL nobody can change, are learnt first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.checks import check_count, check_number, check_positive, split_batch
from course_utils.data.colours import colour_of
from course_utils.data.images import ImageSplits
from course_utils.distributions import Categorical, DiagonalNormal, Product, product
from course_utils.models.clustering import DigitCode, k_means
from course_utils.models.vae.joint import JointVAE, coloured_vae
from course_utils.models.vae.model import Decoder, train_vae
from course_utils.networks.basic import frozen
from course_utils.training.history import History


class ColourCode(nn.Module):
    """q(c|x) ∝ exp(−‖colour(x) − m_c‖²/2T): the nearest of K colours.

    Args:
        centres: m, red, green and blue light, (K, 3).
        spread: T.
    """

    centres: Tensor

    def __init__(self, centres: Tensor, spread: float = 0.002) -> None:
        super().__init__()
        self.register_buffer("centres", centres)
        self.spread = check_positive("spread", spread)

    @classmethod
    def of(cls, data: ImageSplits, clusters: int = 10, used: int = 5000) -> ColourCode:
        """The centres by k-means of the colours of training images."""
        colours = colour_of(data.train.image[:used])
        return cls(k_means(colours, clusters)[0])

    def forward(self, x: Tensor) -> Tensor:
        """Logits of q(c|x) of images x (B, 3, H, W): (B, K).

        An image without colour, black, is as near to each.
        """
        colour = colour_of(x).nan_to_num()
        square = (colour[:, None] - self.centres).square().sum(2)
        return -square / (2 * self.spread)


class TwoCodes(nn.Module):
    """Logits of two codes side by side, colour first: (B, K + L).

    Args:
        colour, digit: networks from images to logits.
    """

    def __init__(self, colour: nn.Module, digit: nn.Module) -> None:
        super().__init__()
        self.colour, self.digit = colour, digit

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.colour(x), self.digit(x)], dim=1)


class CodedVAE(JointVAE):
    """D continuous latents that learn, and categorical ones that are given.

    A latent is a row of D + ΣK numbers: z, then a one-hot row for each code.

    Args:
        encoder: images (B, …) to (B, 2D): μ, log σ².
        decoder: p(x|z, c), of D + ΣK latents.
        codes: a network from images to the logits of all codes, (B, ΣK). The model
            keeps a copy, which does not learn.
        sizes: K_1 … K_N.
        shape: of one image.

    Raises:
        ValueError: a decoder of another number of latents.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: Decoder,
        codes: nn.Module,
        sizes: Sequence[int] = (10, 10),
        shape: Sequence[int] = (3, 28, 28),
    ) -> None:
        latent = decoder.latent - sum(sizes)
        if latent < 0:
            raise ValueError(
                f"the decoder must take at least {sum(sizes)} latents, got"
                f" {decoder.latent}"
            )
        super().__init__(
            encoder,
            decoder,
            shape,
            continuous=latent,
            given=codes,
            given_size=sum(sizes),
        )
        self.sizes = tuple(check_count("a size", size, least=2) for size in sizes)

    def posterior(self, x: Tensor) -> Product:
        """q(z, c|x): a :class:`DiagonalNormal`, and the codes as they are given.

        Raises:
            ValueError: images of another shape, NaN or infinite pixels.
        """
        normal = DiagonalNormal(*self.encode(x, 2 * self.continuous).chunk(2, dim=1))
        assert self.given is not None
        with frozen(self.given), torch.no_grad():
            codes = Categorical(self.given(x), self.sizes, relaxable=False)
        found = product([normal, codes])
        assert isinstance(found, Product)
        return found


class DearLatentsLoss:
    """−(log p(x|z, c) − β·KL(z) − KL(c)) of S steps, in which β falls to 1: (B,).

        β_s = 1 + (β_0 − 1)·max(0, 1 − s/(u·S))

    From step u·S on it is −ELBO.

    Args:
        steps: S.
        first: β_0, at least 1.
        until: u, in (0, 1].

    Attributes:
        step: how many losses were computed, s.
    """

    def __init__(self, steps: int, first: float = 30.0, until: float = 0.8) -> None:
        self.steps = check_count("steps", steps)
        self.first, self.until = check_number("first", first), until
        if not (1 <= self.first < float("inf") and 0 < until <= 1):
            raise ValueError(
                "β must start at 1 or above, and fall until a share in (0, 1] of the"
                f" steps, got {first!r} and {until!r}"
            )
        self.step = 0

    def weight(self) -> float:
        """β_s of the next loss."""
        left = 1 - self.step / (self.until * self.steps)
        return 1 + (self.first - 1) * max(0.0, left)

    def __call__(self, vae: CodedVAE, batch: Any) -> Tensor:
        x = split_batch(batch)[0]
        q = vae.posterior(x)
        z, codes = q.parts
        kl = self.weight() * z.kl_to_prior() + codes.kl_to_prior()
        self.step += 1
        return kl - vae.decoder.log_likelihood(x, q.sample())


def coded_vae(
    digit: DigitCode,
    colour: ColourCode,
    continuous: int = 8,
    width: int = 8,
    hidden: int = 128,
    shape: Sequence[int] = (3, 28, 28),
) -> CodedVAE:
    """The VAE of coloured digits with both codes given; networks of ``coloured_vae``.

    Args:
        digit, colour: q(d|x) and q(c|x).
        continuous: D.
        width, hidden: of the convolutional networks.
        shape: (C, H, W) of an image.
    """
    codes = TwoCodes(colour, digit)
    sizes = (len(colour.centres), digit.head.out_features)
    made = coloured_vae(
        continuous,
        given=codes,
        given_size=sum(sizes),
        width=width,
        hidden=hidden,
        shape=shape,
    )
    return CodedVAE(made.encoder, made.decoder, codes, sizes, shape)


def train_coded_vae(
    vae: CodedVAE,
    data: ImageSplits,
    *,
    epochs: int = 5,
    batch: int = 64,
    lr: float = 1e-2,
    first: float = 30.0,
    until: float = 0.8,
    watched: int = 1000,
    keep: Collection[int] = (),
) -> History:
    """Minimise :class:`DearLatentsLoss`; measure −ELBO as ``train_vae`` does.

    Args:
        vae: trained in place, without its codes.
        data: its ``train`` and ``validation`` images.
        epochs, batch, lr: passes over the images, images in a batch, peak rate.
        first, until: of β; 1 minimises −ELBO from the start.
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
        loss=DearLatentsLoss(steps, first, until),
    )
