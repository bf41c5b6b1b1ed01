"""What a small text-to-image model draws, by seed, and what it needs to see.

Each row trains a VAE, a flow with its text encoder, and a student with straight paths,
and lets the judge of digits look at what they draw: the pairs of digit and colour that
were among the captions of the training, and ten pairs that never were.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from course_utils.data.captions import LANGUAGES, Captions, Language, describe
from course_utils.data.colours import ColouredImages, grey_of, tints_but
from course_utils.data.images import ImageSplits
from course_utils.metrics import frechet_distance, spread_within
from course_utils.models.judge import Judge
from course_utils.models.latent_diffusion.measures import (
    Pairs,
    Seen,
    pairs_but,
    pairs_of,
    see,
)
from course_utils.models.latent_diffusion.model import TextToImage, caption_flow
from course_utils.models.latent_diffusion.reflow import train_straight
from course_utils.models.latent_diffusion.space import LatentSpace
from course_utils.models.latent_diffusion.training import train_caption_flow
from course_utils.recipes import (
    UNSEEN,
    caption_vae,
    grey_digits,
    train_caption_vae,
)
from course_utils.studies.store import SECONDS, Measured, Study

STRENGTHS = (0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
STEPS = (1, 2, 4, 10, 50)
LATE = (0.2, 0.8)  # guidance in an interval
# known words, but no caption: what is left of a wish, and two that are nearly captions
SAY_NOTHING = ("the picture in the", "a digit", "something")
PER_CLASS = 180  # real digits of each class, beside which pictures are held


def real_features(judge: Judge, data: ImageSplits, start: int = 0) -> Tensor:
    """The judge's features of grey test images, as many of each digit, (N, F)."""
    images = data.test.per_class(PER_CLASS, PER_CLASS * start).image
    return judge.features(images).float()


def of_shapes(judge: Judge, x: Tensor, asked: Pairs, real: Tensor) -> dict[str, float]:
    """Fréchet distance of shapes to real ones; how far two of one digit are apart.

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
        seed: of the noise that pictures are drawn from; training takes torch's own.
        choices: in how many colours each digit is seen.
        languages: of the captions; both by default.
        partial: share of captions that say the digit or the colour alone.
        shrink: the latents are multiplied by this.
        student: whether one is trained, too.
        settings: of :func:`~course_utils.models.latent_diffusion.train_caption_flow`.
    """
    grey, judge = grey_digits()
    data = tints_but(grey, UNSEEN, choices)
    vae = caption_vae()
    seconds = train_caption_vae(vae, data).seconds
    space = LatentSpace(vae, data.train.image)
    space.std /= shrink
    flow, captions = caption_flow(), Captions(languages or LANGUAGES, partial)
    seconds += train_caption_flow(flow, space, data, captions, **settings).seconds
    model = TextToImage(space, flow.eval())
    told = of_prompts(model, judge, grey, seed, choices)
    told |= of_other_prompts(model, judge, data, seed)
    told["reconstructions right"] = float(_right_again(space, judge, data))
    if student:
        quick = caption_flow()
        history = train_straight(quick, flow, captions, never=UNSEEN)
        told["CPU-seconds of the student"] = history.seconds
        told |= few_steps(model, TextToImage(space, quick.eval()), judge, grey, seed)
    return {SECONDS: seconds, **told}


