"""Texts for language models: a text split in two, its byte pairs, blocks of tokens.

    characters ─┬─ the first nine tenths: train        what a model learns from
                └─ the last tenth:        held_out     what it is measured on

A language model gives p(token | all tokens before it), so −log p adds up over a text.
How many tokens a text has is a matter of the tokenizer; how many characters, is not:

    bits per character = −Σ log₂ p(token) / number of characters

Tokens are *byte pairs*. Every text is a row of bytes; the two neighbours that stand
side by side most often in the training text become one token, and again, until there
are as many tokens as wanted. Words are cut first, so that no token crosses a space.

Sources: Sennrich, Haddow and Birch 2016 (arXiv:1508.07909); Radford et al. 2019,
"Language models are unsupervised multitask learners", for the bytes and the cutting;
Provilkov, Emelianenko and Voita 2020 (arXiv:1910.13267) for the dropout.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import islice, pairwise
from math import ceil, log
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor

from course_utils.checks import (
    check_count,
    check_generator,
    check_number,
    has_values,
)

# or a process that is forked after a training warns of its threads
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

HELD_OUT = 0.1  # of the characters
_DRAWS = 4096  # random numbers at a time


def bits_per_character(log_probs: Tensor, characters: int) -> float:
    """−Σ log₂ p / number of characters, of a text's tokens.

    Args:
        log_probs: log p of each token (N,), in nats.
        characters: how many characters these tokens are, together.

    Raises:
        ValueError: another shape, no characters.
    """
    if not isinstance(log_probs, Tensor) or log_probs.ndim != 1:
        got = getattr(log_probs, "shape", type(log_probs).__name__)
        raise ValueError(f"log_probs must have shape (N,), got {got}")
    count = check_count("characters", characters)
    return -float(log_probs.double().sum()) / (log(2) * count)


# --- texts ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """A text in two parts, the second right after the first.

    Attributes:
        train: what a model learns from.
        held_out: what it is measured on, and nothing else.
        name: what it is called.
        complete: whether this is the text that the name promises, not another edition.

    Raises:
        TypeError: a part that is not text.
        ValueError: an empty part, or half a character (a lone surrogate).
    """

    train: str
    held_out: str
    name: str = "text"
    complete: bool = True

    def __post_init__(self) -> None:
        for part in (self.train, self.held_out):
            if not check_text("a part of the text", part):
                raise ValueError(
                    "both parts of the text must hold characters, got"
                    f" {len(self.train)} to train and {len(self.held_out)} held out"
                )

    @property
    def characters(self) -> str:
        """The whole text."""
        return self.train + self.held_out

    @property
    def fingerprint(self) -> str:
        """Says exactly which characters are where: for the cache of trained models."""
        digest = sha256(json.dumps([self.train, self.held_out]).encode()).hexdigest()
        return f"{self.name}-{len(self.train)}-{len(self.held_out)}-{digest[:8]}"

    def tuning(self, share: float = HELD_OUT) -> Text:
        """The training part alone, split in the same way.

        Settings are chosen on its end, so that the held-out part stays unseen.
        """
        return split_text(self.train, f"{self.name}-tuning", share)


def split_text(characters: str, name: str = "text", share: float = HELD_OUT) -> Text:
    """A text whose last ⌈share·n⌉ of n characters are held out.

    Raises:
        TypeError: no text.
        ValueError: a share outside (0, 1), or fewer than two characters.
    """
    check_text("characters", characters)
    if not 0 < check_number("share", share) < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share!r}")
    held_out = ceil(share * len(characters))
    return Text(characters[:-held_out], characters[-held_out:], name)


def load_text(path: str | Path, share: float = HELD_OUT) -> Text:
    """A text of one's own, in any language: a file in UTF-8.

    Line ends become ``\\n``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not in UTF-8, or holds fewer than two characters.
    """
    path = Path(path)
    try:
        characters = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be text in UTF-8, got {error.object[error.start]:#x} at byte"
            f" {error.start}"
        ) from None
    characters = characters.removeprefix("\ufeff")  # says that it is UTF-8
    characters = characters.replace("\r\n", "\n").replace("\r", "\n")
    return split_text(characters, path.stem, share)


def check_text(name: str, value: str) -> str:
    """Return ``value`` if it is text that has bytes.

    Raises:
        TypeError: no text.
        ValueError: half a character, which no file in UTF-8 can hold.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        got = f"{value[error.start]!r} at place {error.start}"
        raise ValueError(f"{name} must be whole characters, got {got}") from None
    return value


