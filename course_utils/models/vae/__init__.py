"""Variational autoencoders: a latent z behind each image x.

model.py        encoder, Gaussian decoder, ELBO, and the σ that a loss implies
bernoulli.py    a decoder of Bernoulli pixels: the binary cross-entropy
joint.py        continuous and categorical latents together, temperature
codes.py        sums over all codes: exact bounds
control.py      whether a part of the latent carries colour or digit alone
latents.py      latent optimization: a posterior stored for each image
aggregate.py    where the latents of all images lie, and how far from the prior
likelihood.py   log p(x) by importance sampling, and its bounds
linear.py       probabilistic PCA: a VAE whose log p(x) is known exactly
"""

from course_utils.models.vae.aggregate import Aggregate
from course_utils.models.vae.bernoulli import BernoulliDecoder, pixel_entropy
from course_utils.models.vae.codes import (
    all_codes,
    exact_elbo,
    exact_log_prob,
    held_out_elbo,
    log_prob_of_codes,
    parts_of,
)
from course_utils.models.vae.control import (
    Control,
    colour_units,
    different_pairs,
    judged,
    reconstruction_control,
    shift_control,
    swap_control,
    swapped,
)
from course_utils.models.vae.joint import (
    JointVAE,
    RelaxedLoss,
    coloured_vae,
    train_joint_vae,
)
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
    Autoencoder,
    Decoder,
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
    "Autoencoder",
    "BernoulliDecoder",
    "Control",
    "Decoder",
    "ElboParts",
    "GaussianDecoder",
    "JointVAE",
    "LatentTable",
    "LatentVAE",
    "LinearVAE",
    "RelaxedLoss",
    "all_codes",
    "colour_units",
    "coloured_vae",
    "conv_vae",
    "different_pairs",
    "effective_samples",
    "exact_elbo",
    "exact_log_prob",
    "first_posteriors",
    "held_out_elbo",
    "implied_sigma",
    "importance_log_prob",
    "iwae_curve",
    "judged",
    "latent_turns",
    "latent_vae",
    "log_mean_weight",
    "log_prob_of_codes",
    "log_weights",
    "lower_bound",
    "negative_elbo",
    "negative_row_elbo",
    "parts_of",
    "pixel_entropy",
    "prior_as_posterior",
    "reconstruction_control",
    "shared_prior_weights",
    "shift_control",
    "swap_control",
    "swapped",
    "train_joint_vae",
    "train_latents",
    "train_posterior",
    "train_vae",
    "whitened_components",
]
