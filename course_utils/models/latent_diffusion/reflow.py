"""Straight paths, and the guidance inside the field: a student for few steps.

    teacher: z₀ → z₁ by dz/dt = v + w·(v(· | c) − v), in many steps
    student: E‖u(z_t, t | c) − (z₁ − z₀)‖²,   z_t = t·z₁ + (1−t)·z₀

As in flow matching, but the noise z₀ now goes with the z₁ that the teacher has carried
it to. Straighter paths need fewer steps. w is learnt with it, so that the student asks
its network once a step where the teacher asks twice.

Sources: Liu et al. 2023, rectified flow (arXiv:2209.03003); Meng et al. 2023, guidance
learnt by a student (arXiv:2210.03142).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from course_utils.checks import check_count, check_generator
from course_utils.data.captions import Captions
from course_utils.data.colours import NAMES, check_rule
from course_utils.distributions import uniform
from course_utils.models.flow_matching.model import FlowMatching, FlowMatchingLoss
from course_utils.models.flow_matching.velocity import GuidedVelocity
from course_utils.networks.basic import frozen
from course_utils.training.history import History
from course_utils.training.loop import train

Couples = tuple[Tensor, Tensor, Tensor]  # z₀ (N, D), z₁ (N, D), captions (N, L)


@torch.no_grad()
def teacher_pairs(
    teacher: FlowMatching,
    captions: Captions,
    count: int = 40_000,
    *,
    strength: float = 2.0,
    steps: int = 10,
    never: tuple[int, ...] | None = None,
    generator: torch.Generator | None = None,
) -> Couples:
    """Noise, where the teacher carries it, and the captions it is told.

    Args:
        teacher: knows texts, and can do without.
        captions: drawn for digits and colours that are drawn uniformly.
        count: N.
        strength: w.
        steps: of Euler's method.
        never: a rule digit → colour: pairs that are not drawn.
        generator: source of all that is drawn.

    Raises:
        TypeError, ValueError: no such rule or count; a teacher that cannot do without
            texts; as for :meth:`FlowMatching.trajectory`.
    """
    count, ten = check_count("count", count), len(NAMES)
    check_generator(generator)
    digit = torch.randint(ten, (count,), generator=generator)
    colour = torch.randint(ten, (count,), generator=generator)
    if never is not None:
        away = torch.randint(1, ten, (count,), generator=generator)
        colour = (torch.tensor(check_rule(never, ten))[digit] + away) % ten
    said = captions.draw(digit, colour, generator)
    guided = FlowMatching(GuidedVelocity(teacher.velocity, strength), teacher.shape)
    noise = guided.base_sample(count, generator)
    said = said.to(noise.device)
    with frozen(teacher):
        ends = [
            guided.trajectory(z, c, steps=steps)[-1]
            for z, c in zip(noise.split(1000), said.split(1000), strict=True)
        ]
    return noise, torch.cat(ends), said


def straight_loss(student: FlowMatching, batch: Any) -> Tensor:
    """‖u(z_t, t | c) − (z₁ − z₀)‖² of the pairs of a batch, (B,).

    Raises:
        TypeError, ValueError: pairs of another shape or dtype than the student's, or of
            several; captions that it cannot read.
    """
    z0, z1, said = batch
    student.check(z1, said)
    t = uniform((len(z1),), z1)
    return FlowMatchingLoss().at(student, z0, z1, t, said)


def train_straight(
    student: FlowMatching,
    teacher: FlowMatching,
    captions: Captions,
    *,
    steps: int = 3000,
    batch: int = 256,
    lr: float = 2e-3,
    **settings: Any,
) -> History:
    """Train a student that begins as its teacher; the pairs are made first.

    Args:
        student: of the teacher's networks; trained in place.
        teacher: trained.
        captions: what the teacher is told.
        steps, batch, lr: of the training.
        settings: of :func:`teacher_pairs`.
    """
    student.load_state_dict(teacher.state_dict())
    generator = torch.Generator().manual_seed(9)
    pairs = teacher_pairs(teacher, captions, generator=generator, **settings)
    return train(student, straight_loss, _batches(pairs, batch), steps, lr=lr)


def _batches(couples: Couples, size: int) -> Iterator[Couples]:
    """Batches of the pairs without end."""
    z0, z1, said = couples
    while True:
        for index in torch.randperm(len(z0)).split(check_count("size", size)):
            yield z0[index], z1[index], said[index]
