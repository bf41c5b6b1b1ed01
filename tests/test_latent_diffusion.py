"""Text to image in a latent space: its parts, alone and together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from math import pi, sqrt
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from scipy.integrate import quad
from torch import Tensor, nn

from course_utils.data.captions import (
    LANGUAGES,
    Captions,
    Vocabulary,
    describe,
    phrases,
)
from course_utils.data.colours import COLOURS, ColouredImages, tint, tints_but
from course_utils.data.images import Images, ImageSplits
from course_utils.keys import facts
from course_utils.metrics import path_ratio
from course_utils.models.classifier import Classifier
from course_utils.models.flow_matching.model import FlowMatching, FlowMatchingLoss
from course_utils.models.flow_matching.velocity import Velocity, mlp_velocity
from course_utils.models.judge import Judge
from course_utils.models.latent_diffusion import (
    CaptionedLatents,
    LatentSpace,
    Pairs,
    Seen,
    TextToImage,
    caption_flow,
    gaussian_floor,
    pairs_but,
    pairs_of,
    see,
    straight_loss,
    teacher_pairs,
    train_caption_flow,
    train_straight,
)
from course_utils.models.vae import GaussianDecoder
from course_utils.models.vae.model import VAE, conv_vae
from course_utils.networks.conditioning import Condition, Words
from course_utils.notebook import seeded
from course_utils.solvers import RK4, Heun

SHAPE, D = (3, 4, 4), 5
P = torch.Size(SHAPE).numel()
CAPTIONS = Captions()
RULE = tuple((digit + 5) % 10 for digit in range(10))

# --- parts whose truth is known -------------------------------------------------------


def linear_vae(log_var: float = -4.0, dtype: torch.dtype = torch.float32) -> VAE:
    """x = ½ + Q·u, and back: u = Qᵀ·(x − ½), Q with orthonormal columns.

    The first three are the channels, so that an image of one colour is in their span.
    """
    columns = torch.randn(P, D, generator=seeded(0)).double()
    columns[:, :3] = torch.eye(3).repeat_interleave(P // 3, 0)
    q = torch.linalg.qr(columns).Q
    encoder, decoder = nn.Linear(P, 2 * D), nn.Linear(D, P)
    state = torch.cat([q.T, torch.zeros(D, P)])
    offset = torch.cat([-q.sum(0) / 2, torch.full((D,), log_var)])
    encoder.load_state_dict({"weight": state, "bias": offset})
    decoder.load_state_dict({"weight": q, "bias": torch.full((P,), 0.5)})
    network = nn.Sequential(decoder, nn.Unflatten(1, SHAPE))
    both = nn.Sequential(nn.Flatten(), encoder), GaussianDecoder(network, D, 0.1)
    return VAE(*both, SHAPE).to(dtype)


def in_its_span(count: int = 60, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images that the linear VAE gives back exactly; not of one scale."""
    u = torch.randn(count, D, generator=seeded(1)).to(dtype) * 0.15
    u = u * torch.linspace(0.3, 1, D, dtype=dtype) + 0.05
    x: Tensor = linear_vae(dtype=dtype).decoder(u).detach()
    assert x.amin() > 0
    assert x.amax() < 1
    return x


def small_flow(dim: int = D, drop: float = 0.2, seed: int = 0) -> FlowMatching:
    """With weights far from those it starts with."""
    flow = caption_flow(dim, embedding=6, width=16, depth=2, drop=drop)
    for k, parameter in enumerate(flow.parameters()):
        nn.init.normal_(parameter, std=0.3, generator=seeded(100 * seed + k))
    return flow.eval()


def small_model() -> TextToImage:
    return TextToImage(LatentSpace(linear_vae(), in_its_span()), small_flow())


PROMPTS = ["a red seven", "שמונה כתומה", "something blue"]

# --- the latent space -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_latents_have_mean_0_and_total_variance_1(dtype: torch.dtype) -> None:
    x = in_its_span(dtype=dtype)
    vae = linear_vae(dtype=dtype)
    space = LatentSpace(vae, x)
    law = space.law(x)
    assert law.mean.dtype == space.mean.dtype == space.std.dtype == dtype
    assert torch.allclose(law.mean.mean(0), torch.zeros(D).to(dtype), atol=1e-5)
    total = law.mean.var(0) + law.log_var.exp().mean(0)
    assert torch.allclose(total, torch.ones(D).to(dtype), atol=1e-4)
    # the same law, moved: u = m + s·z
    q = vae.posterior(x)
    assert torch.allclose(space.mean + space.std * law.mean, q.mean, atol=1e-5)
    assert torch.allclose(
        space.std * (law.log_var / 2).exp(), (q.log_var / 2).exp(), atol=1e-6
    )


