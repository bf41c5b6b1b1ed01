"""The papers that chapters cite: ``book/references.bib``, wherever the book stands."""

from __future__ import annotations

import os
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

from engine import BOOK


def _find(app: Sphinx, config: Config) -> None:
    """The extension wants the file's path from the book's sources."""
    config.bibtex_bibfiles = [
        Path(os.path.relpath(BOOK / "references.bib", app.srcdir)).as_posix()
    ]


def register(app: Sphinx) -> None:
    """Load ``sphinxcontrib.bibtex`` with the book's file."""
    app.connect("config-inited", _find)
    app.setup_extension("sphinxcontrib.bibtex")
