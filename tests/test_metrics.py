"""Distances from the truth, on cases whose value is known."""

from collections.abc import Callable
from math import log

import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import entropy
from torch import Tensor

from course_utils.data import OlympicRings, Square
from course_utils.metrics import (
    Estimate,
    counts,
    frechet_distance,
    kl_to_truth,
    mutual_information,
    one_to_one,
    one_to_one_accuracy,
    path_length,
    path_ratio,
    share_off_support,
    sliced_wasserstein,
    spread_within,
    turning,
)
from course_utils.notebook import seeded


def test_kl_of_a_wider_uniform() -> None:
    """q uniform on a square of twice the side: KL(p‖q) = log 4, and its error is 0."""

    def wider(x: Tensor) -> Tensor:
        return torch.full((len(x),), -log(16))

    estimate = kl_to_truth(wider, Square(), 1000, seeded(0))
    assert estimate.mean == pytest.approx(log(4))
    assert estimate.standard_error == pytest.approx(0, abs=1e-9)


def test_kl_of_the_truth_is_zero_and_of_a_gaussian_positive() -> None:
    rings = OlympicRings()
    assert kl_to_truth(rings.log_prob, rings, 1000, seeded(0)).mean == 0
    normal = torch.distributions.Normal(0.0, 1.0)
    estimate = kl_to_truth(
        lambda x: normal.log_prob(x).sum(1), rings, 50_000, seeded(0)
    )
    exact = 1 + log(2 * torch.pi) - rings.entropy()  # z-scored data: E|x|² = 2
    assert abs(estimate.mean - exact) < 4 * estimate.standard_error
    assert 0 < estimate.standard_error < 0.01


def test_share_off_support() -> None:
    x = torch.tensor([[0.0, 0.0], [0.5, -0.9], [1.5, 0.0], [0.0, -7.0]])
    assert share_off_support(Square(), x) == 0.5


def test_path_ratio_of_a_line_and_of_a_staircase() -> None:
    line = torch.stack([torch.zeros(1, 2), torch.ones(1, 2), 3 * torch.ones(1, 2)])
    stairs = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 1.0]]])
    assert path_ratio(line).item() == pytest.approx(1)
    assert path_ratio(stairs).item() == pytest.approx(2**0.5)


def test_length_and_turning_of_a_circle() -> None:
    angle = torch.linspace(0, 2 * torch.pi, 1001, dtype=torch.float64)
    circle = 3 * torch.stack([angle.cos(), angle.sin()], dim=1)[:, None]  # (T, 1, 2)
    assert path_length(circle).item() == pytest.approx(6 * torch.pi, rel=1e-4)
    assert turning(circle).item() == pytest.approx(2 * torch.pi, rel=2e-3)


def test_turning_of_stairs_and_of_a_pause() -> None:
    stairs = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 1.0]], [[0.0, 1.0]]])
    pause = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]], [[2.0, 0.0]]])
    assert turning(stairs).item() == pytest.approx(torch.pi)
    assert turning(pause).item() == 0


def test_sliced_wasserstein_of_a_shift_and_of_a_scaling() -> None:
    """A shift by v moves every projection by v·θ: √(|v|²/2) on the plane."""
    x = torch.randn(4000, 2, generator=seeded(0))
    shift = sliced_wasserstein(x, x + torch.tensor([3.0, 4.0]), projections=2000)
    assert shift == pytest.approx(5 / 2**0.5, rel=0.03)
    root_mean_square = float((x**2).mean().sqrt())  # of a projection, for a round cloud
    assert sliced_wasserstein(x, 2 * x) == pytest.approx(root_mean_square, rel=0.03)
    assert sliced_wasserstein(x, x.flip(0)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="must be finite"):
        sliced_wasserstein(x, x * float("nan"))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"T ≥ 3, got \(2, 4, 2\)"):
        turning(torch.zeros(2, 4, 2))
    with pytest.raises(ValueError, match=r"T ≥ 2, got \(1, 4, 2\)"):
        path_ratio(torch.zeros(1, 4, 2))
    with pytest.raises(ValueError, match="must be finite"):
        path_ratio(torch.full((3, 4, 2), float("nan")))
    with pytest.raises(ValueError, match="n must be at least 2, got 1"):
        kl_to_truth(Square().log_prob, Square(), 1)


