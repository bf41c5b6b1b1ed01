"""Where the rows of latent optimization begin, how they learn, where they end up."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from pictures import blobs, splits
from torch.distributions import MultivariateNormal, kl_divergence

from course_utils.artifacts import trained
from course_utils.data.images import ImageSplits
from course_utils.distributions import DiagonalNormal
from course_utils.models.vae import (
    Aggregate,
    LinearVAE,
    first_posteriors,
    latent_vae,
    lower_bound,
    train_latents,
    train_posterior,
    whitened_components,
)
from course_utils.models.vae.latents import Start
from course_utils.notebook import seeded

# --- the aggregate --------------------------------------------------------------------


def some_q(images: int = 40, latent: int = 3) -> DiagonalNormal:
    normal = partial(torch.randn, dtype=torch.float64, generator=seeded(0))
    return DiagonalNormal(2 * normal(images, latent) + 1, normal(images, latent) - 1)


def test_aggregate_has_the_moments_of_the_mixture() -> None:
    q, aggregate = some_q(), Aggregate.of(some_q())
    many = DiagonalNormal(*(part.repeat(10_000, 1) for part in q))
    z = many.sample(seeded(1))
    assert torch.allclose(aggregate.mean, z.mean(0), atol=0.02)
    assert torch.allclose(aggregate.covariance, z.T.cov(), atol=0.05)
    again = aggregate.sample(400_000, seeded(2))
    assert again.dtype == torch.float32
    assert torch.allclose(aggregate.mean.float(), again.mean(0), atol=0.02)
    assert torch.allclose(aggregate.covariance.float(), again.T.cov(), atol=0.05)


def test_aggregates_kl_is_that_of_the_normal() -> None:
    aggregate = Aggregate.of(some_q())
    normal = MultivariateNormal(*aggregate)
    prior = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    expected = float(kl_divergence(normal, prior))
    assert aggregate.kl_to_prior() == pytest.approx(expected)


def test_aggregate_of_equal_posteriors_is_that_posterior() -> None:
    one = DiagonalNormal(*(part[:1].repeat(5, 1) for part in some_q()))
    expected = float(one.kl_to_prior()[0])
    assert Aggregate.of(one).kl_to_prior() == pytest.approx(expected)
    apart = some_q()
    assert Aggregate.of(apart).kl_to_prior() < float(apart.kl_to_prior().mean())


# --- the start ------------------------------------------------------------------------


def test_starts_at_random_and_at_the_prior() -> None:
    torch.manual_seed(0)
    x = blobs(400).image
    random = first_posteriors(x, "random", latent=50)
    assert random.mean.shape == random.log_var.shape == (400, 50)
    assert abs(float(random.mean.mean())) < 0.02
    assert float(random.mean.std()) == pytest.approx(1, abs=0.02)
    assert (random.log_var == 0).all()
    prior = first_posteriors(x, "prior", latent=50)
    assert (prior.kl_to_prior() == 0).all()


def test_start_at_whitened_components() -> None:
    x = blobs(60).image
    mean, log_var = first_posteriors(x, "whitened", latent=7)
    assert torch.equal(mean, whitened_components(x, 7))
    assert (log_var == -1).all()


def test_linear_start_is_the_best_q_of_the_linear_decoder() -> None:
    """And its aggregate has the prior's moments."""
    x = blobs(60).image
    q = first_posteriors(x, "linear", latent=7, sigma=0.3)
    decoder = LinearVAE(x, 7, 0.3).decoder
    fitted, _ = train_posterior(decoder, x, q, steps=200, lr=0.01, generator=seeded(0))
    with torch.no_grad():
        mine, best = (
            torch.stack(
                [lower_bound(decoder, each, x, seeded(s)).elbo for s in range(20)]
            )
            for each in (q, fitted)
        )
    assert mine.mean() > best.mean() - 0.02
    assert Aggregate.of(q).kl_to_prior() < 1e-6
    assert not q.mean.requires_grad