def of_prompts(
    model: TextToImage,
    judge: Judge,
    grey: ImageSplits,
    seed: int = 0,
    choices: int = 9,
) -> Measured:
    """What pictures show of seen pairs, and at w = 1, 2 and 4 of unseen ones."""
    seen = pairs_but(UNSEEN, 180 // choices, choices)
    unseen, real = pairs_of(UNSEEN, 180), real_features(judge, grey)
    noise = model.noise(1800, generator=torch.Generator().manual_seed(seed))
    told: Measured = {}

    def look(prefix: str, language: Language, w: float, **settings: Any) -> None:
        texts = seen.prompts(language)
        x = model.draw(texts, noise, strength=w, steps=20, **settings)
        told[f"{prefix}{language} at {w:g}"] = see(judge, x).shares(seen).both
        if language == "en":
            for name, value in of_shapes(judge, x, seen, real).items():
                told[f"{prefix}{name} at {w:g}"] = value

    for w in STRENGTHS:
        look("", "en", w)
    for w in (1.0, 2.0, 4.0):
        look("", "he", w)
        x = model.draw(unseen.prompts("en"), noise, strength=w, steps=20)
        found = see(judge, x)
        for name, share in zip(
            ("both", "digit", "colour"), found.shares(unseen), strict=True
        ):
            told[f"unseen, {name} at {w:g}"] = share
        told[f"unseen, a pair of the training at {w:g}"] = _share_of(found, choices)
    for w in (2.0, 4.0, 8.0):
        look("late, ", "en", w, between=LATE)
    return told


def of_other_prompts(
    model: TextToImage, judge: Judge, data: ImageSplits, seed: int = 0
) -> Measured:
    """Half a caption, words that say nothing, and no text; 1800 pictures of each."""
    asked = pairs_but(UNSEEN, 20)
    noise = model.noise(1800, generator=torch.Generator().manual_seed(seed))
    digits = [describe("en", digit, None) for digit in asked.digit.tolist()]
    colours = [describe("en", None, colour) for colour in asked.colour.tolist()]
    x = model.draw(digits, noise, strength=2.0, steps=20)
    told = {"a digit alone": see(judge, x).shares(asked).digit}
    x = model.draw(colours, noise, strength=2.0, steps=20)
    told["a colour alone"] = see(judge, x).shares(asked).colour
    for text in SAY_NOTHING:
        for w in (1.0, 2.0):
            x = model.draw([text] * 1800, noise, strength=w, steps=20)
            told |= _most(see(judge, x), f"{text!r} at {w:g}")
    found = see(judge, model.draw(None, noise, steps=20))
    told |= _most(found, "no text")
    told["no text, refused"] = float((found.digit < 0).double().mean())
    told["no text, a pair of the training"] = _share_of(found, 9)
    for name, shares, labels in (
        ("digit", law(found.digit), data.train.label),
        ("colour", law(found.colour), cast(ColouredImages, data.train).colour),
    ):
        told[f"no text, {name}s off by"] = float((shares - law(labels)).abs().sum() / 2)
    return told


def law(values: Tensor) -> Tensor:
    """The shares of 0 … 9 among the values that are not below 0, (10,)."""
    return torch.bincount(values[values >= 0], minlength=10) / (values >= 0).sum()


def _most(found: Seen, name: str) -> Measured:
    """The shares of the most frequent digit and colour."""
    return {
        f"{name}, one digit": float(law(found.digit).max()),
        f"{name}, one colour": float(law(found.colour).max()),
    }


def _share_of(found: Seen, choices: int) -> float:
    """The share of pictures, of those that can be read, of a pair of the training."""
    read = (found.digit >= 0) & (found.colour >= 0)
    after = (found.colour - torch.tensor(UNSEEN)[found.digit])[read] % 10
    return float(((after >= 1) & (after <= choices)).double().mean())


def few_steps(
    teacher: TextToImage,
    student: TextToImage,
    judge: Judge,
    grey: ImageSplits,
    seed: int = 0,
) -> Measured:
    """Teacher with guidance 2 and student: by the number of steps, and how straight."""
    seen, real = pairs_but(UNSEEN, 20), real_features(judge, grey)
    noise = teacher.noise(1800, generator=torch.Generator().manual_seed(seed))
    told: Measured = {}
    for name, model, w in (("teacher", teacher, 2.0), ("student", student, 1.0)):
        for steps in STEPS:
            x = model.draw(seen.prompts("en"), noise, strength=w, steps=steps)
            told[f"{name}, {steps} steps"] = see(judge, x).shares(seen).both
            shapes = of_shapes(judge, x, seen, real)
            told[f"{name}, distance, {steps} steps"] = shapes["distance"]
        path = model.path(seen.prompts("en"), noise, strength=w, steps=50)
        told[f"{name}, unevenness"] = unevenness(path)
    return told


def unevenness(path: Tensor) -> float:
    """Σ‖Δz − (z₁ − z₀)/T‖²·T / ‖z₁ − z₀‖² of paths (T + 1, B, D), on average.

    0 for a straight line at constant speed, which one step of Euler's method follows.
    """
    steps, whole = path.diff(dim=0), path[-1] - path[0]
    off = (steps - whole / len(steps)).square().sum((0, 2)) * len(steps)
    return float((off / whole.square().sum(1)).mean())


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
