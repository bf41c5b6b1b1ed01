"""The site engine: one source, two editions, no scripts that a page does not use.

A Sphinx extension, loaded by ``_config.yml``. Each module does one thing:

* ``reader``    notebooks: picks one language, takes live figures out of widget outputs
* ``roles``     what code cells are for, and which of them fold
* ``opening``   how a chapter opens
* ``claims``    claims and measured tables in the reader's language
* ``words``     words of figures and tables in Hebrew
* ``figures``   draws them in Hebrew, in the kernel of a refresh
* ``pages``     prose pages, section ids, the template's words, finishing the HTML
* ``direction`` what keeps its order and place within Hebrew lines
* ``home``      the cards and the moving picture of the home page
* ``glossary``  terms, and the links to them
* ``katex``     formulas, rendered while the book is built
* ``frontend``  Node, npm packages, the stylesheet and the scripts
* ``search``    Hebrew search that sees through prefix letters
* ``results``   the ``{claims}`` directive
* ``sources``   the papers that chapters cite
* ``fresh``     what a build takes over from the one before it
* ``strings``   the Hebrew words of the site
* ``build``     both editions and the page that chooses between them
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

BOOK = Path(__file__).resolve().parent.parent


def made_with() -> list[Path]:
    """The files that pages are read with: code, words, formulas."""
    return [
        *sorted(BOOK.glob("engine/*.py")),
        *sorted(BOOK.glob("strings/*")),
        *sorted(BOOK.glob("scripts/*.mjs")),
        BOOK / "references.bib",
        BOOK / "package-lock.json",
        *sorted(BOOK.parent.glob("course_utils/*.py")),
    ]


def digest() -> str:
    """A digest of what pages are read with: when it changes, all are made again."""
    content = b"".join(path.read_bytes() for path in made_with())
    return hashlib.sha256(content).hexdigest()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register everything with Sphinx."""
    from engine import (
        direction,
        fresh,
        frontend,
        glossary,
        home,
        katex,
        pages,
        reader,
        results,
        search,
        sources,
        strings,
    )

    app.add_html_theme("companion", str(BOOK / "templates"))
    # The address of the other edition's root, relative to this one's; empty if there
    # is none.
    app.add_config_value("edition_sibling", "", "html", str)
    app.add_config_value("engine_digest", digest(), "env", str)
    # jupyter-book sets this for an extension that the book does not load.
    app.add_config_value("comments_config", {}, "", dict)
    modules = [strings, frontend, katex, reader, pages, sources, glossary, home]
    for module in [*modules, direction, search, results, fresh]:
        module.register(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": False}
