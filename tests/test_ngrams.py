"""N-grams, mixtures and compressors: sums to 1, counts by hand, bits by hand."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections import Counter
from collections.abc import Callable
from itertools import product
from math import log
from typing import Any

import pyppmd
import pytest
import torch
from torch import Tensor

from course_utils.data.text import BytePairs, bits_per_character
from course_utils.models.ngrams import (
    COMPRESSORS,
    KneserNey,
    SpelledOut,
    best_weights,
    compressed,
    mixed,
    weights_while_reading,
)

V = 5
Model = KneserNey | SpelledOut


def wrong(value: Any) -> Any:
    """A value of a type that is not allowed."""
    return value


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text(count: int, seed: int = 0) -> Tensor:
    """A text with a habit: a token is often the sum of the two before it."""
    noise = torch.randint(V, (count,), generator=seeded(seed)).tolist()
    habit = (torch.rand(count, generator=seeded(seed + 1)) < 0.6).tolist()
    found = noise[:2]
    for i in range(2, count):
        found.append((found[-1] + found[-2]) % V if habit[i] else noise[i])
    return torch.tensor(found, dtype=torch.int64)


PAIRS = BytePairs.trained("the cat sat on the mat, the rat ate that cat. " * 20, 270)
WORDS = PAIRS.encode("the rat sat on the cat, that cat ate the rat. " * 12)


# --- Kneser–Ney ---


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [0, 3, 40, 600])
def test_every_law_sums_to_one(order: int, count: int) -> None:
    model = KneserNey(V, order).fit(text(count))
    for length in range(4):
        for context in product(range(V), repeat=length):
            law = model.distribution(torch.tensor(context, dtype=torch.int64))
            assert float(law.sum()) == pytest.approx(1.0, abs=1e-12)
            assert (law > 0).all()


@pytest.mark.parametrize("learn", [False, True])
def test_texts_of_three_tokens_sum_to_one(learn: bool) -> None:
    total = 0.0
    for one in product(range(V), repeat=3):
        model = KneserNey(V, 3).fit(text(60))
        scored = model.log_probs(torch.tensor(one), text(60), learn=learn)
        total += float(scored.sum().exp())
    assert total == pytest.approx(1.0, abs=1e-9)


def test_scores_are_the_law() -> None:
    model, tokens, context = KneserNey(V, 3).fit(text(300)), text(20, 5), text(9, 7)
    scored = model.log_probs(tokens, context)
    for i, token in enumerate(tokens.tolist()):
        before = torch.cat([context, tokens[:i]])
        law = model.distribution(before)
        assert float(scored[i]) == pytest.approx(float(law[token].log()))
    assert float(model.log_probs(tokens)[0]) == pytest.approx(
        float(model.distribution()[tokens[0]].log())
    )


def test_counts_are_kneser_and_neys() -> None:
    """Written again from the definition: bigrams, then different left neighbours."""
    tokens = text(400).tolist()
    model = KneserNey(V, 3).fit(torch.tensor(tokens))
    triples = Counter(zip(tokens, tokens[1:], tokens[2:], strict=False))
    # before the first two tokens nothing stands; it counts as one neighbour more
    start = (-1, *tokens[:2])
    pairs = Counter((b, c) for _, b, c in {*triples, start})
    single = Counter(c for _, c in {*pairs, (-1, tokens[0])})

    def law(counts: dict[int, int], D: tuple[float, ...], below: list[float]) -> list:
        total = sum(counts.values())
        freed = sum(D[min(n, 3)] for n in counts.values())
        return [
            (counts.get(w, 0) - D[min(counts.get(w, 0), 3)] + freed * below[w]) / total
            for w in range(V)
        ]

    for a, b in product(range(V), repeat=2):
        p = law(single, model.discounts[0], [1 / V] * V)
        p = law({w: n for (h, w), n in pairs.items() if h == b}, model.discounts[1], p)
        after = {w: n for (g, h, w), n in triples.items() if (g, h) == (a, b)}
        if after:
            p = law(after, model.discounts[2], p)
        got = model.distribution(torch.tensor([a, b]))
        assert got.tolist() == pytest.approx(p, abs=1e-12)


def test_discounts_are_chen_and_goodmans() -> None:
    model = KneserNey(40, 1)
    seen = [*range(20), *[20, 21, 22, 23, 24, 25] * 2, *[26, 27, 28] * 3, *[29] * 4]
    model.fit(torch.tensor(seen))
    Y = 20 / (20 + 2 * 6)
    expected = (0.0, 1 - 2 * Y * 6 / 20, 2 - 3 * Y * 3 / 6, 3 - 4 * Y * 1 / 3)
    assert model.discounts[0] == pytest.approx(expected)


def test_a_frequent_word_of_one_context_is_not_expected_elsewhere() -> None:
    """Francisco stands after San alone; glasses after many words."""
    san, francisco, glasses, *others = range(12)
    tokens = [san, francisco] * 20
    for other in others:
        tokens += [other, glasses]
    model = KneserNey(13, 2).fit(torch.tensor(tokens))
    elsewhere = model.distribution(torch.tensor([12]))  # never seen
    assert tokens.count(francisco) > tokens.count(glasses)
    assert elsewhere[glasses] > 3 * elsewhere[francisco]


def test_more_context_helps_where_there_is_a_habit() -> None:
    train, other = text(4_000), text(1_000, 50)
    bits = [
        -float(KneserNey(V, n).fit(train).log_probs(other).mean()) for n in (1, 2, 3)
    ]
    q = 0.6 + 0.4 / V  # of the token that the habit names
    entropy = -(q * log(q) + (1 - q) * log((1 - q) / (V - 1)))
    assert bits[0] == pytest.approx(log(V), abs=0.03)
    assert entropy - 0.05 < bits[2] < entropy + 0.05
    assert bits[2] < bits[1] - 0.1


@pytest.mark.parametrize(
    "make", [lambda: KneserNey(270, 3), lambda: SpelledOut(PAIRS, 5)]
)
def test_learning_while_reading_is_counting(make: Callable[[], Model]) -> None:
    half = len(WORDS) // 2
    model = make().fit(WORDS[:half])
    fixed = model.log_probs(WORDS[half:], WORDS[:half])
    again = model.log_probs(WORDS[half:], WORDS[:half])
    assert torch.equal(fixed, again)
    learnt = model.log_probs(WORDS[half:], WORDS[:half], learn=True)
    assert float(learnt[0]) == float(fixed[0])
    assert not torch.allclose(learnt, fixed)
    assert float(learnt.sum()) > float(fixed.sum())
    # what it knows in the end is what it would know of the whole at once
    once = make().fit(WORDS)
    letters = [m.letters if isinstance(m, SpelledOut) else m for m in (model, once)]
    counts = [
        [{k: (a.counts, a.total) for k, a in level.items()} for level in one._after]
        for one in letters
    ]
    assert counts[0] == counts[1]


def test_orders_are_whole_numbers_of_any_kind() -> None:
    model = KneserNey(wrong(torch.tensor(V)), wrong(torch.tensor(3))).fit(text(40))
    expected = KneserNey(V, 3).fit(text(40)).distribution(text(2))
    assert torch.equal(model.distribution(text(2)), expected)


def test_an_empty_model_knows_nothing() -> None:
    tokens = text(30)
    scored = KneserNey(V, 3).log_probs(tokens)
    assert torch.allclose(scored, torch.full((30,), -log(V), dtype=torch.float64))
    assert bits_per_character(scored, 30) == pytest.approx(log(V, 2))


# --- letter by letter ---


@pytest.mark.parametrize("order", [1, 3, 6])
def test_tokens_spelled_out_sum_to_one(order: int) -> None:
    model = SpelledOut(PAIRS, order).fit(WORDS)
    for length in (0, 1, 7, 40):
        law = model.distribution(WORDS[:length])
        assert law.shape == (270,)
        assert float(law.sum()) == pytest.approx(1.0, abs=1e-9)
    untaught = SpelledOut(PAIRS, order).distribution()
    assert float(untaught.sum()) == pytest.approx(1.0, abs=1e-9)


def test_spelled_scores_are_the_law() -> None:
    model = SpelledOut(PAIRS, 4).fit(WORDS[:80])
    scored = model.log_probs(WORDS[80:90], WORDS[:80])
    for i, token in enumerate(WORDS[80:90].tolist()):
        law = model.distribution(WORDS[: 80 + i])
        assert float(scored[i]) == pytest.approx(float(law[token].log()))


# --- mixtures ---


def test_a_mixture_is_a_sum() -> None:
    p = torch.tensor([[0.5, 0.2, 0.1], [0.1, 0.4, 0.9]], dtype=torch.float64)
    weights = torch.tensor([0.3, 0.7])
    expected = 0.3 * p[0] + 0.7 * p[1]
    assert torch.allclose(mixed(p.log(), weights).exp(), expected)
    each = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    assert torch.allclose(
        mixed(p.log(), each).exp(), torch.tensor([0.5, 0.3, 0.9]).double()
    )


def test_the_best_weights_are_those_that_drew() -> None:
    laws = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], dtype=torch.float64)
    truth = torch.tensor([0.8, 0.2], dtype=torch.float64)
    drawn = torch.multinomial(truth @ laws, 12_000, True, generator=seeded())
    log_p = laws.log()[:, drawn]
    found = best_weights(log_p)
    assert torch.allclose(found, truth, atol=0.04)
    best = float(mixed(log_p, found).mean())
    for other in (0.5, 0.7, 0.9, 1.0):
        weights = torch.tensor([other, 1 - other], dtype=torch.float64)
        assert float(mixed(log_p, weights).mean()) <= best + 1e-9
    online = weights_while_reading(log_p)
    assert torch.allclose(online[0], torch.tensor([0.5, 0.5]).double())
    assert torch.allclose(online.sum(1), torch.ones(12_000).double())
    assert torch.allclose(online[-1], truth, atol=0.06)
    assert float(mixed(log_p, online).mean()) == pytest.approx(best, abs=5e-3)


def test_weights_hang_on_the_past_alone() -> None:
    log_p = torch.rand(3, 20, generator=seeded()).log()
    other = log_p.clone()
    other[:, 12:] = torch.rand(3, 8, generator=seeded(1)).log()
    a, b = weights_while_reading(log_p), weights_while_reading(other)
    assert torch.equal(a[:13], b[:13])
    assert not torch.allclose(a[13:], b[13:])


def test_mixed_models_sum_to_one() -> None:
    half = len(WORDS) // 2
    models: list[Model] = [KneserNey(270, 3), SpelledOut(PAIRS, 5)]
    for model in models:
        model.fit(WORDS[:half])
    laws = torch.stack([m.distribution(WORDS[:half]) for m in models])
    weights = best_weights(
        torch.stack([m.log_probs(WORDS[half:], WORDS[:half]) for m in models])
    )
    together = mixed(laws.log(), weights)
    assert float(together.exp().sum()) == pytest.approx(1.0, abs=1e-9)


# --- compressors ---

RIDDLE = "Why is a raven like a writing-desk? "


def test_compressors_are_those_of_the_libraries() -> None:
    words = RIDDLE * 30
    restored: dict[str, Callable[[bytes], bytes | str]] = {
        "gzip": gzip.decompress,
        "bz2": bz2.decompress,
        "xz": lzma.decompress,
        "PPMd": lambda packed: pyppmd.decompress(
            packed, max_order=6, mem_size=2**26, variant="I"
        ),
    }
    assert set(restored) == set(COMPRESSORS)
    for name, unpack in restored.items():
        packed = COMPRESSORS[name](words.encode())
        assert unpack(packed) == words.encode()
        assert compressed(words, name) == pytest.approx(8 * len(packed) / len(words))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_what_was_read_before_costs_nothing(name: str) -> None:
    alone, after = compressed(RIDDLE, name), compressed(RIDDLE, name, RIDDLE * 50)
    assert after < alone / 2
    whole, before = (
        len(COMPRESSORS[name](part.encode())) for part in (RIDDLE * 51, RIDDLE * 50)
    )
    assert after == pytest.approx(8 * (whole - before) / len(RIDDLE))


def test_characters_are_counted_not_bytes() -> None:
    hebrew = "אליס בארץ הפלאות " * 9
    size = len(COMPRESSORS["bz2"](hebrew.encode()))
    assert compressed(hebrew, "bz2") == pytest.approx(8 * size / len(hebrew))


# --- bad input ---

UNKNOWN = torch.tensor([[-1.0, torch.nan]])
NEVER = torch.tensor([[-1.0, -torch.inf], [-torch.inf, -torch.inf]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: KneserNey(0, 2), ValueError, "vocabulary must be at least 1"),
        (lambda: KneserNey(V, 0), ValueError, "order must be at least 1"),
        (lambda: KneserNey(V, wrong(2.5)), TypeError, "order must be a whole number"),
        (
            lambda: KneserNey(V, 2).fit(wrong([1, 2])),
            TypeError,
            "int64 tensor, got list",
        ),
        (lambda: KneserNey(V, 2).fit(text(9) + 1), ValueError, "0 … 4, got 1 … 5"),
        (lambda: KneserNey(V, 2).log_probs(text(4)[None]), ValueError, r"shape \(N,\)"),
        (lambda: SpelledOut(PAIRS, 0), ValueError, "order must be at least 1"),
        (
            lambda: SpelledOut(PAIRS, 2).log_probs(torch.tensor([270])),
            ValueError,
            "0 … 269",
        ),
        (lambda: best_weights(torch.zeros(3)), ValueError, r"shape \(K, N\)"),
        (lambda: best_weights(torch.zeros(2, 3).long()), TypeError, "floating tensor"),
        (lambda: best_weights(torch.zeros(2, 0)), ValueError, "K, N ≥ 1"),
        (lambda: best_weights(UNKNOWN), ValueError, "numbers or −∞, got nan"),
        (lambda: weights_while_reading(UNKNOWN), ValueError, "numbers or −∞, got nan"),
        (lambda: mixed(UNKNOWN, torch.ones(1)), ValueError, "numbers or −∞, got nan"),
        (lambda: best_weights(NEVER), ValueError, "1 that are not, the first at pl"),
        (lambda: weights_while_reading(NEVER), ValueError, "first at place 1"),
        (
            lambda: mixed(torch.zeros(2, 3), torch.ones(2)),
            ValueError,
            "not be below 0 and sum to 1",
        ),
        (
            lambda: mixed(torch.zeros(2, 3), torch.tensor([1.5, -0.5])),
            ValueError,
            "not be below 0",
        ),
        (
            lambda: mixed(torch.zeros(2, 3), torch.ones(3) / 3),
            ValueError,
            r"shape \(2,\) or \(3, 2\), got \(3,\)",
        ),
        (
            lambda: weights_while_reading(torch.zeros(2, 3), prior=0),
            ValueError,
            "prior must be a finite number above 0",
        ),
        (
            lambda: compressed("a", "zip"),
            ValueError,
            "compressor must be one of 'gzip'",
        ),
        (lambda: compressed("", "xz"), ValueError, "got an empty one"),
        (
            lambda: compressed(wrong(b"a"), "xz"),
            TypeError,
            "text must be text, got bytes",
        ),
    ],
)
def test_wrong_input_is_refused(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
