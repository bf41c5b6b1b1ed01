"""Images with labels, of any channels and size, and data sets split in three."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from course_utils.checks import check_count, check_generator, check_labels


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels.

    Attributes:
        image: grey levels or colours from 0 to 1, float32, (N, C, H, W), N ≥ 1.
        label: the classes, int64, (N,).
        classes: how many classes there are; labels lie in 0 … classes − 1.

    Raises:
        TypeError: a wrong dtype, or no tensor.
        ValueError: a wrong shape, no image, or values out of range.
    """

    image: Tensor
    label: Tensor
    classes: int = 10

    def __post_init__(self) -> None:
        image = self.image
        if not isinstance(image, Tensor) or image.dtype != torch.float32:
            got = image.dtype if isinstance(image, Tensor) else type(image).__name__
            raise TypeError(f"images must be a torch.float32 tensor, got {got}")
        if image.ndim != 4 or not image.numel():
            raise ValueError(
                "images must have shape (N, C, H, W) with N, C, H, W ≥ 1, "
                f"got {tuple(image.shape)}"
            )
        low, high = image.aminmax()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"images must lie in [0, 1], got {float(low):g} … {float(high):g}"
            )
        check_count("classes", self.classes)
        check_labels(self.label, classes=self.classes, batch=len(image))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W): the channels, height and width of one image."""
        _, channels, height, width = self.image.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.image)

    def steps(self, size: int) -> int:
        """How many batches of ``size`` images an epoch has; the last may be short."""
        return ceil(len(self) / check_count("size", size))

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches without end, epoch after epoch.

        Each epoch visits every image once, in a new random order.

        Args:
            size: images in a batch, B; the last of an epoch may have fewer.
            generator: source of the order.

        Yields:
            The images (B, C, H, W), their labels (B,) and their places in this set
            (B,), int64.

        Raises:
            ValueError: a size below 1.
        """
        size = check_count("size", size)
        check_generator(generator)

        def draw() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            while True:
                order = torch.randperm(len(self), generator=generator)
                for index in order.split(size):
                    yield self.image[index], self.label[index], index

        return draw()

    def per_class(self, count: int, start: int = 0) -> Images:
        """``count`` images of each class, all of class 0, then all of 1 and so on.

        Args:
            count: how many of each class.
            start: how many of each class to skip.

        Raises:
            ValueError: counts out of range, or a class has too few images.
        """
        count = check_count("count", count)
        start = check_count("start", start, least=0)
        places = [(self.label == c).nonzero()[:, 0] for c in range(self.classes)]
        for c, place in enumerate(places):
            if len(place) < start + count:
                raise ValueError(
                    f"images {start} … {start + count - 1} of each class are wanted, "
                    f"got {len(place)} images of class {c}"
                )
        index = torch.cat([place[start : start + count] for place in places])
        return Images(self.image[index], self.label[index], self.classes)


@dataclass(frozen=True, eq=False)
class ImageSplits:
    """A data set of images, split in three.

    Attributes:
        train, validation, test: disjoint sets of images of one shape.
        fingerprint: says exactly which images are in which set, and in which order: a
            part of the key of the cache of trained models.
        complete: whether these are the images that the name promises, not a few in
            their place.

    Raises:
        TypeError: a set that is not of Images, a fingerprint that is not text.
        ValueError: sets of several shapes or numbers of classes, no fingerprint.
    """

    train: Images
    validation: Images
    test: Images
    fingerprint: str
    complete: bool = True

    def __post_init__(self) -> None:
        sets = {"train": self.train, "validation": self.validation, "test": self.test}
        for name, images in sets.items():
            if not isinstance(images, Images):
                got = type(images).__name__
                raise TypeError(f"{name} must be a set of Images, got {got}")
        if len({(images.shape, images.classes) for images in sets.values()}) > 1:
            raise ValueError(
                "the sets must have one shape and number of classes, got "
                + ", ".join(
                    f"{name} {images.shape} of {images.classes}"
                    for name, images in sets.items()
                )
            )
        if not isinstance(self.fingerprint, str):
            got = type(self.fingerprint).__name__
            raise TypeError(f"fingerprint must be text, got {got}")
        if not self.fingerprint.strip():
            raise ValueError(
                f"fingerprint must say which images these are, got {self.fingerprint!r}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.train.shape

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return self.train.classes
