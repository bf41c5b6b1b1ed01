"""Both editions and the page that chooses between them: ``python -m engine.build``.

The Hebrew configuration and table of contents are derived from ``_config.yml`` and
``_toc.yml`` with the words of ``book/strings/he.yml``; they are written under
``_build`` and never edited.

What a build says does not depend on what an earlier one left. Each edition is built in
a copy of its last build that ended well, made with the same settings; a build that
fails or is interrupted leaves nothing. Both editions are published together or not at
all, and what is published is complete at any time.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jinja2
import sphinx.locale
import yaml
from jupyter_book.sphinx import build_sphinx

from course_utils.console import say
from engine import BOOK, digest
from engine.pages import DIRECTIONS
from engine.pairs import ROOT
from engine.strings import hebrew

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

READ = {"en": "Read in English", "he": "לקריאה בעברית"}


def edition_config(config: dict[str, Any], language: str) -> dict[str, Any]:
    """The configuration of one edition of a two-edition site."""
    edition = copy.deepcopy(config)
    settings = edition["sphinx"]["config"]
    settings["edition_sibling"] = "../" + ("en" if language == "he" else "he")
    # The edition's configuration is written elsewhere: its paths must not depend on
    # where.
    local = edition["sphinx"]["local_extensions"]
    edition["sphinx"]["local_extensions"] = {
        name: str(ROOT / path) for name, path in local.items()
    }
    edition["html"]["favicon"] = str(ROOT / config["html"]["favicon"])
    if language == "he":
        edition["title"] = hebrew()["title"]
        edition["author"] = hebrew()["author"]
        settings["language"] = "he"
        for reader in settings["nb_custom_formats"].values():
            reader[1]["lang"] = "he"
    return edition


def edition_toc(toc: dict[str, Any], language: str) -> dict[str, Any]:
    """The table of contents with the captions of one edition.

    Raises:
        KeyError: if a part has no Hebrew name.
    """
    edition = copy.deepcopy(toc)
    if language == "he":
        for part in edition.get("parts", []):
            if part["caption"] not in hebrew()["captions"]:
                raise KeyError(
                    f"book/strings/he.yml has no caption for {part['caption']!r}"
                )
            part["caption"] = hebrew()["captions"][part["caption"]]
    return edition


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Work in ``folder`` when no other build does; the system ends a dead one's turn.

    Where files cannot be locked (Windows, some network drives) nobody waits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another build in {folder}", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                pass
        try:
            yield
        finally:
            if fcntl is not None:  # a process that was started meanwhile has it too
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)


def _packages() -> list[str]:
    """The installed packages with their versions."""
    folders = [Path(folder) for folder in sys.path]
    return sorted(path.name for one in folders for path in one.glob("*.dist-info"))


def _remove(path: Path) -> None:
    """Remove a folder, if it is there."""
    if path.exists():
        shutil.rmtree(path)


def _replace(path: Path, new: Path) -> None:
    """Put the folder ``new`` in the place of ``path``; half of it is never there."""
    old = new.with_name(f"{new.name}-old")
    _remove(old)
    if path.exists():
        path.rename(old)
    new.rename(path)
    _remove(old)


def _take_over(kept: Path, work: Path, note: str) -> None:
    """Make ``work`` a copy of the build in ``kept``, or empty if its note differs.

    The engine's own static files are left out: they are written anew by each build.
    """
    _remove(work)
    noted = kept / "note.json"
    if noted.is_file() and noted.read_text(encoding="utf-8") == note:
        shutil.copytree(kept, work)
        for folder in ("live", "fonts"):
            _remove(work / "html" / "_static" / folder)
    work.mkdir(parents=True, exist_ok=True)


def _build_edition(
    source: Path, work: Path, config: dict[str, Any], toc: dict[str, Any]
) -> Path:
    """Build one edition, warnings being errors; return its folder.

    Sphinx notes where it works, so each build works in the same folder. When it ends
    well, the folder is kept under another name, for the next build to start from.

    Raises:
        SystemExit: if the build fails.
    """
    kept = work.with_name(f"{work.name}-kept")
    made_with = [str(source), config, toc, digest(), sys.version, _packages()]
    note = json.dumps(made_with, ensure_ascii=False)
    _take_over(kept, work, note)
    for name, content in (("_config.yml", config), ("_toc.yml", toc)):
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        (work / name).write_text(text, encoding="utf-8")
    sphinx.locale.translators.clear()  # of the edition that was built before
    result = build_sphinx(
        source,
        work / "html",
        noconfig=True,
        path_config=work / "_config.yml",
        confoverrides={
            "external_toc_path": str(work / "_toc.yml"),
            "latex_individualpages": False,
        },
        doctreedir=work / "doctrees",
        quiet=True,
        warningiserror=True,
        keep_going=True,
    )
    if result:  # a status, or an exception
        language = config["sphinx"]["config"]["language"]
        raise SystemExit(f"the {language} edition did not build; nothing is published")
    (work / "note.json").write_text(note, encoding="utf-8")
    _replace(kept, work)
    return kept / "html"


def build_site(source: Path, target: Path, toc_path: Path | None = None) -> None:
    """Build ``source`` into ``target/en``, ``target/he`` and ``target/index.html``.

    Raises:
        SystemExit: if an edition does not build; ``target`` stays as it was.
    """
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    toc = yaml.safe_load((toc_path or source / "_toc.yml").read_text(encoding="utf-8"))
    configs = {language: edition_config(config, language) for language in DIRECTIONS}
    work = target.parent / f"{target.name}-work"
    with _alone(work):
        built = {
            language: _build_edition(
                source, work / language, edition, edition_toc(toc, language)
            )
            for language, edition in configs.items()
        }
        _publish(built, _chooser(configs, toc["root"]), target)


def _chooser(configs: dict[str, dict[str, Any]], home: str) -> str:
    """The page that chooses between the editions."""
    editions = {
        language: {
            "title": config["title"],
            "dir": DIRECTIONS[language],
            "read": READ[language],
        }
        for language, config in configs.items()
    }
    logo = Path(configs["en"]["html"]["favicon"]).name
    template = (BOOK / "templates" / "chooser.html").read_text(encoding="utf-8")
    page = jinja2.Template(template, autoescape=True)
    return page.render(editions=editions, home=f"{home}.html", logo=logo) + "\n"


def _publish(editions: dict[str, Path], index: str, target: Path) -> None:
    """Copy the editions and the page that chooses; show them when all are there."""
    draft = target / ".draft"
    _remove(draft)
    draft.mkdir(parents=True)
    for language, folder in editions.items():
        unpublished = shutil.ignore_patterns(".buildinfo")
        shutil.copytree(folder, draft / language, ignore=unpublished)
    (draft / "index.html").write_text(index, encoding="utf-8")
    for language in editions:
        _replace(target / language, draft / language)
    (draft / "index.html").replace(target / "index.html")
    _remove(draft)


def main() -> None:
    """Build this repository's book into ``_build/site``, or where the arguments say."""
    parser = argparse.ArgumentParser(description="Build both editions of the book.")
    parser.add_argument("--source", type=Path, default=ROOT)
    parser.add_argument("--target", type=Path, default=ROOT / "_build" / "site")
    arguments = parser.parse_args()
    build_site(arguments.source.resolve(), arguments.target.resolve())
    say(f"The book is in {arguments.target}")


if __name__ == "__main__":
    main()
