"""The judge says what a digit is, and refuses what is none."""

import pytest
import torch
from torch import Tensor

from course_utils.data import Images, ImageSplits, load_mnist
from course_utils.models.classifier import Classifier
from course_utils.models.judge import BLURRED, REFUSED, Judge, contrast
from course_utils.notebook import seeded
from course_utils.recipes import digit_judge

N = 200


@pytest.fixture(scope="module")
def mnist() -> ImageSplits:
    return load_mnist()


@pytest.fixture(scope="module")
def judge(mnist: ImageSplits) -> Judge:
    return digit_judge(mnist)


def blobs() -> Tensor:
    """Round Gaussian blobs of several sizes, places and brightnesses."""
    draw = seeded(0)
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    centre = 10 + 8 * torch.rand(N, 2, 1, 1, generator=draw)
    size = 2 + 4 * torch.rand(N, 1, 1, generator=draw)
    light = 0.3 + 0.7 * torch.rand(N, 1, 1, generator=draw)
    square = (x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2
    return (light * (-square / (2 * size**2)).exp())[:, None]


def test_digits_are_judged(judge: Judge, mnist: ImageSplits) -> None:
    found = judge.digit(mnist.test.image[:2000])
    assert (found == REFUSED).float().mean() < 0.015
    assert (found == mnist.test.label[:2000]).float().mean() > 0.98
    kept = judge.distance(mnist.validation.image) <= judge.limit
    assert kept.float().mean() == pytest.approx(0.995, abs=5e-4)


def test_what_is_no_digit_is_refused(judge: Judge, mnist: ImageSplits) -> None:
    x, draw = mnist.test.image, seeded(1)
    shuffled = (
        x[:N].flatten(1)[:, torch.randperm(784, generator=draw)].view(x[:N].shape)
    )
    share = {
        "noise": torch.rand(N, 1, 28, 28, generator=draw),
        "blobs": blobs(),
        "black": torch.zeros(2, 1, 28, 28),
        "grey": torch.full((2, 1, 28, 28), 0.5),
        "shuffled": shuffled,
        "mean of ten": x[: 10 * N].view(10, N, 1, 28, 28).mean(0),
    }
    refused = {
        name: float((judge.digit(images) == REFUSED).float().mean())
        for name, images in share.items()
    }
    assert min(refused.values()) > 0.8, refused
    # and the classifier alone is sure of a digit in noise
    sure = judge.classifier.log_prob(share["noise"]).exp().amax(1)
    assert sure.median() > 0.99


def test_the_contrast_in_closed_form() -> None:
    flat = torch.zeros(1, 1, 10, 10)
    flat[..., :5] = 0.4
    assert float(contrast(flat)) == pytest.approx(1.0)
    assert contrast(blobs()).median() == pytest.approx(0.5, abs=0.02)
    assert BLURRED > 0.5
    assert contrast(torch.zeros(1, 1, 2, 2)).isnan().all()


def test_the_distance_is_mahalanobis() -> None:
    torch.manual_seed(0)
    images = Images(torch.rand(600, 1, 28, 28), torch.arange(600) % 10)
    judge = Judge(Classifier(2), ImageSplits(images, images, images, "noise"), 0.9)
    h = judge.classifier.features(images.image).double()
    mean = torch.stack([h[images.label == c].mean(0) for c in range(10)])
    off = h - mean[images.label]
    cov = off.T @ off / 600
    cov += 1e-3 * cov.diagonal().mean() * torch.eye(len(cov))
    each = [(h[:5] - m) @ torch.linalg.inv(cov) * (h[:5] - m) for m in mean]
    expected = torch.stack([e.sum(1) for e in each]).amin(0).float()
    assert torch.allclose(judge.distance(images.image[:5]), expected, rtol=1e-4)
    assert (judge.distance(images.image) > judge.limit).float().mean() == pytest.approx(
        0.1, abs=0.01
    )
    with pytest.raises(ValueError, match=r"quantile must lie in \(0, 1\), got 1"):
        Judge(Classifier(2), ImageSplits(images, images, images, "noise"), 1)
    with pytest.raises(ValueError, match="images must have shape"):
        judge.digit(torch.rand(2, 3, 28, 28))


def noise(classes: int = 10) -> ImageSplits:
    images = Images(torch.rand(60, 1, 28, 28), torch.arange(60) % classes)
    return ImageSplits(images, images, images, "noise")


def test_a_judge_lives_in_any_dtype() -> None:
    data = noise()
    x = data.test.image
    judge = Judge(Classifier(2), data)
    found, distance = judge.digit(x), judge.distance(x)
    assert torch.equal(judge.float().digit(x), found)
    assert torch.allclose(judge.distance(x), distance, rtol=1e-3)
    assert judge.double().digit(x.double()).shape == (60,)
    for dtype in (torch.float64, torch.bfloat16):
        other = Judge(Classifier(2).to(dtype), data)
        assert other.digit(x.to(dtype)).dtype == torch.int64
        assert other.to("meta").digit(x.to("meta", dtype)).is_meta
    assert judge.to(torch.bfloat16).digit(x.bfloat16()).shape == (60,)


def test_other_judges_are_refused() -> None:
    with pytest.raises(ValueError, match=r"training images, got none of \[8, 9\]"):
        Judge(Classifier(2), noise(8))
    with pytest.raises(TypeError, match="data must be a ImageSplits, got str"):
        Judge(Classifier(2), "digits")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="classifier must be a Classifier, got str"):
        Judge("digits", noise())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="images must have shape"):
        contrast(torch.rand(3))
