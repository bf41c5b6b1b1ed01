"""The code without labels: its views, its losses, its clusters, its training."""

import itertools
from dataclasses import replace
from math import exp, log

import pytest
import torch
from scipy.stats import entropy
from torch import Tensor
from torch.distributions import Independent, MixtureSameFamily, Normal

from course_utils.data.colours import COLOURS, nearest_colour, tint
from course_utils.data.images import Images, ImageSplits
from course_utils.metrics import one_to_one_accuracy
from course_utils.models import clustering
from course_utils.models.clustering import (
    ContrastLoss,
    DigitCode,
    InformationLoss,
    LabelLoss,
    Views,
    k_means,
    nt_xent,
    recoloured,
    rewritten,
    shared_information,
    start_from_clusters,
    train_digit_code,
    train_labels,
)
from course_utils.notebook import seeded

STILL = Views(0.0, 0.0, 0.0, 0.0, 0.0)


def noise(count: int = 5, channels: int = 3, side: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, side, side, generator=seeded(seed))


def small(seed: int = 0, classes: int = 3, colour: bool = False) -> DigitCode:
    torch.manual_seed(seed)
    return DigitCode(classes, width=4, side=8, colour=colour)


def bars(each: int, seed: int) -> Images:
    """Three kinds of images in any colour: a bar across, one down, a frame."""
    label = torch.arange(3).repeat(each)
    grey = torch.zeros(len(label), 1, 28, 28)
    grey[label == 0, :, 11:17, 4:24] = 1
    grey[label == 1, :, 4:24, 11:17] = 1
    grey[label == 2, :, 4:24, 4:24] = 1
    grey[label == 2, :, 9:19, 9:19] = 0
    source = seeded(seed)
    grey *= 0.5 + 0.5 * torch.rand(len(label), 1, 1, 1, generator=source)
    colour = torch.randint(10, (len(label),), generator=source)
    return Images(tint(grey, COLOURS[colour]), label, 3)


def splits() -> ImageSplits:
    return ImageSplits(bars(60, 0), bars(5, 1), bars(20, 2), "bars", complete=False)


# --- views ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("channels", "side"), [(1, 16), (3, 28)])
def test_a_view_is_an_image_of_its_shape(
    channels: int, side: int, dtype: torch.dtype
) -> None:
    x = noise(50, channels, side).to(dtype)
    for views in (Views(), Views(recolour=True), Views(90, 0.9, 2, 9, 3)):
        seen = views(x, seeded(0))
        assert seen.shape == x.shape
        assert seen.dtype == dtype
        assert float(seen.min()) >= 0
        assert float(seen.max()) <= 1
        assert torch.equal(views(x, seeded(0)), seen)
        assert not torch.equal(views(x, seeded(1)), seen)


def test_nothing_changes_where_nothing_may() -> None:
    x = noise()
    assert torch.allclose(STILL(x), x, atol=1e-5)


def test_another_pen_is_a_power_between_two() -> None:
    x, pen = torch.full((2000, 1, 1, 1), 0.5), 0.9
    power = (rewritten(x, pen, seeded(0)).flatten().log() / log(0.5)).log()
    assert float(power.abs().max()) <= pen + 1e-5
    assert float(power.max()) > 0.99 * pen
    assert float(power.min()) < -0.99 * pen
    assert float(power.std()) == pytest.approx(pen / 3**0.5, rel=0.05)
    ends = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    assert torch.equal(rewritten(ends, pen), ends)  # black and white stay
    powers = rewritten(noise(1), pen, seeded(1)).log() / noise(1).log()
    assert torch.allclose(powers, powers.mean().expand_as(powers), rtol=1e-3)


