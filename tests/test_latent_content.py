"""What a latent keeps of a label, and which pairs of digit and colour images show."""

from typing import cast

import pytest
import torch
from scipy.integrate import quad
from scipy.spatial import cKDTree
from scipy.special import entr
from scipy.stats import norm
from torch import Tensor

from course_utils.data.colours import COLOURS, tint
from course_utils.models.judge import REFUSED, Judge
from course_utils.models.vae.content import (
    Pairs,
    equally_likely,
    kept,
    neighbour_law,
    pairs_of,
)
from course_utils.notebook import seeded


class Reader:
    """A judge that reads the digit from the first pixel: level i/10 is i, 1 is none."""

    def digit(self, x: Tensor) -> Tensor:
        level = (10 * x[:, 0, 0, 0]).round().long()
        return level.masked_fill(level == 10, REFUSED)


def two_classes(count: int, seed: int, apart: float) -> tuple[Tensor, Tensor]:
    """z ~ N(±apart/2, 1) on a line, and the sign's class."""
    draw = seeded(seed)
    label = torch.randint(2, (count,), generator=draw)
    noise = torch.randn(count, 1, generator=draw)
    return noise + apart * (label[:, None] - 0.5), label


def true_information(apart: float) -> float:
    """I(c; z) = h(z) − h(z|c), by quadrature, in nats."""

    def density(z: float) -> float:
        return (norm.pdf(z - apart / 2) + norm.pdf(z + apart / 2)) / 2

    entropy, _ = quad(lambda z: entr(density(z)), -12, 12)
    return float(entropy - norm.entropy())


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_neighbours_are_those_of_a_tree(dim: int) -> None:
    draw = seeded(0)
    known, new = torch.randn(300, dim, generator=draw), torch.randn(1100, dim)
    label = torch.randint(3, (300,), generator=draw)
    _, near = cKDTree(known.numpy()).query(new.numpy(), k=9)
    count = torch.stack([(label[torch.tensor(near)] == c).sum(1) for c in range(3)], 1)
    law = neighbour_law(known, label, new, classes=3, neighbours=9)
    torch.testing.assert_close(law, (count + 0.5) / (9 + 1.5))
    torch.testing.assert_close(law.sum(1), torch.ones(1100))


@pytest.mark.parametrize("apart", [0.0, 1.0, 2.0, 4.0])
def test_information_is_below_the_truth_and_close(apart: float) -> None:
    known, label = two_classes(20_000, 1, apart)
    new, truth = two_classes(4000, 2, apart)
    found, exact = kept(known, label, new, truth, 100), true_information(apart)
    assert exact - 0.03 < found.information < exact + 0.015
    assert found.accuracy == pytest.approx(norm.cdf(apart / 2), abs=0.03)


def test_separate_classes_are_kept_whole() -> None:
    label = torch.arange(400) % 4
    z = torch.nn.functional.one_hot(label).float() + 0.01 * torch.rand(400, 4)
    found = kept(z[:200], label[:200], z[200:], label[200:], neighbours=20)
    best = torch.tensor(4.0).log() + torch.tensor(20.5 / 22).log()
    assert found.accuracy == 1
    assert found.information == pytest.approx(float(best), abs=1e-6)


def test_pairs_are_counted() -> None:
    digit = torch.tensor([3, 3, 3, 7, 10, 0])  # 10: refused
    grey = torch.full((6, 1, 4, 4), 0.5)
    grey[:, 0, 0, 0] = digit / 10
    colour = torch.tensor([1, 1, 5, 0, 2, 9])
    images = tint(grey, COLOURS[colour])
    images[5] = 0  # black: no colour
    found = pairs_of(images, cast(Judge, Reader()))
    wanted = torch.zeros(10, 10, dtype=torch.float64)
    wanted[3, 1], wanted[3, 5], wanted[7, 0] = 2 / 6, 1 / 6, 1 / 6
    torch.testing.assert_close(found.share, wanted)
    assert found.refused == pytest.approx(2 / 6)
    assert found.had(0.2) == 1
    assert found.had() == 3
    assert Pairs(torch.zeros(10, 10), 1.0).had() == 0


def test_the_sheet_is_equally_likely() -> None:
    count = 5
    sheet = equally_likely(count).view(count, count, 2)
    middle = (torch.arange(count) + 0.5) / count
    across = torch.tensor(norm.cdf(sheet[..., 0].numpy()), dtype=torch.float32)
    up = torch.tensor(norm.cdf(sheet[..., 1].numpy()), dtype=torch.float32)
    torch.testing.assert_close(across, middle.expand(count, count))
    torch.testing.assert_close(up, middle.flip(0)[:, None].expand(count, count))


def test_bad_input_is_refused() -> None:
    z, label = torch.randn(20, 2), torch.arange(20) % 10
    with pytest.raises(ValueError, match="neighbours must be at most 20, got 21"):
        neighbour_law(z, label, z, neighbours=21)
    with pytest.raises(ValueError, match=r"\(B, 2\), got \(20, 3\)"):
        neighbour_law(z, label, torch.randn(20, 3), neighbours=5)
    with pytest.raises(ValueError, match="label"):
        neighbour_law(z, label[:19], z, neighbours=5)
    with pytest.raises(ValueError, match="count"):
        equally_likely(0)