def test_drawn_latents_have_that_mean_and_variance() -> None:
    x = in_its_span()
    space = LatentSpace(linear_vae(log_var=-3.0), x)
    z = space.encode(x.repeat(300, 1, 1, 1), seeded(2))
    assert torch.allclose(z.mean(0), torch.zeros(D), atol=0.04)
    # the variance over 60 images is that of a sample
    assert torch.allclose(z.var(0), torch.ones(D), atol=0.05)
    assert torch.equal(space.encode(x, seeded(3)), space.encode(x, seeded(3)))
    assert not torch.equal(space.encode(x, seeded(3)), space.encode(x, seeded(4)))


def test_decoding_undoes_encoding() -> None:
    x = in_its_span()
    space = LatentSpace(linear_vae(), x)
    assert (space.dim, space.shape) == (D, SHAPE)
    assert torch.allclose(space.decode(space.law(x).mean), x, atol=1e-5)
    far = space.decode(100 * torch.randn(4, D, generator=seeded(0)))
    assert (far.amin(), far.amax()) == (0, 1)  # cut


def test_many_images_are_encoded_as_few_are() -> None:
    x = in_its_span(2300)
    space = LatentSpace(linear_vae(), x)
    parts = [space.law(part).mean for part in x.split(700)]
    assert torch.allclose(space.law(x).mean, torch.cat(parts), atol=1e-5)


def test_a_coordinate_that_never_varies_is_not_divided_by() -> None:
    x = in_its_span()[:1].expand(4, *SHAPE)
    space = LatentSpace(linear_vae(log_var=-80.0), x)
    assert space.law(x).mean.isfinite().all()
    assert space.decode(space.law(x).mean).isfinite().all()


def test_the_vae_is_frozen() -> None:
    vae = conv_vae(4, width=2, hidden=8, shape=(3, 8, 8))
    vae.encoder = nn.Sequential(vae.encoder, nn.Dropout(0.5))
    x = torch.rand(6, 3, 8, 8)
    space = LatentSpace(vae, x)
    assert not any(p.requires_grad for p in space.parameters())
    z = space.encode(x.requires_grad_(), seeded(0))
    assert not z.requires_grad
    assert not space.decode(z.requires_grad_()).requires_grad
    space.train()  # as a part of a larger module
    assert torch.equal(space.encode(x, seeded(0)), z)
    assert space.vae.training  # what is asked leaves no trace


def test_other_spaces_are_refused() -> None:
    vae, x = linear_vae(), in_its_span()
    for bad, error, message in (
        (x[:1], ValueError, "at least two images, got 1"),
        (x[:0], ValueError, "images must hold at least one row"),
        (x[:, :1], ValueError, r"images must have shape \(B, 3, 4, 4\)"),
        (x[0], ValueError, r"images must have shape \(B, 3, 4, 4\)"),
        (x / 0, ValueError, "images must be finite"),
        (x.double(), TypeError, "dtype torch.float32 like the model"),
        (x.to("meta"), ValueError, "on cpu like the model, got meta"),
        (x.tolist(), TypeError, "images must be a torch.Tensor of .*, got list"),
        (5, TypeError, "images must be a torch.Tensor of .*, got int"),
    ):
        with pytest.raises(error, match=message):
            LatentSpace(vae, bad)  # type: ignore[arg-type]
        if not (isinstance(bad, Tensor) and len(bad) == 1):
            with pytest.raises(error, match=message):
                LatentSpace(vae, x).encode(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="vae must be a VAE, got Linear"):
        LatentSpace(nn.Linear(2, 2), x)  # type: ignore[arg-type]
    space = LatentSpace(vae, x)
    for z, error, message in (
        (torch.zeros(2, D + 1), ValueError, r"latents must have shape \(B, 5\)"),
        (torch.zeros(D), ValueError, r"latents must have shape \(B, 5\)"),
        (torch.zeros(2, D) / 0, ValueError, "latents must be finite, got 2 of 2"),
        (torch.zeros(2, D).double(), TypeError, "latents must have dtype"),
        ([0.0] * D, TypeError, "latents must be a torch.Tensor"),
    ):
        with pytest.raises(error, match=message):
            space.decode(z)  # type: ignore[arg-type]


# --- prompts to pictures --------------------------------------------------------------


def test_a_picture_is_the_decoded_end_of_a_path_from_the_noise() -> None:
    model = small_model()
    noise = model.noise(3, generator=seeded(0))
    path = model.path(PROMPTS, noise, strength=3.0, steps=4)
    assert path.shape == (5, 3, D)
    assert torch.equal(path[0], noise)
    x = model.draw(PROMPTS, noise, strength=3.0, steps=4)
    assert x.shape == (3, *SHAPE)
    assert torch.equal(x, model.space.decode(path[-1]))
    drawn = model.draw(PROMPTS, strength=3.0, steps=4, generator=seeded(0))
    assert torch.equal(drawn, x)
    assert not torch.equal(model.draw(PROMPTS, generator=seeded(1)), x)