def test_another_colour_keeps_the_grey_level() -> None:
    x = tint(noise(200, 1), COLOURS[torch.arange(200) % 10])
    found = recoloured(x, seeded(0))
    assert torch.allclose(found.amax(1), x.amax(1))
    assert len(nearest_colour(found[::10]).unique()) > 4  # of images that were red
    share = found / found.amax(1, keepdim=True).clamp(min=1e-9)
    assert torch.allclose(share, share[:, :, :1, :1].expand_as(share), atol=1e-5)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_a_change_is_a_number_of_at_least_0(bad: float) -> None:
    for name in ("turn", "scale", "shear", "shift", "pen"):
        with pytest.raises(ValueError, match=f"{name} must be a finite number of at"):
            replace(STILL, **{name: bad})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pen must be a number, got 'wide'"):
        Views(pen="wide")  # type: ignore[arg-type]


# --- losses ---------------------------------------------------------------------------


def test_contrast_by_its_formula_term_by_term() -> None:
    a, b = torch.randn(2, 6, 4, generator=seeded(0), dtype=torch.float64)
    rows = [row / row.norm() for row in (*a, *b)]
    partner = [*range(6, 12), *range(6)]

    def one(i: int) -> float:
        weight = [exp(float(rows[i] @ row) / 0.3) for row in rows]
        return -log(weight[partner[i]] / (sum(weight) - weight[i]))

    expected = [(one(i) + one(i + 6)) / 2 for i in range(6)]
    assert nt_xent(a, b, 0.3).tolist() == pytest.approx(expected)
    assert nt_xent(3 * a, b / 7, 0.3).tolist() == pytest.approx(expected)  # lengths
    assert nt_xent(b, a, 0.3).tolist() == pytest.approx(expected)  # both directions


def test_contrast_where_its_value_is_known() -> None:
    same = torch.ones(5, 3)
    assert nt_xent(same, same).tolist() == pytest.approx([log(9)] * 5)
    apart = torch.eye(4)  # a partner is at similarity 1, all others at 0
    expected = log(1 + 6 * exp(-1 / 0.5))
    assert nt_xent(apart, apart, 0.5).tolist() == pytest.approx([expected] * 4)


def test_information_is_that_of_the_joint_law() -> None:
    """Σ P·log(P/(P_c·P_d)) by entropies, with P summed image by image, view by view."""
    logits = torch.randn(2, 50, 4, generator=seeded(0), dtype=torch.float64)
    p, q = logits.softmax(-1)
    joint = torch.zeros(4, 4, dtype=torch.float64)
    for one, two in zip(p, q, strict=True):
        joint += (torch.outer(one, two) + torch.outer(two, one)) / 100
    law = joint.numpy()
    expected = entropy(law.sum(0)) + entropy(law.sum(1)) - entropy(law.ravel())
    found = shared_information(p, q)
    assert found.shape == (50,)
    assert float(found.mean()) == pytest.approx(expected)
    assert float(shared_information(q, p).mean()) == pytest.approx(expected)


def test_information_at_its_ends() -> None:
    sure = torch.eye(5)[torch.arange(50) % 5]
    assert float(shared_information(sure, sure).mean()) == pytest.approx(log(5))
    apart = torch.eye(5)[torch.arange(50) // 10]
    assert float(shared_information(sure, apart).mean()) == pytest.approx(0, abs=1e-6)
    one = torch.eye(5)[torch.zeros(50).long()]
    assert float(shared_information(one, one).mean()) == pytest.approx(0, abs=1e-6)


def test_information_has_its_gradient() -> None:
    """By finite differences: the mean over the batch is the whole of I."""
    torch.manual_seed(0)
    logits = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)

    def information(logits: Tensor) -> Tensor:
        return shared_information(*logits.softmax(-1)).mean()

    assert torch.autograd.gradcheck(information, (logits,))


