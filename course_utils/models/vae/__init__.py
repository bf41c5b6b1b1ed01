"""Variational autoencoders: a latent z behind each image x.

model.py        encoder, Gaussian decoder, ELBO, and the σ that a loss implies
latents.py      latent optimization: a posterior stored for each image
aggregate.py    where the latents of all images lie, and how far from the prior
likelihood.py   log p(x) by importance sampling, and its bounds
linear.py       probabilistic PCA: a VAE whose log p(x) is known exactly
"""

from course_utils.models.vae.aggregate import Aggregate
from course_utils.models.vae.latents import (
    LatentTable,
    LatentVAE,
    first_posteriors,
    latent_turns,
    latent_vae,
    negative_row_elbo,
    train_latents,
    train_posterior,
    whitened_components,
)
from course_utils.models.vae.likelihood import (
    effective_samples,
    importance_log_prob,
    iwae_curve,
    log_mean_weight,
    log_weights,
    prior_as_posterior,
    shared_prior_weights,
)
from course_utils.models.vae.linear import LinearVAE
from course_utils.models.vae.model import (
    VAE,
    ElboParts,
    GaussianDecoder,
    conv_vae,
    implied_sigma,
    lower_bound,
    negative_elbo,
    train_vae,
)

__all__ = [
    "VAE",
    "Aggregate",
    "ElboParts",
    "GaussianDecoder",
    "LatentTable",
    "LatentVAE",
    "LinearVAE",
    "conv_vae",
    "effective_samples",
    "first_posteriors",
    "implied_sigma",
    "importance_log_prob",
    "iwae_curve",
    "latent_turns",
    "latent_vae",
    "log_mean_weight",
    "log_weights",
    "lower_bound",
    "negative_elbo",
    "negative_row_elbo",
    "prior_as_posterior",
    "shared_prior_weights",
    "train_latents",
    "train_posterior",
    "train_vae",
    "whitened_components",
]
