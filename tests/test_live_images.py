"""The live panels of images: in JavaScript as in torch, and in a reader's browser."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from browsing import PATIENCE
from playwright.sync_api import Browser, Page
from test_live import WIDGET, javascript
from torch import Tensor, nn

from course_utils.data import Images, ImageSplits, load_mnist
from course_utils.live import DigitPad, LatentMap
from course_utils.live.network import check_size, network_state
from course_utils.live.panel import LivePanel
from course_utils.models.classifier import Classifier, train_classifier
from course_utils.models.vae import VAE, conv_vae, train_vae
from course_utils.networks.images import conv_decoder

NETWORK = """
const { makeNetwork } = await import(`${folder}/network.js`);
const network = makeNetwork(given.layers, given.shape);
answer = given.x.map((x) => [...network(x)]);
"""
HALF = """
const { decodeHalf } = await import(`${folder}/basics.js`);
answer = [...decodeHalf(given)];
"""
CLASSIFIER = """
const { makeClassifier } = await import(`${folder}/digits.js`);
answer = given.x.map(makeClassifier(given.state));
"""
DECODER = """
const { makeDecoder } = await import(`${folder}/latent.js`);
const decoder = makeDecoder(given.state);
answer = given.z.map((z) => [...decoder(z)]);
"""
GREY = """() => {
  const canvas = document.querySelector(".live-picture canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, 28, 28).data;
  return Array.from({ length: 784 }, (_, i) => pixels[4 * i] / 255);
}"""
NUMBER = re.compile(r"(?<== )−?[\d.]+")
HEBREW = re.compile(r"[א-ת]")
# Each stroke is a list of points [x, y] of the pad, from 0 to 1
DRAWING = """
const { blankPaper, digitImage, drawLine } = await import(`${folder}/pad.js`);
const ink = blankPaper();
const side = Math.sqrt(ink.length);
for (const stroke of given)
  stroke.forEach((point, i) => {
    const [from, to] = [stroke[Math.max(0, i - 1)], point];
    drawLine(ink, from.map((v) => v * side), to.map((v) => v * side));
  });
const image = digitImage(ink);
answer = image && [...image];
"""
REDRAWN = """
const { digitImage, enlarged } = await import(`${folder}/pad.js`);
answer = given.map((image) => [...digitImage(enlarged(image))]);
"""


@pytest.fixture(scope="module")
def data() -> ImageSplits:
    return load_mnist(2_000, 500)


@pytest.fixture(scope="module")
def classifier(data: ImageSplits) -> Classifier:
    """A classifier that knows the digits, with statistics of its own."""
    torch.manual_seed(0)
    model = Classifier(width=8)
    train_classifier(model, data, epochs=4, batch=16)
    return model.eval()


@pytest.fixture(scope="module")
def vae(data: ImageSplits) -> VAE:
    """A VAE with a latent of two dimensions that knows the digits a little."""
    torch.manual_seed(0)
    model = conv_vae(2, sigma=0.2, width=8, hidden=128)
    train_vae(model, data, epochs=4, batch=32, watched=100)
    return model.eval()


def rows(x: Tensor) -> list[list[float]]:
    return x.flatten(1).tolist()


# --- the layers ---


def test_half_precision_arrives() -> None:
    values = [0.0, -0.0, 1.0, -2.5, 0.1, 65504.0, 6.1e-5, 5.96e-8, -3e-6]
    half = torch.tensor(values).half()
    text = base64.b64encode(half.numpy().astype("<f2").tobytes()).decode()
    assert javascript(HALF, text) == half.tolist()


CONVOLUTIONS: list[nn.Module] = [
    nn.Conv2d(2, 3, 3),
    nn.Conv2d(2, 3, (5, 2), stride=2, padding=2),
    nn.Conv2d(2, 1, 4, stride=3, padding=1, bias=False),
    nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1),
    nn.ConvTranspose2d(2, 1, (3, 2), stride=3, bias=False),
    nn.MaxPool2d(2),
    nn.MaxPool2d(3),
]


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("after", [nn.ReLU(), nn.SiLU()], ids=str)
def test_a_layer_gives_what_torch_gives(layer: nn.Module, after: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 2, 7, 8)
    network = nn.Sequential(layer, after, nn.Flatten())
    outputs = network(x).shape[1]
    network.extend([nn.Linear(outputs, 12, bias=False), nn.Unflatten(1, (3, 2, 2))])
    network.append(nn.ConvTranspose2d(3, 1, 2, stride=2))
    given = {"layers": network_state(network), "shape": [2, 7, 8], "x": rows(x)}
    found = torch.tensor(javascript(NETWORK, given))
    assert torch.allclose(found, network(x).flatten(1), atol=3e-3)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_batch_normalization_is_folded(affine: bool, bias: bool) -> None:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(4, affine=affine)
    network = nn.Sequential(nn.Conv2d(2, 4, 3, bias=bias), norm, nn.ReLU())
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    for _ in range(20):  # statistics far from 0 and 1
        network(3 + 2 * torch.randn(16, 2, 6, 6))
    network.eval()
    x = 3 + 2 * torch.randn(5, 2, 6, 6)
    state = network_state(network)
    given = {"layers": state, "shape": [2, 6, 6], "x": rows(x)}
    assert [layer["kind"] for layer in state] == ["conv", "relu"]
    found = torch.tensor(javascript(NETWORK, given))
    assert torch.allclose(found, network(x).flatten(1), atol=1e-2)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([nn.Tanh()], TypeError, r"does not run a layer like Tanh\(\)"),
        ([nn.ReLU(), nn.BatchNorm2d(2)], TypeError, "a layer like BatchNorm2d"),
        ([nn.Conv2d(2, 2, 3, groups=2)], ValueError, "with groups=1, got Conv2d"),
        ([nn.Conv2d(2, 2, 3, padding="same")], ValueError, "the same on both axes"),
        ([nn.Conv2d(2, 2, 3, stride=(1, 2))], ValueError, "the same on both axes"),
        (
            [nn.Conv2d(2, 2, 3, padding_mode="circular")],
            ValueError,
            "with padding_mode='zeros'",
        ),
        (
            [nn.ConvTranspose2d(2, 2, 3, stride=2, output_padding=1)],
            ValueError,
            r"with output_padding=\(0, 0\)",
        ),
        ([nn.MaxPool2d(3, stride=2)], ValueError, "with stride=3, got MaxPool2d"),
        ([nn.MaxPool2d(2, ceil_mode=True)], ValueError, "with ceil_mode=False"),
        ([nn.MaxPool2d((2, 3))], ValueError, "pools squares"),
        (
            [nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)],
            ValueError,
            "needs running statistics",
        ),
    ],
)
def test_a_layer_it_cannot_run_is_refused(
    layers: list[nn.Module], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        network_state(nn.Sequential(*layers))


def test_what_cannot_be_run_or_stored_is_refused() -> None:
    with pytest.raises(TypeError, match=r"an nn\.Sequential, got Linear"):
        network_state(nn.Linear(2, 2))
    large = nn.Linear(2, 2)
    nn.init.constant_(large.weight, 1e5)
    with pytest.raises(ValueError, match=r"at most 65,504, got 100000"):
        network_state(nn.Sequential(large))
    with pytest.raises(ValueError, match=r"at most 300,000 characters, got 54\d,\d+"):
        check_size({"layers": network_state(conv_decoder(2, hidden=256))})


# --- the classifier and the drawing ---


def test_the_classifier_gives_the_probabilities_that_torch_gives(
    classifier: Classifier, data: ImageSplits
) -> None:
    torch.manual_seed(0)
    x = torch.cat([data.test.image[:60], torch.rand(20, 1, 28, 28)])
    state = DigitPad("test", classifier, data.test.per_class(1)).state
    found = torch.tensor(javascript(CLASSIFIER, {"state": state, "x": rows(x)}))
    expected = classifier.log_prob(x).exp()
    sure = expected[:60].amax(dim=1) > 0.9
    assert sure.float().mean() > 0.5, "the classifier knows nothing"
    assert torch.allclose(found, expected, atol=1e-2)


def test_the_book_s_classifier_is_small_enough(data: ImageSplits) -> None:
    state = DigitPad("test", Classifier(), data.test.per_class(5)).state
    assert len(json.dumps(state)) < 200_000


def test_the_examples_are_the_images(classifier: Classifier, data: ImageSplits) -> None:
    examples = data.test.per_class(2)
    state = DigitPad("test", classifier, examples).state
    grey = torch.tensor(list(base64.b64decode(state["examples"])))
    assert torch.equal(grey.view(-1, 1, 28, 28) / 255, examples.image)
    assert state["labels"] == examples.label.tolist()


STROKES = {
    "a tall one": [[[0.3, 0.1], [0.35, 0.9]]],
    "a small one in a corner": [[[0.1, 0.1], [0.2, 0.1], [0.12, 0.25]]],
    "a wide one": [[[0.1, 0.5], [0.9, 0.5]], [[0.5, 0.3], [0.6, 0.7]]],
    "a dot": [[[0.7, 0.2]]],
    "one beyond the edge": [[[0.5, -0.2], [0.5, 0.5], [1.3, 0.6]]],
}


@pytest.mark.parametrize("strokes", STROKES.values(), ids=STROKES.keys())
def test_a_drawing_becomes_an_image_like_those_of_mnist(
    strokes: list[list[list[float]]],
) -> None:
    image = torch.tensor(javascript(DRAWING, strokes)).view(28, 28)
    assert image.min() >= 0
    assert 0.9 < image.max() <= 1 + 1e-6
    place = torch.arange(28) + 0.5
    for axis in (0, 1):
        centre = (image.sum(dim=1 - axis) * place).sum() / image.sum()
        assert float(centre) == pytest.approx(14, abs=0.05)
    inked = (image > 0.02).nonzero()
    size = inked.amax(dim=0) - inked.amin(dim=0) + 1
    assert 20 <= size.max() <= 22  # pixels at the rim may be inked in part


def test_no_drawing_no_image() -> None:
    assert javascript(DRAWING, []) is None


def test_a_digit_drawn_again_is_read_alike(
    classifier: Classifier, data: ImageSplits
) -> None:
    images = data.test.per_class(20)
    again = torch.tensor(javascript(REDRAWN, rows(images.image)))
    log_p = classifier.log_prob(again.view(-1, 1, 28, 28))
    before = classifier.log_prob(images.image).argmax(dim=1)
    assert (log_p.argmax(dim=1) == before).float().mean() > 0.95


def test_only_the_classifier_is_accepted() -> None:
    with pytest.raises(TypeError, match="runs a Classifier, got Linear"):
        DigitPad("test", nn.Linear(2, 2))  # type: ignore[arg-type]
    expected = r"images \(1, 28, 28\) of 10 classes, got a classifier of "
    with pytest.raises(ValueError, match=expected + r"\(3, 32, 32\) and 10"):
        DigitPad("test", Classifier(2, (3, 32, 32)))
    with pytest.raises(ValueError, match=expected + r"\(1, 28, 28\) and 4"):
        DigitPad("test", Classifier(2, classes=4))
    colours = Images(torch.zeros(1, 3, 28, 28), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"shape \(1, 28, 28\), got \(3, 28, 28\)"):
        DigitPad("test", Classifier(2), colours)


# --- the decoder ---


@torch.no_grad()
def test_the_decoder_gives_the_image_that_torch_gives(
    vae: VAE, data: ImageSplits
) -> None:
    torch.manual_seed(0)
    means = vae.posterior(data.validation.image[:40]).mean
    z = torch.cat([means, 3 * (2 * torch.rand(40, 2) - 1)])
    state = LatentMap("test", vae.decoder.network, -3, 3).state
    found = torch.tensor(javascript(DECODER, {"state": state, "z": z.tolist()}))
    expected = vae.decoder(z).flatten(1)
    assert expected.std(dim=0).max() > 0.1, "all images are alike"
    assert torch.allclose(found, expected, atol=1e-2)


def test_a_map_with_its_dots_is_small_enough(data: ImageSplits) -> None:
    means, label = torch.randn(500, 2), data.validation.label[:500]
    state = LatentMap("test", conv_decoder(2, 8, 128), -3, 3, means, label).state
    half = torch.frombuffer(
        bytearray(base64.b64decode(state["dots"]["z"])), dtype=torch.float16
    )
    assert torch.equal(half.view(-1, 2), means.half())
    assert state["dots"]["label"] == label.tolist()


def test_a_map_that_makes_no_sense_is_refused() -> None:
    decoder = conv_decoder(2, 2, 8)
    with pytest.raises(ValueError, match="low must be below high, got 3 and -3"):
        LatentMap("test", decoder, 3, -3)
    with pytest.raises(ValueError, match="means and labels, or neither"):
        LatentMap("test", decoder, -3, 3, torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"must have shape \(B, 2\), got \(4, 3\)"):
        LatentMap("test", decoder, -3, 3, torch.zeros(4, 3), torch.zeros(4).long())
    with pytest.raises(ValueError, match=r"from \(B, 2\) to .* first is Linear\(.*=3"):
        LatentMap("test", conv_decoder(3, 2, 8), -3, 3)
    with pytest.raises(ValueError, match=r"got one to \(1, 2, 14, 14\)"):
        LatentMap("test", nn.Sequential(*list(decoder.children())[:-2]), -3, 3)
    with pytest.raises(TypeError, match=r"an nn\.Sequential, got GaussianDecoder"):
        LatentMap("test", conv_vae(2, hidden=8).decoder, -3, 3)


# --- the widgets ---


def panels(kind: str) -> list[LivePanel]:
    """Two panels of a kind with different weights."""
    torch.manual_seed(0)
    image = torch.linspace(0, 1, 784).view(1, 1, 28, 28)
    example = Images(image, torch.tensor([3]))
    if kind == "latent":
        decoders = [conv_decoder(2, 2, hidden) for hidden in (4, 8)]
        return [LatentMap(f"chapter/{kind}", each, -2, 2) for each in decoders]
    return [DigitPad(f"chapter/{kind}", Classifier(w), example) for w in (2, 3)]


@pytest.mark.parametrize("kind", ["digits", "latent"])
def test_the_html_has_no_numbers_and_the_widget_is_one_piece(kind: str) -> None:
    first, second = panels(kind)
    html, metadata = first._repr_mimebundle_()
    assert html["text/html"] == second._repr_mimebundle_()[0]["text/html"]
    assert f'data-live="{kind}" data-state="chapter/{kind}"' in html["text/html"]
    assert metadata["text/html"]["state"] == first.state != second.state
    assert javascript(WIDGET, str(first._esm)) == "function"
    assert "@import" not in str(first._css)


# --- in a browser ---


def write_page(folder: Path, panel: LivePanel, lang: str) -> str:
    """A page with nothing but the panel's module, as JupyterLab would run it."""
    direction = "rtl" if lang == "he" else "ltr"
    text = f"""<!doctype html><html lang="{lang}" dir="{direction}">
    <meta charset="utf-8"><meta name="viewport" content="width=device-width">
    <style>{panel._css}</style><body><div id="panel"></div><script type="module">
    {str(panel._esm).replace("export default { render };", "")}
    const state = {json.dumps(panel.state)};
    render({{ model: {{ get: () => state }}, el: document.getElementById("panel") }});
    </script>"""
    path = folder / f"{lang}.html"
    path.write_text(text, encoding="utf-8")
    return path.as_uri()


@pytest.fixture(params=["en", "he"])
def lang(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def draw(page: Page, points: list[list[float]]) -> None:
    """A line on the panel's surface, drawn with the mouse."""
    surface = page.locator(".live-surface")
    surface.scroll_into_view_if_needed()
    box = surface.bounding_box()
    assert box is not None
    places = [
        (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points
    ]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def settle(page: Page) -> None:
    """Two frames of the screen."""
    page.evaluate(
        "new Promise((done) =>"
        " requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


@contextmanager
def opened(
    browser: Browser,
    panel: LivePanel,
    folder: Path,
    lang: str,
    write: Callable[[Path, LivePanel, str], str] = write_page,
) -> Iterator[Page]:
    """The panel on a phone; nothing may go wrong there."""
    trouble: list[str] = []
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(write(folder, panel, lang))
        yield page
        named = page.evaluate(
            "[...document.querySelectorAll('canvas:not([aria-hidden]), ul')]"
            ".map((e) => e.ariaLabel)"
        )
        assert all(named)
        assert all((lang == "he") == bool(HEBREW.search(name)) for name in named)
        wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], "the panel scrolls sideways"
        assert page.evaluate(
            "[...document.querySelectorAll('.live-surface')]"
            ".every((e) => getComputedStyle(e).touchAction == 'none')"
        )
    assert not trouble


SEVEN = [[0.25, 0.2], [0.75, 0.2], [0.6, 0.5], [0.45, 0.85]]


def test_a_reader_draws_a_digit(
    browser: Browser,
    classifier: Classifier,
    data: ImageSplits,
    lang: str,
    tmp_path: Path,
) -> None:
    panel = DigitPad("test", classifier, data.test.per_class(1))
    with opened(browser, panel, tmp_path, lang) as page:
        verdict = page.locator("output")
        nothing = verdict.inner_text()
        assert verdict.get_attribute("aria-live") == "polite"
        assert page.locator(".live-bars li").count() == 10

        draw(page, SEVEN)
        page.locator("output[aria-busy=false]").wait_for()
        settle(page)
        assert verdict.locator("strong").inner_text() == "7"
        assert page.locator(".live-bars [data-first]").inner_text().startswith("7")

        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # clear
        assert verdict.inner_text() == nothing
        page.keyboard.press("Tab")
        for label in (0, 1):
            page.keyboard.press("Enter")  # an example
            words = verdict.inner_text()
            assert str(label) in words.split("%")[1]


def test_a_reader_moves_a_point(
    browser: Browser, vae: VAE, data: ImageSplits, lang: str, tmp_path: Path
) -> None:
    means = vae.posterior(data.validation.image[:50]).mean.detach()
    label = data.validation.label[:50]
    panel = LatentMap("test", vae.decoder.network, -3, 3, means, label)
    with opened(browser, panel, tmp_path, lang) as page:
        surface = page.locator(".live-surface")

        def image() -> Tensor:
            return torch.tensor(page.evaluate(GREY)).view(28, 28)

        def check(z: list[float]) -> None:
            settle(page)
            text = str(surface.get_attribute("aria-valuetext"))
            found = [float(v.replace("−", "-")) for v in NUMBER.findall(text)]
            assert found == pytest.approx(z, abs=0.03)  # half a pixel
            with torch.no_grad():
                expected = vae.decoder(torch.tensor([found]))[0, 0].clamp(0, 1)
            assert torch.allclose(image(), expected, atol=0.05)

        check([0, 0])
        draw(page, [[0.5, 0.5], [0.75, 0.125]])
        check([1.5, 2.25])
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowUp")
        check([1.4, 2.35])
        for _ in range(8):
            page.keyboard.press("Shift+ArrowUp")
        check([1.4, 3])
        before = surface.get_attribute("aria-valuetext")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # a random z
        settle(page)
        assert surface.get_attribute("aria-valuetext") != before
