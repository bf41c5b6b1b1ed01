"""Captions in two languages: what they say, how they are read and drawn."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from course_utils.data.captions import (
    COLOUR_WORDS,
    DIGIT_WORDS,
    LANGUAGES,
    PAD,
    Captions,
    Language,
    UnknownWordsError,
    Vocabulary,
    book_vocabulary,
    describe,
    phrases,
    plain_words,
)
from course_utils.data.colours import NAMES
from course_utils.notebook import seeded

VOCABULARY, CAPTIONS = book_vocabulary(), Captions()
SAID: list[int | None] = [None, *range(10)]
KEYS = [(d, c) for d, c in product(SAID, SAID) if (d, c) != (None, None)]


def words_of(row: Tensor) -> list[str]:
    """The words whose places stand in a row."""
    return [VOCABULARY.words[place - 1] for place in row.tolist() if place != PAD]


def digits_in(language: Language, words: list[str]) -> set[int]:
    """Which digits a caption names."""
    return {
        digit
        for digit, forms in enumerate(DIGIT_WORDS[language])
        if set(words) & set(forms)
    }


def colours_in(language: Language, words: list[str]) -> set[int]:
    """Which colours a caption names; in Hebrew a ב, "in", may stand before them."""
    if language == "he":
        words = [word.removeprefix("ב").replace("וורוד", "ורוד") for word in words]
    text = f" {' '.join(words)} "
    found = {
        colour: max(len(name) for name in names if f" {name} " in text)
        for colour, names in enumerate(COLOUR_WORDS[language])
        if any(f" {name} " in text for name in names)
    }
    longest = max(found.values(), default=0)  # sky blue is not blue
    return {colour for colour, size in found.items() if size == longest}


# --- what captions say ----------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_caption_says_its_digit_and_its_colour(language: Language) -> None:
    for digit, colour in KEYS:
        texts = phrases(language, digit, colour)
        assert len(set(texts)) == len(texts) > 0
        rows = VOCABULARY.encode(texts)
        assert rows.shape == (len(texts), VOCABULARY.length)
        assert rows.dtype == torch.int64
        for text, row in zip(texts, rows, strict=True):
            words = words_of(row)
            assert words == plain_words(text)
            assert digits_in(language, words) == ({digit} - {None}), text
            assert colours_in(language, words) == ({colour} - {None}), text


def test_no_two_digits_or_colours_share_a_word() -> None:
    for table in (DIGIT_WORDS, COLOUR_WORDS):
        for language in LANGUAGES:
            sets = [set(names) for names in table[language]]
            assert sum(map(len, sets)) == len(set().union(*sets))


@pytest.mark.parametrize(
    ("language", "digit", "colour", "expected"),
    [
        ("en", 7, 0, "a red seven"),
        ("en", 8, 1, "an orange eight"),
        ("en", 0, 5, "a sky blue zero"),
        ("en", 8, None, "an eight"),
        ("en", 1, None, "a one"),
        ("en", None, 1, "something orange"),
        ("he", 7, 0, "הספרה שבע באדום"),
        ("he", 4, 9, "הספרה ארבע בלבן"),
        ("he", None, 0, "משהו אדום"),
    ],
)
def test_the_usual_caption(
    language: Language, digit: int | None, colour: int | None, expected: str
) -> None:
    assert describe(language, digit, colour) == expected


@pytest.mark.parametrize("text", ["שבע אדום", "שבע אדומה", "7 אדומה", "שבעה בצבע אדום"])
def test_hebrew_takes_either_gender(text: str) -> None:
    assert text in phrases("he", 7, 0)


def test_an_stands_before_a_vowel_that_is_heard() -> None:
    for digit, colour in KEYS:
        for text in phrases("en", digit, colour):
            words = text.replace(",", "").split()
            for article, word in pairwise(words):
                if article in ("a", "an"):
                    heard = word in ("orange", "eight", "8")
                    assert (article == "an") is heard, text


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (("fr", 1, 1), ValueError, "language must be one of 'en', 'he', got 'fr'"),
        (("en", None, None), ValueError, "say a digit or a colour, got neither"),
        (("en", 10, 1), ValueError, "digit must lie in 0 … 9, got 10"),
        (("en", 1, 10), ValueError, "colour must lie in 0 … 9, got 10"),
        (("en", -1, 1), ValueError, "digit must be at least 0, got -1"),
        (("he", None, -1), ValueError, "colour must be at least 0, got -1"),
        (("en", "7", 1), TypeError, "digit must be a whole number, got '7'"),
        (("en", 1, 0.5), TypeError, "colour must be a whole number, got 0.5"),
    ],
)
def test_captions_of_what_there_is_not_are_refused(
    asked: tuple[Language, int, int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        phrases(*asked)


# --- how a text is read ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("A RED Seven!", "a red seven"),
        ("  a red,\n seven…\t", "a red seven"),
        ("“a”_red-seven?", "a red seven"),
        ("séven in réd", "seven in red"),
        ("７ in red", "7 in red"),  # a digit of full width
        ("שֶׁבַע אָדֹם", "שבע אדום"),
        ("שֶׁבַע אֲדֻמָּה", "שבע אדומה"),
        ("שֶׁבַע אֲדוּמָּה", "שבע אדומה"),
        ("שְׁתַּיִם בְּצֶבַע יָרֹק", "שתיים בצבע ירוק"),
        ("שִׁשָּׁה, חֲמִשָּׁה", "שישה חמישה"),
        ("שִׁבְעָה", "שבעה"),
        ("הַסִּפְרָה שְׁנַיִם", "הספרה שניים"),
        ("שבע־אדום", "שבע אדום"),  # a maqaf
        ("שבע \u200fא\u200eדום\u200f", "שבע אדום"),  # marks of direction
        ("\ufb2aבע אדום", "שבע אדום"),  # a letter and its point in one sign
    ],
)
def test_case_spaces_punctuation_and_points_make_no_difference(
    text: str, plain: str
) -> None:
    assert torch.equal(VOCABULARY.encode([text]), VOCABULARY.encode([plain]))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_mixed_prompt_is_read_word_by_word(language: Language) -> None:
    texts = [describe(language, digit, 3) for digit in range(10)]
    shouted = VOCABULARY.encode([f"«{text.upper()}»" for text in texts])
    assert torch.equal(shouted, VOCABULARY.encode(texts))
    assert words_of(VOCABULARY.encode(["red שבע"])[0]) == ["red", "שבע"]


def test_places_are_those_of_the_words_and_padding_follows() -> None:
    small = Vocabulary(["red", "seven"], length=3)
    assert len(small) == 3
    assert small.encode(["seven red", "red"]).tolist() == [[2, 1, PAD], [1, PAD, PAD]]
    assert small.encode([]).shape == (0, 3)
    assert small.fingerprint != Vocabulary(["seven", "red"], length=3).fingerprint
    assert small.fingerprint != Vocabulary(["red", "seven"]).fingerprint


def test_unknown_words_are_named_with_one_that_is_near() -> None:
    wrong = r"'a purpel mauve seven' .* none has: purpel \(perhaps purple\?\), mauve$"
    with pytest.raises(UnknownWordsError, match=wrong) as caught:
        VOCABULARY.encode(["red", "a purpel mauve seven"])
    assert caught.value.words == ["purpel", "mauve"]
    with pytest.raises(UnknownWordsError, match=r"סגןל \(perhaps סגול\?\)"):
        VOCABULARY.encode(["סגןל"])


def test_unknown_words_can_be_skipped() -> None:
    rows = VOCABULARY.encode(["a mauve seven " + "x " * 20, "qq"], unknown="skip")
    assert words_of(rows[0]) == ["a", "seven"]
    assert rows[1].tolist() == [PAD] * VOCABULARY.length


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        ("a red seven", TypeError, "a row of texts, got one text 'a red seven'"),
        (b"red", TypeError, "a row of texts, got one text b'red'"),
        (None, TypeError, "prompts must be a row of texts, got NoneType"),
        (7, TypeError, "prompts must be a row of texts, got int"),
        ({"red", "blue"}, TypeError, "prompts must be a row of texts, got set"),
        ({"red": 1}, TypeError, "prompts must be a row of texts, got dict"),
        (["red", None], TypeError, "a prompt must be text, got NoneType"),
        ([7], TypeError, "a prompt must be text, got int"),
        ([""], ValueError, "at least one word, got ''; .* give no condition"),
        (["red", "!?… ־"], ValueError, "at least one word, got '!"),
        (["red " * 9], ValueError, "at most 8 words, got 9"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(
    prompts: list[str], error: type[Exception], message: str
) -> None:
    for unknown in ("refuse", "skip"):
        with pytest.raises(error, match=message):
            VOCABULARY.encode(prompts, unknown=unknown)
    with pytest.raises(ValueError, match="unknown must be one of"):
        VOCABULARY.encode(["red"], unknown="guess")


@pytest.mark.parametrize(
    ("words", "length", "error", "message"),
    [
        ([], 8, ValueError, "words, each once"),
        (["red", "red"], 8, ValueError, "words, each once"),
        (["Red"], 8, ValueError, "one plain word, got 'Red'"),
        (["sky blue"], 8, ValueError, "one plain word, got 'sky blue'"),
        (["שֶׁבַע"], 8, ValueError, "one plain word"),
        (["red"], 0, ValueError, "length must be at least 1, got 0"),
        ("red", 8, TypeError, "words must be a row of texts, got one text 'red'"),
        ({"red"}, 8, TypeError, "words must be a row of texts, got set"),
        ([7], 8, TypeError, "a prompt must be text, got int"),
    ],
)
def test_other_vocabularies_are_refused(
    words: list[str], length: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Vocabulary(words, length)


# --- captions at random ---------------------------------------------------------------

N = 20_000


def drawn(captions: Captions, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random digits and colours, and a caption for each."""
    draw = seeded(seed)
    digit, colour = torch.randint(10, (2, N), generator=draw)
    return digit, colour, captions.draw(digit, colour, draw)


