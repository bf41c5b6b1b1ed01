"""Sums over all codes: the ELBO of a joint VAE, and log p(x) of a discrete one, exact.

    ELBO(x) = Σ_c q(c|x)·E_q(z|x)[log p(x|z, c)] − KL(q(z|x) ‖ p(z)) − KL(q(c|x) ‖ p(c))

N variables with K values have K^N codes; the sum is exact, and only z is drawn. Without
z each code is decoded once for all images, and so many more codes can be summed over
that log p(x) itself is within reach:

    log p(x) = log Σ_c p(x|c) − Σ_n log K_n
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, prod

import torch
from torch import Tensor

from course_utils.checks import check_count
from course_utils.distributions import (
    Categorical,
    DiagonalNormal,
    Posterior,
    Product,
    check_sizes,
)
from course_utils.models.vae.joint import JointVAE
from course_utils.models.vae.likelihood import CHUNK
from course_utils.models.vae.model import Decoder, ElboParts

MOST = 200  # codes that are decoded anew for each image
MOST_SHARED = 100_000  # codes that are decoded once for all images


def all_codes(sizes: Sequence[int], like: Tensor | None = None) -> Tensor:
    """Every code, as one-hot rows (ΠK, ΣK); the last variable changes fastest.

    Args:
        sizes: K_1 … K_N.
        like: whose dtype and device they have.
    """
    sizes = check_sizes(sizes)
    grids = torch.meshgrid([torch.arange(size) for size in sizes], indexing="ij")
    index = torch.stack([grid.flatten() for grid in grids], dim=1)  # (ΠK, N)
    columns = [
        torch.nn.functional.one_hot(values, size)
        for values, size in zip(index.T, sizes, strict=True)
    ]
    rows = torch.cat(columns, dim=1)
    return rows.to(torch.empty(()) if like is None else like)


@torch.no_grad()
def exact_elbo(
    vae: JointVAE,
    x: Tensor,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> ElboParts:
    """The ELBO of images x (B, …), summed over all codes, in two parts (B,), in nats.

    Without continuous latents it is exact; with them the reconstruction is a mean over
    ``samples`` z ~ q(z|x), unbiased.

    Args:
        vae: its continuous and categorical latents.
        x: images.
        samples: how many z an image.
        generator: source of the z.

    Raises:
        ValueError: more than ``MOST`` codes beside continuous latents (without them
            ``MOST_SHARED``).
    """
    samples = check_count("samples", samples)
    q = vae.posterior(x)
    normal, code = parts_of(q)
    if code is None:
        drawn = [q.sample(generator) for _ in range(samples)]
        each = torch.stack([_decoded(vae.decoder, x, z) for z in drawn])
        return ElboParts(each.mean(0), q.kl_to_prior())
    codes = all_codes(_check_number(code.sizes, normal is None), x)  # (C, ΣK)
    weight = (code.log_probs @ codes.T).exp().T  # q(c|x), (C, B)
    if normal is None:
        log_p = log_prob_of_codes(vae.decoder, codes, x)
        return ElboParts((weight * log_p).sum(0), q.kl_to_prior())
    total = torch.zeros_like(weight[0])
    for _ in range(samples):
        z = normal.sample(generator)
        for row, share in zip(codes, weight, strict=True):
            latent = torch.cat([z, row.expand(len(z), -1)], dim=1)
            total += share * _decoded(vae.decoder, x, latent)
    return ElboParts(total / samples, q.kl_to_prior())


@torch.no_grad()
def held_out_elbo(
    vae: JointVAE,
    x: Tensor,
    samples: int = 10,
    generator: torch.Generator | None = None,
) -> ElboParts:
    """The ELBO of images x (B, …) in two parts (B,), in nats, unbiased for any model.

    Summed over all codes where they are few enough for :func:`exact_elbo`; otherwise
    the codes are drawn from q(c|x), together with z. Never are they relaxed.

    Args:
        vae, x: model and images.
        samples: how many latents an image; of a purely discrete model whose codes are
            summed over, none is drawn.
        generator: source of the latents.
    """
    if not vae.sizes or prod(vae.sizes) <= (MOST if vae.continuous else MOST_SHARED):
        return exact_elbo(vae, x, samples, generator)
    q = vae.posterior(x)
    drawn = [q.sample(generator) for _ in range(check_count("samples", samples))]
    each = torch.stack([_decoded(vae.decoder, x, z) for z in drawn])
    return ElboParts(each.mean(0), q.kl_to_prior())


@torch.no_grad()
def exact_log_prob(vae: JointVAE, x: Tensor) -> Tensor:
    """log p(x) = log Σ_c p(x|c) − Σ log K_n of images x (B, …), exact: (B,), in nats.

    Raises:
        ValueError: a model with continuous latents, or one with more than
            ``MOST_SHARED`` codes.
    """
    if vae.continuous:
        raise ValueError(
            "log p(x) is a sum over codes only without continuous latents,"
            f" got {vae.continuous}"
        )
    codes = all_codes(_check_number(vae.sizes, True), vae.decoder.like)
    log_p = log_prob_of_codes(vae.decoder, codes, x)  # (C, B)
    return log_p.logsumexp(0) - sum(map(log, vae.sizes))


def log_prob_of_codes(decoder: Decoder, codes: Tensor, x: Tensor) -> Tensor:
    """log p(x|c) of all codes (C, ΣK) and all images (B, …): (C, B), in nats."""
    parts = codes.split(CHUNK)
    return torch.cat([decoder.of_all_pairs(x, part) for part in parts])


def parts_of(q: Posterior) -> tuple[DiagonalNormal | None, Categorical | None]:
    """The normal and the categorical variables of a posterior, taken together.

    Raises:
        TypeError: a part of another kind.
    """
    parts = q.parts if isinstance(q, Product) else (q,)
    normal = [part for part in parts if isinstance(part, DiagonalNormal)]
    code = [part for part in parts if isinstance(part, Categorical)]
    if len(normal) + len(code) < len(parts) or len(normal) > 1:
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise TypeError(f"expected a normal and categorical variables, got {kinds}")
    together = None
    if code:
        logits = torch.cat([part.logits for part in code], dim=1)
        together = Categorical(logits, sum((part.sizes for part in code), ()))
    return normal[0] if normal else None, together


def _decoded(decoder: Decoder, x: Tensor, z: Tensor) -> Tensor:
    """log p(x|z) of images (B, …) and a latent each, some at a time: (B,), in nats."""
    pairs = zip(x.split(CHUNK), z.split(CHUNK), strict=True)
    return torch.cat([decoder.log_likelihood(*pair) for pair in pairs])


def _check_number(sizes: tuple[int, ...], shared: bool) -> tuple[int, ...]:
    """Return the sizes if their codes are few enough to sum over."""
    most, codes = MOST_SHARED if shared else MOST, prod(sizes)
    if codes > most:
        raise ValueError(
            f"a sum over codes needs at most {most:,} of them, got {codes:,}: take a"
            " bound by importance sampling, importance_log_prob"
        )
    return sizes
