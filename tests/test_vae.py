"""VAEs against torch.distributions, and a linear decoder whose log p(x) is exact.

With f(z) = Wz + b, x ~ N(b, WWᵀ + σ²I), and the posterior is normal with precision
I + WᵀW/σ²: diagonal where the columns of W are orthogonal.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import exp, log

import pytest
import torch
from pictures import Shape, blobs, splits
from torch import Tensor, nn
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    kl_divergence,
)
from torch.nn.functional import mse_loss

from course_utils.data.images import Images, ImageSplits
from course_utils.distributions import DiagonalNormal, normal_log_prob
from course_utils.models.vae import (
    VAE,
    ElboParts,
    GaussianDecoder,
    LatentTable,
    LatentVAE,
    conv_vae,
    effective_samples,
    implied_sigma,
    importance_log_prob,
    iwae_curve,
    latent_turns,
    likelihood,
    log_mean_weight,
    log_weights,
    lower_bound,
    negative_elbo,
    negative_row_elbo,
    prior_as_posterior,
    train_posterior,
    train_vae,
    whitened_components,
)
from course_utils.notebook import seeded
from course_utils.training import train

PIXELS, LATENT, SIGMA = 6, 2, 0.7
COUNTS = [1, 10, 100, 1000]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def some_q(images: int = 5, latent: int = 3) -> DiagonalNormal:
    return DiagonalNormal(normal(images, latent), normal(images, latent, seed=1))


def as_torch(q: DiagonalNormal) -> Independent:
    return Independent(Normal(q.mean, (q.log_var / 2).exp()), 1)


def linear_decoder(
    columns: Tensor, sigma: float, bias: Tensor | None = None
) -> GaussianDecoder:
    """f(z) = Wz + b, with W (P, D)."""
    pixels, latent = columns.shape
    layer = nn.Linear(latent, pixels).double()
    layer.weight.data = columns.clone()
    layer.bias.data = normal(pixels, seed=8) if bias is None else bias.clone()
    return GaussianDecoder(layer, latent, sigma).double()


def orthogonal(*lengths: float, pixels: int = PIXELS, seed: int = 3) -> Tensor:
    """Orthogonal columns of these lengths."""
    basis = torch.linalg.qr(normal(pixels, len(lengths), seed=seed)).Q
    return basis * torch.tensor(lengths, dtype=torch.float64)


def exact_log_prob(decoder: GaussianDecoder, x: Tensor) -> Tensor:
    layer, sigma = decoder.network, decoder.sigma
    assert isinstance(layer, nn.Linear)
    noise = sigma.square().expand(len(layer.bias))
    with torch.no_grad():
        return LowRankMultivariateNormal(layer.bias, layer.weight, noise).log_prob(x)


def exact_posterior(decoder: GaussianDecoder, x: Tensor) -> MultivariateNormal:
    layer, sigma = decoder.network, decoder.sigma
    assert isinstance(layer, nn.Linear)
    w = layer.weight.detach()
    precision = torch.eye(w.shape[1]).double() + w.T @ w / sigma**2
    mean = (x - layer.bias.detach()) @ w / sigma**2 @ precision.inverse()
    return MultivariateNormal(mean, precision_matrix=precision.expand(len(x), -1, -1))


def best_diagonal(decoder: GaussianDecoder, x: Tensor) -> DiagonalNormal:
    """The diagonal q nearest to the posterior: its mean, and 1/precision of each z."""
    posterior = exact_posterior(decoder, x)
    precision = posterior.precision_matrix.diagonal(dim1=1, dim2=2)
    return DiagonalNormal(posterior.mean, -precision.log())


def gap(decoder: GaussianDecoder, q: DiagonalNormal, x: Tensor) -> Tensor:
    """log p(x) − ELBO(x) = KL(q ‖ posterior), exact, (B,)."""
    mine = MultivariateNormal(q.mean, q.log_var.exp().diag_embed())
    return kl_divergence(mine, exact_posterior(decoder, x))


def shifted(q: DiagonalNormal, by: float = 1.0) -> DiagonalNormal:
    """Each mean ``by`` standard deviations off: KL is ``by``²/2 for each latent."""
    return q._replace(mean=q.mean + by * (q.log_var / 2).exp())


@pytest.fixture
def decoder() -> GaussianDecoder:
    return linear_decoder(orthogonal(2.0, 0.8), SIGMA)


@pytest.fixture
def x(decoder: GaussianDecoder) -> Tensor:
    """Four images that the decoder made."""
    with torch.no_grad():
        return decoder(normal(4, LATENT, seed=4)) + SIGMA * normal(4, PIXELS, seed=5)


# --- normal densities -----------------------------------------------------------------


def test_log_prob_is_torchs() -> None:
    q, z = some_q(), normal(7, 5, 3, seed=2)
    assert torch.allclose(q.log_prob(z), as_torch(q).log_prob(z))
    assert torch.allclose(q.log_prob(z[0]), as_torch(q).log_prob(z[0]))
    assert q.log_prob(z).shape == (7, 5)
    prior = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    assert torch.allclose(normal_log_prob(z.flatten(0, 1)), prior.log_prob(z).flatten())


def test_kl_is_torchs() -> None:
    q = some_q()
    prior = as_torch(DiagonalNormal(torch.zeros_like(q.mean), torch.zeros_like(q.mean)))
    assert torch.allclose(q.kl_to_prior(), kl_divergence(as_torch(q), prior))


def test_log_var_is_the_log_of_the_variance() -> None:
    """Were it log σ, each of these would be another number."""
    q = DiagonalNormal(torch.zeros(1, 1), torch.full((1, 1), log(4.0)))
    assert float(q.log_prob(torch.full((1, 1), 2.0))) == pytest.approx(
        float(Normal(0.0, 2.0).log_prob(torch.tensor(2.0)))
    )
    assert float(q.kl_to_prior()) == pytest.approx((4 - 1 - log(4)) / 2)
    torch.manual_seed(0)
    z = DiagonalNormal(torch.zeros(40_000, 1), torch.full((40_000, 1), log(4.0)))
    assert float(z.sample().std()) == pytest.approx(2, rel=0.02)


def test_samples_have_the_mean_and_variance_of_q() -> None:
    q, n = some_q(2, 3), 40_000
    many = DiagonalNormal(q.mean.repeat(n, 1), q.log_var.repeat(n, 1))
    z = many.sample(seeded(0)).view(n, 2, 3)
    assert z.dtype == torch.float64
    variance = q.log_var.exp()
    assert ((z.mean(0) - q.mean).abs() < 4 * (variance / n).sqrt()).all()
    assert ((z.var(0) / variance - 1).abs() < 4 * (2 / n) ** 0.5).all()
    standard = ((z - q.mean) / variance.sqrt()).flatten(1)
    correlation = standard.T.cov() - torch.eye(6).double()
    assert correlation.abs().max() < 5 * (2 / n) ** 0.5


def test_samples_repeat_with_the_generator() -> None:
    q = some_q()
    assert torch.equal(q.sample(seeded(1)), q.sample(seeded(1)))
    assert not torch.equal(q.sample(seeded(1)), q.sample(seeded(2)))


def test_gradients_reach_mean_and_variance() -> None:
    """∂z/∂μ = 1 for each sample, and E[z²] = μ² + σ²."""
    q, n = some_q(3, 2), 60_000
    mean, log_var = (part.requires_grad_() for part in q)
    (slope,) = torch.autograd.grad(DiagonalNormal(mean, log_var).sample().sum(), mean)
    assert torch.equal(slope, torch.ones(3, 2).double())
    wide = DiagonalNormal(mean.repeat(n, 1), log_var.repeat(n, 1))
    square = wide.sample(seeded(0)).square().sum() / n
    by_mean, by_log_var = torch.autograd.grad(square, [mean, log_var])
    assert torch.allclose(by_mean, 2 * mean, atol=0.06)
    # ∂E[z²]/∂log σ² = σ²; were it log σ, twice as much
    assert torch.allclose(by_log_var, log_var.exp(), rtol=0.05, atol=0.02)


# --- the Gaussian decoder -------------------------------------------------------------


def test_log_likelihood_is_torchs_summed_over_the_pixels() -> None:
    network = nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Unflatten(1, (1, 4, 5)))
    decoder = GaussianDecoder(network, 3, 0.3).double()
    x, z = normal(5, 1, 4, 5), normal(5, 3, seed=1)
    expected = Independent(Normal(decoder(z), decoder.sigma), 3).log_prob(x)
    assert torch.allclose(decoder.log_likelihood(x, z), expected)
    assert decoder.log_likelihood(x, z).shape == (5,)


def test_sigma_goes_with_the_weights_but_is_not_learnt() -> None:
    decoder = GaussianDecoder(nn.Linear(2, 4), 2, 0.3)
    assert "sigma" not in dict(decoder.named_parameters())
    assert decoder.state_dict()["sigma"] == torch.tensor(0.3)
    other = GaussianDecoder(nn.Linear(2, 4), 2, 0.9)
    other.load_state_dict(decoder.state_dict())
    x, z = normal(3, 4).float(), normal(3, 2).float()
    assert torch.equal(other.log_likelihood(x, z), decoder.log_likelihood(x, z))
    assert decoder.double().sigma.dtype == torch.float64


def test_a_whole_sigma_can_take_another_one() -> None:
    """An integer buffer would round 0.3 down to 0."""
    decoder = GaussianDecoder(nn.Linear(2, 4), 2, 1)
    decoder.load_state_dict(GaussianDecoder(nn.Linear(2, 4), 2, 0.3).state_dict())
    assert float(decoder.sigma) == pytest.approx(0.3)


def test_sigma_is_the_same_in_training_and_evaluation(
    decoder: GaussianDecoder, x: Tensor
) -> None:
    z = normal(4, LATENT)
    training = decoder.train().log_likelihood(x, z)
    assert torch.equal(decoder.eval().log_likelihood(x, z), training)


@pytest.mark.parametrize("sigma", [0.0, -0.4, float("nan"), float("inf")])
def test_bad_sigma(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma must be a finite number above 0, got"):
        GaussianDecoder(nn.Linear(2, 4), 2, sigma)


def test_bad_latents() -> None:
    with pytest.raises(ValueError, match="latent must be at least 1, got 0"):
        GaussianDecoder(nn.Linear(2, 4), 0, 0.3)
    decoder = GaussianDecoder(nn.Linear(2, 4), 2, 0.3)
    for shape in [(5, 3), (2,), (5, 1, 2)]:
        for call in (decoder, lambda z: decoder.log_likelihood(torch.zeros(5, 4), z)):
            with pytest.raises(ValueError, match=r"shape \(B, 2\), got \("):
                call(torch.zeros(shape))


def test_images_of_another_shape_than_the_decoders() -> None:
    """(B, 28, 28) would be spread over (B, 1, 28, 28), each image against all."""
    decoder = conv_vae(latent=2, width=1, hidden=4).decoder
    for bad in (torch.zeros(3, 28, 28), torch.zeros(3, 1, 28, 1)):
        with pytest.raises(ValueError, match=r"shape \(B, 1, 28, 28\)"):
            decoder.log_likelihood(bad, torch.zeros(3, 2))


# --- the ELBO, where log p(x) is exact ------------------------------------------------


def test_the_bounds_parts_are_torchs(decoder: GaussianDecoder, x: Tensor) -> None:
    q = some_q(4, LATENT)
    bound = lower_bound(decoder, q, x, seeded(0))
    f = decoder(q.sample(seeded(0)))
    expected = Independent(Normal(f, decoder.sigma), 1).log_prob(x)
    assert torch.allclose(bound.reconstruction, expected)
    assert torch.equal(bound.kl, q.kl_to_prior())
    assert torch.equal(bound.elbo, bound.reconstruction - bound.kl)


@pytest.mark.parametrize("off", [0.0, 0.5, 2.0])
def test_elbo_is_log_p_less_the_distance_to_the_posterior(
    decoder: GaussianDecoder, x: Tensor, off: float
) -> None:
    """KL(q ‖ posterior) = 2·off²/2 for two latents: nothing for the posterior."""
    q, n = shifted(best_diagonal(decoder, x), off), 20_000
    assert torch.allclose(gap(decoder, q, x), torch.full((4,), off**2).double())
    wide = DiagonalNormal(q.mean.repeat(n, 1), q.log_var.repeat(n, 1))
    with torch.no_grad():
        elbo = lower_bound(decoder, wide, x.repeat(n, 1), seeded(0)).elbo.view(n, 4)
    error = elbo.std(0) / n**0.5
    expected = exact_log_prob(decoder, x) - off**2
    assert ((elbo.mean(0) - expected).abs() < 4 * error).all()
    assert error.max() < 0.05


# --- log p(x) by importance sampling --------------------------------------------------


def test_each_weight_from_the_posterior_is_p(
    decoder: GaussianDecoder, x: Tensor
) -> None:
    q = best_diagonal(decoder, x)
    log_w = log_weights(decoder, q, x, 30, seeded(0))
    assert log_w.shape == (30, 4)
    assert torch.allclose(log_w, exact_log_prob(decoder, x).expand(30, 4))
    assert not log_w.requires_grad
    estimate = importance_log_prob(decoder, q, x, 1, seeded(0))
    assert torch.allclose(estimate, exact_log_prob(decoder, x))


def repeated(
    decoder: GaussianDecoder,
    q: DiagonalNormal,
    x: Tensor,
    samples: int,
    times: int,
    seed: int = 0,
) -> Tensor:
    """log p̂ of each image, from ``samples`` fresh z, many times: (times, B)."""
    wide = DiagonalNormal(*(part.repeat(times, 1) for part in q))
    many = x.repeat(times, 1)
    estimate = importance_log_prob(decoder, wide, many, samples, seeded(seed))
    return estimate.view(times, len(x))


@pytest.mark.parametrize("samples", [1, 7])
@pytest.mark.parametrize("prior", [False, True])
def test_the_estimate_of_p_is_unbiased(
    decoder: GaussianDecoder, x: Tensor, samples: int, prior: bool
) -> None:
    q, times = shifted(best_diagonal(decoder, x), 0.6), 4000
    q = q._replace(log_var=q.log_var + log(1.3))
    if prior:
        q = DiagonalNormal(*(part.double() for part in prior_as_posterior(decoder, 4)))
    ratio = (repeated(decoder, q, x, samples, times) - exact_log_prob(decoder, x)).exp()
    error = ratio.std(0) / times**0.5
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all()
    assert error.max() < 0.12


def test_the_log_of_the_estimate_rises_to_log_p(
    decoder: GaussianDecoder, x: Tensor
) -> None:
    q, times = shifted(best_diagonal(decoder, x)), 500
    wide = DiagonalNormal(*(part.repeat(times, 1) for part in q))
    log_w = log_weights(decoder, wide, x.repeat(times, 1), 1000, seeded(0))
    curve = iwae_curve(log_w, COUNTS).view(4, times, 4)
    bias = curve.mean(1) - exact_log_prob(decoder, x)
    error = curve.std(1) / times**0.5
    # K = 1: the ELBO, here a whole nat below
    assert ((bias[0] + 1).abs() < 4 * error[0]).all()
    assert (bias.diff(dim=0) > 0).all()
    # (e² − 1)/2K, from the weights' variance
    assert torch.allclose(bias[2], torch.full((4,), -0.032).double(), atol=0.015)
    assert torch.allclose(bias[3], torch.full((4,), -0.0032).double(), atol=0.01)


def test_plain_monte_carlo_is_farther_below() -> None:
    """A sharp decoder: few z of the prior look like x."""
    decoder = linear_decoder(orthogonal(2.0, 1.5), 0.2)
    with torch.no_grad():
        x = decoder(normal(4, LATENT, seed=4)) + 0.2 * normal(4, PIXELS, seed=5)
    prior = DiagonalNormal(*(part.double() for part in prior_as_posterior(decoder, 4)))
    assert torch.equal(prior.mean, torch.zeros(4, LATENT).double())
    assert torch.equal(prior.log_var, torch.zeros(4, LATENT).double())
    truth, q = exact_log_prob(decoder, x), shifted(best_diagonal(decoder, x))
    for samples in (1, 20):
        plain = repeated(decoder, prior, x, samples, 500).mean(0) - truth
        ours = repeated(decoder, q, x, samples, 500).mean(0) - truth
        assert (plain < ours - 0.3).all()
    assert (repeated(decoder, prior, x, 20_000, 3).mean(0) - truth).abs().max() < 0.5


@pytest.mark.parametrize("chunk", [1, 3, 4, 10, 11, 1000])
def test_chunks_change_nothing(
    decoder: GaussianDecoder,
    x: Tensor,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    decoder.register_forward_hook(lambda *a: sizes.append(len(a[1][0])))
    monkeypatch.setattr(likelihood, "CHUNK", chunk)
    log_w = log_weights(decoder, best_diagonal(decoder, x), x, 13, seeded(0))
    # from the posterior, no weight hangs on its z
    assert torch.allclose(log_w, exact_log_prob(decoder, x).expand(13, 4))
    assert sum(sizes) == 13 * 4
    assert max(sizes) <= max(chunk, 4)
    assert chunk >= 11 * 4 or len(sizes) > 1
    other = log_weights(decoder, shifted(best_diagonal(decoder, x)), x, 999, seeded(1))
    ratio = (other - exact_log_prob(decoder, x)).exp()
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / 999**0.5).all()
    assert len(other.unique()) == other.numel()  # each chunk draws anew


def test_iwae_curve_is_the_mean_over_groups() -> None:
    log_w = normal(7, 3) - 800  # w itself underflows
    curve = iwae_curve(log_w, [1, 2, 3, 7])
    for k, found in zip([1, 2, 3, 7], curve, strict=True):
        groups = [(log_w[i : i + k] + 800).exp() for i in range(0, 7 - k + 1, k)]
        assert len(groups) == 7 // k
        expected = torch.stack([group.mean(0).log() for group in groups]).mean(0) - 800
        assert torch.allclose(found, expected)
    assert torch.allclose(curve[0], log_w.mean(0))
    assert torch.allclose(curve[-1], log_mean_weight(log_w))


def test_iwae_curve_agrees_with_fresh_samples(
    decoder: GaussianDecoder, x: Tensor
) -> None:
    q, counts = shifted(best_diagonal(decoder, x)), [1, 5, 30]
    curve = iwae_curve(log_weights(decoder, q, x, 30_000, seeded(0)), counts)
    assert (curve.diff(dim=0) > 0).all()
    for k, found in zip(counts, curve, strict=True):
        times = 30_000 // k
        fresh = repeated(decoder, q, x, k, times, seed=1)
        error = fresh.std(0) / times**0.5
        assert ((found - fresh.mean(0)).abs() < 4 * 2**0.5 * error).all()


def test_effective_samples() -> None:
    w = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1e-9, 2.0], [1.0, 1e-9, 3.0]]).double()
    expected = torch.tensor([3, 1, 36 / 14]).double()
    for offset in (0, -5000, 5000):
        assert torch.allclose(effective_samples(w.log() + offset), expected)


def test_bad_samples(decoder: GaussianDecoder, x: Tensor) -> None:
    q = best_diagonal(decoder, x)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        log_weights(decoder, q, x, 0)
    with pytest.raises(ValueError, match="one posterior an image, got 4 for 3 images"):
        importance_log_prob(decoder, q, x[:3])
    with pytest.raises(ValueError, match="one posterior an image, got 1 for 4 images"):
        importance_log_prob(decoder, DiagonalNormal(*(p[:1] for p in q)), x)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        prior_as_posterior(decoder, 0)
    for k in (0, 8):
        with pytest.raises(ValueError, match=f"counts must lie in 1 … 7, got {k}"):
            iwae_curve(normal(7, 2), [1, k])


# --- a posterior stored for each image ------------------------------------------------

N = 7  # images; batches of 4 and 3


def flat_decoder() -> GaussianDecoder:
    """A linear decoder of images, frozen: 28 × 28 pixels around 0.5."""
    layer = nn.Linear(2, 784)
    layer.weight.data = orthogonal(2.0, 1.2, pixels=784).float()
    layer.bias.data.fill_(0.5)
    network = nn.Sequential(layer, nn.Unflatten(1, (1, 28, 28)))
    return GaussianDecoder(network, 2, 0.4).requires_grad_(False)


def digits() -> tuple[Images, DiagonalNormal]:
    """Images of that decoder far from each other, and their exact posteriors."""
    decoder = flat_decoder()
    angle = torch.arange(N) * 2 * torch.pi / N
    z = 2.5 * torch.stack([angle.cos(), angle.sin()], dim=1)
    noise = 0.03 * torch.randn(N, 1, 28, 28, generator=seeded(0))
    image = (decoder(z) + noise).clamp(0, 1)
    layer = next(decoder.network.children())
    assert isinstance(layer, nn.Linear)
    flat = linear_decoder(layer.weight.double(), 0.4, layer.bias.double())
    exact = best_diagonal(flat, image.flatten(1).double())
    return Images(image, torch.arange(N)), exact


def test_each_row_becomes_its_own_images_posterior() -> None:
    """Through shuffles and a short last batch."""
    torch.manual_seed(0)
    images, exact = digits()
    model = LatentVAE(LatentTable(torch.zeros(N, 2), -2.5), flat_decoder())
    train(
        model,
        latent_turns(model, latent_lr=0.05),
        images.batches(4, seeded(1)),
        400 * images.steps(4),
    )
    found = model.table(torch.arange(N))
    deviation = (exact.log_var / 2).exp()
    assert ((found.mean - exact.mean).abs() < 0.3 * deviation).all()
    assert torch.allclose(found.log_var.double(), exact.log_var, atol=0.3)
    # where the posteriors of any two images are six deviations apart
    apart = torch.cdist(exact.mean, exact.mean).fill_diagonal_(9)
    assert (apart > 6 * deviation.max()).all()
    for weight, frozen in zip(
        model.decoder.parameters(), flat_decoder().parameters(), strict=True
    ):
        assert torch.equal(weight, frozen)
    order = torch.tensor([5, 0, 5])
    assert torch.equal(model.table(order).mean, found.mean[order])
    assert torch.equal(model.table(order).log_var, found.log_var[order])


def rows_of(model: LatentVAE) -> list[Tensor]:
    return [row.detach().clone() for row in model.table.parameters()]


@pytest.mark.parametrize("latent_steps", [1, 3])
def test_a_step_moves_only_the_rows_of_its_batch(latent_steps: int) -> None:
    """Adam with dense gradients would go on moving the rows of the batch before."""
    torch.manual_seed(0)
    images, _ = digits()
    model = LatentVAE(LatentTable(normal(N, 2).float(), 0.0), flat_decoder())
    before = rows_of(model)

    def watched() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        last = torch.tensor([], dtype=torch.int64)
        for batch in ([0, 3, 6], [5, 3], [4], [0]):
            now, rest = rows_of(model), torch.ones(N, dtype=torch.bool)
            rest[last] = False
            for row, old in zip(now, before, strict=True):
                assert torch.equal(row[rest], old[rest])
                assert (row[last] != old[last]).all()
            before[:], last = now, torch.tensor(batch)
            yield images.image[last], images.label[last], last

    turns = latent_turns(model, latent_lr=0.1, latent_steps=latent_steps)
    train(model, turns, watched(), 4)


def test_rows_take_more_steps_than_the_decoder() -> None:
    torch.manual_seed(0)
    images, _ = digits()
    decoder = flat_decoder().requires_grad_(True)
    model = LatentVAE(LatentTable(torch.zeros(N, 2), 0.0), decoder)
    alone, both = latent_turns(model, lr=1e-3, latent_lr=0.05, latent_steps=3)
    (rows,), (for_decoder, same_rows) = alone.optimizers, both.optimizers
    assert rows is same_rows
    assert for_decoder.param_groups[0]["lr"] == 1e-3
    assert rows.param_groups[0]["lr"] == 0.05
    history = train(model, [alone, both], images.batches(4), 5)
    for optimizer, steps in ((for_decoder, 5), (rows, 15)):
        assert {int(state["step"]) for state in optimizer.state.values()} == {steps}
        assert len(optimizer.state) == 2
    assert {name: len(v) for name, v in history.losses.items()} == {
        "rows alone": 5,
        "rows and decoder": 5,
    }


def test_the_rows_own_steps_leave_the_decoder_alone() -> None:
    images, _ = digits()
    decoder = flat_decoder().requires_grad_(True)
    model = LatentVAE(LatentTable(torch.zeros(N, 2), -8.0), decoder)
    weights = [weight.detach().clone() for weight in decoder.parameters()]
    index, before = torch.tensor([1, 6]), rows_of(model)
    batch = images.image[index], images.label[index], index
    first = negative_row_elbo(model, batch)

    def last(model: LatentVAE, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The loss of the turn after the rows' own, which are over."""
        loss = negative_row_elbo(model, batch)
        assert (loss < first).all()
        assert not torch.equal(rows_of(model)[0], before[0])
        for weight, old in zip(decoder.parameters(), weights, strict=True):
            assert torch.equal(weight, old)
            assert weight.grad is None
        return loss

    alone, both = latent_turns(model, latent_lr=0.1, latent_steps=4)
    history = train(model, [alone, replace(both, loss=last)], [batch], 1, warmup=1)
    assert history.losses["rows and decoder"][0] < history.losses["rows alone"][0]
    assert not torch.equal(decoder.network[0].weight, weights[0])  # type: ignore[index]


