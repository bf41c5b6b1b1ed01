"""What a GPT says of a text, token by token, and what it writes.

    log p(x_1 … x_N) = Σ_t log p(x_t | x_<t)         in nats, never above 0
    bits per character = −Σ_t log₂ p(x_t | x_<t) / characters

The model sees at most T tokens. In a longer text it sees a *window* of T, and when that
is full the window moves on by half a block. Scoring and generation follow the same
rule, so that what is generated is scored as it was drawn, and the keys and values of a
window can be kept as it fills.
"""

from __future__ import annotations

from copy import deepcopy
from math import ceil, log

import torch
from torch import Tensor
from torch.nn.functional import pad

from course_utils.checks import (
    check_count,
    check_generator,
    check_number,
    check_positive,
)
from course_utils.data.text import check_tokens
from course_utils.models.gpt.model import GPT, log_probs_of
from course_utils.networks.basic import frozen

CHUNK = 64  # windows at a time
COLDEST = 1e-37  # a temperature that float32 can divide by

# --- windows --------------------------------------------------------------------------


def window_start(length: int, block: int) -> int:
    """Where the window begins that predicts the token after ``length`` tokens.

    It holds at most ``block`` tokens, and moves by half a block.
    """
    half = max(1, block // 2)
    return half * ceil(max(0, length - block) / half)


def windows(tokens: Tensor, block: int) -> Tensor:
    """All windows of tokens (N,), N ≥ 2, each with the token after it: (W, block + 1).

    The last is filled up with zeros, which nothing before them sees.
    """
    half = max(1, block // 2)
    last = window_start(len(tokens) - 1, block)
    filled = pad(tokens, (0, last + block + 1 - len(tokens)))
    return filled.unfold(0, block + 1, half)


def fresh_places(window: int, block: int) -> slice:
    """Which places of a window predict what no window before it has predicted."""
    return slice(0 if window == 0 else block - max(1, block // 2), block)


# --- log-probabilities ----------------------------------------------------------------


def sampling_law(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None
) -> Tensor:
    """log q of softmax(logits/temperature), all but the k likeliest left out.

    Args:
        logits: (…, V).
        temperature: 0 leaves the likeliest alone; of several, one.
        top_k: k; None for all.

    Returns:
        log q (…, V), in nats, −∞ for what is left out.

    Raises:
        TypeError: no logits, settings that are no numbers.
        ValueError: a temperature below 0 or infinite, a k below 1.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        got = getattr(logits, "dtype", type(logits).__name__)
        raise TypeError(f"logits must be a floating tensor (…, V), got {got}")
    if not 0 <= (degree := check_number("temperature", temperature)) < float("inf"):
        raise ValueError(
            f"temperature must be a finite number of at least 0, got {temperature!r}"
        )
    k = logits.shape[-1] if top_k is None else check_count("top_k", top_k)
    k = 1 if degree == 0 else min(k, logits.shape[-1])
    # the largest becomes 0, or a small temperature would make it infinite
    scaled = (logits - logits.amax(-1, keepdim=True)) / max(degree or 1.0, COLDEST)
    if k < logits.shape[-1]:
        value, index = scaled.topk(k, dim=-1)
        scaled = torch.full_like(scaled, -torch.inf).scatter(-1, index, value)
    return scaled.log_softmax(-1)


@torch.no_grad()
def log_probs(
    model: GPT,
    tokens: Tensor,
    *,
    context: Tensor | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Tensor:
    """log p of each token (N,) given those before it: (N,), in nats.

    The sum is the log-probability of the text, never above 0.

    Args:
        model: p.
        tokens: (N,), int64.
        context: tokens that come before, which are not scored. Without them the first
            token has nothing to be predicted from, and each is as likely: log 1/V.
        temperature, top_k: of :func:`sampling_law`, if what is scored was drawn so.

    Raises:
        TypeError, ValueError: no tokens, tokens out of range, settings out of range.
    """
    text, first = _text(model, tokens, context)
    if len(text) == 1:
        return _uniform(model, 1)
    found = []
    with frozen(model):
        for rows in windows(text, model.block).split(CHUNK):
            x, y = rows[:, :-1], rows[:, 1:]
            law = sampling_law(model(x), temperature, top_k)
            found.append(law.gather(-1, y[..., None])[..., 0])
    each = torch.cat(found)  # (W, T)
    parts = [row[fresh_places(k, model.block)] for k, row in enumerate(each)]
    scored = torch.cat(parts)[: len(text) - 1]  # of tokens 1, 2, …
    return scored[first - 1 :] if first else torch.cat([_uniform(model, 1), scored])


def adaptive_log_probs(
    model: GPT, tokens: Tensor, *, context: Tensor | None = None, lr: float = 0.08
) -> Tensor:
    """The same of a model that learns while it reads: (N,), in nats.

    Each half block is scored first; then a step of gradient descent is taken on it
    (Krause et al. 2018, arXiv:1709.07432). The model itself stays as it is.

    Args:
        model: where the reader begins.
        tokens, context: see :func:`log_probs`; nothing is learnt from the context.
        lr: step size, of −Σ log p/⌊T/2⌋ of the tokens just scored.

    Raises:
        TypeError, ValueError: as for :func:`log_probs`; a rate not above 0.
    """
    check_positive("lr", lr)
    text, first = _text(model, tokens, context)
    reader = deepcopy(model).eval().requires_grad_(True)
    found = [] if first else [_uniform(model, 1)]
    place = 1  # of the first token that the window predicts anew
    for k, row in enumerate(windows(text, model.block) if len(text) > 1 else ()):
        with torch.enable_grad():
            each = log_probs_of(reader(row[None, :-1]), row[None, 1:])[0]
            fresh = each[fresh_places(k, model.block)]
            scored = fresh[max(0, first - place) : len(text) - place]
            place += len(fresh)
            if not len(scored):
                continue
            loss = -scored.sum() / max(1, model.block // 2)
        for weight, slope in zip(
            reader.parameters(),
            torch.autograd.grad(loss, list(reader.parameters())),
            strict=True,
        ):
            weight.data.sub_(slope, alpha=lr)
        found.append(scored.detach())
    return torch.cat(found)


def _text(model: GPT, tokens: Tensor, context: Tensor | None) -> tuple[Tensor, int]:
    """As much of the context as is seen, with the tokens after it; and how much.

    The windows lie as in the whole text, where they lay when it was generated.
    """
    check_tokens(tokens, vocabulary=model.vocabulary, axes=1)
    if not len(tokens):
        raise ValueError("there must be at least one token to score, got none")
    if context is None:
        return tokens, 0
    check_tokens(context, vocabulary=model.vocabulary, axes=1)
    seen = context[window_start(len(context), model.block) :].to(tokens.device)
    return torch.cat([seen, tokens]), len(seen)


def _uniform(model: GPT, count: int) -> Tensor:
    """log 1/V, ``count`` times."""
    return model.tokens.weight.new_full((count,), -log(model.vocabulary))


# --- generation -----------------------------------------------------------------------


@torch.no_grad()
def generate(
    model: GPT,
    prompt: Tensor,
    count: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    cached: bool = True,
) -> Tensor:
    """The prompt and ``count`` more tokens, each drawn given all before it.

    Args:
        model: p.
        prompt: (N,), or (B, N) for several texts at once; N ≥ 1.
        count: how many tokens to draw.
        temperature, top_k: of :func:`sampling_law`.
        generator: source of randomness.
        cached: whether keys and values are kept; the result is the same.

    Returns:
        (N + count,) or (B, N + count).

    Raises:
        TypeError, ValueError: an empty prompt, tokens out of range, settings out of
            range.
    """
    count = check_count("count", count, least=0)
    check_generator(generator)
    single = isinstance(prompt, Tensor) and prompt.ndim == 1
    text = prompt[None] if single else prompt
    check_tokens(text, vocabulary=model.vocabulary, axes=2)
    if not text.numel():
        raise ValueError(
            "the prompt must hold at least one token, got none: begin with a line end,"
            " say, as a chapter does"
        )
    past, start = model.new_past(), 0
    with frozen(model):
        for _ in range(count):
            begin = window_start(text.shape[1], model.block)
            if begin > start or not cached:  # the window has moved: places are others
                past, start = model.new_past(), begin
            unseen = text[:, start + len(past[0]) :]
            logits = model(unseen, past)[:, -1]
            law = sampling_law(logits, temperature, top_k).float().exp()  # (B, V)
            source = law if generator is None else law.to(generator.device)
            drawn = torch.multinomial(source, 1, generator=generator)
            text = torch.cat([text, drawn.to(text.device)], dim=1)
    return text[0] if single else text
