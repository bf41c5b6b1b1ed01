"""What a model knows beside sample and time, and guidance towards it."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from course_utils.data import OlympicRings, PlaneData, Square
from course_utils.data.mixture import GaussianMixture
from course_utils.models.diffusion import (
    DDIM,
    DDPMSchedule,
    Denoiser,
    GuidedDenoiser,
    NoiseNet,
    OptimalDenoiser,
    VEExponential,
    VPCosine,
    linear_betas,
    mlp_denoiser,
)
from course_utils.models.diffusion.denoiser import LogSNRFeatures
from course_utils.models.flow_matching import (
    FlowMatching,
    GuidedVelocity,
    OptimalVelocity,
    Velocity,
    VelocityNet,
    mlp_velocity,
)
from course_utils.models.flow_matching.velocity import TimeFeatures
from course_utils.networks.basic import MLPBackbone
from course_utils.networks.conditioning import (
    ClassLabels,
    Conditioning,
    Tokens,
    Unconditional,
    Vectors,
    Words,
)
from course_utils.notebook import seeded

RINGS = OlympicRings("by ring")

# --- models that know a condition and can do without it -------------------------------

SCHEDULE = VPCosine()
Model = Velocity | Denoiser


def velocity(known: Conditioning | None = None) -> Velocity:
    known = known or ClassLabels(3, 4, drop=0.2)
    features = TimeFeatures().out_dim
    backbone = MLPBackbone((2,), features, known.out_dim, width=8, frequencies=2)
    return shaken(VelocityNet(backbone, known))


def denoiser(known: Conditioning | None = None) -> Denoiser:
    known, time = known or ClassLabels(3, 4, drop=0.2), LogSNRFeatures(SCHEDULE)
    backbone = MLPBackbone((2,), time.out_dim, known.out_dim, width=8, frequencies=2)
    return shaken(NoiseNet(SCHEDULE, backbone, time, 0.7, condition=known))


def shaken(net: nn.Module) -> Any:
    """In float64 and eval mode, with weights far from those it starts with."""
    for k, parameter in enumerate(net.parameters()):
        nn.init.normal_(parameter, std=0.5, generator=seeded(k))
    return net.double().eval()


# how each family is made, and guided
FAMILIES: dict[str, tuple[Callable[..., Model], Callable[..., Model]]] = {
    "velocity": (velocity, GuidedVelocity),
    "denoiser": (denoiser, GuidedDenoiser),
}
each_family = pytest.mark.parametrize("family", FAMILIES)

X = torch.randn(6, 2, generator=seeded(0), dtype=torch.float64)
T = torch.linspace(0.05, 0.95, 6)
LABEL = torch.arange(6) % 3


@each_family
def test_strength_0_is_the_plain_model_and_1_the_conditional_one(family: str) -> None:
    make, guided = FAMILIES[family]
    model = make()
    plain, conditional = model(X, T), model(X, T, LABEL)
    assert not torch.allclose(plain, conditional, atol=0.1)
    assert torch.equal(guided(model, 0.0)(X, T, LABEL), plain)
    assert torch.equal(guided(model, 1.0)(X, T, LABEL), conditional)


@each_family
@pytest.mark.parametrize("strength", [-1.0, 0.25, 4.0])
def test_strength_moves_along_a_straight_line(family: str, strength: float) -> None:
    make, guided = FAMILIES[family]
    model = make()
    plain, conditional = model(X, T), model(X, T, LABEL)
    expected = (1 - strength) * plain + strength * conditional
    assert torch.allclose(guided(model, strength)(X, T, LABEL), expected, atol=1e-12)


@each_family
def test_another_model_can_say_what_comes_without_the_condition(family: str) -> None:
    make, guided = FAMILIES[family]
    model, other = make(ClassLabels(3, 4)), make(Unconditional())
    expected = 3 * model(X, T, LABEL) - 2 * other(X, T)
    assert torch.allclose(guided(model, 3.0, other)(X, T, LABEL), expected, atol=1e-12)


@each_family
def test_no_condition_gives_the_plain_model(family: str) -> None:
    make, guided = FAMILIES[family]
    model, other = make(), make(Unconditional())
    assert torch.equal(guided(model, 3.0)(X, T), model(X, T))
    assert torch.equal(guided(model, 3.0, other)(X, T), other(X, T))


def test_samples_of_guided_models() -> None:
    v, eps = velocity(), denoiser()

    def flows(v: Velocity, label: Tensor | None) -> Tensor:
        return FlowMatching(v).sample(6, label, steps=5, generator=seeded(1))

    def drawn(eps: Denoiser, label: Tensor | None) -> Tensor:
        return DDIM(eps).sample(6, label, steps=5, generator=seeded(1))

    for label in (None, LABEL):
        same = 0.0 if label is None else 1.0
        assert torch.equal(flows(GuidedVelocity(v, same), label), flows(v, label))
        assert torch.equal(drawn(GuidedDenoiser(eps, same), label), drawn(eps, label))
    assert not torch.allclose(flows(GuidedVelocity(v, 2.0), LABEL), flows(v, LABEL))
    assert not torch.allclose(drawn(GuidedDenoiser(eps, 2.0), LABEL), drawn(eps, LABEL))


@each_family
def test_what_has_no_weight_is_not_asked(family: str) -> None:
    make, guided = FAMILIES[family]
    model, silent = make(), make(Unconditional())

    def refuse(*_: object) -> None:
        raise AssertionError("asked")

    silent.register_forward_pre_hook(refuse)
    assert torch.equal(guided(model, 1.0, silent)(X, T, LABEL), model(X, T, LABEL))
    plain = make(Unconditional())
    model.register_forward_pre_hook(refuse)
    assert torch.equal(guided(model, 0.0, plain)(X, T, LABEL), plain(X, T))


UNGUIDED: dict[str, Callable[[], object]] = {
    "velocity, always told": lambda: GuidedVelocity(mlp_velocity(classes=3), 2.0),
    "velocity, never told": lambda: GuidedVelocity(mlp_velocity(), 2.0),
    "denoiser, always told": lambda: GuidedDenoiser(
        mlp_denoiser(SCHEDULE, classes=3), 2.0
    ),
    "denoiser, never told": lambda: GuidedDenoiser(mlp_denoiser(SCHEDULE), 2.0),
    "truth": lambda: GuidedVelocity(OptimalVelocity(RINGS, given_label=True), 2.0),
}


@pytest.mark.parametrize("name", UNGUIDED)
def test_guidance_needs_a_model_that_can_do_without(name: str) -> None:
    expected = "Unconditional" if "never" in name else "ClassLabels"
    with pytest.raises(ValueError, match=rf"with drop > 0, got {expected}"):
        UNGUIDED[name]()


@each_family
def test_wrong_labels_are_refused(family: str) -> None:
    make, guided = FAMILIES[family]
    model = guided(make(), 2.0)
    with pytest.raises(ValueError, match=r"lie in 0 … 2, got 1 … 3"):
        model(X, T, LABEL + 1)
    with pytest.raises(ValueError, match=r"labels must have shape \(6,\), got \(5,\)"):
        model(X, T, LABEL[:5])
    with pytest.raises(ValueError, match="do without a condition, got one that needs"):
        guided(make(), 2.0, make(ClassLabels(3, 4)))  # no plain model
    with pytest.raises(ValueError, match="strength must be a finite number, got nan"):
        guided(make(), float("nan"))


def test_the_plain_denoiser_has_the_same_schedule_and_shape() -> None:
    for other, wrong in (
        (mlp_denoiser(VEExponential()), "the schedule of the other, .*, got VEExp"),
        (mlp_denoiser(type(SCHEDULE)(last=0.9)), "with the same settings"),
        (mlp_denoiser(SCHEDULE, shape=(3,)), r"shape \(2,\) like the other"),
    ):
        with pytest.raises(ValueError, match=wrong):
            GuidedDenoiser(denoiser(), 2.0, other)
    equal = mlp_denoiser(type(SCHEDULE)())  # another object with the same settings
    assert GuidedDenoiser(denoiser(), 2.0, equal).plain is equal


# --- guidance at some times alone -----------------------------------------------------


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(2,), (3, 2)])
def test_guidance_in_an_interval_is_guided_there_and_conditional_elsewhere(
    strength: float, shape: tuple[int, ...]
) -> None:
    known, n = ClassLabels(3, 4, drop=0.2), 40
    backbone = MLPBackbone(shape, TimeFeatures().out_dim, 4, width=8, frequencies=2)
    model = shaken(VelocityNet(backbone, known))
    y = torch.randn(n, *shape, generator=seeded(1), dtype=torch.float64)
    t, label = torch.linspace(0, 1, n), torch.arange(n) % 3
    guided = GuidedVelocity(model, strength)
    late = GuidedVelocity(model, strength, between=(0.25, 0.7))
    inside = (t >= 0.25) & (t <= 0.7)
    assert 0 < inside.sum() < n
    found = late(y, t, label)
    assert torch.equal(found[inside], guided(y, t, label)[inside])
    assert torch.equal(found[~inside], model(y, t, label)[~inside])
    # one time for all, as a solver asks
    for part, same in ((inside, guided), (~inside, model)):
        time = t[part][:1].expand(n)
        assert torch.equal(late(y, time, label), same(y, time, label))
    assert torch.equal(late(y, t), model(y, t))  # without a condition
    whole = GuidedVelocity(model, strength, between=(0.0, 1.0))
    assert torch.equal(whole(y, t, label), guided(y, t, label))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [5, 10, 20, 30])
def test_an_interval_has_its_ends(dtype: torch.dtype, steps: int) -> None:
    """Also where k/steps is not quite the number that was asked for."""
    model = velocity().to(dtype)
    for first, last in ((1, 3), (0, 2), (steps - 2, steps), (2, 2)):
        late = GuidedVelocity(model, 3.0, between=(first / steps, last / steps))
        for k in range(steps + 1):
            t = torch.full((6,), k * (1 / steps), dtype=dtype).clamp(max=1)
            same = torch.equal(
                late(X.to(dtype), t, LABEL), model(X.to(dtype), t, LABEL)
            )
            assert same is not (first <= k <= last)


def test_what_is_not_in_the_interval_asks_once() -> None:
    model, plain = velocity(), velocity(Unconditional())
    late = GuidedVelocity(model, 3.0, plain, between=(0.5, 1.0))

    def refuse(*_: object) -> None:
        raise AssertionError("asked")

    plain.register_forward_pre_hook(refuse)
    assert torch.equal(late(X, T / 3, LABEL), model(X, T / 3, LABEL))
    with pytest.raises(AssertionError, match="asked"):
        late(X, T, LABEL)


@pytest.mark.parametrize(
    ("between", "error"),
    [
        ((0.6, 0.5), ValueError),
        ((-0.1, 0.5), ValueError),
        ((0.5, 1.1), ValueError),
        ((float("nan"), 0.5), ValueError),
        ((0.0, float("nan")), ValueError),
        ((0.5,), ValueError),
        ((0.1, 0.2, 0.3), ValueError),
        ((), ValueError),
        (0.5, TypeError),
        (None, TypeError),
        ("01", TypeError),
        ({0.0, 1.0}, TypeError),
        (("0", "1"), TypeError),
        ((False, True), TypeError),
    ],
)
def test_other_intervals_are_refused(between: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"between must (hold two times|be a number)"):
        GuidedVelocity(velocity(), 2.0, between=between)


# --- with the truths, guidance follows log p(x) + w·log p(c | x) ----------------------

DATA: dict[str, PlaneData] = {
    "square": Square("by class"),
    "rings": RINGS,
    "mixture": GaussianMixture(
        [[0, 1], [1, -1], [-1, 0]], 0.3, [1, 2, 3], [0, 1, 0], standardized=True
    ),
}
# how exact a truth is: the first two read splines between the nodes of a grid
EXACT = {"square": 2e-3, "rings": 2e-3, "mixture": 1e-7}
SCHEDULES = {
    "VP": (VPCosine(), 0.35),
    "VE": (VEExponential(), 0.8),
    "chain": (DDPMSchedule(linear_betas(40, 1e-3, 0.3)), 12.0),
}


@cache
def near(name: str) -> tuple[Tensor, Tensor]:
    """Points and classes of the data."""
    x, label = DATA[name].sample_labelled(20, seeded(3))
    return x.double(), label


def slope(f: Callable[[Tensor], Tensor], x: Tensor, h: float = 1e-4) -> Tensor:
    """∇f (B, 2) of f: (B, 2) → (B,), by differences."""
    steps = h * torch.eye(2, dtype=x.dtype)
    return torch.stack([(f(x + e) - f(x - e)) / (2 * h) for e in steps], dim=1)


def tilted(
    name: str, x: Tensor, label: Tensor, level: tuple[float, float], strength: float
) -> Tensor:
    """log p_t(x) + w·log p_t(c | x), but for a constant."""
    alpha, sigma = level
    posterior = DATA[name].posterior
    plain = posterior(x / alpha, sigma / alpha).log_density
    given = posterior(x / alpha, sigma / alpha, label).log_density
    return plain + strength * (given - plain)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_the_guided_denoiser_is_the_score_of_the_tilted_law(
    name: str, schedule: str, strength: float
) -> None:
    law, t = SCHEDULES[schedule]
    x, label = near(name)
    given = OptimalDenoiser(DATA[name], law, given_label=True)
    guided = GuidedDenoiser(given, strength, OptimalDenoiser(DATA[name], law))
    alpha, sigma = map(float, law.at(t))
    score = -guided.predict(x, t, label).eps / sigma
    expected = slope(lambda y: tilted(name, y, label, (alpha, sigma), strength), x)
    assert float((score - expected).abs().max()) < EXACT[name] * (1 + 2 * strength)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_the_guided_velocity_is_the_score_of_the_tilted_law(
    name: str, strength: float
) -> None:
    """E[y₀ | y_t] = y − t·v, and the score is −E[y₀ | y_t]/(1 − t)."""
    t, (y, label) = 0.6, near(name)
    given = OptimalVelocity(DATA[name], given_label=True)
    guided = GuidedVelocity(given, strength, OptimalVelocity(DATA[name]))
    v = guided(y, y.new_full((len(y),), t), label)
    expected = slope(lambda x: tilted(name, x, label, (t, 1 - t), strength), y)
    error = (-(y - t * v) / (1 - t) - expected).abs().max()
    assert float(error) < EXACT[name] * (1 + 2 * strength)


# --- conditions: what training drops --------------------------------------------------

GIVEN: dict[str, tuple[Callable[[float], Conditioning], Callable[[int], Tensor]]] = {
    "classes": (
        lambda drop: ClassLabels(3, 4, drop),
        lambda n: torch.arange(n) % 3,
    ),
    "vectors": (
        lambda drop: Vectors(6, 4, drop),
        lambda n: torch.randn(n, 6, generator=seeded(4)),
    ),
    "tokens": (
        lambda drop: Tokens(6, 4, drop),
        lambda n: torch.randn(n, 5, 6, generator=seeded(4)),
    ),
    "words": (
        lambda drop: Words(7, 4, drop),
        lambda n: 1 + torch.randint(6, (n, 5), generator=seeded(4)),
    ),
}


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("drop", [0.0, 0.1, 0.7])
def test_training_drops_a_share_of_the_conditions_and_use_none(
    name: str, drop: float
) -> None:
    (make, conditions), n = GIVEN[name], 20_000
    known, given = make(drop), conditions(n)
    if isinstance(known.nothing, nn.Parameter):
        nn.init.constant_(known.nothing, 7.0)
    whole = known.eval()(given, n)
    assert not (whole == 7.0).any()
    torch.manual_seed(0)
    drawn = known.train()(given, n)
    gone = (drawn == 7.0).flatten(1).all(1)
    error = (drop * (1 - drop) / n) ** 0.5
    assert float(gone.double().mean()) == pytest.approx(drop, abs=4 * error)
    assert torch.equal(drawn[~gone], whole[~gone])


@pytest.mark.parametrize("name", GIVEN)
def test_no_condition_is_what_was_dropped(name: str) -> None:
    make, conditions = GIVEN[name]
    known = make(0.5)
    known.check(None, 9)
    nothing = known(None, 9)
    assert nothing.shape == ((9, 1, 4) if name == "tokens" else (9, 4))
    drawn = known(conditions(200), 200)
    assert (drawn == nothing[:1]).flatten(1).all(1).any()
    drawn.sum().backward()
    gradient = dict(known.named_parameters())["nothing"].grad
    assert gradient is not None
    assert (gradient > 0).all()


# --- words of a text ------------------------------------------------------------------

TEXT = torch.tensor([[3, 1, 2, 0], [5, 0, 0, 0], [0, 0, 0, 0], [6, 6, 1, 4]])


def words(drop: float = 0.2) -> Words:
    return shaken(Words(7, 4, drop))


def test_an_encoded_text_is_that_of_its_words() -> None:
    known = words()
    found = known(TEXT, 4)
    for row, text in zip(found, TEXT, strict=True):
        vectors = [known.table.weight[place] for place in text.tolist() if place]
        expected = known.nothing
        if vectors:
            expected = known.mix(torch.stack(vectors).sum(0) / len(vectors) ** 0.5)
        assert expected is not None
        assert torch.allclose(row, expected, atol=1e-12)


def test_the_order_of_words_and_more_room_make_no_difference() -> None:
    known, found = words(), words()(TEXT, 4)
    for seed in range(5):
        order = torch.randperm(4, generator=seeded(seed))
        assert torch.allclose(known(TEXT[:, order], 4), found, atol=1e-12)
    wide = torch.cat([TEXT, torch.zeros(4, 9, dtype=torch.int64)], dim=1)
    assert torch.allclose(known(wide, 4), found, atol=1e-12)
    with torch.no_grad():
        known.table.weight[0] = 1e6  # of the place without a word
    assert torch.allclose(known(TEXT, 4), found, atol=1e-12)


def test_a_row_without_words_is_nothing() -> None:
    for model in (velocity(words()), denoiser(words())):
        empty = torch.zeros(6, 3, dtype=torch.int64)
        assert torch.equal(model(X, T, empty), model(X, T))
        text = empty.clone()
        text[3] = 2
        mixed = model(X, T, text)
        assert torch.allclose(mixed[:3], model(X, T)[:3], atol=1e-12)
        assert not torch.allclose(mixed[3], model(X, T)[3], atol=1e-2)


def test_gradients_reach_the_words_that_stand_there_alone() -> None:
    known = words()
    known(TEXT, 4).square().sum().backward()
    gradient = known.table.weight.grad
    assert gradient is not None
    reached = gradient.abs().sum(1) > 0
    assert reached.tolist() == [p in (1, 2, 3, 4, 5, 6) for p in range(7)]
    known.zero_grad()
    known(TEXT[1:2], 1).square().sum().backward()
    assert known.table.weight.grad is not None
    assert (known.table.weight.grad.abs().sum(1) > 0).nonzero().tolist() == [[5]]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (TEXT[:3], ValueError, r"shape \(4, L\) with L ≥ 1, .*, got \(3, 4\)"),
        (TEXT[:1], ValueError, r"shape \(4, L\) with L ≥ 1, .*, got \(1, 4\)"),
        (TEXT[0], ValueError, r"shape \(4, L\) with L ≥ 1, .*, got \(4,\)"),
        (TEXT[:, :0], ValueError, r"got \(4, 0\)"),
        (TEXT[None], ValueError, r"got \(1, 4, 4\)"),
        (TEXT + 1, ValueError, "places 0 … 6, got 1 … 7"),
        (TEXT - 1, ValueError, "places 0 … 6, got -1 … 5"),
        (TEXT.int(), TypeError, "torch.int64 tensor .*, got torch.int32"),
        (TEXT.double(), TypeError, "torch.int64 tensor .*, got torch.float64"),
        (TEXT.tolist(), TypeError, "torch.int64 tensor .*, got list"),
        ("a red seven", TypeError, "torch.int64 tensor .*, got str"),
        (TEXT.to("meta"), ValueError, "on cpu like the model, got meta"),
    ],
)
def test_malformed_texts_are_refused(
    text: Tensor, error: type[Exception], message: str
) -> None:
    for drop in (0.0, 0.2):
        with pytest.raises(error, match=message):
            words(drop).check(text, 4)


def test_a_model_that_needs_a_text_says_so() -> None:
    with pytest.raises(ValueError, match=r"needs a text: expected places .*, got None"):
        words(0.0).check(None, 4)
    with pytest.raises(ValueError, match="at least one word in each row, got a row"):
        words(0.0).check(TEXT, 4)
    words(0.0).check(TEXT[:2], 2)
    words().check(TEXT, 4)
    for rows, dim, message in ((1, 4, "words must be at least 2"), (3, 0, "dim must")):
        with pytest.raises(ValueError, match=message):
            Words(rows, dim)


# --- conditions: what is refused ------------------------------------------------------

Spoil = Callable[[Tensor], object]
BAD: dict[str, tuple[Spoil, type[Exception], str]] = {
    "width": (lambda c: c[..., :5], ValueError, r"6\), got .*5\)"),
    "batch": (lambda c: c[:2], ValueError, "a condition for each of 3 samples, got 2"),
    "NaN": (lambda c: c / 0 * 0, ValueError, "conditions must be finite, got 3 of 3"),
    "axes": (lambda c: c[:, None], ValueError, "conditions must have shape"),
    "no axis": (lambda c: c[0, ..., 0], ValueError, "conditions must have shape"),
    "integers": (lambda c: c.long(), TypeError, "floating dtype, got torch.int64"),
    "dtype": (lambda c: c.double(), TypeError, "dtype torch.float32 like the model"),
    "device": (lambda c: c.to("meta"), ValueError, "on cpu like the model, got meta"),
    "a list": (lambda c: c.tolist(), TypeError, "be a torch.Tensor of .*, got list"),
    "nothing": (lambda c: None, ValueError, "needs a condition: expected .*, got None"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    ("name", "form"), [("vectors", r"\(B, 6\)"), ("tokens", r"\(B, (L|5), 6\)")]
)
def test_malformed_conditions_are_refused(name: str, form: str, bad: str) -> None:
    make, conditions = GIVEN[name]
    spoil, error, message = BAD[bad]
    model = VelocityNet(nn.Identity(), make(0.0))
    with pytest.raises(error, match=message) as caught:
        model(torch.zeros(3, 2), torch.zeros(3), spoil(conditions(3)))
    if "shape" in str(caught.value) or "expected" in str(caught.value):
        caught.match(form)


def test_other_conditions_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, L, 6\) with L ≥ 1, got \(3, 0, 6\)"):
        Tokens(6, 4).check(torch.zeros(3, 0, 6), 3)
    with pytest.raises(ValueError, match="3 classes: expected labels, got None"):
        ClassLabels(3, 4).check(None, 2)
    with pytest.raises(ValueError, match="expected no labels"):
        Unconditional().check(torch.zeros(2).long(), 2)
    for drop in (-0.1, 1.0, float("nan")):
        for make, _ in GIVEN.values():
            with pytest.raises(ValueError, match=r"drop must lie in \[0, 1\)"):
                make(drop)
    with pytest.raises(ValueError, match="needs an embedding to drop, got dim=0"):
        ClassLabels(3, drop=0.1)
    with pytest.raises(ValueError, match=r"not tokens, got \(2, 5, 4\)"):
        velocity(Tokens(6, 4)).float()(torch.zeros(2, 2), T[:2], torch.zeros(2, 5, 6))
    with pytest.raises(ValueError, match="classes must be at least 1, got 0"):
        ClassLabels(0, 4)
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        Vectors(6, 0)
    with pytest.raises(TypeError, match="abstract"):
        Conditioning()  # type: ignore[abstract]
