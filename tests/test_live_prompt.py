"""The live panel of text to image: in a real browser as in torch, and as it is used."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from unicodedata import category, name

import pytest
import torch
from browsing import PATIENCE
from playwright.sync_api import Browser, Locator, Page, expect
from test_live import WIDGET, javascript
from test_live_images import HEBREW, opened
from test_live_language import load_by_the_button, write_page
from torch import Tensor, nn

from course_utils.data.captions import (
    LANGUAGES,
    Language,
    Vocabulary,
    book_vocabulary,
    describe,
    phrases,
    plain_words,
)
from course_utils.data.colours import NAMES, grey_of, nearest_colour
from course_utils.live import PromptPanel
from course_utils.live.network import HEAVY, LIMIT
from course_utils.live.panel import LivePanel
from course_utils.models.classifier import Classifier
from course_utils.models.flow_matching import FlowMatching
from course_utils.models.flow_matching.velocity import (
    GuidedVelocity,
    TimeFeatures,
    VelocityNet,
)
from course_utils.models.latent_diffusion import LatentSpace, TextToImage, caption_flow
from course_utils.models.vae import VAE, BernoulliDecoder, conv_vae
from course_utils.networks.basic import MLPBackbone, PlainTime
from course_utils.networks.conditioning import ClassLabels, Words

D, E = 6, 12
SHAPE = (3, 28, 28)
TOOLS = (
    "expectedEnd, makeModel, makeReader, momentsOf, plainWords, saidBy, seededNoise,"
    " walk"
)
MODEL = """async ({ state, weights, places, noise, times, ways }) => {
  const bytes = Uint8Array.from(atob(weights), (letter) => letter.charCodeAt(0));
  const model = await tools.makeModel(state, new Uint16Array(bytes.buffer));
  const z = noise.map((row) => Float32Array.from(row));
  const known = places.map((row) => row && model.encode(row));
  return JSON.stringify({
    encoded: known.map((row) => row && [...row]),
    velocities: times.map((t) =>
      z.map((row, i) => [...model.velocity(row, t, known[i], 1)])),
    paths: ways.map(([strength, steps]) => z.map((row, i) =>
      [...tools.walk(model, row, known[i], strength, steps)].map((moment) => {
        const end = tools.expectedEnd(moment);
        const picture = model.paint(moment.z);
        const read = model.read(picture);
        return [[...moment.z], [...end], [...picture], read];
      }))),
  });
}"""
WRITTEN = """(texts) => texts.map(tools.plainWords)"""
READ = """({ vocabulary, texts }) => texts.map(tools.makeReader(vocabulary))"""
SAID = """({ named, texts }) =>
  texts.map((text) => tools.saidBy(tools.plainWords(text), named))"""
NOISE = """([seeds, dim]) => seeds.map((seed) => [...tools.seededNoise(seed, dim)])"""
PICTURE = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, 28, 28);
  return [0, 1, 2].flatMap((k) =>
    Array.from({ length: 784 }, (_, i) => data[4 * i + k] / 255));
}"""
TRICKY = [
    *("a red seven", "A RED SEVEN!", "  seven\tin\n red ", "7", "a 7, in sky blue."),
    *("the digit 8 in turquoise", "ＲＥＤ ｓｅｖｅｎ", "７ in red", "⑦ red", "x² red"),
    *("הספרה שבע באדום", "שֶׁבַע אָדֹם", "שֶׁבַע אָדוֹם", "הַסִּפְרָה שֶׁבַע בְּאָדֹם", "כָּתֹם־שבע"),
    *("שִׁשָּׁה בְּוָרֹד", "שִׁבְעָה", "חֲמִשִּׁים", "מִשֶּׁהוּ לָבָן", "תְּמוּנָה שֶׁל שְׁתַּיִם", "סִ"),
    *("red\u200e seven\u2066", "se\u00adven", "שבע\u200f אדום"),
    *("אָדֹם", "\u05b9אדום", "ו\u05b9רוד", "סָגֹל שְׁמוֹנֶה", "צָהֹב", "שבע־אדום", "שבע, ״אדום״"),
    *(
        "a שבע in אדום",
        "red-seven_red",
        "sévèn réd",
        "SIX ΣΊΣΥΦΟΣ",
        "straße ẞ",
        "sıx",
        "İn",
    ),
    *(
        "sevn",
        "reed saven purpel",
        "ספרא אדומים שבעע",
        "!!! … ־",
        "",
        "\u0301",
        "👩‍👩‍👧 red",
    ),
    *("a a a a a a a a a", "one-one's 1one", "red\u00a0seven\u200bx", "ﬁve ﬁ", "K 7"),
]
CAPTIONS = [
    "a red seven",
    "הספרה שלוש בירוק",
    "something pink",
    "the digit 4 in sky blue",
    None,
]