def test_the_losses_are_of_two_views() -> None:
    code, x = small().eval(), noise(4, 1, 8)
    seen = STILL(x)
    batch = (x, torch.tensor([0, 1, 2, 0]), torch.arange(4))
    h, p = code.features(seen), code.logits(seen).softmax(1)
    found = ContrastLoss(STILL, 0.5)(code.body, batch)
    assert torch.allclose(found, nt_xent(h, h, 0.5), atol=1e-5)
    found = InformationLoss(STILL)(code, batch)
    assert torch.allclose(found, -shared_information(p, p), atol=1e-5)
    expected = -p[torch.arange(4), batch[1]].log()
    assert torch.allclose(LabelLoss(STILL)(code, batch), expected, atol=1e-5)
    known = InformationLoss(STILL, (x, batch[1]))(code, batch)
    assert torch.allclose(known, found + expected.mean(), atol=1e-5)


# --- k-means --------------------------------------------------------------------------


def clouds(each: int = 40) -> tuple[Tensor, Tensor]:
    centres = torch.tensor(list(itertools.product([0.0, 4.0], repeat=2)))  # (4, 2)
    x = centres.repeat(each, 1)
    return centres, x + 0.3 * torch.randn(x.shape, generator=seeded(0))


def test_k_means_finds_clouds() -> None:
    centres, x = clouds()
    found, distance = k_means(x, 4)
    assert found.dtype == x.dtype
    assert float(torch.cdist(centres, found).amin(1).max()) < 0.2
    near = torch.cdist(x, found).argmin(1)
    assert one_to_one_accuracy(near, torch.arange(4).repeat(40)) == 1
    away = (x - found[near]).square().sum(1).mean()
    assert distance == pytest.approx(float(away), rel=1e-5)
    mean = torch.stack([x[near == k].mean(0) for k in range(4)])
    assert torch.allclose(found, mean, atol=1e-4)  # a centre is the mean of its cloud


def test_more_starts_are_no_worse_and_seeds_repeat() -> None:
    x = torch.rand(300, 2, generator=seeded(0))
    one, many = k_means(x, 12, starts=1), k_means(x, 12, starts=8)
    assert many[1] <= one[1]
    assert torch.equal(k_means(x, 12, starts=8)[0], many[0])
    assert not torch.equal(k_means(x, 12, starts=1, seed=5)[0], one[0])


def test_a_code_starts_as_the_law_of_round_clouds() -> None:
    """softmax(W·h + b) is p(c|h) of a mixture of N(m_c, T·I), by torch's own."""
    code, seen = small().eval(), noise(60, 1, 8)
    start_from_clusters(code, seen, spread=0.2)
    h = code.features(seen).detach().double()
    centres = 0.2 * code.head.weight.detach().double()  # W = m/T
    parts = Independent(Normal(centres, 0.2**0.5), 1)
    mixture = MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(3).double()), parts
    )
    log_p = parts.log_prob(h[:, None]) - log(3) - mixture.log_prob(h)[:, None]
    found = code.logits(seen).log_softmax(1)
    assert torch.allclose(found.double(), log_p, atol=1e-4)
    near = torch.cdist(h, centres).argmin(1)
    assert torch.equal(found.argmax(1), near)


def test_bad_clusters() -> None:
    with pytest.raises(ValueError, match=r"N of at least 5 clusters, got \(4, 2\)"):
        k_means(torch.zeros(4, 2), 5)
    with pytest.raises(ValueError, match="rows must be finite"):
        k_means(torch.full((9, 2), float("nan")), 2)
    with pytest.raises(ValueError, match="starts must be at least 1, got 0"):
        k_means(torch.zeros(9, 2), 2, starts=0)
    with pytest.raises(ValueError, match="spread must be a finite number above 0"):
        start_from_clusters(small(), noise(9, 1, 8), spread=0.0)


# --- the network ----------------------------------------------------------------------


def test_what_is_seen_has_no_colour_and_no_brightness() -> None:
    code, grey = small().eval(), noise(10, 1, 28)
    seen = [
        code.seen(tint(level * grey, COLOURS[torch.full((10,), c)]))
        for c, level in ((0, 1.0), (3, 0.5), (9, 0.1))
    ]
    assert seen[0].shape == (10, 1, 8, 8)
    assert all(torch.allclose(part, seen[0], atol=1e-5) for part in seen)
    assert float(seen[0].max()) <= 1
    coloured = small(colour=True)
    assert coloured.seen(noise(10, 3, 28)).shape == (10, 3, 8, 8)
    assert coloured(noise(10, 3, 28)).shape == (10, 3)


