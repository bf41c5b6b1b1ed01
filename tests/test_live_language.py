"""The live panel of a GPT: in a real browser as in torch, and as a reader uses it."""

from __future__ import annotations

import base64
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from shutil import copy
from types import SimpleNamespace
from typing import Any
from unicodedata import category

import pytest
import torch
from browsing import PATIENCE
from engine import reader
from playwright.sync_api import Browser, Page, expect
from test_live import FOLDER, WIDGET, javascript
from test_live_images import HEBREW, opened
from torch import Tensor, nn

from course_utils.data.text import BytePairs
from course_utils.live import LanguagePanel
from course_utils.live.language import tokens_state
from course_utils.live.network import HEAVY, LIMIT
from course_utils.live.panel import LivePanel
from course_utils.models.gpt import (
    GPT,
    MODERN,
    PLAIN,
    Recipe,
    generate,
    sampling_law,
    window_start,
)
from course_utils.places import Place

V, T, L, H = 301, 9, 3, 2
TEXT = (
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of"
    " having nothing to do: once or twice she had peeped into the book her sister was"
    " reading, but it had no pictures or conversations in it.\n\n\t“And what is the use"
    " of a book,” thought Alice, “without pictures?” עליסה החלה להתעייף מאוד."
)
PROMPT = "Alice was beginning to get very tired"
RECIPES = {
    "modern": MODERN,
    "plain": PLAIN,
    "mixed": Recipe("rms", "learnt", "relu2", qk_norm=True, bias=False, base=50.0),
}
SCRIPT = """
window.tools = { TOOLS };
window.asked = 0;
const state = STATE;
const listeners = new Set();
const model = {
  get: () => state,
  on: (name, listener) => listeners.add(listener),
  off: (name, listener) => listeners.delete(listener),
  send({ kind }) {
    window.asked++;
    const weights = new DataView(decodeBytes("WEIGHTS").buffer);
    const news = window.broken ? [{ kind: "failed" }, []] : [{ kind }, [weights]];
    for (const listener of [...listeners]) listener(...news);
  },
};
render({ model, el: document.getElementById("panel") });
"""
TOOLS = "decodeText, makeEncoder, openEngine, pieceName"
TOKENS = """({ state, texts }) => {
  const encode = tools.makeEncoder(state);
  return texts.map((text) => {
    const tokens = encode(text);
    const pieces = tokens.map((token) => state.pieces[token]);
    return [tokens, tools.decodeText(pieces.join(""))];
  });
}"""
LOOKS = """async ({ state, weights, texts, draws }) => {
  const engine = tools.openEngine();
  const bytes = Uint8Array.from(atob(weights), (letter) => letter.charCodeAt(0));
  await engine.ask("load", state, bytes.buffer);
  let tokens = [];
  for (const text of texts) {
    for (let place = 0; place < tokens.length; place++) await engine.ask("look", place);
    tokens = await engine.ask("read", text);
  }
  for (let i = 0; i < draws; i++)
    tokens = await engine.ask("draw", { temperature: 0, top: 0 });
  const looks = [];
  for (let place = tokens.length - 1; place >= 0; place--) { // the newest windows first
    const { start, logits, attention } = await engine.ask("look", place);
    looks.unshift({
      start,
      logits: logits.map((row) => [...row]),
      attention: attention.map((heads) => heads.map((row) => [...row])),
    });
  }
  const beyond = await engine.ask("look", tokens.length);
  engine.close();
  return JSON.stringify({ tokens, looks, beyond });
}"""
TYPED = """(button, text) => {
  button.click();
  const box = document.querySelector("textarea");
  box.value = text;
  box.dispatchEvent(new Event("input"));
}"""
LAW = """
const { drawFrom, samplingLaw } = await import(`${folder}/sampling.js`);
const laws = given.settings.map((each) => [...samplingLaw(given.logits, each)]);
const drawn = Array.from({ length: 4000 }, () => drawFrom(laws[0]));
answer = { laws, drawn };
"""


@cache
def pairs() -> BytePairs:
    return BytePairs.trained(TEXT, V)