def cloud(n: int, mean: Tensor, root: Tensor, seed: int) -> Tensor:
    """n points whose mean and covariance (root·rootᵀ) are exactly these."""
    x = torch.randn(n, len(mean), generator=seeded(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(x.T @ x / (n - 1)), x.T, upper=False
    )
    return white.T @ root.T + mean


def roots(width: int) -> list[Tensor]:
    return [
        torch.randn(width, width, generator=seeded(s), dtype=torch.float64)
        for s in (1, 2)
    ]


@pytest.mark.parametrize("width", [1, 2, 7])
def test_frechet_distance_of_known_gaussians(width: int) -> None:
    """By scipy's matrix root of the product, which need not be symmetric."""
    means = torch.randn(2, width, generator=seeded(0), dtype=torch.float64)
    a, b = roots(width)
    x, y = cloud(80, means[0], a, 3), cloud(50, means[1], b, 4)
    left, right = (a @ a.T).numpy(), (b @ b.T).numpy()
    root = sqrtm(left @ right).real
    expected = float((means[0] - means[1]).square().sum())
    expected += (left + right - 2 * root).trace()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(x.float(), y.float()) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_of_scaled_axes() -> None:
    """Where the covariances commute it is |μ − ν|² + Σ(σ − τ)²."""
    zero, sigma = torch.zeros(3).double(), torch.tensor([1.0, 2.0, 0.5]).double()
    x = cloud(40, zero, sigma.diag(), 0)
    y = cloud(60, zero + 2, (3 * sigma).diag(), 1)
    expected = 3 * 2**2 + float((2 * sigma).square().sum())
    assert frechet_distance(x, y) == pytest.approx(expected)


def test_frechet_distance_of_a_cloud_to_itself_and_to_its_shift() -> None:
    x = cloud(30, torch.zeros(4).double(), torch.eye(4).double() * 3, 0)
    step = torch.tensor([1.0, -2.0, 0.0, 4.0])
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + step) == pytest.approx(21, rel=1e-6)


def test_frechet_distance_of_fewer_points_than_features() -> None:
    """Covariances without full rank, as of features that are always 0."""
    x, y = (torch.randn(n, 40, generator=seeded(n)).double() for n in (12, 15))
    x[:, :5] = y[:, :5] = 0
    a, b = ((z - z.mean(0)) / (len(z) - 1) ** 0.5 for z in (x, y))
    # tr (Σ_xΣ_y)^½ is the sum of the singular values of A·Bᵀ, where Σ_x = AᵀA
    shared = torch.linalg.svdvals(a @ b.T).sum()
    expected = (x.mean(0) - y.mean(0)).square().sum()
    expected += a.square().sum() + b.square().sum() - 2 * shared
    assert frechet_distance(x, y) == pytest.approx(float(expected), rel=1e-5)


def test_bad_features() -> None:
    with pytest.raises(ValueError, match=r"N, M ≥ 2, got \(1, 3\) and \(5, 3\)"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"got \(5, 3\) and \(5, 4\)"):
        frechet_distance(torch.zeros(5, 3), torch.zeros(5, 4))
    with pytest.raises(ValueError, match=r"got \(5,\) and \(5, 4\)"):
        frechet_distance(torch.zeros(5), torch.zeros(5, 4))
    for bad in (float("nan"), float("inf")):
        x = torch.randn(5, 3)
        x[2, 1] = bad
        with pytest.raises(ValueError, match="must be finite, got 1 of 5 rows"):
            frechet_distance(torch.randn(5, 3), x)


# --- how far apart the rows of one group are ------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_spread_is_the_mean_over_pairs_and_then_over_groups(
    dtype: torch.dtype,
) -> None:
    x = torch.randn(40, 3, generator=seeded(0)).to(dtype)
    group = torch.tensor([0] * 25 + [3] * 10 + [7] * 2 + [5] * 3)
    group = group[torch.randperm(40, generator=seeded(1))]
    each = []
    for g in (0, 3, 5, 7):
        rows = [row for row, own in zip(x.tolist(), group, strict=True) if own == g]
        apart = [
            sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
            for i, one in enumerate(rows)
            for j, other in enumerate(rows)
            if i != j
        ]
        each.append(sum(apart) / len(apart))
    assert spread_within(x, group) == pytest.approx(sum(each) / 4, rel=1e-6)
    assert spread_within(x.clone().requires_grad_(), group) == spread_within(x, group)


def test_the_spread_of_known_clouds() -> None:
    """Of normal points E|x − y| = √2·E|x|, and on the plane E|x| = √(π/2)."""
    n = 3000
    x, group = torch.randn(n, 2, generator=seeded(2)), torch.arange(n) % 2
    x[group == 1] *= 3  # each group counts alike
    assert spread_within(x, group) == pytest.approx(2 * torch.pi**0.5, rel=0.03)
    assert spread_within(x + 100.0 * group[:, None], group) == pytest.approx(
        spread_within(x, group), rel=1e-4
    )
    assert spread_within(torch.ones(4, 2), torch.zeros(4).long()) == 0


