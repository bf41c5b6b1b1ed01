"""Categorical latents and products against torch.distributions; sums over all codes.

A decoder of few pixels and few codes has a log p(x), an ELBO and a gradient that brute
force gives.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product as combinations
from math import exp, log

import pytest
import torch
from pictures import splits
from scipy.stats import chisquare
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Independent,
    Normal,
    OneHotCategorical,
    RelaxedOneHotCategorical,
    kl_divergence,
)

from course_utils.artifacts import trained
from course_utils.data.colours import COLOURS, ColouredImages, tint
from course_utils.distributions import (
    Categorical,
    DiagonalNormal,
    Posterior,
    Product,
    one_hot,
    product,
    which,
)
from course_utils.models.judge import REFUSED, Judge
from course_utils.models.vae import (
    BernoulliDecoder,
    Control,
    Decoder,
    GaussianDecoder,
    JointVAE,
    RelaxedLoss,
    all_codes,
    colour_units,
    coloured_vae,
    different_pairs,
    exact_elbo,
    exact_log_prob,
    held_out_elbo,
    importance_log_prob,
    iwae_curve,
    judged,
    log_prob_of_codes,
    log_weights,
    parts_of,
    pixel_entropy,
    reconstruction_control,
    shared_prior_weights,
    shift_control,
    swap_control,
    swapped,
    train_joint_vae,
)
from course_utils.notebook import seeded
from course_utils.training import train

SIZES = (3, 4)
SHAPE = (3, 4, 4)  # of the smallest coloured images that the networks take


def doubles(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def some_codes(rows: int = 5, seed: int = 0, scale: float = 1.0) -> Categorical:
    return Categorical(scale * doubles(rows, sum(SIZES), seed=seed), SIZES)


def some_normal(rows: int = 5, latent: int = 2) -> DiagonalNormal:
    return DiagonalNormal(doubles(rows, latent), doubles(rows, latent, seed=1))


def both() -> Product:
    return Product((some_normal(), some_codes()))


def as_torch(q: Categorical) -> list[OneHotCategorical]:
    return [OneHotCategorical(logits=part) for part in q.logits.split(SIZES, dim=1)]


def pixels(count: int, seed: int = 9) -> Tensor:
    """Images (count, 3, 4, 4) in double precision."""
    drawn = torch.rand(count, *SHAPE, generator=seeded(seed), dtype=torch.float64)
    return drawn.round(decimals=3)


def small(continuous: int, discrete: tuple[int, ...], seed: int = 0) -> JointVAE:
    """A VAE in double precision whose weights are large enough to say something."""
    torch.manual_seed(seed)
    vae = coloured_vae(
        continuous, discrete, width=2, hidden=6, shape=SHAPE, first_mean=0.5
    ).double()
    for parameter in vae.parameters():
        parameter.data *= 3
    return vae


class Given(nn.Module):
    """q(c|x) with four values, by the mean of an image; it says its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x.flatten(1).mean(1, keepdim=True)))


# --- categorical ----------------------------------------------------------------------


def test_kl_log_prob_and_prior_are_torchs() -> None:
    q = some_codes(scale=3)
    z = one_hot(doubles(7, 5, sum(SIZES), seed=2), SIZES)
    each = list(zip(as_torch(q), z.split(SIZES, dim=-1), strict=True))
    flat = [OneHotCategorical(logits=torch.zeros(k).double()) for k in SIZES]
    kl = sum(kl_divergence(p, f) for p, f in zip(as_torch(q), flat, strict=True))
    assert torch.allclose(q.kl_to_prior(), torch.as_tensor(kl))
    log_q = sum(p.log_prob(own) for p, own in each)
    assert torch.allclose(q.log_prob(z), torch.as_tensor(log_q))
    prior = sum(f.log_prob(own) for f, (_, own) in zip(flat, each, strict=True))
    assert torch.allclose(q.log_prior(z), torch.as_tensor(prior))
    probs = torch.cat([p.probs for p in as_torch(q)], dim=1)
    assert torch.allclose(q.log_probs.exp(), probs)


def test_the_kl_at_its_ends() -> None:
    uniform = Categorical(torch.zeros(2, 7), SIZES)
    assert torch.allclose(uniform.kl_to_prior(), torch.zeros(2), atol=1e-6)
    sure = Categorical(100 * uniform.mode(), SIZES)
    assert torch.allclose(sure.kl_to_prior(), torch.full((2,), log(12)))
    sure.logits.requires_grad_(True)
    sure.kl_to_prior().sum().backward()
    assert sure.logits.grad is not None
    assert sure.logits.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [None, 0.1, 1.0, 5.0])
