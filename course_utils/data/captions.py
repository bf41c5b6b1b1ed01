"""Captions of coloured digits, in English and in Hebrew, and the words of them.

A caption says a digit, a colour, or both:

    a red seven · seven in red · the digit 7 in red · something red · a seven
    שבע אדום · שבע אדומה · הספרה שבע באדום · משהו אדום · הספרה 7

One vocabulary holds the words of both languages. A text becomes the places of its words
in it, a row of whole numbers; :data:`PAD` stands after the last word. Upper and lower
case, spaces, punctuation and the points of Hebrew make no difference.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from difflib import get_close_matches
from functools import cache
from itertools import product
from math import prod
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from course_utils.checks import check_count, check_labels, check_number, check_option
from course_utils.data.colours import NAMES
from course_utils.distributions import uniform

Language = Literal["en", "he"]
Text = TypeVar("Text", bound=str)
LANGUAGES: tuple[Language, ...] = ("en", "he")
PAD = 0  # in the place of a word that is not there
NONE = -1  # in the place of a digit or a colour that is not said

# --- words ----------------------------------------------------------------------------

# the first of each is the one that `describe` says
DIGIT_WORDS: dict[Language, tuple[tuple[str, ...], ...]] = {
    "en": (
        *(("zero", "0"), ("one", "1"), ("two", "2"), ("three", "3"), ("four", "4")),
        *(("five", "5"), ("six", "6"), ("seven", "7"), ("eight", "8"), ("nine", "9")),
    ),
    "he": (
        ("אפס", "0"),
        ("אחת", "אחד", "1"),
        ("שתיים", "שניים", "שתים", "2"),
        ("שלוש", "שלושה", "3"),
        ("ארבע", "ארבעה", "4"),
        ("חמש", "חמישה", "5"),
        ("שש", "שישה", "6"),
        ("שבע", "שבעה", "7"),
        ("שמונה", "8"),
        ("תשע", "תשעה", "9"),
    ),
}
# in Hebrew masculine, then feminine: a digit is one or the other, as its speaker likes
COLOUR_WORDS: dict[Language, tuple[tuple[str, str], ...]] = {
    "en": tuple((name, name) for name in NAMES),
    "he": (
        ("אדום", "אדומה"),
        ("כתום", "כתומה"),
        ("צהוב", "צהובה"),
        ("ירוק", "ירוקה"),
        ("טורקיז", "טורקיז"),
        ("תכלת", "תכולה"),
        ("כחול", "כחולה"),
        ("סגול", "סגולה"),
        ("ורוד", "ורודה"),
        ("לבן", "לבנה"),
    ),
}
# {d}: a digit; {c}, {f}: a colour, masculine and feminine. The first that says both is
# the one that `describe` says.
FORMS: dict[Language, tuple[str, ...]] = {
    "en": (
        *("a {c} {d}", "{c} {d}", "{d} in {c}", "a {d} in {c}", "a {d}, {c}"),
        *("the digit {d} in {c}", "the {c} digit {d}", "a picture of a {c} {d}"),
        *("a {d}", "{d}", "the digit {d}", "the digit {d} in any colour"),
        *("something {c}", "a {c} digit", "a digit in {c}", "any digit in {c}"),
    ),
    "he": (
        *("הספרה {d} ב{c}", "{d} {c}", "{d} {f}", "{d} ב{c}", "ספרה {d} ב{c}"),
        *("{d} בצבע {c}", "הספרה {d} בצבע {c}", "תמונה של {d} {f}"),
        *("{d}", "ספרה {d}", "הספרה {d}", "הספרה {d} בכל צבע"),
        *("משהו {c}", "ספרה {f}", "ספרה ב{c}", "ספרה כלשהי בצבע {c}"),
    ),
}


_POINTS = "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"  # of Hebrew
_POINTED = re.compile(rf"(\w)({_POINTS}+)")
_NEXT = re.compile(rf"(\w)({_POINTS}*)")
_SHEVA, _HIRIQ, _SOUNDS_LIKE_VAV = "\u05b0", "\u05b4", "\u05b9\u05bb"  # holam, qubuts


def plain_words(text: str) -> list[str]:
    """The words of a text in lower case, without points, accents and punctuation.

    Raises:
        TypeError: no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"a prompt must be text, got {type(text).__name__}")
    parts = unicodedata.normalize("NFKD", text)
    letters = [
        sign
        for sign in _POINTED.sub(_without_points, parts)
        # without accents, and marks that only say how a text is set
        if unicodedata.category(sign) not in ("Mn", "Cf")
    ]
    return re.findall(r"[^\W_]+", "".join(letters).casefold())