def half(network: nn.Module, shaken: float) -> None:
    """Weights of half precision, large enough to be told apart."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(shaken * torch.randn_like(weight)).copy_(weight.half())


@cache
def small() -> TextToImage:
    torch.manual_seed(0)
    space = LatentSpace(conv_vae(D, 0.1, 2, 16, SHAPE), torch.rand(20, *SHAPE))
    half(space.vae.decoder, 0.2)
    flow = caption_flow(D, embedding=E, width=24, depth=2).eval()
    half(flow, 0.2)
    return TextToImage(space, flow)


@cache
def classifier() -> Classifier:
    torch.manual_seed(1)
    made = Classifier(2)
    for _ in range(20):  # statistics of its own
        made(torch.rand(16, 1, 28, 28))
    return made.eval()


def panel() -> PromptPanel:
    return PromptPanel("chapter/prompt", small(), classifier())


def written(folder: Path, panel: LivePanel, lang: str) -> str:
    return write_page(folder, panel, lang, TOOLS).as_uri()


@pytest.fixture(scope="module")
def tools(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page whose script has the parts of the panel as ``tools``."""
    with browser.new_page() as page:
        page.goto(written(tmp_path_factory.mktemp("tools"), panel(), "en"))
        yield page


# --- words ----------------------------------------------------------------------------


def test_a_text_has_the_words_that_python_finds(tools: Page) -> None:
    words = book_vocabulary()
    given = {"vocabulary": panel().state["vocabulary"], "texts": TRICKY}
    for text, found in zip(TRICKY, tools.evaluate(READ, given), strict=True):
        expected = plain_words(text)
        assert found["words"] == expected, repr(text)
        known = [word for word in expected if word in words.place]
        places = [place for place in found["places"] if place is not None]
        assert places == [words.place[word] for word in known]
        missing = dict.fromkeys(word for word in expected if word not in words.place)
        assert [each["word"] for each in found["missing"]] == list(missing)
        for word, each in zip(missing, found["missing"], strict=True):
            near = get_close_matches(word, words.words, n=1, cutoff=0.7)
            assert each.get("near") == (near[0] if near else None), word


def test_every_character_is_read_as_python_reads_it(tools: Page) -> None:
    """All but Cherokee, whose small letters are capitals in Python, and one of Ahom.

    That one was another kind of mark in an older Unicode.
    """
    known = [
        sign
        for sign in map(chr, range(0x110000))
        if category(sign)[0] != "C"
        and "CHEROKEE" not in name(sign, "")
        and sign != "\U0001171e"
    ]
    assert len(known) > 130_000
    texts = [f"Σ{sign}ו{sign}" for sign in known]
    for text, found in zip(texts, tools.evaluate(WRITTEN, texts), strict=True):
        assert found == plain_words(text), ascii(text)


def test_it_knows_what_every_caption_says(tools: Page) -> None:
    said = (None, *range(10))
    rows = [
        (text, digit, colour)
        for digit, colour in product(said, said)
        if (digit, colour) != (None, None)
        for one in LANGUAGES
        for text in phrases(one, digit, colour)
    ]
    texts = [text for text, _, _ in rows]
    found = tools.evaluate(SAID, {"named": panel().state["named"], "texts": texts})
    for (text, digit, colour), what in zip(rows, found, strict=True):
        expected = [-1 if part is None else part for part in (digit, colour)]
        assert [what["digit"], what["colour"]] == expected, text
    odd = ["a red blue seven", "seven or eight", "blue sky", "red red", "", "sky"]
    found = tools.evaluate(SAID, {"named": panel().state["named"], "texts": odd})
    pairs = [(what["digit"], what["colour"]) for what in found]
    assert pairs == [(7, -1), (-1, -1), (-1, 6), (-1, 0), (-1, -1), (-1, -1)]


# --- the model ------------------------------------------------------------------------

WAYS = [(0.0, 1), (0.0, 7), (1.0, 1), (1.0, 7), (2.5, 1), (2.5, 7)]
TIMES = [0.0, 0.13, 0.5, 0.97, 1.0]