def test_texts_and_places_of_words_say_the_same() -> None:
    model = small_model()
    places = model.read(PROMPTS)
    assert isinstance(places, Tensor)
    assert torch.equal(places, model.vocabulary.encode(PROMPTS))
    pair = [model.draw(said, generator=seeded(0)) for said in (PROMPTS, places)]
    assert torch.equal(*pair)
    assert model.read(None) is None


@pytest.mark.parametrize("strength", [1.0, 2.5])
@pytest.mark.parametrize("steps", [1, 7, 28])
def test_the_path_equals_that_of_diffusers(strength: float, steps: int) -> None:
    """Its σ is 1 − t, and its model says noise − data, which is −v."""
    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    model = small_model()
    known, noise = model.read(PROMPTS), model.noise(3, generator=seeded(5))
    scheduler.set_timesteps(sigmas=[1 - k / steps for k in range(steps)])
    velocity, z = model.flow.velocity, noise
    for sigma, time in zip(scheduler.sigmas, scheduler.timesteps, strict=False):
        t = (1 - sigma).expand(3)
        with torch.no_grad():
            plain, given = velocity(z, t), velocity(z, t, known)
        guided = plain + strength * (given - plain)
        z = scheduler.step(-guided, time, z).prev_sample
    path = model.path(known, noise, strength=strength, steps=steps)
    assert not torch.allclose(path[-1], noise, atol=0.5)
    assert torch.allclose(path[-1], z, atol=1e-5 * float(z.abs().max()))


def test_guidance_0_and_1_are_the_plain_and_the_conditional_flow() -> None:
    model = small_model()
    known, noise = model.read(PROMPTS), model.noise(3, generator=seeded(0))
    for strength, condition in ((0.0, None), (1.0, known)):
        expected = model.flow.trajectory(noise, condition, steps=6)
        found = model.path(known, noise, strength=strength, steps=6)
        assert torch.equal(found, expected)
    plain = model.flow.trajectory(noise, None, steps=6)
    assert torch.equal(model.path(None, noise, strength=5.0, steps=6), plain)


def test_guidance_in_an_interval_begins_and_ends_there() -> None:
    model = small_model()
    known, noise = model.read(PROMPTS), model.noise(3, generator=seeded(0))
    path = model.path(known, noise, strength=4.0, steps=10, between=(0.3, 0.6))
    parts = [(0, 3, 1.0), (3, 7, 4.0), (7, 10, 1.0)]  # steps that begin at t = k/10
    for first, last, strength in parts:
        field = model.guided(strength).field(known)
        for k in range(first, last):
            with torch.no_grad():
                step = path[k] + field(path[k], k / 10) / 10
            assert torch.allclose(path[k + 1], step, atol=1e-5)


def test_any_solver_goes_the_way() -> None:
    model = small_model()
    noise = model.noise(3, generator=seeded(0))
    ends = [
        model.path(PROMPTS, noise, steps=80, solver=solver)[-1]
        for solver in (Heun(), RK4())
    ]
    scale = float(ends[1].abs().max())
    assert torch.allclose(ends[0], ends[1], atol=2e-3 * scale)


def test_pictures_without_prompts_are_counted() -> None:
    model = small_model()
    x = model.draw(None, count=4, generator=seeded(0))
    assert torch.equal(
        x, model.draw(None, model.noise(4, generator=seeded(0)), strength=0.0)
    )
    for settings, message in (
        ({}, "pictures must be counted: give count or noise"),
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"count": -2}, "count must be at least 1, got -2"),
        ({"count": 3, "noise": torch.zeros(2, D)}, "count must be 2, as is given"),
    ):
        with pytest.raises(ValueError, match=message):
            model.draw(None, **settings)
    with pytest.raises(TypeError, match="count must be a whole number"):
        model.draw(PROMPTS, count=3.0)  # type: ignore[arg-type]
    for none in (list[str](), torch.zeros(0, 8, dtype=torch.int64)):
        with pytest.raises(ValueError, match="at least one prompt, got none"):
            model.draw(none)
    with pytest.raises(ValueError, match="count must be 3, as is given, got 2"):
        model.draw(PROMPTS, count=2)
    assert model.draw(PROMPTS, count=3, generator=seeded(0)).shape == (3, *SHAPE)


