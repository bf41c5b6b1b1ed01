"""GPT: a language model, a decoder-only transformer.

    p(x_1 … x_N) = Π_t p(x_t | x_1 … x_{t−1})

    h ← E[x] + P                    (B, T, D)   each token's row of E, each place's of P
    h ← h + attention(norm(h))      in each block: look at the tokens up to here,
    h ← h + MLP(norm(h))            then work on what was found, place by place
    logits = norm(h)·Eᵀ             (B, T, V)   of the next token; the head is E again

The logits at place t are those of the token after it: log p(x_{t+1} | x_≤t). One pass
gives them for all places at once, since no place sees a later one.

Sources: Radford et al. 2019, "Language models are unsupervised multitask learners"
(GPT-2), and its small retelling by Karpathy, minGPT; for the modern recipe his nanochat
and Jordan et al. 2024, "modded-nanogpt".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, linear, relu

from course_utils.checks import (
    check_alike,
    check_count,
    check_option,
    check_positive,
    check_samples,
)
from course_utils.data.text import check_share, check_tokens
from course_utils.networks.attention import (
    CausalSelfAttention,
    KeysValues,
    RMSNorm,
    Rotation,
)
from course_utils.networks.basic import frozen

Batch = tuple[Tensor, Tensor]  # x and y, (B, T) each


def smooth(x: Tensor) -> Tensor:
    """GELU as GPT-2 has it: x·Φ(x), Φ by a tanh."""
    return gelu(x, approximate="tanh")


def squared(x: Tensor) -> Tensor:
    """ReLU²: max(x, 0)²."""
    return relu(x).square()


NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": nn.LayerNorm, "rms": RMSNorm}
ACTIVATIONS = {"gelu": smooth, "relu2": squared}
PLACES = ("learnt", "rotary")


@dataclass(frozen=True)
class Recipe:
    """What differs between GPT-2 and its descendants.

    Attributes:
        norm: "layer", with mean 0, gain and bias; or "rms", the length alone.
        places: "learnt", a row for each; or "rotary", queries and keys that turn.
        activation: "gelu", or "relu2", the square of what is above 0.
        qk_norm: whether queries and keys all have the same length.
        bias: whether linear layers have biases.
        dropout: share of the attention, of the embeddings and of each block's
            contributions that training sets to 0.
        base: of the rotation: how far the slowest pair sees.

    Raises:
        ValueError: an unknown option, numbers out of range.
    """

    norm: str = "layer"
    places: str = "learnt"
    activation: str = "gelu"
    qk_norm: bool = False
    bias: bool = True
    dropout: float = 0.0
    base: float = 1000.0

    def __post_init__(self) -> None:
        check_option("norm", self.norm, NORMS)
        check_option("places", self.places, PLACES)
        check_option("activation", self.activation, ACTIVATIONS)
        check_share("dropout", self.dropout)
        check_positive("base", self.base)


PLAIN = Recipe(dropout=0.1)  # GPT-2
MODERN = Recipe("rms", "rotary", "relu2", qk_norm=True, bias=False)


class MLP(nn.Module):
    """Two linear layers, D → 4D → D, at each place alike: (B, T, D) → (B, T, D)."""

    def __init__(self, width: int, recipe: Recipe) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[recipe.activation]
        self.into = nn.Linear(width, 4 * width, bias=recipe.bias)
        self.out = nn.Linear(4 * width, width, bias=recipe.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.activation(self.into(x)))


class Block(nn.Module):
    """h + attention(norm(h)), then h + MLP(norm(h)): (B, T, D) → (B, T, D)."""

    def __init__(
        self, width: int, heads: int, rotation: Rotation | None, recipe: Recipe
    ) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = NORMS[recipe.norm](width), NORMS[recipe.norm](width)
        self.attention = CausalSelfAttention(
            width,
            heads,
            bias=recipe.bias,
            dropout=recipe.dropout,
            qk_norm=recipe.qk_norm,
            rotation=rotation,
        )
        self.mlp = MLP(width, recipe)
        self.drop = nn.Dropout(recipe.dropout)

    def forward(self, h: Tensor, past: KeysValues | None = None) -> Tensor:
        h = h + self.drop(self.attention(self.norm_1(h), past))
        return h + self.drop(self.mlp(self.norm_2(h)))

    def with_weights(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and the weights of the attention (B, H, T, T)."""
        found, weights = self.attention.with_weights(self.norm_1(h))
        h = h + self.drop(found)
        return h + self.drop(self.mlp(self.norm_2(h))), weights


class Look(NamedTuple):
    """What goes on inside a model of L blocks.

    Attributes:
        attention: the weights of each block and head, (L, B, H, T, T); a row sums to 1.
        logits: what would be predicted before the first block and after each, as if it
            were the last, (L + 1, B, T, V); the last are the model's.
    """

    attention: Tensor
    logits: Tensor


