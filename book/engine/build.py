"""Both editions and the page that chooses between them: ``python -m engine.build``.

The Hebrew configuration and table of contents are derived from ``_config.yml`` and
``_toc.yml`` with the words of ``book/strings/he.yml``; they are written under
``_build`` and never edited.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import sys
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jupyter_book.sphinx import build_sphinx

from engine import BOOK
from engine.pages import DIRECTIONS
from engine.pairs import ROOT
from engine.strings import hebrew

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


def _build_edition(
    source: Path, work: Path, config: dict[str, Any], toc: dict[str, Any]
) -> Path:
    """Build one edition, warnings being errors; return its folder.

    Raises:
        SystemExit: if the build fails.
    """
    work.mkdir(parents=True, exist_ok=True)
    for name, content in (("_config.yml", config), ("_toc.yml", toc)):
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        (work / name).write_text(text, encoding="utf-8")
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
    if isinstance(result, Exception) or result:
        raise SystemExit(
            f"the {config['sphinx']['config']['language']} edition did not build"
        )
    return work / "html"


def build_site(source: Path, target: Path, toc_path: Path | None = None) -> None:
    """Build ``source`` into ``target/en``, ``target/he`` and ``target/index.html``."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    toc = yaml.safe_load((toc_path or source / "_toc.yml").read_text(encoding="utf-8"))
    editions: dict[str, dict[str, str]] = {}
    target.mkdir(parents=True, exist_ok=True)
    for language, direction in DIRECTIONS.items():
        edition = edition_config(config, language)
        work = target.parent / f"{target.name}-work" / language
        built = _build_edition(source, work, edition, edition_toc(toc, language))
        shutil.rmtree(target / language, ignore_errors=True)
        shutil.copytree(
            built, target / language, ignore=shutil.ignore_patterns(".buildinfo")
        )
        editions[language] = {
            "title": edition["title"],
            "dir": direction,
            "read": READ[language],
        }
    template = (BOOK / "templates" / "chooser.html").read_text(encoding="utf-8")
    page = jinja2.Template(template, autoescape=True).render(
        editions=editions,
        home=f"{toc['root']}.html",
        logo=Path(config["html"]["favicon"]).name,
    )
    (target / "index.html").write_text(page + "\n", encoding="utf-8")


def main() -> None:
    """Build this repository's book into ``_build/site``, or where the arguments say."""
    parser = argparse.ArgumentParser(description="Build both editions of the book.")
    parser.add_argument("--source", type=Path, default=ROOT)
    parser.add_argument("--target", type=Path, default=ROOT / "_build" / "site")
    arguments = parser.parse_args()
    build_site(arguments.source.resolve(), arguments.target.resolve())
    sys.stdout.write(f"The book is in {arguments.target}\n")


if __name__ == "__main__":
    main()
