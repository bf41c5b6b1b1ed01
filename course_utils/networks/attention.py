"""Causal self-attention: each place of a row looks at itself and at those before it.

    A_ts = softmax_s(q_t·k_s/√d),  s ≤ t          the weights: each row t sums to 1
    o_t  = Σ_s A_ts·v_s

It stands here twice: written out, which gives the weights, and by torch's fused kernel,
which does not make them and is faster. Both give the same o.

Shapes: (B, H, T, d) for B rows of T places, H heads of d numbers. Where keys and values
of earlier places are at hand, there are S ≥ T of them: query t is at place S − T + t.

Sources: Vaswani et al. 2017 (arXiv:1706.03762); Su et al. 2021 (arXiv:2104.09864) for
the rotation; Henry et al. 2020 (arXiv:2010.04245) for the norm of queries and keys.
"""

from __future__ import annotations

from math import inf, sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from course_utils.checks import (
    check_count,
    check_number,
    check_positive,
    check_samples,
)

# --- one head or many, without weights of their own -----------------------------------


def causal_mask(queries: int, keys: int, like: Tensor) -> Tensor:
    """Whether query t may look at key s: s ≤ keys − queries + t; (queries, keys).

    Args:
        queries, keys: T and S ≥ T: the queries stand at the last T places.
        like: where the mask lives.

    Raises:
        ValueError: more queries than keys.
    """
    if queries > keys:
        raise ValueError(
            f"there must be a key for each query, got {queries} queries, {keys} keys"
        )
    every = torch.ones(queries, keys, dtype=torch.bool, device=like.device)
    return every.tril(keys - queries)


