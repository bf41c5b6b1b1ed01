"""The data sets against their own mathematics."""

import inspect
import pkgutil
from importlib import import_module
from math import log, pi

import pytest
import torch
from scipy.stats import chisquare

import course_utils.data
from course_utils.data import (
    GaussianMixture,
    OlympicRings,
    PlaneData,
    Spiral,
    Square,
)
from course_utils.data.rings import CENTRES, INNER, OUTER, _areas
from course_utils.notebook import seeded

OVERLAPPING = GaussianMixture(
    [[0.0, 0.0], [0.3, 0.1], [-0.2, 0.25]], 0.15, weights=[1, 2, 3], label=[1, 0, 1]
)
DATA: dict[str, PlaneData] = {
    "rings union": OlympicRings("union"),
    "rings union raw": OlympicRings("union", standardized=False),
    "rings by ring": OlympicRings("by ring"),
    "square uniform": Square(),
    "square by class": Square("by class"),
    "square by class z-scored": Square("by class", standardized=True),
    "spiral": Spiral(),
    "spiral z-scored": Spiral(noise=0.05, standardized=True),
    "mixture": GaussianMixture([[0.0, 0.0], [3.0, 1.0]], 0.5, standardized=True),
    "mixture with classes": OVERLAPPING,
}


def data_sets() -> set[type[PlaneData]]:
    """Every data set of the plane that the package has."""
    package, found = course_utils.data, set()
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for _, item in inspect.getmembers(import_module(module.name), inspect.isclass):
            if issubclass(item, PlaneData) and not inspect.isabstract(item):
                found.add(item)
    return found


for kind in data_sets() - {type(data) for data in DATA.values()}:
    DATA[kind.__name__] = kind()


def knowing(*hooks: str) -> list[str]:
    """The names of the data that have said all of this about themselves."""
    return [
        name
        for name, data in DATA.items()
        if all(getattr(type(data), h) is not getattr(PlaneData, h) for h in hooks)
    ]


def with_classes(*hooks: str) -> list[str]:
    return [name for name in knowing(*hooks) if DATA[name].classes]


def middles(low: torch.Tensor, high: torch.Tensor, n: int) -> list[torch.Tensor]:
    """Along each axis, the middles of n equal cells of a window."""
    return [
        a + (b - a) * (torch.arange(n) + 0.5) / n
        for a, b in zip(low, high, strict=True)
    ]


@pytest.mark.parametrize("name", knowing("_log_density", "_entropy"))
def test_entropy_is_the_mean_negative_log_density(name: str) -> None:
    data = DATA[name]
    nll = -data.log_prob(data.sample(50_000, seeded(0)).double())
    assert nll.isfinite().all()
    error = abs(float(nll.mean()) - data.entropy())
    assert error <= 4 * float(nll.std()) / len(nll) ** 0.5 + 1e-5


@pytest.mark.parametrize("name", knowing("_log_density"))
def test_density_integrates_to_one(name: str) -> None:
    data = DATA[name]
    n = 250 if isinstance(data, GaussianMixture) else 700  # smooth, or with edges
    x = data.sample(20_000, seeded(9)).double()
    low, high = x.amin(0) - 0.12, x.amax(0) + 0.12
    sides = middles(low, high, n)
    total = sum(
        float(data.log_prob(torch.cartesian_prod(part, sides[1])).exp().sum())
        for part in sides[0].split(100)
    ) * float((high - low).prod() / n**2)
    assert total == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("name", knowing("_log_density"))