def test_linear_start_leaves_faint_components_at_the_prior() -> None:
    mean, log_var = first_posteriors(blobs(60).image, "linear", latent=40, sigma=3.0)
    assert (mean[:, 20:].abs() < 1e-6).all()
    assert (log_var[:, 20:] == 0).all()


def test_bad_starts() -> None:
    x = blobs(10).image
    message = "one of 'random', 'prior', 'whitened', 'linear', got 'pca'"
    with pytest.raises(ValueError, match=message):
        first_posteriors(x, "pca", 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="latent must lie in 1 … 10, got 11"):
        first_posteriors(x, "linear", 11)
    with pytest.raises(ValueError, match="latent must be at least 1, got 0"):
        first_posteriors(x, "prior", 0)


# --- training -------------------------------------------------------------------------


def test_training_lowers_the_loss_and_says_its_parts() -> None:
    torch.manual_seed(0)
    data = splits()
    model = latent_vae(data, "linear", latent=4)
    before = model.table.posteriors()
    start = before.mean.clone()
    history = train_latents(
        model, data, epochs=6, batch=16, lr=1e-2, watched=50, keep={2}
    )
    assert len(history.loss) == 6 * 5
    assert history.step == [0, 5, 10, 15, 20, 25, 30]
    loss, reconstruction, kl = (
        torch.tensor(history.measured[name])
        for name in ("training", "reconstruction", "KL")
    )
    assert torch.allclose(loss, reconstruction + kl, atol=1e-3)
    assert loss[-1] < loss[0] - 20
    first_50 = DiagonalNormal(*(part[:50] for part in model.table.posteriors()))
    assert float(kl[-1]) == pytest.approx(float(first_50.kl_to_prior().mean()))
    assert list(history.snapshots) == [2]
    moved = (model.table.posteriors().mean - start).abs()
    assert (moved > 0).all()
    # 6 updates a row, at a falling rate of at most 0.03
    assert moved.max() < 6 * 0.03


@pytest.mark.parametrize("latent_steps", [1, 2])
def test_how_many_images_are_measured_changes_nothing(latent_steps: int) -> None:
    data, runs = splits(), []
    for watched in (16, 32, 32):
        torch.manual_seed(0)
        model = latent_vae(data, "random", latent=3)
        history = train_latents(
            model, data, epochs=2, batch=32, latent_steps=latent_steps, watched=watched
        )
        runs.append((history, model.state_dict()))
    (few, first), (many, second), (again, _) = runs
    assert few.losses == many.losses
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert few.measured["training"] != many.measured["training"]
    assert many.measured == again.measured


@pytest.mark.parametrize("start", ["random", "prior", "whitened", "linear"])
def test_colours_and_other_sides(start: Start) -> None:
    torch.manual_seed(0)
    data = splits((3, 12, 20))
    model = latent_vae(data, start, latent=4)
    x, index = data.train.image[:5], torch.arange(5)
    assert model(x, index).elbo.shape == (5,)
    assert model.decoder(model.table(index).mean).shape == x.shape
    assert model.table.posteriors().mean.shape == (70, 4)
    loss = train_latents(model, data, epochs=4, batch=16, lr=1e-2).measured["training"]
    assert loss[-1] < 0.9 * loss[0]


def test_table_must_fit_the_images() -> None:
    data = splits()
    model = latent_vae(data, "prior", latent=2)
    larger = ImageSplits(
        blobs(71), data.validation, data.test, "larger", complete=False
    )
    with pytest.raises(ValueError, match="a row for each of 71 images, got 70 rows"):
        train_latents(model, larger)


def test_latent_vae_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is drawn from the data: their fingerprint is in the key."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    data = splits()
    build = partial(latent_vae, data, start="random", latent=2)
    made, history = trained("rows", build, train_latents, data=data, epochs=1)
    kept, again = trained("rows", build, train_latents, data=data, epochs=1)
    assert history == again
    for one, other in zip(made.parameters(), kept.parameters(), strict=True):
        assert torch.equal(one, other)
    assert len(list(tmp_path.rglob("rows-*.safetensors"))) == 1