# --- byte pairs -----------------------------------------------------------------------


def _bytes_of_letters() -> dict[str, int]:
    """The letter that stands for each byte inside ``tokenizers``, and its byte.

    Bytes that print stand for themselves, the others for the letters from 256 on.
    """
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    letters = {chr(byte): byte for byte in printed}
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE = _bytes_of_letters()


class Word(NamedTuple):
    """A word of a text, and which tokens it is made of.

    Attributes:
        text: the word, without spaces around it.
        first, stop: its tokens are first … stop − 1.
    """

    text: str
    first: int
    stop: int


class BytePairs:
    """A tokenizer of byte pairs: any text to tokens, and back without loss.

    Args:
        saved: what :attr:`saved` gave.

    Raises:
        ValueError: not such a thing.
    """

    def __init__(self, saved: str) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(saved)
            merges: list[list[str]] = json.loads(saved)["model"]["merges"]
            self._id = self._tokenizer.get_vocab()
            names = sorted(self._id, key=self._id.__getitem__)
            self.pieces = [bytes(_BYTE[letter] for letter in name) for name in names]
            pairs = [(self._id[a], self._id[b]) for a, b in merges]
            self._merged = [self._id[a + b] for a, b in merges]
            if left_out := sorted(_BYTE.keys() - self._id.keys()):
                raise ValueError(f"no token for {len(left_out)} of the bytes")
            if not isinstance(self._tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
                raise ValueError("words are not cut as bytes")
        except Exception as error:
            raise ValueError(
                f"saved must be what BytePairs.saved gives ({error})"
            ) from None
        self._rank = {pair: rank for rank, pair in enumerate(pairs)}
        self._words: dict[str, _Pieces] = {}
        self._cut: tuple[str, list[_Pieces]] = "", []  # the last text with dropout

    @classmethod
    def trained(cls, text: str, size: int = 1024) -> BytePairs:
        """The byte pairs of a text.

        Args:
            text: what they are counted in: the training part.
            size: V, how many tokens there are; 256 of them are single bytes.

        Raises:
            TypeError: no text, or a size that is not a whole number.
            ValueError: a size below 256, or more pairs than the text has.
        """
        check_text("text", text)
        size = check_count("size", size, least=256)
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=sorted(_BYTE),
            special_tokens=[],
            show_progress=False,
        )
        tokenizer.train_from_iterator([text], trainer)
        if (found := tokenizer.get_vocab_size()) < size:
            raise ValueError(
                f"size must be at most {found} for a text of {len(text)} characters,"
                f" got {size}"
            )
        return cls(tokenizer.to_str())

    @property
    def saved(self) -> str:
        """All of it, as the JSON of ``tokenizers``."""
        return self._tokenizer.to_str()

    @property
    def size(self) -> int:
        """V, how many tokens there are."""
        return len(self.pieces)

    @property
    def merges(self) -> list[tuple[int, int]]:
        """The pairs that were joined, in this order; each made the next token."""
        return list(self._rank)

    @property
    def fingerprint(self) -> str:
        """Says exactly which tokens there are: for the cache of trained models."""
        return f"bytepairs-{self.size}-{sha256(self.saved.encode()).hexdigest()[:8]}"

    def encode(self, text: str) -> Tensor:
        """The tokens of a text, (N,), int64.

        Raises:
            TypeError, ValueError: as for :func:`check_text`.
        """
        found = self._tokenizer.encode(check_text("text", text)).ids
        return torch.tensor(found, dtype=torch.int64)

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """The text of tokens (N,); bytes that are no character become U+FFFD.

        Raises:
            TypeError, ValueError: as for :func:`check_tokens`.
        """
        return self.bytes_of(tokens).decode(errors="replace")

    def bytes_of(self, tokens: Tensor | Sequence[int]) -> bytes:
        """The bytes of tokens (N,).

        Raises:
            TypeError, ValueError: as for :func:`check_tokens`.
        """
        if not isinstance(tokens, Tensor):
            row = torch.tensor(list(tokens))
            whole = not row.numel() or row.dtype == torch.int32  # of numpy
            tokens = row.long() if whole else row
        found = check_tokens(tokens, vocabulary=self.size, axes=1).tolist()
        return b"".join(self.pieces[token] for token in found)

    def words(self, tokens: Tensor | Sequence[int]) -> list[Word]:
        """The words of a text and the tokens of each, which are at least one.

        A word is what stands between spaces; a token that holds the end of one word and
        the start of the next counts for both.
        """
        found = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        text = self.bytes_of(found)
        ends, end = [], 0
        for token in found:
            ends.append(end := end + len(self.pieces[token]))
        words = []
        for match in re.finditer(rb"\S+", text):
            first = bisect_right(ends, match.start())
            stop = bisect_left(ends, match.end()) + 1
            words.append(Word(match.group().decode(errors="replace"), first, stop))
        return words

    def encode_with_dropout(
        self, text: str, dropout: float, generator: torch.Generator | None = None
    ) -> Tensor:
        """The same text in other tokens, at random: (N,), int64.

        A word begins as its bytes. At each step every pair that could be joined is
        passed over with probability ``dropout``; of those left the earliest of
        :attr:`merges` is joined; where none is left the word is done.

        Args:
            text: what is encoded.
            dropout: 0 gives what :meth:`encode` gives, near 1 single bytes.
            generator: source of randomness.

        Raises:
            TypeError: no text, no number.
            ValueError: dropout outside [0, 1).
        """
        check_text("text", text)
        dropout = check_share("dropout", dropout)
        words = self._tokenizer.pre_tokenizer
        assert words is not None, "a tokenizer of byte pairs cuts words"
        passed_over = _passed_over(dropout, check_generator(generator))
        if text != self._cut[0]:
            self._cut = text, [self._word(w) for w, _ in words.pre_tokenize_str(text)]
        found: list[int] = []
        for word in self._cut[1]:
            while (passed := next(passed_over)) < len(word.pairs):
                word = word.joined(passed, self)
            found += word.tokens
        return torch.tensor(found, dtype=torch.int64)

    def _word(self, word: str) -> _Pieces:
        """A word of ``tokenizers``, in single bytes."""
        if word not in self._words:
            self._words[word] = _Pieces([self._id[letter] for letter in word], self)
        return self._words[word]


