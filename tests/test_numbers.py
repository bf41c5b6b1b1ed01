"""Numbers of numpy and torch are numbers; texts, booleans and seeds are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.checks import (
    check_count,
    check_generator,
    check_number,
    check_positive,
)
from course_utils.data import OlympicRings, Square
from course_utils.metrics import sliced_wasserstein
from course_utils.models.diffusion import DDIM, VPCosine, mlp_denoiser
from course_utils.models.flow_matching import FlowMatching, mlp_velocity
from course_utils.models.kernel_density import KernelDensity
from course_utils.models.normalizing_flow import affine_flow
from course_utils.models.vae import LinearVAE, conv_vae, iwae_curve
from course_utils.models.vae.latents import whitened_components
from course_utils.networks.conditioning import ClassLabels
from course_utils.notebook import seeded
from course_utils.plotting import scatter_classes
from course_utils.training import train

WHOLE: list[Callable[[int], Any]] = [
    int,
    np.int64,
    np.uint8,
    np.array,
    torch.tensor,
    lambda n: torch.tensor(n, dtype=torch.int32),
]
REAL: list[Callable[[float], Any]] = [
    float,
    np.float32,
    np.float64,
    np.array,
    torch.tensor,
    lambda x: torch.tensor(x, requires_grad=True),
]
NO_NUMBERS = ["0.5", b"1", True, np.True_, torch.tensor(True), None, [0.5], 1j]
TWO = [np.array([0.5, 0.5]), torch.tensor([0.5])]

FLOW = FlowMatching(mlp_velocity(width=8))
NET = mlp_denoiser(VPCosine(), width=8)


def learn(**settings: Any) -> None:
    batches = OlympicRings().batches(8, torch.Generator(), labelled=False)
    train(nn.Linear(2, 2), lambda m, x: m(x).sum(1), batches, **settings)


COUNTED: dict[str, Callable[[Any], Any]] = {
    "samples of a flow": lambda n: FLOW.sample(n, steps=2),
    "steps of a flow": lambda n: FLOW.sample(2, steps=n),
    "samples of a sampler": lambda n: DDIM(NET).sample(n, steps=2),
    "points": lambda n: Square().sample(n),
    "a batch": lambda n: next(OlympicRings().batches(n, labelled=False)),
    "couplings": lambda n: affine_flow(couplings=n, width=4),
    "width": lambda n: mlp_velocity(width=n),
    "classes": lambda n: ClassLabels(n),
    "steps of training": lambda n: learn(steps=n),
    "epochs to keep": lambda n: learn(steps=4, steps_per_epoch=1, keep=[n]),
    "projections": lambda n: sliced_wasserstein(
        torch.randn(4, 2), torch.randn(4, 2), projections=n
    ),
}
MEASURED: dict[str, Callable[[Any], Any]] = {
    "learning rate": lambda x: learn(steps=1, lr=x),
    "weight decay": lambda x: learn(steps=1, weight_decay=x),
    "clip": lambda x: learn(steps=1, clip=x),
    "average": lambda x: learn(steps=1, ema=x),
    "sigma": lambda x: KernelDensity(torch.rand(2, 1, 2, 2), x),
    "drop": lambda x: ClassLabels(3, dim=4, drop=x),
    "eta": lambda x: DDIM(NET, eta=x).sample(2, steps=2),
    "first": lambda x: VPCosine(first=x).at(0.7),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("use", COUNTED.values(), ids=COUNTED)
def test_a_whole_number_of_any_library_counts(
    use: Callable[[Any], Any], kind: Callable[[int], Any]
) -> None:
    use(kind(3))


@pytest.mark.parametrize("kind", REAL)
@pytest.mark.parametrize("use", MEASURED.values(), ids=MEASURED)
def test_a_number_of_any_library_is_one(
    use: Callable[[Any], Any], kind: Callable[[float], Any]
) -> None:
    use(kind(0.5))


@pytest.mark.parametrize("what", [*NO_NUMBERS, *TWO, 2.5, "3"], ids=repr)
@pytest.mark.parametrize("use", COUNTED.values(), ids=COUNTED)
def test_no_whole_number_is_refused(use: Callable[[Any], Any], what: Any) -> None:
    with pytest.raises(TypeError, match="must be a whole number, got"):
        use(what)


@pytest.mark.parametrize("what", [*NO_NUMBERS, *TWO], ids=repr)
@pytest.mark.parametrize("use", MEASURED.values(), ids=MEASURED)
def test_no_number_is_refused(use: Callable[[Any], Any], what: Any) -> None:
    if what is None:
        return  # the default of some
    with pytest.raises(TypeError, match="must be a number, got"):
        use(what)


@pytest.mark.parametrize("what", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("use", MEASURED.values(), ids=MEASURED)
def test_a_number_out_of_range_is_refused(
    use: Callable[[Any], Any], what: float
) -> None:
    with pytest.raises(ValueError, match=r"must|is needed"):
        use(what)


def test_checked_numbers_are_pythons_own() -> None:
    assert type(check_count("n", np.int8(3))) is int
    assert type(check_positive("x", torch.tensor(0.5))) is float
    assert check_number("x", np.float64(-2)) == -2.0


@pytest.mark.parametrize(
    "use",
    [
        lambda g: FLOW.sample(2, generator=g),
        lambda g: DDIM(NET).sample(2, steps=2, generator=g),
        lambda g: affine_flow(1, 4).sample(2, g),
        lambda g: OlympicRings().sample(2, g),
        lambda g: next(Square().batches(2, g, labelled=True)),
    ],
)
def test_a_seed_is_no_generator(use: Callable[[Any], Any]) -> None:
    for seed in (0, np.random.default_rng(0), "0"):
        with pytest.raises(TypeError, match=r"generator must be a torch\.Generator"):
            use(seed)
    check_generator(None)


def test_settings_of_another_form_are_refused() -> None:
    with pytest.raises(TypeError, match="keep must hold numbers of epochs, got 5"):
        learn(steps=10, keep=5)
    with pytest.raises(ValueError, match="at most 5 classes"):
        scatter_classes(None, torch.zeros(6, 2), torch.arange(6), "abcdef")  # type: ignore[arg-type]


def test_small_unsigned_numbers_do_not_overflow() -> None:
    few: Any = np.uint8(3)
    many: Any = np.uint8(200)  # twice this is more than it can hold
    x = torch.rand(8, 1, 8, 8)
    assert whitened_components(x, few).shape == (8, 3)
    LinearVAE(x, few, 0.4).log_prob(x)
    mlp_velocity(width=8, frequencies=many)(torch.zeros(2, 2), torch.full((2,), 0.5))
    vae = conv_vae(many, width=2, hidden=8, shape=(1, 8, 8))
    assert vae.sample(2).shape == (2, 1, 8, 8)
    assert iwae_curve(torch.zeros(300, 2), [few]).shape == (1, 2)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_seed_of_any_library_is_one(kind: Callable[[int], Any]) -> None:
    drawn = torch.rand(2, generator=seeded(3))
    assert torch.equal(torch.rand(2, generator=seeded(kind(3))), drawn)
    x, y = torch.rand(2, 9, 2)
    assert sliced_wasserstein(x, y, seed=kind(3)) == sliced_wasserstein(x, y, seed=3)


def test_what_is_no_seed_is_refused() -> None:
    for what in ("3", True, torch.Generator(), 1.5):
        with pytest.raises(TypeError, match="seed must be a whole number"):
            seeded(what)  # type: ignore[arg-type]
