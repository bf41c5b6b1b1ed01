"""The papers that chapters cite: ``book/references.bib``, wherever the book stands."""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.config import Config

from engine import BOOK


def _configure(app: Sphinx, config: Config) -> None:
    config.bibtex_bibfiles = [str(BOOK / "references.bib")]
    config.bibtex_reference_style = "author_year"
    config.bibtex_tooltips = False  # previews show the same, and are no English titles


def register(app: Sphinx) -> None:
    """Load ``sphinxcontrib.bibtex`` with the book's file."""
    app.connect("config-inited", _configure)
    app.setup_extension("sphinxcontrib.bibtex")