class GPT(nn.Module):
    """The transformer of the module's text.

    Args:
        vocabulary: V, how many tokens there are.
        block: T, how many tokens it sees.
        width: D.
        depth: L, how many blocks.
        heads: H, which divides D.
        recipe: which kind.

    Raises:
        TypeError: settings of another type.
        ValueError: settings out of range; with rotary places, an odd width of a head.
    """

    def __init__(
        self,
        vocabulary: int,
        block: int = 64,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        recipe: Recipe = PLAIN,
    ) -> None:
        super().__init__()
        if not isinstance(recipe, Recipe):
            raise TypeError(f"recipe must be a Recipe, got {recipe!r}")
        self.vocabulary = vocabulary = check_count("vocabulary", vocabulary, least=2)
        self.block = block = check_count("block", block)
        self.width = width = check_count("width", width)
        depth, heads = check_count("depth", depth), check_count("heads", heads)
        self.tokens = nn.Embedding(vocabulary, width)  # E
        self.places, rotation = None, None
        if recipe.places == "rotary":
            if width % (2 * heads):
                raise ValueError(
                    "width must be a multiple of twice the number of heads, which turn"
                    f" pairs, {2 * heads}, got {width}"
                )
            rotation = Rotation(width // heads, block, recipe.base)
        else:
            self.places = nn.Embedding(block, width)  # P
        self.drop = nn.Dropout(recipe.dropout)
        self.blocks = nn.ModuleList(
            Block(width, heads, rotation, recipe) for _ in range(depth)
        )
        self.norm = NORMS[recipe.norm](width)
        self._start()

    def _start(self) -> None:
        """Small weights; the smaller where all blocks add up."""
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            elif weight.ndim == 2:
                many = (
                    sqrt(2 * len(self.blocks)) if name.endswith("out.weight") else 1.0
                )
                nn.init.normal_(weight, std=0.02 / many)

    def forward(
        self, tokens: Tensor, past: Sequence[KeysValues] | None = None
    ) -> Tensor:
        """Logits of the next token at each place of tokens (B, T): (B, T, V).

        Args:
            tokens: int64.
            past: of :meth:`new_past`, or as an earlier call left it. What it holds is
                before these tokens, and it takes them in.

        Raises:
            TypeError: tokens that are no int64.
            ValueError: no token, one out of range, or more than the model sees; tokens
                on another device; a past of another model.
        """
        return self.from_embeddings(self.embed(tokens), past)

    def embed(self, tokens: Tensor) -> Tensor:
        """E[x], the embeddings of tokens (B, T): (B, T, D)."""
        check_tokens(tokens, vocabulary=self.vocabulary, axes=2)
        if tokens.device != (here := self.tokens.weight.device):
            raise ValueError(
                f"tokens must be on {here} like the model, got {tokens.device}"
            )
        return self.tokens(tokens)

    def from_embeddings(
        self, e: Tensor, past: Sequence[KeysValues] | None = None
    ) -> Tensor:
        """The same logits, of embeddings (B, T, D) that need not be of any token."""
        h = self._placed(e, 0 if past is None else self._seen(past))
        for i, block in enumerate(self.blocks):
            h = block(h, None if past is None else past[i])
        return self.head(h)

    def head(self, h: Tensor) -> Tensor:
        """norm(h)·Eᵀ: (B, T, D) → (B, T, V)."""
        return linear(self.norm(h), self.tokens.weight)

    def new_past(self) -> list[KeysValues]:
        """Room for the keys and values of each block."""
        return [KeysValues() for _ in self.blocks]

    def _seen(self, past: Sequence[KeysValues]) -> int:
        """How many places the blocks have seen, all of them as many."""
        seen = [len(one) for one in {id(one): one for one in past}.values()]
        if len(seen) != len(self.blocks) or len(set(seen)) > 1:
            raise ValueError(
                f"past must be of new_past(), one for each of {len(self.blocks)} blocks"
                f" and as long, got {len(seen)} with {seen} places"
            )
        return seen[0]

    @torch.no_grad()
    def look(self, tokens: Tensor) -> Look:
        """Attention and predictions of every block, of tokens (B, T).

        Raises:
            TypeError, ValueError: as for :meth:`forward`.
        """
        with frozen(self):
            h = self._placed(self.embed(tokens), 0)
            attention, logits = [], [self.head(h)]
            for block in self.blocks:
                assert isinstance(block, Block)
                h, weights = block.with_weights(h)
                attention.append(weights)
                logits.append(self.head(h))
        return Look(torch.stack(attention), torch.stack(logits))

    def _placed(self, e: Tensor, start: int) -> Tensor:
        """h at the start: embeddings at the places start, start + 1, …"""
        T = e.shape[1] if isinstance(e, Tensor) and e.ndim == 3 else self.block - start
        if not 0 < T <= self.block - start:
            raise ValueError(
                f"the model sees 1 to {self.block} tokens, got {start + T}"
                + (f", {start} of them before" if start else "")
            )
        check_samples(
            e, shape=(T, self.width), like=self.tokens.weight, name="embeddings"
        )
        if self.places is not None:
            e = e + self.places.weight[start : start + T]
        return self.drop(e)


def next_token_loss(model: GPT, batch: Batch) -> Tensor:
    """−log p(y_t | x_≤t), the mean over the T tokens of each block: (B,), in nats.

    It is a mean over tokens, not the −log p of the block, which is T times as much.

    Args:
        model: p.
        batch: x and y, (B, T) each.

    Raises:
        TypeError, ValueError: as for the model; a y of another shape or out of range.
    """
    x, y = batch
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        check_alike("y", y, x)
    return -log_probs_of(model(x), y).mean(1)


def log_probs_of(logits: Tensor, y: Tensor) -> Tensor:
    """log p(y) (B, T), of logits (B, T, V)."""
    check_tokens(y, vocabulary=logits.shape[-1], axes=2)
    flat = check_alike("y", y, logits[..., 0]).flatten()
    return -cross_entropy(logits.flatten(0, 1), flat, reduction="none").view(y.shape)
