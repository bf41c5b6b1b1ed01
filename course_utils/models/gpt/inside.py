"""Inside a GPT: where it looks, and what would make it say something.

The attention from which a token is predicted is a row of A (see
:mod:`~course_utils.networks.attention`). *Inversion* asks for the input of a given
output: embeddings e_1 … e_N from which a frozen model predicts the text x_1 … x_N,

    min_e −(1/N)·Σ_t log p(x_t | e_1 … e_t)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam

from course_utils.checks import check_count, check_positive, check_samples
from course_utils.data.text import Word, check_tokens
from course_utils.distributions import normal
from course_utils.models.gpt.model import GPT, log_probs_of
from course_utils.networks.basic import frozen
from course_utils.training.history import History
from course_utils.training.loop import train
from course_utils.training.turns import Turn

# --- attention of a token -------------------------------------------------------------


def attention_before(model: GPT, tokens: Tensor, place: int, block: int = -1) -> Tensor:
    """The attention from which token number ``place`` is predicted: (H, place).

    It is the row of the query one place *earlier*, since the logits there are those of
    this token; it weighs the tokens 0 … place − 1, and sums to 1.

    Args:
        model: whose attention.
        tokens: the whole text (N,), N ≤ T, prompt included.
        place: from 1 to N − 1, or N for the token that would come next.
        block: which block, from 0 on; −1 is the last.

    Raises:
        TypeError, ValueError: more tokens than the model sees, a place or a block that
            is not there.
    """
    check_tokens(tokens, vocabulary=model.vocabulary, axes=1)
    place = check_count("place", place)
    if place > len(tokens):
        raise ValueError(f"place must be from 1 to {len(tokens)}, got {place}")
    if check_count("block", block, least=-1) >= (depth := len(model.blocks)):
        raise ValueError(f"block must be from 0 to {depth - 1}, or −1, got {block}")
    weights = model.look(tokens[None]).attention  # (L, 1, H, T, T)
    return weights[block, 0, :, place - 1, :place]


def of_words(row: Tensor, words: Sequence[Word]) -> Tensor:
    """Attention to whole words: the sum over the tokens of each, (…, W).

    Args:
        row: weights of the tokens (…, N), as of :func:`attention_before`.
        words: W of them; tokens that the row does not reach count for nothing.
    """
    sums = [row[..., w.first : w.stop].sum(-1, keepdim=True) for w in words]
    return torch.cat([row[..., :0], *sums], dim=-1)


# --- inversion ------------------------------------------------------------------------


class Inversion(NamedTuple):
    """Embeddings that make a model say a text, and how they were found.

    Attributes:
        embeddings: (N, D); the first t of them predict token number t of the text.
        history: of the loss at each step; "loss" in nats a token and "right", the share
            of the tokens that are the likeliest, are measured along the way.
        decoded: step → the likeliest tokens (N,) after it.
        log_probs: log p of each token in the end (N,), in nats.
    """

    embeddings: Tensor
    history: History
    decoded: dict[int, Tensor]
    log_probs: Tensor


class _Rows(nn.Module):
    """The embeddings that are looked for."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)


def invert(
    model: GPT,
    target: Tensor,
    *,
    steps: int = 100,
    lr: float = 0.1,
    every: int = 10,
    generator: torch.Generator | None = None,
) -> Inversion:
    """Embeddings e with p(target_t | e_1 … e_t) as large as possible for all t.

    They begin as N(0, I) and move by Adam; the model, frozen, does not. Nothing makes
    them embeddings of tokens, see :func:`nearest_tokens`.

    Args:
        model: what is to say the text.
        target: its tokens (N,), 1 ≤ N ≤ T.
        steps, lr: of Adam, whose rate falls to zero along a cosine.
        every: decode after so many steps.
        generator: source of the first embeddings.

    Raises:
        TypeError, ValueError: no token, or more than the model sees; settings out of
            range.
    """
    check_tokens(target, vocabulary=model.vocabulary, axes=1)
    every, like = check_count("every", every), model.tokens.weight
    found = _Rows(normal((len(target), model.width), like, generator))

    def each(found: _Rows) -> Tensor:
        """log p of each token, (N,)."""
        return log_probs_of(model.from_embeddings(found.rows[None]), target[None])[0]

    def measure(found: _Rows) -> dict[str, Tensor]:
        right = model.from_embeddings(found.rows[None])[0].argmax(-1) == target
        return {"loss": -each(found), "right": right.float()}

    def loss(found: _Rows, batch: Tensor) -> Tensor:
        return -each(found).mean()[None]

    turn = Turn(loss, [Adam(found.parameters(), check_positive("lr", lr))])
    with frozen(model):
        history = train(
            found,
            [turn],
            repeat(target[None]),
            steps,
            warmup=1,
            measure=measure,
            steps_per_epoch=every,
            keep=range(check_count("steps", steps) // every + 1),
        )
        with torch.no_grad():
            decoded = {
                passes * every: model.from_embeddings(kept["rows"][None])[0].argmax(-1)
                for passes, kept in history.snapshots.items()
            }
            log_p = each(found)
    return Inversion(found.rows.detach(), history, decoded, log_p)


class Nearest(NamedTuple):
    """The token whose embedding is nearest, for each of N vectors.

    Attributes:
        token: (N,).
        distance: how far its embedding is, (N,).
        length: of the vector itself, (N,).
    """

    token: Tensor
    distance: Tensor
    length: Tensor


def nearest_tokens(model: GPT, e: Tensor) -> Nearest:
    """For vectors (N, D), the nearest rows of E."""
    E = model.tokens.weight.detach()
    check_samples(e, shape=(model.width,), like=E, name="embeddings")
    distance, token = torch.cdist(e.double(), E.double()).min(1)
    return Nearest(token, distance.to(e), e.norm(dim=1))
