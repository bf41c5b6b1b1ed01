"""The site engine: one source, two editions, no scripts that a page does not use.

A Sphinx extension, loaded by ``_config.yml``. Each module does one thing:

* ``reader``    notebooks: picks one language, takes live figures out of widget outputs
* ``pages``     prose pages, section ids, the template's words, finishing the HTML
* ``katex``     formulas, rendered while the book is built
* ``frontend``  Node, npm packages, the stylesheet and the scripts
* ``search``    Hebrew search that sees through prefix letters
* ``results``   the ``{claims}`` directive
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
        BOOK / "package-lock.json",
        *sorted(BOOK.parent.glob("course_utils/*.py")),
    ]


def digest() -> str:
    """A digest of what pages are read with: when it changes, all are made again."""
    content = b"".join(path.read_bytes() for path in made_with())
    return hashlib.sha256(content).hexdigest()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register everything with Sphinx."""
    from engine import fresh, frontend, katex, pages, reader, results, search, strings

    app.add_html_theme("companion", str(BOOK / "templates"))
    # The address of the other edition's root, relative to this one's; empty if there
    # is none.
    app.add_config_value("edition_sibling", "", "html", str)
    app.add_config_value("engine_digest", digest(), "env", str)
    # jupyter-book sets this for an extension that the book does not load.
    app.add_config_value("comments_config", {}, "", dict)
    for module in (strings, frontend, katex, reader, pages, search, results, fresh):
        module.register(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": False}
