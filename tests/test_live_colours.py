"""The live panels of coloured images: in JavaScript as in torch, and in a browser."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Locator, Page
from test_live import WIDGET, javascript
from test_live_images import DECODER, NETWORK, draw, opened, rows, settle
from torch import Tensor, nn

from course_utils.data import Images
from course_utils.data.colours import COLOURS, NAMES, nearest_colour, tint
from course_utils.live import Dial, JointPanel, LatentMap, TranslationPanel
from course_utils.live.colours import palette
from course_utils.live.network import network_state
from course_utils.live.panel import LivePanel
from course_utils.models.classifier import Classifier
from course_utils.networks.images import conv_decoder

SHAPE = (3, 28, 28)
ONWARD = [3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
RULES = (list(range(10)), ONWARD)  # digit → colour, in A and B
JOINT = """
const { makeJoint } = await import(`${folder}/joint.js`);
const decoder = makeJoint(given.state);
answer = given.chosen.map(([digit, colour], i) =>
  [...decoder(digit, colour, given.style[i])]);
"""
TRANSLATION = """
const { makeTranslation } = await import(`${folder}/translation.js`);
const [toB, toA] = makeTranslation(given.state);
answer = given.x.map((x) => [[...toB(x)], [...toA(toB(x))]]);
"""
COLOURED = """
globalThis.document = { documentElement: { lang: given.lang } };
const { makeColours, nearestColour, tint } = await import(`${folder}/colours.js`);
const colours = makeColours(given.palette);
answer = {
  names: colours.map(({ name }) => name),
  paints: colours.map(({ paint }) => paint),
  tinted: colours.map((colour) => [...tint(given.grey, colour)]),
  nearest: given.x.map((x) => nearestColour(x, colours, given.palette.dark)),
};
"""
PIXELS = """(canvas) => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, 28, 28).data;
  return [0, 1, 2].map((channel) =>
    Array.from({ length: 784 }, (_, i) => pixels[4 * i + channel] / 255));
}"""


def coloured_decoder(latent: int) -> nn.Sequential:
    """A decoder whose images depend on all of the latent."""
    torch.manual_seed(latent)
    decoder = nn.Sequential(
        *conv_decoder(latent, 4, 32, SHAPE).children(), nn.Sigmoid()
    )
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.25)
    return decoder


def generator(seed: int) -> nn.Sequential:
    """A generator of the exercise's shape."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 40, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(40, 3, 1), nn.Sigmoid()),
    )


def rotation(steps: int) -> nn.Sequential:
    """A generator that takes the light of each channel to the one so far after it."""
    layer = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(3).roll(steps, 0)[:, :, None, None])
    return nn.Sequential(layer)


def bars() -> Images:
    """Ten grey images, one for each digit: a bar, each farther right than before."""
    image = torch.zeros(10, 1, 28, 28)
    for digit in range(10):
        image[digit, 0, 5:23, 5 + digit : 10 + digit] = 0.9
    return Images(image, torch.arange(10))


def seen(picture: Locator) -> Tensor:
    """What a canvas of 28 × 28 pixels shows, (3, 28, 28)."""
    return torch.tensor(picture.evaluate(PIXELS)).view(SHAPE)


# --- layers and colours ---


def test_a_sigmoid_gives_what_torch_gives() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2))
    x = 30 * torch.randn(20, 3)
    given = {"layers": network_state(network), "shape": [3], "x": rows(x)}
    found = torch.tensor(javascript(NETWORK, given))
    assert torch.allclose(found, network(x), atol=2e-3)


def coloured(lang: str, x: Tensor, grey: Tensor) -> dict[str, Any]:
    given = {
        "lang": lang,
        "palette": palette(),
        "x": rows(x),
        "grey": grey.flatten().tolist(),
    }
    found: dict[str, Any] = javascript(COLOURED, given)
    return found