def test_the_loss_of_a_latent_vae_is_the_negative_elbo() -> None:
    images, _ = digits()
    model = LatentVAE(LatentTable(normal(N, 2).float(), -1.0), flat_decoder())
    index = torch.tensor([4, 2])
    bound = model(images.image[index], index, seeded(0))
    expected = lower_bound(
        model.decoder, model.table(index), images.image[index], seeded(0)
    )
    assert isinstance(bound, ElboParts)
    assert torch.equal(bound.elbo, expected.elbo)
    torch.manual_seed(0)
    loss = negative_row_elbo(model, (images.image[index], images.label[index], index))
    torch.manual_seed(0)
    assert torch.equal(loss, -model(images.image[index], index).elbo)


def test_a_table_copies_its_start() -> None:
    mean, log_var = torch.zeros(4, 2), torch.full((4, 2), -1.0)
    table = LatentTable(mean, log_var)
    with torch.no_grad():
        for row in table.parameters():
            row.add_(5)
    assert torch.equal(mean, torch.zeros(4, 2))
    assert torch.equal(log_var, torch.full((4, 2), -1.0))
    number = LatentTable(mean, -3.0)(torch.tensor([2]))
    assert torch.equal(number.log_var, torch.full((1, 2), -3.0))
    assert set(table.state_dict()) == {"mean.weight", "log_var.weight"}


