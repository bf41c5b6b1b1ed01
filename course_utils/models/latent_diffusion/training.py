"""The data of a flow over latents, and its training.

    z ~ the law of an image's latent, c a caption of its digit and colour
    loss = E‖v(z_t, t | c) − (z₁ − z₀)‖²      as in flow matching, with text

For data N(0, Σ) the best field leaves, with λ the eigenvalues of Σ,

    E‖v* − (z₁ − z₀)‖² = Σ_i ∫₀¹ λ_i/(t²λ_i + (1−t)²) dt = (π/2)·Σ_i √λ_i

(:func:`gaussian_floor`): what a model leaves that knows nothing of the data but their
mean and covariance. With Σ = I it is the loss at the start of a training, where the
network gives 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import pi
from typing import Any

import torch
from torch import Tensor

from course_utils.checks import check_count, check_generator, check_points
from course_utils.data.captions import Captions
from course_utils.data.colours import ColouredImages
from course_utils.data.images import Images, ImageSplits
from course_utils.distributions import DiagonalNormal
from course_utils.models.flow_matching.model import FlowMatching, FlowMatchingLoss
from course_utils.models.latent_diffusion.space import LatentSpace
from course_utils.training.history import History
from course_utils.training.loop import train_epochs


class CaptionedLatents:
    """Latents of coloured images, each with a caption, both drawn anew each time.

    Args:
        space: where the latents live.
        images: with digits and colours.
        captions: what is drawn from.

    Raises:
        TypeError, ValueError: images without colours, or of another shape than those of
            the space.
    """

    def __init__(self, space: LatentSpace, images: Images, captions: Captions) -> None:
        if not isinstance(images, ColouredImages):
            got = type(images).__name__
            raise TypeError(f"images must be ColouredImages, got {got}")
        self.images, self.captions = images, captions
        self.law = space.law(images.image.to(space.mean))

    def __len__(self) -> int:
        return len(self.images)

    def steps(self, size: int) -> int:
        """How many batches of ``size`` a pass has; the last may be short."""
        return self.images.steps(size)

    def at(
        self, index: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latents (B, D) and captions (B, L) of the images ``index`` (B,)."""
        mean, log_var = self.law.mean[index], self.law.log_var[index]
        z = DiagonalNormal(mean, log_var).sample(generator)
        said = self.images.label[index], self.images.colour[index]
        return z, self.captions.draw(*said, generator).to(z.device)

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches without end, pass after pass, each in a new order.

        Raises:
            TypeError, ValueError: a size below 1, no generator.
        """
        size = check_count("size", size)
        check_generator(generator)

        def draw() -> Iterator[tuple[Tensor, Tensor]]:
            while True:
                for index in torch.randperm(len(self), generator=generator).split(size):
                    yield self.at(index, generator)

        return draw()


def train_caption_flow(
    flow: FlowMatching,
    space: LatentSpace,
    data: ImageSplits,
    captions: Captions,
    *,
    epochs: int = 75,
    batch: int = 256,
    lr: float = 2e-3,
    watched: int = 1000,
    **settings: Any,
) -> History:
    """Train flow and text encoder together.

    What the history has measured: ``validation`` and ``training``, the loss on latents
    of images of these two sets with a caption each, summed over the D values.

    Args:
        flow: trained in place.
        space: where its latents come from.
        data: coloured images.
        captions: of the images.
        epochs, batch, lr: passes over the images, images in a batch, peak rate.
        watched: how many images of each of the two sets are measured after an epoch.
        settings: what else ``train`` takes.
    """
    watched = check_count("watched", watched)
    sets = [
        CaptionedLatents(space, images, captions)
        for images in (data.train, data.validation)
    ]
    # not the seed of measurements: noise drawn alike would not be independent
    seen, held_out = (
        one.at(torch.arange(min(watched, len(one))), torch.Generator().manual_seed(1))
        for one in sets
    )
    loss = FlowMatchingLoss(power=1.0)

    def measure(flow: FlowMatching) -> dict[str, Tensor]:
        return {"validation": loss(flow, held_out), "training": loss(flow, seen)}

    return train_epochs(
        flow,
        sets[0],
        loss,
        epochs=epochs,
        batch=batch,
        lr=lr,
        measure=measure,
        **settings,
    )


def gaussian_floor(z: Tensor) -> float:
    """(π/2)·Σ√λ_i, λ the eigenvalues of the covariance of z (N, D), N > D.

    The loss of the best field for a normal law with this covariance, with t uniform.

    Raises:
        TypeError, ValueError: no samples, or no more than they have values.
    """
    check_points(z, dim=z.shape[-1] if isinstance(z, Tensor) and z.ndim else 1)
    if len(z) <= z.shape[1]:
        raise ValueError(f"there must be more than {z.shape[1]} latents, got {len(z)}")
    eigenvalues = torch.linalg.eigvalsh(torch.atleast_2d(z.double().T.cov()))
    return pi / 2 * float(eigenvalues.clamp(min=0).sqrt().sum())
