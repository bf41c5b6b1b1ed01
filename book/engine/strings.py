"""The Hebrew words of the site, kept in one file: ``book/strings/he.yml``."""

from __future__ import annotations

import functools
from gettext import NullTranslations
from typing import Any

import sphinx.locale
import yaml
from sphinx.application import Sphinx
from sphinx.config import Config

from engine import BOOK


@functools.cache
def hebrew() -> dict[str, Any]:
    """The content of ``he.yml``."""
    text = (BOOK / "strings" / "he.yml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def translate(word: str, language: str, group: str = "words") -> str:
    """An English word of the site in ``language``.

    Raises:
        KeyError: if the Hebrew word is missing.
    """
    if language != "he":
        return word
    try:
        return str(hebrew()[group][word])
    except KeyError:
        raise KeyError(
            f"book/strings/he.yml has no {group!r} entry for {word!r}"
        ) from None


class _Supplement(NullTranslations):
    """Sphinx words that its own Hebrew catalogue lacks."""

    def gettext(self, message: str) -> str:
        return str(hebrew()["sphinx"].get(message, message))


def _supplement_sphinx(app: Sphinx) -> None:
    if app.config.language == "he":
        sphinx.locale.translators["general", "sphinx"].add_fallback(_Supplement())


def _name_numbered_things(app: Sphinx, config: Config) -> None:
    if config.language == "he":
        config.numfig_format = {**hebrew()["numbered"], **config.numfig_format}


def register(app: Sphinx) -> None:
    """Complete Sphinx's catalogue when the Hebrew edition is built."""
    app.connect("config-inited", _name_numbered_things)
    app.connect("builder-inited", _supplement_sphinx)
