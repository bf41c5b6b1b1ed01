"""Data of one's own: on the plane, mixtures of Gaussians, and images."""

import ast
import inspect
import textwrap
from itertools import pairwise
from math import pi
from pathlib import Path

import pytest
import torch
from test_data import data_sets
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
)

from course_utils.data import (
    GaussianMixture,
    Images,
    ImageSplits,
    PlaneData,
    Spiral,
    Square,
)
from course_utils.notebook import seeded
from course_utils.quadrature import gauss_legendre

# --- the plane ------------------------------------------------------------------------


def written() -> type[PlaneData]:
    """The class that the documentation of PlaneData shows."""
    doc = inspect.getdoc(PlaneData) or ""
    code = doc.partition("::\n\n")[2]
    lines = code.splitlines()
    end = next(i for i, line in enumerate(lines) if line and line[0] != " ")
    scope: dict[str, type[PlaneData]] = {"__name__": __name__}  # type: ignore[dict-item]
    exec(textwrap.dedent("\n".join(lines[:end])), scope)
    return scope["Moons"]


Moons = written()


class LabelledMoons(PlaneData):
    """The same with its two classes, and noise to choose."""

    classes = 2

    def __init__(self, noise: float = 0.05, standardized: bool = False) -> None:
        self.noise = noise
        super().__init__(standardized)

    def _draw(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        angle = torch.pi * torch.rand(n, generator=generator)
        moon = torch.randint(2, (n,), generator=generator)
        arc = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
        noise = torch.randn(n, 2, generator=generator)
        return (1 - 2 * moon[:, None]) * arc + self.noise * noise, moon

    def _moments(self) -> tuple[Tensor, Tensor]:
        zero = torch.zeros(2, dtype=torch.float64)
        # E[(cos a − ½)²] = ½ + ¼, and E[(sin a − ¼)²] = ½ − 1/π + 1/16
        square = torch.tensor([0.75, 0.5 - 1 / pi + 1 / 16], dtype=torch.float64)
        return zero, (square + self.noise**2).sqrt()


def test_to_draw_is_enough() -> None:
    data = Moons()
    x = data.sample(1000, seeded(0))
    assert x.shape == (1000, 2)
    assert x.dtype == torch.float32
    assert torch.equal(x, data.sample(1000, seeded(0)))
    batches = data.batches(100, seeded(0), block=10)
    assert torch.equal(torch.cat([next(batches) for _ in range(10)]), x)
    # each point is near one of the two half circles, about (−½, −¼) and (½, ¼)
    centre = torch.tensor([0.5, 0.25])
    off = torch.stack([(x + centre).norm(dim=1), (x - centre).norm(dim=1)]) - 1
    assert (off.abs().amin(0) < 0.25).all()
    with pytest.raises(ValueError, match="Moons has no classes"):
        data.sample_labelled(3)


def test_classes_of_ones_own() -> None:
    data = LabelledMoons(standardized=True)
    x, label = data.sample_labelled(100_000, seeded(0))
    assert torch.allclose(x.mean(0), torch.zeros(2), atol=0.015)
    assert torch.allclose(x.std(0), torch.ones(2), atol=0.015)
    assert label.bincount(minlength=2).min() > 49_000
    points, moon = next(data.batches(100, seeded(0), labelled=True))
    centre = (2 * moon[:, None] - 1) * torch.tensor([0.5, 0.25])
    radius = (data.to_raw(points) - centre).norm(dim=1)
    assert torch.allclose(radius, torch.ones(100), atol=0.25)
    assert data.mean.shape == data.std.shape == (2,)
    assert PlaneData.std.tolist() == [1, 1]  # that of all others stays


@pytest.mark.parametrize(
    ("ask", "what", "hook"),
    [
        (lambda d: d.log_prob(torch.zeros(1, 2)), "density", "_log_density"),
        (lambda d: d.inside(torch.zeros(1, 2)), "density", "_log_density"),
        (lambda d: d.entropy(), "entropy", "_entropy"),
        (lambda d: d.posterior(torch.zeros(1, 2), 0.1), "posterior", "_posterior"),
        (lambda d: d.mmse(0.1), "least squared error", "_mmse"),
        (lambda d: type(d)(standardized=True), "mean and deviation", "_moments"),
    ],
)
def test_what_is_missing_is_said(ask, what: str, hook: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NotImplementedError) as caught:
        ask(Moons())
    assert str(caught.value).startswith(f"Moons has no {what}: write {hook} to ")


def test_every_hook_is_documented() -> None:
    doc = inspect.getdoc(PlaneData) or ""
    hooks = [
        name
        for name, item in vars(PlaneData).items()
        if inspect.isfunction(item) and name.startswith("_") and name[1] != "_"
    ]
    own = {"_described_truth", "_drawn", "_lacks", "_require_classes"}
    assert {name for name in hooks if f"``{name}(" in doc} == set(hooks) - own


def drawing(result: object, count: int = 0) -> PlaneData:
    """Data that draw whatever they are told to."""

    class Clumsy(PlaneData):
        classes = count

        def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
            return result  # type: ignore[return-value]

    return Clumsy()


POINTS = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("result", "classes", "error", "message"),
    [
        (POINTS.tolist(), 0, TypeError, r"Clumsy\._draw gives must be a torch.Tensor"),
        (POINTS.T, 0, ValueError, r"shape \(B, 2\), got \(2, 4\)"),
        (POINTS[1:], 0, ValueError, "gives must be 4 points, got 3"),
        (POINTS.long(), 0, TypeError, "floating dtype"),
        (POINTS / 0, 0, ValueError, "must be finite"),
        (POINTS, 2, TypeError, "must be points and labels, got points alone"),
        ((POINTS, torch.arange(4)), 2, ValueError, "labels must lie in 0 … 1, got"),
        ((POINTS, torch.zeros(4)), 2, TypeError, "labels must be a torch.int64"),
    ],
)
def test_what_is_drawn_is_checked(
    result: object, classes: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        drawing(result, classes).sample(4)


# --- fingerprints ---------------------------------------------------------------------


def test_equal_data_have_equal_fingerprints() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for data, again in [
        (Moons(), written()()),  # the same code, elsewhere
        (LabelledMoons(), LabelledMoons()),
        (LabelledMoons(1), LabelledMoons(1.0)),
        (Square("by class"), Square("by class")),
        (Spiral(0.05, True), Spiral(noise=0.05, standardized=True)),
        (
            GaussianMixture([[0, 0], [1, 1]], 0.5),
            GaussianMixture(torch.tensor([[0.0, 0], [1, 1]]), 0.5, weights=[3, 3]),
        ),
    ]:
        assert data.fingerprint == again.fingerprint == data.fingerprint
        kind = type(data)
        assert data.fingerprint.startswith(f"{kind.__module__}.{kind.__qualname__}-")
    assert torch.equal(torch.get_rng_state(), state)


def test_different_data_have_different_fingerprints() -> None:
    pair = [[0.0, 0.0], [1.0, 1.0]]
    data: list[PlaneData] = [
        *(Moons(), LabelledMoons(), LabelledMoons(0.06), LabelledMoons(0.05, True)),
        *(Square(), Square("by class"), Square("by class", True)),
        *(Spiral(), Spiral(0.031), Spiral(standardized=True)),
        GaussianMixture(pair, 0.5),
        GaussianMixture(pair, 0.5001),
        GaussianMixture([[0.0, 0.0], [1.0, 1.001]], 0.5),
        GaussianMixture(pair, 0.5, weights=[1, 2]),
        GaussianMixture(pair, 0.5, label=[0, 1]),
        GaussianMixture(pair, 0.5, label=[1, 0]),
        GaussianMixture(pair, 0.5, standardized=True),
    ]
    assert len({each.fingerprint for each in data}) == len(data)


def test_a_setting_that_no_point_shows_counts() -> None:
    first, second = LabelledMoons(), LabelledMoons()
    second.classes = 3
    assert first.fingerprint != second.fingerprint
    for value in (1, "one", [1, 2], (1, [2.0, "three"]), torch.ones(2), True, None):
        first.more, second.more = value, value  # type: ignore[attr-defined]
        second.classes = 2
        assert first.fingerprint == second.fingerprint
        second.more = [value, value]  # type: ignore[attr-defined]
        assert first.fingerprint != second.fingerprint
    first._own = 1  # type: ignore[attr-defined]
    second.more = first.more  # type: ignore[attr-defined]
    assert first.fingerprint == second.fingerprint


def test_the_code_that_draws_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = LabelledMoons().fingerprint
    draw = LabelledMoons._draw

    def reflected(self, n, generator):  # type: ignore[no-untyped-def]
        raw, label = draw(self, n, generator)
        return -raw, label

    def relabelled(self, n, generator):  # type: ignore[no-untyped-def]
        raw, label = draw(self, n, generator)
        return raw, 1 - label

    for other in (reflected, relabelled):
        monkeypatch.setattr(LabelledMoons, "_draw", other)
        assert LabelledMoons().fingerprint != before


def test_chance_from_elsewhere_is_refused() -> None:
    class Careless(PlaneData):
        def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
            return torch.randn(n, 2)

    with pytest.raises(ValueError, match=r"Careless\._draw must take all chance from"):
        _ = Careless().fingerprint


# --- mixtures of Gaussians ------------------------------------------------------------

CENTRES = torch.tensor(
    [[0.0, 0.0], [0.9, 0.2], [-0.4, 0.7], [0.3, -1.1]], dtype=torch.float64
)
WEIGHTS = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
LABEL = torch.tensor([0, 1, 0, 2])
SIGMA = 0.25
MIXTURE = GaussianMixture(CENTRES, SIGMA, WEIGHTS, LABEL)
SCALED = GaussianMixture(CENTRES, SIGMA, 7 * WEIGHTS, LABEL, standardized=True)


def of_torch(label: int | None = None) -> MixtureSameFamily:
    own = torch.ones(4).bool() if label is None else label == LABEL
    return MixtureSameFamily(
        Categorical(WEIGHTS[own]),
        Independent(Normal(CENTRES[own], torch.full_like(CENTRES[own], SIGMA)), 1),
    )


def square(reach: float, step: float) -> tuple[Tensor, float]:
    """A fine grid around the origin, and the area of its cells."""
    axis = torch.arange(-reach, reach, step, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), step**2


def test_densities_are_those_of_torch() -> None:
    x = 3 * torch.randn(500, 2, generator=seeded(0), dtype=torch.float64)
    assert torch.allclose(MIXTURE.log_prob(x), of_torch().log_prob(x), rtol=1e-12)
    label = torch.arange(500) % 3
    found = MIXTURE.log_prob(x, label)
    for c in range(3):
        rows = label == c
        assert torch.allclose(found[rows], of_torch(c).log_prob(x[rows]), rtol=1e-12)
    mean, std = MIXTURE._moments()
    assert torch.allclose(mean, of_torch().mean, rtol=1e-12)
    assert torch.allclose(std, of_torch().variance.sqrt(), rtol=1e-12)
    scaled = SCALED.log_prob(SCALED.standardize(x)) - SCALED.std.log().sum()
    assert torch.allclose(scaled, of_torch().log_prob(x), rtol=1e-12)


def test_draws_have_the_weights() -> None:
    x, label = MIXTURE.sample_labelled(200_000, seeded(1))
    share = label.bincount(minlength=3) / len(label)
    assert torch.allclose(share, torch.tensor([0.4, 0.4, 0.2]), atol=0.005)
    assert torch.allclose(share.double(), MIXTURE._class_weights(), atol=0.005)
    for c in range(3):
        assert torch.allclose(
            x[label == c].mean(0).double(), of_torch(c).mean, atol=0.01
        )
    assert torch.equal(MIXTURE.sample(9, seeded(2)), MIXTURE.sample(9, seeded(2)))


def test_entropies_are_integrals() -> None:
    x, area = square(3.5, 0.02)

    def integral(label: int | None) -> float:
        log_p = of_torch(label).log_prob(x)
        return -float((log_p.exp() * log_p).sum()) * area

    assert MIXTURE.entropy() == pytest.approx(integral(None), abs=1e-9)
    given = sum(w * integral(c) for c, w in enumerate([0.4, 0.4, 0.2]))
    assert MIXTURE.entropy(given_label=True) == pytest.approx(given, abs=1e-9)
    shift = float(SCALED.std.log().sum())
    assert SCALED.entropy() == pytest.approx(integral(None) - shift, abs=1e-9)


@pytest.mark.parametrize("s", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("label", [None, 0, 1])
@pytest.mark.parametrize("data", [MIXTURE, SCALED], ids=["raw", "z-scored"])
def test_posteriors_are_integrals(
    data: GaussianMixture, label: int | None, s: float
) -> None:
    raw, area = square(3.0, 0.02)
    x = data.standardize(raw)
    area = area / float(data.std.prod())
    classes = None if label is None else torch.full((len(x),), label)
    log_p = data.log_prob(x, classes)
    u = x[:: len(x) // 7][1:] * 0.6
    found = data.posterior(u, s, None if classes is None else classes[: len(u)])
    for row, point in enumerate(u):
        log_bell = -((point - x) ** 2).sum(1) / (2 * s**2) - torch.log(
            torch.tensor(2 * pi * s**2)
        )
        weight = (log_p + log_bell).exp() * area
        mass = weight.sum()
        mean = weight @ x / mass
        variance = weight @ (x - mean) ** 2 / mass
        assert found.log_density[row] == pytest.approx(float(mass.log()), abs=1e-6)
        assert torch.allclose(found.mean[row], mean, rtol=0, atol=1e-6)
        assert torch.allclose(found.variance[row], variance, rtol=0, atol=1e-6)


@pytest.mark.parametrize("s", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("data", [MIXTURE, SCALED], ids=["raw", "z-scored"])
def test_least_errors_are_integrals(data: GaussianMixture, s: float) -> None:
    u, area = square(3.5 + 8 * s, 0.04 if s < 1 else 0.1)

    def integral(label: int | None) -> float:
        given = None if label is None else torch.full((len(u),), label)
        found = data.posterior(u, s, given)
        return float(found.log_density.exp() @ found.variance.sum(1)) * area

    assert data.mmse(s) == pytest.approx(integral(None), rel=1e-7)
    given = sum(w * integral(c) for c, w in enumerate([0.4, 0.4, 0.2]))
    assert data.mmse(s, given_label=True) == pytest.approx(given, rel=1e-7)


def test_one_component_is_a_normal_law() -> None:
    data = GaussianMixture([[2.0, -1.0]], 0.5)
    assert data.entropy() == pytest.approx(1 + torch.tensor(2 * pi * 0.25).log().item())
    assert data.mmse(0.5) == pytest.approx(2 * 0.125)
    found = data.posterior(torch.tensor([[3.0, -1.0]]).double(), 0.5)
    assert found.mean.tolist() == [[2.5, -1.0]]
    assert GaussianMixture([[2.0, -1.0]], 0.5, label=[0]).classes == 1


def test_far_apart_components_do_not_mix() -> None:
    """The posterior's variance keeps its digits 1,000 units away from the origin."""
    data = GaussianMixture([[1e3, 0.0], [-1e3, 5.0]], 0.1)
    u = torch.tensor([[1e3, 0.1], [-1e3, 5.0], [0.0, 0.0]], dtype=torch.float64)
    found = data.posterior(u, 0.1)
    assert torch.allclose(found.variance[:2], torch.full((2, 2), 0.005).double())
    assert (found.variance > 0).all()
    assert found.log_density.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"centres": [[0.0, 0.0, 1.0]]}, ValueError, r"shape \(B, 2\)"),
        ({"centres": torch.zeros(0, 2)}, ValueError, "at least one row"),
        ({"centres": [[0.0, float("nan")]]}, ValueError, "must be finite"),
        ({"noise": 0}, ValueError, "noise must be a finite number above 0, got 0"),
        ({"weights": [1.0]}, ValueError, r"weights must have shape \(2,\), got \(1,\)"),
        ({"weights": [1.0, 0.0]}, ValueError, "weights must be finite numbers above"),
        ({"weights": [1.0, float("inf")]}, ValueError, "weights must be finite"),
        ({"label": [0]}, ValueError, r"labels must have shape \(2,\), got \(1,\)"),
        ({"label": [0, -1]}, ValueError, "labels must lie in 0 … 1, got -1 … 0"),
        ({"label": [1, 1]}, ValueError, r"a component, got none of \{0\}"),
        ({"label": [0.0, 1.0]}, TypeError, "labels must be a torch.int64 tensor"),
    ],
)
def test_wrong_mixtures_are_refused(
    settings: dict[str, object], error: type[Exception], message: str
) -> None:
    wanted = {"centres": [[0.0, 0.0], [1.0, 0.0]], "noise": 0.1, **settings}
    with pytest.raises(error, match=message):
        GaussianMixture(**wanted)  # type: ignore[arg-type]