@pytest.fixture(scope="module")
def computed(tools: Page) -> dict[str, Any]:
    """What the browser makes of torch's noise."""
    made = panel()
    texts = [text for text in CAPTIONS if text]
    rows = [[place for place in row if place] for row in small().read(texts).tolist()]  # type: ignore[union-attr]
    given = {
        "state": made.state["model"],
        "weights": base64.b64encode(made.weights).decode(),
        "places": [*rows, None],
        "noise": noise().tolist(),
        "times": TIMES,
        "ways": WAYS,
    }
    found: dict[str, Any] = json.loads(tools.evaluate(MODEL, given))
    return found


def noise() -> Tensor:
    return small().noise(len(CAPTIONS), generator=torch.Generator().manual_seed(3))


def known() -> Tensor:
    """The captions as places of words; none is a row without words."""
    model = small()
    rows = model.read([text for text in CAPTIONS if text])
    assert isinstance(rows, Tensor)
    return torch.cat([rows, torch.zeros_like(rows[:1])])


def test_a_text_is_encoded_as_in_torch(computed: dict[str, Any]) -> None:
    encoder = small().flow.velocity.condition
    assert isinstance(encoder, Words)
    expected = encoder.embed(known())[:-1]
    assert expected.std(0).min() > 0.05, "all texts say the same"
    assert computed["encoded"][-1] is None
    found = torch.tensor(computed["encoded"][:-1])
    assert torch.allclose(found, expected, atol=1e-5)


@torch.no_grad()
def test_the_velocity_is_torchs(computed: dict[str, Any]) -> None:
    velocity = small().flow.velocity
    for t, found in zip(TIMES, computed["velocities"], strict=True):
        expected = velocity(noise(), torch.full((len(CAPTIONS),), t), known())
        assert torch.allclose(torch.tensor(found), expected, atol=1e-4)


@pytest.mark.parametrize(("strength", "steps"), WAYS)
@torch.no_grad()
def test_the_way_and_the_pictures_are_torchs(
    computed: dict[str, Any], strength: float, steps: int
) -> None:
    model, texts = small(), known()
    path = model.path(texts, noise(), strength=strength, steps=steps)
    guided = GuidedVelocity(model.flow.velocity, strength)
    found = computed["paths"][WAYS.index((strength, steps))]
    pictures = []
    for i, moments in enumerate(found):
        assert len(moments) == steps + 1
        for n, (z, end, picture, read) in enumerate(moments):
            t = torch.tensor([n / steps])
            expected = path[n, i : i + 1]
            v = guided(expected, t, texts[i : i + 1])
            assert torch.allclose(torch.tensor([z]), expected, atol=1e-4)
            last = expected + (1 - t) * v
            assert torch.allclose(torch.tensor([end]), last, atol=1e-4)
            x = model.space.decode(expected)
            seen = torch.tensor(picture).view_as(x)
            assert torch.allclose(seen, x, atol=1e-4)
            chances = classifier().log_prob(grey_of(x))[0].exp()
            assert torch.allclose(torch.tensor(read), chances, atol=1e-2)
            pictures.append(x)
    every = torch.cat(pictures)
    assert every.std(0).mean() > 0.01, "all pictures are alike"
    inside = (every > 0) & (every < 1)
    assert inside.float().mean() > 0.2, "the pictures are black or white"


def test_a_seed_gives_the_same_noise_again(tools: Page) -> None:
    seeds = [*range(2000), 9999]
    found = torch.tensor(tools.evaluate(NOISE, [seeds, 5]))
    again = torch.tensor(tools.evaluate(NOISE, [seeds[:3], 5]))
    assert torch.equal(found[:3], again)
    assert len(found.unique(dim=0)) == len(seeds)
    error = len(seeds) ** -0.5
    assert found.mean(0).abs().max() < 4 * error
    assert (found.T.cov() - torch.eye(5)).abs().max() < 6 * error
    next_ones = torch.stack([found[:-2, 0], found[1:-1, 0]]).corrcoef()[0, 1]
    assert abs(float(next_ones)) < 4 * error, "seeds in a row have noise in common"


def test_the_way_is_shown_at_six_moments_at_most(tools: Page) -> None:
    found = tools.evaluate("[1, 2, 4, 10, 20, 50].map(tools.momentsOf)")
    assert found[:3] == [[0, 1], [0, 1, 2], [0, 1, 2, 3, 4]]
    assert found[3] == [0, 2, 4, 6, 8, 10]
    assert found[5] == [0, 10, 20, 30, 40, 50]


# --- the state ------------------------------------------------------------------------


