"""Coloured MNIST: a grey digit times a colour, so that the truth of both is known.

    x = g ⊗ c,    g a grey image in [0, 1],  c one of ten colours with max channel 1

The largest channel of a pixel is then its grey level, and the colour comes back by
least squares:

    g = max_k x_k,    c = Σ_p g_p·x_p / Σ_p g_p²        (p: the pixels)

Two kinds of sets are made from MNIST by seeded rules. :func:`random_tints`: the colour
is drawn independently of the digit. :class:`TwoDomains`: in each domain every digit has
one colour, and no two digits share one.

The ten colours differ by at least 14 units of CIELAB for readers with normal sight,
protanopia, deuteranopia and tritanopia (simulated as by Machado et al. 2009).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor

from course_utils.checks import (
    check_count,
    check_generator,
    check_labels,
    check_samples,
)
from course_utils.data.images import Images, ImageSplits

NAMES = (
    *("red", "orange", "yellow", "green", "turquoise"),
    *("sky blue", "blue", "purple", "pink", "white"),
)
COLOURS = torch.tensor(  # red, green and blue light, (10, 3)
    [
        [1.00, 0.06, 0.07],
        [1.00, 0.59, 0.22],
        [1.00, 0.91, 0.48],
        [0.50, 1.00, 0.00],
        [0.41, 1.00, 0.79],
        [0.46, 0.70, 1.00],
        [0.23, 0.30, 1.00],
        [0.65, 0.36, 1.00],
        [1.00, 0.42, 0.76],
        [1.00, 1.00, 1.00],
    ]
)
NO_COLOUR = -1  # of an image that is too dark to have one
DARK = 0.01  # mean grey level below which it is; MNIST's palest digit has 0.026


# --- grey and colour ------------------------------------------------------------------


def tint(grey: Tensor, colour: Tensor) -> Tensor:
    """g ⊗ c: grey images (B, 1, H, W) and a colour each, (B, 3), to (B, 3, H, W).

    Raises:
        TypeError, ValueError: another shape or dtype; NaN or infinite values.
    """
    _of_channels(grey, 1, "grey images")
    check_samples(colour, shape=(3,), like=grey, name="colours")
    if len(colour) != len(grey):
        raise ValueError(
            f"there must be a colour for each of {len(grey)} images, got {len(colour)}"
        )
    return grey * colour[:, :, None, None]


def grey_of(x: Tensor) -> Tensor:
    """g: the largest channel of each pixel, (B, 3, H, W) to (B, 1, H, W)."""
    return _coloured(x).amax(dim=1, keepdim=True)


def colour_of(x: Tensor) -> Tensor:
    """c: the colour of each image (B, 3, H, W), by least squares, (B, 3).

    It is NaN where an image is black.
    """
    grey = grey_of(x)
    return (grey * x).flatten(2).sum(2) / grey.flatten(1).square().sum(1, keepdim=True)


def nearest_colour(x: Tensor, colours: Tensor = COLOURS) -> Tensor:
    """Which of ``colours`` (C, 3) is nearest to that of each image, (B,), int64.

    The distance is Euclidean in red, green and blue. An image whose mean grey level is
    below ``DARK`` has :data:`NO_COLOUR`.

    Raises:
        TypeError, ValueError: no coloured images, no colours.
    """
    check_samples(colours, shape=(3,), name="colours")
    dark = grey_of(x).flatten(1).mean(1) < DARK
    own = colour_of(x).nan_to_num().double()
    found = torch.cdist(own, colours.to(own)).argmin(dim=1)
    return found.masked_fill(dark, NO_COLOUR)


def _coloured(x: Tensor) -> Tensor:
    """Return ``x`` if it is a batch of coloured images (B, 3, H, W)."""
    return _of_channels(x, 3, "coloured images")


def _of_channels(x: Tensor, channels: int, name: str) -> Tensor:
    """Return ``x`` if it is a batch of images (B, channels, H, W) of any size."""
    shape = tuple(x.shape[2:]) if isinstance(x, Tensor) and x.ndim == 4 else ("H", "W")
    return check_samples(x, shape=(channels, *shape), name=name)


# --- data sets ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ColouredImages(Images):
    """Coloured images with their digit and their colour.

    Attributes:
        colour: places in :data:`COLOURS`, int64, (N,).

    Raises:
        TypeError, ValueError: as for :class:`Images`; images without three channels,
            colours that are none of the ten.
    """

    colour: Tensor = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _coloured(self.image)
        check_labels(self.colour, classes=len(COLOURS), batch=len(self.image))

    @classmethod
    def of(cls, images: Images, colour: Tensor) -> ColouredImages:
        """Grey images, each tinted with its colour (N,)."""
        check_labels(colour, classes=len(COLOURS), batch=len(images))
        x = tint(images.image, COLOURS[colour])
        return cls(x, images.label, images.classes, colour=colour)

    @property
    def grey(self) -> Tensor:
        """The images without their colours, (N, 1, H, W)."""
        return grey_of(self.image)


def random_tints(grey: ImageSplits, seed: int = 0) -> ImageSplits:
    """The same images, each in one of the ten colours, drawn independently of it.

    Args:
        grey: images of one channel.
        seed: of the colours.

    Returns:
        Three sets of :class:`ColouredImages`.
    """
    generator = torch.Generator().manual_seed(check_count("seed", seed, least=0))

    def tinted(images: Images) -> ColouredImages:
        drawn = torch.randint(len(COLOURS), (len(images),), generator=generator)
        return ColouredImages.of(images, drawn)

    return ImageSplits(
        tinted(grey.train),
        tinted(grey.validation),
        tinted(grey.test),
        f"tints-{seed}-{grey.fingerprint}",
        grey.complete,
    )


def tints_but(
    grey: ImageSplits, rule: Sequence[int], choices: int = 9, seed: int = 0
) -> ImageSplits:
    """The same images in colours drawn at random, but never that of a rule.

    Digit and colour are then not quite independent.

    Args:
        grey: images of one channel.
        rule: digit → the colour that it never has.
        choices: how many colours each digit has, those that follow in the table.
        seed: of the colours.

    Returns:
        Three sets of :class:`ColouredImages`.

    Raises:
        TypeError, ValueError: see :func:`check_rule`; counts out of range.
    """
    generator = torch.Generator().manual_seed(check_count("seed", seed, least=0))
    never = check_rule(rule, grey.classes)
    if check_count("choices", choices) >= len(COLOURS):
        raise ValueError(f"choices must lie in 1 … {len(COLOURS) - 1}, got {choices}")

    def tinted(images: Images) -> ColouredImages:
        after = torch.randint(1, choices + 1, (len(images),), generator=generator)
        drawn = (torch.tensor(never)[images.label] + after) % len(COLOURS)
        return ColouredImages.of(images, drawn)

    told = ",".join(map(str, never))
    return ImageSplits(
        tinted(grey.train),
        tinted(grey.validation),
        tinted(grey.test),
        f"tints-{seed}-{choices}-after-{told}-{grey.fingerprint}",
        grey.complete,
    )


def check_rule(rule: Sequence[int], classes: int | None = None) -> tuple[int, ...]:
    """Return the rule of a domain, digit → colour, if no two digits share a colour.

    Args:
        rule: places among the colours, one a class.
        classes: how many classes there must be; any number by default.

    Raises:
        TypeError: not a row of whole numbers.
        ValueError: a place that is none of the ten, or one that comes twice; a rule of
            another number of classes.
    """
    if isinstance(rule, Mapping | Set) or not hasattr(rule, "__iter__"):
        raise TypeError(f"rule must be a row of colours, one a class, got {rule!r}")
    places = tuple(check_count("a colour in rule", place, least=0) for place in rule)
    if len(set(places)) < len(places) or max(places, default=-1) >= len(COLOURS):
        raise ValueError(
            f"a rule must give each class one of {len(COLOURS)} colours of its own,"
            f" got {places}"
        )
    if classes is not None and len(places) != classes:
        raise ValueError(
            f"a rule must have a colour for each of {classes} classes,"
            f" got {len(places)}"
        )
    return places


def in_domain(images: Images, rule: Sequence[int]) -> ColouredImages:
    """Grey images, each in the colour that ``rule`` gives its digit.

    Raises:
        TypeError, ValueError: see :func:`check_rule`; a rule of too few classes.
    """
    places = check_rule(rule, images.classes)
    return ColouredImages.of(images, torch.tensor(places)[images.label])


@dataclass(frozen=True, eq=False)
class TwoDomains:
    """Two sets of coloured images without pairs: no digit's image is in both.

    Attributes:
        a, b: the two sets.
        fingerprint: says exactly which images these are.
    """

    a: ColouredImages
    b: ColouredImages
    fingerprint: str

    @classmethod
    def of(
        cls, images: Images, rules: tuple[Sequence[int], Sequence[int]], name: str
    ) -> TwoDomains:
        """Every second image in domain A, the others in domain B.

        Args:
            images: grey ones.
            rules: digit → colour, of A and of B.
            name: the fingerprint of the images.
        """
        a, b = (
            in_domain(
                Images(images.image[i::2], images.label[i::2], images.classes), rule
            )
            for i, rule in enumerate(rules)
        )
        told = "-".join(",".join(map(str, check_rule(rule))) for rule in rules)
        return cls(a, b, f"domains-{told}-{name}")

    def steps(self, size: int) -> int:
        """How many batches of ``size`` images an epoch has."""
        return min(len(self.a), len(self.b)) // self._check_size(size)

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches without end of images of A and of B, (B, 3, H, W) each.

        The two orders are independent of each other. The batches have ``size`` images
        throughout: what is left of an epoch is left out.
        """
        size = self._check_size(size)
        check_generator(generator)

        def each(images: Images) -> Iterator[Tensor]:
            return (x for x, _, _ in images.batches(size, generator) if len(x) == size)

        return zip(each(self.a), each(self.b), strict=True)

    def _check_size(self, size: int) -> int:
        """Return the size of a batch if both domains have so many images."""
        size, least = check_count("size", size), min(len(self.a), len(self.b))
        if size > least:
            raise ValueError(f"size must be at most {least} images, got {size}")
        return size
