"""Coloured images: grey and colour come back exactly, rules are one to one."""

from itertools import combinations, islice

import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from course_utils.data.colours import (
    COLOURS,
    NAMES,
    NO_COLOUR,
    ColouredImages,
    TwoDomains,
    check_rule,
    colour_of,
    grey_of,
    in_domain,
    nearest_colour,
    random_tints,
    tint,
    tints_but,
)
from course_utils.data.images import Images, ImageSplits

SHIFTED = [(d + 3) % 10 for d in range(10)]


def grey_images(count: int, classes: int = 10, side: int = 8) -> Images:
    image = torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(1))
    return Images(image, torch.arange(count) % classes, classes)


def splits() -> ImageSplits:
    parts = [grey_images(n) for n in (400, 40, 50)]
    return ImageSplits(parts[0], parts[1], parts[2], "grey")


# --- the palette ----------------------------------------------------------------------

# what a colour looks like to a reader who lacks one kind of cone, in linear light:
# Machado, Oliveira and Fernandes 2009, severity 1
SIGHT = {
    "normal": torch.eye(3),
    "protanopia": torch.tensor(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": torch.tensor(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": torch.tensor(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def cielab(light: Tensor) -> Tensor:
    """CIELAB under D65 of linear red, green and blue light, (N, 3)."""
    to_xyz = torch.tensor(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = light @ to_xyz.T / torch.tensor([0.9505, 1.0, 1.089])
    f = torch.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.T
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


@pytest.mark.parametrize("sight", SIGHT)
def test_every_reader_can_tell_the_ten_colours(sight: str) -> None:
    linear = torch.where(
        COLOURS <= 0.04045, COLOURS / 12.92, ((COLOURS + 0.055) / 1.055) ** 2.4
    )
    seen = cielab((linear @ SIGHT[sight].T).clamp(0, 1))
    apart = {(i, j): float((seen[i] - seen[j]).norm()) for i, j in pairs()}
    assert min(apart.values()) > 14


def pairs() -> list[tuple[int, int]]:
    return list(combinations(range(len(COLOURS)), 2))


def test_colours_have_names_and_a_channel_at_one() -> None:
    assert len(NAMES) == len(COLOURS) == len(set(NAMES)) == 10
    assert torch.equal(COLOURS.amax(1), torch.ones(10))
    assert COLOURS.amin() >= 0


# --- grey and colour ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grey_and_colour_come_back(dtype: torch.dtype) -> None:
    grey = torch.rand(10, 1, 5, 7, dtype=dtype)
    x = tint(grey, COLOURS.to(dtype))
    assert x.shape == (10, 3, 5, 7)
    assert torch.allclose(grey_of(x), grey)
    assert torch.allclose(colour_of(x), COLOURS.to(dtype), atol=1e-6)
    assert nearest_colour(x).tolist() == list(range(10))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_a_nearest_colour(dtype: torch.dtype) -> None:
    x = tint(torch.rand(10, 1, 28, 28), COLOURS).to(dtype)
    assert nearest_colour(x).tolist() == list(range(10))
    assert nearest_colour(x.to("meta")).is_meta


def test_the_nearest_colour_is_the_nearest() -> None:
    colour = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    colour = colour / colour.amax(1, keepdim=True)
    x = tint(torch.ones(50, 1, 2, 2), colour)
    expected = cdist(colour.numpy(), COLOURS.numpy()).argmin(1)
    assert nearest_colour(x).tolist() == expected.tolist()
    assert set(nearest_colour(x, COLOURS[3:4]).tolist()) == {0}


def test_what_is_black_has_no_colour() -> None:
    x = torch.zeros(3, 3, 28, 28)
    x[1, 0, :2, :2] = 0.9  # 3.6 of 784: hardly any ink
    x[2, 1, 5:15, 5:15] = 1
    assert nearest_colour(x).tolist() == [NO_COLOUR, NO_COLOUR, 3]
    assert colour_of(x)[0].isnan().all()


def test_bad_colours_are_refused() -> None:
    grey = torch.rand(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"each of 2 images, got 3"):
        tint(grey, COLOURS[:3])
    with pytest.raises(ValueError, match=r"grey images must have shape \(B, 1, 4, 4\)"):
        tint(torch.rand(2, 3, 4, 4), COLOURS[:2])
    for size in ((2, 1), (2, 1, 4), (2, 1, 3, 4, 4)):  # would be broadcast
        with pytest.raises(ValueError, match=r"grey images must have shape \(B, 1, H"):
            tint(torch.rand(size), COLOURS[:2])
    with pytest.raises(TypeError, match=r"grey images must be a torch.Tensor"):
        tint([1], COLOURS[:2])  # type: ignore[arg-type]
    for colours in (torch.rand(5, 4), torch.rand(3), COLOURS[:0]):
        with pytest.raises(ValueError, match="colours must h"):
            nearest_colour(torch.rand(2, 3, 4, 4), colours)
    with pytest.raises(TypeError, match=r"dtype torch.float32"):
        tint(grey, COLOURS[:2].double())
    for wrong in (grey, grey[0], torch.rand(2, 3)):
        with pytest.raises(ValueError, match="coloured images must have shape"):
            grey_of(wrong)
    with pytest.raises(TypeError, match="coloured images must be"):
        nearest_colour([1])  # type: ignore[arg-type]


# --- data sets ------------------------------------------------------------------------


def test_random_tints_keep_the_digits_and_draw_the_colours() -> None:
    grey, seen = splits(), set()
    coloured = random_tints(grey, seed=2)
    for old, new in (
        (grey.train, coloured.train),
        (grey.validation, coloured.validation),
        (grey.test, coloured.test),
    ):
        assert isinstance(new, ColouredImages)
        assert torch.equal(new.label, old.label)
        assert torch.equal(new.grey, old.image)
        assert torch.equal(nearest_colour(new.image), new.colour)
        seen |= set(new.colour.tolist())
    assert seen == set(range(10))
    assert coloured.shape == (3, 8, 8)
    again, other = random_tints(grey, seed=2), random_tints(grey, seed=3)
    assert torch.equal(again.train.image, coloured.train.image)
    assert again.fingerprint == coloured.fingerprint != other.fingerprint
    assert not torch.equal(other.train.image, coloured.train.image)


def test_the_drawn_colour_says_nothing_of_the_digit() -> None:
    many = grey_images(20_000, side=1)
    train = random_tints(ImageSplits(many, many, many, "many")).train
    assert isinstance(train, ColouredImages)
    counts = torch.zeros(10, 10).index_put(
        (train.label, train.colour), torch.ones(20_000), accumulate=True
    )
    chi_square = float((counts - 200).square().sum() / 200)  # 99 degrees of freedom
    assert 50 < chi_square < 149  # all but 2 of 1,000


def many(count: int, classes: int = 10) -> ImageSplits:
    grey = grey_images(count, classes, side=1)
    return ImageSplits(grey, grey_images(30, classes, 1), grey, "many")


def test_without_a_rule_the_colours_are_as_they_always_were() -> None:
    grey, draw = splits(), torch.Generator().manual_seed(7)
    coloured = random_tints(grey, seed=7)
    for images in (coloured.train, coloured.validation, coloured.test):
        assert isinstance(images, ColouredImages)
        assert torch.equal(
            images.colour, torch.randint(10, (len(images),), generator=draw)
        )
    assert coloured.fingerprint == "tints-7-grey"


@pytest.mark.parametrize("choices", [1, 2, 5, 9])
@pytest.mark.parametrize("rule", [tuple(range(10)), SHIFTED])
def test_a_digit_has_so_many_colours_alike_and_never_that_of_the_rule(
    rule: list[int], choices: int
) -> None:
    n = 9000
    data = tints_but(many(n), rule, choices, 1)
    for images in (data.train, data.validation, data.test):
        assert isinstance(images, ColouredImages)
        assert not (images.colour == torch.tensor(rule)[images.label]).any()
    train = data.train
    assert isinstance(train, ColouredImages)
    table = torch.zeros(10, 10).index_put(
        (train.label, train.colour), torch.ones(n), accumulate=True
    )
    follow = [
        [(rule[digit] + k) % 10 for k in range(1, choices + 1)] for digit in range(10)
    ]
    for digit, row in enumerate(table):
        assert row.nonzero()[:, 0].tolist() == sorted(follow[digit])
    expected = n / 10 / choices
    chi_square = float((table[table > 0] - expected).square().sum()) / expected
    freedom = 10 * (choices - 1)
    assert chi_square <= freedom + 4 * (2 * freedom) ** 0.5


def test_a_rule_of_tints_is_told_in_the_fingerprint() -> None:
    grey = many(40)
    several = [
        random_tints(grey, 1),
        tints_but(grey, SHIFTED, seed=1),
        tints_but(grey, range(10), seed=1),
        tints_but(grey, SHIFTED, 5, 1),
        tints_but(grey, SHIFTED, seed=2),
    ]
    assert len({one.fingerprint for one in several}) == len(several)
    again = tints_but(grey, torch.tensor(SHIFTED), seed=1)  # type: ignore[arg-type]
    assert again.fingerprint == several[1].fingerprint
    assert torch.equal(again.train.image, several[1].train.image)


def test_tints_leave_torchs_random_numbers_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    tints_but(many(40), SHIFTED, 3, 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("never", "choices", "error", "message"),
    [
        (SHIFTED, 0, ValueError, "choices must be at least 1, got 0"),
        (SHIFTED, -1, ValueError, "choices must be at least 1, got -1"),
        (SHIFTED, 10, ValueError, "choices must lie in 1 … 9, got 10"),
        (SHIFTED, 2.0, TypeError, "choices must be a whole number, got 2.0"),
        (SHIFTED, True, TypeError, "choices must be a whole number, got True"),
        ((5,), 9, ValueError, "each of 10 classes, got 1"),
        (SHIFTED[:9], 9, ValueError, "each of 10 classes, got 9"),
        ([0] * 10, 9, ValueError, "colours of its own"),
        ((), 9, ValueError, "each of 10 classes, got 0"),
        (5, 9, TypeError, "a row of colours, one a class, got 5"),
        ("0123456789", 9, TypeError, "whole number"),
    ],
)
def test_other_rules_of_tints_are_refused(
    never: list[int], choices: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tints_but(many(20), never, choices)


def test_a_rule_has_a_colour_for_each_class_of_other_data_too() -> None:
    data = tints_but(many(60, 3), (4, 5, 6), 1)
    assert isinstance(data.train, ColouredImages)
    assert torch.equal(data.train.colour, data.train.label + 5)
    with pytest.raises(ValueError, match="each of 3 classes, got 10"):
        tints_but(many(60, 3), SHIFTED)
    assert check_rule((4, 5, 6), 3) == (4, 5, 6)


@pytest.mark.parametrize("rule", [range(10), SHIFTED, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]])
def test_a_domain_gives_every_digit_its_colour(rule: list[int]) -> None:
    images = in_domain(grey_images(60), rule)
    assert torch.equal(images.colour, torch.tensor(list(rule))[images.label])
    assert torch.equal(nearest_colour(images.image), images.colour)
    assert (
        len(
            {(int(d), int(c)) for d, c in zip(images.label, images.colour, strict=True)}
        )
        == 10
    )


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        ([0] * 10, ValueError, "colours of its own"),
        ([*range(9), 10], ValueError, "one of 10 colours"),
        ([*range(9), -1], ValueError, "at least 0"),
        ([*range(9), 1.5], TypeError, "whole number"),
        ({d: d for d in range(10)}, TypeError, "a row of colours"),
        (set(range(10)), TypeError, "a row of colours"),
        (10, TypeError, "a row of colours, one a class, got 10"),
        (range(9), ValueError, "each of 10 classes, got 9"),
    ],
)
def test_other_rules_are_refused(
    rule: list[int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        in_domain(grey_images(20), rule)


def test_rules_are_whole_numbers_of_any_kind() -> None:
    assert check_rule(torch.arange(3)) == (0, 1, 2)  # type: ignore[arg-type]


def test_two_domains_have_no_pair() -> None:
    images = Images(
        torch.arange(1, 102).view(-1, 1, 1, 1) / 101, torch.arange(101) % 10
    )
    two = TwoDomains.of(images, (range(10), SHIFTED), "numbered")
    shown = [set(part.grey.flatten().tolist()) for part in (two.a, two.b)]
    assert not shown[0] & shown[1]
    assert len(shown[0] | shown[1]) == 101
    assert (
        two.fingerprint != TwoDomains.of(images, (SHIFTED, range(10)), "n").fingerprint
    )
    assert two.steps(20) == 2
    batches = list(islice(two.batches(20, torch.Generator().manual_seed(0)), 6))
    assert {x.shape for batch in batches for x in batch} == {(20, 3, 1, 1)}
    first, second = (torch.cat([b[k] for b in batches[:2]]) for k in (0, 1))
    assert len(set(grey_of(first).flatten().tolist())) == 40  # an epoch repeats nothing
    assert set(nearest_colour(second, COLOURS).tolist()) <= set(range(-1, 10))
    with pytest.raises(ValueError, match="at most 50 images, got 51"):
        two.batches(51)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        two.steps(0)
    with pytest.raises(TypeError, match="generator must be"):
        two.batches(5, 0)  # type: ignore[arg-type]


def test_coloured_images_are_checked() -> None:
    x, label = torch.rand(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"coloured images must have shape"):
        ColouredImages(x[:, :1], label, colour=label)
    with pytest.raises(ValueError, match=r"0 … 9, got 0 … 10"):
        ColouredImages(x, label, colour=torch.tensor([0, 0, 0, 10]))
    with pytest.raises(TypeError, match="int64"):
        ColouredImages(x, label, colour=label.float())