def test_samples_follow_the_softmax(temperature: float | None) -> None:
    """The place of the largest value does, at any temperature: χ² test."""
    n, q = 20_000, some_codes(1, scale=1.5)
    wide = q.repeat(n)
    draws = seeded(0)
    z = wide.sample(draws) if temperature is None else wide.relaxed(temperature, draws)
    for column, p in zip(which(z, SIZES).T, as_torch(q), strict=True):
        seen = column.bincount(minlength=len(p.probs[0]))
        assert chisquare(seen, n * p.probs[0]).pvalue > 1e-3


def test_variables_are_independent() -> None:
    n, q = 20_000, some_codes(1)
    first, second = which(q.repeat(n).sample(seeded(1)), SIZES).T
    a, b = (p.probs[0] for p in as_torch(q))
    seen = (first * 4 + second).bincount(minlength=12)
    assert chisquare(seen, n * torch.outer(a, b).flatten()).pvalue > 1e-3


def test_relaxed_samples_have_torchs_law() -> None:
    """E and Var of each value, against RelaxedOneHotCategorical."""
    n, tau, q = 100_000, 0.7, some_codes(1)
    mine = q.repeat(n).relaxed(tau, seeded(2)).split(SIZES, dim=1)
    torch.manual_seed(3)
    for own, logits in zip(mine, q.logits.split(SIZES, dim=1), strict=True):
        law = RelaxedOneHotCategorical(torch.tensor(tau).double(), logits=logits[0])
        theirs = law.sample((n,))
        error = 4 * (own.var(0) / n + theirs.var(0) / n).sqrt()
        assert ((own.mean(0) - theirs.mean(0)).abs() < error).all()
        spread = own.square().mean(0) - theirs.square().mean(0)
        error = 4 * (own.square().var(0) / n + theirs.square().var(0) / n).sqrt()
        assert (spread.abs() < error).all()


def test_the_ends_of_the_temperature() -> None:
    q = some_codes()
    hard, soft = q.sample(seeded(4)), q.relaxed(1e-4, seeded(4))
    assert torch.allclose(soft, hard, atol=1e-6)  # the same Gumbel noise
    assert (hard.sum(1) == len(SIZES)).all()
    assert ((hard == 0) | (hard == 1)).all()
    flat = torch.cat([torch.full((5, k), 1 / k) for k in SIZES], dim=1).double()
    assert torch.allclose(q.relaxed(1e6, seeded(4)), flat, atol=1e-4)
    for tau in (0.1, 1.0, 10.0):
        each = q.relaxed(tau, seeded(5)).split(SIZES, dim=1)
        assert all(torch.allclose(part.sum(1), hard.new_ones(5)) for part in each)


def test_the_gradient_of_a_relaxed_mean() -> None:
    """Of the sample's own path: against finite differences with the same noise."""
    value = doubles(7, seed=6)
    logits = doubles(3, 7, seed=7).requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda x: Categorical(x, SIZES).relaxed(0.8, seeded(8)) @ value, (logits,)
    )


def test_the_gradient_nears_the_true_one_as_the_temperature_falls() -> None:
    """∂E[v(c)]/∂ℓ is known for one variable; the relaxed one has its bias and noise.

    The function is not linear in the code, so the relaxation is biased.
    """
    n, k = 400_000, 3
    v = torch.tensor([0.0, 1.0, 4.0]).double()
    logits = torch.tensor([[0.4, 0.0, -0.3]]).double()
    p = logits.softmax(1)[0]
    true = p * (v - (p * v).sum())

    def found(tau: float) -> tuple[Tensor, Tensor]:
        x = logits.repeat(n, 1).requires_grad_(True)
        y = Categorical(x, (k,)).relaxed(tau, seeded(9))
        (y @ v.sqrt()).square().sum().backward()  # v(c) at codes
        assert x.grad is not None
        return x.grad.mean(0), x.grad.std(0) / n**0.5

    bias = {}
    for tau in (1.0, 0.1):
        mean, error = found(tau)
        bias[tau] = float((mean - true).norm())
        if tau == 0.1:
            assert bias[tau] < 4 * float(error.norm()) + 0.03
    assert bias[1.0] > 0.3
    assert bias[0.1] < bias[1.0] / 5


def test_a_drawn_code_gives_no_gradient() -> None:
    logits = doubles(3, 7).requires_grad_(True)
    q = Categorical(logits, SIZES)
    assert not q.sample().requires_grad
    assert q.relaxed(0.5).requires_grad
    assert not Categorical(logits, SIZES, relaxable=False).relaxed(0.5).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtypes_and_extreme_logits(dtype: torch.dtype) -> None:
    q = Categorical(torch.tensor([[80.0, -80.0, 0.0]], dtype=dtype), (3,))
    for z in (q.sample(), q.relaxed(0.05), q.mode(), q.kl_to_prior()):
        assert z.dtype == dtype
        assert z.isfinite().all()
    assert q.index().tolist() == [[0]]


