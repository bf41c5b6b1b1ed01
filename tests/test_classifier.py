"""The classifier of digits: its augmentation pixel by pixel, what it says, counts."""

from collections.abc import Callable
from functools import partial
from math import log

import pytest
import torch
from pictures import GREY, Shape
from torch import Tensor
from torch.distributions import Categorical

from course_utils.checks import check_images
from course_utils.data.images import Images, ImageSplits
from course_utils.models import classifier
from course_utils.models.classifier import (
    Classifier,
    augment,
    augmented_cross_entropy,
    confusion,
    held_out,
    plain_cross_entropy,
    train_classifier,
)
from course_utils.notebook import seeded


def only(
    x: Tensor,
    generator: torch.Generator | None = None,
    *,
    turn: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    shift: float = 0.0,
) -> Tensor:
    """:func:`augment` without what is not asked for."""
    return augment(x, turn, scale, shear, shift, generator)


def noise(count: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 28, 28, generator=seeded(seed))


def small(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(width=2)


@pytest.fixture
def extreme(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """:func:`only` with each of its random numbers at its end: +1 or −1."""

    def call(x: Tensor, sign: int, **settings: float) -> Tensor:
        with monkeypatch.context() as patch:
            end = float(sign > 0)
            patch.setattr(classifier, "uniform", lambda size, *_: torch.full(size, end))
            return only(x, None, **settings)

    return call


# --- the augmentation -----------------------------------------------------------------


def test_nothing_moves_where_nothing_may() -> None:
    x = noise()
    assert torch.allclose(only(x), x, atol=1e-5)


@pytest.mark.parametrize("pixels", [1, 3])
def test_a_shift_moves_whole_pixels(
    extreme: Callable[..., Tensor], pixels: int
) -> None:
    """What leaves the image is gone, what comes in is black."""
    x, n = noise(), pixels
    for sign, here, there in [
        (1, slice(None, -n), slice(n, None)),
        (-1, slice(n, None), slice(None, -n)),
    ]:
        expected = torch.zeros_like(x)
        expected[..., here, here] = x[..., there, there]
        assert torch.allclose(extreme(x, sign, shift=float(n)), expected, atol=1e-5)


def test_a_turn_by_90_degrees_is_torchs(extreme: Callable[..., Tensor]) -> None:
    """A positive angle turns anticlockwise, as one looks at the image."""
    x = noise()
    for sign in (1, -1):
        expected = torch.rot90(x, sign, (2, 3))
        assert torch.allclose(extreme(x, sign, turn=90.0), expected, atol=1e-4)


def test_a_turn_by_360_degrees_is_none(extreme: Callable[..., Tensor]) -> None:
    x = noise()
    assert torch.allclose(extreme(x, 1, turn=360.0), x, atol=1e-4)


def test_a_pixel_is_square_whatever_the_sides(
    extreme: Callable[..., Tensor],
) -> None:
    """A high image is turned by 90 degrees: what stays inside is not squeezed."""
    x = torch.rand(2, 3, 32, 24, generator=seeded(0))
    turned, middle = extreme(x, 1, turn=90.0), x[:, :, 4:-4]
    expected = torch.rot90(middle, 1, (2, 3))
    assert torch.allclose(turned[:, :, 4:-4], expected, atol=1e-4)
    assert (turned[:, :, :4] == 0).all()
    slanted = extreme(x, 1, shear=2.0)  # row 16, the first below the middle, by 1 pixel
    assert torch.allclose(slanted[:, :, 16, :-1], x[:, :, 16, 1:], atol=1e-4)


def test_all_channels_move_alike() -> None:
    x = noise(5)
    grey = augment(x.expand(-1, 3, -1, -1), generator=seeded(1))
    assert torch.allclose(grey, augment(x, generator=seeded(1)).expand(-1, 3, -1, -1))


def test_a_scale_is_the_change_of_size(extreme: Callable[..., Tensor]) -> None:
    """A square of 8 × 8 pixels in the middle: half of it, half as much again."""
    x = torch.zeros(1, 1, 28, 28)
    x[..., 10:18, 10:18] = 1
    half = torch.zeros(1, 1, 28, 28)
    half[..., 12:16, 12:16] = 1
    assert torch.allclose(extreme(x, -1, scale=0.5), half, atol=1e-5)
    wide = extreme(x, 1, scale=0.5)
    assert (wide[..., 9:19, 9:19] > 0.99).all()
    side = wide[0, 0, 14].sum(), wide[0, 0, :, 14].sum()
    assert [float(s) for s in side] == pytest.approx([12, 12], abs=0.1)


def test_a_shear_moves_each_row_by_its_distance(
    extreme: Callable[..., Tensor],
) -> None:
    """Slant 2: row r, 13.5 being the middle, is read 2r − 27 pixels to the right."""
    x = noise()
    expected = torch.zeros_like(x)
    for r in range(28):
        for c in range(28):
            if 0 <= (source := c + 2 * r - 27) < 28:
                expected[:, 0, r, c] = x[:, 0, r, source]
    assert torch.allclose(extreme(x, 1, shear=2.0), expected, atol=1e-4)


def test_shifts_fill_their_range_and_differ_from_image_to_image() -> None:
    x = torch.zeros(400, 1, 28, 28)
    x[..., 10:18, 10:18] = 1
    moved = only(x, seeded(0), shift=2.0)[:, 0]
    place = torch.arange(28.0) - 13.5
    rows = (moved.sum(2) @ place) / 64
    columns = (moved.sum(1) @ place) / 64
    for shift in (rows, columns):
        assert float(shift.abs().max()) <= 2 + 1e-4
        assert float(shift.max()) > 1.9
        assert float(shift.min()) < -1.9
        assert float(shift.std()) == pytest.approx(2 / 3**0.5, rel=0.1)
    both = torch.corrcoef(torch.stack([rows, columns]))
    assert abs(float(both[0, 1])) < 0.2


def test_augmented_images_are_images() -> None:
    x = noise(200)
    found = augment(x, generator=seeded(0))
    assert found.shape == x.shape
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1 + 1e-6
    assert ((found - x).abs().flatten(1).max(1).values > 0.1).all()
    same = augment(x[:1].expand(5, -1, -1, -1), generator=seeded(0))
    assert len(same.flatten(1).unique(dim=0)) == 5


def test_augmentation_repeats_with_the_generator() -> None:
    x = noise()
    first = augment(x, generator=seeded(1))
    assert torch.equal(augment(x, generator=seeded(1)), first)
    assert not torch.equal(augment(x, generator=seeded(2)), first)
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    augment(x, generator=seeded(1))
    assert torch.equal(torch.random.get_rng_state(), state)


# --- what it says ---------------------------------------------------------------------


def test_shapes() -> None:
    model, x = small().eval(), noise(5)
    assert model.features(x).shape == (5, 18 * 2)
    assert model(x).shape == (5, 10)
    assert torch.equal(model.head(model.features(x)), model(x))
    assert Classifier().features(noise(2)).shape == (2, 18 * 16)


def test_log_prob_is_the_softmax_in_evaluation_mode() -> None:
    model, x = small(), noise(7)
    model(noise(50, seed=1))  # now batch norm's averages are not those it starts with
    log_p = model.log_prob(x)
    assert torch.allclose(log_p.exp().sum(1), torch.ones(7))
    expected = Categorical(logits=model.eval()(x)).logits
    assert torch.allclose(log_p, expected, atol=1e-5)
    assert not log_p.requires_grad
    # in train mode, an image's neighbours would matter
    assert torch.allclose(model.train().log_prob(x[:1]), log_p[:1], atol=1e-5)
    assert not torch.allclose(model(x).log_softmax(1), log_p, atol=1e-2)


@pytest.mark.parametrize("chunk", [1, 3, 7, 8, 1000])
def test_chunks_do_not_matter(chunk: int) -> None:
    model, x = small(), noise(7)
    sizes: list[int] = []
    model.head.register_forward_hook(lambda *a: sizes.append(len(a[1][0])))
    assert torch.allclose(model.log_prob(x, chunk), model.log_prob(x), atol=1e-5)
    assert max(sizes[:-1]) == min(chunk, 7)
    assert sum(sizes[:-1]) == sizes[-1] == 7


@pytest.mark.parametrize("training", [True, False])
def test_log_prob_leaves_the_model_as_it_was(training: bool) -> None:
    model = small().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.log_prob(noise())
    modes = [training] * len(list(model.modules()))
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ValueError, match="images must have shape"):
        model.log_prob(torch.zeros(2, 28, 28))
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_cross_entropy_of_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, label = small().eval(), noise(4), torch.tensor([3, 1, 4, 1])
    expected = -model.log_prob(x)[torch.arange(4), label]
    found = plain_cross_entropy(model, (x, label, torch.arange(4)))
    assert torch.allclose(found, expected, atol=1e-5)
    torch.manual_seed(0)
    found = augmented_cross_entropy(model, (x, label, torch.arange(4)))
    torch.manual_seed(0)
    expected = -model.log_prob(augment(x))[torch.arange(4), label]
    assert torch.allclose(found, expected, atol=1e-5)
    assert found.requires_grad


def test_held_out_is_of_the_images_as_they_are() -> None:
    model, images = small(), Images(noise(6), torch.tensor([0, 1, 2, 7, 7, 9]))
    found = held_out(model, images)
    log_p = model.log_prob(images.image)
    assert set(found) == {"loss", "accuracy"}
    expected = -Categorical(logits=log_p).log_prob(images.label)
    assert torch.allclose(found["loss"], expected, atol=1e-5)
    best = log_p.argmax(1)
    hit = Images(images.image, best.where(torch.arange(6) < 4, (best + 1) % 10))
    assert held_out(model, hit)["accuracy"].tolist() == [1, 1, 1, 1, 0, 0]
    again = held_out(model, images)
    assert all(torch.equal(again[name], found[name]) for name in found)


def test_confusion_has_the_truth_in_rows() -> None:
    taken, truth = torch.tensor([2, 2, 9, 0, 9]), torch.tensor([2, 7, 9, 7, 9])
    log_p = 5 * torch.eye(10)[taken] - 3
    expected = torch.zeros(10, 10, dtype=torch.int64)
    expected[2, 2], expected[7, 2], expected[9, 9], expected[7, 0] = 1, 1, 2, 1
    found = confusion(log_p, truth)
    assert torch.equal(found, expected)
    log_p, truth = torch.randn(500, 10), torch.arange(500) % 7
    found = confusion(log_p, truth)
    assert torch.equal(found.sum(1), truth.bincount(minlength=10))
    assert torch.equal(found.sum(0), log_p.argmax(1).bincount(minlength=10))


# --- training -------------------------------------------------------------------------


def marks(each: int, seed: int, shape: Shape, classes: int) -> Images:
    """Digit d is a bright block at its own place, one of ten, and some noise."""
    label = torch.arange(classes).repeat(each)
    image = 0.2 * torch.rand(len(label), *shape, generator=seeded(seed))
    for picture, d in zip(image, label.tolist(), strict=True):
        row, column = 3 + 12 * (d // 5), 1 + 5 * (d % 5)
        picture[:, row : row + 9, column : column + 5] += 0.8
    return Images(image.clamp(0, 1), label, classes)


def tiny(shape: Shape = GREY, classes: int = 10) -> ImageSplits:
    train, validation, test = (
        marks(each, seed, shape, classes) for seed, each in enumerate((8, 3, 3))
    )
    return ImageSplits(train, validation, test, "tiny", complete=False)


@pytest.mark.parametrize("augmented", [True, False])
def test_training_lowers_the_loss(
    augmented: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def watched(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return augment(x)

    monkeypatch.setattr(classifier, "augment", watched)
    model, data = small(), tiny()
    history = train_classifier(
        model, data, epochs=8, batch=16, lr=0.1, augmented=augmented
    )
    assert sizes == ([16] * 40 if augmented else [])
    assert len(history.loss) == 40
    assert history.step == list(range(0, 41, 5))
    loss, accuracy = (history.measured[name] for name in ("loss", "accuracy"))
    assert loss[0] == pytest.approx(2.3, abs=0.2)
    assert loss[-1] < 1.2
    assert accuracy[-1] > 0.8
    assert loss[-1] == pytest.approx(
        float(held_out(model, data.validation)["loss"].mean())
    )
    assert not model.training


def test_colours_other_sides_and_classes() -> None:
    torch.manual_seed(0)
    model, data = Classifier(2, (3, 32, 24), classes=4), tiny((3, 32, 24), 4)
    x = data.test.image
    assert model.features(x).shape == (12, 4 * 4 * 3)
    assert model(x).shape == model.log_prob(x).shape == (12, 4)
    history = train_classifier(model, data, epochs=20, batch=16, lr=0.1)
    loss, accuracy = (history.measured[name] for name in ("loss", "accuracy"))
    assert loss[0] == pytest.approx(log(4), abs=0.2)
    assert loss[-1] < 0.7
    assert accuracy[-1] > 0.8
    assert confusion(model.log_prob(x), data.test.label).shape == (4, 4)
    with pytest.raises(ValueError, match=r"shape \(B, 3, 32, 24\), got"):
        model(noise())


@pytest.mark.parametrize("shape", [(28, 28), (1, 7, 28), (1, 28, 7), (1, 1, 28, 28)])
def test_a_classifier_of_other_samples_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape \(C, H, W\) with sides of at least 8"):
        Classifier(shape=shape)
    with pytest.raises(ValueError, match="classes must be at least 1, got 0"):
        Classifier(classes=0)


def test_training_repeats_with_the_seed() -> None:
    runs = []
    for seed in (0, 0, 1):
        model = small(seed)
        history = train_classifier(model, tiny(), epochs=2, batch=32)
        runs.append((history.loss, model.log_prob(noise())))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]


# --- wrong input ----------------------------------------------------------------------

SHAPE = r"images must have shape \(B, 1, 28, 28\), got"
ROWS = "images must be finite, got 2 of 2 rows with NaN or infinity, the first at row 0"
BAD: dict[str, tuple[object, type[Exception], str]] = {
    "no tensor": (
        [[0.0]],
        TypeError,
        r"must be a torch\.Tensor of shape \(B, 1, 28, 28\), got list",
    ),
    "bytes": (
        torch.zeros(2, 1, 28, 28).byte(),
        TypeError,
        r"must have a floating dtype, got torch\.uint8",
    ),
    "one image": (torch.zeros(1, 28, 28), ValueError, rf"{SHAPE} \(1, 28, 28\)"),
    "rows": (torch.zeros(2, 784), ValueError, rf"{SHAPE} \(2, 784\)"),
    "colours": (torch.zeros(2, 3, 28, 28), ValueError, rf"{SHAPE} \(2, 3, 28, 28\)"),
    "other size": (torch.zeros(2, 1, 28, 32), ValueError, rf"{SHAPE} \(2, 1, 28, 32\)"),
    "none": (
        torch.zeros(0, 1, 28, 28),
        ValueError,
        r"at least one row, got an empty batch \(0, 1, 28, 28\)",
    ),
    "double precision": (
        torch.zeros(2, 1, 28, 28).double(),
        TypeError,
        r"dtype torch\.float32 like the model, got torch\.float64",
    ),
    "another device": (
        torch.zeros(2, 1, 28, 28, device="meta"),
        ValueError,
        "must be on cpu like the model, got meta",
    ),
    "NaN": (
        torch.zeros(2, 1, 28, 28).index_fill(3, torch.tensor([5]), float("nan")),
        ValueError,
        ROWS,
    ),
    "infinity": (
        torch.zeros(2, 1, 28, 28).index_fill(3, torch.tensor([5]), -float("inf")),
        ValueError,
        ROWS,
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_images(case: str) -> None:
    x, error, message = BAD[case]
    model, label = small().eval(), torch.zeros(2, dtype=torch.int64)
    losses = plain_cross_entropy, augmented_cross_entropy
    calls: list[Callable] = [model, model.features]
    calls += [partial(loss, model) for loss in losses]
    for call in calls:
        with pytest.raises(error, match=message):
            call((x, label) if isinstance(call, partial) else x)


def test_good_images_come_back_as_they_are() -> None:
    x = noise(2)
    assert check_images(x, shape=(1, 28, 28), like=small().head.weight) is x
    other = torch.zeros(4, 6, dtype=torch.float64)
    assert check_images(other, shape=(6,)) is other
    with pytest.raises(ValueError, match=r"shape \(B, 5\), got \(4, 6\)"):
        check_images(other, shape=(5,))


def test_bad_width_and_labels() -> None:
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        Classifier(0)
    with pytest.raises(ValueError, match="labels must lie in 0 … 9, got 0 … 10"):
        confusion(torch.zeros(2, 10), torch.tensor([0, 10]))
    with pytest.raises(ValueError, match=r"shape \(3,\), got \(2,\)"):
        confusion(torch.zeros(3, 10), torch.tensor([0, 1]))
    with pytest.raises(TypeError, match=r"torch\.int64 tensor, got torch\.float32"):
        confusion(torch.zeros(2, 10), torch.zeros(2))