def small(recipe: Recipe = MODERN, **sizes: int) -> GPT:
    """A model with weights of half precision, large enough to be told apart."""
    torch.manual_seed(0)
    given = {"vocabulary": V, "block": T, "width": 16, "depth": L, "heads": H, **sizes}
    model = GPT(**given, recipe=recipe)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight)).copy_(weight.half())
    return model.eval()


def panel(recipe: Recipe = MODERN, prompt: str = PROMPT) -> LanguagePanel:
    return LanguagePanel("chapter/gpt", small(recipe), pairs(), prompt)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder: a worker does not start from a file."""
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def write_page(folder: Path, panel: LivePanel, lang: str, tools: str = TOOLS) -> Path:
    """A page with the panel as JupyterLab would run it, and a kernel that answers.

    Some functions of its script are its ``tools``.
    """
    direction = "rtl" if lang == "he" else "ltr"
    weights = base64.b64encode(panel.weights).decode()
    script = str(panel._esm).replace("export default { render };", SCRIPT)
    script = script.replace("TOOLS", tools)
    script = script.replace("STATE", json.dumps(panel.state))
    text = f"""<!doctype html><html lang="{lang}" dir="{direction}">
    <meta charset="utf-8"><meta name="viewport" content="width=device-width">
    <style>{panel._css}</style><body><div id="panel"></div><script type="module">
    {script.replace("WEIGHTS", weights)}</script>"""
    path = folder / f"{lang}.html"
    path.write_text(text, encoding="utf-8")
    return path


@contextmanager
def used(browser: Browser, folder: Path, lang: str) -> Iterator[Page]:
    """The panel on a phone; nothing may go wrong there."""
    with served(folder) as address:

        def write(folder: Path, panel: LivePanel, lang: str) -> str:
            write_page(folder, panel, lang)
            return f"{address}/{lang}.html"

        with opened(browser, panel(), folder, lang, write) as page:
            yield page


@pytest.fixture(scope="module")
def tools(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page whose script has the parts of the panel as ``tools``."""
    folder = tmp_path_factory.mktemp("tools")
    write_page(folder, panel(), "en")
    with served(folder) as address, browser.new_page() as page:
        page.goto(f"{address}/en.html")
        yield page


# --- tokens ---------------------------------------------------------------------------


def odd_texts() -> list[str]:
    """Texts of all kinds of characters that this Python's Unicode knows."""
    texts = [
        *(
            "",
            " ",
            "  \n\n  Alice\t\r\n",
            "I'm he'S we'd I've they'll you're don't 1's 12ab 3¾ x²",
            TEXT,
        ),
        *(
            "a\u00a0b \u2028 x \x85y \ufeffz\x1c\x1f",
            "\ufeffA",
            "a\x00b\x7f",
            "שָׁלוֹם־לָךְ",
        ),
        *("👩‍👩‍👧 🇮🇱 naïve e\u0301", "\u088f a\u0c5cb \U00016ff4 1\U00011de0", "�" * 3),
    ]
    draw = random.Random(0)
    known = [chr(code) for code in range(0x110000) if category(chr(code))[0] != "C"]
    edges = " \n\x85\ufeff\u00a0\u2028\x1c'sl1a!\u088f\u0c5c\U00016ff4"
    near = [*TEXT, *" \n'0", *map(chr, range(0x250))]
    for _ in range(60):
        both = draw.choices(known, k=25) + draw.choices(near, k=35)
        draw.shuffle(both)
        texts += ["".join(both), "".join(draw.choices(edges, k=30))]
    return texts


def joining(texts: list[str]) -> BytePairs:
    """A tokenizer that joins any two bytes of some texts, if they are of one word.

    Nearly every cut shows in its tokens.
    """
    single = BytePairs.trained("a", 256)
    saved = json.loads(single.saved)
    letters = sorted(saved["model"]["vocab"], key=saved["model"]["vocab"].get)
    letter = {
        piece[0]: name for piece, name in zip(single.pieces, letters, strict=True)
    }
    found = {pair for text in texts for pair in pairwise(text.encode())}
    merges = [[letter[a], letter[b]] for a, b in sorted(found)]
    random.Random(0).shuffle(merges)
    names = [*letters, *(a + b for a, b in merges)]
    vocabulary = {name: number for number, name in enumerate(names)}
    saved["model"] |= {"vocab": vocabulary, "merges": merges}
    return BytePairs(json.dumps(saved))


