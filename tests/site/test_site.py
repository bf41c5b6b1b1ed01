"""Both editions in a reader's browser: the book, and a mini-book of all features.

One file on purpose: the tests run in parallel by file, and the site is built once.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import minibook
import pytest
import yaml
from browsing import PATIENCE
from playwright.sync_api import Browser, BrowserContext, Page

ROOT = Path(__file__).resolve().parents[2]
EDITIONS = {"en": "ltr", "he": "rtl"}
WIDTHS = {1280: 900, 390: 844}
HEBREW = re.compile(r"[\u05d0-\u05ea]")


def pages_of(toc: dict[str, Any]) -> list[str]:
    """The pages that a table of contents names, in order."""
    chapters = [one for part in toc.get("parts", []) for one in part["chapters"]]
    return [toc["root"], *(chapter["file"] for chapter in chapters)]


TOCS = {
    "book": yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")),
    "mini": yaml.safe_load(minibook.TOC),
}
PAGES = [
    (book, page) for book, toc in TOCS.items() for page in [*pages_of(toc), "search"]
]


@dataclass
class Site:
    """The built sites: their folder, their address, and the sources of the books."""

    folder: Path
    address: str
    sources: dict[str, Path]

    def page(self, book: str, edition: str, page: str) -> str:
        return f"{self.address}/{book}/{edition}/{page}.html"


def build(source: Path, target: Path) -> None:
    command = [sys.executable, "-m", "engine.build", "--source", str(source)]
    command += ["--target", str(target)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "book")}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (
        f"the site did not build:\n{done.stdout}\n{done.stderr}"
    )


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Both books, built with warnings as errors and served on this machine."""
    work = tmp_path_factory.mktemp("site")
    sources = {"book": ROOT, "mini": work / "source"}
    minibook.write(sources["mini"])
    for book, source in sources.items():
        build(source, work / "served" / book)
    handler = functools.partial(Quiet, directory=str(work / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Site(work / "served", f"http://127.0.0.1:{server.server_port}", sources)
        server.shutdown()


@dataclass
class Visit:
    """A page in the browser, and everything that went wrong while it was open."""

    page: Page
    trouble: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def visit(context: BrowserContext, address: str) -> Visit:
    seen = Visit(context.new_page())
    page = seen.page
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on(
        "requestfailed", lambda request: seen.trouble.append(f"failed: {request.url}")
    )
    page.on("pageerror", lambda error: seen.trouble.append(f"script error: {error}"))
    page.on(
        "console",
        lambda message: (
            seen.trouble.append(f"console {message.type}: {message.text}")
            if message.type in ("error", "warning")
            else None
        ),
    )
    page.on(
        "response",
        lambda answer: (
            seen.trouble.append(f"{answer.status}: {answer.url}")
            if answer.status >= 400
            else None
        ),
    )
    page.goto(address)
    return seen


def context_of(browser: Browser, width: int = 1280, **settings: Any) -> BrowserContext:
    context = browser.new_context(
        viewport={"width": width, "height": WIDTHS[width]}, **settings
    )
    context.set_default_timeout(PATIENCE)
    return context


# --- every page ---

# What of the visible text is neither code nor formula
PROSE = """() => {
  const copy = document.body.cloneNode(true);
  const others = "pre, code, .quoted, .katex, script, style, noscript, .live";
  for (const one of copy.querySelectorAll(others)) one.remove();
  return copy.textContent;
}"""

# The words around the article, in every attribute and element that a reader sees or
# hears
AROUND = """() => {
  const texts = [document.title];
  const around = "header *, nav *, aside *, footer *, summary, .copy, "
    + "figcaption .caption-number";
  for (const one of document.querySelectorAll(`${around}, .admonition-title`)) {
    if (one.closest("svg, script, .katex")) continue;
    for (const node of one.childNodes)
      if (node.nodeType === 3) texts.push(node.data.trim());
  }
  for (const name of ["aria-label", "title", "placeholder", "alt"])
    for (const one of document.querySelectorAll(`[${name}]`))
      texts.push(one.getAttribute(name));
  return [...new Set(texts)].filter((text) => text);
}"""

# Where the language switch leads: from the top of the page, and from each section that
# the page is long enough to scroll to. The clicks do not leave the page.
LEADS_TO = """() => {
  const link = document.getElementById("language");
  const stay = (event) => event.preventDefault();
  document.addEventListener("click", stay);
  const click = () => { link.click(); return link.hash.slice(1); };
  scrollTo({ top: 0, behavior: "instant" });
  const leads = [["", click()]];
  for (const section of document.querySelectorAll("article section section[id]")) {
    section.scrollIntoView({ behavior: "instant" });
    if (section.getBoundingClientRect().top <= 200) leads.push([section.id, click()]);
  }
  leads.push([null, click()]); // from where the page stands now
  document.removeEventListener("click", stay);
  return leads;
}"""


def load_all(page: Page) -> None:
    """Wait for all that comes late: fonts, live figures, images below the window."""
    for figure in page.locator("div.live").all():
        figure.scroll_into_view_if_needed()
        figure.locator(".live-figure > *").first.wait_for()
    page.evaluate(
        "document.querySelectorAll('img').forEach((i) => { i.loading = 'eager'; })"
    )
    page.evaluate("Promise.all([...document.images].map((i) => i.decode()))")
    page.evaluate("document.fonts.ready.then(() => null)")


def check_language(page: Page, edition: str) -> None:
    """The page says which edition it is, and its words are of that language."""
    root = page.evaluate(
        "[document.documentElement.lang, document.documentElement.dir]"
    )
    assert root == [edition, EDITIONS[edition]]
    around = page.evaluate(AROUND)
    if edition == "he":
        # a string of the frame is Hebrew, perhaps with a Latin name in it, never
        # English alone
        english = [
            text
            for text in around
            if re.search(r"[A-Za-z]{2}", text)
            and not HEBREW.search(text)
            and text != "English"
        ]
        assert not english
    else:
        hebrew = [text for text in around if HEBREW.search(text)]
        assert hebrew in ([], ["עברית"])
        assert not HEBREW.search(page.evaluate(PROSE).replace("עברית", ""))


def check_formulas(page: Page, source: str) -> None:
    """Formulas are rendered, and by no script of the page."""
    prose = page.evaluate(PROSE)
    raw = re.search(r"\$|\\[(\[]|\\begin|\\frac|\\mathbb", prose)
    assert raw is None, f"raw TeX: …{prose[max(0, raw.start() - 40) : raw.end() + 40]}…"
    if re.search(r"\$[^$\n]+\$", source):
        assert page.locator("article .katex").count() > 0
    assert page.locator("mjx-container, script[src*=athjax]").count() == 0


def check_layout(page: Page) -> None:
    """Nothing is too wide, out of reach of the keyboard, or out of shape."""
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], "the page scrolls sideways"
    unreachable = page.evaluate(
        """[...document.querySelectorAll(".scroll, article pre")]
           .filter((e) => e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0)
           .length"""
    )
    assert unreachable == 0, "something scrolls that the keyboard cannot reach"
    distorted = page.evaluate(
        """[...document.images].filter((i) => {
             const style = getComputedStyle(i);
             const frame = 2 * parseFloat(style.paddingTop)
               + 2 * parseFloat(style.borderTopWidth);
             const shape = (i.offsetWidth - frame) / (i.offsetHeight - frame);
             const wanted = i.naturalWidth / i.naturalHeight;
             return i.complete && Math.abs(shape / wanted - 1) > 0.05;
           }).map((i) => i.src)"""
    )
    assert not distorted, "images out of shape"
    silent = page.evaluate(
        """[...document.images].filter((i) => !i.alt && !i.closest('.brand'))
           .map((i) => i.src)"""
    )
    assert not silent, "images without alternative text"


def check_no_panel_waits(page: Page) -> None:
    """What a notebook says of a panel that does not run is not on the site."""
    for words in ("Run this cell", "הריצו את התא"):
        assert words not in page.content()


def check_switch(page: Page, other: str, there: str) -> None:
    """The switch names the other edition of this page."""
    link = page.locator("#language")
    assert link.get_attribute("hreflang") == link.get_attribute("lang") == other
    alternate = page.locator(f"link[rel=alternate][hreflang={other}]")
    assert alternate.evaluate("(one) => one.href") == there


def switch(page: Page, there: str) -> None:
    """Go to the other edition, and come out at the section that was being read."""
    sections = page.evaluate(
        """[...document.querySelectorAll("article section section[id]")]
           .map((s) => s.id)"""
    )
    (_, top), *leads, (_, here) = page.evaluate(LEADS_TO)
    assert top == "", "the switch leads into the page from its top"
    for section, reached in leads:
        passed = sections[sections.index(section) :]
        assert reached in passed, f"{section} led to {reached!r}"
    page.locator("#language").click()
    page.wait_for_url(f"{there}#{here}" if here else there)
    hidden = page.evaluate(
        "(ids) => ids.filter((id) => !document.getElementById(id)?.checkVisibility())",
        [reached for _, reached in leads],
    )
    assert not hidden, "the switch leads to what is not there"


def faults_of(
    page: Page, edition: str, address: dict[str, str], source: str
) -> list[str]:
    """What is wrong with the page of one edition; ends on that of the other."""
    (other,) = EDITIONS.keys() - {edition}
    checks: dict[str, Callable[[], None]] = {
        "language": lambda: check_language(page, edition),
        "formulas": lambda: check_formulas(page, source),
        "layout": lambda: check_layout(page),
        "panels": lambda: check_no_panel_waits(page),
        "switch": lambda: check_switch(page, other, address[other]),
        "way of the switch": lambda: switch(page, address[other]),
    }
    faults = []
    for name, check in checks.items():
        try:
            check()
        except AssertionError as error:
            faults.append(f"{edition}, {name}: {error}")
    return faults


@pytest.fixture(scope="module")
def windows(browser: Browser) -> Iterator[dict[int, BrowserContext]]:
    """A browser window of each width; it keeps what all pages load."""
    contexts = {width: context_of(browser, width) for width in WIDTHS}
    yield contexts
    for context in contexts.values():
        context.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("book", "page_name"), PAGES)
