"""Variational autoencoders: a latent z behind each image x.

model.py        encoder, Gaussian decoder, ELBO, and the σ that a loss implies
latents.py      latent optimization: a posterior stored for each image
aggregate.py    where the latents of all images lie, and how far from the prior
likelihood.py   log p(x) by importance sampling, and its bounds
linear.py       probabilistic PCA: a VAE whose log p(x) is known exactly
"""

from course_utils.models.vae.aggregate import Aggregate
from course_utils.models.vae.latents import (
    LatentRecipe,
    LatentTable,
    LatentVAE,
    first_posteriors,
    fit_posterior,
    latent_vae,
    train_latents,
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
    Bound,
    DiagonalNormal,
    GaussianDecoder,
    conv_decoder,
    conv_encoder,
    conv_vae,
    digits_vae,
    implied_sigma,
    lower_bound,
    negative_elbo,
    prior_log_prob,
    train_vae,
)

__all__ = [
    "VAE",
    "Aggregate",
    "Bound",
    "DiagonalNormal",
    "GaussianDecoder",
    "LatentRecipe",
    "LatentTable",
    "LatentVAE",
    "LinearVAE",
    "conv_decoder",
    "conv_encoder",
    "conv_vae",
    "digits_vae",
    "effective_samples",
    "first_posteriors",
    "fit_posterior",
    "implied_sigma",
    "importance_log_prob",
    "iwae_curve",
    "latent_vae",
    "log_mean_weight",
    "log_weights",
    "lower_bound",
    "negative_elbo",
    "prior_as_posterior",
    "prior_log_prob",
    "shared_prior_weights",
    "train_latents",
    "train_vae",
    "whitened_components",
]