class _Pieces:
    """A word in pieces, and what it becomes when a pair of them is joined.

    Words recur, so what was found once is kept.
    """

    __slots__ = ("_joined", "pairs", "tokens")

    def __init__(self, tokens: list[int], pairs: BytePairs) -> None:
        self.tokens = tokens
        self.pairs = sorted(  # (rank, place), the earliest first
            (rank, place)
            for place, pair in enumerate(pairwise(tokens))
            if (rank := pairs._rank.get(pair)) is not None
        )
        self._joined: dict[int, _Pieces] = {}

    def joined(self, which: int, pairs: BytePairs) -> _Pieces:
        """The word after pair number ``which`` is joined."""
        if which not in self._joined:
            rank, place = self.pairs[which]
            left, right = self.tokens[:place], self.tokens[place + 2 :]
            tokens = [*left, pairs._merged[rank], *right]
            self._joined[which] = _Pieces(tokens, pairs)
        return self._joined[which]


def _passed_over(dropout: float, generator: torch.Generator | None) -> Iterator[int]:
    """How many pairs are passed over before one is not: P(k) = (1 − p)·pᵏ."""
    if not dropout:
        while True:
            yield 0
    while True:
        u = 1 - torch.rand(_DRAWS, dtype=torch.float64, generator=generator)  # (0, 1]
        yield from (u.log() / log(dropout)).long().tolist()


def check_share(name: str, value: float) -> float:
    """Return ``value`` as a float if it is a number in [0, 1).

    Raises:
        TypeError: no number.
        ValueError: a number out of range.
    """
    if not 0 <= check_number(name, value) < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value!r}")
    return float(value)


def check_tokens(tokens: Tensor, *, vocabulary: int, axes: int) -> Tensor:
    """Return ``tokens`` if they are indices in 0 … vocabulary − 1.

    Args:
        tokens: (N,) or (B, T).
        vocabulary: V.
        axes: how many axes there are.

    Raises:
        TypeError: not a tensor of integers.
        ValueError: another number of axes, or a token out of range.
    """
    if not isinstance(tokens, Tensor) or tokens.dtype != torch.int64:
        got = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
        raise TypeError(f"tokens must be a torch.int64 tensor, got {got}")
    if tokens.ndim != axes:
        expected = "(N,)" if axes == 1 else "(B, T)"
        raise ValueError(
            f"tokens must have shape {expected}, got {tuple(tokens.shape)}"
        )
    if tokens.numel() and has_values(tokens):
        low, high = (int(end) for end in tokens.aminmax())
        if low < 0 or high >= vocabulary:
            raise ValueError(
                f"tokens must lie in 0 … {vocabulary - 1}, got {low} … {high}"
            )
    return tokens