def _without_points(found: re.Match[str]) -> str:
    """A letter as it is written without points: אָדֹם is אדום, and שִׁשָּׁה is שישה."""
    letter, points = found.groups()
    if letter != "ו" and any(point in points for point in _SOUNDS_LIKE_VAV):
        return letter + "ו"
    after = _NEXT.match(found.string, found.end())
    if _HIRIQ in points and after and after[1] != "י" and _SHEVA not in after[2]:
        return letter + "י"
    return letter


class UnknownWordsError(ValueError):
    """A prompt has words that no caption has.

    Attributes:
        words: these words.
    """

    def __init__(self, prompt: str, words: Sequence[str], known: Iterable[str]) -> None:
        self.words = list(words)
        near = {w: get_close_matches(w, list(known), n=1, cutoff=0.7) for w in words}
        hints = [
            f"{word} (perhaps {found[0]}?)" for word, found in near.items() if found
        ]
        said = ", ".join(hints + [word for word, found in near.items() if not found])
        super().__init__(
            f"a prompt must be made of words that captions have, got {prompt!r} with"
            f" words that none has: {said}"
        )


class Vocabulary:
    """Words and their places.

    Args:
        words: a row of all words, each once; the first has place 1.
        length: L, how many words a prompt may have.

    Raises:
        TypeError, ValueError: a word that :func:`plain_words` would change, one that
            comes twice, none.
    """

    def __init__(self, words: Iterable[str], length: int = 8) -> None:
        self.words = _row_of("words", words)
        self.length = check_count("length", length)
        for word in self.words:
            if plain_words(word) != [word]:
                raise ValueError(f"a word must be one plain word, got {word!r}")
        self.place = {word: place for place, word in enumerate(self.words, 1)}
        if not self.words or len(self.place) < len(self.words):
            raise ValueError("there must be words, each once")

    def __len__(self) -> int:
        """How many rows a table of the words needs, that of :data:`PAD` included."""
        return len(self.words) + 1

    @property
    def fingerprint(self) -> str:
        """Says exactly which words these are."""
        return f"{self.length}-" + "-".join(self.words)

    def encode(self, prompts: Sequence[str], *, unknown: str = "refuse") -> Tensor:
        """The places of the words of each prompt, int64, (B, L).

        Args:
            prompts: texts.
            unknown: ``refuse`` a prompt with words that are not here, or ``skip`` them;
                where none is left the row holds :data:`PAD` alone.

        Raises:
            TypeError: no row of texts.
            UnknownWordsError: words that are not here.
            ValueError: a prompt without words or with more than L of them.
        """
        check_option("unknown", unknown, ("refuse", "skip"))
        texts = _row_of("prompts", prompts)
        rows = [self._row(prompt, unknown == "skip") for prompt in texts]
        padded = [row + [PAD] * (self.length - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64).view(-1, self.length)

    def _row(self, prompt: str, skip: bool) -> list[int]:
        words = plain_words(prompt)
        if not words:
            raise ValueError(
                f"a prompt must have at least one word, got {prompt!r}; without a text,"
                " give no condition (None)"
            )
        missing = [word for word in words if word not in self.place]
        if missing and not skip:
            raise UnknownWordsError(prompt, missing, self.words)
        row = [self.place[word] for word in words if word in self.place]
        if len(row) > self.length:
            raise ValueError(
                f"a prompt must have at most {self.length} words, got {len(row)} in"
                f" {prompt!r}"
            )
        return row


def _row_of(name: str, texts: Iterable[Text]) -> tuple[Text, ...]:
    """Texts that come in an order.

    Raises:
        TypeError: one text alone, or what has no order.
    """
    if isinstance(texts, str | bytes):
        raise TypeError(f"{name} must be a row of texts, got one text {texts!r}")
    if isinstance(texts, Mapping | Set) or not isinstance(texts, Iterable):
        got = type(texts).__name__
        raise TypeError(f"{name} must be a row of texts, got {got}")
    return tuple(texts)


# --- captions -------------------------------------------------------------------------


def phrases(
    language: Language, digit: int | None, colour: int | None
) -> tuple[str, ...]:
    """All captions that say this digit, this colour, or both.

    Args:
        language: en or he.
        digit: from 0 to 9, or None for a caption that does not say it.
        colour: a place among the colours, or None.

    Raises:
        TypeError, ValueError: another language; a digit or colour that there is not;
            neither of them.
    """
    check_option("language", language, LANGUAGES)
    if digit is None and colour is None:
        raise ValueError("a caption must say a digit or a colour, got neither")
    said = {"d": digit is not None, "c": colour is not None}
    forms = [f for f in FORMS[language] if _says(f) == said]
    digits = ("",) if digit is None else DIGIT_WORDS[language][_place("digit", digit)]
    names = ("", "")
    if colour is not None:
        names = COLOUR_WORDS[language][_place("colour", colour)]
    found = [
        after_prefix(_with_article(form.format(d=d, c=names[0], f=names[1])))
        for form, d in product(forms, digits)
    ]
    return tuple(dict.fromkeys(found))


def describe(language: Language, digit: int | None, colour: int | None) -> str:
    """The usual caption: "a red seven", "הספרה שבע באדום"; see :func:`phrases`."""
    return phrases(language, digit, colour)[0]


def _says(form: str) -> dict[str, bool]:
    """What a form has a place for."""
    return {"d": "{d}" in form, "c": "{c}" in form or "{f}" in form}


def _place(name: str, value: int) -> int:
    """Return a digit or a colour if there is one of this number."""
    value = check_count(name, value, least=0)
    if value >= len(NAMES):
        raise ValueError(f"{name} must lie in 0 … {len(NAMES) - 1}, got {value}")
    return value


def _with_article(text: str) -> str:
    """ "an orange two", "an eight": before a vowel, "a" is "an"."""
    return re.sub(r"\ba (?=[aeio8])(?!one\b)", "an ", text)


def after_prefix(text: str) -> str:
    """A text with the prefix ב as Hebrew writes it: ורוד, but בוורוד, with two vavs."""
    return re.sub(r"\bבו(?=רוד)", "בוו", text)


class Captions:
    """Captions drawn at random for digits and colours.

    Args:
        languages: of the captions, each once and as often as the others.
        partial: share of the captions that say the digit alone or the colour alone,
            half of them each.

    Attributes:
        vocabulary: of all captions in both languages.

    Raises:
        TypeError, ValueError: no language, one that comes twice or that there is not;
            a share outside [0, 1].
    """

    def __init__(
        self, languages: Sequence[Language] = LANGUAGES, partial: float = 0.2
    ) -> None:
        self.partial = check_number("partial", partial)
        if not 0 <= self.partial <= 1:
            raise ValueError(f"partial must lie in [0, 1], got {partial!r}")
        self.languages = _row_of("languages", languages)
        for language in self.languages:
            check_option("language", language, LANGUAGES)
        if not self.languages or len(set(self.languages)) < len(self.languages):
            raise ValueError(f"there must be languages, each once, got {languages!r}")
        self.vocabulary = book_vocabulary()
        asked = [
            torch.cat([self._even(one, *key) for one in self.languages])
            for key in _KEYS
        ]
        self.table = pad_sequence(asked, batch_first=True, padding_value=PAD)
        self.count = torch.tensor([*map(len, asked)])

    @property
    def fingerprint(self) -> str:
        """Says exactly which captions these are."""
        told = "-".join(self.languages)
        return f"{told}-{self.partial!r}-{self.vocabulary.fingerprint}"

    def _even(
        self, language: Language, digit: int | None, colour: int | None
    ) -> Tensor:
        """The phrases, so often that each language has as many: the others' product."""
        mine = self.vocabulary.encode(phrases(language, digit, colour))
        others = [
            len(phrases(other, digit, colour))
            for other in self.languages
            if other != language
        ]
        return mine.repeat(prod(others), 1)

    def draw(
        self,
        digit: Tensor,
        colour: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """A caption for each digit and colour (B,), as places of words (B, L).

        Raises:
            TypeError, ValueError: digits or colours that there are not.
        """
        batch = digit.numel() if isinstance(digit, Tensor) else 0
        for part in (digit, colour):
            check_labels(part, classes=len(NAMES), batch=batch)
        here = digit.device
        share = uniform((2, len(digit)), digit, generator)
        digit = digit.masked_fill(share[0] < self.partial / 2, NONE)
        colour = colour.masked_fill(share[0] > 1 - self.partial / 2, NONE)
        # the place in _KEYS, which lack the first of all pairs, (None, None)
        key = (digit + 1) * (len(NAMES) + 1) + colour
        count = self.count.to(here)[key]
        which = (share[1] * count).long().clamp(max=count - 1)
        return self.table.to(here)[key, which]


_SAID: tuple[int | None, ...] = (None, *range(len(NAMES)))
_KEYS = [(d, c) for d in _SAID for c in _SAID if (d, c) != (None, None)]


@cache
def book_vocabulary() -> Vocabulary:
    """All words of all captions, in both languages."""
    texts = [
        text
        for language in LANGUAGES
        for key in _KEYS
        for text in phrases(language, *key)
    ]
    return Vocabulary(sorted({word for text in texts for word in plain_words(text)}))
