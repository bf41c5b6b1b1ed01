"""Diffusion: noise the data step by step, learn to see the noise, take it away again.

schedules.py    α(t) and σ(t) of x_t = α(t)·x₀ + σ(t)·ε
process.py      the forward process, at once or step by step
denoiser.py     the network ε̂(x_t, t) and its loss E‖ε̂ − ε‖²
samplers.py     from noise to data: DDPM, DDIM, probability-flow ODE
likelihood.py   a lower bound on log p, and log p by the ODE
truth.py        the best denoiser, the floor of the loss, the true log p
"""

from course_utils.models.diffusion.denoiser import (
    Denoiser,
    DiffusionLoss,
    GuidedDenoiser,
    NoiseNet,
    Prediction,
    convert,
    mlp_denoiser,
)
from course_utils.models.diffusion.likelihood import (
    Bound,
    evidence_lower_bound,
    flow_log_prob,
)
from course_utils.models.diffusion.process import jump, transition, walk
from course_utils.models.diffusion.samplers import (
    DDIM,
    DDPM,
    ProbabilityFlow,
    Sampler,
    Trajectory,
    bridge,
    start_deviation,
)
from course_utils.models.diffusion.schedules import (
    ContinuousSchedule,
    DDPMSchedule,
    Schedule,
    VEExponential,
    VEPower,
    VPCosine,
    VPLinear,
    bound_weights,
    cosine_betas,
    linear_betas,
)
from course_utils.models.diffusion.truth import (
    GapToOptimum,
    OptimalDenoiser,
    data_deviation,
    loss_floor,
    mean_loss_floor,
    mutual_information,
    smoothed_log_prob,
)

__all__ = [
    "DDIM",
    "DDPM",
    "Bound",
    "ContinuousSchedule",
    "DDPMSchedule",
    "Denoiser",
    "DiffusionLoss",
    "GapToOptimum",
    "GuidedDenoiser",
    "NoiseNet",
    "OptimalDenoiser",
    "Prediction",
    "ProbabilityFlow",
    "Sampler",
    "Schedule",
    "Trajectory",
    "VEExponential",
    "VEPower",
    "VPCosine",
    "VPLinear",
    "bound_weights",
    "bridge",
    "convert",
    "cosine_betas",
    "data_deviation",
    "evidence_lower_bound",
    "flow_log_prob",
    "jump",
    "linear_betas",
    "loss_floor",
    "mean_loss_floor",
    "mlp_denoiser",
    "mutual_information",
    "smoothed_log_prob",
    "start_deviation",
    "transition",
    "walk",
]
