"""Small data sets of images for tests."""

from __future__ import annotations

import torch

from course_utils.data.images import Images, ImageSplits
from course_utils.notebook import seeded

Shape = tuple[int, int, int]
GREY: Shape = (1, 28, 28)


def blobs(count: int, seed: int = 0, shape: Shape = GREY) -> Images:
    """A bright disc at a random place; later channels are darker."""
    channels, height, width = shape
    sides = torch.tensor([height, width]).view(2, 1, 1)
    centre = (8 + 12 * torch.rand(count, 2, 1, 1, generator=seeded(seed))) / 28 * sides
    row, column = torch.meshgrid(
        torch.arange(height), torch.arange(width), indexing="ij"
    )
    far = ((row - centre[:, 0]) ** 2 + (column - centre[:, 1]) ** 2).sqrt()
    disc = (6 / 28 * min(height, width) - far).clamp(0, 1)  # (N, H, W)
    shade = torch.linspace(1, 1 / channels, channels).view(-1, 1, 1)
    return Images(shade * disc[:, None], torch.arange(count) % 10)


def splits(shape: Shape = GREY) -> ImageSplits:
    """70 of them to train, 30 to validate, 30 to test."""
    train, validation, test = (
        blobs(count, seed, shape) for seed, count in enumerate((70, 30, 30))
    )
    return ImageSplits(train, validation, test, "blobs", complete=False)
