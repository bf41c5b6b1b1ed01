"""What a small GPT makes of a book, ingredient by ingredient, in bits per character.

Each row trains on the training part of Alice in Wonderland and reads the held-out
tenth. Rows called "tuning" hold out the end of the training part in its place: by them
settings are chosen, so that the held-out part stays unseen. They also tell the weights
of the mixture, and what learning while reading gives at each rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from course_utils.checks import check_option
from course_utils.data.alice import load_alice
from course_utils.data.genesis import load_genesis
from course_utils.data.text import Tokens, bits_per_character
from course_utils.models.gpt.model import GPT, MODERN, PLAIN
from course_utils.models.gpt.scoring import adaptive_log_probs, log_probs
from course_utils.models.gpt.training import adamw_turn, muon_turn, train_gpt
from course_utils.models.ngrams import KneserNey, SpelledOut, best_weights
from course_utils.studies.store import SECONDS, Measured, Study

BOOKS = {"alice": load_alice, "genesis": load_genesis}
RECIPES = {"plain": PLAIN, "modern": MODERN}
TURNS = {"adamw": adamw_turn, "muon": muon_turn}
READERS = ("GPT", "4-gram of tokens", "7-gram of characters")
WAYS = ("fixed", "counting on")  # what the n-grams do while they read
RATES = (0.02, 0.04, 0.08, 0.12)  # of learning while reading


class Unfalling(Tokens):
    """Tokens whose dropout stays the same to the end."""

    def batches(
        self,
        size: int,
        generator: torch.Generator | None = None,
        steps: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return super().batches(size, generator)


def measure(
    seed: int,
    book: str = "alice",
    recipe: str = "modern",
    turn: str = "muon",
    vocabulary: int = 1024,
    dropout: float = 0.2,
    falling: bool = True,
    tuning: bool = False,
    changed: dict[str, Any] | None = None,
    **settings: Any,
) -> Measured:
    """Train a GPT and let it read what was held out.

    Args:
        seed: not used; all is drawn from torch's random numbers.
        book: alice, or genesis, which is in Hebrew.
        recipe, turn: plain or modern, adamw or muon.
        vocabulary: how many tokens there are.
        dropout: of the byte pairs; a network's own is in its recipe.
        falling: whether that of the byte pairs falls to 0 over the training.
        tuning: whether the end of the training part is held out, in place of the end
            of the book.
        changed: what is other than in the recipe.
        settings: of :func:`~course_utils.models.gpt.train_gpt`.
    """
    check_option("book", book, BOOKS)
    check_option("recipe", recipe, RECIPES)
    check_option("turn", turn, TURNS)
    text = BOOKS[book]()
    kind = Tokens if falling else Unfalling
    data = kind(text.tuning() if tuning else text, vocabulary, dropout=dropout)
    changed_recipe = replace(RECIPES[recipe], **(changed or {}))
    model = GPT(data.size, data.block, recipe=changed_recipe)
    history = train_gpt(model, data, turn=TURNS[turn], **settings)
    return {SECONDS: history.seconds, **measured(model.eval(), data, tuning)}


def measured(model: GPT, data: Tokens, tuning: bool = False) -> Measured:
    """Bits per character of the held-out part, and of the last of the training part.

    Args:
        model: trained on the training part.
        data: both parts.
        tuning: whether the held-out part is one that settings may be chosen on: then
            the weights of the mixtures are, and the bits of learning while reading
            told at each rate.
    """
    new, known, text = data.held_out, data.train, data.text
    end, before = known[-len(new) :], known[: -len(new)]
    each = log_probs(model, new, context=known)
    seen = log_probs(model, end, context=before)
    told = {
        "held out": bits_per_character(each, len(text.held_out)),
        "training": bits_per_character(seen, len(data.pairs.decode(end))),
    }
    if not tuning:
        return told
    for way in WAYS:
        weights = best_weights(readers(each, data, learn=way == "counting on"))
        for reader, weight in zip(READERS, weights.tolist(), strict=True):
            told[f"{way}: weight of {reader}"] = weight
    for lr in RATES:
        learnt = adaptive_log_probs(model, new, context=known, lr=lr)
        told[f"reading at {lr}"] = bits_per_character(learnt, len(text.held_out))
    return told


def readers(of_gpt: Tensor, data: Tokens, learn: bool = False) -> Tensor:
    """log p of the held-out tokens by the GPT and by both n-grams: (3, N), float64.

    Args:
        of_gpt: log p by the GPT, (N,).
        data: what the n-grams count.
        learn: whether they also count the held-out tokens, each once it is predicted.
    """
    found = [of_gpt.double()]
    for model in (KneserNey(data.size, 4), SpelledOut(data.pairs, 7)):
        fitted = model.fit(data.train)
        found.append(fitted.log_probs(data.held_out, data.train, learn=learn))
    return torch.stack(found)


# As in minGPT, but for the rate, which is chosen on the end of the training part
PLAIN_GPT: dict[str, Any] = {"recipe": "plain", "turn": "adamw", "dropout": 0.0}
PLAIN_RATE = [2e-3]  # the best of the rows "GPT-2 at …, tuning"


def _tuned(
    name: str, settings: dict[str, Any], rates: tuple[float, ...]
) -> dict[str, dict[str, Any]]:
    """A row for each learning rate, to choose one by."""
    return {
        f"{name} at {rate:g}, tuning": {**settings, "rates": [rate], "tuning": True}
        for rate in rates
    }


STUDY = Study(
    "gpt",
    measure,
    {
        "GPT-2": {**PLAIN_GPT, "rates": PLAIN_RATE},
        "GPT-2, Muon": {**PLAIN_GPT, "turn": "muon"},
        "GPT-2, BPE dropout": {**PLAIN_GPT, "rates": PLAIN_RATE, "dropout": 0.2},
        "the recipe": {},
        # one ingredient less, or in its old form
        "without BPE dropout": {"dropout": 0.0},
        "BPE dropout to the end": {"dropout": 0.1, "falling": False},
        "dropout in the network instead": {
            "dropout": 0.0,
            "changed": {"dropout": 0.2},
        },
        "without Muon": {"turn": "adamw", "rates": [2e-3]},
        "places learnt": {"changed": {"places": "learnt"}},
        "layer norm, biases": {"changed": {"norm": "layer", "bias": True}},
        "without QK norm": {"changed": {"qk_norm": False}},
        "GELU": {"changed": {"activation": "gelu"}},
        # not to be compared with the others
        "Genesis": {"book": "genesis"},
        # their held-out part is the end of the training part: not to be compared
        "tuning": {"tuning": True},
        **_tuned("GPT-2", PLAIN_GPT, (1e-3, 2e-3, 4e-3)),
        **_tuned("without Muon,", {"turn": "adamw"}, (2e-3, 4e-3, 8e-3)),
    },
)