def test_page(
    site: Site,
    windows: dict[int, BrowserContext],
    book: str,
    page_name: str,
    width: int,
) -> None:
    """A reader opens the English edition and goes on to the Hebrew one, and back."""
    address = {edition: site.page(book, edition, page_name) for edition in EDITIONS}
    sources = site.sources[book].glob(f"{page_name}.*")
    source = "".join(path.read_text(encoding="utf-8") for path in sources)
    seen = visit(windows[width], address["en"])
    faults: list[str] = []
    for edition in EDITIONS:
        if seen.page.url.partition("#")[0] != address[edition]:
            seen.page.goto(address[edition])  # the switch failed
        load_all(seen.page)
        faults += faults_of(seen.page, edition, address, source)
    faults += seen.trouble
    faults += [
        f"asks another host: {url}"
        for url in seen.requests
        if not url.startswith((site.address, "data:"))
    ]
    seen.page.close()
    assert not faults, "\n".join(faults)


def test_every_built_page_is_tested(site: Site) -> None:
    for book, toc in TOCS.items():
        for edition in EDITIONS:
            folder = site.folder / book / edition
            built = {
                str(path.relative_to(folder).with_suffix(""))
                for path in folder.rglob("*.html")
            }
            assert built - {"index"} == {*pages_of(toc), "search"} - {"index"}


