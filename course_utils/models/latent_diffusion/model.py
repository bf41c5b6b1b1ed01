"""From a text to a picture: text encoder, denoiser in the latent space, decoder.

    c = encoder(text)                     what the text says, (E,)
    z₀ = σ·ε,  ε ~ N(0, I)                noise in the latent space; σ = 1
    dz/dt = v(z, t) + w·(v(z, t | c) − v(z, t)),   t from 0 to 1, w the guidance
    x = decode(z₁)

v is a velocity as in flow matching; all of its pieces are used as they are there. The
text encoder is part of v and is trained with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from course_utils.checks import check_count, check_positive
from course_utils.data.captions import Vocabulary, book_vocabulary
from course_utils.distributions import normal_like
from course_utils.models.flow_matching.model import FlowMatching
from course_utils.models.flow_matching.velocity import (
    GuidedVelocity,
    TimeFeatures,
    VelocityNet,
)
from course_utils.models.latent_diffusion.space import LatentSpace
from course_utils.networks.basic import MLPBackbone, frozen
from course_utils.networks.conditioning import Condition, Words
from course_utils.solvers import Solver


def caption_flow(
    dim: int = 32,
    vocabulary: Vocabulary | None = None,
    *,
    embedding: int = 64,
    width: int = 384,
    depth: int = 4,
    drop: float = 0.1,
) -> FlowMatching:
    """A flow over latents (B, D) that knows a text, and can do without.

    Args:
        dim: D.
        vocabulary: of the texts; the book's by default.
        embedding: E, numbers of an encoded text.
        width, depth: of the linear layers.
        drop: share of the texts that training leaves out.
    """
    words = Words(len(vocabulary or book_vocabulary()), embedding, drop)
    time = TimeFeatures()
    backbone = MLPBackbone(
        (check_count("dim", dim),),
        time.out_dim,
        embedding,
        width=width,
        depth=depth,
        frequencies=0,
    )
    return FlowMatching(VelocityNet(backbone, words, time=time), (dim,))


class TextToImage:
    """The three parts together.

    Args:
        space: images ↔ latents.
        flow: over latents, knows texts.
        vocabulary: of the texts; the book's by default.

    Raises:
        TypeError: parts of another kind.
        ValueError: parts that do not fit each other.
    """

    def __init__(
        self,
        space: LatentSpace,
        flow: FlowMatching,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        for name, value, kind in (
            ("space", space, LatentSpace),
            ("flow", flow, FlowMatching),
        ):
            if not isinstance(value, kind):
                got = type(value).__name__
                raise TypeError(f"{name} must be a {kind.__name__}, got {got}")
        self.space, self.flow = space, flow
        self.vocabulary = vocabulary or book_vocabulary()
        if flow.shape != (space.dim,):
            raise ValueError(
                f"the flow must have the shape of a latent, {(space.dim,)}, got"
                f" {flow.shape}"
            )
        known = flow.velocity.condition
        if not isinstance(known, Words) or known.words != len(self.vocabulary):
            raise ValueError(
                f"the flow must know texts of {len(self.vocabulary)} words, got one"
                f" that knows {getattr(known, 'words', type(known).__name__)}"
            )

    def guided(
        self, strength: float = 1.0, between: tuple[float, float] = (0.0, 1.0)
    ) -> FlowMatching:
        """The flow with guidance w at times ``between``, and 1 at others."""
        guided = GuidedVelocity(self.flow.velocity, strength, between=between)
        return FlowMatching(guided, self.flow.shape)

    def read(self, prompts: Sequence[str] | Tensor | None) -> Condition:
        """Texts as places of words (B, L); None and places stay as they are.

        Raises:
            TypeError, ValueError: see :meth:`Vocabulary.encode`.
        """
        if prompts is None or isinstance(prompts, Tensor):
            return prompts
        return self.vocabulary.encode(prompts).to(self.space.mean.device)

    def noise(
        self, count: int, scale: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """z₀ = σ·ε, (count, D); only σ = 1 is what training has seen.

        Raises:
            ValueError: no picture, a scale that is not above 0.
        """
        like = self.space.mean.expand(check_count("count", count), -1)
        return check_positive("scale", scale) * normal_like(like, generator)

    def path(
        self,
        prompts: Sequence[str] | Tensor | None,
        noise: Tensor,
        *,
        strength: float = 2.0,
        steps: int = 10,
        between: tuple[float, float] = (0.0, 1.0),
        solver: Solver | None = None,
    ) -> Tensor:
        """The latents at all times, (steps + 1, B, D).

        Args:
            prompts: a text for each picture, places of words (B, L), or None.
            noise: z₀, (B, D).
            strength: w; 0 ignores the texts, 1 is the plain conditional field.
            steps: of the solver.
            between: times with that guidance; at other times it is 1.
            solver: one step; Euler's by default.

        Raises:
            TypeError, ValueError: texts that cannot be read; as for
                :meth:`FlowMatching.trajectory`.
        """
        flow, known = self.guided(strength, between), self.read(prompts)
        with frozen(self.flow):
            return flow.trajectory(noise, known, steps=steps, solver=solver)

    def draw(
        self,
        prompts: Sequence[str] | Tensor | None,
        noise: Tensor | None = None,
        *,
        count: int | None = None,
        generator: torch.Generator | None = None,
        **settings: Any,
    ) -> Tensor:
        """Pictures (B, C, H, W) in [0, 1], at the ends of the paths.

        Args:
            prompts: as for :meth:`path`.
            noise: z₀; drawn if it is not given.
            count: how many pictures, where there are neither prompts nor noise to be
                counted.
            generator: source of the noise.
            settings: what else :meth:`path` takes.

        Raises:
            TypeError, ValueError: as for :meth:`path`; neither prompts nor a count; a
                count at odds with them or with the noise.
        """
        known = self.read(prompts)
        given = noise if known is None else known
        if count is not None:
            count = check_count("count", count)
        elif given is None:
            raise ValueError(
                "without prompts the pictures must be counted: give count or noise"
            )
        size = count if given is None else len(given)
        if not size:
            raise ValueError("there must be at least one prompt, got none")
        if count not in (None, size):
            raise ValueError(f"count must be {size}, as is given, got {count}")
        if noise is None:
            noise = self.noise(size, generator=generator)
        return self.space.decode(self.path(known, noise, **settings)[-1])