def test_samples_follow_the_density(name: str) -> None:
    """χ² over the cells of a coarse grid, whose probabilities come from the density."""
    data, coarse = DATA[name], 12
    fine = 240 if isinstance(data, GaussianMixture) else 480  # smooth, or with edges
    x = data.sample(50_000, seeded(1)).double()
    low, high = x.amin(0) - 0.05, x.amax(0) + 0.05
    middle = middles(low, high, fine)
    parts = [
        data.log_prob(torch.cartesian_prod(p, middle[1])) for p in middle[0].split(50)
    ]
    density = torch.cat(parts).double()
    mass = (
        density.exp()
        .view(coarse, fine // coarse, coarse, fine // coarse)
        .sum((1, 3))
        .flatten()
    )
    cell = ((x - low) / (high - low) * coarse).long().clamp(0, coarse - 1)
    counts = (cell[:, 0] * coarse + cell[:, 1]).bincount(minlength=coarse**2).double()
    expected = mass / mass.sum() * len(x)
    big = expected > 20
    expected = expected[big] * counts[big].sum() / expected[big].sum()
    assert chisquare(counts[big], expected).pvalue > 1e-4


@pytest.mark.parametrize("name", knowing("_moments"))
def test_standardizing_gives_zero_mean_and_unit_deviation(name: str) -> None:
    data = DATA[name]
    x = data.standardize(data.to_raw(data.sample(100_000, seeded(2))))
    if float(data.std[0]) == 1.0:
        x = (x - data._moments()[0]) / data._moments()[1]
    assert torch.allclose(x.mean(0), torch.zeros(2).to(x), atol=0.015)
    assert torch.allclose(x.std(0), torch.ones(2).to(x), atol=0.015)


@pytest.mark.parametrize("name", with_classes("_log_density", "_entropy"))
def test_density_given_the_class(name: str) -> None:
    data = DATA[name]
    x, label = data.sample_labelled(100_000, seeded(3))
    nll = -data.log_prob(x.double(), label)
    assert nll.isfinite().all()
    assert float(nll.mean()) == pytest.approx(data.entropy(given_label=True), abs=0.01)
    # Bayes: p(x) = Σ_c p(c) p(x | c), with p(c) read off the labels
    share = label.bincount(minlength=data.classes).double() / len(label)
    some = x[:2000].double()
    given = [
        data.log_prob(some, torch.full((2000,), c)).exp() for c in range(data.classes)
    ]
    mixture = torch.stack(given, dim=1) @ share
    assert torch.allclose(mixture, data.log_prob(some).exp(), rtol=0.03)


def test_areas_of_the_rings() -> None:
    areas = _areas()
    m = torch.arange(1, 6)
    assert float((areas * m).sum()) == pytest.approx(5 * pi / 2, abs=1e-5)
    u = 5 * torch.rand(2, 400_000, generator=seeded(4), dtype=torch.float64)
    raw = torch.stack([u[0] * 6.25 / 5 - 1.125, u[1] * 3.25 / 5 - 2.125], dim=1)
    distance = (raw[:, None] - CENTRES).norm(dim=2)
    hit = ((distance > INNER) & (distance < OUTER)).any(1).double().mean()
    assert float(areas.sum()) == pytest.approx(float(hit) * 6.25 * 3.25, rel=0.01)
    assert OlympicRings(standardized=False).entropy() == pytest.approx(
        log(7.015), abs=2e-4
    )
    assert OlympicRings().entropy() == pytest.approx(1.567, abs=1e-3)
    assert OlympicRings("by ring").entropy() == pytest.approx(1.586, abs=1e-3)


def test_the_law_by_ring_counts_crossings_twice() -> None:
    by_ring, union = OlympicRings("by ring", False), OlympicRings("union", False)
    # on one ring; where rings 0 and 3 cross
    x = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    assert by_ring.log_prob(x).diff().item() == pytest.approx(log(2), abs=1e-5)
    assert union.log_prob(x).diff().item() == 0


def test_off_the_support_is_minus_infinity() -> None:
    centre_and_far = torch.tensor([[0.0, 0.0], [9.0, 9.0]])
    assert (
        OlympicRings(standardized=False).log_prob(centre_and_far) == -torch.inf
    ).all()
    assert not Square().inside(torch.tensor([[1.2, 0.0]])).any()


def test_draws_repeat_with_the_seed_and_have_the_size_asked_for() -> None:
    data = OlympicRings()
    assert torch.equal(data.sample(17, seeded(5)), data.sample(17, seeded(5)))
    assert data.sample(1).dtype == torch.float32


def test_batches_are_the_draws_in_their_order() -> None:
    data = OlympicRings("by ring")
    generator = seeded(6)
    x, label = data.sample_labelled(64, generator)
    more, more_label = data.sample_labelled(64, generator)
    x, label = torch.cat([x, more]), torch.cat([label, more_label])
    plain = data.batches(32, seeded(6), block=2)
    assert torch.equal(torch.cat([next(plain) for _ in range(4)]), x)
    both = data.batches(32, seeded(6), labelled=True, block=2)
    for points, classes in zip(x.split(32), label.split(32), strict=True):
        found = next(both)
        assert torch.equal(found[0], points)
        assert torch.equal(found[1], classes)


BAD_POINTS = [
    (torch.zeros(3, 3), ValueError, r"shape \(B, 2\), got \(3, 3\)"),
    (torch.zeros(2), ValueError, r"shape \(B, 2\), got \(2,\)"),
    (torch.zeros(0, 2), ValueError, "at least one row, got an empty batch"),
    (
        torch.tensor([[0.0, 0.0], [0.0, float("nan")]]),
        ValueError,
        "1 of 2 rows .* first at row 1",
    ),
    (torch.tensor([[0.0, float("inf")]]), ValueError, "must be finite"),
    (
        torch.zeros(3, 2, dtype=torch.int64),
        TypeError,
        "floating dtype, got torch.int64",
    ),
    ([[0.0, 0.0]], TypeError, "must be a torch.Tensor .* got list"),
]


@pytest.mark.parametrize(("x", "error", "message"), BAD_POINTS)
def test_bad_points(x: torch.Tensor, error: type[Exception], message: str) -> None:
    for name in knowing("_log_density"):
        with pytest.raises(error, match=message):
            DATA[name].log_prob(x)


def test_bad_labels() -> None:
    data, x = OlympicRings("by ring"), torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"lie in 0 … 4, got 0 … 5"):
        data.log_prob(x, torch.tensor([0, 5]))
    with pytest.raises(ValueError, match=r"lie in 0 … 4, got -1 … 0"):
        data.log_prob(x, torch.tensor([0, -1]))
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        data.log_prob(x, torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match=r"torch\.int64 tensor, got torch\.float32"):
        data.log_prob(x, torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="OlympicRings has no classes"):
        OlympicRings("union").log_prob(x, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="Spiral has no classes"):
        Spiral().sample_labelled(3)
    with pytest.raises(ValueError, match="Spiral has no classes"):
        Spiral().batches(3, labelled=True)


@pytest.mark.parametrize("count", [0, -3])
def test_bad_counts(count: int) -> None:
    with pytest.raises(ValueError, match=f"n must be at least 1, got {count}"):
        OlympicRings().sample(count)
    with pytest.raises(ValueError, match=f"size must be at least 1, got {count}"):
        OlympicRings().batches(count)
    with pytest.raises(ValueError, match=f"block must be at least 1, got {count}"):
        OlympicRings().batches(3, block=count)
    with pytest.raises(TypeError, match=r"n must be a whole number, got 2\.5"):
        OlympicRings().sample(2.5)  # type: ignore[arg-type]


def test_unknown_options() -> None:
    with pytest.raises(
        ValueError, match="law must be one of 'union', 'by ring', got 'rings'"
    ):
        OlympicRings("rings")
    with pytest.raises(ValueError, match="law must be one of 'uniform', 'by class'"):
        Square("disc")
    with pytest.raises(
        ValueError, match="noise must be a finite number above 0, got -1"
    ):
        Spiral(noise=-1)
