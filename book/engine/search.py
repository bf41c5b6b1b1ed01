"""Search in Hebrew: a word is found with or without its prefix letters.

ו ה ב ל מ ש כ are written together with the word they introduce. Index and query both
drop them, as long as three letters stay, so that מודל, המודל and שבמודל are one word.
"""

from __future__ import annotations

from sphinx import search as sphinx_search
from sphinx.application import Sphinx

PREFIXES = "והבלמשכ"
SHORTEST = 3


class HebrewSearch(sphinx_search.SearchLanguage):
    """Drops prefix letters; the script below does the same in the browser."""

    lang = "he"
    language_name = "Hebrew"
    js_stemmer_code = f"""
var Stemmer = function () {{
  this.stemWord = function (word) {{
    while (word.length > {SHORTEST} && "{PREFIXES}".includes(word[0]))
      word = word.slice(1);
    return word;
  }};
}};
"""

    def stem(self, word: str) -> str:
        while len(word) > SHORTEST and word[0] in PREFIXES:
            word = word[1:]
        return word


def register(app: Sphinx) -> None:
    """Make Hebrew a search language of Sphinx."""
    sphinx_search.languages["he"] = HebrewSearch
