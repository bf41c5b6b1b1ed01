"""Language models without a network: n-grams, mixtures, compressors.

**Kneser and Ney**, interpolated. With h the last k tokens, h' the last k − 1,

    p_k(w|h) = (n(hw) − D(n(hw)))/n(h) + (Σ_v D(n(hv))/n(h))·p_{k−1}(w|h')

The discount D takes a little from what was seen after h and gives it to the shorter
context, down to 1/V. At the longest context n(hw) counts how often w followed h; at a
shorter one, after how many *different* tokens hw stood: "Francisco" is frequent, but
after "San" alone. Each p_k sums to 1 over w.

**A mixture** Σ_i λ_i·p_i(w) of models sums to 1 too. Its weights are learnt on a text
that none of the models was trained on, or while reading, each token's after it.

**A compressor** is a language model: of b bits for a text, p = 2^−b. It learns while it
reads, so it is fair to give it the training text first.

Sources: Kneser and Ney 1995, "Improved backing-off for m-gram language modeling"; Chen
and Goodman 1999, "An empirical study of smoothing techniques for language modeling",
for three discounts; Cleary and Witten 1984, "Data compression using adaptive coding and
partial string matching", for PPM.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import log

import numpy as np
import pyppmd
import torch
from torch import Tensor

from course_utils.checks import check_count, check_option, check_positive
from course_utils.data.text import BytePairs, check_text, check_tokens

Discounts = tuple[float, float, float, float]  # of n = 0, 1, 2, 3 and more
USUAL: Discounts = (0.0, 0.5, 1.0, 1.5)  # where too little was seen to tell


# --- Kneser–Ney -----------------------------------------------------------------------


class _After:
    """What was seen after one context.

    Attributes:
        counts: token → n(hw).
        total: n(h).
        freed: Σ D(n(hw)), what the discounts take.
    """

    __slots__ = ("counts", "freed", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total, self.freed = 0, 0.0


class KneserNey:
    """The n-gram model of the module's text.

    Args:
        vocabulary: V, how many tokens there are.
        order: n: a token is predicted from at most n − 1 before it; 1 is a unigram.

    Raises:
        TypeError, ValueError: counts that are no whole numbers, or below 1.
    """

    def __init__(self, vocabulary: int, order: int) -> None:
        self.vocabulary = check_count("vocabulary", vocabulary)
        self.order = check_count("order", order)
        levels = range(self.order)  # contexts of 0, 1, … tokens
        self.discounts = [USUAL for _ in levels]
        self._after: list[dict[tuple[int, ...], _After]] = [{} for _ in levels]

    def fit(self, tokens: Tensor) -> KneserNey:
        """Count a text (N,), after all that was counted before; then set the discounts.

        Returns:
            the model itself.

        Raises:
            TypeError, ValueError: tokens that are no int64, or out of range.
        """
        text = self._checked(tokens)
        for i, token in enumerate(text):
            self.count(text[max(0, i - self.order + 1) : i], token)
        for k, contexts in enumerate(self._after):
            D = self.discounts[k] = _discounts(contexts.values())
            for after in contexts.values():
                after.freed = sum(D[min(n, 3)] for n in after.counts.values())
        return self

    def log_probs(
        self, tokens: Tensor, context: Tensor | None = None, learn: bool = False
    ) -> Tensor:
        """log p of each token (N,) given those before it: (N,), in nats, float64.

        Args:
            tokens: int64.
            context: what comes before, which is not scored; the last n − 1 count.
            learn: whether each token is counted after it was predicted; the model goes
                on from there. The discounts stay.

        Raises:
            TypeError, ValueError: tokens that are no int64, or out of range.
        """
        before = [] if context is None else self._checked(context[-self.order :])
        text = before + self._checked(tokens)
        found = []
        for i in range(len(before), len(text)):
            history = text[max(0, i - self.order + 1) : i]
            found.append(log(self._prob(history, text[i])))
            if learn:
                self.count(history, text[i])
        return torch.tensor(found, dtype=torch.float64)

    def distribution(self, context: Tensor | None = None) -> Tensor:
        """p(w|context) of every token w: (V,), float64; it sums to 1."""
        history = [] if context is None else self._checked(context)
        history = history[max(0, len(history) - self.order + 1) :]
        return torch.from_numpy(self.law(history))

    def _prob(self, history: Sequence[int], token: int) -> float:
        """p(token|history), from the shortest context to the longest that was seen."""
        p = 1 / self.vocabulary
        for k in range(len(history) + 1):
            after = self._after[k].get(tuple(history[len(history) - k :]))
            if after is None:
                break  # nor was a longer one
            n = after.counts.get(token, 0)
            p = (n - self.discounts[k][min(n, 3)] + after.freed * p) / after.total
        return p

    def law(self, history: Sequence[int]) -> np.ndarray:
        """p(w|history) of every token, (V,); the history has at most n − 1 of them."""
        p = np.full(self.vocabulary, 1 / self.vocabulary)
        for k in range(len(history) + 1):
            after = self._after[k].get(tuple(history[len(history) - k :]))
            if after is None:
                break
            p *= after.freed / after.total
            D = self.discounts[k]
            for token, n in after.counts.items():
                p[token] += (n - D[min(n, 3)]) / after.total
        return p

    def count(self, history: Sequence[int], token: int) -> None:
        """Count a token: after the whole history, then after shorter and shorter ones.

        It ends where the token has been seen after a context before: the shorter ones
        then know of it, and of the token to their left.
        """
        for k in range(len(history), -1, -1):
            context = tuple(history[len(history) - k :])
            after = self._after[k].setdefault(context, _After())
            n, D = after.counts.get(token, 0), self.discounts[k]
            after.counts[token] = n + 1
            after.total += 1
            after.freed += D[min(n + 1, 3)] - D[min(n, 3)]
            if n:
                break

    def _checked(self, tokens: Tensor) -> list[int]:
        return check_tokens(tokens, vocabulary=self.vocabulary, axes=1).tolist()


def _discounts(contexts: Iterable[_After]) -> Discounts:
    """D(1), D(2), D(3+) of Chen and Goodman: from how many n-grams were seen once, …

    With c_i n-grams seen i times and Y = c₁/(c₁ + 2·c₂),
    D(i) = i − (i + 1)·Y·c_{i+1}/c_i.
    """
    c: Counter[int] = Counter()
    for after in contexts:
        c.update(n for n in after.counts.values() if n <= 4)
    if not (c[1] and c[2] and c[3] and c[4]):
        return USUAL
    Y = c[1] / (c[1] + 2 * c[2])
    D = [i - (i + 1) * Y * c[i + 1] / c[i] for i in (1, 2, 3)]
    kept = [min(max(d, 0.1), i - 0.1) for i, d in enumerate(D, start=1)]
    return (0.0, kept[0], kept[1], kept[2])


class SpelledOut:
    """A token letter by letter: n-grams of bytes that also tell whether it ends here.

        p(token) = Π_j p(byte_j, last_j | the n − 1 such pairs before)

    each p taken over those pairs alone that go on to some token, so that the tokens' p
    sum to 1. So a model of characters can be mixed with models of tokens: without the
    ends p("t") would be that of all that begins with a t, "the" among it, and the sum
    would exceed 1.

    Args:
        pairs: which tokens there are.
        order: n, in bytes.

    Raises:
        TypeError, ValueError: an order that is no whole number of at least 1.
    """

    def __init__(self, pairs: BytePairs, order: int) -> None:
        self.vocabulary = pairs.size
        self.letters = KneserNey(512, order)
        self._spelling = [
            [2 * byte + (place == len(piece)) for place, byte in enumerate(piece, 1)]
            for piece in pairs.pieces
        ]
        going_on: dict[tuple[int, ...], set[int]] = {}
        for letters in self._spelling:
            for place, letter in enumerate(letters):
                going_on.setdefault(tuple(letters[:place]), set()).add(letter)
        self._going_on = {start: sorted(found) for start, found in going_on.items()}

    def fit(self, tokens: Tensor) -> SpelledOut:
        """Count a text (N,), see :meth:`KneserNey.fit`."""
        letters = [letter for token in self._spelled(tokens) for letter in token]
        self.letters.fit(torch.tensor(letters, dtype=torch.int64))
        return self

    def log_probs(
        self, tokens: Tensor, context: Tensor | None = None, learn: bool = False
    ) -> Tensor:
        """log p of each token (N,), in nats, see :meth:`KneserNey.log_probs`."""
        history = self._history(context)
        found = []
        for token in self._spelled(tokens):
            log_p = 0.0
            for place, letter in enumerate(token):
                p = self.letters.law(history)
                log_p += log(p[letter] / p[self._going_on[tuple(token[:place])]].sum())
                if learn:
                    self.letters.count(history, letter)
                history = self._cut([*history, letter])
            found.append(log_p)
        return torch.tensor(found, dtype=torch.float64)

    def distribution(self, context: Tensor | None = None) -> Tensor:
        """p(w|context) of every token w: (V,), float64; it sums to 1."""
        every = [
            self.log_probs(torch.tensor([token]), context)
            for token in range(self.vocabulary)
        ]
        return torch.cat(every).exp()

    def _history(self, context: Tensor | None) -> list[int]:
        """As many letters before as count."""
        if context is None:
            return []
        spelled = self._spelled(context[-self.letters.order :])
        return self._cut([letter for token in spelled for letter in token])

    def _cut(self, history: list[int]) -> list[int]:
        return history[max(0, len(history) - self.letters.order + 1) :]

    def _spelled(self, tokens: Tensor) -> list[list[int]]:
        """The letters of each of some tokens (N,)."""
        found = check_tokens(tokens, vocabulary=self.vocabulary, axes=1).tolist()
        return [self._spelling[token] for token in found]


# --- mixtures -------------------------------------------------------------------------


def mixed(log_probs: Tensor, weights: Tensor) -> Tensor:
    """log Σ_i λ_i·p_i of each token: (N,), in nats.

    Args:
        log_probs: log p_i, (K, N), of K models.
        weights: λ, (K,), which sum to 1; or (N, K), other ones at each token, known
            before it.

    Raises:
        TypeError: no log-probabilities.
        ValueError: other shapes, weights below 0 or of another sum; NaN.
    """
    each = _check_models(log_probs)
    law = torch.as_tensor(weights, dtype=torch.float64)
    if law.shape not in {(len(each),), each.T.shape}:
        raise ValueError(
            f"weights must have shape ({len(each)},) or {tuple(each.T.shape)},"
            f" got {tuple(law.shape)}"
        )
    if not (law >= 0).all() or not ((law.sum(-1) - 1).abs() < 1e-6).all():
        raise ValueError(f"weights must not be below 0 and sum to 1, got {weights}")
    return (each.T + law.log()).logsumexp(-1)


def best_weights(log_probs: Tensor, rounds: int = 200) -> Tensor:
    """The weights λ (K,) of the likeliest mixture, by expectation–maximisation.

    To be found on one text and used on another: on the end of the training part, with
    models that have not seen it.

    Args:
        log_probs: log p_i, (K, N).
        rounds: how often λ_i ← the mean of model i's share λ_i·p_i/Σ_j λ_j·p_j.

    Raises:
        TypeError, ValueError: another shape, no token, one that no model expects; NaN.
    """
    each = _check_possible(_check_models(log_probs))
    weights = torch.full((len(each),), 1 / len(each), dtype=torch.float64)
    for _ in range(check_count("rounds", rounds)):
        weights = (each + weights.log()[:, None]).softmax(0).mean(1)
    return weights


def weights_while_reading(log_probs: Tensor, prior: float = 10.0) -> Tensor:
    """Weights for each token, learnt from those before it: (N, K), from uniform on.

    λ_i is the mean of model i's shares so far, and of ``prior`` shares of 1/K each.

    Args:
        log_probs: log p_i, (K, N).
        prior: how many tokens the uniform start is worth.

    Raises:
        TypeError, ValueError: another shape, no token, one that no model expects; NaN;
            a prior not above 0.
    """
    each = _check_possible(_check_models(log_probs))
    share = check_positive("prior", prior) / len(each)
    credit = torch.full((len(each),), share, dtype=torch.float64)
    found = []
    for log_p in each.T:  # (K,)
        found.append(credit / credit.sum())
        credit = credit + (log_p + found[-1].log()).softmax(0)
    return torch.stack(found)


def _check_models(log_probs: Tensor) -> Tensor:
    """Return log p of K models in float64, if it is one: (K, N) with K, N ≥ 1."""
    if not isinstance(log_probs, Tensor) or not log_probs.is_floating_point():
        got = getattr(log_probs, "dtype", type(log_probs).__name__)
        raise TypeError(f"log_probs must be a floating tensor (K, N), got {got}")
    if log_probs.ndim != 2 or not log_probs.numel():
        raise ValueError(
            f"log_probs must have shape (K, N), K, N ≥ 1, got {tuple(log_probs.shape)}"
        )
    if not (log_probs < torch.inf).all():
        worst = float(log_probs.max())
        raise ValueError(f"log_probs must be numbers or −∞, got {worst}")
    return log_probs.double()


def _check_possible(log_probs: Tensor) -> Tensor:
    """Return log p (K, N), if each token has a p above 0 in one model at least."""
    lost = (log_probs == -torch.inf).all(0)
    if lost.any():
        raise ValueError(
            "each token must be possible in one of the models, got"
            f" {int(lost.sum())} that are not, the first at place"
            f" {int(lost.nonzero()[0])}"
        )
    return log_probs


# --- compressors ----------------------------------------------------------------------


def _gzip(data: bytes) -> bytes:
    return zlib.compress(data, 9, wbits=31)


def _bz2(data: bytes) -> bytes:
    return bz2.compress(data, 9)


def _xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def _ppmd(data: bytes) -> bytes:
    return pyppmd.compress(data, max_order=6, mem_size=2**26, variant="I")


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": _gzip,  # repeats, within 32 kB
    "bz2": _bz2,  # sorted by context, within 900 kB
    "xz": _xz,  # repeats, however far
    "PPMd": _ppmd,  # characters by their last 6, 5, …
}


def compressed(text: str, compressor: str, context: str = "") -> float:
    """Bits per character that a text takes: 8·(|c(context + text)| − |c(context)|)/n.

    Args:
        text: n characters.
        compressor: one of ``COMPRESSORS``, each at its best.
        context: what the compressor reads before, at no cost: the training part.

    Raises:
        TypeError: no text.
        ValueError: an empty text, or another compressor.
    """
    check_option("compressor", compressor, COMPRESSORS)
    if not check_text("text", text):
        raise ValueError("there must be a text to compress, got an empty one")
    before, c = check_text("context", context).encode(), COMPRESSORS[compressor]
    size = len(c(before + text.encode())) - (len(c(before)) if before else 0)
    return 8 * size / len(text)
