"""Models that several chapters need: how they are built and trained, for all the same.

Each is trained at most once on a machine, and then comes from the cache.
"""

from __future__ import annotations

from functools import partial

from course_utils.artifacts import trained
from course_utils.data.images import ImageSplits
from course_utils.data.plane import PlaneData
from course_utils.data.text import Tokens
from course_utils.models.classifier import Classifier, train_classifier
from course_utils.models.gpt.model import GPT, MODERN
from course_utils.models.gpt.training import train_gpt
from course_utils.models.judge import Judge
from course_utils.models.normalizing_flow import (
    NormalizingFlow,
    affine_flow,
    train_affine_flow,
)
from course_utils.models.vae.model import VAE, conv_vae, train_vae
from course_utils.training.history import History


def exercise_flow(data: PlaneData) -> tuple[NormalizingFlow, History]:
    """The exercise's flow: affine couplings, whose networks see Fourier features."""
    build = partial(affine_flow, couplings=12, width=32, frequencies=12)
    return trained("affine-flow", build, train_affine_flow, data=data)


def judge(data: ImageSplits) -> tuple[Classifier, History]:
    """The classifier of digits that judges what generative models draw."""
    return trained("classifier", Classifier, train_classifier, data=data)


def digits_vae(data: ImageSplits) -> tuple[VAE, History]:
    """The VAE of digits.

    Its history keeps the weights after 1, 5, 10, 20 and 30 epochs.
    """
    return trained("vae", conv_vae, train_vae, data=data, keep=[1, 5, 10, 20, 30])


def digit_judge(data: ImageSplits) -> Judge:
    """That classifier, which refuses what does not look like a digit."""
    return Judge(judge(data)[0], data)


def book_gpt(data: Tokens) -> tuple[GPT, History]:
    """The GPT of a book, of 4 blocks and 128 numbers a token.

    Its history keeps the weights after 0, 100, 200, 400 and 800 steps.
    """
    build = partial(GPT, data.size, data.block, recipe=MODERN)
    return trained("gpt", build, train_gpt, data=data, keep=[0, 1, 2, 4, 8])