def test_bad_tables() -> None:
    both = r"must both have shape \(N, D\), got"
    with pytest.raises(ValueError, match=rf"{both} \(4, 2\) and \(4, 3\)"):
        LatentTable(torch.zeros(4, 2), torch.zeros(4, 3))
    with pytest.raises(ValueError, match=rf"{both} \(4,\) and \(4,\)"):
        LatentTable(torch.zeros(4), torch.zeros(4))
    with pytest.raises(ValueError, match=rf"{both} \(4, 2\) and \(2,\)"):
        LatentTable(torch.zeros(4, 2), torch.zeros(2))
    table = LatentTable(torch.zeros(4, 2), 0.0)
    for index in ([0, 4], [-1, 4], [4]):
        message = f"numbered 0 … 3, got {min(index)} … {max(index)}"
        with pytest.raises(IndexError, match=message):
            table(torch.tensor(index))
    with pytest.raises(IndexError, match=r"0 … 3, got -1 … 2"):
        table(torch.tensor([2, -1]))


def test_bad_rates_and_steps_of_rows() -> None:
    model = LatentVAE(LatentTable(torch.zeros(N, 2), 0.0), flat_decoder())
    with pytest.raises(ValueError, match="latent_steps must be at least 1, got 0"):
        latent_turns(model, latent_steps=0)
    with pytest.raises(ValueError, match=r"^lr must be a finite number above 0"):
        latent_turns(model, lr=0.0)
    with pytest.raises(ValueError, match="latent_lr must be a finite number above 0"):
        latent_turns(model, latent_lr=float("nan"))


