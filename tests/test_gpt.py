"""GPT: against torch's transformer; causality, caches, log-probabilities, inversion."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import product
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import gelu

from course_utils.artifacts import trained
from course_utils.data.text import Tokens, Word, bits_per_character, split_text
from course_utils.models.gpt import (
    GPT,
    MODERN,
    PLAIN,
    Recipe,
    adamw_turn,
    adaptive_log_probs,
    attention_before,
    generate,
    invert,
    log_probs,
    muon_turn,
    nearest_tokens,
    next_token_loss,
    of_words,
    sampling_law,
    train_gpt,
    window_start,
)
from course_utils.models.gpt.training import matrices_and_rest

V, T, D, L, H = 11, 8, 16, 3, 2
RECIPES = {
    "plain": PLAIN,
    "modern": MODERN,
    "mixed": Recipe("rms", "learnt", "relu2", qk_norm=True, dropout=0.2),
}


def small(recipe: Recipe = PLAIN, vocabulary: int = V, block: int = T) -> GPT:
    """A model with weights large enough for its predictions to differ."""
    torch.manual_seed(0)
    model = GPT(vocabulary, block, D, L, H, recipe)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model.eval()


def text(count: int, seed: int = 1) -> Tensor:
    return torch.randint(V, (count,), generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_by_one(model: GPT, tokens: Tensor) -> Tensor:
    """log p of tokens 1, 2, … each by a pass of its own over its window."""
    found = []
    for i in range(1, len(tokens)):
        window = tokens[None, window_start(i, model.block) : i]
        found.append(model(window)[0, -1].log_softmax(-1)[tokens[i]])
    return torch.stack(found).detach()


# --- the model ---


def test_it_is_torchs_transformer() -> None:
    """A stack of pre-norm encoder layers with a causal mask, and a tied head."""
    mine = small(Recipe()).double()
    layer = nn.TransformerEncoderLayer(
        D,
        H,
        4 * D,
        dropout=0.0,
        activation=partial(gelu, approximate="tanh"),
        batch_first=True,
        norm_first=True,
    )
    torchs = nn.TransformerEncoder(layer, L, enable_nested_tensor=False).double()
    names = {
        "attention.into.": "self_attn.in_proj_",
        "attention.out.": "self_attn.out_proj.",
        "mlp.into.": "linear1.",
        "mlp.out.": "linear2.",
        "norm_1.": "norm1.",
        "norm_2.": "norm2.",
    }
    weights = {}
    for name, value in mine.blocks.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        weights[f"layers.{name}"] = value
    torchs.load_state_dict(weights)
    tokens = text(5 * T).view(5, T)
    assert mine.places is not None
    h = mine.tokens(tokens) + mine.places.weight
    mask = nn.Transformer.generate_square_subsequent_mask(T, dtype=torch.float64)
    h = torchs.eval()(h, mask=mask)
    theirs = mine.norm(h) @ mine.tokens.weight.T
    assert (mine(tokens) - theirs).abs().max() < 1e-12
    y = text(5 * T, 2).view(5, T)
    loss = nn.functional.cross_entropy(theirs.mT, y, reduction="none").mean(1)
    assert torch.allclose(next_token_loss(mine, (tokens, y)), loss)


@pytest.mark.parametrize("name", RECIPES)
def test_a_later_token_changes_nothing_before_it(name: str) -> None:
    model, tokens = small(RECIPES[name]), text(2 * T).view(2, T)
    before = model(tokens)
    for place in range(T):
        other = tokens.clone()
        other[:, place:] = (other[:, place:] + 3) % V
        after = model(other)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.allclose(after[:, place:], before[:, place:], atol=1e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_continuations_sum_to_one(name: str) -> None:
    """All 11³ texts of three tokens, together; and all after a context."""
    model = small(RECIPES[name]).double()
    every = torch.tensor(list(product(range(V), repeat=3)))
    first = torch.full((len(every),), -log(V), dtype=torch.float64)
    rest = -2 * next_token_loss(model, (every[:, :-1], every[:, 1:]))
    assert float((first + rest).detach().exp().sum()) == pytest.approx(1.0, abs=1e-12)
    some = every[::97]
    each = torch.stack([log_probs(model, row).sum() for row in some])
    assert torch.allclose(each, (first + rest)[::97])
    context = text(T + 3)
    after = [log_probs(model, torch.tensor([w]), context=context) for w in range(V)]
    assert float(torch.cat(after).exp().sum()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", RECIPES)
def test_kept_keys_and_values_change_nothing(name: str) -> None:
    model, tokens = small(RECIPES[name]).double(), text(2 * T).view(2, T)
    for cuts in ([1] * T, [3, 4, 1], [T]):
        past = model.new_past()
        parts = [model(part, past) for part in tokens.split(cuts, dim=1)]
        assert (torch.cat(parts, 1) - model(tokens)).abs().max() < 1e-12
    with pytest.raises(ValueError, match="sees 1 to 8 tokens, got 9, 8 of them before"):
        model(tokens[:, :1], past)


def test_places_matter_and_the_head_is_tied() -> None:
    for recipe in (PLAIN, MODERN):
        model = small(recipe)
        same = model(torch.zeros(1, T, dtype=torch.int64))[0]
        # the only token again and again: a rotation alone cannot tell where it is
        assert (same[0] - same[-1]).abs().max() > 1e-3 or recipe is MODERN
        assert sum(p.shape == (V, D) for p in model.parameters()) == 1
        a, b = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 3]])
        assert (model(a)[0, -1] - model(b)[0, -1]).abs().max() > 1e-3


@torch.no_grad()
def test_it_begins_as_a_guess() -> None:
    torch.manual_seed(0)
    for recipe in (PLAIN, MODERN):
        model = GPT(1024, recipe=recipe).eval()
        x, y = torch.randint(1024, (2, 8, 64))
        assert float(next_token_loss(model, (x, y)).mean()) == pytest.approx(
            log(1024), abs=0.05
        )


@pytest.mark.parametrize("name", RECIPES)
def test_a_look_inside(name: str) -> None:
    model, tokens = small(RECIPES[name]).train(), text(2 * T).view(2, T)
    look = model.look(tokens)
    assert model.training  # as before
    assert look.attention.shape == (L, 2, H, T, T)
    assert torch.allclose(look.attention.sum(-1), torch.ones(L, 2, H, T))
    assert (look.attention.triu(1) == 0).all()
    assert look.logits.shape == (L + 1, 2, T, V)
    assert torch.allclose(look.logits[-1], model.eval()(tokens), atol=1e-5)
    h = model.embed(tokens)
    if model.places is not None:
        h = h + model.places.weight
    assert torch.allclose(look.logits[0], model.head(h), atol=1e-5)


def test_sizes_are_whole_numbers_of_any_kind() -> None:
    for recipe in (PLAIN, MODERN):
        V_, T_, D_, L_, H_ = (wrong(size) for size in torch.tensor([V, T, D, L, H]))
        model = GPT(V_, T_, D_, L_, H_, recipe)
        assert model(text(3)[None]).shape == (1, 3, V)
        assert isinstance(model.vocabulary, int)


def test_it_can_be_traced_without_values() -> None:
    with FakeTensorMode():
        x = torch.zeros(2, T, dtype=torch.int64)
        assert next_token_loss(GPT(V, T, D, L, H), (x, x)).shape == (2,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_lives_in_any_dtype_and_on_any_device(dtype: torch.dtype) -> None:
    for recipe in RECIPES.values():
        model, x = small(recipe).to(dtype), text(2 * T).view(2, T)
        loss = next_token_loss(model, (x, x))
        assert loss.shape == (2,)
        assert loss.dtype == dtype
        loss.mean().backward()
        assert all(
            p.grad is not None and p.grad.isfinite().all() for p in model.parameters()
        )
        assert generate(model, x[0], 12, generator=seeded()).shape == (T + 12,)
        assert log_probs(model, x[0]).dtype == dtype
        meta = model.to("meta")
        there = x.to("meta")
        assert next_token_loss(meta, (there, there)).is_meta
        assert log_probs(meta, there[0]).is_meta


# --- log-probabilities ---


@pytest.mark.parametrize("count", [1, 2, T, T + 1, T + 4, T + 5, 3 * T + 1])
@pytest.mark.parametrize("block", [1, 2, 5, T])
def test_each_token_sees_its_window(count: int, block: int) -> None:
    model, tokens = small(block=block).double(), text(count)
    found = log_probs(model, tokens)
    assert found.shape == (count,)
    assert float(found[0]) == pytest.approx(-log(V))
    if count > 1:
        assert (found[1:] - one_by_one(model, tokens)).abs().max() < 1e-12


def test_windows_move_by_half_a_block() -> None:
    assert [window_start(n, 8) for n in range(20)] == [0] * 9 + [4] * 4 + [8] * 4 + [
        12
    ] * 3
    assert [window_start(n, 1) for n in range(4)] == [0, 0, 1, 2]


@pytest.mark.parametrize("length", [1, 3, T, 2 * T + 3])
def test_a_context_is_seen_and_not_scored(length: int) -> None:
    model, tokens, context = small().double(), text(2 * T), text(length, 5)
    found = log_probs(model, tokens, context=context)
    every = torch.cat([context[window_start(length, T) :], tokens])
    assert (found - one_by_one(model, every)[-2 * T :]).abs().max() < 1e-12
    assert float(found.sum()) < 0


@pytest.mark.parametrize("block", [1, 2, 5, T])
@pytest.mark.parametrize("length", [1, T, T + 1, 2 * T + 3])
def test_after_a_context_windows_lie_as_in_the_whole(block: int, length: int) -> None:
    """And so as they lay when the tokens were generated after it."""
    model, every = small(MODERN, block=block).double(), text(length + T)
    found = log_probs(model, every[length:], context=every[:length])
    assert torch.allclose(found, log_probs(model, every)[length:], atol=1e-12)
    learnt = adaptive_log_probs(model, every[length:], context=every[:length], lr=1e-12)
    assert torch.allclose(found, learnt, atol=1e-6)


def test_a_uniform_model_scores_its_alphabet() -> None:
    """log₂ V for each token, whatever the tokens and however they are called."""
    letters = "All in the golden afternoon full leisurely we glide. " * 30
    for size, block in ((256, 4), (270, T), (264, 16)):
        data = Tokens(split_text(letters), size, block)
        model = GPT(size, block, D, 1, 1)
        with torch.no_grad():
            model.tokens.weight.zero_()
        count, characters = len(data.held_out), len(data.text.held_out)
        expected = log(size, 2) * count / characters
        for context in (None, data.train):
            scored = log_probs(model, data.held_out, context=context)
            got = bits_per_character(scored, characters)
            assert got == pytest.approx(expected, rel=1e-6)


def test_reading_changes_the_reader_alone() -> None:
    model, again = small(), text(5).repeat(12)
    weights = deepcopy(model.state_dict())
    fixed, learnt = log_probs(model, again), adaptive_log_probs(model, again)
    assert fixed.shape == learnt.shape
    assert torch.allclose(fixed[:T], learnt[:T], atol=1e-5)  # nothing learnt yet
    assert float(learnt[-10:].mean()) > float(fixed[-10:].mean()) + 0.1
    slow = adaptive_log_probs(model, again, lr=1e-9, context=text(13, 4))
    assert torch.allclose(slow, log_probs(model, again, context=text(13, 4)), atol=1e-4)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_law_of_sampling() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0]])
    assert torch.allclose(sampling_law(logits), logits.log_softmax(-1))
    assert torch.allclose(sampling_law(logits, 0.5), (2 * logits).log_softmax(-1))
    greedy = sampling_law(logits, temperature=0)
    assert greedy.exp().tolist() == [[0, 1, 0, 0]]
    assert torch.equal(sampling_law(logits, top_k=1), greedy)
    two = sampling_law(logits, 2.0, top_k=2)
    assert int(two.isfinite().sum()) == 2
    assert float(two.exp().sum()) == pytest.approx(1.0)
    assert torch.allclose(sampling_law(logits, top_k=9), logits.log_softmax(-1))


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_a_temperature_near_zero_leaves_the_likeliest(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1.0, 3.0, 80.0, 79.0]], dtype=dtype)
    for temperature in (0, 1e-300, 1e-40, 1e-6, 1e-3):
        law = sampling_law(logits, temperature).exp()
        assert law.tolist() == [[0, 0, 1, 0]]
    assert sampling_law(logits, 1e300).exp().tolist()[0] == pytest.approx(
        [0.25] * 4, rel=1e-3
    )


# --- generation ---


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("start", [1, 5, T, 2 * T + 1])
def test_generation_is_the_same_without_a_cache(name: str, start: int) -> None:
    model, prompt = small(RECIPES[name]), text(start)
    settings: dict[str, Any] = {"temperature": 0.8, "top_k": 6}
    for rows in (prompt, torch.stack([prompt, prompt.flip(0)])):
        kept, anew = (
            generate(model, rows, 21, generator=seeded(), cached=cached, **settings)
            for cached in (True, False)
        )
        assert torch.equal(kept, anew)
        assert torch.equal(kept[..., :start], rows)
        assert kept.shape[-1] == start + 21


def test_what_is_drawn_has_the_law_that_scores_it() -> None:
    model, count = small(), 8_000
    prompt = text(T - 1).expand(count, -1)
    settings: dict[str, Any] = {"temperature": 1.5, "top_k": 5}
    drawn = generate(model, prompt, 2, generator=seeded(), **settings)[:, -2:]
    pairs = (V * drawn[:, 0] + drawn[:, 1]).bincount(minlength=V * V) / count
    every = torch.tensor(list(product(range(V), repeat=2)))
    law = torch.stack(
        [
            log_probs(model, row, context=prompt[0], **settings).sum().exp()
            for row in every
        ]
    )
    assert float(law.sum()) == pytest.approx(1.0, abs=1e-5)
    assert ((pairs - law).abs() < 5 * (law * (1 - law) / count).sqrt() + 1e-6).all()
    plain = [log_probs(model, row, context=prompt[0]).sum().exp() for row in every]
    assert (torch.stack(plain) - law).abs().max() > 0.01  # temperature does count


def test_generation_follows_its_generator() -> None:
    model, prompt = small(), text(3)
    first, second, other = (
        generate(model, prompt, 30, generator=seeded(k)) for k in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    greedy = generate(model, prompt, 9, temperature=0)
    assert torch.equal(greedy, generate(model, prompt, 9, top_k=1))
    assert torch.equal(generate(model, prompt, 0), prompt)
    model.train()
    generate(model, prompt, 2)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


# --- attention of a token ---


def test_the_row_that_predicts_a_token_is_one_place_earlier() -> None:
    model, tokens = small(), text(T)
    weights = model.look(tokens[None]).attention
    for place, block in ((1, 0), (4, -1), (T, 1)):
        row = attention_before(model, tokens, place, block)
        assert row.shape == (H, place)
        assert torch.equal(row, weights[block, 0, :, place - 1, :place])
        assert torch.allclose(row.sum(-1), torch.ones(H))
    # it does not hang on the token that is predicted
    other = tokens.clone()
    other[4] = (other[4] + 1) % V
    row = attention_before(model, tokens, 4)
    assert torch.equal(attention_before(model, other, 4), row)


def test_pieces_of_a_word_are_summed() -> None:
    row = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0]])
    words = [Word("a", 0, 1), Word("little", 1, 3), Word("squirrel", 3, 6)]
    expected = torch.tensor([[0.1, 0.5, 0.4], [1.0, 0.0, 0.0]])
    assert torch.allclose(of_words(row, words), expected)
    assert of_words(row, []).shape == (2, 0)


# --- inversion ---


def test_embeddings_of_ones_own_make_it_say_anything() -> None:
    model, target = small(MODERN), text(6)
    model.tokens.weight.data *= 6  # sure of itself, as a trained model
    before = deepcopy(model.state_dict())
    found = invert(model, target, steps=80, every=20, generator=seeded())
    assert sorted(found.decoded) == [0, 20, 40, 60, 80]
    assert torch.equal(found.decoded[80], target)
    assert not torch.equal(found.decoded[0], target)
    assert (found.log_probs.exp() > 0.9).all()
    logits = model.from_embeddings(found.embeddings[None])[0]
    assert torch.equal(logits.argmax(-1), target)
    assert found.history.measured["right"][-1] == 1
    assert found.history.measured["loss"][0] > 1 > found.history.measured["loss"][-1]
    assert len(found.history.loss) == 80
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    again = invert(model, target, steps=80, every=20, generator=seeded())
    assert torch.equal(again.embeddings, found.embeddings)


def test_the_nearest_token_of_its_own_embedding_is_itself() -> None:
    model = small()
    E = model.tokens.weight.detach()
    found = nearest_tokens(model, E[[3, 7]] + 1e-4)
    assert found.token.tolist() == [3, 7]
    assert found.distance.max() < 1e-3
    assert torch.allclose(found.length, E[[3, 7]].norm(dim=1), atol=1e-3)


# --- training ---


@pytest.fixture(scope="module")
def data() -> Tokens:
    words = "the cat sat on the mat and the rat sat on the hat, said Alice. "
    return Tokens(split_text(words * 40), 280, T)


@pytest.mark.parametrize("turn", [muon_turn, adamw_turn])
def test_it_learns(data: Tokens, turn: Callable[..., object]) -> None:
    torch.manual_seed(0)
    model = GPT(280, T, 32, 2, 2, MODERN)
    history = train_gpt(
        model,
        data,
        steps=60,
        turn=turn,  # type: ignore[arg-type]
        steps_per_epoch=30,
        generator=seeded(),
    )
    assert set(history.measured) == {"held-out", "training"}
    start, _, end = history.measured["held-out"]
    characters = len(data.text.held_out)
    assert start == pytest.approx(
        log(280, 2) * len(data.held_out) / characters, rel=0.03
    )
    assert end < start / 2.5
    scored = log_probs(model, data.held_out, context=data.train)
    assert bits_per_character(scored, characters) == pytest.approx(end, rel=0.1)
    assert history.loss[0] == pytest.approx(log(280), abs=0.1)


def test_every_weight_moves_once() -> None:
    for recipe in RECIPES.values():
        model = small(recipe)
        matrices, rest = matrices_and_rest(model)
        assert len(matrices) == 4 * L
        assert len(matrices) + len(rest) == len(list(model.parameters()))
        assert any(p is model.tokens.weight for p in rest)


def test_it_is_trained_once(
    data: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    make = partial(GPT, 280, T, D, 1, 1, replace(MODERN, base=100.0))
    settings: dict[str, Any] = {"data": data, "steps": 4, "turn": adamw_turn}
    model, history = trained("gpt", make, train_gpt, rates=[1e-3], **settings)
    again, same = trained("gpt", make, train_gpt, rates=[1e-3], **settings)
    assert history == same
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    assert len(list((tmp_path / "models").glob("gpt-*"))) == 1


# --- bad input ---

ONE = torch.zeros(1, dtype=torch.int64)


def wrong(value: Any) -> Any:
    """A value of a type that is not allowed."""
    return value


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m(ONE), ValueError, r"tokens must have shape \(B, T\), got \(1,\)"),
        (lambda m: m(ONE[None].float()), TypeError, "int64 tensor, got torch.float32"),
        (lambda m: m(ONE[None] + V), ValueError, "0 … 10, got 11 … 11"),
        (lambda m: m(ONE[None] - 1), ValueError, "0 … 10, got -1 … -1"),
        (lambda m: m(text(T + 1)[None]), ValueError, "sees 1 to 8 tokens, got 9"),
        (lambda m: m(text(0)[None]), ValueError, "sees 1 to 8 tokens, got 0"),
        (
            lambda m: m.from_embeddings(torch.zeros(1, 2, 3)),
            ValueError,
            r"embeddings must have shape \(B, 2, 16\), got \(1, 2, 3\)",
        ),
        (
            lambda m: next_token_loss(m, (ONE[None], text(2)[None])),
            ValueError,
            r"y must have shape \(1, 1\), got \(1, 2\)",
        ),
        (  # as many tokens, but of other rows
            lambda m: next_token_loss(m, (text(6).view(2, 3), text(6).view(3, 2))),
            ValueError,
            r"y must have shape \(2, 3\), got \(3, 2\)",
        ),
        (
            lambda m: next_token_loss(m, (ONE[None], wrong([[1]]))),
            TypeError,
            "int64 tensor, got list",
        ),
        (lambda m: m(ONE[None].to("meta")), ValueError, "on cpu like the model, got m"),
        (lambda m: m.from_embeddings(wrong([1])), TypeError, "embeddings must be a"),
        (lambda m: m(ONE[None], m.new_past()[:1]), ValueError, "each of 3 blocks"),
        (lambda m: m(ONE[None], m.new_past()[:1] * L), ValueError, "got 1 with"),
        (lambda _: sampling_law(wrong([1.0])), TypeError, "logits must be a floating"),
        (lambda m: generate(m, text(0), 3), ValueError, "at least one token, got none"),
        (lambda m: generate(m, ONE, -1), ValueError, "count must be at least 0"),
        (
            lambda m: generate(m, ONE, 3, temperature=-1),
            ValueError,
            "temperature must be",
        ),
        (
            lambda m: generate(m, ONE, 3, top_k=0),
            ValueError,
            "top_k must be at least 1",
        ),
        (
            lambda m: generate(m, ONE, 3, generator=wrong(3)),
            TypeError,
            "torch.Generator",
        ),
        (lambda m: generate(m, wrong("Alice"), 3), TypeError, "int64 tensor, got str"),
        (lambda m: log_probs(m, text(0)), ValueError, "one token to score, got none"),
        (lambda m: log_probs(m, ONE[None]), ValueError, r"shape \(N,\), got \(1, 1\)"),
        (lambda m: log_probs(m, ONE, context=ONE + V), ValueError, "0 … 10"),
        (lambda m: adaptive_log_probs(m, ONE, lr=0), ValueError, "lr must be a finite"),
        (
            lambda m: attention_before(m, text(3), 0),
            ValueError,
            "place must be at least",
        ),
        (lambda m: attention_before(m, text(3), 4), ValueError, "from 1 to 3, got 4"),
        (
            lambda m: attention_before(m, text(3), 1, L),
            ValueError,
            "from 0 to 2, or −1",
        ),
        (
            lambda m: attention_before(m, text(3), 1, wrong(0.5)),
            TypeError,
            "block must be a whole number, got 0.5",
        ),
        (lambda m: attention_before(m, text(9), 1), ValueError, "sees 1 to 8 tokens"),
        (lambda m: invert(m, text(9)), ValueError, "sees 1 to 8 tokens, got 9"),
        (lambda m: invert(m, ONE, lr=-1), ValueError, "lr must be a finite number"),
        (lambda _: GPT(V, width=10, heads=4), ValueError, "multiple of the number"),
        (
            lambda _: GPT(V, 8, 6, 1, 2, MODERN),
            ValueError,
            "which turn pairs, 4, got 6",
        ),
        (lambda _: GPT(V, recipe=wrong("modern")), TypeError, "a Recipe, got 'modern'"),
        (lambda m: train_gpt(m, wrong("Alice")), TypeError, "data must be Tokens"),
        (lambda _: GPT(1), ValueError, "vocabulary must be at least 2, got 1"),
        (lambda _: Recipe(norm="batch"), ValueError, "norm must be one of 'layer'"),
        (lambda _: Recipe(places="sine"), ValueError, "places must be one of"),
        (lambda _: Recipe(activation="silu"), ValueError, "activation must be one of"),
        (lambda _: Recipe(dropout=1.0), ValueError, r"dropout must lie in \[0, 1\)"),
        (lambda _: Recipe(base=-1.0), ValueError, "base must be a finite number"),
    ],
)
def test_wrong_input_is_refused(
    call: Callable[[Any], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(small())


def test_data_of_another_model_are_refused(data: Tokens) -> None:
    with pytest.raises(ValueError, match="11 tokens in blocks of 8, got 280 in blocks"):
        train_gpt(small(), data)