def test_noise_has_its_scale() -> None:
    model = small_model()
    one, three = (model.noise(4000, s, seeded(0)) for s in (1.0, 3.0))
    assert torch.equal(three, 3 * one)
    assert float(one.std()) == pytest.approx(1, abs=4 / sqrt(2 * 4000 * D))
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale must be a finite number above 0"):
            model.noise(2, scale)
    with pytest.raises(TypeError, match=r"count must be a whole number, got 1.5"):
        model.noise(1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator"):
        model.noise(2, generator=0)  # type: ignore[arg-type]


def test_drawing_leaves_no_trace() -> None:
    """A model in train mode would drop some texts, by torch's own numbers."""
    model = small_model()
    x = model.draw(PROMPTS * 10, generator=seeded(0))
    model.flow.train()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(model.draw(PROMPTS * 10, generator=seeded(0)), x)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(part.training for part in model.flow.modules())
    assert all(p.requires_grad for p in model.flow.parameters())


def test_other_prompts_and_noise_are_refused() -> None:
    model = small_model()
    noise = torch.zeros(3, D)
    places = model.vocabulary.encode(PROMPTS)
    for prompts, start, error, message in (
        ("a red seven", noise, TypeError, "a row of texts, got one text"),
        (PROMPTS[:1], noise, ValueError, r"shape \(3, L\) .*, got \(1, 8\)"),
        (["a mauve seven"] * 3, noise, ValueError, "words that none has: mauve"),
        (places.float(), noise, TypeError, "torch.int64 tensor .*, got torch.float32"),
        (places + 200, noise, ValueError, r"places 0 … 97, got 200 … "),
        (PROMPTS, noise[:, :2], ValueError, r"must have shape \(B, 5\)"),
        (PROMPTS, noise / 0, ValueError, "must be finite"),
        (PROMPTS, noise.double(), TypeError, "dtype torch.float32"),
    ):
        with pytest.raises(error, match=message):
            model.path(prompts, start)
    for settings, error, message in (
        ({"strength": float("inf")}, ValueError, "strength must be a finite number"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"between": (0.6, 0.3)}, ValueError, "two times in order in"),
    ):
        with pytest.raises(error, match=message):
            model.path(PROMPTS, noise, **settings)


def test_parts_that_do_not_fit_are_refused() -> None:
    space = LatentSpace(linear_vae(), in_its_span())
    with pytest.raises(ValueError, match=r"shape of a latent, \(5,\), got \(4,\)"):
        TextToImage(space, small_flow(4))
    classes = FlowMatching(mlp_velocity((D,), classes=3), (D,))
    with pytest.raises(ValueError, match=r"texts of 98 words, .* knows ClassLabels"):
        TextToImage(space, classes)
    with pytest.raises(ValueError, match="texts of 3 words, got one that knows 98"):
        TextToImage(space, small_flow(), Vocabulary(["red", "seven"]))
    with pytest.raises(TypeError, match="space must be a LatentSpace, got VAE"):
        TextToImage(linear_vae(), small_flow())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="flow must be a FlowMatching, got VelocityNet"):
        TextToImage(space, small_flow().velocity)  # type: ignore[arg-type]
    always = TextToImage(space, small_flow(drop=0.0))
    with pytest.raises(ValueError, match="also trained without its condition"):
        always.draw(PROMPTS)


# --- latents with captions ------------------------------------------------------------


def grey(count: int, side: int = 4) -> Images:
    """A bar for each digit: its height says which."""
    label = torch.arange(count) % 10
    image = torch.zeros(count, 1, side, side)
    noise = torch.rand(count, 1, side, side, generator=seeded(count))
    image[:] = (label / 9)[:, None, None, None] * 0.8
    return Images((image + 0.2 * noise).clamp(0, 1), label)


def coloured(train: int, validation: int = 20) -> ImageSplits:
    three = grey(train), grey(validation), grey(20)
    return tints_but(ImageSplits(*three, fingerprint="bars"), RULE)


def latents(images: Images | None = None) -> CaptionedLatents:
    images = images or coloured(50).train
    space = LatentSpace(linear_vae(), images.image)
    return CaptionedLatents(space, images, CAPTIONS)


def test_a_pass_has_each_image_once() -> None:
    data = latents()
    assert (len(data), data.steps(16), data.steps(25)) == (50, 4, 2)
    seen: list[Tensor] = []
    data.at = lambda index, _=None: seen.append(index)  # type: ignore
    list(islice(data.batches(16, seeded(0)), 8))
    assert [len(index) for index in seen] == [16, 16, 16, 2] * 2
    first, second = (torch.cat(seen[k : k + 4]).tolist() for k in (0, 4))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second != list(range(50))