def test_whitened_components_are_those_of_the_svd() -> None:
    x = (normal(60, 20) * torch.arange(1, 21)).view(60, 1, 4, 5) + 3
    scores = whitened_components(x, 4)
    assert scores.shape == (60, 4)
    assert torch.allclose(scores.mean(0), torch.zeros(4).double(), atol=1e-9)
    covariance = scores.T.cov(correction=0)
    assert torch.allclose(covariance, torch.eye(4).double(), atol=1e-9)
    flat = x.flatten(1)
    left, size, _ = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    assert (size.diff() < -1).all()  # the order is certain
    overlap = left[:, :4].T @ scores / 60**0.5
    assert torch.allclose(overlap.abs(), torch.eye(4).double(), atol=1e-9)
    assert whitened_components(x, 20).shape == (60, 20)


def test_bad_components() -> None:
    for latent in (0, 21):
        with pytest.raises(ValueError, match=f"must lie in 1 … 20, got {latent}"):
            whitened_components(normal(60, 1, 4, 5), latent)
    with pytest.raises(ValueError, match="must lie in 1 … 3, got 4"):
        whitened_components(normal(3, 1, 4, 5), 4)


# --- the best posterior of a decoder that stays ---------------------------------------


def oblique() -> GaussianDecoder:
    """Columns that are not orthogonal: no diagonal q is the posterior."""
    return linear_decoder(normal(PIXELS, LATENT, seed=7), SIGMA)


