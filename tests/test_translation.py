"""Translation between two domains: losses, pools, turns, measures, bad input."""

from __future__ import annotations

from functools import partial
from itertools import permutations
from math import log
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

from course_utils.data.colours import (
    COLOURS,
    ColouredImages,
    TwoDomains,
    colour_of,
    grey_of,
    tint,
)
from course_utils.data.images import Images
from course_utils.models.judge import REFUSED
from course_utils.models.translation import (
    ColourDiscriminator,
    CycleGAN,
    Discriminator,
    Game,
    Generator,
    ImagePool,
    adversarial,
    colour_confusion,
    distance,
    held_out_losses,
    identity_loss,
    labelled_batches,
    rule_of,
    shuffled_tints,
    split,
    train_translation,
    translate,
    translation_turns,
    translations,
    whole_image_generator,
)
from course_utils.studies.translation import (
    RULE_A,
    RULES_B,
    STUDY,
    first_of_each,
    measured,
    two_domains,
    uneven,
)
from course_utils.training import train

B = 6


def strokes(count: int = 40, side: int = 8, classes: int = 10) -> Images:
    """Grey images of a bright square each, their classes in turn."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(count, 1, side, side)
    x[:, :, 2:6, 2:6] = 0.5 + torch.rand(count, 1, 4, 4, generator=generator) / 2
    return Images(x, torch.arange(count) % classes, classes)


def some_domains(count: int = 80) -> TwoDomains:
    grey = strokes(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    mixed = Images(grey.image[order], grey.label[order], 10)
    return two_domains(mixed, "mirrored", "strokes")


def small_model(**settings: Any) -> CycleGAN:
    torch.manual_seed(0)
    return CycleGAN((3, 8, 8), **settings)


def batch_of(model: CycleGAN) -> tuple[Tensor, Tensor]:
    a, b = next(some_domains().batches(B, torch.Generator().manual_seed(0)))
    return a, b


def repaint(rule_from: Any, rule_to: Any) -> Any:
    """A translator that knows the rules: of each image, the class's other colour."""

    def translator(x: Tensor) -> Tensor:
        place = torch.cdist(colour_of(x), COLOURS).argmin(1)
        owner = torch.empty(10, dtype=torch.int64)
        owner[torch.tensor(rule_from)] = torch.arange(10)
        return tint(grey_of(x), COLOURS[torch.tensor(rule_to)[owner[place]]])

    return translator


# --- networks -------------------------------------------------------------------------


def test_networks_are_those_of_the_exercise() -> None:
    convolutions = [m for m in Generator().modules() if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size[0]) for m in convolutions] == [
        (32, 3),
        (40, 3),
        (3, 1),
    ]
    body = Discriminator().body
    assert [m.out_channels for m in body if isinstance(m, nn.Conv2d)] == [32, 64]
    (linear,) = (m for m in body if isinstance(m, nn.Linear))
    assert linear.in_features == 64 * 7 * 7
    small: Any = CycleGAN().in_a  # of images of half the size
    assert small.body[7].in_features == 64 * 3 * 3


def test_a_generator_is_local() -> None:
    x = torch.rand(1, 3, 12, 12, requires_grad=True)
    Generator()(x)[0, :, 6, 6].sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(0).nonzero()
    assert reached.min() >= 4
    assert reached.max() <= 8


def test_a_generator_takes_any_size() -> None:
    network = Generator()
    for size in ((8, 8), (14, 20)):
        out = network(torch.rand(2, 3, *size))
        assert out.shape == (2, 3, *size)
        assert (out > 0).all()
        assert (out < 1).all()