# --- quadrature -----------------------------------------------------------------------


def test_polynomials_are_integrated_exactly() -> None:
    for nodes in (1, 2, 5, 80):
        place, weight = gauss_legendre(-1.5, 4.0, nodes)
        assert place.shape == weight.shape == (nodes,)
        assert all(a < b for a, b in pairwise([-1.5, *place, 4.0]))
        for degree in {0, nodes, 2 * nodes - 1}:
            exact = (4.0 ** (degree + 1) - (-1.5) ** (degree + 1)) / (degree + 1)
            assert weight @ place**degree == pytest.approx(exact, rel=1e-11)
    assert gauss_legendre(2.0, 2.0, 3)[1].tolist() == [0, 0, 0]


def test_wrong_ends_and_nodes_are_refused() -> None:
    for low, high in [(1.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)]:
        with pytest.raises(ValueError, match="must be finite numbers, low ≤ high, got"):
            gauss_legendre(low, high, 3)
    with pytest.raises(ValueError, match="nodes must be at least 1, got 0"):
        gauss_legendre(0.0, 1.0, 0)
    with pytest.raises(TypeError, match="nodes must be a whole number"):
        gauss_legendre(0.0, 1.0, 2.5)  # type: ignore[arg-type]


# --- images ---------------------------------------------------------------------------