@pytest.mark.parametrize("kind", ["trained", "joining"])
def test_any_text_has_the_tokens_that_python_finds(tools: Page, kind: str) -> None:
    texts = odd_texts()
    made = pairs() if kind == "trained" else joining(texts)
    assert len({category(c) for text in texts for c in text}) > 25
    found = tools.evaluate(TOKENS, {"state": tokens_state(made), "texts": texts})
    for text, (tokens, again) in zip(texts, found, strict=True):
        assert tokens == made.encode(text).tolist(), repr(text)
        assert again == text


def test_half_a_character_is_shown_as_its_bytes(tools: Page) -> None:
    pieces = [b" Alice", b"\n\n", b"\t", "ל".encode(), b"\xd7", b"\x9c", b"\x00"]
    shown = tools.evaluate(
        "(pieces) => pieces.map(tools.pieceName)",
        [piece.decode("latin-1") for piece in pieces],
    )
    assert shown == ["␣Alice", "↵↵", "⇥", "ל", "⟨d7⟩", "⟨9c⟩", "⟨00⟩"]


# --- the network ----------------------------------------------------------------------


def looked(tools: Page, made: LanguagePanel, texts: list[str], draws: int = 0) -> Any:
    """What the worker finds at each place of the last text and of what it draws."""
    given = {
        "state": made.state,
        "weights": base64.b64encode(made.weights).decode(),
        "texts": texts,
        "draws": draws,
    }
    return json.loads(tools.evaluate(LOOKS, given))


def check_looks(model: GPT, tokens: Tensor, looks: list[dict[str, Any]]) -> None:
    """Logits and attention at each place are those of torch in its window."""
    assert len(looks) == len(tokens)
    seen = cache(lambda start: model.look(tokens[None, start : start + model.block]))
    for place, found in enumerate(looks):
        start = window_start(place + 1, model.block)
        assert found["start"] == start
        at, expected = place - start, seen(start)
        logits = expected.logits[:, 0, at]
        assert (torch.tensor(found["logits"]) - logits).abs().max() < 1e-4
        row = expected.attention[:, 0, :, at, : at + 1]
        assert (torch.tensor(found["attention"]) - row).abs().max() < 1e-5


SAID = TEXT[:130]
READ = {  # the same text, with and without kept keys and values
    "at once": [SAID],
    "as it is typed": [*(SAID[:end] for end in range(1, len(SAID), 7)), SAID],
    "after another": [f"{SAID[:100]} and {SAID[104:]}", SAID],
}


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *(("modern", way) for way in READ),
        ("plain", "at once"),
        ("plain", "as it is typed"),
        ("mixed", "as it is typed"),
    ],
)
def test_logits_and_attention_are_torchs(tools: Page, name: str, way: str) -> None:
    tokens = pairs().encode(SAID)
    assert len(tokens) > 4 * T
    found = looked(tools, panel(RECIPES[name]), READ[way])
    assert found["tokens"] == tokens.tolist()
    assert found["beyond"] is None
    check_looks(small(RECIPES[name]), tokens, found["looks"])


def test_it_writes_what_torch_writes(tools: Page) -> None:
    """The likeliest token again and again, far beyond the first window."""
    model, prompt = small(), pairs().encode(PROMPT)
    expected = generate(model, prompt, 5 * T, temperature=0)
    found = looked(tools, panel(), [PROMPT], 5 * T)
    assert found["tokens"] == expected.tolist()
    check_looks(model, expected, found["looks"])


def test_tokens_are_drawn_from_the_law_of_python() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(40)
    settings: list[dict[str, float]] = [
        {"temperature": temperature, "top": top}
        for temperature in (1, 0.8, 0, 0.05, 2)
        for top in (0, 3, 100)
    ]
    given = {"logits": logits.tolist(), "settings": settings}
    found = javascript(LAW, given)
    for each, law in zip(settings, found["laws"], strict=True):
        top_k = int(each["top"]) or None
        expected = sampling_law(logits, each["temperature"], top_k).exp()
        assert torch.allclose(torch.tensor(law).float(), expected, atol=1e-5)
    counts = Counter(found["drawn"])
    law = torch.tensor(found["laws"][0])
    for token, share in enumerate(law.tolist()):
        error = (4000 * share * (1 - share)) ** 0.5
        assert counts[token] == pytest.approx(4000 * share, abs=5 * error + 1)