def test_the_colour_of_an_image_is_found_as_in_torch() -> None:
    torch.manual_seed(0)
    grey = bars().image
    clean = tint(grey, COLOURS)
    x = torch.cat(
        [
            *(clean, clean + 0.2 * torch.randn(10, *SHAPE)),
            *(torch.rand(10, *SHAPE) * torch.rand(10, 3, 1, 1), 0.02 * clean),
            *(torch.zeros(1, *SHAPE), -torch.rand(1, *SHAPE)),
        ]
    )
    expected = nearest_colour(x)
    assert (expected == -1).sum() == 12, "the dark ones have none"
    assert len(expected.unique()) == 11, "all colours are there"
    found = coloured("en", x, grey[3])
    assert found["nearest"] == expected.tolist()
    tinted = torch.tensor(found["tinted"]).view(10, *SHAPE)
    assert torch.allclose(tinted, tint(grey[3].expand(10, 1, 28, 28), COLOURS))


def test_the_colours_have_their_names_in_both_languages() -> None:
    x = torch.zeros(1, *SHAPE)
    english, hebrew = (coloured(lang, x, x[0, :1])["names"] for lang in ("en", "he"))
    assert english == list(NAMES)
    assert all(re.fullmatch("[א-ת]+", name) for name in hebrew)
    assert len(set(hebrew)) == len(NAMES)


# --- the map ---


@torch.no_grad()
def test_the_map_gives_the_coloured_image_that_torch_gives() -> None:
    decoder = coloured_decoder(2)
    z = 3 * (2 * torch.rand(20, 2) - 1)
    state = LatentMap("test", decoder, -3, 3).state
    found = torch.tensor(javascript(DECODER, {"state": state, "z": z.tolist()}))
    expected = decoder(z).flatten(1)
    assert expected.std(dim=0).max() > 0.1, "all images are alike"
    assert torch.allclose(found, expected, atol=5e-3)


def test_a_map_of_grey_images_has_no_colours() -> None:
    means, label = torch.randn(20, 2), torch.arange(20) % 10
    grey = LatentMap("test", conv_decoder(2, 2, 8), -3, 3, means, label).state
    assert "palette" not in grey
    assert set(grey["dots"]) == {"z", "label"}
    tints = LatentMap("test", coloured_decoder(2), -3, 3, means, label, label).state
    assert tints["dots"]["colour"] == label.tolist()
    assert tints["palette"] == palette()


def test_a_map_with_colours_that_make_no_sense_is_refused() -> None:
    decoder = coloured_decoder(2)
    means, label = torch.zeros(4, 2), torch.arange(4)
    with pytest.raises(ValueError, match="means with colours, got colours alone"):
        LatentMap("test", decoder, -3, 3, colour=label)
    with pytest.raises(ValueError, match=r"must lie in 0 … 9, got 7 … 10"):
        LatentMap("test", decoder, -3, 3, means, label, label + 7)
    with pytest.raises(ValueError, match=r"must have shape \(4,\), got \(3,\)"):
        LatentMap("test", decoder, -3, 3, means, label, label[1:])
    two = nn.Sequential(*list(decoder)[:-2], nn.ConvTranspose2d(4, 2, 4, 2, 1))
    wanted = r"to \(B, 1, 28, 28\) or \(B, 3, 28, 28\), got one to \(1, 2, 28, 28\)"
    with pytest.raises(ValueError, match=wanted):
        LatentMap("test", two, -3, 3)


# --- the joint panel ---


def joint(**changed: Any) -> JointPanel:
    """A panel on a latent of 3 + 10 + 10: z, the digit's code, the colour's."""
    digit = Dial.one_hot(slice(3, 13), ONWARD)
    colour = Dial.one_hot(slice(13, 23), list(range(10)))
    given: dict[str, Any] = {"latent": 23, "digit": digit, "colour": colour, **changed}
    return JointPanel("test", coloured_decoder(given["latent"]), **given)


