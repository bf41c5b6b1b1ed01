"""Text to image: a miniature of Stable Diffusion, in the latent space of a VAE.

space.py       images ↔ normalised latents
model.py       text encoder, velocity and decoder together: prompts to pictures
training.py    latents with captions, the training, the floor of a normal law
reflow.py      a student with straight paths, for few steps
measures.py    whether a picture shows what its caption says
"""

from course_utils.models.latent_diffusion.measures import (
    Pairs,
    Seen,
    Shares,
    pairs_but,
    pairs_of,
    see,
)
from course_utils.models.latent_diffusion.model import TextToImage, caption_flow
from course_utils.models.latent_diffusion.reflow import (
    straight_loss,
    teacher_pairs,
    train_straight,
)
from course_utils.models.latent_diffusion.space import LatentSpace
from course_utils.models.latent_diffusion.training import (
    CaptionedLatents,
    gaussian_floor,
    train_caption_flow,
)

__all__ = [
    "CaptionedLatents",
    "LatentSpace",
    "Pairs",
    "Seen",
    "Shares",
    "TextToImage",
    "caption_flow",
    "gaussian_floor",
    "pairs_but",
    "pairs_of",
    "see",
    "straight_loss",
    "teacher_pairs",
    "train_caption_flow",
    "train_straight",
]
