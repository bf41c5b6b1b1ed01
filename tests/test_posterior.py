"""The posterior of noisy data against Monte Carlo, SciPy and its own identities."""

from dataclasses import dataclass
from itertools import pairwise
from math import pi

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm, truncnorm
from test_data import DATA, knowing, with_classes
from torch import Tensor

from course_utils.data import OlympicRings, PlaneData
from course_utils.data.plane import Posterior
from course_utils.data.scan import ScannedData
from course_utils.notebook import seeded

KNOWN = ("_log_density", "_moments", "_posterior", "_mmse")
NAMES = knowing(*KNOWN)
WITH_CLASSES = with_classes(*KNOWN)
CASES: list[tuple[str, int | None]] = [
    *((name, None) for name in NAMES),
    *((name, c) for name in WITH_CLASSES for c in {0, DATA[name].classes - 1}),
]
SCANNED = [case for case in CASES if isinstance(DATA[case[0]], ScannedData)]


def draw(data: PlaneData, n: int, label: int | None, seed: int) -> Tensor:
    """About n points of the law, or of one class, float64."""
    if label is None:
        return data.sample(n, seeded(seed)).double()
    x, drawn = data.sample_labelled(5 * n, seeded(seed))
    return x[drawn == label].double()


def noisy(x: Tensor, s: float, seed: int = 7) -> Tensor:
    return x + s * torch.randn(x.shape, generator=seeded(seed), dtype=torch.float64)


def labels(u: Tensor, label: int | None) -> Tensor | None:
    return None if label is None else torch.full((len(u),), label)


def variance_of(data: PlaneData) -> Tensor:
    """Variance of both coordinates, (2,)."""
    return (data._moments()[1] / data.std) ** 2


@dataclass
class Estimate:
    """A mean over draws and its standard error."""

    value: Tensor
    error: Tensor

    def agrees(self, found: Tensor | float, slack: float = 0.0) -> bool:
        return bool(((found - self.value).abs() <= 4.5 * self.error + slack).all())


def mean_of(values: Tensor) -> Estimate:
    return Estimate(values.mean(0), values.std(0) / len(values) ** 0.5)


def weighted(x: Tensor, weight: Tensor) -> tuple[Estimate, Estimate, Estimate]:
    """log of the mean weight, and the weighted mean and variance of points (N, 2)."""
    total = mean_of(weight)
    share = (weight / weight.sum())[:, None]
    assert 1 / float((share**2).sum()) > 1000, "too few effective draws"
    mean = (share * x).sum(0)
    square = (x - mean) ** 2
    variance = (share * square).sum(0)
    return (
        Estimate(total.value.log(), total.error / total.value),
        Estimate(mean, (share**2 * square).sum(0).sqrt()),
        Estimate(variance, (share**2 * (square - variance) ** 2).sum(0).sqrt()),
    )


def assert_equal(
    found: Posterior, row: int, x: Tensor, weight: Tensor, s: float, slack: float
) -> None:
    log_density, mean, variance = weighted(x, weight)
    assert log_density.agrees(found.log_density[row], slack)
    assert mean.agrees(found.mean[row], slack * s)
    assert variance.agrees(found.variance[row], slack * s**2)


@pytest.mark.parametrize("s", [0.3, 1.5])
@pytest.mark.parametrize(("name", "label"), CASES)
def test_wide_noise_against_draws_of_the_data(
    name: str, label: int | None, s: float
) -> None:
    data = DATA[name]
    x = draw(data, 150_000, label, 0)
    u = noisy(draw(data, 5, label, 1)[:5], s)
    found = data.posterior(u, s, labels(u, label))
    for row in range(len(u)):
        weight = torch.exp(-((u[row] - x) ** 2).sum(1) / (2 * s**2)) / (2 * pi * s**2)
        assert_equal(found, row, x, weight, s, 0.01)


@pytest.mark.parametrize("s", [0.004, 0.03, 0.1])
@pytest.mark.parametrize(("name", "label"), CASES)
def test_narrow_noise_against_draws_around_the_point(
    name: str, label: int | None, s: float
) -> None:
    data, n = DATA[name], 8_000 if "spiral" in name else 20_000
    u = noisy(draw(data, 5, label, 1)[:5], s)
    found = data.posterior(u, s, labels(u, label))
    for row in range(len(u)):
        x = noisy(u[row].expand(n, 2), s, seed=row)
        weight = data.log_prob(x, labels(x, label)).exp()
        assert_equal(found, row, x, weight, s, 0.02)


