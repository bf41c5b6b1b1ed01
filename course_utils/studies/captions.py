"""What a small text-to-image model draws, by seed, and what it needs to see.

Each row trains a VAE, a flow with its text encoder, and a student with straight paths,
and lets the judge of digits look at what they draw: the pairs of digit and colour that
were among the captions of the training, and ten pairs that never were.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from course_utils.data.captions import LANGUAGES, Captions, Language
from course_utils.data.colours import grey_of, random_tints
from course_utils.data.images import ImageSplits
from course_utils.data.mnist import load_mnist
from course_utils.metrics import frechet_distance, spread_within
from course_utils.models.judge import Judge
from course_utils.models.latent_diffusion.measures import (
    Pairs,
    pairs_but,
    pairs_of,
    see,
)
from course_utils.models.latent_diffusion.model import TextToImage, caption_flow
from course_utils.models.latent_diffusion.reflow import train_straight
from course_utils.models.latent_diffusion.space import LatentSpace
from course_utils.models.latent_diffusion.training import train_caption_flow
from course_utils.models.vae.model import conv_vae, train_vae
from course_utils.recipes import UNSEEN, digit_judge
from course_utils.studies.store import SECONDS, Measured, Study

STRENGTHS = (0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
STEPS = (1, 2, 4, 10, 50)
LATE = (0.2, 0.8)  # guidance in an interval
PER_CLASS = 180  # real digits of each class, beside which pictures are held


@cache
def grey_digits() -> tuple[ImageSplits, Judge]:
    """MNIST, and the judge of its digits."""
    data = load_mnist()
    return data, digit_judge(data)


def real_features(judge: Judge, data: ImageSplits, start: int = 0) -> Tensor:
    """The judge's features of grey test images, as many of each digit, (N, F)."""
    images = data.test.per_class(PER_CLASS, PER_CLASS * start).image
    return judge.features(images).float()


def of_shapes(judge: Judge, x: Tensor, asked: Pairs, real: Tensor) -> dict[str, float]:
    """Fréchet distance of the shapes in x to real ones, and how far two 7s are apart.

    Colours do not count. Rows of x are as many for each digit.
    """
    features = judge.features(grey_of(x)).float()
    return {
        "distance": frechet_distance(features, real),
        "spread": spread_within(features, asked.digit),
    }


def measure(
    seed: int,
    choices: int = 9,
    languages: list[Language] | None = None,
    partial: float = 0.2,
    shrink: float = 1.0,
    student: bool = True,
    **settings: Any,
) -> Measured:
    """Train all parts, and look at what is drawn.

    Args:
        seed: of the noise that pictures are drawn from.
        choices: in how many colours each digit is seen.
        languages: of the captions; both by default.
        partial: share of captions that say the digit or the colour alone.
        shrink: the latents are multiplied by this.
        student: whether one is trained, too.
        settings: of :func:`~course_utils.models.latent_diffusion.train_caption_flow`.
    """
    grey, judge = grey_digits()
    data = random_tints(grey, never=UNSEEN, choices=choices)
    vae = conv_vae(32, 0.1, 16, shape=(3, 28, 28))
    seconds = train_vae(vae, data, epochs=10, watched=500).seconds
    space = LatentSpace(vae, data.train.image)
    space.std /= shrink
    flow, captions = caption_flow(), Captions(languages or LANGUAGES, partial)
    seconds += train_caption_flow(flow, space, data, captions, **settings).seconds
    model = TextToImage(space, flow.eval())
    told = looked_at(model, judge, grey, seed)
    told["reconstructions right"] = float(_right_again(space, judge, data))
    if student:
        quick = caption_flow()
        history = train_straight(quick, flow, captions, never=UNSEEN)
        told["CPU-seconds of the student"] = history.seconds
        told |= few_steps(model, TextToImage(space, quick.eval()), judge, grey, seed)
    return {SECONDS: seconds, **told}


def looked_at(
    model: TextToImage, judge: Judge, grey: ImageSplits, seed: int = 0
) -> Measured:
    """What pictures of seen and unseen pairs show, at each strength of guidance."""
    seen, unseen = pairs_but(UNSEEN, 20), pairs_of(UNSEEN, 180)
    real = real_features(judge, grey)
    noise = model.noise(1800, generator=torch.Generator().manual_seed(seed))
    told: Measured = {}
    for language in LANGUAGES:
        for w in STRENGTHS if language == "en" else (1.0, 2.0, 4.0):
            x = model.draw(seen.prompts(language), noise, strength=w, steps=20)
            told[f"{language} at {w:g}"] = see(judge, x).shares(seen).both
            if language == "en":
                for name, value in of_shapes(judge, x, seen, real).items():
                    told[f"{name} at {w:g}"] = value
    for w in (1.0, 2.0, 4.0):
        x = model.draw(unseen.prompts("en"), noise, strength=w, steps=20)
        for name, share in zip(
            ("both", "digit", "colour"), see(judge, x).shares(unseen), strict=True
        ):
            told[f"unseen, {name} at {w:g}"] = share
    for w in (2.0, 4.0, 8.0):
        x = model.draw(seen.prompts("en"), noise, strength=w, steps=20, between=LATE)
        told[f"late, en at {w:g}"] = see(judge, x).shares(seen).both
        for name, value in of_shapes(judge, x, seen, real).items():
            told[f"late, {name} at {w:g}"] = value
    return told


def few_steps(
    teacher: TextToImage,
    student: TextToImage,
    judge: Judge,
    grey: ImageSplits,
    seed: int,
) -> Measured:
    """Teacher with guidance 2 and student, by the number of steps."""
    seen, real = pairs_but(UNSEEN, 20), real_features(judge, grey)
    noise = teacher.noise(1800, generator=torch.Generator().manual_seed(seed))
    told: Measured = {}
    for steps in STEPS:
        for name, model, w in (("teacher", teacher, 2.0), ("student", student, 1.0)):
            x = model.draw(seen.prompts("en"), noise, strength=w, steps=steps)
            told[f"{name}, {steps} steps"] = see(judge, x).shares(seen).both
            shapes = of_shapes(judge, x, seen, real)
            told[f"{name}, distance, {steps} steps"] = shapes["distance"]
    return told


def _right_again(space: LatentSpace, judge: Judge, data: ImageSplits) -> float:
    """Share of test images that the judge reads right after encoding and decoding."""
    x, label = data.test.image[:2000], data.test.label[:2000]
    again = space.decode(space.law(x).mean)
    return float((judge.digit(grey_of(again)) == label).double().mean())


STUDY = Study(
    "captions",
    measure,
    {
        "the recipe": {},
        # how many colours each digit is seen in
        "5 colours a digit": {"choices": 5, "student": False},
        "2 colours a digit": {"choices": 2, "student": False},
        "1 colour a digit": {"choices": 1, "student": False},
        # one ingredient less, or another scale
        "English alone": {"languages": ["en"], "student": False},
        "whole captions alone": {"partial": 0.0, "student": False},
        "latents ten times too small": {"shrink": 0.1, "student": False},
    },
)