def test_batches_are_latents_with_captions_of_their_images() -> None:
    data = latents()
    for z, said in islice(data.batches(16, seeded(0)), 3):
        assert (z.shape, z.dtype) == ((16, D), torch.float32)
        assert (said.shape, said.dtype) == ((16, 8), torch.int64)
    index = torch.arange(50).repeat(200)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    z, said = data.at(index, seeded(0))
    again = data.at(index, seeded(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(z, again[0])
    assert torch.equal(said, again[1])
    assert not torch.equal(z[:50], z[50:100])  # drawn anew each time
    mean = z.view(200, 50, D).mean(0)
    error = (data.law.log_var / 2).exp() / sqrt(200)
    assert ((mean - data.law.mean).abs() < 5 * error).all()
    images = data.images
    assert isinstance(images, ColouredImages)
    fitting: dict[int, set[tuple[int, ...]]] = {}
    for i in range(50):
        digit, colour = int(images.label[i]), int(images.colour[i])
        keys = ((digit, colour), (digit, None), (None, colour))
        texts = [t for one in LANGUAGES for key in keys for t in phrases(one, *key)]
        rows = CAPTIONS.vocabulary.encode(texts).tolist()
        fitting[i] = {tuple(row) for row in rows}
    for i, row in zip(index.tolist(), said.tolist(), strict=True):
        assert tuple(row) in fitting[i]


def test_other_latents_are_refused() -> None:
    images = coloured(20).train
    space = LatentSpace(linear_vae(), images.image)
    with pytest.raises(TypeError, match="images must be ColouredImages, got Images"):
        CaptionedLatents(space, grey(20), CAPTIONS)
    small = Images(torch.rand(4, 1, 2, 2), torch.arange(4))
    other = ColouredImages.of(small, torch.arange(4))
    with pytest.raises(ValueError, match=r"shape \(B, 3, 4, 4\), got \(4, 3, 2, 2\)"):
        CaptionedLatents(space, other, CAPTIONS)
    data = CaptionedLatents(space, images, CAPTIONS)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        data.batches(0)
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator"):
        data.batches(4, 0)  # type: ignore[arg-type]


def test_a_space_in_double_precision_has_latents_in_it() -> None:
    images = coloured(20).train
    double = images.image.double()
    space = LatentSpace(linear_vae(dtype=torch.float64), double)
    z, _ = CaptionedLatents(space, images, CAPTIONS).at(torch.arange(3))
    assert z.dtype == torch.float64


# --- the floor of a normal law --------------------------------------------------------


def normal_latents(covariance: Tensor, n: int = 200) -> Tensor:
    """Rows whose covariance is exactly this."""
    dim = len(covariance)
    z = torch.randn(n, dim, generator=seeded(0)).double()
    z = z - z.mean(0)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(z.T @ z / (n - 1)), z.T, upper=False
    )
    return (torch.linalg.cholesky(covariance) @ white).T + 3


@pytest.mark.parametrize("dim", [1, 2, 6])
def test_the_floor_is_what_the_best_linear_guess_leaves(dim: int) -> None:
    """Var(z₁ − z₀ | z_t) of normals, by their covariances, integrated over t."""
    root = torch.randn(dim, dim, generator=seeded(dim)).double()
    covariance = root @ root.T + 0.05 * torch.eye(dim)

    def left(t: float) -> float:
        eye = torch.eye(dim).double()
        at_t = t**2 * covariance + (1 - t) ** 2 * eye
        cross = t * covariance - (1 - t) * eye
        both = covariance + eye - cross @ torch.linalg.inv(at_t) @ cross
        return float(both.trace())

    expected, _ = quad(left, 0, 1, limit=200)
    assert gaussian_floor(normal_latents(covariance)) == pytest.approx(expected)


def test_the_floor_of_the_identity_is_where_a_training_begins() -> None:
    z = normal_latents(torch.eye(D).double(), n=4000)
    assert gaussian_floor(z) == pytest.approx(D * pi / 2)
    t = torch.linspace(0.0005, 0.9995, 1000).repeat(4)
    noise = torch.randn(4000, D, generator=seeded(1))
    fresh = caption_flow(D, width=8, depth=1)
    batch = noise, z.float() - 3, CAPTIONS.table[:1, :1].expand(4000, 1, -1)[:, 0]
    loss = FlowMatchingLoss().at(fresh, batch[0], batch[1], t, batch[2]).detach()
    error = float(loss.std()) / sqrt(4000)
    assert float(loss.mean()) == pytest.approx(D * pi / 2, abs=4 * error)


def test_a_floor_needs_more_latents_than_values() -> None:
    assert gaussian_floor(torch.zeros(9, 3)) == 0
    for z, error, message in (
        (torch.zeros(3, 3), ValueError, "more than 3 latents, got 3"),
        (torch.zeros(3), ValueError, "must have shape"),
        (torch.zeros(()), ValueError, "must have shape"),
        (torch.zeros(9, 2, 3), ValueError, "must have shape"),
        (torch.zeros(9, 3) / 0, ValueError, "must be finite"),
        (torch.zeros(9, 3).long(), TypeError, "floating dtype"),
        ([[0.0]], TypeError, "must be a torch.Tensor"),
    ):
        with pytest.raises(error, match=message):
            gaussian_floor(z)  # type: ignore[arg-type]


# --- training -------------------------------------------------------------------------

QUICK: dict[str, Any] = {"batch": 32, "lr": 1e-2, "watched": 200, "warmup": 5}


def test_training_learns_what_captions_say() -> None:
    """The loss falls below what the latents' covariance alone can explain."""
    torch.manual_seed(0)
    data = coloured(400, 200)
    space = LatentSpace(linear_vae(log_var=-6.0), data.train.image)
    flow = caption_flow(D, embedding=16, width=64, depth=2)
    history = train_caption_flow(
        flow, space, data, Captions(["en"], 0.0), epochs=30, **QUICK
    )
    assert set(history.measured) == {"validation", "training"}
    assert history.step == list(range(0, 30 * 13 + 1, 13))
    assert not history.interrupted
    assert not flow.training
    held_out = history.measured["validation"]
    floor = gaussian_floor(space.law(data.validation.image).mean)
    assert held_out[0] > floor > 1.3 * held_out[-1]
    model = TextToImage(space, flow)
    asked = pairs_but(RULE, 2)
    noise = model.noise(180, generator=seeded(0))
    x = model.draw(asked.prompts("en"), noise, strength=1.0)
    told = see(_Bars(), x).shares(asked)  # type: ignore[arg-type]
    guess = see(_Bars(), model.draw(None, noise)).shares(asked)  # type: ignore[arg-type]
    assert told.digit > 0.3
    assert told.colour > 0.4
    assert max(guess.digit, guess.colour) < 0.2


class _Bars:
    """In the place of a judge: the digit is how bright an image is."""

    def digit(self, x: Tensor) -> Tensor:
        return ((x.flatten(1).mean(1) - 0.1) / 0.8 * 9).round().long().clamp(0, 9)


class _Stopping(Captions):
    """The user stops after some batches."""

    left = 10

    def draw(
        self,
        digit: Tensor,
        colour: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().draw(digit, colour, generator)


def test_a_training_that_is_stopped_keeps_its_history() -> None:
    data = coloured(100)
    space = LatentSpace(linear_vae(), data.train.image)
    flow = caption_flow(D, width=8, depth=1)
    history = train_caption_flow(flow, space, data, _Stopping(), **QUICK)
    assert history.interrupted
    assert len(history.loss) == 8  # two draws were for what is measured
    assert history.step[:2] == [0, 4]
    assert not flow.training


def test_watching_changes_nothing_and_needs_an_image() -> None:
    data = coloured(60)
    space = LatentSpace(linear_vae(), data.train.image)
    ends = []
    for watched in (1, 20):
        torch.manual_seed(3)
        flow = caption_flow(D, width=8, depth=1)
        settings = {**QUICK, "watched": watched}
        train_caption_flow(flow, space, data, CAPTIONS, epochs=2, **settings)
        ends.append(torch.cat([p.flatten() for p in flow.parameters()]))
    assert torch.equal(*ends)
    for watched in (0, -1):
        with pytest.raises(ValueError, match="watched must be at least 1"):
            train_caption_flow(flow, space, data, CAPTIONS, watched=watched)


def test_the_key_of_the_cache_tells_spaces_captions_and_flows_apart() -> None:
    x = in_its_span()

    def key(**changed: object) -> str:
        settings = {
            "space": LatentSpace(linear_vae(), x),
            "captions": CAPTIONS,
            "teacher": small_flow(),
            "never": RULE,
            **changed,
        }
        told = facts("flow", 0, caption_flow, train_caption_flow, settings)
        return str(told["settings"])

    several = [
        key(),
        key(captions=Captions(partial=0.3)),
        key(captions=Captions(["en"])),
        key(never=tuple(range(10))),
        key(never=None),
        key(space=LatentSpace(linear_vae(), x[:30])),
        key(space=LatentSpace(linear_vae(log_var=-3.0), x)),
        key(teacher=small_flow(seed=1)),
        key(teacher=small_flow(drop=0.3)),
    ]
    assert len(set(several)) == len(several)
    assert key() == key(captions=Captions(), never=tuple(RULE))


# --- straight paths -------------------------------------------------------------------


class _Curved(Velocity):
    """A field that turns, and that a text moves: dz/dt = A·z + b·(its first word)."""

    def __init__(self) -> None:
        super().__init__(Words(98, 4, drop=0.1))
        self.turn = nn.Parameter(torch.tensor([[0.0, 3.0], [-3.0, 0.0]]))

    def at(self, y: Tensor, t: Tensor, condition: Condition) -> Tensor:
        push = 0.0 if condition is None else condition[:, :1].sign() * 2.0
        return y @ self.turn.T + push


def test_pairs_are_the_ends_of_the_guided_trajectory() -> None:
    curved = _Curved()
    teacher = FlowMatching(curved, (2,))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    z0, z1, said = teacher_pairs(
        teacher, CAPTIONS, 1200, strength=3.0, steps=7, generator=seeded(0)
    )
    again = teacher_pairs(
        teacher, CAPTIONS, 1200, strength=3.0, steps=7, generator=seeded(0)
    )
    assert torch.equal(torch.get_rng_state(), before)
    for mine, other in zip((z0, z1, said), again, strict=True):
        assert torch.equal(mine, other)
    z = z0.clone()
    for _ in range(7):  # Euler; the text pushes by 2, three times as strongly
        z = z + (z @ curved.turn.T + 3 * 2.0) / 7
    assert torch.allclose(z1, z, atol=1e-4)
    assert not z1.requires_grad
    # the noise is normal
    assert float(z0.std()) == pytest.approx(1, abs=4 / sqrt(2 * 2400))


class _Noted(Captions):
    """What was asked for."""

    def draw(
        self,
        digit: Tensor,
        colour: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        self.asked = Counter(zip(digit.tolist(), colour.tolist(), strict=True))
        return super().draw(digit, colour, generator)


def test_pairs_that_never_occur_are_not_drawn_and_the_others_are_uniform() -> None:
    teacher, noted, n = FlowMatching(_Curved(), (2,)), _Noted(), 18_000
    for never, pairs in ((None, 100), (RULE, 90)):
        teacher_pairs(teacher, noted, n, steps=1, never=never, generator=seeded(0))
        assert len(noted.asked) == pairs
        expected = n / pairs
        chi_square = sum((k - expected) ** 2 for k in noted.asked.values()) / expected
        assert chi_square < pairs - 1 + 4 * sqrt(2 * (pairs - 1))
    assert not any(noted.asked[digit, RULE[digit]] for digit in range(10))


def test_a_teacher_in_train_mode_gives_the_same_pairs_and_stays_so() -> None:
    teacher = small_flow()
    first = teacher_pairs(teacher, CAPTIONS, 50, generator=seeded(0))
    again = teacher_pairs(teacher.train(), CAPTIONS, 50, generator=seeded(0))
    assert torch.equal(first[1], again[1])
    assert all(part.training for part in teacher.modules())


def test_other_pairs_are_refused() -> None:
    teacher = FlowMatching(_Curved(), (2,))
    for settings, error, message in (
        ({"count": 0}, ValueError, "count must be at least 1"),
        ({"never": (5,)}, ValueError, "each of 10 classes, got 1"),
        ({"never": tuple(range(9))}, ValueError, "each of 10 classes, got 9"),
        ({"never": (0,) * 10}, ValueError, "colours of its own"),
        ({"generator": 9}, TypeError, "generator must be a torch.Generator"),
        ({"strength": float("nan")}, ValueError, "strength must be a finite number"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
    ):
        with pytest.raises(error, match=message):
            teacher_pairs(teacher, CAPTIONS, **{"count": 4, **settings})  # type: ignore
    always = FlowMatching(mlp_velocity(classes=3))
    with pytest.raises(ValueError, match="trained without its condition"):
        teacher_pairs(always, CAPTIONS, 4)


def test_the_loss_of_a_perfect_student_is_zero() -> None:
    class Straight(Velocity):
        """Knows where each text goes, by one step."""

        def __init__(self) -> None:
            super().__init__(Words(98, 2, drop=0.1))

        def at(self, y: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return torch.full_like(y, 4.0)

    z0 = torch.randn(6, 2, generator=seeded(0))
    said = torch.ones(6, 8, dtype=torch.int64)
    student = FlowMatching(Straight(), (2,))
    assert torch.allclose(
        straight_loss(student, (z0, z0 + 4, said)), torch.zeros(6), atol=1e-9
    )
    lag = straight_loss(student, (z0, z0 + 5, said))
    assert torch.allclose(lag, torch.full((6,), 2.0), atol=1e-4)
    for batch, message in (
        ((z0[:1], z0, said), "y0 must have the shape of y1"),
        ((z0[:, :1], z0[:, :1], said), r"samples must have shape \(B, 2\)"),
        ((z0, z0 / 0, said), "samples must be finite"),
        ((z0, z0, said[:1]), r"texts must have shape \(6, L\)"),
    ):
        with pytest.raises(ValueError, match=message):
            straight_loss(student, batch)


def test_a_student_goes_straighter_than_its_teacher_to_the_same_end() -> None:
    torch.manual_seed(0)

    def mild() -> FlowMatching:
        return caption_flow(2, embedding=8, width=48, depth=2)

    teacher = mild()
    for k, parameter in enumerate(teacher.parameters()):
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.35, generator=seeded(k))
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    student = mild()
    history = train_straight(
        student, teacher, CAPTIONS, steps=500, count=4000, strength=2.0, lr=5e-3
    )
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name])
    assert len(history.loss) == 500
    assert sum(history.loss[-50:]) < sum(history.loss[:50])
    z0, z1, said = teacher_pairs(
        teacher, CAPTIONS, 400, strength=2.0, steps=10, generator=seeded(77)
    )
    space_free = FlowMatching(student.velocity, (2,))
    path = space_free.trajectory(z0, said, steps=10)
    bent = path_ratio(_guided(teacher, z0, said)).mean() - 1
    left = path_ratio(path).mean() - 1
    assert left < bent / 2
    one_step = space_free.trajectory(z0, said, steps=1)[-1]
    theirs = _guided(teacher, z0, said, steps=1)[-1]
    assert (one_step - z1).norm(dim=1).mean() < (theirs - z1).norm(dim=1).mean() / 2


def _guided(flow: FlowMatching, z: Tensor, said: Tensor, steps: int = 10) -> Tensor:
    """The path of the teacher, by the formula of guidance."""
    states = [z]
    for k in range(steps):
        t = torch.full((len(z),), k / steps)
        with torch.no_grad():
            plain, given = flow.velocity(z, t), flow.velocity(z, t, said)
        z = z + (plain + 2.0 * (given - plain)) / steps
        states.append(z)
    return torch.stack(states)


# --- what pictures show ---------------------------------------------------------------


@pytest.mark.parametrize("rule", [RULE, tuple(range(10)), tuple(range(9, -1, -1))])
def test_the_pairs_of_a_rule_and_the_others_are_all_pairs(
    rule: tuple[int, ...],
) -> None:
    others, own = pairs_but(rule, 3), pairs_of(rule, 3)
    found = [
        Counter(zip(part.digit.tolist(), part.colour.tolist(), strict=True))
        for part in (others, own)
    ]
    assert [len(one) for one in found] == [90, 10]
    assert set(found[1]) == set(enumerate(rule))
    assert set(found[0]) | set(found[1]) == {
        (d, c) for d in range(10) for c in range(10)
    }
    assert set(found[0].values()) == set(found[1].values()) == {3}


@pytest.mark.parametrize("choices", [1, 4, 9])
def test_pairs_are_those_that_the_tints_have(choices: int) -> None:
    pairs = pairs_but(RULE, 2, choices)
    assert len(pairs.digit) == 20 * choices
    after = (pairs.colour - torch.tensor(RULE)[pairs.digit]) % 10
    assert set(after.tolist()) == set(range(1, choices + 1))
    both = list(zip(*(part.tolist() for part in pairs), strict=True))
    assert len(set(both)) == 10 * choices
    with pytest.raises(ValueError, match="choices must lie in 1 … 9, got 10"):
        pairs_but(RULE, 2, 10)


@pytest.mark.parametrize("make", [pairs_but, pairs_of])
def test_other_rules_have_no_pairs(make: Callable[..., Pairs]) -> None:
    for rule, each, error, message in (
        ((5,), 1, ValueError, "each of 10 classes, got 1"),
        (RULE[:9], 1, ValueError, "each of 10 classes, got 9"),
        ((0,) * 10, 1, ValueError, "colours of its own"),
        (RULE, 0, ValueError, "each must be at least 1, got 0"),
        (RULE, 1.5, TypeError, "each must be a whole number"),
        (5, 1, TypeError, "a row of colours, one a class, got 5"),
    ):
        with pytest.raises(error, match=message):
            make(rule, each)


def test_prompts_of_pairs_are_the_usual_captions() -> None:
    pairs = pairs_of(RULE, 1)
    assert pairs.prompts("en")[7] == "a yellow seven"
    assert pairs.prompts("he") == [describe("he", d, RULE[d]) for d in range(10)]


def test_shares_count_digit_colour_and_both() -> None:
    asked = Pairs(torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6, 7, 8]))
    seen = Seen(torch.tensor([1, 2, -1, 0]), torch.tensor([5, -1, 7, 8]))
    assert seen.right(asked).tolist() == [True, False, False, False]
    assert seen.shares(asked) == (0.25, 0.5, 0.75)
    for short in (
        Pairs(*(part[:1] for part in asked)),
        Pairs(asked.digit, asked[1][:3]),
    ):
        for measure in (seen.right, seen.shares):
            with pytest.raises(ValueError, match=r"labels must have shape \(4,\)"):
                measure(short)