@torch.no_grad()
def test_the_joint_panel_gives_the_image_that_torch_gives() -> None:
    """Digit d is code d + 7 (mod 10), since code k stands for digit k + 3."""
    torch.manual_seed(1)
    style = torch.randn(30, 23)
    digit, colour = torch.randint(10, (2, 30))
    latent = style.clone()
    latent[:, 3:13] = torch.eye(10)[(digit + 7) % 10]
    latent[:, 13:] = torch.eye(10)[colour]
    given = {
        "state": joint().state,
        "chosen": torch.stack([digit, colour], 1).tolist(),
        "style": style.tolist(),
    }
    found = torch.tensor(javascript(JOINT, given))
    expected = coloured_decoder(23)(latent).flatten(1)
    assert expected.std(dim=0).max() > 0.1, "all images are alike"
    assert torch.allclose(found, expected, atol=5e-3)


@torch.no_grad()
def test_a_dial_may_set_any_places_to_any_rows() -> None:
    values = torch.randn(4, 3)
    dial = Dial([slice(5, 6), slice(0, 2)], values, [9, 2, 4, 2])
    panel = joint(latent=16, digit=Dial.one_hot(slice(6, 16), range(10)), colour=dial)
    assert panel.state["colour"]["stands_for"] == [2, 2, 4, 9]
    assert panel.state["sliders"] == [[2, 1], [3, 2]]  # what no dial sets
    chosen = [[i % 10, i % 4] for i in range(8)]
    style = torch.randn(8, 16)
    given = {"state": panel.state, "chosen": chosen, "style": style.tolist()}
    found = torch.tensor(javascript(JOINT, given))
    for i, (digit, position) in enumerate(chosen):
        style[i, 6:] = torch.eye(10)[digit]
        style[i, [5, 0, 1]] = values[[1, 3, 2, 0][position]]
    expected = coloured_decoder(16)(style).flatten(1)
    assert torch.allclose(found, expected, atol=5e-3)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"latent": 22}, ValueError, r"colour's rows must have .* \(B, 9\), got"),
        ({"digit": Dial([], torch.eye(10), ONWARD)}, ValueError, "some of 23 places"),
        (
            {"digit": Dial.one_hot(slice(4, 14), ONWARD)},
            ValueError,
            "must set different places",
        ),
        (
            {"digit": Dial([slice(3, 13)], torch.eye(10), [0, 1])},
            ValueError,
            r"must have shape \(10,\), got \(2,\)",
        ),
        (
            {"digit": Dial.one_hot(slice(3, 13), range(1, 11))},
            ValueError,
            "must lie in 0 … 9, got 1 … 10",
        ),
        (
            {"colour": Dial.one_hot(slice(13, 23), [0.5] * 10)},  # type: ignore[list-item]
            TypeError,
            "labels must be a torch.int64 tensor, got torch.float32",
        ),
        ({"sliders": [0, 3]}, ValueError, r"the style, \[0, 1, 2\], got \[0, 3\]"),
        ({"sliders": [1, 1]}, ValueError, r"different places .* got \[1, 1\]"),
        ({"latent": 0}, ValueError, "latent must be"),
    ],
)
def test_a_joint_panel_that_makes_no_sense_is_refused(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        joint(**changed)


def test_a_joint_panel_needs_a_decoder_of_coloured_images() -> None:
    dials: dict[str, Any] = {
        "digit": Dial.one_hot(slice(2, 4), [0, 1]),
        "colour": Dial.one_hot(slice(4, 6), [0, 1]),
    }
    with pytest.raises(ValueError, match=r"from \(B, 6\) to \(B, 3, 28, 28\), got one"):
        JointPanel("test", coloured_decoder(7), 6, **dials)
    with pytest.raises(ValueError, match=r"got one to \(1, 1, 28, 28\)"):
        JointPanel("test", conv_decoder(6, 2, 8), 6, **dials)


# --- the translation ---


def translation(**changed: Any) -> TranslationPanel:
    given = {
        "to_b": generator(1),
        "to_a": generator(2),
        "examples": bars(),
        "rules": RULES,
        **changed,
    }
    return TranslationPanel("test", **given)


@torch.no_grad()
def test_the_generators_give_the_images_that_torch_gives() -> None:
    torch.manual_seed(0)
    x = torch.cat([tint(bars().image, COLOURS), torch.rand(5, *SHAPE)])
    given = {"state": translation().state, "x": rows(x)}
    found = torch.tensor(javascript(TRANSLATION, given)).view(15, 2, *SHAPE)
    y = generator(1)(x)
    assert y.std(dim=0).max() > 0.01, "all images are alike"
    assert torch.allclose(found[:, 0], y, atol=2e-3)
    assert torch.allclose(found[:, 1], generator(2)(y), atol=2e-3)


def test_a_translation_keeps_its_generators_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    translation(to_b=network)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"to_b": nn.Conv2d(3, 3, 1)}, TypeError, r"an nn\.Sequential, got Conv2d"),
        ({"to_a": nn.Sequential(nn.Tanh())}, TypeError, "a layer like Tanh"),
        (
            {"to_a": nn.Sequential(nn.Conv2d(3, 3, 3))},
            ValueError,
            r"from \(B, 3, 28, 28\) to .* got one to \(1, 3, 26, 26\)",
        ),
        (
            {"examples": Images(torch.zeros(1, *SHAPE), torch.tensor([0]))},
            ValueError,
            r"shape \(1, 28, 28\), got \(3, 28, 28\)",
        ),
        ({"rules": ([0, 1], ONWARD)}, ValueError, "two rules for 10 digits each"),
        ({"rules": (ONWARD,)}, ValueError, "two rules for 10 digits each"),
        ({"rules": (ONWARD, [3] * 10)}, ValueError, "a colour|one of 10 colours"),
        ({"classifier": nn.Linear(2, 2)}, TypeError, "runs a Classifier, got Linear"),
        ({"classifier": Classifier(2, SHAPE)}, ValueError, r"got a classifier of \(3"),
    ],
)
def test_a_translation_that_makes_no_sense_is_refused(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        translation(**changed)


# --- the widgets ---


def panels(kind: str) -> list[LivePanel]:
    """Two panels of a kind with different weights."""
    if kind == "joint":
        decoders = [coloured_decoder(23) for _ in "ab"]
        nn.init.zeros_(next(decoders[0].parameters()))
        dials: dict[str, Any] = {
            "digit": Dial.one_hot(slice(3, 13), ONWARD),
            "colour": Dial.one_hot(slice(13, 23), ONWARD),
        }
        return [JointPanel(f"chapter/{kind}", one, 23, **dials) for one in decoders]
    return [
        TranslationPanel(
            f"chapter/{kind}", generator(seed), generator(0), bars(), RULES
        )
        for seed in (1, 2)
    ]


@pytest.mark.parametrize("kind", ["joint", "translation"])
def test_the_html_has_no_numbers_and_the_widget_is_one_piece(kind: str) -> None:
    first, second = panels(kind)
    html, metadata = first._repr_mimebundle_()
    assert html["text/html"] == second._repr_mimebundle_()[0]["text/html"]
    assert f'data-live="{kind}" data-state="chapter/{kind}"' in html["text/html"]
    assert metadata["text/html"]["state"] == first.state != second.state
    assert javascript(WIDGET, str(first._esm)) == "function"
    assert "@import" not in str(first._css)


def test_the_book_s_networks_are_small_enough() -> None:
    def decoder(latent: int) -> nn.Sequential:
        return nn.Sequential(
            *conv_decoder(latent, 8, 128, SHAPE).children(), nn.Sigmoid()
        )

    means, label = torch.randn(600, 2), torch.arange(600) % 10
    LatentMap("test", decoder(2), -3, 3, means, label, label)
    joint_state = JointPanel(
        "test",
        decoder(30),
        30,
        Dial.one_hot(slice(10, 20), range(10)),
        Dial.one_hot(slice(20, 30), range(10)),
    ).state
    assert len(json.dumps(joint_state)) < 300_000
    state = translation(classifier=Classifier()).state
    assert len(json.dumps(state)) < 200_000
    grey = torch.tensor(list(base64.b64decode(state["examples"])))
    assert torch.allclose(grey.view(-1, 1, 28, 28) / 255, bars().image, atol=0.5 / 255)


# --- in a browser ---


@pytest.fixture(params=["en", "he"])
def lang(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def large(page: Page, place: int = 0) -> Tensor:
    """One of the images that have a title."""
    settle(page)
    return seen(page.locator(".live-picture canvas").nth(place))


@torch.no_grad()
def test_a_reader_sees_colours_on_the_map(
    browser: Browser, lang: str, tmp_path: Path
) -> None:
    decoder, means = coloured_decoder(2), torch.linspace(-2, 2, 40).view(20, 2)
    label, colour = torch.arange(20) % 5, 9 - torch.arange(20) % 10
    panel = LatentMap("test", decoder, -3, 3, means, label, colour)
    with opened(browser, panel, tmp_path, lang) as page:
        expected = decoder(torch.zeros(1, 2))[0]
        assert torch.allclose(large(page), expected, atol=0.02)
        legend = page.locator(".live-legend:not([hidden])")
        assert legend.locator("li").all_inner_texts() == list("01234")

        def painted(paint: Tensor) -> int:
            """How many pixels of the map have about this colour."""
            levels = torch.tensor(
                page.locator(".live-surface").evaluate(
                    "(canvas) => [...canvas.getContext('2d')"
                    ".getImageData(0, 0, canvas.width, canvas.height).data]"
                )
            ).view(-1, 4)
            far = (levels[:, :3] - 255 * 0.8 * paint).abs().amax(1)
            return int(((far < 60) & (levels[:, 3] > 150)).sum())

        assert painted(COLOURS[3]) == 0
        page.locator(".live-surface").focus()
        page.keyboard.press("Tab")  # the choice comes after the map
        page.keyboard.press("ArrowDown")
        settle(page)
        assert legend.locator("li").count() == 10
        assert painted(COLOURS[3]) > 10  # two dots


@torch.no_grad()
def test_a_reader_turns_the_dials(browser: Browser, lang: str, tmp_path: Path) -> None:
    decoder = coloured_decoder(23)
    with opened(browser, joint(), tmp_path, lang) as page:
        strip = page.locator(".live-strip canvas")
        swatches = page.locator(".live-choice:not(.live-strip) input")
        assert strip.count() == swatches.count() == 10

        def check(digit: int, colour: int, style: list[float]) -> None:
            latent = torch.zeros(10, 23)
            latent[:, :3] = torch.tensor(style)
            latent[:, 3:13] = torch.eye(10)[(torch.arange(10) + 7) % 10]
            latent[:, 13 + colour] = 1
            expected = decoder(latent)
            assert torch.allclose(large(page), expected[digit], atol=0.02)
            for each in (0, 5, 9):
                assert torch.allclose(seen(strip.nth(each)), expected[each], atol=0.02)
            said = page.locator("output").inner_text()
            assert str(digit) in said
            if lang == "en":
                assert NAMES[colour] in said

        check(0, 0, [0, 0, 0])
        page.locator(".live-strip input").nth(4).click()
        check(4, 0, [0, 0, 0])
        page.keyboard.press("ArrowRight" if lang == "en" else "ArrowDown")
        check(5, 0, [0, 0, 0])
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        check(5, 2, [0, 0, 0])
        page.keyboard.press("Tab")
        page.keyboard.press("End")  # of the slider
        check(5, 2, [3, 0, 0])
        page.keyboard.press("Tab")
        page.keyboard.press("Home")
        check(5, 2, [3, -3, 0])
        assert page.locator(".live-value").all_inner_texts() == ["3.00", "−3.00"]

        # far from 0 in each number: a third near 0 would hardly show
        page.evaluate("{ let i = 0; Math.random = () => [0.97, 0.05][i++ % 2]; }")
        page.locator("button").click()  # a new style
        moved = large(page)
        assert page.locator(".live-value").all_inner_texts() != ["3.00", "−3.00"]
        values = [
            float(text.replace("−", "-"))
            for text in page.locator(".live-value").all_inner_texts()
        ]
        at_hand = torch.zeros(1, 23)
        at_hand[0, :2] = torch.tensor(values)
        at_hand[0, 3 + (5 + 7) % 10] = at_hand[0, 13 + 2] = 1
        assert (decoder(at_hand)[0] - moved).abs().max() > 0.02, "the third moved too"


def test_a_latent_without_style_has_no_sliders(
    browser: Browser, tmp_path: Path
) -> None:
    dials: dict[str, Any] = {
        "digit": Dial.one_hot(slice(0, 4), [7, 2, 2, 1]),
        "colour": Dial.one_hot(slice(4, 6), [9, 0]),
    }
    panel = JointPanel("test", coloured_decoder(6), 6, **dials)
    with opened(browser, panel, tmp_path, "en") as page:
        names = page.locator(".live-strip span").all_inner_texts()
        assert names == ["1", "2", "2′", "7"]
        assert page.locator("button, input[type=range]").count() == 0
        page.locator(".live-strip input").nth(3).check()
        settle(page)
        assert page.locator("output").inner_text() == "Digit 7, red"


def stop(page: Page, place: int) -> str:
    """What is said below one of the three images, once they stand."""
    page.locator(".live-stops[aria-busy=false]").wait_for()
    return page.locator(".live-stop output").nth(place).inner_text()


@torch.no_grad()
def test_a_reader_carries_a_digit_there_and_back(
    browser: Browser, lang: str, tmp_path: Path
) -> None:
    panel = translation(to_b=rotation(1), to_a=rotation(-1))
    there = nearest_colour(rotation(1)(tint(bars().image, COLOURS)))
    names = palette()["names"]
    with opened(browser, panel, tmp_path, lang) as page:
        strip = page.locator(".live-strip input")

        def check(place: int, colour: int, digit: int | None = None) -> None:
            said = stop(page, place)
            if lang == "en":
                assert names[colour] in said
            rule = RULES[place % 2]
            assert str(rule.index(colour)) in said
            if digit is not None:
                expected = tint(bars().image[digit : digit + 1], COLOURS[colour][None])
                assert torch.allclose(large(page, place), expected[0], atol=0.02)

        check(0, 0, 0)
        check(1, int(there[0]))
        check(2, 0, 0)
        strip.nth(4).check(force=True)
        check(0, 4, 4)
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")  # another colour than its own
        check(0, 5, 4)
        check(1, int(there[5]))
        expected = rotation(1)(tint(bars().image[4:5], COLOURS[5:6]))[0]
        assert torch.allclose(large(page, 1), expected, atol=0.02)
        check(2, 5, 4)

        page.locator("button").click()  # clear
        empty = stop(page, 0)
        assert stop(page, 1) == stop(page, 2) == empty
        assert large(page).max() == 0
        draw(page, [[0.3, 0.1], [0.35, 0.9]])
        check(0, 5)
        assert page.locator(".live-strip input:checked").count() == 0
        drawn = large(page)
        assert torch.equal(large(page, 2), drawn)
        assert drawn[2].sum() > 20


def test_a_drawing_has_the_colour_of_its_digit(
    browser: Browser, tmp_path: Path
) -> None:
    """The classifier calls everything 6, until the reader chooses another colour."""
    classifier = Classifier(2)
    with torch.no_grad():
        classifier.head.bias[6] += 1000
    panel = translation(to_b=rotation(1), to_a=rotation(-1), classifier=classifier)
    with opened(browser, panel, tmp_path, "en") as page:
        assert NAMES[0] in stop(page, 0)
        page.locator("button").click()
        draw(page, [[0.3, 0.1], [0.35, 0.9]])
        settle(page)
        assert NAMES[6] in stop(page, 0)
        page.locator(".live-choice:not(.live-strip) input").nth(2).check()
        draw(page, [[0.2, 0.1], [0.8, 0.1]])
        settle(page)
        assert NAMES[2] in stop(page, 0), "what the reader chose stays"
        page.locator("button").click()
        draw(page, [[0.3, 0.1], [0.35, 0.9]])
        settle(page)
        assert NAMES[6] in stop(page, 0)
