"""A prompt that a small GPT continues, and a look inside it."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

from course_utils.data.text import BytePairs, check_text
from course_utils.live.network import all_weights, check_size
from course_utils.live.panel import LivePanel, encode, self_contained
from course_utils.models.gpt.model import ACTIVATIONS, GPT, MLP, Block
from course_utils.networks.attention import CausalSelfAttention, RMSNorm, Rotation

PARTS = {
    *(GPT, Block, CausalSelfAttention, MLP, RMSNorm, Rotation),
    *(nn.Dropout, nn.Embedding, nn.Identity, nn.LayerNorm, nn.Linear, nn.ModuleList),
}


class LanguagePanel(LivePanel):
    """The reader types a text; ``model`` continues it in the browser.

    The panel shows the tokens, and for one of them what may come next, what each block
    would predict, and which tokens each head looks at. The weights, in half precision,
    are loaded when the reader asks for them.

    Args:
        name: names the panel's state on the built site.
        model: of any recipe; it runs as in evaluation.
        pairs: its tokenizer.
        prompt: what stands there at first.

    Raises:
        TypeError: not a :class:`GPT` of the parts it comes with, not a
            :class:`BytePairs`, a prompt that is no text.
        ValueError: a tokenizer of another size than the model's vocabulary, or with
            settings that the browser lacks; an empty prompt; weights out of range or
            more than 3,000,000 characters of them.
    """

    _esm = self_contained("language.js")
    _css = self_contained("language.css")
    module = "language"

    def __init__(self, name: str, model: GPT, pairs: BytePairs, prompt: str) -> None:
        settings = gpt_state(model)
        tokens = tokens_state(pairs)
        if pairs.size != model.vocabulary:
            raise ValueError(
                f"the tokenizer must have the model's {model.vocabulary} tokens, got"
                f" {pairs.size}"
            )
        if not check_text("prompt", prompt):
            raise ValueError("the prompt must hold at least one character, got none")
        shapes, weights = all_weights(model)
        state = {
            "gpt": {**settings, "weights": shapes},
            "tokens": tokens,
            "prompt": prompt,
            "bytes": len(weights),
        }
        super().__init__(name, check_size(state), weights)


def gpt_state(model: GPT) -> dict[str, Any]:
    """What ``gpt.js`` has to know beside the weights.

    Raises:
        TypeError: not a GPT, or one with parts of other kinds.
    """
    if not isinstance(model, GPT):
        raise TypeError(f"the panel runs a GPT, got {type(model).__name__}")
    for part in model.modules():
        if type(part) not in PARTS:
            raise TypeError(
                f"the panel runs the parts that a GPT comes with, got {part}"
            )
    first = model.blocks[0]
    assert isinstance(first, Block)
    attention, norm = first.attention, model.norm
    activation = first.mlp.activation
    names = [name for name, one in ACTIVATIONS.items() if one is activation]
    if not names:
        raise TypeError(f"the panel runs {' or '.join(ACTIVATIONS)}, got {activation}")
    state = {
        "block": model.block,
        "width": model.width,
        "depth": len(model.blocks),
        "heads": attention.heads,
        "eps": getattr(norm, "eps", torch.finfo(torch.float32).eps),
        "qkNorm": isinstance(attention.norm, RMSNorm),
        "activation": names[0],
    }
    if (rotation := attention.rotation) is not None:
        state["rotation"] = {"cos": encode(rotation.cos), "sin": encode(rotation.sin)}
    return state


def tokens_state(pairs: BytePairs) -> dict[str, Any]:
    """The byte pairs for ``tokens.js``; a token's bytes are the codes of letters.

    Raises:
        TypeError: not a BytePairs.
        ValueError: one that does more than join byte pairs.
    """
    if not isinstance(pairs, BytePairs):
        got = type(pairs).__name__
        raise TypeError(f"the panel's tokenizer must be a BytePairs, got {got}")
    expected = _settings(BytePairs.trained("a", 256))
    for name, value in _settings(pairs).items():
        if value != expected.get(name):
            raise ValueError(
                f"the panel's tokenizer must have {name} {expected.get(name)}, got"
                f" {value}"
            )
    pieces = [piece.decode("latin-1") for piece in pairs.pieces]
    return {"pieces": pieces, "merges": pairs.merges}


def _settings(pairs: BytePairs) -> dict[str, Any]:
    """All of a tokenizer but its tokens."""
    saved = json.loads(pairs.saved)
    model = saved.pop("model")
    del model["vocab"], model["merges"]
    return {**saved, **model}