def test_train_posterior_finds_the_best_diagonal_q(x: Tensor) -> None:
    """The noise of one z a step is averaged out over fifty fits of each image."""
    decoder, x = oblique(), x.repeat(50, 1)
    for weight in decoder.parameters():
        weight.grad = torch.full_like(weight, 7.0)
    weights = [weight.detach().clone() for weight in decoder.parameters()]
    zeros = torch.zeros(200, LATENT).double()
    start, best = DiagonalNormal(zeros.clone(), zeros - 1), best_diagonal(decoder, x)
    found, history = train_posterior(decoder, x, start, steps=400, generator=seeded(0))
    for mine, exact in zip(found, best, strict=True):
        assert torch.allclose(mine.view(50, 4, 2).mean(0), exact[:4], atol=0.05)
        assert torch.allclose(mine, exact, atol=1.0)
    left = gap(decoder, found, x)
    assert (left < gap(decoder, start, x) - 1).all()
    assert float(left.mean()) == pytest.approx(
        float(gap(decoder, best, x).mean()), abs=0.05
    )
    assert (gap(decoder, best, x) > 0.1).all()
    # the decoder is as it was, to the last bit
    for weight, old in zip(decoder.parameters(), weights, strict=True):
        assert torch.equal(weight, old)
        assert weight.grad is not None
        assert (weight.grad == 7).all()
    assert not found.mean.requires_grad
    assert torch.equal(start.mean, zeros)
    # the history is that of −ELBO, step by step
    first = -lower_bound(decoder, start, x, seeded(0)).elbo.mean().detach()
    assert len(history.loss) == 400
    assert history.loss[0] == pytest.approx(float(first))
    assert history.loss[-1] < history.loss[0] - 1


