"""A kernel density against torch's mixture of normals, and at its extremes."""

from math import log, pi

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from course_utils.models import kernel_density
from course_utils.models.kernel_density import KernelDensity
from course_utils.notebook import seeded


def images(count: int, seed: int = 0, channels: int = 1) -> Tensor:
    shape = count, channels, 3, 4
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64)


def as_torch(known: Tensor, sigma: float) -> MixtureSameFamily:
    parts = Independent(Normal(known, known.new_tensor(sigma)), known.ndim - 1)
    return MixtureSameFamily(Categorical(torch.ones(len(known))), parts)


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("channels", [1, 3])
def test_log_prob_is_torchs(sigma: float, count: int, channels: int) -> None:
    known, x = images(count, 0, channels), images(7, 1, channels)
    expected = as_torch(known, sigma).log_prob(x)
    torch.testing.assert_close(KernelDensity(known, sigma).log_prob(x), expected)


@pytest.mark.parametrize("sigma", [1e-3, 0.01, 0.4])
def test_float32_images_lose_no_nats(sigma: float) -> None:
    """What stands alone is rounded in the end, not a difference of large squares."""
    known = 1 + torch.rand(40, 1, 28, 28, generator=seeded(2))
    x = known[:5] + sigma * torch.randn(5, 1, 28, 28, generator=seeded(3))
    exact = KernelDensity(known.double(), sigma).log_prob(x.double())
    found = KernelDensity(known, sigma).log_prob(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-7, atol=1e-3)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = KernelDensity(images(40), 0.4), images(7, seed=1)
    whole = model.log_prob(x)
    monkeypatch.setattr(kernel_density, "CHUNK", 3)
    torch.testing.assert_close(model.log_prob(x), whole)


def test_images_far_apart_cost_the_log_of_their_number() -> None:
    known = 100.0 * torch.arange(20.0).view(20, 1, 1, 1).expand(20, 1, 3, 4)
    floor = log(20) + 6 * log(2 * pi * 0.4**2)
    log_p = KernelDensity(known, 0.4).log_prob(known)
    torch.testing.assert_close(-log_p, torch.full((20,), floor))


def test_bad_images() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        KernelDensity(torch.zeros(0, 1, 3, 4), 0.4)
    with pytest.raises(ValueError, match="sigma"):
        KernelDensity(images(2), 0.0)
    with pytest.raises(ValueError, match=r"\(B, 1, 3, 4\)"):
        KernelDensity(images(2), 0.4).log_prob(torch.zeros(2, 1, 4, 4))
    with pytest.raises(TypeError, match=r"dtype torch\.float64 like the model"):
        KernelDensity(images(2), 0.4).log_prob(images(2).float())
    with pytest.raises(ValueError, match="NaN"):
        KernelDensity(images(2), 0.4).log_prob(images(2) * float("nan"))
