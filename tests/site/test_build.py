"""What a build says and makes does not depend on what an earlier one left.

All tests change one small book and mend it again; the book is built in this process.
"""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import minibook
import pytest
from engine import BOOK, build, fresh, frontend, made_with
from engine.strings import hebrew
from engine.words import IN_HEBREW

MORE = """\
(more)=
# More

A page after the chapter, with {ref}`a link <nf2>` and {numref}`fig-nf1`.

+++ {"lang": "he"}

(more)=
# עוד

עמוד אחרי הפרק, עם {ref}`קישור <nf2>` ועם {numref}`fig-nf1`.
"""
CHAPTERS = "      - file: chapter\n"
TOC = minibook.TOC.replace(CHAPTERS, f"{CHAPTERS}      - file: more\n")
EDITIONS = ("en", "he")


@dataclass
class Book:
    """A book in a folder, and how to change, build and mend it."""

    folder: Path
    originals: dict[str, bytes] = field(default_factory=dict)
    settled: bool = False

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def build(self) -> None:
        build.build_site(self.source, self.site)
        self.settled = False

    def settle(self) -> None:
        """Build the source as it is, unless the last build that ended well did."""
        if not self.settled:
            self.build()
            self.settled = True

    def change(self, name: str, old: str, new: str) -> None:
        """Replace a text that is there, wherever it is there."""
        path = self.source / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def change_cells(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Let ``change`` work on each cell of a notebook."""
        path = self.source / name
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            change(cell)
        path.write_text(json.dumps(notebook), encoding="utf-8")

    def mend(self) -> None:
        """Make the source what it was; a file that is as it was keeps its time."""
        for path in self.source.glob("*.*"):
            if path.name not in self.originals:
                path.unlink()
        for name, content in self.originals.items():
            path = self.source / name
            if not path.is_file() or path.read_bytes() != content:
                path.write_bytes(content)

    def page(self, edition: str, name: str) -> str:
        return (self.site / edition / f"{name}.html").read_text(encoding="utf-8")

    def published(self) -> dict[str, bytes]:
        return contents(self.site)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def search_index(edition: Path) -> dict[str, Any]:
    """What the script of the search reads; without words that no page has.

    A word that the last page lost stays in Sphinx's index, with no page.
    """
    text = (edition / "searchindex.js").read_text(encoding="utf-8")
    index: dict[str, Any] = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    for words in ("terms", "titleterms"):
        index[words] = {word: on for word, on in index[words].items() if on != []}
    return index


@pytest.fixture(scope="module")
def few_objects() -> Iterator[None]:
    """An extension of Sphinx looks at every object there is: hide those of others."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, few_objects: None) -> Book:
    book = Book(tmp_path_factory.mktemp("book"))
    minibook.write(book.source)
    (book.source / "_toc.yml").write_text(TOC, encoding="utf-8")
    (book.source / "more.md").write_text(MORE, encoding="utf-8")
    book.originals = {path.name: path.read_bytes() for path in book.source.glob("*.*")}
    return book


@pytest.fixture
def book(built: Book) -> Iterator[Book]:
    """The book, built as it is here; what a test changes is mended after it."""
    built.settle()
    yield built
    built.mend()


# --- a build that fails ---


def link_into_the_void(book: Book) -> None:
    book.change("index.md", "English only", "English [only](#nf55)")


def formula_of_nonsense(book: Book) -> None:
    book.change("index.md", "English", r"English $\frac{a$ ")


def label_that_went(book: Book) -> None:
    """The page that links to it is unchanged."""
    book.change("chapter.ipynb", "(nf2)=", "(nf3)=")


def figure_that_went(book: Book) -> None:
    """Likewise."""
    book.change("chapter.ipynb", "fig-nf1", "fig-nf9")


def error_output(book: Book) -> None:
    book.change("chapter.ipynb", '"name": "stdout"', '"name": "stderr"')


def claim_without_hebrew(book: Book) -> None:
    book.change_cells("chapter.ipynb", lambda cell: cell["metadata"].pop("claims", 0))


def chapter_out_of_the_contents(book: Book) -> None:
    book.change("_toc.yml", CHAPTERS, "")


def chapter_deleted(book: Book) -> None:
    (book.source / "chapter.ipynb").unlink()


FAULTS: dict[str, dict[Callable[[Book], None], str]] = {
    "in pages": {
        link_into_the_void: "cross-reference target not found: 'nf55'",
        formula_of_nonsense: "index.md:4: WARNING: KaTeX parse error",
        label_that_went: "more.md:4: WARNING: undefined label: 'nf2'",
        figure_that_went: "more.md:4: WARNING: undefined label: 'fig-nf1'",
        error_output: "WARNING: stderr was found in the cell outputs",
    },
    "in Hebrew only": {claim_without_hebrew: "prints 2 claims"},
    "in the contents": {chapter_out_of_the_contents: "undefined label: 'nf1'"},
    "of a lost file": {chapter_deleted: "nonexisting document 'chapter'"},
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
def test_a_build_that_fails_fails_again(
    book: Book,
    faults: dict[Callable[[Book], None], str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = book.published()
    for fault in faults:
        fault(book)
    said = []
    for _ in range(3):
        with pytest.raises(SystemExit, match="edition did not build"):
            book.build()
        said.append(capfd.readouterr().err)
    for fault, message in faults.items():
        assert message in said[0], fault.__name__
    assert said[0] == said[1] == said[2]
    assert book.published() == before, "half a site is published"
    book.mend()
    book.build()
    assert capfd.readouterr().err == ""


def test_the_editions_are_published_together(book: Book) -> None:
    before = book.published()
    book.change("more.md", "A page", "Another page")
    claim_without_hebrew(book)
    with pytest.raises(SystemExit, match="the he edition"):
        book.build()
    assert book.published() == before


def test_the_command_tells_its_caller(book: Book) -> None:
    link_into_the_void(book)
    command = [sys.executable, "-m", "engine.build", "--source", str(book.source)]
    command += ["--target", str(book.site)]
    environment = {**os.environ, "PYTHONPATH": str(BOOK)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the en edition did not build; nothing is published" in done.stderr
    assert "The book is in" not in done.stdout


# --- a build that is interrupted ---


def build_until_killed(book: Book, patch: pytest.MonkeyPatch, step: str) -> None:
    """Build in a process of its own, which dies at a function of ``engine.fresh``."""

    def die(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with patch.context() as inside:
        inside.setattr(fresh, step, die)
        process = multiprocessing.get_context("fork").Process(target=book.build)
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("step", ["_note", "_prune"])
def test_a_killed_build_leaves_nothing(
    book: Book,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    step: str,
) -> None:
    """Killed after the pages were read, and after they were written."""
    before = book.published()
    label_that_went(book)
    build_until_killed(book, monkeypatch, step)
    assert book.published() == before
    with pytest.raises(SystemExit):
        book.build()
    assert "nf2" in capfd.readouterr().err


def test_ctrl_c_ends_a_build(
    book: Book, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    label_that_went(book)
    with monkeypatch.context() as patch:
        patch.setattr(fresh, "_said_of_pages", interrupt)
        with pytest.raises(SystemExit):
            book.build()
    with pytest.raises(SystemExit):
        book.build()
    assert "nf2" in capfd.readouterr().err


@pytest.mark.parametrize("steps", [0, 1])
def test_an_interrupted_publication_is_made_up_for(
    book: Book, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Interrupted before anything is in its place, and after the first edition is."""
    book.change("more.md", "A page", f"A {steps}th page")
    done: list[Path] = []

    def place(path: Path, new: Path) -> None:
        if book.site in new.parents:
            done.append(path)
            if len(done) > steps:
                raise KeyboardInterrupt
        _place(path, new)

    _place = build._replace
    with monkeypatch.context() as patch:
        patch.setattr(build, "_replace", place)
        with pytest.raises(KeyboardInterrupt):
            book.build()
    for edition in EDITIONS:  # the old one or the new one, but a whole one
        assert len(contents(book.site / edition)) > 30
    book.build()
    assert f"A {steps}th page" in book.page("en", "more")
    assert {path.name for path in book.site.iterdir()} == {*EDITIONS, "index.html"}


def test_two_builds_do_not_meet(book: Book, tmp_path: Path) -> None:
    said = tmp_path / "said"

    def build_beside() -> None:
        with said.open("w", buffering=1) as sys.stderr:
            book.build()

    process = multiprocessing.get_context("fork").Process(target=build_beside)
    with build._alone(book.folder / "site-work"):
        process.start()
        while not (said.is_file() and "another build" in said.read_text()):
            assert process.is_alive()
            time.sleep(0.01)
        assert not (book.folder / "site-work" / "en").exists()
    process.join()
    assert process.exitcode == 0


def test_half_a_kept_build_is_not_taken_over(tmp_path: Path) -> None:
    kept, work = tmp_path / "kept", tmp_path / "work"
    build._take_over(kept, work, "note")
    assert contents(work) == {}
    (work / "page").write_text("of the first")
    build._take_over(kept, work, "note")
    assert contents(work) == {}, "what an unfinished build left is in the way"
    (work / "page").write_text("of the second")
    (work / "note.json").write_text("note")
    build._replace(kept, work)
    build._take_over(kept, work, "note")
    assert contents(work)["page"] == b"of the second"
    build._take_over(kept, work, "another note")
    assert contents(work) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "work"]


# --- a build that follows a change ---


def test_a_removed_chapter_goes_from_both_editions(book: Book) -> None:
    book.change("_toc.yml", "      - file: more\n", "")
    book.build()
    for edition in EDITIONS:
        folder = book.site / edition
        assert not (folder / "more.html").exists()
        assert "more.html" not in book.page(edition, "index")
        assert search_index(folder)["docnames"] == sorted(
            ["chapter", "claims", "index", "book/glossary", "book/references"]
        )


def test_a_renamed_chapter_leaves_its_old_name(book: Book) -> None:
    (book.source / "more.md").rename(book.source / "most.md")
    book.change("_toc.yml", "file: more", "file: most")
    book.build()
    for edition in EDITIONS:
        assert not (book.site / edition / "more.html").exists()
        assert 'href="most.html"' in book.page(edition, "chapter")


def test_a_picture_goes_with_the_last_page_that_shows_it(book: Book) -> None:
    def redraw(cell: dict[str, Any]) -> None:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = minibook.png(height=1)
                output["metadata"][IN_HEBREW]["image"] = minibook.png(height=1.5)

    def pictures(edition: str) -> set[str]:
        return {path.name for path in (book.site / edition / "_images").iterdir()}

    def of_notebooks() -> set[Path]:
        work = book.folder / "site-work"
        return {path for path in work.rglob("jupyter_execute/*") if path.is_file()}

    before = {edition: pictures(edition) for edition in EDITIONS}
    kept = len(of_notebooks())
    book.change_cells("chapter.ipynb", redraw)
    book.build()
    for edition in EDITIONS:
        now = pictures(edition)
        assert len(now) == len(before[edition])
        assert now.isdisjoint(before[edition])
        assert all(name in book.page(edition, "chapter") for name in now)
    assert len(of_notebooks()) == kept


def test_a_file_is_new_by_its_content_not_by_its_time(book: Book) -> None:
    path = book.source / "more.md"
    book.change("more.md", "A page", "An older page")
    os.utime(path, (0, 0))
    book.build()
    assert "An older page" in book.page("en", "more")


def test_a_label_moves_to_an_earlier_page(book: Book) -> None:
    """Both pages are read again; for a moment the label must not be there twice."""
    book.change("more.md", "(more)=", "(lost)=")
    book.change("chapter.ipynb", "(nf2)=", "(more)=")
    book.change("more.md", "(lost)=", "(nf2)=")
    book.build()
    book.mend()
    book.build()


def test_a_title_changes_on_all_pages(book: Book) -> None:
    book.change("more.md", "# More", "# Much more")
    book.build()
    for page in ("index", "chapter", "claims"):
        assert "Much more" in book.page("en", page)


def test_a_number_changes_on_all_pages(book: Book) -> None:
    """A figure more on a page makes the next page's figure the second."""
    book.change("_toc.yml", CHAPTERS, "")
    book.change("_toc.yml", "file: more\n", f"file: more\n{CHAPTERS}")
    book.change("claims.md", "# Claims\n", "# Claims\n\n{numref}`fig-nf1` shows it.\n")
    book.build()
    for page in ("chapter", "claims"):
        assert "Fig. 1" in book.page("en", page)
    figure = "```{figure} dot.svg\n:alt: A dot\n\nA dot.\n```\n"
    dot = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    (book.source / "dot.svg").write_text(dot)
    book.change("more.md", "\n+++", f"\n{figure}\n+++")
    book.build()
    for page in ("chapter", "claims"):
        assert "Fig. 2" in book.page("en", page)


def test_the_words_of_an_edition_are_its_own(book: Book) -> None:
    """Also when the other edition was built before it in the same process."""
    book.change("more.md", "A page", "Another page")
    book.build()
    assert "Link to this heading" in book.page("en", "more")
    assert hebrew()["sphinx"]["Link to this heading"] in book.page("he", "more")


def test_a_style_changes_on_all_pages(
    book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "book"
    shutil.copytree(BOOK, copy, ignore=shutil.ignore_patterns("node_modules", "engine"))
    with (copy / "styles" / "10-base.css").open("a") as file:
        file.write("html { color: red; }\n")
    for module in (fresh, frontend):
        monkeypatch.setattr(module, "BOOK", copy)
    monkeypatch.setattr(frontend, "install", lambda: None)
    book.build()
    sheet = book.site / "en" / "_static" / "site.css"
    assert "color: red" in sheet.read_text(encoding="utf-8")
    version = hashlib.sha256(sheet.read_bytes()).hexdigest()[:8]
    for page in ("index", "chapter", "more", "claims", "search"):
        assert f"site.css?v={version}" in book.page("en", page)


def test_a_new_engine_makes_all_pages_again(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    forget = fresh._forget

    def watch(app: Any, env: Any, docnames: list[str]) -> None:
        seen.append(set(docnames))
        forget(app, env, docnames)

    monkeypatch.setattr(fresh, "_forget", watch)
    for engine in ("old", "old", "new"):
        with monkeypatch.context() as patch:
            patch.setattr(build, "digest", lambda engine=engine: engine)
            book.build()
    pages = {"index", "chapter", "more", "claims", "book/glossary", "book/references"}
    assert seen == [pages, pages, set(), set(), pages, pages]


def test_the_digest_knows_what_pages_are_read_with() -> None:
    program = (
        "import sys\n"
        "from engine import fresh, frontend, katex, pages, reader, results, search\n"
        "for module in list(sys.modules.values()):\n"
        "    print(getattr(module, '__file__', None) or '')"
    )
    root = BOOK.parent
    environment = {**os.environ, "PYTHONPATH": f"{BOOK}{os.pathsep}{root}"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    ours = {
        path
        for path in map(Path, done.stdout.split())
        if path.is_relative_to(BOOK) or path.is_relative_to(root / "course_utils")
    }
    assert root / "course_utils" / "places.py" in ours
    assert ours <= set(made_with())


# --- live figures ---


def state_of(page: str) -> str:
    """The state that a page's live figure names."""
    return page.split('data-state="')[1].split('"')[0]


def test_two_live_figures_of_one_name_keep_their_states(book: Book) -> None:
    def other(cell: dict[str, Any]) -> None:
        for output in cell.get("outputs", []):
            if "state" in output.get("metadata", {}).get("text/html", {}):
                output["metadata"]["text/html"]["state"] = {"layers": 3}
            if "text" in output:
                output["text"] = output["text"].replace("NF", "OTHER")
        if "figure" in cell["metadata"]:
            cell["metadata"]["figure"]["name"] = "fig-other"
        for old, new in (
            ("(nf", "(other"),
            ("#nf", "#other"),
            ("eq-", "eq2-"),
            ("fig-nf1", "fig-other"),
        ):
            cell["source"] = cell["source"].replace(old, new)

    shutil.copy(book.source / "chapter.ipynb", book.source / "second.ipynb")
    book.change_cells("second.ipynb", other)
    book.change("second.ipynb", '"picture": "fig-nf1"', '"picture": "fig-other"')
    book.change("_toc.yml", "file: more", "file: more\n      - file: second")
    book.build()
    for edition in EDITIONS:
        live = book.site / edition / "_static" / "live"
        for page, layers in (("chapter", 7), ("second", 3)):
            state = state_of(book.page(edition, page))
            assert state.startswith("chapter/dot-")
            assert json.loads((live / f"{state}.json").read_text()) == {
                "layers": layers
            }
        assert len(list(live.rglob("*.json"))) == 2
    book.mend()
    book.build()
    for edition in EDITIONS:
        assert len(list((book.site / edition).rglob("dot-*.json"))) == 1


def test_an_old_state_goes(book: Book) -> None:
    old = state_of(book.page("en", "chapter"))
    book.change("chapter.ipynb", '"layers": 7', '"layers": 8')
    book.build()
    new = state_of(book.page("en", "chapter"))
    assert old != new
    for folder in (book.site, book.folder / "site-work"):
        kept = {path.stem for path in folder.rglob("live/chapter/*.json")}
        assert kept == {Path(new).name}


def test_a_removed_panel_goes(book: Book) -> None:
    module = book.source / "course_utils" / "live" / "extra.js"
    module.write_text(minibook.LIVE)
    book.build()
    published = book.site / "en" / "_static" / "live" / "extra.js"
    assert published.is_file()
    module.unlink()
    book.build()
    assert not published.exists()


# --- after all these changes ---


def test_the_site_is_the_one_of_a_first_build(book: Book) -> None:
    def comparable(site: Path) -> dict[str, Any]:
        files: dict[str, Any] = contents(site)
        for edition in EDITIONS:
            files[f"{edition}/searchindex.js"] = search_index(site / edition)
        return files

    book.change("more.md", "A page", "Another page")
    book.build()
    book.mend()
    book.build()
    build.build_site(book.source, book.folder / "first")
    assert comparable(book.site) == comparable(book.folder / "first")
