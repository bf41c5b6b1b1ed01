"""log p(x) of a VAE: by importance sampling, by plain Monte Carlo, and its bounds.

    p(x) = ∫ p(x|z)·p(z) dz = E_q[w],    w = p(x|z)·p(z)/q(z|x),  z ~ q

    log p̂(x) = log Σ_k w_k − log K        (K samples; logsumexp, for w underflows)

p̂ is unbiased for every q that covers the posterior; log p̂ is not: by Jensen's
inequality E[log p̂] ≤ log p(x), and it rises to log p(x) as K grows. At K = 1 its mean
is the ELBO, at K > 1 the IWAE bound. Plain Monte Carlo is the same with q = p(z):
hardly one of its samples looks like x.

These estimates are for looking at a model: they carry no gradient, and a thousand
decodings an image need no memory for the way back.

Sources: Kingma and Welling 2014 (arXiv:1312.6114), appendix D; Burda et al. 2016, IWAE
(arXiv:1509.00519).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor

from course_utils.checks import check_count
from course_utils.distributions import DiagonalNormal, Posterior, normal
from course_utils.models.vae.model import Decoder

CHUNK = 2000  # images decoded at once: bounds the memory


@torch.no_grad()
def log_weights(
    decoder: Decoder,
    q: Posterior,
    x: Tensor,
    samples: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log w = log p(x|z) + log p(z) − log q(z|x), (K, B), for K = ``samples`` z ~ q.

    Args:
        decoder: p(x|z).
        q: a posterior for each image, (B, D). The prior makes it plain Monte Carlo.
        x: images (B, …).
        samples: K.
        generator: source of the z.

    Raises:
        ValueError: K below 1, or posteriors that do not match the images.
    """
    samples = check_count("samples", samples)
    if q.batch != len(x):
        raise ValueError(
            f"q must hold one posterior an image, got {q.batch} for {len(x)} images"
        )
    rows = []
    for part in torch.arange(samples).split(max(1, CHUNK // len(x))):
        k = len(part)
        wide = q.repeat(k)
        z = wide.sample(generator)  # (k·B, D)
        many = x.repeat(k, *[1] * (x.ndim - 1))  # (k·B, …)
        log_w = decoder.log_likelihood(many, z) + wide.log_prior(z) - wide.log_prob(z)
        rows.append(log_w.view(k, len(x)))
    return torch.cat(rows)


def log_mean_weight(log_w: Tensor) -> Tensor:
    """log p̂(x) = logsumexp_k log w_k − log K, (K, B) → (B,), in nats."""
    return log_w.logsumexp(dim=0) - log(len(log_w))


def importance_log_prob(
    decoder: Decoder,
    q: Posterior,
    x: Tensor,
    samples: int = 1000,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log p̂(x) of images x (B, …) by importance sampling from q, (B,), in nats."""
    return log_mean_weight(log_weights(decoder, q, x, samples, generator))


def prior_as_posterior(decoder: Decoder, count: int) -> DiagonalNormal:
    """N(0, I) for each of ``count`` images: the q of plain Monte Carlo."""
    zeros = decoder.like.new_zeros(check_count("count", count), decoder.latent)
    return DiagonalNormal(zeros, zeros)


@torch.no_grad()
def shared_prior_weights(
    decoder: Decoder,
    x: Tensor,
    samples: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log p(x|z), (K, B), for K = ``samples`` z ~ p(z) that all images share.

    Plain Monte Carlo at its cheapest: each z is decoded once, not once an image. The
    price: the errors of different images depend on each other.

    Args:
        decoder: p(x|z).
        x: images (B, …).
        samples: K.
        generator: source of the z.
    """
    rows = []
    for part in torch.arange(check_count("samples", samples)).split(CHUNK):
        z = normal((len(part), decoder.latent), decoder.like, generator)
        rows.append(decoder.of_all_pairs(x, z))  # (k, B)
    return torch.cat(rows)


def iwae_curve(log_w: Tensor, counts: Sequence[int]) -> Tensor:
    """E[log p̂] with k samples, for each k of ``counts``, (len(counts), B), in nats.

    The K weights of an image are cut into ⌊K/k⌋ groups of k; each group gives a log p̂,
    and their mean estimates the IWAE bound with k samples: k = 1 is the ELBO.

    Args:
        log_w: (K, B).
        counts: numbers of samples, each in 1 … K.

    Raises:
        ValueError: a count outside 1 … K.
    """
    curve = []
    for count in counts:
        k = check_count("a count", count, least=0)
        if not 1 <= k <= len(log_w):
            raise ValueError(f"counts must lie in 1 … {len(log_w)}, got {k}")
        groups = log_w[: len(log_w) // k * k].view(-1, k, log_w.shape[1])
        curve.append((groups.logsumexp(dim=1) - log(k)).mean(dim=0))
    return torch.stack(curve)


def effective_samples(log_w: Tensor) -> Tensor:
    """(Σw)²/Σw²: how many of the K samples carry the estimate, (K, B) → (B,)."""
    return (2 * log_w.logsumexp(dim=0) - (2 * log_w).logsumexp(dim=0)).exp()