def test_train_posterior_repeats_and_fits_each_image_alone(x: Tensor) -> None:
    decoder, start = oblique(), some_q(4, LATENT)
    first, again = (
        train_posterior(decoder, x, start, steps=5, generator=seeded(0))[0]
        for _ in range(2)
    )
    assert torch.equal(first.mean, again.mean)
    assert torch.equal(first.log_var, again.log_var)
    # a wild image beside it changes no row but its own
    wild = x.clone()
    wild[3] += 100
    other, _ = train_posterior(decoder, wild, start, steps=5, generator=seeded(0))
    assert torch.equal(other.mean[:3], first.mean[:3])
    assert not torch.equal(other.mean[3], first.mean[3])


def test_bad_fits(x: Tensor) -> None:
    decoder, start = oblique(), some_q(4, LATENT)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        train_posterior(decoder, x, start, steps=0)
    with pytest.raises(ValueError, match="lr must be a finite number above 0"):
        train_posterior(decoder, x, start, lr=0.0)
    with pytest.raises(ValueError, match=r"shape \(B, 2\), got \(4, 3\)"):
        train_posterior(decoder, x, some_q(4, 3))
    for rows in (1, 3):
        few = DiagonalNormal(*(part[:rows] for part in start))
        message = f"one posterior an image, got {rows} for 4 images"
        with pytest.raises(ValueError, match=message):
            train_posterior(decoder, x, few)