# --- what pages do ---


def test_language_switch_works_without_scripts(site: Site, browser: Browser) -> None:
    with context_of(browser, java_script_enabled=False) as context:
        page = visit(context, site.page("mini", "en", "chapter")).page
        page.locator("#language").click()
        page.wait_for_url(site.page("mini", "he", "chapter"))
        with context_of(browser, width=390, java_script_enabled=False) as phone:
            page = visit(phone, site.page("mini", "he", "chapter")).page
            page.locator(".menu").click()
            page.locator(".contents").wait_for()


def test_index_chooses_and_remembers(site: Site, browser: Browser) -> None:
    index = f"{site.address}/mini/index.html"
    for locale, edition in (("he-IL", "he"), ("en-GB", "en"), ("fr-FR", "en")):
        with context_of(browser, locale=locale) as context:
            page = visit(context, index).page
            page.wait_for_url(site.page("mini", edition, "index"))
    with context_of(browser, locale="en-GB") as context:
        page = visit(context, site.page("mini", "en", "chapter")).page
        page.locator("#language").click()
        page.wait_for_url(site.page("mini", "he", "chapter"))
        page.goto(index)
        page.wait_for_url(site.page("mini", "he", "index"))
    with context_of(browser, width=390, java_script_enabled=False) as context:
        seen = visit(context, index)
        assert not seen.trouble
        for edition in EDITIONS:
            seen.page.goto(index)
            seen.page.locator(f"a[hreflang={edition}]").click()
            seen.page.wait_for_url(site.page("mini", edition, "index"))