def coloured(count: int, seed: int = 0, classes: int = 4) -> Images:
    image = torch.rand(count, 3, 8, 8, generator=seeded(seed))
    return Images(image, torch.arange(count) % classes, classes)


def test_images_of_other_channels_sizes_and_classes() -> None:
    images = coloured(11)
    assert images.shape == (3, 8, 8)
    assert images.classes == 4
    image, label, index = next(images.batches(5, seeded(0)))
    assert image.shape == (5, 3, 8, 8)
    assert torch.equal(image, images.image[index])
    assert torch.equal(label, images.label[index])
    some = images.per_class(2)
    assert some.label.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert (some.shape, some.classes) == (images.shape, 4)
    assert torch.equal(some.image[2], images.image[1])
    with pytest.raises(ValueError, match="got 2 images of class 3"):
        images.per_class(3)
    assert Images(torch.zeros(2, 2, 3, 5), torch.tensor([0, 9])).shape == (2, 3, 5)


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (3, ValueError, "labels must lie in 0 … 2, got 0 … 3"),
        (0, ValueError, "classes must be at least 1, got 0"),
        (4.0, TypeError, "classes must be a whole number"),
    ],
)
def test_wrong_classes_are_refused(
    classes: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Images(coloured(4).image, torch.arange(4), classes)


def test_a_data_set_split_in_three() -> None:
    data = ImageSplits(coloured(8), coloured(4, 1), coloured(4, 2), "own-1")
    assert data.complete
    assert (data.shape, data.classes) == ((3, 8, 8), 4)
    assert len(data.train) == 8


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"fingerprint": ""}, ValueError, "must say which images these are, got ''"),
        ({"fingerprint": " "}, ValueError, "must say which images these are"),
        ({"fingerprint": None}, TypeError, "fingerprint must be text, got NoneType"),
        ({"test": coloured(4).image}, TypeError, "test must be a set of Images, got T"),
        (
            {"validation": coloured(5, classes=5)},
            ValueError,
            r"number of classes, got .*, validation \(3, 8, 8\) of 5, test",
        ),
        (
            {"test": Images(torch.zeros(2, 1, 8, 8), torch.zeros(2).long(), 4)},
            ValueError,
            r"one shape .*, test \(1, 8, 8\) of 4$",
        ),
    ],
)
def test_wrong_splits_are_refused(
    changes: dict[str, object], error: type[Exception], message: str
) -> None:
    parts: dict[str, object] = {
        name: coloured(4) for name in ("train", "validation", "test")
    }
    with pytest.raises(error, match=message):
        ImageSplits(**{**parts, "fingerprint": "own-1", **changes})  # type: ignore[arg-type]


# --- what imports what ----------------------------------------------------------------


ROOT = Path(__file__).parents[1]


def imported(module: str) -> set[str]:
    """The modules of the package that a module imports, and those that these import."""
    found: set[str] = set()
    todo = {module}
    while todo:
        path = ROOT.joinpath(*todo.pop().split(".")).with_suffix(".py")
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
        own = {name for name in names if name.partition(".")[0] == "course_utils"}
        todo |= own - found
        found |= own
    return found


def test_images_need_checks_alone() -> None:
    assert imported("course_utils.data.images") == {"course_utils.checks"}


def test_the_plane_needs_no_download() -> None:
    downloads = {f"course_utils.data.{name}" for name in ("download", "registries")}
    assert downloads < imported("course_utils.data.mnist")
    for module in {kind.__module__ for kind in data_sets()}:
        assert not downloads & imported(module)


def test_no_import_runs_in_a_circle() -> None:
    for path in (ROOT / "course_utils" / "data").glob("[!_]*.py"):
        module = f"course_utils.data.{path.stem}"
        assert module not in imported(module)
