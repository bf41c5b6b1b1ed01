"""Causal self-attention: written out, fused, torch's own; rotation, norms, caches."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from course_utils.networks.attention import (
    CausalSelfAttention,
    KeysValues,
    RMSNorm,
    Rotation,
    attention,
    attention_written_out,
    causal_mask,
)
from course_utils.training.muon import Muon, orthogonal

B, H, T, D = 3, 4, 7, 8
EXACT = 1e-12  # in float64


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def heads(places: int) -> Tensor:
    return torch.randn(B, H, places, D, dtype=torch.float64)


def near(a: Tensor, b: Tensor, error: float = EXACT) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= error)


# --- without weights ---


def test_each_query_sees_itself_and_the_past() -> None:
    assert causal_mask(2, 4, torch.empty(0)).tolist() == [
        [True, True, True, False],
        [True, True, True, True],
    ]
    with pytest.raises(ValueError, match="got 3 queries, 2 keys"):
        causal_mask(3, 2, torch.empty(0))


def test_written_out_is_a_mean_of_values() -> None:
    q, k, v = heads(T), heads(T), heads(T)
    o, weights = attention_written_out(q, k, v)
    for t in range(T):  # by hand
        score = (q[0, 0, t] * k[0, 0, : t + 1]).sum(-1) / sqrt(D)
        law = score.exp() / score.exp().sum()
        assert near(weights[0, 0, t, : t + 1], law)
        assert near(o[0, 0, t], law @ v[0, 0, : t + 1])
    assert near(weights.sum(-1), torch.ones(B, H, T).double())
    assert (weights.triu(1) == 0).all()


@pytest.mark.parametrize("queries", [1, 3, T])
def test_the_fused_kernel_gives_the_same(queries: int) -> None:
    q, k, v = heads(queries).requires_grad_(), heads(T), heads(T)
    written, weights = attention_written_out(q, k, v)
    fused = attention(q, k, v)
    assert weights.shape == (B, H, queries, T)
    assert near(written, fused)
    slopes = [torch.autograd.grad(o.square().sum(), q)[0] for o in (written, fused)]
    assert near(slopes[0], slopes[1])
    mask = causal_mask(queries, T, q)
    assert near(fused, scaled_dot_product_attention(q, k, v, attn_mask=mask))


def test_dropout_keeps_the_mean() -> None:
    q, k, v = (heads(T)[:1, :1].expand(20_000, 1, T, D) for _ in range(3))
    exact, weights = attention_written_out(q[:1], k[:1], v[:1])
    for o in (attention_written_out(q, k, v, 0.3)[0], attention(q, k, v, 0.3)):
        error = o.std(0) / sqrt(len(o))
        assert ((o.mean(0) - exact[0]).abs() < 5 * error + EXACT).all()
    assert near(attention_written_out(q, k, v, 0.3)[1][:1], weights)


@pytest.mark.parametrize("attend", [attention, attention_written_out])
@pytest.mark.parametrize(
    ("k", "v"),
    [
        (heads(T)[:1], heads(T)[:1]),  # would be broadcast
        (heads(T)[:, :1], heads(T)[:, :1]),
        (heads(T), heads(T + 1)),
        (heads(0), heads(0)),
        (heads(T)[..., :3], heads(T)[..., :3]),
        (heads(T)[0], heads(T)[0]),
    ],
)
def test_other_shapes_are_refused(
    attend: Callable[..., object], k: Tensor, v: Tensor
) -> None:
    with pytest.raises(ValueError, match=r"queries must have shape \(B, H, T, d\)"):
        attend(heads(1), k, v)


# --- rotation and norm ---


def test_rotation_is_multiplication_by_a_phase() -> None:
    x, turn = heads(T), Rotation(D, 20, base=50.0).double()
    angle = torch.arange(3, 3 + T)[:, None] * 50.0 ** (-torch.arange(4) / 4)
    z = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones(T, 4), angle)
    assert near(turn(x, 3), torch.cat([z.real, z.imag], -1), 1e-6)


def test_rotated_products_hang_on_the_distance_alone() -> None:
    q, k = heads(T), heads(T)
    turn = Rotation(D, 40)
    products = [turn(q, s) @ turn(k, s).mT for s in (0, 11, 33)]
    assert near(products[0], products[1], 1e-5)
    assert near(products[0], products[2], 1e-5)
    assert near(turn(q, 5).norm(dim=-1), q.norm(dim=-1), 1e-6)
    assert near(turn(q)[:, :, 0], q[:, :, 0])
    with pytest.raises(ValueError, match="there are 40 places, got 41"):
        turn(q, 34)
    with pytest.raises(ValueError, match="start must be at least 0, got -2"):
        turn(q, -2)
    for other in (2, D + 2):  # the first would be broadcast
        with pytest.raises(ValueError, match=r"x must have shape \(B, H, T, 8\), got"):
            turn(torch.zeros(B, H, T, other))


def test_rms_norm_is_torchs_without_gain() -> None:
    x = heads(T) * 5
    torchs = nn.RMSNorm(D, elementwise_affine=False)
    assert near(RMSNorm(D)(x), torchs(x))
    assert near(RMSNorm(D)(x).square().mean(-1), torch.ones(B, H, T).double(), 1e-6)


# --- the layer ---


def layer(**settings: object) -> CausalSelfAttention:
    return CausalSelfAttention(H * D, H, **settings).double()  # type: ignore[arg-type]


KINDS: dict[str, Callable[[], CausalSelfAttention]] = {
    "plain": layer,
    "no biases": lambda: layer(bias=False),
    "modern": lambda: layer(bias=False, qk_norm=True, rotation=Rotation(D, 12)),
}


def test_the_layer_is_torchs_multihead_attention() -> None:
    mine = layer()
    torchs = nn.MultiheadAttention(H * D, H, batch_first=True).double()
    torchs.load_state_dict(
        {
            "in_proj_weight": mine.into.weight,
            "in_proj_bias": mine.into.bias,
            "out_proj.weight": mine.out.weight,
            "out_proj.bias": mine.out.bias,
        }
    )
    x = torch.randn(B, T, H * D, dtype=torch.float64)
    mask = ~causal_mask(T, T, x)
    theirs, weights = torchs(x, x, x, attn_mask=mask, average_attn_weights=False)
    o, mine_weights = mine.with_weights(x)
    assert near(o, theirs)
    assert near(mine_weights, weights)
    assert near(mine(x), theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_are_equal_and_causal(kind: str) -> None:
    model, x = KINDS[kind](), torch.randn(B, T, H * D, dtype=torch.float64)
    o, weights = model.with_weights(x)
    assert near(model(x), o)
    assert near(weights.sum(-1), torch.ones(B, H, T).double())
    other = x.clone()
    other[:, 4:] += 1
    assert torch.equal(model.with_weights(other)[0][:, :4], o[:, :4])
    assert not near(model(other)[:, 4:], o[:, 4:], 1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuts", [[7], [1] * 7, [3, 1, 3], [1, 6]])
def test_with_kept_keys_and_values_it_is_the_same(kind: str, cuts: list[int]) -> None:
    model, x = KINDS[kind](), torch.randn(B, T, H * D, dtype=torch.float64)
    past, written = KeysValues(), KeysValues()
    parts = [model(part, past) for part in x.split(cuts, dim=1)]
    assert len(past) == T
    assert near(torch.cat(parts, 1), model(x))
    parts = [model.with_weights(part, written)[0] for part in x.split(cuts, dim=1)]
    assert near(torch.cat(parts, 1), model(x))


def test_a_norm_bounds_the_scores() -> None:
    q, k, _ = KINDS["modern"]().queries_keys_values(
        1e3 * torch.randn(B, T, 32).double()
    )
    assert near(q.square().mean(-1), torch.ones(B, H, T).double(), 1e-6)
    assert float((q @ k.mT / sqrt(D)).detach().abs().max()) <= sqrt(D) + 1e-6


def test_dropout_is_for_training_alone() -> None:
    model, x = layer(dropout=0.5), torch.randn(B, T, H * D).double()
    assert not near(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_lives_anywhere(dtype: torch.dtype) -> None:
    for make in KINDS.values():
        model = make().to(dtype)
        assert model(torch.randn(B, T, 32).to(dtype)).dtype == dtype
        past, model = KeysValues(), model.to("meta")
        x = torch.randn(B, T, 32, device="meta").to(dtype)
        assert model(x, past).is_meta
        assert model.with_weights(x[:, :2], past)[1].shape == (B, H, 2, T + 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CausalSelfAttention(10, 4), "multiple of the number of heads, 4, got"),
        (lambda: CausalSelfAttention(8, 0), "heads must be at least 1"),
        (lambda: CausalSelfAttention(8, 2, dropout=1.0), r"\[0, 1\), got 1.0"),
        (
            lambda: CausalSelfAttention(16, 2, rotation=Rotation(2, 5)),
            "of the 8 numbers of a head, got one of 2",
        ),
        (lambda: layer()(torch.zeros(2, 32).double()), r"\(B, T, 32\), got \(2, 32\)"),
        (lambda: layer()(torch.zeros(2, 3, 8).double()), r"\(B, 3, 32\), got"),
        (lambda: layer()(torch.zeros(2, 3, 32, device="meta").double()), "be on cpu"),
        (lambda: Rotation(3, 5), "dim must be even, got 3"),
        (lambda: Rotation(4, 0), "places must be at least 1"),
        (lambda: Rotation(4, 5, base=0), "base must be a finite number above 0"),
    ],
)
def test_wrong_settings_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_cache_is_of_one_batch() -> None:
    past = KeysValues()
    past.extended(heads(2), heads(2))
    with pytest.raises(ValueError, match="start anew for another batch"):
        past.extended(heads(2)[:1], heads(2)[:1])
    with pytest.raises(ValueError, match="a value for each key"):
        past.extended(heads(2), heads(3))
    assert len(past) == 2  # nothing was taken in


# --- Muon, which moves such matrices ---


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_a_step_is_nearly_orthogonal(shape: tuple[int, int]) -> None:
    G = torch.randn(shape, dtype=torch.float64)
    U, S, V = torch.linalg.svd(G, full_matrices=False)
    O = orthogonal(G)
    value = (U.mT @ O @ V.mT).diagonal()
    seen = S / S.norm() > 0.01
    assert ((value[seen] > 0.67) & (value[seen] < 1.15)).all()
    assert near(U.mT @ O @ V.mT, value.diag(), 1e-9)  # the same singular vectors
    assert near(orthogonal(7 * G), O, 1e-9)


def test_the_optimizer_is_torchs_in_full_precision() -> None:
    start = torch.randn(12, 20)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = Muon([mine], lr=0.02, weight_decay=0.3)
    torchs = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        mine.grad = torch.randn(12, 20)
        theirs.grad = mine.grad.clone()
        ours.step()
        torchs.step()
    moved = (theirs - start).detach().norm()
    assert float((mine - theirs).detach().norm() / moved) < 0.03  # of bfloat16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr must be a finite number above 0"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number of at least 0"),
        ({"steps": 0}, "steps must be at least 1"),
    ],
)
def test_wrong_rates_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon([nn.Parameter(torch.zeros(2, 2))], **settings)  # type: ignore[arg-type]


def test_muon_moves_matrices_alone() -> None:
    with pytest.raises(ValueError, match=r"matrices \(A, B\), got shape \(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))])
    moved = Muon([nn.Parameter(torch.zeros(2, 2))])
    with pytest.raises(ValueError, match=r"matrices \(A, B\), got shape \(3,\)"):
        moved.add_param_group({"params": nn.Parameter(torch.zeros(3))})
    assert len(moved.param_groups) == 1
    more = (nn.Parameter(torch.zeros(2, n)) for n in (1, 2))
    moved.add_param_group({"params": more})
    assert len(moved.param_groups[1]["params"]) == 2
    still = nn.Parameter(torch.ones(2, 2))
    Muon([still]).step()  # without a gradient
    assert torch.equal(still, torch.ones(2, 2))