# --- blocks of tokens -----------------------------------------------------------------


class Tokens:
    """A text as tokens, in blocks for training: y is x one place further on.

    Args:
        text: the text; its training part alone decides which tokens there are.
        size: V, how many tokens there are.
        block: T, tokens in a block.
        dropout: of :meth:`BytePairs.encode_with_dropout`: the training part is encoded
            anew in each pass; the held-out part never is. Batches of which the number
            is known begin with this dropout and end without any.

    Attributes:
        pairs: the tokenizer.
        train, held_out: the tokens of both parts, (N,), without dropout.

    Raises:
        TypeError: no text, or settings of another type.
        ValueError: settings out of range, or a training part shorter than two blocks.
    """

    def __init__(
        self, text: Text, size: int = 1024, block: int = 64, dropout: float = 0.0
    ) -> None:
        if not isinstance(text, Text):
            raise TypeError(f"text must be a Text, got {type(text).__name__}")
        self.block = check_count("block", block)
        self.dropout = check_share("dropout", dropout)
        self.text, self.pairs = text, BytePairs.trained(text.train, size)
        self.train = self.pairs.encode(text.train)
        self.held_out = self.pairs.encode(text.held_out)
        if len(self.train) < 2 * self.block:
            raise ValueError(
                f"the training part must hold at least two blocks of {self.block}"
                f" tokens, got {len(self.train)} tokens"
            )

    @property
    def size(self) -> int:
        """V, how many tokens there are."""
        return self.pairs.size

    @cached_property
    def fingerprint(self) -> str:
        """Says exactly which batches there are: for the cache of trained models."""
        told = f"{self.text.fingerprint} {self.pairs.fingerprint}"
        return f"{told} block {self.block} dropout {self.dropout}"

    def steps(self, size: int) -> int:
        """How many batches make a pass over the training part, about.

        Where a pass begins late it has a block less; with dropout it has more.
        """
        blocks = (len(self.train) - 1) // self.block
        return ceil(blocks / check_count("size", size))

    def batches(
        self,
        size: int,
        generator: torch.Generator | None = None,
        steps: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches without end, pass after pass.

        Each pass cuts the training part into blocks one after the other, from a random
        place of the first block on, and visits them in a random order.

        Args:
            size: blocks in a batch, B.
            generator: source of the order, the place, and the dropout.
            steps: how many batches will be drawn: the dropout of each pass is smaller
                than that of the pass before, down to 0 at this number. A model that
                always saw it would not expect the held-out part to be without it.

        Yields:
            x and y, (B, T) each, int64: y[:, t] comes right after x[:, t].

        Raises:
            TypeError, ValueError: a size that is no whole number of at least 1.
        """
        size = check_count("size", size)
        check_generator(generator)
        last = None if steps is None else size * check_count("steps", steps)
        blocks = self._blocks(generator, last)

        def draw() -> Iterator[tuple[Tensor, Tensor]]:
            while True:
                rows = torch.stack(list(islice(blocks, size)))  # (B, T + 1)
                yield rows[:, :-1], rows[:, 1:]

        return draw()

    def _blocks(
        self, generator: torch.Generator | None, last: int | None = None
    ) -> Iterator[Tensor]:
        """Blocks (T + 1,) without end; the last token is y's alone.

        The dropout falls to 0 at block number ``last``, if there is one.
        """
        drawn = 0
        while True:
            left = 1.0 if last is None else max(0.0, 1 - drawn / last)
            tokens = self.train
            if self.dropout * left:
                tokens = self.pairs.encode_with_dropout(
                    self.text.train, self.dropout * left, generator
                )
            rows = tokens.unfold(0, self.block + 1, 1)
            phase = int(torch.randint(self.block, (), generator=generator))
            places = torch.arange(min(phase, len(rows) - 1), len(rows), self.block)
            yield from rows[places[torch.randperm(len(places), generator=generator)]]
            drawn += len(places)

    def consecutive(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """x and y of all whole blocks of some tokens (N,), in order: (M, T) each.

        Raises:
            TypeError, ValueError: no tokens, or not even one block.
        """
        check_tokens(tokens, vocabulary=self.size, axes=1)
        if len(tokens) <= self.block:
            raise ValueError(
                f"a block needs {self.block + 1} tokens, got {len(tokens)}"
            )
        rows = tokens.unfold(0, self.block + 1, self.block)
        return rows[:, :-1], rows[:, 1:]