def test_a_whole_image_generator_sees_all() -> None:
    x = torch.rand(1, 3, 28, 28, requires_grad=True)
    whole_image_generator()(x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert x.grad[0, :, 20:, 20:].abs().sum() > 0


def test_a_colour_discriminator_is_blind_to_shape() -> None:
    network = ColourDiscriminator((3, 8, 8))
    grey = strokes(4).image
    colours = COLOURS[:4]
    turned = tint(grey.roll(2, dims=2).flip(3), colours)
    assert torch.allclose(network(tint(grey, colours)), network(turned), atol=1e-5)
    other = network(tint(grey, COLOURS[4:8]))
    assert not torch.allclose(network(turned), other, atol=1e-3)


def test_labels_reach_the_logit() -> None:
    network = Discriminator((3, 8, 8), classes=10)
    x = torch.rand(3, 3, 8, 8)
    one, two = (network(x, torch.tensor(row)) for row in ([0, 1, 2], [0, 1, 3]))
    assert torch.equal(one[:2], two[:2])
    assert one[2] != two[2]
    with pytest.raises(ValueError, match="takes 10 labels, got none"):
        network(x)
    with pytest.raises(ValueError, match="takes no labels, got some"):
        Discriminator((3, 8, 8))(x, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"labels must lie in 0 … 9, got 0 … 10"):
        network(x, torch.tensor([0, 1, 10]))


# --- losses ---------------------------------------------------------------------------


@pytest.mark.parametrize("real", [True, False])
def test_adversarial_losses(real: bool) -> None:
    logit = torch.linspace(-6, 6, 25, dtype=torch.float64)
    d, y = logit.sigmoid(), torch.full_like(logit, float(real))
    entropy = binary_cross_entropy(d, y, reduction="none")
    assert torch.allclose(adversarial(logit, real, "entropy"), entropy)
    assert torch.allclose(adversarial(logit, real, "squares"), (d - y) ** 2)


@pytest.mark.parametrize(("kind", "level"), [("squares", 0.5), ("entropy", log(4))])
def test_the_level_where_nothing_can_be_told_apart(kind: Any, level: float) -> None:
    """Over all D(x) in (0, 1), ½ is best and gives that loss."""
    logit = torch.linspace(-4, 4, 401, dtype=torch.float64)
    loss = adversarial(logit, True, kind) + adversarial(logit, False, kind)
    assert float(loss.min()) == pytest.approx(level)
    assert float(logit[loss.argmin()]) == pytest.approx(0, abs=1e-9)


def test_distances() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(2, 4, 3, 5, 5).double()
    plain = (x - y).abs().mean((1, 2, 3))
    assert torch.allclose(distance(x, y, None), plain)
    weight = x.amax(1, keepdim=True) + 0.05
    expected = (weight * (x - y).abs()).sum((1, 2, 3)) / (3 * weight.sum((1, 2, 3)))
    assert torch.allclose(distance(x, y), expected)
    assert torch.allclose(distance(x, y, 1e9), plain)  # all weights alike
    assert (distance(x, x) == 0).all()


def test_black_is_cheap_only_in_the_plain_distance() -> None:
    x = tint(strokes(10, 28).image, COLOURS)
    black = torch.zeros_like(x)
    plain = distance(x, black, None)
    assert (plain < 0.03).all()
    assert (distance(x, black) > 4 * plain).all()


def test_tints_are_shuffled_and_shapes_kept() -> None:
    a, _ = batch_of(small_model())
    mixed = shuffled_tints(a, torch.Generator().manual_seed(3))
    assert torch.allclose(grey_of(mixed), grey_of(a), atol=1e-6)
    before, after = colour_of(a), colour_of(mixed)
    order = torch.cdist(after, before).argmin(1)
    assert torch.allclose(after, before[order], atol=1e-5)
    assert sorted(map(tuple, after.mul(100).round().tolist())) == sorted(
        map(tuple, before.mul(100).round().tolist())
    )
    assert not torch.equal(mixed, a)


def by_hand(model: CycleGAN, a: Tensor, b: Tensor, game: Game) -> Tensor:
    """The generators' loss, from its formula."""
    g, f = model.to_b, model.to_a
    d_b, d_a = model.in_b(g(a)).sigmoid(), model.in_a(f(b)).sigmoid()

    def d(x: Tensor, y: Tensor) -> Tensor:
        weight = x.amax(1, keepdim=True) + 0.05
        return (weight * (x - y).abs()).sum((1, 2, 3)) / (3 * weight.sum((1, 2, 3)))

    loss = (d_b - 1) ** 2 + (d_a - 1) ** 2
    loss = loss + game.cycle * (d(a, f(g(a))) + d(b, g(f(b))))
    return loss + game.identity * (d(b, g(b)) + d(a, f(a)))


@pytest.mark.parametrize("identity", [0.0, 0.7])
@pytest.mark.parametrize("shrink", [1, 2])
def test_the_generators_loss(identity: float, shrink: int) -> None:
    model, game = small_model(shrink=shrink), Game(cycle=0.3, identity=identity)
    a, b = batch_of(model)
    found = game.generators(model, (a, b))
    assert found.shape == (B,)
    expected = by_hand(model, model.shrunk(a), model.shrunk(b), game)
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_discriminators_loss() -> None:
    model, game = small_model(), Game(pool=0)
    a, b = batch_of(model)
    with pytest.raises(ValueError, match="the generators must have their turn first"):
        game.discriminators(model, (a, b))
    game.generators(model, (a, b))
    found = game.discriminators(model, (a, b))
    (x,), (y,) = split(model, (a, b))
    expected = torch.zeros(B)
    for network, real, made in (
        (model.in_a, x, model.to_a(y)),
        (model.in_b, y, model.to_b(x)),
    ):
        expected = expected + (network(real).sigmoid() - 1) ** 2
        expected = expected + network(made).sigmoid() ** 2
    assert torch.allclose(found, expected, atol=1e-6)


def test_pairs_add_their_distance() -> None:
    model = small_model(shrink=1)
    a, b = batch_of(model)
    pairs = (a[:2], tint(grey_of(a[:2]), COLOURS[:2]))
    plain, paired = Game(), Game(pairs=pairs)
    added = paired.generators(model, (a, b)) - plain.generators(model, (a, b))
    d = distance(pairs[1], model.to_b(pairs[0])) + distance(
        pairs[0], model.to_a(pairs[1])
    )
    assert torch.allclose(added, d.mean().expand(B), atol=1e-6)


def test_the_identity_loss_is_zero_for_identities() -> None:
    model = small_model(make_generator=Same)
    assert (identity_loss(model, batch_of(model)) < 1e-6).all()


class Same(nn.Module):
    """A generator that changes nothing."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.one * x


# --- the pool -------------------------------------------------------------------------


def numbered(first: int, count: int) -> Tensor:
    """Images (count, 1, 1, 1) whose pixel says which they are."""
    return torch.arange(first, first + count, dtype=torch.float32).view(-1, 1, 1, 1)


def test_a_pool_fills_first() -> None:
    pool = ImagePool(10)
    for first in (0, 5):
        assert torch.equal(pool(numbered(first, 5)), numbered(first, 5))
    assert len(pool.kept) == 10


def test_a_full_pool_gives_old_images_half_the_time() -> None:
    pool = ImagePool(50, torch.Generator().manual_seed(0))
    pool(numbered(0, 50))
    older, seen, inside = 0, [], set(range(50))
    for first in range(50, 4050, 20):
        given = pool(numbered(first, 20)).flatten().int().tolist()
        for new, out in enumerate(given, first):
            assert out == new or out in inside
            if out != new:
                older += 1
                inside = (inside - {out}) | {new}
                seen.append(new - out)
    assert abs(older / 4000 - 0.5) < 0.03
    assert len(pool.kept) == len(inside) == 50
    assert {int(row[0]) for row in pool.kept} == inside
    assert len(set(seen)) > 50  # some wait long


def test_only_images_that_filled_a_pool_come_twice() -> None:
    pool = ImagePool(5)
    out = [int(i) for first in range(0, 300, 10) for i in pool(numbered(first, 10))]
    twice = [i for i in set(out) if out.count(i) > 1]
    assert max(twice) < 5
    assert max(map(out.count, twice)) == 2


def test_a_pool_without_room_gives_back_what_comes() -> None:
    pool = ImagePool(0)
    for first in (0, 8, 16):
        assert torch.equal(pool(numbered(first, 8)), numbered(first, 8))
    assert not pool.kept


def test_a_pool_keeps_labels_with_their_images_and_no_gradients() -> None:
    pool = ImagePool(4)
    for first in range(0, 60, 6):
        x = numbered(first, 6).requires_grad_()
        out, label = pool(x, torch.arange(first, first + 6))
        assert torch.equal(out.flatten().long(), label)
        assert not out.requires_grad


# --- turns ----------------------------------------------------------------------------


def weights(model: CycleGAN) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def moved(before: dict[str, Tensor], model: CycleGAN) -> set[str]:
    """The networks of which a weight has changed."""
    return {
        name.split(".")[0]
        for name, p in model.named_parameters()
        if not torch.equal(p, before[name])
    }


def test_gradients_go_to_the_networks_of_the_turn_alone() -> None:
    model = small_model()
    turns = translation_turns(model, Game())
    batches = some_domains().batches(B)
    for turn, own in zip(turns, ({"to_a", "to_b"}, {"in_a", "in_b"}), strict=True):
        for other in turns:  # plays too, but at a rate that moves nothing
            for optimizer in other.optimizers:
                optimizer.param_groups[0]["lr"] = 1e-3 if other is turn else 0.0
        before = weights(model)
        train(model, turns, batches, 1, warmup=1)
        assert moved(before, model) == own


def test_the_warm_up_moves_generators_alone() -> None:
    model = small_model()
    before = weights(model)
    data = some_domains()
    history = train_translation(model, data, data, warm_up=2, steps=1, batch=B, lr=1e-9)
    assert len(history.losses["warm-up"]) == 2
    assert {"to_a", "to_b"} <= moved(before, model)
    assert all(p.requires_grad for p in model.parameters())
    after = weights(model)
    for name in ("in_a", "in_b"):  # one step of Adam, not three
        one = next(key for key in after if key.startswith(name))
        assert float((after[one] - before[one]).abs().max()) < 2.1e-3


def test_a_training_is_reproducible_and_measured() -> None:
    data = some_domains()
    found = []
    for _ in range(2):
        model = small_model()
        torch.manual_seed(5)
        history = train_translation(
            model, data, data, steps=4, warm_up=2, batch=B, steps_per_epoch=2, keep=[1]
        )
        found.append((history.losses, history.measured, weights(model)))
    assert found[0][:2] == found[1][:2]
    assert all(torch.equal(found[0][2][k], v) for k, v in found[1][2].items())
    losses, curves, _ = found[0]
    assert {k: len(v) for k, v in losses.items()} == {
        "warm-up": 2,
        "generators": 4,
        "discriminators": 4,
    }
    assert history.step == [0, 2, 4]
    assert list(history.snapshots) == [1]
    assert {"cycle", "identity", "D_A", "D_B", "right A to B"} <= set(curves)


def test_labelled_training() -> None:
    data = some_domains()
    model = small_model(make_discriminator=partial(Discriminator, classes=10))
    history = train_translation(
        model, data, data, steps=2, warm_up=1, batch=B, labelled=True
    )
    assert len(history.losses["discriminators"]) == 2
    (a, label_a), (b, label_b) = next(labelled_batches(data, B))
    for x, label, rule in ((a, label_a, RULE_A), (b, label_b, RULES_B["mirrored"])):
        colour = torch.cdist(colour_of(x), COLOURS).argmin(1)
        assert torch.equal(colour, torch.tensor(rule)[label])


# --- measures -------------------------------------------------------------------------

CYCLE = tuple((k + 3) % 10 for k in range(10))  # a permutation without fixed point


def planted(there: Any, back: Any) -> Any:
    domains = some_domains()
    rule_b = RULES_B["mirrored"]
    return translate(there, back, domains.a, rule_b), domains.a


def test_the_true_translator_is_right_everywhere() -> None:
    rule_b = RULES_B["mirrored"]
    found, _ = planted(repaint(RULE_A, rule_b), repaint(rule_b, RULE_A))
    assert found.right.all()
    assert float(found.shape_error.max()) < 1e-6
    assert float(found.cycle_error.max()) < 1e-6


@pytest.mark.parametrize("swapped", [(2, 7), (0, 4)])
def test_two_classes_swapped_cost_just_their_images(swapped: tuple[int, int]) -> None:
    rule_b = list(RULES_B["mirrored"])
    i, j = swapped
    wrong = list(rule_b)
    wrong[i], wrong[j] = rule_b[j], rule_b[i]
    found, images = planted(repaint(RULE_A, wrong), repaint(wrong, RULE_A))
    of_them = (images.label == i) | (images.label == j)
    assert torch.equal(found.right, ~of_them)
    assert float(found.cycle_error.max()) < 1e-6  # the cycle does not see it
    table = colour_confusion(found.colour, images.label)
    assert table[i, rule_b[j]] == (images.label == i).sum()
    assert table[i, rule_b[i]] == 0
    assert table.sum() == len(images)


def test_a_permutation_without_fixed_point_is_never_right() -> None:
    rule_b = RULES_B["mirrored"]
    wrong = [rule_b[k] for k in CYCLE]
    found, _ = planted(repaint(RULE_A, wrong), repaint(wrong, RULE_A))
    assert not found.right.any()
    assert float(found.shape_error.max()) < 1e-6
    assert float(found.cycle_error.max()) < 1e-6


def test_the_identity_and_all_black() -> None:
    same, _ = planted(lambda x: x, lambda x: x)
    assert not same.right.any()  # no class has one colour in both domains
    assert float(same.shape_error.max()) == float(same.cycle_error.max()) == 0
    black, images = planted(torch.zeros_like, torch.zeros_like)
    assert not black.right.any()
    grey = grey_of(images.image)
    assert torch.allclose(black.shape_error, grey.mean((1, 2, 3)))
    assert torch.allclose(black.cycle_error, images.image.mean((1, 2, 3)))
    table = colour_confusion(black.colour, images.label)
    assert table[:, :-1].sum() == 0
    assert table[:, -1].sum() == len(images)


class Planted(nn.Module):
    """Two translators in the place of networks."""

    def __init__(self, to_b: Any, to_a: Any) -> None:
        super().__init__()
        self.to_b, self.to_a = to_b, to_a


class KnowsAll:
    """A judge that is told the digits in turn."""

    def __init__(self, *answers: Tensor) -> None:
        self.answers = list(answers)

    def digit(self, grey: Tensor) -> Tensor:
        return self.answers.pop(0)


def test_what_a_study_measures() -> None:
    domains, rule_b = some_domains(), RULES_B["mirrored"]
    wrong = list(rule_b)
    wrong[2], wrong[7] = rule_b[7], rule_b[2]
    model: Any = Planted(repaint(RULE_A, wrong), repaint(rule_b, RULE_A))
    seen_a = domains.a.label.clone()
    seen_a[seen_a == 3] = REFUSED
    judge: Any = KnowsAll(seen_a, domains.b.label)
    told = measured(model, domains, judge)
    label, count = domains.a.label, len(domains.a)
    swapped = int(((label == 2) | (label == 7)).sum())
    refused = int((label == 3).sum())
    assert told["right A to B"] == pytest.approx(1 - swapped / count)
    assert told["right B to A"] == told["0 to B"] + 1 == 1
    assert told["right, worse direction"] == told["right A to B"]
    assert (told["2 to B"], told["7 to B"], told["3 to B"]) == (7, 2, 3)
    assert told["wrong classes"] == 2
    assert told["refused"] == pytest.approx(refused / (2 * count))
    assert told["digit kept"] == pytest.approx(1 - refused / (2 * count))
    assert told["lawful"] == pytest.approx(1 - (swapped + refused) / (2 * count))


def test_measures_of_a_training_are_those_of_the_formulas() -> None:
    model, data = small_model(), some_domains()
    with torch.no_grad():
        told = held_out_losses(model, Game(), data)
        x, y = model.shrunk(data.a.image), model.shrunk(data.b.image)
        fooled = (model.in_b(model.to_b(x)).sigmoid() - 1) ** 2
        caught = model.in_b(model.to_b(x)).sigmoid() ** 2
        known = (model.in_b(y).sigmoid() - 1) ** 2
    assert torch.allclose(told["G fools D_B"], fooled, atol=1e-6)
    assert torch.allclose(told["D_B"], caught + known, atol=1e-6)
    both = translations(model, data)
    assert torch.equal(told["right B to A"], both["B to A"].right.float())


# --- domains --------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES_B)
def test_the_rules_are_bijections_without_a_fixed_colour(name: str) -> None:
    rule = RULES_B[name]
    assert sorted(rule) == sorted(RULE_A) == list(range(10))
    assert all(a != b for a, b in zip(RULE_A, rule, strict=True))
    domains = two_domains(strokes(80), name, "strokes")
    assert rule_of(domains.b).tolist()[::2] == [-1] * 5  # every second image
    every = some_domains()
    assert rule_of(every.a).tolist() == list(RULE_A)
    assert rule_of(every.b).tolist() == list(RULES_B["mirrored"])


def test_uneven_classes() -> None:
    few = uneven(strokes(1000))
    assert few.label.bincount().tolist() == list(range(10, 101, 10))
    assert few.image.shape[1:] == (1, 8, 8)


def test_pairs_are_one_image_a_class_in_both_colours() -> None:
    rule = RULES_B["mirrored"]
    a, b = first_of_each(some_domains(), rule)
    assert len(a) == len(b) == 10
    assert torch.allclose(grey_of(a), grey_of(b), atol=1e-6)
    assert torch.allclose(colour_of(a), COLOURS[list(RULE_A)], atol=1e-5)
    assert torch.allclose(colour_of(b), COLOURS[list(rule)], atol=1e-5)


@pytest.mark.parametrize("classes", [3, 4])
def test_any_matching_of_equally_frequent_classes_is_an_exact_zero(
    classes: int,
) -> None:
    """The images come out as those of B exactly, and the way back is exact."""
    each = 3
    a = torch.arange(classes * each)  # images of A by number, class i // each
    b = torch.arange(classes * each) + 100
    for sigma in permutations(range(classes)):
        image = {
            int(a[c * each + k]): int(b[sigma[c] * each + k])
            for c in range(classes)
            for k in range(each)
        }
        assert sorted(image.values()) == b.tolist()  # the law of B, exactly
        assert {v: k for k, v in image.items()}.keys() == set(b.tolist())


def test_every_row_of_the_study_can_run() -> None:
    names = {"rule", "even", "generator", "discriminator", "shrink", "paired"}
    for row, settings in STUDY.rows.items():
        rest = {k: v for k, v in settings.items() if k not in names}
        rest.pop("labelled", None)
        for name in ("warm_up", "steps", "lr"):
            rest.pop(name, None)
        Game(**rest)  # refuses what it does not know
        assert row


# --- bad input ------------------------------------------------------------------------


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="shrink must divide the sides"):
        CycleGAN((3, 28, 28), shrink=3)
    with pytest.raises(ValueError, match="sides of at least 4 pixels"):
        CycleGAN((3, 4, 4), shrink=2)
    with pytest.raises(ValueError, match="kind must be one of 'squares', 'entropy'"):
        Game(kind="hinge")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cycle must be a finite number of at least 0"):
        Game(cycle=-1)
    with pytest.raises(ValueError, match="identity must be a finite number"):
        Game(identity=float("inf"))
    with pytest.raises(ValueError, match="size must be at least 0, got -1"):
        Game(pool=-1)
    with pytest.raises(ValueError, match="lr must be a finite number above 0"):
        translation_turns(small_model(), Game(), lr=0)
    data = some_domains()
    with pytest.raises(ValueError, match="size must be at most 40 images, got 41"):
        next(labelled_batches(data, 41))
    with pytest.raises(ValueError, match="warm_up must be at least 0"):
        train_translation(small_model(), data, data, warm_up=-1)


def test_bad_images() -> None:
    model = small_model()
    a, b = batch_of(model)
    with pytest.raises(ValueError, match=r"images must have shape \(B, 3, 8, 8\)"):
        model.to_b(a[:, :1])
    with pytest.raises(TypeError, match=r"torch.float32 like the model, got .*float64"):
        model.to_b(a.double())
    with pytest.raises(ValueError, match="images must be finite"):
        model.to_b(a * float("nan"))
    with pytest.raises(ValueError, match=r"must have shape \(B, 3, 4, 4\)"):
        model.in_a(a)
    with pytest.raises(TypeError, match="images of A and images of B, got Tensor"):
        Game().generators(model, a)
    with pytest.raises(TypeError, match="a batch must be images of A and images of B"):
        Game().generators(model, (a, b, a))
    with pytest.raises(ValueError, match=r"images must have shape \(6, 3, 8, 8\)"):
        distance(a, b[:, :, :4])


def test_bad_measures() -> None:
    domains = some_domains()
    with pytest.raises(ValueError, match=r"labels must have shape \(10,\)"):
        translate(lambda x: x, lambda x: x, domains.a, [0, 1])
    with pytest.raises(ValueError, match="what the translator gives must have shape"):
        translate(lambda x: x[:, :, :4], lambda x: x, domains.a, RULE_A)
    with pytest.raises(ValueError, match="rule must be one of 'mirrored', 'scattered'"):
        two_domains(strokes(), "twice", "strokes")
    grey: Any = strokes()
    with pytest.raises(AttributeError):
        rule_of(grey)
    assert isinstance(domains.a, ColouredImages)