# --- the state ------------------------------------------------------------------------


def test_the_weights_travel_beside_a_small_state() -> None:
    made = panel(PLAIN)
    data, metadata = made._repr_mimebundle_()
    beside = metadata["text/html"]
    assert set(beside) == {"state", "weights"}
    assert len(json.dumps(beside["state"])) < 20_000
    assert base64.b64decode(beside["weights"]) == made.weights
    assert len(data["text/html"]) < 500
    halves = torch.frombuffer(bytearray(made.weights), dtype=torch.float16)
    flat = torch.cat([x.detach().flatten() for x in small(PLAIN).parameters()])
    assert torch.equal(halves.float(), flat)
    assert made.state["bytes"] == len(made.weights) == 2 * len(flat)


def test_the_kernel_sends_the_weights_when_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, sent = panel(), []
    monkeypatch.setattr(made, "send", lambda *news: sent.append(news))
    made._handle_custom_msg({"kind": "another"}, [])
    assert not sent
    made._handle_custom_msg({"kind": "weights"}, [])
    assert sent == [({"kind": "weights"}, [made.weights])]


def test_the_model_of_the_book_is_small_enough() -> None:
    model = GPT(1024, 128, recipe=MODERN)
    letters = "".join(random.Random(0).choices("abcdefgh ", k=20_000))
    made = LanguagePanel("test", model, BytePairs.trained(letters, 1024), "a")
    assert made.state["bytes"] / 1e6 == pytest.approx(1.8, abs=0.05)
    assert len(json.dumps(made.state)) < LIMIT / 5
    assert len(base64.b64encode(made.weights)) < HEAVY


def test_the_widget_is_one_piece_with_its_worker_in_it() -> None:
    made = panel()
    script = str(made._esm)
    assert javascript(WIDGET, script) == "function"
    assert "import.meta" not in script
    assert not re.search(r"^import ", script, re.MULTILINE)
    assert "@import" not in str(made._css)
    (worker,) = re.findall(r'new Blob\(\[("(?:[^"\\]|\\.)*")\]', script)
    assert not re.search(r"^import ", json.loads(worker), re.MULTILINE)


def test_what_the_panel_cannot_run_is_refused() -> None:
    def refused(error: type[Exception], message: str, **changed: Any) -> None:
        given = {"model": small(), "pairs": pairs(), "prompt": "a", **changed}
        with pytest.raises(error, match=message):
            LanguagePanel("test", **given)

    refused(TypeError, "runs a GPT, got Linear", model=nn.Linear(2, 2))
    refused(TypeError, "must be a BytePairs, got str", pairs="abc")
    refused(TypeError, "prompt must be text, got int", prompt=3)
    refused(ValueError, "at least one character, got none", prompt="")
    refused(ValueError, "whole characters", prompt="a\ud800")
    refused(ValueError, "the model's 300 tokens, got 301", model=small(vocabulary=300))
    other = small()
    other.blocks[1].mlp.out = nn.Sequential(nn.Linear(64, 16))  # type: ignore[union-attr]
    refused(TypeError, "parts that a GPT comes with, got Sequential", model=other)
    other = small()
    other.blocks[0].mlp.activation = torch.tanh  # type: ignore[union-attr]
    refused(TypeError, "gelu or relu2, got .*tanh", model=other)
    other = small()
    nn.init.constant_(other.tokens.weight, 1e5)
    refused(ValueError, "at most 65,504, got 100000", model=other)
    large = small(width=192, depth=3)
    refused(ValueError, r"at most 3,000,000 characters, got 3,\d+,\d+", model=large)
    saved = json.loads(pairs().saved)
    saved["pre_tokenizer"]["add_prefix_space"] = True
    cut = BytePairs(json.dumps(saved))
    refused(ValueError, "have pre_tokenizer {.*False.*}, got {.*True", pairs=cut)
    saved["model"]["ignore_merges"] = True
    saved["pre_tokenizer"]["add_prefix_space"] = False
    whole = BytePairs(json.dumps(saved))
    refused(ValueError, "have ignore_merges False, got True", pairs=whole)