@pytest.mark.parametrize("edition", EDITIONS)
def test_light_and_dark(site: Site, browser: Browser, edition: str) -> None:
    def paper(page: Page) -> str:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    address = site.page("mini", edition, "chapter")
    with context_of(browser, color_scheme="dark") as context:
        assert paper(visit(context, address).page) == "rgb(16, 22, 29)"
    with context_of(browser, color_scheme="light") as context:
        page = visit(context, address).page
        assert paper(page) == "rgb(255, 255, 255)"
        page.locator("#theme").click()
        assert paper(page) == "rgb(16, 22, 29)"
        page.reload()
        assert paper(page) == "rgb(16, 22, 29)"


@pytest.mark.parametrize(
    ("edition", "query"),
    [("en", "couplings"), ("he", "מודלים"), ("he", "שהמודלים"), ("he", "לצפיפויות")],
)
def test_search(site: Site, browser: Browser, edition: str, query: str) -> None:
    with context_of(browser) as context:
        seen = visit(context, site.page("mini", edition, "index"))
        field = seen.page.locator(".contents input[name=q]")
        field.fill(query)
        field.press("Enter")
        seen.page.locator("ul.search li a[href*='chapter.html']").first.wait_for()
        assert not seen.trouble


def style(page: Page, selector: str, *names: str) -> list[str]:
    """Computed styles of the first element that ``selector`` finds."""
    values: list[str] = page.locator(selector).first.evaluate(
        """(one, names) =>
             names.map((name) => getComputedStyle(one).getPropertyValue(name))""",
        list(names),
    )
    return values


@pytest.fixture(scope="module", params=EDITIONS)
def chapter(
    request: pytest.FixtureRequest, site: Site, windows: dict[int, BrowserContext]
) -> tuple[str, Page]:
    """The edition and the page of the mini-book's chapter, to look at only."""
    edition = str(request.param)
    return edition, visit(windows[1280], site.page("mini", edition, "chapter")).page


def test_direction_of_everything(chapter: tuple[str, Page]) -> None:
    edition, page = chapter
    start, end = ("left", "right") if edition == "en" else ("right", "left")
    for box in (".admonition.note", "details.solution", "details.clinic"):
        widths = style(page, box, f"border-{start}-width", f"border-{end}-width")
        assert widths == ["4px", "1px"], box
    assert style(page, "blockquote", f"border-{end}-width") == ["0px"]
    assert style(page, "article ul", f"padding-{end}") == ["0px"]
    assert style(page, "article td", "direction", "text-align") == [
        EDITIONS[edition],
        "start",
    ]
    for code in (
        ".cell_input pre",
        ".cell_output pre",
        ".cell_output .highlight-python pre",
    ):
        assert style(page, code, "direction", "text-align") == ["ltr", "left"], code
    assert style(page, "p .katex", "direction") == ["ltr"]
    assert style(page, ".katex-display", "direction") == ["ltr"]
    boxes = (
        page.locator(one).first.bounding_box()
        for one in (".contents", "article", ".outline")
    )
    places = [box["x"] for box in boxes if box is not None]
    assert len(places) == 3
    assert places == sorted(places, reverse=edition == "he")