@pytest.mark.parametrize("s", [0.001, 0.004, 0.02, 0.05, 0.3, 1.0, 5.0])
def test_uniform_square_against_truncated_normals(s: float) -> None:
    x = draw(DATA["square uniform"], 500, None, 2)
    u = torch.cat([noisy(x, s), torch.tensor([[1.0, -1.0], [0.0, 1 + 3 * s]])])
    found = DATA["square uniform"].posterior(u, s)
    low, high = (-1 - u.numpy()) / s, (1 - u.numpy()) / s
    exact = truncnorm(low, high, loc=u.numpy(), scale=s)
    mass = np.log((norm.cdf(high) - norm.cdf(low)) / 2).sum(1)
    assert np.allclose(found.log_density.numpy(), mass, rtol=0, atol=1e-6)
    assert np.allclose(found.mean.numpy(), exact.mean(), rtol=0, atol=1e-6 * s)
    variance = found.variance.numpy()
    assert np.allclose(variance, exact.var(), rtol=0, atol=1e-6 * s**2)


@pytest.mark.parametrize("s", [0.004, 0.05, 0.5])
@pytest.mark.parametrize(("name", "label"), CASES)
def test_mean_and_variance_are_derivatives_of_the_log_density(
    name: str, label: int | None, s: float
) -> None:
    """E[x|u] = u + s²·∇log p_s(u) (Tweedie) and Var[x_i|u] = s²·∂E[x_i|u]/∂u_i."""
    data, h = DATA[name], 0.2 * s
    u = noisy(draw(data, 150, label, 3), s)
    found = data.posterior(u, s, labels(u, label))
    for i, step in enumerate(h * torch.eye(2, dtype=torch.float64)):
        up, down = (
            data.posterior(v, s, labels(v, label)) for v in (u + step, u - step)
        )
        slope = (up.log_density - down.log_density) / (2 * h)
        off = (found.mean[:, i] - (u[:, i] + s**2 * slope)) / s
        assert off.square().mean().sqrt() < 0.02
        slope = (up.mean - down.mean)[:, i] / (2 * h)
        off = found.variance[:, i] / s**2 - slope
        assert off.square().mean().sqrt() < 0.05


@pytest.mark.parametrize("s", [0.05, 0.6])
@pytest.mark.parametrize(("name", "label"), CASES)
def test_smoothed_density_integrates_to_one(
    name: str, label: int | None, s: float
) -> None:
    data, step = DATA[name], s / 2
    x = draw(data, 20_000, label, 4)
    axes = [
        torch.arange(float(a) - 6 * s, float(b) + 6 * s, step, dtype=torch.float64)
        for a, b in zip(x.amin(0), x.amax(0), strict=True)
    ]
    u = torch.cartesian_prod(*axes)
    mass = data.posterior(u, s, labels(u, label)).log_density.exp().sum() * step**2
    assert float(mass) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", WITH_CLASSES)
def test_classes_add_up(name: str) -> None:
    """Bayes: the posterior is that of every class, weighted by P(class | u)."""
    data, s = DATA[name], 0.2
    x, label = data.sample_labelled(2000, seeded(5))
    u = noisy(x.double(), s)
    prior = data._class_weights()
    count = label.bincount(minlength=data.classes)
    assert chisquare(count, 2000 * prior).pvalue > 1e-3
    each = [data.posterior(u, s, torch.full((2000,), c)) for c in range(data.classes)]
    joint = torch.stack([p.log_density.exp() for p in each], dim=1) * prior
    share = (joint / joint.sum(1, keepdim=True))[:, :, None]
    mean = torch.stack([p.mean for p in each], dim=1)
    whole = data.posterior(u, s)
    assert torch.allclose(joint.sum(1), whole.log_density.exp(), rtol=0.02)
    assert torch.allclose((share * mean).sum(1), whole.mean, rtol=0, atol=0.02 * s)
    # rows with labels of their own find the class they belong to
    mixed = data.posterior(u, s, label)
    rows = torch.arange(len(u))
    assert torch.allclose(mixed.mean, mean[rows, label], rtol=0, atol=1e-12)
    log_density = torch.stack([p.log_density for p in each], dim=1)
    assert torch.allclose(mixed.log_density, log_density[rows, label])


@pytest.mark.parametrize("s", [0.03, 0.4, 2.0])
@pytest.mark.parametrize("name", NAMES)
def test_the_laws_of_total_expectation_and_variance(name: str, s: float) -> None:
    data = DATA[name]
    x = draw(data, 3000, None, 6)
    found = data.posterior(noisy(x, s), s)
    mean = data.standardize(data._moments()[0][None])[0]
    assert mean_of(found.mean).agrees(mean)
    total = found.variance + (found.mean - mean) ** 2
    assert mean_of(total).agrees(variance_of(data))
    # the least squared error, by both sides of its definition
    assert mean_of(found.variance.sum(1)).agrees(data.mmse(s))
    assert mean_of(((x - found.mean) ** 2).sum(1)).agrees(data.mmse(s))


@pytest.mark.parametrize("s", [0.05, 0.5])
@pytest.mark.parametrize("name", WITH_CLASSES)
def test_least_error_given_the_class(name: str, s: float) -> None:
    data = DATA[name]
    x, label = data.sample_labelled(3000, seeded(8))
    found = data.posterior(noisy(x.double(), s), s, label)
    given = data.mmse(s, given_label=True)
    assert mean_of(((x - found.mean) ** 2).sum(1)).agrees(given)
    assert given < data.mmse(s) * (1 + 1e-9)  # to know more does no harm