def attention_written_out(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """o = A·v and the weights A = softmax(q·kᵀ/√d), of the past alone.

    Args:
        q: queries (B, H, T, d).
        k, v: keys and values (B, H, S, d), S ≥ T.
        dropout: share of the weights that are set to 0 before v is averaged.

    Returns:
        o (B, H, T, d) and A (B, H, T, S), before any dropout.

    Raises:
        ValueError: other shapes, more queries than keys.
    """
    _check_heads(q, k, v)
    scores = q @ k.transpose(-2, -1) / sqrt(q.shape[-1])  # (B, H, T, S)
    past = causal_mask(q.shape[-2], k.shape[-2], q)
    weights = scores.masked_fill(~past, -inf).softmax(-1)
    return drop(weights, dropout) @ v, weights


def attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """The same o (B, H, T, d), by the fused kernel.

    Raises:
        ValueError: as for :func:`attention_written_out`.
    """
    _check_heads(q, k, v)
    queries, keys = q.shape[-2], k.shape[-2]
    if queries == keys:
        return scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    past = None if queries == 1 else causal_mask(queries, keys, q)
    return scaled_dot_product_attention(q, k, v, past, dropout)


def _check_heads(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Refuse shapes that are not (B, H, T, d), (B, H, S, d), (B, H, S, d), T ≤ S."""
    shapes = [tuple(part.shape) for part in (q, k, v)]
    alike = {(*shape[:-2], shape[-1]) for shape in shapes}
    right = q.ndim == 4 and len(alike) == 1 and k.shape == v.shape
    if not right or q.shape[2] > k.shape[2]:
        raise ValueError(
            "queries must have shape (B, H, T, d), keys and values (B, H, S, d) with"
            f" S ≥ T, got {', '.join(map(str, shapes))}"
        )


# --- parts of the layer ---------------------------------------------------------------


class RMSNorm(nn.Module):
    """x/√(mean x² + ε): length √D, and no weights (Zhang and Sennrich 2019).

    Shapes: (…, D) → (…, D).

    Args:
        dim: D.

    Source: arXiv:1910.07467, where the result is multiplied by a learnt gain.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = check_count("dim", dim)

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, (self.dim,))


class Rotation(nn.Module):
    """Turns each pair (x_i, x_{i+d/2}) by the angle m·base^{−2i/d} at place m.

    The scalar product of two vectors, turned at places m and n, hangs on m − n alone:
    places need no embedding.

    Shapes: (B, H, T, d) → (B, H, T, d).

    Args:
        dim: d, even.
        places: how many there are.
        base: the slowest pair turns by 1/base, about, from one place to the next.

    Source: Su et al. 2021 (arXiv:2104.09864).
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, dim: int, places: int, base: float = 1000.0) -> None:
        super().__init__()
        if check_count("dim", dim, least=2) % 2:
            raise ValueError(f"dim must be even, got {dim}")
        place = torch.arange(check_count("places", places), dtype=torch.float64)
        i = torch.arange(dim // 2, dtype=torch.float64)
        angle = place[:, None] * check_positive("base", base) ** (-2 * i / dim)
        for name, value in (("cos", angle.cos()), ("sin", angle.sin())):  # (T, d/2)
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """``x`` (B, H, T, d) at the places start … start + T − 1.

        Raises:
            TypeError: a start that is no whole number.
            ValueError: vectors of another length, places beyond the last or below 0.
        """
        start, d = check_count("start", start, least=0), 2 * self.cos.shape[1]
        if x.shape[-1] != d:
            raise ValueError(f"x must have shape (B, H, T, {d}), got {tuple(x.shape)}")
        stop = start + x.shape[-2]
        if stop > len(self.cos):
            raise ValueError(f"there are {len(self.cos)} places, got {stop}")
        cos, sin = (part[start:stop].to(x.dtype) for part in (self.cos, self.sin))
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class KeysValues:
    """The keys and values of the places that a layer has seen.

    With them a row goes on place by place, and nothing is computed twice.

    Attributes:
        keys, values: (B, H, S, d), or None at the start.
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def __len__(self) -> int:
        """S, how many places it holds."""
        return 0 if self.keys is None else self.keys.shape[-2]

    def extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Take in those of the next places (B, H, T, d); return all, (B, H, S + T, d).

        Raises:
            ValueError: another number of rows, heads or numbers; a value that is no
                key's. Nothing is taken in then.
        """
        if k.shape != v.shape:
            raise ValueError(
                f"there must be a value for each key, got {tuple(k.shape)} of keys and"
                f" {tuple(v.shape)} of values"
            )
        if self.keys is not None and self.values is not None:
            others = [-4, -3, -1]
            if [self.keys.shape[i] for i in others] != [k.shape[i] for i in others]:
                raise ValueError(
                    f"the keys seen have shape {tuple(self.keys.shape)}, and those that"
                    f" come now {tuple(k.shape)}: start anew for another batch"
                )
            k, v = torch.cat([self.keys, k], -2), torch.cat([self.values, v], -2)
        self.keys, self.values = k, v
        return k, v


# --- the layer ------------------------------------------------------------------------


class CausalSelfAttention(nn.Module):
    """Queries, keys and values by one linear layer, H heads, and a layer to mix them.

    Shapes: (B, T, D) → (B, T, D).

    Args:
        width: D.
        heads: H, which divides D.
        bias: whether the two linear layers have biases.
        dropout: share of the weights that training sets to 0.
        qk_norm: whether queries and keys get length √d, so that no score exceeds √d.
        rotation: turns queries and keys by their places, if given.

    Raises:
        ValueError: a width that the heads do not divide; a dropout outside [0, 1); a
            rotation of vectors of another length than a head's.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        qk_norm: bool = False,
        rotation: Rotation | None = None,
    ) -> None:
        super().__init__()
        self.heads = check_count("heads", heads)
        if check_count("width", width) % self.heads:
            raise ValueError(
                f"width must be a multiple of the number of heads, {heads}, got {width}"
            )
        if not 0 <= check_number("dropout", dropout) < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout!r}")
        if rotation is not None and 2 * rotation.cos.shape[1] != width // heads:
            raise ValueError(
                f"the rotation must be of the {width // heads} numbers of a head, got"
                f" one of {2 * rotation.cos.shape[1]}"
            )
        self.dropout, self.rotation = dropout, rotation
        self.norm = RMSNorm(width // heads) if qk_norm else nn.Identity()
        self.into = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, past: KeysValues | None = None) -> Tensor:
        """What T more places (B, T, D) take from those up to them.

        Args:
            x: the places after those in ``past``.
            past: keys and values of the places before, which takes in the new ones.

        Raises:
            TypeError, ValueError: another shape, dtype or device than the layer's;
                rows that are not those of ``past``.
        """
        q, k, v = self.queries_keys_values(x, past)
        return self.out(_joined(attention(q, k, v, self._drop())))

    def with_weights(
        self, x: Tensor, past: KeysValues | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same, written out, and its weights A (B, H, T, S)."""
        q, k, v = self.queries_keys_values(x, past)
        o, weights = attention_written_out(q, k, v, self._drop())
        return self.out(_joined(o)), weights

    def queries_keys_values(
        self, x: Tensor, past: KeysValues | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q (B, H, T, d) of ``x``; k and v (B, H, S, d) of all places up to them."""
        D = self.into.in_features
        shape = x.shape[1:2] if isinstance(x, Tensor) and x.ndim == 3 else ("T",)
        check_samples(
            x, shape=(*shape, D), like=self.into.weight, name="places", finite=False
        )
        B, T, _ = x.shape
        rows = self.into(x).view(B, T, 3, self.heads, D // self.heads)
        q, k, v = rows.permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
        q, k = self.norm(q), self.norm(k)
        if self.rotation is not None:
            start = 0 if past is None else len(past)
            q, k = self.rotation(q, start), self.rotation(k, start)
        return q, *((k, v) if past is None else past.extended(k, v))

    def _drop(self) -> float:
        """The share of the weights that is set to 0 now."""
        return self.dropout if self.training else 0.0


def _joined(o: Tensor) -> Tensor:
    """(B, H, T, d) → (B, T, H·d)."""
    return o.transpose(1, 2).flatten(2)