# --- products -------------------------------------------------------------------------


def test_a_product_adds_up() -> None:
    q, z = both(), both().sample(seeded(1)).repeat(6, 1, 1)
    normal, code = some_normal(), some_codes()
    assert (q.batch, q.width) == (5, 9)
    assert torch.equal(q.kl_to_prior(), normal.kl_to_prior() + code.kl_to_prior())
    expected = normal.log_prob(z[..., :2]) + code.log_prob(z[..., 2:])
    assert torch.equal(q.log_prob(z), expected)
    assert q.log_prob(z).shape == q.log_prior(z).shape == (6, 5)
    expected = normal.log_prior(z[..., :2]) + code.log_prior(z[..., 2:])
    assert torch.equal(q.log_prior(z), expected)
    assert torch.equal(q.mode()[:, :2], normal.mean)
    assert torch.equal(q.mode()[:, 2:], code.mode())
    same = seeded(2)
    z0 = torch.cat([normal.sample(same), code.sample(same)], dim=1)
    assert torch.equal(q.sample(seeded(2)), z0)
    same = seeded(2)
    y = torch.cat([normal.relaxed(0.5, same), code.relaxed(0.5, same)], dim=1)
    assert torch.equal(q.relaxed(0.5, seeded(2)), y)


def test_normal_kl_and_prior_are_torchs() -> None:
    q, z = some_normal(), doubles(7, 5, 2, seed=2)
    law = Independent(Normal(q.mean, (q.log_var / 2).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(q.mean), 1), 1)
    assert torch.allclose(q.kl_to_prior(), kl_divergence(law, prior))
    assert torch.allclose(q.log_prior(z), prior.log_prob(z))
    assert torch.allclose(q.log_prob(z), law.log_prob(z))


@pytest.mark.parametrize("q", [some_normal(), some_codes(), both()], ids=type)
def test_posteriors_repeat(q: Posterior) -> None:
    wide = q.repeat(3)
    assert (wide.batch, wide.width) == (3 * q.batch, q.width)
    assert torch.equal(wide.kl_to_prior(), q.kl_to_prior().repeat(3))
    assert torch.equal(wide.mode(), q.mode().repeat(3, 1))


def test_the_mean_of_minus_log_ratio_is_the_kl() -> None:
    q = both().repeat(40_000)
    z = q.sample(seeded(3))
    ratio = (q.log_prob(z) - q.log_prior(z)).view(-1, 5)
    error = ratio.std(0) / len(ratio) ** 0.5
    assert ((ratio.mean(0) - both().kl_to_prior()).abs() < 4 * error).all()


def test_product_of_one_is_that_one() -> None:
    q = some_codes()
    assert product([q]) is q
    assert isinstance(product([q, some_normal()]), Product)


# --- Bernoulli pixels -----------------------------------------------------------------


def bernoulli(latent: int = 2, seed: int = 0) -> BernoulliDecoder:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(latent, 48), nn.Unflatten(1, SHAPE))
    return BernoulliDecoder(layers, latent).double()


def test_log_likelihood_of_black_and_white_is_torchs() -> None:
    decoder, z = bernoulli(), 3 * doubles(4, 2)
    x = pixels(4).round()
    law = Independent(Bernoulli(logits=decoder.logits(z)), 3)
    assert torch.allclose(decoder.log_likelihood(x, z), law.log_prob(x))
    assert torch.allclose(decoder(z), law.mean)


@torch.no_grad()
def test_of_grey_values_it_is_the_mean_over_random_black_and_white() -> None:
    decoder, z, x, n = bernoulli(), 3 * doubles(1, 2), pixels(1), 40_000
    b = torch.bernoulli(x.expand(n, -1, -1, -1), generator=seeded(1))
    drawn = decoder.log_likelihood(b, z.expand(n, -1))
    exact = decoder.log_likelihood(x, z)
    assert float((drawn.mean() - exact).abs()) < 4 * float(drawn.std()) / n**0.5


def test_the_entropy_is_the_floor_of_the_cross_entropy() -> None:
    x = pixels(3).clamp(0.01, 0.99)
    best = x.logit().flatten(1)
    floor = pixel_entropy(x)
    law = Independent(Bernoulli(probs=x), 3)
    assert torch.allclose(floor, law.entropy())
    layer = nn.Linear(48, 48)
    layer.weight.data = torch.eye(48)
    layer.bias.data.zero_()
    network = nn.Sequential(layer, nn.Unflatten(1, SHAPE))
    decoder = BernoulliDecoder(network, 48).double()
    assert torch.allclose(-decoder.log_likelihood(x, best), floor)
    worse = -decoder.log_likelihood(x, best + 0.1 * doubles(3, 48))
    assert (worse > floor).all()
    assert float(pixel_entropy(x.round()).max()) == 0