# --- a reader -------------------------------------------------------------------------


@pytest.fixture(params=["en", "he"])
def lang(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def settled(page: Page) -> None:
    """Until nothing is written and the last place is chosen."""
    page.locator(".live-text output[aria-busy=false]").wait_for(state="attached")
    last = page.locator(".live-chip").last
    expect(last.locator("input")).to_be_checked()


def shades(page: Page) -> list[float]:
    found: list[float] = page.evaluate(
        "[...document.querySelectorAll('.live-chip')]"
        ".map((chip) => parseFloat(chip.style.getPropertyValue('--weight')))"
    )
    return found


def shown_name(token: int) -> str:
    return pairs().decode([token]).replace(" ", "␣")


def load_by_the_button(
    page: Page, panel: LivePanel, lang: str, settled: Callable[[Page], None], times: int
) -> None:
    """The weights come when the button asks for them, at the second try after a fault.

    So many ``times`` are told then.
    """
    button = page.locator(".live-gate button")
    assert f"{len(panel.weights) / 1e6:.1f} MB" in button.inner_text()
    assert page.evaluate("asked") == 0, "it loads unasked"
    page.evaluate("window.broken = true")
    button.click()
    expect(button).to_be_enabled()
    failed = page.locator(".live-gate output").inner_text()
    assert bool(HEBREW.search(failed)) == (lang == "he")
    page.evaluate("window.broken = false")
    page.keyboard.press("Enter")  # the button has the focus
    settled(page)
    assert page.evaluate("asked") == 2
    told = page.locator(".live-told")
    assert len(re.findall(r"\d\.\d\d ", told.inner_text())) == times
    expect(told).to_be_focused()


def test_a_reader_loads_it_and_looks_inside(
    browser: Browser, lang: str, tmp_path: Path
) -> None:
    model, made = small(), panel()
    tokens = pairs().encode(PROMPT)
    expect.set_options(timeout=PATIENCE)
    with used(browser, tmp_path, lang) as page:
        load_by_the_button(page, made, lang, settled, times=3)
        chips = page.locator(".live-chip")
        assert chips.all_inner_texts() == [shown_name(t) for t in tokens.tolist()]
        box = page.locator("textarea")
        assert box.evaluate("(e) => [e.dir, e.lang]") == ["ltr", "en"]
        assert page.locator(".live-lens tr").count() == L + 1

        start = window_start(len(tokens), T)
        look = model.look(tokens[None, start:])

        def check_shades(row: Tensor) -> None:
            weights = torch.tensor(shades(page)) / 100
            assert (weights[:start] == 0).all()
            assert torch.allclose(weights[start:], row / row.max(), atol=1e-3)

        check_shades(look.attention[-1, 0, :, -1].mean(0))
        choices = page.locator(".live-inside .live-choice")
        choices.nth(0).locator("input").nth(1).check()  # block 2
        choices.nth(1).locator("input").nth(2).check()  # head 2
        check_shades(look.attention[1, 0, 1, -1])
        unseen = page.locator(".live-chip[data-unseen]")
        assert unseen.count() == start > 0

        law = sampling_law(look.logits[-1, 0, -1], 0.8).exp()
        bars = page.locator(".live-next li:visible")
        assert bars.count() == 8
        first = f"{100 * law.max():.1f}%"
        assert bars.first.inner_text().split("\n")[-1].strip("\u2066\u2069") == first
        page.locator("input[type=range]").focus()
        page.keyboard.press("Home")  # temperature 0
        expect(bars).to_have_count(1)
        assert "100.0%" in bars.first.inner_text()

        # from chip to chip by arrow keys, as one stop
        chips.last.locator("input").focus()
        page.keyboard.press("ArrowLeft")
        expect(chips.nth(len(tokens) - 2).locator("input")).to_be_checked()
        stands = page.locator(".live-next > p").last
        expect(stands.locator("bdi")).to_have_text(shown_name(int(tokens[-1])))
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name").startswith("live-choice")


def test_a_reader_lets_it_write(browser: Browser, lang: str, tmp_path: Path) -> None:
    with used(browser, tmp_path, lang) as page:
        page.locator(".live-gate button").click()
        settled(page)
        write, one, back = page.locator("button").all()
        chips, text = page.locator(".live-chip"), page.locator(".live-text")
        count = chips.count()
        assert text.locator("output").get_attribute("aria-live") == "polite"
        assert text.inner_text() == PROMPT

        page.locator("input[type=range]").focus()
        page.keyboard.press("Home")  # temperature 0: as torch does
        one.click()
        expect(chips).to_have_count(count + 1)
        settled(page)
        name = write.inner_text()
        write.click()
        expect(chips).to_have_count(count + 81)
        settled(page)
        expect(write).to_have_text(name)
        expected = generate(small(), pairs().encode(PROMPT), 81, temperature=0)
        assert chips.count() == len(expected)
        assert text.inner_text() == pairs().decode(expected)
        assert text.locator("output").inner_text() == pairs().decode(expected[count:])
        assert page.locator(".live-chip[data-written]").count() == 81

        back.click()
        expect(chips).to_have_count(count)
        settled(page)
        write.evaluate("(button) => { button.click(); button.click(); }")  # and stop
        expect(chips).not_to_have_count(count)
        settled(page)
        assert count < chips.count() < count + 80

        write.evaluate(TYPED, "The book")  # while it writes
        expect(text).to_have_text("The book")
        settled(page)
        assert chips.count() == len(pairs().encode("The book"))
        page.locator("textarea").fill("👩" * 400)  # far more tokens than it writes
        expect(write).to_be_disabled()
        expect(back).to_be_enabled()
        page.locator("textarea").fill("")
        expect(back).to_be_disabled()
        expect(write).to_be_disabled()
        expect(chips).to_have_count(0)
        told = page.locator(".live-text ~ p, p:has(+ .live-text)").inner_text()
        assert bool(HEBREW.search(told)) == (lang == "he")


def test_few_stops_lead_through_the_panel(browser: Browser, tmp_path: Path) -> None:
    with used(browser, tmp_path, "en") as page:
        page.locator(".live-gate button").click()
        settled(page)
        seen = []
        for _ in range(12):
            page.keyboard.press("Tab")
            seen.append(page.evaluate("document.activeElement.tagName"))
        stops = ["TEXTAREA", "INPUT", "SELECT", *["BUTTON"] * 3, *["INPUT"] * 3]
        assert seen[: len(stops) + 1] == [*stops, "BODY"]
        for chip in page.locator(".live-chip").all():
            box = chip.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= 24  # for a finger


# --- the site -------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a page with the panel, as the site would publish it."""
    app: Any = SimpleNamespace(
        builder=SimpleNamespace(format="html"),
        doctreedir=tmp_path / "doctrees",
        outdir=tmp_path / "html",
    )
    monkeypatch.setattr(reader, "_states", reader.states_folder(app))
    made = panel()
    _, metadata = made._repr_mimebundle_()
    place = Place(made.module, made.name)
    shown = reader.live_figure(place, **metadata["text/html"], lang="en")
    reader.live_figure(place, {"old": True}, "en", "AAAA")  # no page names it
    static = app.outdir / "_static"
    (static / "live").mkdir(parents=True)
    for pattern in ("*.js", "*.css"):
        for path in FOLDER.glob(pattern):
            copy(path, static / "live")
    copy(Path(reader.__file__).parents[1] / "scripts" / "live.js", static)
    (app.outdir / "page.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<link rel="stylesheet" href="_static/live/language.css">'
        f'<script type="module" src="_static/live.js"></script><body>{shown}'
    )
    reader._publish_states(app, None)
    assert len(list(tmp_path.rglob("*.bin"))) == 2, "one kept and one published"

    with served(app.outdir) as address:
        yield f"{address}/page.html"


def test_the_site_loads_the_weights_on_a_click(site: str, browser: Browser) -> None:
    with browser.new_context() as context:
        context.set_default_timeout(PATIENCE)
        page, trouble, asked = context.new_page(), [], []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(site)
        page.locator(".live-gate button").wait_for()
        assert not [url for url in asked if url.endswith(".bin") or "worker" in url]
        page.locator(".live-gate button").click()
        settled(page)
        assert len([url for url in asked if url.endswith(".bin")]) == 1
        assert page.locator(".live-text").inner_text() == PROMPT
        assert not trouble
