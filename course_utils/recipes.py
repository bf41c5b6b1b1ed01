"""Models that several chapters need: how they are built and trained, for all the same.

Each is trained at most once on a machine, and then comes from the cache.
"""

from __future__ import annotations

from functools import cache, partial

from course_utils.artifacts import trained
from course_utils.data.captions import Captions
from course_utils.data.colours import tints_but
from course_utils.data.images import ImageSplits
from course_utils.data.mnist import load_mnist
from course_utils.data.plane import PlaneData
from course_utils.data.text import Tokens
from course_utils.models.classifier import Classifier, train_classifier
from course_utils.models.gpt.model import GPT, MODERN
from course_utils.models.gpt.training import train_gpt
from course_utils.models.judge import Judge
from course_utils.models.latent_diffusion.model import TextToImage, caption_flow
from course_utils.models.latent_diffusion.reflow import train_straight
from course_utils.models.latent_diffusion.space import LatentSpace
from course_utils.models.latent_diffusion.training import train_caption_flow
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


# which colour each digit never has: a white four is never seen, a red one often
UNSEEN = tuple((digit + 5) % 10 for digit in range(10))


@cache
def grey_digits() -> tuple[ImageSplits, Judge]:
    """MNIST, and the judge of its digits, for studies that train many models."""
    data = load_mnist()
    return data, digit_judge(data)


def captioned_digits(grey: ImageSplits) -> ImageSplits:
    """Digits in colours, but ten of the hundred pairs never occur."""
    return tints_but(grey, UNSEEN)


# the VAE that latents of coloured digits come from: 32 numbers each, small σ
caption_vae = partial(conv_vae, 32, 0.1, 16, shape=(3, 28, 28))
train_caption_vae = partial(train_vae, epochs=10, watched=500)


def digits_space(data: ImageSplits) -> tuple[LatentSpace, History]:
    """The latents of coloured digits, from that VAE."""
    vae, history = trained("coloured-vae", caption_vae, train_caption_vae, data=data)
    return LatentSpace(vae, data.train.image), history


def captions_model(data: ImageSplits) -> tuple[TextToImage, History]:
    """The book's text-to-image model, in English and Hebrew."""
    space, _ = digits_space(data)
    flow, history = trained(
        "caption-flow",
        caption_flow,
        train_caption_flow,
        space=space,
        data=data,
        captions=Captions(),
    )
    return TextToImage(space, flow), history


def straight_model(data: ImageSplits) -> tuple[TextToImage, History]:
    """Its student, for few steps, with guidance 2 inside."""
    model, _ = captions_model(data)
    student, history = trained(
        "straight-flow",
        caption_flow,
        train_straight,
        teacher=model.flow,
        captions=Captions(),
        never=UNSEEN,
    )
    return TextToImage(model.space, student), history
