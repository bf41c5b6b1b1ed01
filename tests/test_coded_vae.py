"""A joint VAE on codes that are given: its latent, its bound, its falling weight."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal, kl_divergence

from course_utils.data.colours import COLOURS, ColouredImages, tint
from course_utils.data.images import ImageSplits
from course_utils.distributions import Categorical, DiagonalNormal
from course_utils.models.clustering import DigitCode
from course_utils.models.coded_vae import (
    CodedVAE,
    ColourCode,
    DearLatentsLoss,
    TwoCodes,
    coded_vae,
    train_coded_vae,
)
from course_utils.notebook import seeded


def coloured(count: int = 40, seed: int = 0) -> ColouredImages:
    source = seeded(seed)
    grey = torch.zeros(count, 1, 28, 28)
    grey[:, :, 8:20, 8:20] = torch.rand(count, 1, 12, 12, generator=source)
    grey[:, :, 10, 10] = 1
    colour = torch.arange(count) % 10
    label = torch.randint(10, (count,), generator=source)
    return ColouredImages(tint(grey, COLOURS[colour]), label, colour=colour)


def splits() -> ImageSplits:
    parts = (coloured(40, 0), coloured(20, 1), coloured(20, 2))
    return ImageSplits(*parts, fingerprint="few", complete=False)


def small(seed: int = 0) -> CodedVAE:
    torch.manual_seed(seed)
    digit = DigitCode(4, width=2, side=8)
    return coded_vae(digit, ColourCode(COLOURS), continuous=3, width=2, hidden=8)


def test_the_colours_are_found_without_labels() -> None:
    data = splits()
    code = ColourCode.of(data)
    nearest = torch.cdist(COLOURS, code.centres).argmin(1)
    assert len(nearest.unique()) == 10  # each colour has a centre of its own
    assert torch.allclose(code.centres[nearest], COLOURS, atol=1e-3)
    found = code(data.test.image).argmax(1)
    assert torch.equal(found, nearest[data.test.colour])  # type: ignore[attr-defined]


def test_a_colours_law_is_that_of_round_clouds() -> None:
    code, images = ColourCode(COLOURS, spread=0.05), coloured(10)
    point = COLOURS[images.colour]
    log_p = Normal(COLOURS, 0.05**0.5).log_prob(point[:, None]).sum(2)
    expected = TorchCategorical(logits=log_p).probs
    assert torch.allclose(code(images.image).softmax(1), expected, atol=1e-4)
    black = code(torch.zeros(1, 3, 28, 28))
    assert black.isfinite().all()


def test_the_latent_is_z_then_colour_then_digit() -> None:
    vae, x = small().eval(), coloured(10).image
    assert vae.sizes == (10, 4)
    assert vae.units()[-2:] == [slice(3, 13), slice(13, 17)]
    q = vae.posterior(x)
    z = q.sample(seeded(0))
    assert z.shape == (10, 17)
    codes = torch.arange(10) % 10
    assert torch.equal(q.mode()[:, 3:13].argmax(1), codes)
    assert vae.given is not None
    expected = vae.given(x)[:, 10:].argmax(1)
    assert torch.equal(q.mode()[:, 13:].argmax(1), expected)
    assert torch.equal(z[:, 3:13].sum(1), torch.ones(10))
    assert vae.prior(5).sample(seeded(0)).shape == (5, 17)


def test_the_bound_is_that_of_the_three_parts() -> None:
    vae, x = small().eval(), coloured(10).image
    q = vae.posterior(x)
    normal, codes = q.parts
    assert isinstance(normal, DiagonalNormal)
    assert isinstance(codes, Categorical)
    each = Normal(normal.mean, (normal.log_var / 2).exp())
    kl = kl_divergence(each, Normal(0.0, 1.0)).sum(1)
    for part in codes.logits.split((10, 4), dim=1):
        uniform = TorchCategorical(logits=torch.zeros_like(part))
        kl = kl + kl_divergence(TorchCategorical(logits=part), uniform)
    assert torch.allclose(q.kl_to_prior(), kl, atol=1e-4)
    assert torch.allclose(vae(x, seeded(0)).kl, kl, atol=1e-4)


def test_the_codes_do_not_learn() -> None:
    vae, data = small(), splits()
    assert vae.given is not None
    before = {k: v.clone() for k, v in vae.given.state_dict().items()}
    first = vae.decoder.network[0].weight.clone()  # type: ignore[index]
    history = train_coded_vae(vae, data, epochs=2, batch=20, watched=10)
    assert history.measured["validation"][-1] < history.measured["validation"][0]
    assert not torch.equal(vae.decoder.network[0].weight, first)  # type: ignore[index]
    after = vae.given.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_the_weight_falls_to_1_and_stays() -> None:
    loss, x = DearLatentsLoss(10, first=5.0, until=0.5), coloured(4).image
    weights, vae = [], small().eval()
    for _ in range(10):
        weights.append(loss.weight())
        loss(vae, x)
    assert weights == pytest.approx([5, 4.2, 3.4, 2.6, 1.8, 1, 1, 1, 1, 1])


def test_the_loss_is_the_bound_where_the_weight_is_1() -> None:
    vae, x = small().eval(), coloured(6).image

    def value(first: float) -> Tensor:
        torch.manual_seed(0)
        return DearLatentsLoss(10, first)(vae, (x, torch.zeros(6).long()))

    plain = value(1.0)
    torch.manual_seed(0)
    assert torch.allclose(plain, -vae(x).elbo, rtol=1e-5)
    z = vae.posterior(x).parts[0].kl_to_prior()
    assert torch.allclose(value(4.0), plain + 3 * z, rtol=1e-5)


def test_bad_settings() -> None:
    for first, until in ((0.5, 0.5), (2.0, 0.0), (2.0, 1.5), (float("inf"), 0.5)):
        with pytest.raises(ValueError, match="β must start at 1 or above"):
            DearLatentsLoss(10, first, until)
    with pytest.raises(ValueError, match="spread must be a finite number above 0"):
        ColourCode(COLOURS, 0.0)
    with pytest.raises(ValueError, match=r"images must have shape \(B, 3, 28, 28\)"):
        small().posterior(torch.zeros(2, 1, 28, 28))
    with pytest.raises(ValueError, match="at least 30 latents, got 17"):
        CodedVAE(
            torch.nn.Flatten(),
            small().decoder,
            TwoCodes(ColourCode(COLOURS), DigitCode(4)),
            sizes=(10, 20),
        )