def test_figures_and_folded_code(chapter: tuple[str, Page]) -> None:
    edition, page = chapter
    image = page.locator("figure#fig-nf1 img")
    alt, caption, fold, whole = {
        "en": (
            "A falling curve",
            "Fig. 1: The loss against",
            "Show the code",
            "With all checks and details",
        ),
        "he": (
            "עקומה יורדת",
            "איור 1: ההפסד לעומת",
            "הצגת הקוד",
            "עם כל הבדיקות והפרטים",
        ),
    }[edition]
    assert image.get_attribute("alt") == alt
    # each edition has its own picture
    assert image.get_attribute("height") == {"en": "330", "he": "220"}[edition]
    assert page.locator("figure#fig-nf1 figcaption").inner_text().startswith(caption)
    assert page.locator("details.hide summary .collapsed").first.inner_text() == fold
    # the imports, the figure, the claims, the table, the panel
    assert page.locator("details.hide").count() == 5
    opened = page.locator(".cell_input:not(details *) pre").all_inner_texts()
    assert [text.strip() for text in opened] == ["sample(flow)"]
    assert page.locator("details.whole summary").inner_text() == whole


def test_a_chapter_opens_with_its_picture(chapter: tuple[str, Page]) -> None:
    edition, page = chapter
    assert (
        page.locator("article img").first.get_attribute("alt")
        == {
            "en": "A falling curve",
            "he": "עקומה יורדת",
        }[edition]
    )
    assert page.locator(".opening-caption a").get_attribute("href") == "#fig-nf1"
    assert (
        page.locator(".opening-facts p").all_inner_texts()
        == {
            "en": [
                "Before you start: nothing",
                "5 minutes to read · 2 minutes to run on one core",
            ],
            "he": ["לפני שמתחילים: דבר", "5 דקות קריאה · 2 דקות הרצה על ליבה אחת"],
        }[edition]
    )


def cells(page: Page, rows: str) -> list[list[str]]:
    """The texts of a table's rows."""
    return [
        [text.strip() for text in row.locator("th, td").all_inner_texts()]
        for row in page.locator(rows).all()
    ]


def test_what_a_cell_prints_is_in_the_readers_language(
    chapter: tuple[str, Page],
) -> None:
    edition, page = chapter
    assert (
        page.locator(".stream pre").all_inner_texts()
        == {
            "en": ["step 100: loss 2.40\n"],
            "he": ["צעד 100: הפסד 2.40\n"],
        }[edition]
    )
    assert (
        cells(page, "table.claims tr")
        == {
            "en": [
                ["Claim", "Bound", "Measured"],
                ["✓ spline flow: gap to the floor", "< 0.040 nats", "0.031"],
                [
                    "✓ affine flow: gap",
                    "< 0.2 nats, with a line long enough to wrap",
                    "0.11",
                ],
            ],
            "he": [
                ["הטענה", "החסם", "נמדד"],
                ["✓ זרימת ספליין: הפער מהרצפה", "< 0.040 nats", "0.031"],
                ["✓ זרימה אפינית: הפער", "< 0.2 nats", "0.11"],
            ],
        }[edition]
    )
    assert page.locator("tr#claim-nf1-1").count() == 1
    assert (
        cells(page, "table.measured tr")
        == {
            "en": [["solver", "gap, %"], ["Euler", "4.5 %"]],
            "he": [["פותרן", "פער, %"], ["אוילר", "4.5%"]],
        }[edition]
    )