def test_a_code_of_any_number_of_images() -> None:
    code, x = small().eval(), noise(7, 3, 28)
    assert code(x).shape == (7, 3)
    assert torch.allclose(code.features(code.seen(x)).norm(dim=1), torch.ones(7))
    assert torch.equal(code.code(x, chunk=3), code(x).argmax(1))
    black = torch.zeros(2, 3, 28, 28)
    assert code(black).isfinite().all()


def test_bad_input() -> None:
    code = small()
    with pytest.raises(ValueError, match=r"shape \(B, 3, 28, 28\), got \(2, 1, 28"):
        code(torch.zeros(2, 1, 28, 28))
    with pytest.raises(TypeError, match=r"dtype torch\.float32 like the model"):
        code(torch.zeros(2, 3, 28, 28).double())
    with pytest.raises(ValueError, match=r"multiple of 8, got \(3, 28, 28\) and 12"):
        DigitCode(side=12)
    with pytest.raises(ValueError, match=r"\(C, H, W\).* got \(28, 28\)"):
        DigitCode(shape=(28, 28))
    with pytest.raises(ValueError, match="temperature must be a finite number above"):
        nt_xent(torch.ones(2, 3), torch.ones(2, 3), 0.0)
    with pytest.raises(ValueError, match=r"views must have shape \(2, 3\), got \(1, 3"):
        nt_xent(torch.ones(2, 3), torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"must have shape \(2, 3\), got \(2, 4\)"):
        shared_information(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match="labels must lie in 0 … 2, got 0 … 3"):
        LabelLoss(STILL)(code, (noise(2, 1, 8), torch.tensor([0, 3])))
    with pytest.raises(ValueError, match="contrast must be at least 0, got -1"):
        train_digit_code(code, splits(), contrast=-1)


# --- training -------------------------------------------------------------------------


def test_three_kinds_are_found_without_labels() -> None:
    code, data = small(), splits()
    gentle = Views(10.0, 0.1, 0.1, 0.5, 0.5)
    history = train_digit_code(
        code, data, views=gentle, contrast=20, information=10, batch=30, lr=0.01
    )
    assert len(history.losses["contrast"]) == 20 * 6
    assert len(history.losses["information"]) == 10 * 6
    assert history.losses["contrast"][-1] < history.losses["contrast"][0]
    assert history.losses["information"][-1] < -0.8 * log(3)
    assert history.seconds > 0
    assert not code.training
    assert one_to_one_accuracy(code.code(data.test.image), data.test.label) > 0.95


def test_no_label_is_looked_at_unless_asked() -> None:
    data, found = splits(), []
    other = Images(data.train.image, data.train.label.flip(0), 3)
    swapped = ImageSplits(other, data.validation, data.test, "swapped", complete=False)
    for given, labels in ((data, 0), (swapped, 0), (data, 1), (swapped, 1)):
        code = small()
        train_digit_code(
            code, given, contrast=1, information=1, batch=60, labels=labels
        )
        found.append(code.head.weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[2], found[3])


def test_steps_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(
        clustering, "start_from_clusters", lambda *_: calls.append("k-means")
    )
    for contrast, information in ((0, 1), (1, 0)):
        history = train_digit_code(
            small(), splits(), contrast=contrast, information=information, batch=90
        )
        assert len(history.losses["contrast"]) == 2 * contrast
        assert len(history.losses["information"]) == 2 * information
    assert calls == ["k-means"]


def test_labels_alone() -> None:
    code, data = small(), splits()
    history = train_labels(
        code, data, views=STILL, labels=4, steps=60, batch=12, lr=0.02
    )
    assert len(history.loss) == 60
    right = code.code(data.test.image) == data.test.label
    assert float(right.double().mean()) > 0.9