@pytest.mark.parametrize("kind", ["Bernoulli", "Gaussian"])
def test_all_pairs_are_the_pairs(kind: str) -> None:
    decoder: BernoulliDecoder | GaussianDecoder = bernoulli()
    if kind == "Gaussian":
        decoder = GaussianDecoder(decoder.network, 2, 0.3).double()
    x, z = pixels(4), doubles(5, 2)
    each = [decoder.log_likelihood(x, row.expand(4, -1)) for row in z]
    assert torch.allclose(decoder.of_all_pairs(x, z), torch.stack(each))
    shared = shared_prior_weights(decoder, x, 6, seeded(2))
    drawn = torch.randn(6, 2, generator=seeded(2), dtype=torch.float64)
    assert torch.allclose(shared, decoder.of_all_pairs(x, drawn))


# --- sums over all codes --------------------------------------------------------------


def test_all_codes_are_there_once() -> None:
    codes = all_codes(SIZES, doubles(1))
    assert codes.shape == (12, 7)
    assert codes.dtype == torch.float64
    found = which(codes, SIZES).tolist()
    assert found == [list(pair) for pair in combinations(range(3), range(4))]
    assert (codes.sum(1) == 2).all()


def brute_elbo(vae: JointVAE, x: Tensor, z: Tensor | None) -> Tensor:
    """Σ_c q(c|x)·log p(x|z, c) − KL of each image, by loops over codes and images."""
    normal, code = parts_of(vae.posterior(x))
    assert code is not None
    probs = [p.probs for p in as_torch(code)]
    total = []
    for i in range(len(x)):
        value = 0.0
        for first, second in combinations(range(3), range(4)):
            row = torch.zeros(7).double()
            row[first] = row[3 + second] = 1
            if z is not None:
                row = torch.cat([z[i], row])
            law = Bernoulli(logits=vae.decoder.network(row[None]))
            log_p = float((law.logits.new_tensor(0) + _cross(law, x[i : i + 1])).sum())
            value += float(probs[0][i, first] * probs[1][i, second]) * log_p
        total.append(value)
    kl = code.kl_to_prior() + (0 if normal is None else normal.kl_to_prior())
    return torch.tensor(total).double() - kl


def _cross(law: Bernoulli, x: Tensor) -> Tensor:
    """x·log π + (1 − x)·log(1 − π)."""
    return x * law.probs.log() + (1 - x) * (1 - law.probs).log()


@torch.no_grad()
@pytest.mark.parametrize("continuous", [0, 2])
def test_the_exact_elbo_is_that_of_brute_force(continuous: int) -> None:
    vae, x = small(continuous, SIZES), pixels(4)
    normal, _ = parts_of(vae.posterior(x))
    z = None if normal is None else normal.sample(seeded(5))
    found = exact_elbo(vae, x, generator=seeded(5))
    assert torch.allclose(found.elbo, brute_elbo(vae, x, z))
    assert torch.equal(held_out_elbo(vae, x, 1, seeded(5)).elbo, found.elbo)


