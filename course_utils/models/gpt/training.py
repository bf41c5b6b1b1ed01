"""Training of a GPT: Muon or AdamW, on blocks of tokens in a random order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.checks import check_count
from course_utils.data.text import Tokens
from course_utils.models.gpt.model import GPT, Batch, next_token_loss
from course_utils.training.history import History
from course_utils.training.loop import train
from course_utils.training.muon import Muon
from course_utils.training.turns import Turn, adamw


def matrices_and_rest(
    model: GPT,
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The blocks' matrices; and embeddings, gains and biases."""
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    return matrices, [p for p in model.parameters() if id(p) not in known]


def muon_turn(
    model: GPT,
    lr: float = 0.02,
    weight_decay: float = 0.6,
    embedding_lr: float = 4e-3,
) -> Turn[GPT, Batch]:
    """Matrices move by Muon, all else by AdamW, without weight decay.

    Args:
        model: what moves.
        lr, weight_decay: of the matrices.
        embedding_lr: peak learning rate of the rest.
    """
    matrices, rest = matrices_and_rest(model)
    muon = Muon(matrices, lr, weight_decay)
    return Turn(next_token_loss, [muon, adamw(rest, embedding_lr, 0.0)])


def adamw_turn(
    model: GPT, lr: float = 4e-3, weight_decay: float = 0.1
) -> Turn[GPT, Batch]:
    """All moves by AdamW; only matrices decay."""
    matrices, rest = matrices_and_rest(model)
    both = [adamw(matrices, lr, weight_decay), adamw(rest, lr, 0.0)]
    return Turn(next_token_loss, both)


def train_gpt(
    model: GPT,
    data: Tokens,
    *,
    steps: int = 800,
    batch: int = 16,
    turn: Callable[..., Turn[GPT, Batch]] = muon_turn,
    rates: Sequence[float] = (),
    watched: int = 64,
    steps_per_epoch: int = 100,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> History:
    """Minimise −log p of the next token over blocks of ``data.train``.

    The learning rates rise for 3 % of the steps, the data's dropout falls to 0. What
    the history has measured: ``held-out`` and ``training``, −log₂ p of blocks of the
    two parts *per character*, each block without any context. :func:`log_probs` gives
    each token more, and is what a result is told by.

    Args:
        model: trained in place.
        data: blocks of the model's size. Settings are chosen on data of
            ``text.tuning()``, whose held-out part is the end of the training part.
        steps, batch: how many batches, and blocks in each.
        turn: :func:`muon_turn` or :func:`adamw_turn`.
        rates: what else it takes, in its order.
        watched: how many blocks of each part are measured.
        steps_per_epoch: measure after so many steps, which count as an epoch.
        generator: source of the batches.
        settings: what else :func:`~course_utils.training.loop.train` takes.

    Raises:
        TypeError: no Tokens.
        ValueError: blocks or tokens that are not the model's; settings out of range.
    """
    if not isinstance(data, Tokens):
        raise TypeError(f"data must be Tokens, got {type(data).__name__}")
    if (data.size, data.block) != (model.vocabulary, model.block):
        raise ValueError(
            f"the data must have {model.vocabulary} tokens in blocks of {model.block},"
            f" got {data.size} in blocks of {data.block}"
        )
    watched = check_count("watched", watched)
    parts = {}
    for name, tokens, text in (
        ("held-out", data.held_out, data.text.held_out),
        ("training", data.train, data.text.train),
    ):
        each = len(tokens) / len(text) / log(2)  # nats a token to bits a character
        x, y = data.consecutive(tokens)
        parts[name] = x[:watched], y[:watched], each

    def measure(model: GPT) -> dict[str, Tensor]:
        here = model.tokens.weight.device
        return {
            name: next_token_loss(model, (x.to(here), y.to(here))) * each
            for name, (x, y, each) in parts.items()
        }

    return train(
        model,
        [turn(model, *rates)],
        data.batches(batch, generator, steps),
        steps,
        warmup=max(1, round(0.03 * check_count("steps", steps))),
        measure=measure,
        steps_per_epoch=steps_per_epoch,
        **settings,
    )