def test_the_weights_travel_beside_a_small_state() -> None:
    made = panel()
    data, metadata = made._repr_mimebundle_()
    beside = metadata["text/html"]
    assert base64.b64decode(beside["weights"]) == made.weights
    assert len(json.dumps(beside["state"])) < LIMIT / 10
    assert len(data["text/html"]) < 500
    parts = made.state["model"]
    counts = [
        layer[part]
        for name in ("mix", "net", "decoder", "classifier")
        for layer in parts[name]
        for part in ("weight", "bias")
        if part in layer
    ]
    counts += [parts["words"] * parts["embedding"], parts["embedding"]]
    assert made.state["bytes"] == len(made.weights) == 2 * sum(counts)


def test_the_model_of_the_book_is_small_enough() -> None:
    space = LatentSpace(conv_vae(32, 0.1, 16, shape=SHAPE), torch.rand(4, *SHAPE))
    made = PromptPanel("test", TextToImage(space, caption_flow()), Classifier())
    assert made.state["bytes"] / 1e6 == pytest.approx(1.9, abs=0.05)
    assert len(base64.b64encode(made.weights)) < HEAVY


def test_the_widget_is_one_piece() -> None:
    made = panel()
    script = str(made._esm)
    assert javascript(WIDGET, script) == "function"
    assert not re.search(r"^import ", script, re.MULTILINE)
    assert "@import" not in str(made._css)


def changed_velocity(**parts: Any) -> TextToImage:
    """The same model with other parts in its velocity."""
    given = {"condition": Words(len(book_vocabulary()), E, 0.1), **parts}
    time = given.pop("time", small().flow.velocity.time)
    backbone = given.pop("backbone", small().flow.velocity.backbone)
    velocity = VelocityNet(backbone, time=time, **given)
    return TextToImage(small().space, FlowMatching(velocity, (D,)))


def with_decoder(vae: VAE) -> TextToImage:
    space = LatentSpace(vae, torch.rand(4, *vae.shape))
    return TextToImage(space, small().flow)


def test_what_the_panel_cannot_run_is_refused() -> None:
    def refused(
        error: type[Exception],
        message: str,
        model: Any = None,
        classifier: Any = None,
    ) -> None:
        with pytest.raises(error, match=message):
            PromptPanel("test", small() if model is None else model, classifier)

    refused(TypeError, "runs a TextToImage, got Linear", nn.Linear(2, 2))
    guided = small().guided(2.0)
    refused(TypeError, "VelocityNet .*, got Guided", TextToImage(small().space, guided))
    plain = changed_velocity(preconditioned=False)
    refused(ValueError, "preconditioned .* got a plain one", plain)

    class Own(MLPBackbone):
        pass

    time = TimeFeatures().out_dim
    other = changed_velocity(backbone=Own((D,), time, E, frequencies=0))
    refused(TypeError, "got one with Own", other)
    other = changed_velocity(backbone=MLPBackbone((D,), time, E, frequencies=3))
    refused(ValueError, "as they are, got one with 3 frequencies", other)
    other = changed_velocity(time=PlainTime())
    refused(TypeError, "got one with PlainTime", other)
    always = changed_velocity(condition=Words(len(book_vocabulary()), E))
    refused(ValueError, "expected Words with drop > 0, got drop=0", always)
    other = changed_velocity()
    other.flow.velocity.condition = ClassLabels(10, E, 0.1)
    refused(TypeError, "knows Words, got ClassLabels", other)
    other = changed_velocity()
    other.flow.velocity.condition.mix = nn.Sequential(nn.Tanh())
    refused(TypeError, "a layer like Tanh", other)

    network = conv_vae(D, 0.1, 2, 16, SHAPE).decoder.network
    encoder = conv_vae(D, 0.1, 2, 16, SHAPE).encoder
    other = with_decoder(VAE(encoder, BernoulliDecoder(network, D), SHAPE))
    refused(TypeError, "runs a GaussianDecoder, got Bernoulli", other)
    grey = with_decoder(conv_vae(D, 0.1, 2, 16))
    refused(ValueError, r"to \(B, 3, 28, 28\), got one to \(1, 1, 28, 28\)", grey)

    few = TextToImage(
        small().space, caption_flow(D, Vocabulary(["red"])), Vocabulary(["red"])
    )
    refused(ValueError, "words that none has", few)
    refused(TypeError, "runs a Classifier, got Linear", classifier=nn.Linear(2, 2))
    refused(ValueError, "of 10 classes, got", classifier=Classifier(2, classes=4))
    large = TextToImage(small().space, caption_flow(D, width=700))
    refused(ValueError, r"at most 3,000,000 characters, got \d,\d+,\d+", large)
    other = changed_velocity()
    for weight in other.flow.velocity.condition.parameters():
        nn.init.constant_(weight, 1e5)
    refused(ValueError, "at most 65,504, got 100000", other)