# --- the σ of a loss ------------------------------------------------------------------

# pixel weight, KL weight, σ: means over 784 pixels and 200 latents
LOSSES = {
    "mean over pixels, sum over latents": (1 / 784, 1.0, 19.80),
    "means over both": (1 / 784, 1 / 200, 1.400),
    "means over both, the ½ forgotten": (1 / 784, 2 / 200, 1.980),
    "sums": (1.0, 1.0, 0.5**0.5),
}


@pytest.mark.parametrize("name", LOSSES)
def test_implied_sigma(name: str) -> None:
    pixel_weight, kl_weight, sigma = LOSSES[name]
    found = implied_sigma(pixel_weight, kl_weight)
    assert found == pytest.approx(sigma, rel=5e-4)
    assert 1 / (2 * found**2) == pytest.approx(pixel_weight / kl_weight)


def as_written(
    name: str, x: Tensor, f: Tensor, mean: Tensor, log_var: Tensor
) -> Tensor:
    """The losses, as one finds them, of a single image."""
    square = mse_loss(f, x, reduction="sum" if name == "sums" else "mean")
    each = mean**2 + log_var.exp() - 1 - log_var
    if "forgotten" in name:
        return square + each.mean()
    return square + (each / 2).mean() if "both" in name else square + (each / 2).sum()


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_pulls_where_the_elbo_of_its_sigma_pulls(name: str) -> None:
    pixel_weight, kl_weight, _ = LOSSES[name]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(200, 16), nn.Tanh(), nn.Linear(16, 784))
    decoder = GaussianDecoder(network, 200, implied_sigma(pixel_weight, kl_weight))
    decoder, x = decoder.double(), normal(1, 784)
    q = DiagonalNormal(*(part.requires_grad_() for part in some_q(1, 200)))
    wrt = [*q, *decoder.parameters()]
    f = decoder(q.sample(seeded(0)))
    loss = torch.autograd.grad(as_written(name, x, f, *q), wrt)
    bound = lower_bound(decoder, q, x, seeded(0))
    elbo = torch.autograd.grad(-bound.elbo.sum(), wrt)
    for a, b in zip(loss, elbo, strict=True):
        assert torch.allclose(a, kl_weight * b, rtol=1e-5, atol=1e-9)
        assert a.abs().max() > 1e-6


def test_bad_weights() -> None:
    with pytest.raises(ValueError, match="pixel_weight must be a finite number above"):
        implied_sigma(0.0, 1.0)
    with pytest.raises(ValueError, match="kl_weight must be a finite number above 0"):
        implied_sigma(1.0, -1.0)


# --- the convolutional VAE ------------------------------------------------------------