def texts_of(rows: Tensor) -> list[str]:
    """What rows say, their words side by side."""
    known = {tuple(row.tolist()) for row in rows}
    said = {row: " ".join(words_of(torch.tensor(row))) for row in known}
    return [said[tuple(row)] for row in rows.tolist()]


@pytest.mark.parametrize("languages", [("en",), ("he",), ("en", "he"), ("he", "en")])
@pytest.mark.parametrize("partial", [0.0, 0.3, 1.0])
def test_what_is_drawn_is_a_caption_of_the_digit_and_the_colour(
    languages: tuple[Language, ...], partial: float
) -> None:
    digit, colour, rows = drawn(Captions(languages, partial))
    which = [
        {
            key: {" ".join(plain_words(text)) for text in phrases(language, *key)}
            for key in KEYS
        }
        for language in languages
    ]
    whole = digit_alone = colour_alone = 0
    for d, c, text in zip(digit.tolist(), colour.tolist(), texts_of(rows), strict=True):
        whole += any(text in one[d, c] for one in which)
        digit_alone += any(text in one[d, None] for one in which)
        colour_alone += any(text in one[None, c] for one in which)
    assert whole + digit_alone + colour_alone == N
    error = 4 * (partial * (1 - partial) / N) ** 0.5
    assert whole / N == pytest.approx(1 - partial, abs=error)
    error = 4 * (partial / 2 * (1 - partial / 2) / N) ** 0.5
    assert digit_alone / N == pytest.approx(partial / 2, abs=error)
    assert colour_alone / N == pytest.approx(partial / 2, abs=error)