# --- a reader -------------------------------------------------------------------------


@pytest.fixture(params=LANGUAGES)
def lang(request: pytest.FixtureRequest) -> Language:
    found: Language = request.param
    return found


@contextmanager
def used(browser: Browser, folder: Path, lang: str) -> Iterator[Page]:
    """The panel on a phone, with its model loaded."""
    expect.set_options(timeout=PATIENCE)
    with opened(browser, panel(), folder, lang, written) as page:
        page.locator(".live-gate button").click()
        settled(page)
        yield page


def settled(page: Page) -> None:
    page.locator(".live-drawn[aria-busy=false]").wait_for()


def shown(canvas: Locator) -> Tensor:
    return torch.tensor(canvas.evaluate(PICTURE)).view(1, *SHAPE)


def drawn(page: Page, text: str | None, seed: int = 1, **settings: Any) -> Tensor:
    """What torch draws from the browser's noise."""
    noise = torch.tensor(page.evaluate(NOISE, [[seed], D]))
    texts = None if text is None else [text]
    return small().draw(texts, noise, **settings)


def check_picture(page: Page, text: str | None, seed: int = 1, **settings: Any) -> None:
    settled(page)
    expected = drawn(page, text, seed, **settings)
    found = shown(page.locator(".live-final canvas"))
    assert torch.allclose(found, expected, atol=0.51 / 255 + 1e-4)
    digit = int(classifier().log_prob(grey_of(expected)).argmax())
    seen = page.locator(".live-reads p")
    assert seen.nth(0).locator("strong").inner_text() == str(digit)
    colour = int(nearest_colour(expected))
    dot = seen.nth(1).locator(".live-dot")
    assert dot.count() == (colour >= 0)


def test_a_reader_loads_it(browser: Browser, lang: Language, tmp_path: Path) -> None:
    expect.set_options(timeout=PATIENCE)
    made = panel()
    with opened(browser, made, tmp_path, lang, written) as page:
        load_by_the_button(page, made, lang, settled, times=2)

        box = page.locator(".live-caption input")
        assert box.get_attribute("dir") == "auto"
        expect(box).to_have_value(describe(lang, 7, 0))
        check_picture(page, describe(lang, 7, 0))
        moments = page.locator(".live-way li")
        assert moments.locator("span").all_inner_texts() == [
            f"t = {t}" for t in (0, 0.2, 0.4, 0.6, 0.8, 1)
        ]
        noise = torch.tensor(page.evaluate(NOISE, [[1], D]))
        path = small().path([describe(lang, 7, 0)], noise)
        for n, moment in enumerate(moments.all()):
            now = small().space.decode(path[2 * n])
            found = shown(moment.locator("canvas").first)
            assert torch.allclose(found, now, atol=0.51 / 255 + 1e-4)
        ends = [shown(moment.locator("canvas").last) for moment in moments.all()]
        assert torch.equal(ends[-1], found)
        assert not torch.allclose(
            ends[0], shown(moments.nth(0).locator("canvas").first)
        )