def test_groups_without_a_spread_are_refused() -> None:
    x, group = torch.randn(4, 2), torch.tensor([0, 0, 1, 1])
    for rows, groups, error, message in (
        (x, torch.tensor([0, 0, 0, 1]), ValueError, "two rows, got one of 1"),
        (x, group[:3], ValueError, r"must have shape \(4,\), got \(3,\)"),
        (x, group[:1], ValueError, r"must have shape \(4,\), got \(1,\)"),
        (x, group[:0], ValueError, r"must have shape \(4,\), got \(0,\)"),
        (x, group[:, None], ValueError, r"must have shape \(4,\), got \(4, 1\)"),
        (x, group - 1, ValueError, "lie in 0 … 0, got -1 … 0"),
        (x, group - 5, ValueError, "labels must lie in 0 … 0, got -5 … -4"),
        (x, group.float(), TypeError, "torch.int64 tensor, got torch.float32"),
        (x, [0, 0, 1, 1], TypeError, "torch.int64 tensor, got list"),
        (x[:0], group[:0], ValueError, "at least one row"),
        (x[:, 0], group, ValueError, "must have shape"),
        (torch.tensor(1.0), group, ValueError, "must have shape"),
        (x[None], group, ValueError, "must have shape"),
        (x / 0, group, ValueError, "must be finite, got 4 of 4 rows"),
        (x.long(), group, TypeError, "floating dtype"),
        (x.tolist(), group, TypeError, "must be a torch.Tensor"),
    ):
        with pytest.raises(error, match=message):
            spread_within(rows, groups)  # type: ignore[arg-type]


def test_estimate_of_values() -> None:
    estimate = Estimate.of(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert estimate.mean == pytest.approx(3.0)
    assert estimate.standard_error == pytest.approx((14 / 3) ** 0.5 / 2)
    for wrong in (torch.zeros(1), torch.zeros(3, 2)):
        with pytest.raises(ValueError, match=r"values must have shape \(N,\)"):
            Estimate.of(wrong)


@pytest.mark.parametrize("shape", [(50, 1), ()])
def test_a_density_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="what log_prob gives must have shape"):
        kl_to_truth(lambda x: torch.zeros(shape), Square(), n=50)


# --- codes and classes ----------------------------------------------------------------


def planted(
    wrong: float, n: int = 2000, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes that are a permutation of the classes, but for a share of wrong ones."""
    source = seeded(seed)
    permutation = torch.randperm(10, generator=source)
    label = torch.randint(10, (n,), generator=source)
    code = permutation[label]
    bad = int(wrong * n)
    code[:bad] = permutation[(label[:bad] + 1) % 10]
    return code, label, permutation


@pytest.mark.parametrize("wrong", [0.0, 0.1, 0.4])
def test_a_planted_permutation_is_found(wrong: float) -> None:
    code, label, permutation = planted(wrong)
    assert one_to_one_accuracy(code, label) == pytest.approx(1 - wrong, abs=1e-9)
    found = one_to_one(code, label)
    assert torch.equal(found[permutation], torch.arange(10))
    assert float((found[code] == label).double().mean()) == pytest.approx(1 - wrong)


def test_no_two_codes_stand_for_one_class() -> None:
    """Codes 0 and 1 are both most often class 0, but only one of them may be it."""
    code = torch.tensor([0, 0, 0, 1, 1, 1])
    label = torch.tensor([0, 0, 0, 0, 0, 1])
    assert one_to_one(code, label, codes=2).tolist() == [0, 1]
    assert one_to_one_accuracy(code, label) == pytest.approx(4 / 6)
    assert counts(code, label).tolist() == [[3, 0], [2, 1]]


def test_codes_that_are_left_over_stand_for_nothing() -> None:
    code, label = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 1, 0, 0])
    assert sorted(one_to_one(code, label, codes=5).tolist()) == [-1, -1, -1, 0, 1]
    assert one_to_one_accuracy(code, label) == pytest.approx(3 / 4)
    assert one_to_one_accuracy(torch.zeros(4).long(), label) == pytest.approx(1 / 2)


def test_mutual_information_is_that_of_the_entropies() -> None:
    """I = H(code) + H(label) − H(both), by scipy's entropies."""
    code, label, _ = planted(0.3)
    both = counts(code, label).double().numpy()
    expected = entropy(both.sum(1)) + entropy(both.sum(0)) - entropy(both.ravel())
    assert mutual_information(code, label) == pytest.approx(expected)
    assert mutual_information(label, code) == pytest.approx(expected)
    assert mutual_information(code, code) == pytest.approx(entropy(both.sum(1)))


def test_mutual_information_of_independent_codes_is_its_bias() -> None:
    a, b = torch.randint(10, (2, 20_000), generator=seeded(0))
    assert mutual_information(a, b) == pytest.approx(81 / 40_000, rel=0.5)
    assert mutual_information(torch.zeros_like(a), b) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("measure", [one_to_one_accuracy, mutual_information])
def test_bad_codes(measure: Callable[[Tensor, Tensor], float]) -> None:
    code = torch.tensor([0, 1, 2])
    with pytest.raises(TypeError, match=r"must be a torch.int64 tensor"):
        measure(code, code.float())
    with pytest.raises(ValueError, match=r"must have shape \(3,\)"):
        measure(code, code[:2])
    with pytest.raises(ValueError, match="labels must lie in 0 … 2, got -1 … 2"):
        measure(code, torch.tensor([0, -1, 2]))
    with pytest.raises(ValueError, match="at least one code, got none"):
        measure(code[:0], code[:0])
    with pytest.raises(ValueError, match="labels must lie in 0 … 1, got 0 … 2"):
        one_to_one(code, code, codes=2)