def small_vae(seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    return conv_vae(latent=3, sigma=0.4, width=2, hidden=16)


def test_shapes_of_the_convolutional_vae() -> None:
    vae, x = small_vae(), blobs(5).image
    q = vae.posterior(x)
    assert q.mean.shape == q.log_var.shape == (5, 3)
    both = vae.encoder(x)
    assert torch.equal(q.mean, both[:, :3])
    assert torch.equal(q.log_var, both[:, 3:])
    assert vae.decoder(q.mean).shape == (5, 1, 28, 28)
    assert vae(x).elbo.shape == (5,)
    assert vae.sample(7).shape == (7, 1, 28, 28)
    assert isinstance(vae.decoder, GaussianDecoder)
    assert float(vae.decoder.sigma) == pytest.approx(0.4)
    default = conv_vae()
    assert isinstance(default.decoder, GaussianDecoder)
    assert default.decoder.latent == 200
    assert default.posterior(x).mean.shape == (5, 200)
    assert float(default.decoder.sigma) == pytest.approx(0.4)


def test_reconstructions_and_samples_are_means() -> None:
    vae, x = small_vae(), blobs(5).image
    found = vae.reconstruct(x)
    assert torch.equal(found, vae.decoder(vae.posterior(x).mean))
    assert not found.requires_grad
    z = torch.randn(6, 3, generator=seeded(1))
    assert torch.equal(vae.sample(6, seeded(1)), vae.decoder(z))
    assert not vae.sample(6).requires_grad
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        vae.sample(0)


def test_the_loss_is_one_number_an_image() -> None:
    vae, images = small_vae(), blobs(5)
    torch.manual_seed(1)
    loss = negative_elbo(vae, (images.image, images.label))
    torch.manual_seed(1)
    q = vae.posterior(images.image)
    z = q.sample()
    likelihood = Normal(vae.decoder(z), 0.4).log_prob(images.image).sum((1, 2, 3))
    expected = -(likelihood - q.kl_to_prior())
    assert torch.allclose(loss, expected, rtol=1e-5)
    assert loss.shape == (5,)
    a, b = (vae(images.image, seeded(s)).elbo for s in (0, 0))
    assert torch.equal(a, b)


BAD: dict[str, tuple[Tensor, type[Exception], str]] = {
    "no channel": (torch.zeros(5, 28, 28), ValueError, r"got \(5, 28, 28\)"),
    "other size": (torch.zeros(5, 1, 32, 32), ValueError, r"got \(5, 1, 32, 32\)"),
    "colours": (torch.zeros(5, 3, 28, 28), ValueError, r"got \(5, 3, 28, 28\)"),
    "empty": (torch.zeros(0, 1, 28, 28), ValueError, r"one row, .* \(0, 1, 28, 28\)"),
    "NaN": (torch.full((2, 1, 28, 28), float("nan")), ValueError, "must be finite"),
    "bytes": (torch.zeros(5, 1, 28, 28).byte(), TypeError, "got torch.uint8"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_images(case: str) -> None:
    vae, (x, error, message) = small_vae(), BAD[case]
    calls: list[Callable[[Tensor], object]] = [vae, vae.posterior, vae.reconstruct]
    for call in calls:
        with pytest.raises(error, match=message):
            call(x)


def tiny() -> ImageSplits:
    """Its held-out images are fainter than its training images."""
    data = splits()
    held_out = data.validation
    return replace(data, validation=Images(held_out.image / 2, held_out.label))


def test_training_lowers_the_loss_and_keeps_what_was_asked() -> None:
    data, vae = tiny(), small_vae()
    history = train_vae(vae, data, epochs=8, batch=16, lr=1e-2, keep={0, 3, 8})
    assert len(history.loss) == 8 * 5
    assert history.step == [0, 5, 10, 15, 20, 25, 30, 35, 40]
    curves = history.measured
    assert set(curves) == {"validation", "training", "reconstruction", "KL"}
    assert {len(values) for values in curves.values()} == {9}
    for name in ("validation", "training"):
        assert curves[name][-1] < curves[name][0] - 20
    # the parts of the held-out bound, of the same samples
    for parts in zip(
        *(curves[n] for n in ("validation", "reconstruction", "KL")), strict=True
    ):
        assert parts[0] == pytest.approx(parts[1] + parts[2], rel=1e-5)
    assert all(kl > 0 for kl in curves["KL"])
    assert set(history.snapshots) == {0, 3, 8}
    now = vae.state_dict()
    for name, value in history.snapshots[8].items():
        assert torch.equal(value, now[name])
    for name, value in small_vae().state_dict().items():
        assert torch.equal(value, history.snapshots[0][name])
    # the two curves are measured on the sets whose names they bear
    torch.manual_seed(0)
    with torch.no_grad():  # of many z
        held_out, seen = (
            -torch.stack([vae(part.image).elbo.mean() for _ in range(50)])
            for part in (data.validation, data.train)
        )
    for name, found in (("validation", held_out), ("training", seen)):
        error = abs(curves[name][-1] - float(found.mean()))
        assert error < 4 * float(found.std())
        assert found.std() < 0.02 * found.mean()
    assert held_out.mean() < 0.9 * seen.mean()


def test_training_repeats_with_the_seed() -> None:
    runs = []
    for seed in (0, 0, 1):
        vae = small_vae(seed)
        history = train_vae(vae, tiny(), epochs=2, batch=32, watched=10)
        runs.append((history.loss, history.measured["validation"], vae.sample(2)))
    assert runs[0][:2] == runs[1][:2]
    assert torch.equal(runs[0][2], runs[1][2])
    assert runs[0][0] != runs[2][0]


def test_how_many_images_are_measured_changes_nothing() -> None:
    runs = []
    for watched in (16, 32, 32):
        vae = small_vae()
        history = train_vae(vae, tiny(), epochs=2, batch=32, watched=watched)
        runs.append((history, vae.state_dict()))
    (few, first), (many, second), (again, _) = runs
    assert few.loss == many.loss
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert few.measured["training"] != many.measured["training"]
    assert many.measured == again.measured


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 12, 20)])
def test_colours_and_other_sides(shape: Shape) -> None:
    torch.manual_seed(0)
    data = splits(shape)
    vae, x = conv_vae(3, 0.4, 2, 16, shape), data.test.image[:5]
    assert vae.posterior(x).mean.shape == (5, 3)
    assert vae(x).elbo.shape == (5,)
    assert vae.reconstruct(x).shape == x.shape
    assert vae.sample(7).shape == (7, *shape)
    loss = train_vae(vae, data, epochs=12, batch=16, lr=1e-2).measured["validation"]
    assert loss[-1] < 0.8 * loss[0]
    with pytest.raises(ValueError, match=rf"\(B, {', '.join(map(str, shape))}\), got"):
        vae.posterior(torch.zeros(2, 1, 28, 28))


@pytest.mark.parametrize("shape", [(3, 18, 16), (3, 16, 30), (16, 16), (1, 3, 16, 16)])
def test_sides_are_divided_by_four(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape \(C, H, W\) whose sides .* by 4, got"):
        conv_vae(3, shape=shape)


def test_importance_sampling_of_a_convolutional_vae_is_above_its_elbo() -> None:
    vae, x = small_vae(), blobs(6).image
    with torch.no_grad():
        q = vae.posterior(x)
        elbo = torch.stack([vae(x, seeded(s)).elbo for s in range(50)]).mean(0)
    found = importance_log_prob(vae.decoder, q, x, 300, seeded(0))
    assert (found > elbo).all()
    assert exp(float((found - elbo).max())) < 1e4