@pytest.mark.parametrize("key", [(7, 0), (8, 1), (2, 4)])
def test_languages_are_as_frequent_and_their_phrases_too(key: tuple[int, int]) -> None:
    digit, colour = (torch.full((N,), value) for value in key)
    texts = texts_of(Captions(partial=0.4).draw(digit, colour, seeded(1)))
    share: dict[str, float] = dict.fromkeys(texts, 0.0)
    for language in LANGUAGES:
        for kind, often in ((key, 0.6), ((key[0], None), 0.2), ((None, key[1]), 0.2)):
            said = phrases(language, *kind)
            for text in said:  # "7" is said in both languages
                plain = " ".join(plain_words(text))
                share[plain] = share.get(plain, 0.0) + often / 2 / len(said)
    assert sum(share.values()) == pytest.approx(1)
    for text, p in share.items():
        error = 4.5 * (p * (1 - p) / N) ** 0.5
        assert texts.count(text) / N == pytest.approx(p, abs=error), text


def test_the_same_generator_draws_the_same_and_leaves_torch_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (drawn(CAPTIONS, seed)[2] for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    digit = torch.arange(10)
    torch.manual_seed(5)
    own = CAPTIONS.draw(digit, digit)
    assert torch.equal(own, CAPTIONS.draw(digit, digit, seeded(5)))
    assert digit.tolist() == list(range(10))  # what came in stays as it is


def test_captions_live_where_the_digits_live() -> None:
    digit = torch.zeros(4, dtype=torch.int64, device="meta")
    rows = CAPTIONS.draw(digit, digit, seeded(0))
    assert rows.is_meta
    assert rows.shape == (4, VOCABULARY.length)
    assert CAPTIONS.draw(*torch.zeros(2, 0).long()).shape == (0, VOCABULARY.length)


def test_a_fingerprint_says_which_captions_these_are() -> None:
    several = [
        CAPTIONS,
        Captions(partial=0.3),
        Captions(partial=0.2 + 1e-9),
        Captions(["en"]),
        Captions(["he"]),
        Captions(["he", "en"]),
    ]
    assert len({captions.fingerprint for captions in several}) == len(several)
    assert CAPTIONS.fingerprint == Captions(("en", "he"), 0.2).fingerprint


@pytest.mark.parametrize(
    ("languages", "partial", "error", "message"),
    [
        ([], 0.2, ValueError, "there must be languages"),
        ("en", 0.2, TypeError, "languages must be a row of texts, got one text 'en'"),
        (None, 0.2, TypeError, "languages must be a row of texts, got NoneType"),
        (["fr"], 0.2, ValueError, "language must be one of 'en', 'he', got 'fr'"),
        (["en", "en", "he"], 0.2, ValueError, "languages, each once"),
        (["en"], 1.1, ValueError, r"partial must lie in \[0, 1\], got 1.1"),
        (["en"], -0.1, ValueError, r"partial must lie in \[0, 1\], got -0.1"),
        (["en"], float("nan"), ValueError, r"partial must lie in \[0, 1\], got nan"),
        (["en"], "0.2", TypeError, "partial must be a number, got '0.2'"),
        (["en"], True, TypeError, "partial must be a number, got True"),
    ],
)
def test_other_captions_are_refused(
    languages: list[Language], partial: float, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Captions(languages, partial)


def test_captions_of_bad_digits_are_refused() -> None:
    good = torch.arange(4)
    for digit, colour, error, message in (
        (good, good[:1], ValueError, r"labels must have shape \(4,\), got \(1,\)"),
        (good + 7, good, ValueError, r"labels must lie in 0 … 9, got 7 … 10"),
        (good, good - 1, ValueError, r"labels must lie in 0 … 9, got -1 … 2"),
        (good.float(), good, TypeError, "torch.int64 tensor, got torch.float32"),
        ([1, 2], good, TypeError, "torch.int64 tensor, got list"),
        (good[0], good[0], ValueError, r"labels must have shape \(1,\), got \(\)"),
        (good[:, None], good, ValueError, r"shape \(4,\), got \(4, 1\)"),
    ):
        with pytest.raises(error, match=message):
            CAPTIONS.draw(digit, colour)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator"):
        CAPTIONS.draw(good, good, 0)  # type: ignore[arg-type]


def test_a_vav_is_doubled_after_a_prefix() -> None:
    assert describe("he", 3, NAMES.index("pink")) == "הספרה שלוש בוורוד"
    assert describe("he", 3, NAMES.index("green")) == "הספרה שלוש בירוק"