@pytest.mark.parametrize("edition", EDITIONS)
def test_claims(site: Site, windows: dict[int, BrowserContext], edition: str) -> None:
    page = visit(windows[1280], site.page("mini", edition, "claims")).page
    first, second = page.locator("table.claims tbody tr").all()
    assert first.locator("a").get_attribute("href") == "chapter.html#nf1"
    words = {
        "en": "spline flow: gap to the floor",
        "he": "זרימת ספליין: הפער מהרצפה",
    }
    assert [text.strip() for text in first.locator("td").all_inner_texts()] == [
        "NF1",
        words[edition],
        "< 0.040 nats",
        "0.031",
    ]
    # NF1a has no section of its own: it leads to NF1
    assert second.locator("a").get_attribute("href") == "chapter.html#nf1"


@pytest.mark.parametrize("edition", EDITIONS)
def test_all_code_is_remembered(site: Site, browser: Browser, edition: str) -> None:
    with context_of(browser) as context:
        page = visit(context, site.page("mini", edition, "chapter")).page
        opened = page.locator("article details.hide[open]")
        assert opened.count() == 0
        page.locator("article details.hide summary").first.click()
        assert opened.count() == 1
        switch = page.locator(".outline [data-all-code]")
        switch.check()
        assert opened.count() == 5
        page.reload()
        assert opened.count() == 5
        page.locator(".outline [data-all-code]").uncheck()
        page.reload()
        assert opened.count() == 0
        # printing shows all, and leaves all as it was
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("article details:not([open])").count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("article details[open]").count() == 0


@pytest.mark.parametrize("edition", EDITIONS)
def test_terms_show_their_definitions(
    site: Site, browser: Browser, edition: str
) -> None:
    term, means = {
        "en": ("velocity field", "velocity field"),
        "he": ("שדה מהירות", "velocity field"),
    }[edition]
    with context_of(browser) as context:
        seen = visit(context, site.page("mini", edition, "chapter"))
        links = seen.page.locator("a[href*='#term-']", has_text=term)
        assert links.count() == 1  # the first mention only
        links.hover()
        preview = seen.page.locator(".preview:popover-open")
        preview.wait_for()
        assert means in preview.inner_text()
        seen.page.keyboard.press("Escape")
        preview.wait_for(state="hidden")
        equation = seen.page.locator("a.reference[href='#equation-eq-change']")
        equation.first.focus()
        seen.page.keyboard.press("Shift+Tab")
        seen.page.keyboard.press("Tab")
        preview.locator(".katex").first.wait_for()
        assert not seen.trouble
    with context_of(browser, width=390, has_touch=True, is_mobile=True) as context:
        page = visit(context, site.page("mini", edition, "chapter")).page
        page.locator("a[href*='#term-']", has_text=term).tap()
        preview = page.locator(".preview:popover-open")
        preview.wait_for()
        assert page.url.endswith("chapter.html")
        box = preview.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        preview.locator("a").last.tap()
        page.wait_for_url(re.compile(r"/book/glossary\.html#term-velocity-field$"))


def test_sources_are_listed_where_they_are_cited(chapter: tuple[str, Page]) -> None:
    edition, page = chapter
    title = {"en": "References", "he": "מקורות"}[edition]
    last = page.locator("article section > h2").last
    assert last.inner_text().startswith(title)
    assert "Auto-Encoding Variational Bayes" in page.locator("article").inner_text()


@pytest.mark.parametrize("edition", EDITIONS)
def test_home_has_a_card_for_each_chapter(
    site: Site, windows: dict[int, BrowserContext], edition: str
) -> None:
    for book in TOCS:
        toc = TOCS[book]
        page = visit(windows[1280], site.page(book, edition, toc["root"])).page
        cards = page.locator(".cards a").all()
        addresses = [card.evaluate("(a) => a.href") for card in cards]
        chapters = [
            site.page(book, edition, name)
            for name in pages_of(toc)
            if (site.sources[book] / f"{name}.ipynb").is_file()
        ]
        assert addresses == chapters
        for image in page.locator(".cards img").all():
            image.scroll_into_view_if_needed()
            assert image.evaluate("(one) => one.decode().then(() => one.naturalWidth)")