@torch.no_grad()
@pytest.mark.parametrize("continuous", [0, 2])
def test_drawn_codes_have_the_exact_elbo_as_mean(
    continuous: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, x = small(continuous, SIZES), pixels(1)
    n, m = 8000, 100
    exact = exact_elbo(vae, x, m, seeded(6)).elbo
    drawn = vae(x.expand(n, -1, -1, -1), seeded(7)).elbo
    error = float(drawn.std()) * (1 / n + (1 / m if continuous else 0)) ** 0.5
    assert float((drawn.mean() - exact).abs()) < 4 * error
    monkeypatch.setattr("course_utils.models.vae.codes.MOST", 5)
    monkeypatch.setattr("course_utils.models.vae.codes.MOST_SHARED", 5)
    other = held_out_elbo(vae, x.expand(50, -1, -1, -1), 40, seeded(8)).elbo
    error = float(drawn.std()) / 2000**0.5 + error
    assert float((other.mean() - exact).abs()) < 4 * error


@torch.no_grad()
def test_the_exact_log_prob_and_its_bounds() -> None:
    """ELBO ≤ importance-weighted bound ≤ log p(x), which is a sum over codes."""
    vae, x = small(0, SIZES), pixels(4)
    log_p = exact_log_prob(vae, x)
    rows = all_codes(SIZES, x)
    each = torch.stack([vae.decoder.log_likelihood(x, r.expand(4, -1)) for r in rows])
    assert torch.allclose(log_p, each.exp().mean(0).log())
    assert torch.allclose(log_prob_of_codes(vae.decoder, rows, x), each)
    q = vae.posterior(x)
    elbo = exact_elbo(vae, x).elbo
    assert (elbo < log_p).all()
    log_w = log_weights(vae.decoder, q, x, 12_000, seeded(9))
    curve = iwae_curve(log_w, [1, 8, 64])
    assert torch.allclose(curve[0], elbo, atol=0.2)
    assert (curve.diff(dim=0) > 0).all()
    assert (curve[-1] < log_p + 0.05).all()
    assert torch.allclose(log_w.logsumexp(0) - log(12_000), log_p, atol=0.1)


@torch.no_grad()
def test_the_importance_weighted_bound_is_above_the_elbo() -> None:
    vae, x = small(2, SIZES), pixels(20)
    elbo = exact_elbo(vae, x, 20, seeded(1)).elbo.mean()
    weighted = importance_log_prob(
        vae.decoder, vae.posterior(x), x, 50, generator=seeded(2)
    ).mean()
    assert weighted > elbo + 0.1


@torch.no_grad()
def test_the_relaxed_objective_is_no_bound() -> None:
    """A decoder that likes the middle of two codes: above log p(x) on the average.

    Pixels are white where the relaxed code is between one-hot rows, x is white.
    """
    first, last, encode = nn.Linear(2, 2), nn.Linear(2, 1), nn.Linear(1, 2)
    network = nn.Sequential(first, nn.ReLU(), last, nn.Unflatten(1, (1, 1, 1)))
    decoder = BernoulliDecoder(network, 2)
    first.weight.data = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    first.bias.data.zero_()
    last.weight.data = torch.full((1, 2), -20.0)  # −20·|y_0 − y_1| + 10
    last.bias.data.fill_(10.0)
    vae = JointVAE(
        nn.Sequential(nn.Flatten(), encode),
        decoder,
        (1, 1, 1),
        continuous=0,
        discrete=(2,),
    )
    encode.weight.data.zero_()
    encode.bias.data.zero_()
    x = torch.ones(2000, 1, 1, 1)
    log_p = float(exact_log_prob(vae, x[:1]))
    assert float(exact_elbo(vae, x[:1]).elbo) == pytest.approx(log_p)  # q is p(c|x)
    assert log_p < -9
    assert float(vae.relaxed(x, 5.0, seeded(3)).elbo.mean()) > -1
    near = float(vae.relaxed(x, 0.01, seeded(3)).elbo.mean())
    assert near == pytest.approx(log_p, abs=0.5)


# --- the model ------------------------------------------------------------------------


def test_posteriors_of_all_kinds() -> None:
    x = pixels(4)
    assert isinstance(small(2, ()).posterior(x), DiagonalNormal)
    assert isinstance(small(0, SIZES).posterior(x), Categorical)
    q = small(2, SIZES).posterior(x)
    assert isinstance(q, Product)
    assert [type(part) for part in q.parts] == [DiagonalNormal, Categorical]
    for vae in (small(2, ()), small(0, SIZES), small(2, SIZES)):
        prior = vae.prior(3)
        assert torch.allclose(prior.kl_to_prior(), torch.zeros(3).double(), atol=1e-12)
        assert prior.width == vae.decoder.latent == vae.posterior(x).width
        assert vae.sample(3, seeded(0)).shape == (3, *SHAPE)
        assert torch.equal(vae.sample(3, seeded(0)), vae.sample(3, seeded(0)))
        mode = vae.decoder(vae.posterior(x).mode())
        assert torch.equal(vae.reconstruct(x), mode)
        places = torch.arange(vae.decoder.latent)
        assert torch.equal(torch.cat([places[u] for u in vae.units()]), places)


def test_encoder_reads_mean_log_var_logits_in_this_order() -> None:
    vae, x = small(2, SIZES), pixels(4)
    found = vae.encoder(x)
    normal, code = parts_of(vae.posterior(x))
    assert normal is not None
    assert code is not None
    together = torch.cat([normal.mean, normal.log_var, code.logits], dim=1)
    assert torch.equal(together, found)


def test_without_codes_it_is_a_vae() -> None:
    vae, x = small(2, ()), pixels(4)
    bound, relaxed = vae(x, seeded(1)), vae.relaxed(x, 0.3, seeded(1))
    assert torch.equal(bound.elbo, relaxed.elbo)
    mean = exact_elbo(vae, x, 3, seeded(2)).reconstruction
    draws = seeded(2)
    each = [vae(x, draws).reconstruction for _ in range(3)]
    assert torch.allclose(mean, torch.stack(each).mean(0))


def test_a_given_code_stays_as_it_is() -> None:
    given = Given().double()
    given.layer.weight.data.fill_(9.0)
    vae = coloured_vae(
        2, (3,), given, given_size=4, width=2, hidden=6, shape=SHAPE
    ).double()
    assert vae.sizes == SIZES
    x = pixels(20)
    vae.train()
    q = vae.posterior(x)
    assert isinstance(q, Product)
    code = q.parts[-1]
    assert isinstance(code, Categorical)
    assert torch.equal(code.logits, given.eval()(x))  # statistics of evaluation
    assert not code.logits.requires_grad
    y = q.relaxed(0.5, seeded(0))
    assert ((y[:, -4:] == 0) | (y[:, -4:] == 1)).all()
    assert vae.given is not given
    before = {k: v.clone() for k, v in vae.given.state_dict().items()}  # type: ignore[union-attr]
    train(vae, RelaxedLoss(3), [x] * 3, 3, lr=0.1)
    after = vae.given.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    kl = sum(part.kl_to_prior() for part in q.parts)
    assert torch.allclose(exact_elbo(vae, x).kl, vae.posterior(x).kl_to_prior())
    assert torch.allclose(q.kl_to_prior(), torch.as_tensor(kl))


def test_networks_and_their_start() -> None:
    for networks in ("conv", "mlp"):
        vae = coloured_vae(2, (10,), networks=networks)
        image = vae.decoder(vae.prior(8).sample(seeded(0)))
        assert image.shape == (8, 3, 28, 28)
        assert float(image.detach().mean()) == pytest.approx(0.1, abs=0.02)
        assert isinstance(vae.decoder.network, nn.Sequential)
    conv, mlp = (
        sum(p.numel() for p in coloured_vae(2, (), networks=n).parameters())
        for n in ("conv", "mlp")
    )
    assert conv < mlp / 10
    half = coloured_vae(2, first_mean=0.5).decoder(torch.zeros(1, 2))
    assert float(half.detach().mean()) == pytest.approx(0.5, abs=0.05)


# --- temperature ----------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 7, 1000])
def test_the_temperature_reaches_its_end(steps: int) -> None:
    vae, x = small(0, SIZES), pixels(2)
    loss = RelaxedLoss(steps, 1.0, 0.25)
    seen = []
    for _ in range(steps):
        seen.append(loss.temperature())
        loss.step += 1
    assert seen[0] == 1.0
    assert seen[-1] == 0.25
    ratio = torch.tensor(seen, dtype=torch.float64).log().diff()
    assert torch.allclose(ratio, torch.full_like(ratio, log(0.25) / (steps - 1)))
    assert loss.temperature() == 0.25  # and stays there
    assert loss(vae, (x, None)).shape == (2,)


def test_the_training_calls_it_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    original = JointVAE.relaxed

    def watched(self: JointVAE, x: Tensor, temperature: float) -> object:
        seen.append(temperature)
        return original(self, x, temperature)

    monkeypatch.setattr(JointVAE, "relaxed", watched)
    data = splits((3, 8, 8))
    vae = coloured_vae(2, (3,), width=2, hidden=6, shape=(3, 8, 8))
    history = train_joint_vae(
        vae, data, epochs=2, batch=8, temperatures=(2.0, 0.5), watched=5
    )
    assert len(seen) == len(history.loss) == 2 * data.train.steps(8)
    assert seen[0] == 2.0
    assert seen[-1] == 0.5
    assert set(history.measured) == {"validation", "training", "reconstruction", "KL"}


def test_a_fixed_rate_does_not() -> None:
    """The numbers of the docstring."""
    assert log(1 / 0.5) / 3e-5 == pytest.approx(23_000, rel=0.01)
    assert exp(-3e-5 * 1878) > 0.94


def test_training_learns_and_is_kept(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    data = splits((3, 8, 8))

    def made() -> tuple[JointVAE, list[float]]:
        build = partial(coloured_vae, 2, (3,), width=2, hidden=6, shape=(3, 8, 8))
        vae, history = trained(
            "joint", build, train_joint_vae, data=data, epochs=3, batch=8, watched=20
        )
        return vae, history.measured["validation"]

    first, measured = made()
    again, same = made()
    assert measured == same
    assert measured[-1] < measured[0]
    for mine, theirs in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)


# --- control --------------------------------------------------------------------------


class Planted(Judge):
    """A world whose digit is the row that is lit; it refuses a dim one."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def digit(self, x: Tensor) -> Tensor:
        rows = x[:, 0].mean(2)
        return rows.argmax(1).masked_fill(rows.amax(1) < 0.3, REFUSED)


def lit(row: Tensor) -> Tensor:
    """A grey image (B, 1, 12, 12) of each digit."""
    grey = torch.zeros(len(row), 1, 12, 12)
    grey[torch.arange(len(row)), 0, row] = 1
    return grey


class Drawn(Decoder):
    """A decoder that draws what a function says."""

    def __init__(self, draw: Callable[[Tensor], Tensor], latent: int) -> None:
        super().__init__(nn.Identity(), latent)
        self.draw = draw

    def forward(self, z: Tensor) -> Tensor:
        return self.draw(z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        raise NotImplementedError

    def of_all_pairs(self, x: Tensor, z: Tensor) -> Tensor:
        raise NotImplementedError


class PlantedVAE(JointVAE):
    """Latents: digit, colour as two variables of ten; decoded as they say."""

    def __init__(self, mixed: bool = False) -> None:
        decoder = Drawn(self.draw, 20)
        sizes = (10, 10)
        super().__init__(
            nn.Identity(), decoder, (3, 12, 12), continuous=0, discrete=sizes
        )
        self.mixed = mixed

    def posterior(self, x: Tensor) -> Categorical:
        row = x.amax(1).mean(2).argmax(1)
        colour = torch.cdist(x.amax((2, 3)), COLOURS).argmin(1)
        first = (row + colour) % 10 if self.mixed else row
        logits = torch.zeros(len(x), 20)
        logits[torch.arange(len(x)), first] = 50
        logits[torch.arange(len(x)), 10 + colour] = 50
        return Categorical(logits, (10, 10))

    def draw(self, z: Tensor) -> Tensor:
        first, colour = which(z, (10, 10)).T
        row = (first - colour) % 10 if self.mixed else first
        return tint(lit(row), COLOURS[colour])


class Linear(JointVAE):
    """A linear world: latent = (the digit's row, the colour's red, green, blue)."""

    def __init__(self) -> None:
        decoder = Drawn(self.draw, 4)
        super().__init__(nn.Identity(), decoder, (3, 12, 12), continuous=4)

    def posterior(self, x: Tensor) -> DiagonalNormal:
        row = x.amax(1).mean(2).argmax(1, keepdim=True).float()
        mean = torch.cat([row, x.amax((2, 3))], dim=1)
        return DiagonalNormal(mean, torch.zeros_like(mean))

    def draw(self, z: Tensor) -> Tensor:
        return tint(lit(z[:, 0].round().long().clamp(0, 9)), z[:, 1:].clamp(0, 1))


def planted_images(count: int = 300, seed: int = 0) -> ColouredImages:
    digit = torch.randint(10, (count,), generator=seeded(seed))
    colour = torch.randint(10, (count,), generator=seeded(seed + 1))
    grey = lit(digit)
    return ColouredImages(tint(grey, COLOURS[colour]), digit, 10, colour=colour)


def shares(found: Control) -> list[float]:
    return [float(part.float().mean()) for part in found]


def test_control_on_planted_latents() -> None:
    """Apart, the colour's variable controls it; mixed, it changes the digit too."""
    images, judge = planted_images(), Planted()
    apart, mixed = PlantedVAE(), PlantedVAE(mixed=True)
    assert shares(reconstruction_control(apart, images, judge)) == [1, 1, 0]
    assert colour_units(apart, images, judge, generator=seeded(0)) == [1]

    def swap(vae: JointVAE, units: list[int]) -> Control:
        return swap_control(vae, images, judge, units, 400, seeded(1))

    found = swap(apart, [1])
    assert shares(found) == [1, 1, 0]
    assert len(found.both) == 400
    wrong = swap(apart, [0])
    assert shares(wrong) == [0, 0, 0]  # the other's digit in the old colour
    none = swap(apart, [])
    assert shares(none) == [1, 0, 0]
    every = swap(apart, [0, 1])
    assert shares(every) == [0, 1, 0]
    tied = swap(mixed, [1])
    assert float(tied.colour.float().mean()) == 1
    assert float(tied.digit.float().mean()) == 0  # the digit moves with the colour
    assert shares(reconstruction_control(mixed, images, judge)) == [1, 1, 0]


def test_a_refused_image_is_wrong() -> None:
    grey = lit(torch.tensor([3, 4])) * torch.tensor([1.0, 0.2]).view(2, 1, 1, 1)
    x = tint(grey, COLOURS[[2, 2]])
    found = judged(x, torch.tensor([3, 4]), torch.tensor([2, 2]), Planted())
    assert found.digit.tolist() == [True, False]
    assert found.refused.tolist() == [False, True]


def test_arithmetic_moves_a_colour_that_is_a_shift() -> None:
    vae = Linear()
    known, images = planted_images(3000), planted_images(300, seed=5)
    found = shift_control(vae, known, images, Planted(), 200, seeded(0))
    assert float(found.colour.float().mean()) == 1
    assert float(found.digit.float().mean()) > 0.9  # means of the digit's place differ


def test_pairs_share_nothing() -> None:
    images = planted_images()
    a, b = different_pairs(images, 700, seeded(0))
    assert len(a) == len(b) == 700
    assert (images.label[a] != images.label[b]).all()
    assert (images.colour[a] != images.colour[b]).all()
    alike = ColouredImages(images.image, images.label * 0, 10, colour=images.colour)
    with pytest.raises(ValueError, match=r"5 pairs .* are wanted, got 0 from 300"):
        different_pairs(alike, 5)


def test_swapped_takes_places() -> None:
    a, b = torch.zeros(2, 5), torch.ones(2, 5)
    assert swapped(a, b, [slice(1, 3), slice(4, 5)]).tolist() == [[0, 1, 1, 0, 1]] * 2
    assert a.sum() == 0


# --- bad input ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Categorical(torch.zeros(2, 6), SIZES),
            r"shape \(B, 7\), got \(2, 6\)",
        ),
        (lambda: Categorical(torch.zeros(7), SIZES), r"got \(7,\)"),
        (lambda: Categorical(torch.zeros(2, 4), (3, 1)), "at least 2, got 1"),
        (lambda: Categorical(torch.zeros(2, 0), ()), "at least one categorical"),
        (lambda: some_codes().relaxed(0.0), "temperature must be .* above 0"),
        (lambda: some_codes().relaxed(-1.0), "temperature must be .* above 0"),
        (
            lambda: some_codes().log_prob(some_codes().relaxed(1.0)),
            "zeros and ones, for a relaxed sample",
        ),
        (lambda: Product(()), "parts of one batch"),
        (lambda: Product((some_normal(2), some_codes(3))), r"\[2, 3\]"),
        (
            lambda: DiagonalNormal(torch.zeros(2, 3), torch.zeros(2, 2)).sample(),
            "log_var must have shape",
        ),
        (lambda: coloured_vae(0, ()), "must be at least 1, got 0"),
        (lambda: coloured_vae(-1, (3,)), "continuous must be at least 0"),
        (lambda: coloured_vae(2, (1,)), "at least 2, got 1"),
        (lambda: coloured_vae(2, networks="cnn"), "one of 'conv', 'mlp'"),  # type: ignore[arg-type]
        (lambda: coloured_vae(2, first_mean=1.0), r"first_mean must lie in \(0, 1\)"),
        (lambda: RelaxedLoss(0), "steps must be at least 1"),
        (lambda: RelaxedLoss(5, 0.0), "first temperature must be"),
        (lambda: RelaxedLoss(5, 1.0, -1.0), "last temperature must be"),
        (
            lambda: JointVAE(nn.Identity(), bernoulli(3), SHAPE, continuous=2),
            "decoder must take 2 latents",
        ),
        (
            lambda: bernoulli().log_likelihood(pixels(2) * 1.5, doubles(2, 2)),
            r"must lie in \[0, 1\], got",
        ),
        (
            lambda: bernoulli().of_all_pairs(pixels(2) - 0.5, doubles(2, 2)),
            r"must lie in \[0, 1\], got",
        ),
        (
            lambda: bernoulli().log_likelihood(pixels(3), doubles(2, 2)),
            "images must have shape",
        ),
        (lambda: pixel_entropy(pixels(2) - 1.5), r"must lie in \[0, 1\]"),
        (
            lambda: exact_log_prob(small(2, SIZES), pixels(2)),
            "only without continuous latents, got 2",
        ),
        (
            lambda: exact_elbo(small(2, (10, 10, 10)), pixels(2)),
            "at most 200 of them, got 1,000",
        ),
        (
            lambda: exact_elbo(small(0, (10,) * 6), pixels(2)),
            "at most 100,000 of them, got 1,000,000",
        ),
        (
            lambda: shift_control(
                PlantedVAE(),
                planted_images(),
                planted_images(),
                Planted(),
            ),
            "continuous must be at least 1",
        ),
        (lambda: small(2, ()).posterior(torch.zeros(2, 3, 5, 4)), "must have shape"),
    ],
)
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_kinds_that_are_wrong() -> None:
    with pytest.raises(TypeError, match="sizes must be like"):
        Categorical(torch.zeros(2, 3), 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="temperature must be a number"):
        some_codes().relaxed("warm")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a normal and categorical"):
        parts_of(Product((both(), some_codes())))


def test_an_encoder_of_another_width() -> None:
    vae = small(2, SIZES)
    vae.encoder[-1] = nn.Linear(6, 10).double()  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"\(2, 11\), got \(2, 10\)"):
        vae(pixels(2))