def test_a_reader_composes_a_caption(
    browser: Browser, lang: Language, tmp_path: Path
) -> None:
    with used(browser, tmp_path, lang) as page:
        box = page.locator(".live-caption input")
        digits, colours, languages = (
            each.locator("input") for each in page.locator(".live-choice").all()
        )
        assert (digits.count(), colours.count()) == (11, 11)
        expect(digits.nth(1 + 7)).to_be_checked()
        expect(colours.nth(1)).to_be_checked()
        digits.nth(1 + 3).check()
        expect(box).to_have_value(describe(lang, 3, 0))
        check_picture(page, describe(lang, 3, 0))
        colours.nth(1 + NAMES.index("sky blue")).check()
        expect(box).to_have_value(describe(lang, 3, 5))
        other: Language = "en" if lang == "he" else "he"
        languages.nth(LANGUAGES.index(other)).check()
        expect(box).to_have_value(describe(other, 3, 5))
        check_picture(page, describe(other, 3, 5))
        digits.nth(0).check()
        expect(box).to_have_value(describe(other, None, 5))
        settled(page)
        assert page.locator(".live-agrees").count() == 1
        colours.nth(0).check()
        expect(box).to_have_value("")
        check_picture(page, None)
        assert page.locator(".live-agrees").count() == 0
        trouble = page.locator(".live-trouble")
        assert bool(HEBREW.search(trouble.inner_text())) == (lang == "he")
        assert trouble.inner_text()

        # what is typed moves the choices along
        box.fill("שתיים בכתום" if lang == "en" else "two in orange")
        expect(digits.nth(1 + 2)).to_be_checked()
        expect(colours.nth(1 + 1)).to_be_checked()
        expect(languages.nth(LANGUAGES.index(other))).to_be_checked()
        expect(trouble).to_have_text("")
        check_picture(page, "two in orange" if lang == "he" else "שתיים בכתום")
        before = shown(page.locator(".live-final canvas"))
        box.fill("a reed horse")
        expect(box).to_have_attribute("aria-invalid", "true")
        settled(page)
        told = trouble.inner_text()
        assert "reed" in told
        assert "red\u2069" in told
        assert "horse" in told
        assert bool(HEBREW.search(told)) == (lang == "he")
        expect(page.locator(".live-drawn[data-old]")).to_have_count(1)
        assert not page.locator(".live-reads").inner_text()
        assert torch.equal(shown(page.locator(".live-final canvas")), before)
        box.fill("a a a a a a a a red")
        expect(trouble).to_contain_text("9")
        expect(trouble).to_contain_text("8")
        box.fill("a red seven")
        expect(box).to_have_attribute("aria-invalid", "false")
        check_picture(page, "a red seven")


def test_a_reader_turns_the_dials(
    browser: Browser, lang: Language, tmp_path: Path
) -> None:
    caption = describe(lang, 7, 0)
    with used(browser, tmp_path, lang) as page:
        guidance, seed = page.locator("[type=range]"), page.locator("[type=number]")
        guidance.focus()
        page.keyboard.press("Home")
        expect(page.locator(".live-value")).to_have_text("0.0")
        check_picture(page, None)
        for _ in range(5):
            guidance.press("ArrowRight" if lang == "en" else "ArrowUp")
        expect(page.locator(".live-value")).to_have_text("2.5")
        check_picture(page, caption, strength=2.5)
        page.locator("select").select_option("1")
        check_picture(page, caption, strength=2.5, steps=1)
        assert page.locator(".live-way li:visible").count() == 2
        page.locator("select").select_option("50")
        check_picture(page, caption, strength=2.5, steps=50)
        assert page.locator(".live-way li:visible").count() == 6
        seed.fill("77")
        check_picture(page, caption, 77, strength=2.5, steps=50)
        seed.fill("")  # the last one holds
        check_picture(page, caption, 77, strength=2.5, steps=50)
        page.locator(".live-controls button").click()
        settled(page)
        drawn_seed = int(seed.input_value())
        check_picture(page, caption, drawn_seed, strength=2.5, steps=50)
        # the newest choice is what is shown
        page.evaluate(
            """() => {
              const box = document.querySelector(".live-caption input");
              for (const text of ["zero", "one", "a blue two"]) {
                box.value = text;
                box.dispatchEvent(new Event("input"));
              }
            }"""
        )
        check_picture(page, "a blue two", drawn_seed, strength=2.5, steps=50)


def test_without_a_classifier_the_colour_alone_is_read(
    browser: Browser, tmp_path: Path
) -> None:
    made = PromptPanel("test", small())
    assert len(made.weights) < len(panel().weights)
    with opened(browser, made, tmp_path, "en", written) as page:
        page.locator(".live-gate button").click()
        settled(page)
        colour = int(nearest_colour(drawn(page, describe("en", 7, 0))))
        line = page.locator(".live-reads p")
        assert line.count() == 1
        assert (NAMES[colour] if colour >= 0 else "too dark") in line.inner_text()


def test_few_stops_lead_through_the_panel(browser: Browser, tmp_path: Path) -> None:
    with used(browser, tmp_path, "en") as page:
        seen = []
        for _ in range(9):
            page.keyboard.press("Tab")
            seen.append(page.evaluate("document.activeElement.type ?? 'body'"))
        dials = ["number", "button", "range", "select-one"]
        assert seen == ["text", *["radio"] * 3, *dials, "body"]
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input, select')]"
            ".filter((e) => !e.labels.length).length"
        )
        assert unnamed == 0