@pytest.mark.parametrize(
    ("name", "given_label"),
    [*((name, False) for name in NAMES), *((name, True) for name in WITH_CLASSES)],
)
def test_least_error_from_no_noise_to_all(name: str, given_label: bool) -> None:
    data = DATA[name]
    noise = [0.06, 0.3, 2.0, 1e3]
    if not given_label:
        noise = [1e-4, *noise]
    error = [data.mmse(s, given_label) for s in noise]
    assert all(a < b for a, b in pairwise(error))
    assert all(e < 2 * s**2 for e, s in zip(error, noise, strict=True))
    if not given_label:
        assert error[0] / noise[0] ** 2 == pytest.approx(2, rel=2e-3)
        assert error[-1] == pytest.approx(float(variance_of(data).sum()), rel=1e-3)


@pytest.mark.parametrize("name", [name for name, label in SCANNED if label is None])
def test_below_the_finest_table_the_error_goes_on(name: str) -> None:
    data = DATA[name]
    assert isinstance(data, ScannedData)
    finest = 1 / data._share_of_finest(data.std)  # the noise where tables begin
    below, above = (data.mmse(finest * (1 + e)) for e in (-1e-6, 1e-6))
    assert above / below == pytest.approx(1, abs=1e-5)
    s = finest / 2
    u = noisy(draw(data, 1000, None, 9), s)
    share = mean_of(data.posterior(u, s).variance.sum(1) / s**2)
    assert share.agrees(data.mmse(s) / s**2, 5e-3)


@pytest.mark.parametrize("s", [0.004, 0.3])
@pytest.mark.parametrize(("name", "label"), SCANNED)
def test_far_out_the_mean_stays_at_the_data(
    name: str, label: int | None, s: float
) -> None:
    data = DATA[name]
    x = draw(data, 20_000, label, 10)
    direction = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1], [0.6, 0.8]]).double()
    far = torch.tensor([4.0, 30.0, 3000.0]).double().repeat_interleave(5)[:, None]
    far = far * variance_of(data).sqrt().clamp(min=1)
    u = data.standardize(data._moments()[0]) + far * direction.repeat(3, 1)
    found = data.posterior(u, s, labels(u, label))
    distance = (u - found.mean).norm(dim=1) / torch.cdist(u, x).amin(1)
    assert (distance < 1.2).all()
    slack = 0.01 + 1e-3 * far
    assert (found.mean >= x.amin(0) - slack).all()
    assert (found.mean <= x.amax(0) + slack).all()
    assert (found.variance >= 0).all()


def test_a_variance_is_never_negative() -> None:
    """Half way between two rings the posterior turns within a step of its table."""
    axis = torch.linspace(-3, 3, 300, dtype=torch.float64)
    u = torch.cartesian_prod(axis, axis)
    assert (OlympicRings().posterior(u, 0.1).variance >= 0).all()


@pytest.mark.parametrize("s", [0.004, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_float32_points(name: str, s: float) -> None:
    data = DATA[name]
    u = noisy(draw(data, 200, None, 11), s).float()
    found, expected = data.posterior(u, s), data.posterior(u.double(), s)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert torch.allclose(ours, theirs.float(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("s", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_noise(s: float) -> None:
    for data in (DATA[name] for name in NAMES):
        with pytest.raises(ValueError, match="s must be a finite number above 0, got"):
            data.posterior(torch.zeros(3, 2), s)
        with pytest.raises(ValueError, match="s must be a finite number above 0, got"):
            data.mmse(s)


def test_bad_points_and_labels() -> None:
    rings, u = OlympicRings("by ring"), torch.zeros(2, 2)
    for points, error, message in [
        (torch.zeros(3, 3), ValueError, r"shape \(B, 2\), got \(3, 3\)"),
        (torch.zeros(0, 2), ValueError, "at least one row"),
        (torch.full((4, 2), float("nan")), ValueError, "got 4 of 4 rows with NaN"),
        (torch.zeros(4, 2).long(), TypeError, "floating dtype, got torch.int64"),
    ]:
        with pytest.raises(error, match=message):
            rings.posterior(points, 0.1)
    with pytest.raises(ValueError, match=r"lie in 0 … 4, got 0 … 5"):
        rings.posterior(u, 0.1, torch.tensor([0, 5]))
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        rings.posterior(u, 0.1, torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match=r"torch\.int64 tensor, got torch\.float32"):
        rings.posterior(u, 0.1, torch.tensor([0.0, 1.0]))
    for data in (DATA[name] for name in NAMES if not DATA[name].classes):
        with pytest.raises(ValueError, match="has no classes"):
            data.posterior(u, 0.1, torch.tensor([0, 1]))
        with pytest.raises(ValueError, match="has no classes"):
            data.mmse(0.1, given_label=True)