def test_a_judge_has_the_features_of_its_classifier() -> None:
    images = Images(torch.rand(60, 1, 28, 28), torch.arange(60) % 10)
    classifier = Classifier(2)
    judge = Judge(classifier, ImageSplits(images, images, images, "noise"))
    x = torch.rand(1500, 1, 28, 28, generator=seeded(0)).requires_grad_()
    found = judge.train().features(x)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    expected = classifier.eval().features(x).detach().double()
    assert torch.allclose(found, expected, atol=1e-5)
    with pytest.raises(ValueError, match="images must have shape"):
        judge.features(torch.rand(2, 3, 28, 28))


def test_what_is_seen_is_the_judges_digit_of_grey_and_the_nearest_colour() -> None:
    class Told(Judge):
        """A judge that sees one digit, and remembers what it was shown."""

        def __init__(self) -> None:
            nn.Module.__init__(self)

        def digit(self, x: Tensor) -> Tensor:
            self.shown = x
            return torch.full((len(x),), 4)

    shape = torch.rand(10, 1, 28, 28, generator=seeded(0))
    judge = Told()
    seen = see(judge, tint(shape, COLOURS))
    assert torch.allclose(judge.shown, shape)
    assert seen.digit.tolist() == [4] * 10
    assert seen.colour.tolist() == list(range(10))
    assert see(judge, torch.zeros(2, 3, 28, 28)).colour.tolist() == [-1, -1]
    with pytest.raises(ValueError, match="coloured images must have shape"):
        see(judge, shape)