def test_hebrew_keeps_together_what_belongs_together(chapter: tuple[str, Page]) -> None:
    edition, page = chapter
    together = [
        " ".join(text.split()) for text in page.locator(".together").all_inner_texts()
    ]
    if edition == "he":
        assert "ב־PyTorch" in together
        assert any(text.startswith("ב־") and text.endswith(",") for text in together)
        assert "5%" in page.locator("#nf2").inner_text()
    for wrapped in page.locator(".together").all():
        lines = wrapped.evaluate(
            """(one) => new Set([...one.getClientRects()]
                   .map(({ top }) => Math.round(top / 8))).size"""
        )
        assert lines == 1


@pytest.mark.parametrize("edition", EDITIONS)
def test_code_fits_its_column(
    site: Site, windows: dict[int, BrowserContext], edition: str
) -> None:
    """At 1280 pixels nobody has to scroll to read a line of a chapter's code."""
    wide = []
    for name in pages_of(TOCS["book"]):
        page = visit(windows[1280], site.page("book", edition, name)).page
        page.evaluate(
            "for (const one of document.querySelectorAll('details')) one.open = true"
        )
        wide += page.locator("article .highlight pre").evaluate_all(
            """(all) => all
                 .filter((pre) => pre.scrollWidth > pre.clientWidth)
                 .map((pre) => pre.textContent.split("\\n")
                   .reduce((a, b) => (a.length > b.length ? a : b)))"""
        )
        page.close()
    assert wide == []


@pytest.mark.parametrize("edition", EDITIONS)
def test_drawer_on_a_phone(site: Site, browser: Browser, edition: str) -> None:
    with context_of(browser, width=390) as context:
        page = visit(context, site.page("mini", edition, "chapter")).page
        drawer = page.locator(".contents")
        assert not drawer.is_visible()
        page.locator(".menu").click()
        drawer.wait_for()
        box = drawer.bounding_box()
        assert box is not None
        assert box["x"] == 0 if edition == "en" else box["x"] + box["width"] == 390
        assert drawer.locator("a[aria-current=page]").is_visible()
        page.keyboard.press("Escape")
        drawer.wait_for(state="hidden")


def test_a_live_figure_loads_when_it_comes_near(site: Site, browser: Browser) -> None:
    with context_of(browser, width=390) as context:
        seen = visit(context, site.page("mini", "he", "chapter"))
        assert "איור אינטראקטיבי" in seen.page.locator(".live").inner_text()
        assert not [url for url in seen.requests if "/live/chapter/" in url]
        seen.page.locator(".live").scroll_into_view_if_needed()
        seen.page.wait_for_selector(".live[data-ready] output")
        assert seen.page.locator(".live").inner_text().strip() == "he: 7 layers"
        assert style(seen.page, ".live-figure", "font-weight") == ["700"]
        assert not seen.trouble
    with context_of(browser, java_script_enabled=False) as context:
        page = visit(context, site.page("mini", "en", "chapter")).page
        assert "It needs JavaScript." in page.locator(".live").inner_text()


def test_plain_jupyter_book_build(tmp_path: Path) -> None:
    """`jupyter-book build .` makes the English edition without a language switch."""
    command = [sys.executable, "-m", "jupyter_book.cli.main"]
    program = shutil.which("jupyter-book", path=str(Path(sys.executable).parent))
    if program is not None:
        command = [program]
    done = subprocess.run(
        [*command, "build", ".", "-W", "--keep-going", "--path-output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    home = (tmp_path / "_build" / "html" / f"{TOCS['book']['root']}.html").read_text()
    assert 'lang="en" dir="ltr"' in home
    assert 'id="language"' not in home
