"""The loop of latent diffusion, written out, against the pipeline's own call."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)
from torch import Tensor

from course_utils.models.pretrained import (
    STABLE_DIFFUSION,
    WeightsMissingError,
    decode,
    denoise,
    draw,
    encode_prompts,
    guided_noise,
    pretrained_pipeline,
    start_noise,
    tiny_pipeline,
)
from course_utils.notebook import seeded

LEVELS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "Euler": lambda: EulerDiscreteScheduler(**LEVELS),
    "Euler, leading": lambda: EulerDiscreteScheduler(
        **LEVELS, timestep_spacing="leading"
    ),
    "DDIM": lambda: DDIMScheduler(**LEVELS, clip_sample=False),
    "DDIM, v": lambda: DDIMScheduler(
        **LEVELS, clip_sample=False, prediction_type="v_prediction"
    ),
    "PNDM": lambda: PNDMScheduler(**LEVELS, skip_prk_steps=True),
    "DPM-Solver++": lambda: DPMSolverMultistepScheduler(**LEVELS),
    "Heun": lambda: HeunDiscreteScheduler(**LEVELS),
}
PROMPTS = ["a red seven", "שבע אדום", "A blue “8”, naïve?"]
STEPS = 7


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return quiet(tiny_pipeline())


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def own(pipeline: Any, prompts: list[str], **options: Any) -> Tensor:
    """What the pipeline's own call gives."""
    options = {"num_inference_steps": STEPS, "output_type": "pt", **options}
    return pipeline(prompts, **options).images


# --- the loop is that of the pipeline -------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("strength", [1.0, 7.5])
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "three"])
def test_the_loop_gives_what_the_call_gives(
    name: str, strength: float, prompts: list[str]
) -> None:
    pipeline = quiet(tiny_pipeline(scheduler=SCHEDULERS[name]()))
    x = draw(pipeline, prompts, generator=seeded(1), steps=STEPS, strength=strength)
    expected = own(pipeline, prompts, guidance_scale=strength, generator=seeded(1))
    assert x.shape == (len(prompts), 3, 64, 64)
    assert 0 <= x.min() < x.max() <= 1
    assert float((x - expected).abs().max()) < 1e-5


@pytest.mark.parametrize(("height", "width"), [(96, 64), (80, 112), (48, None)])
def test_the_loop_in_another_size(
    pipeline: Any, height: int, width: int | None
) -> None:
    sides: dict[str, Any] = {"height": height, "width": width or 64}
    x = draw(pipeline, PROMPTS, generator=seeded(2), steps=STEPS, **sides)
    assert x.shape == (3, 3, height, width or 64)
    expected = own(pipeline, PROMPTS, generator=seeded(2), **sides)
    assert torch.allclose(x, expected, atol=1e-5)
    noise = start_noise(pipeline, 2, seeded(2), height, width)
    assert noise.shape == (2, 4, height // 8, (width or 64) // 8)


def test_latents_given_to_the_call_are_the_noise(pipeline: Any) -> None:
    noise = start_noise(pipeline, 3, seeded(3))
    z = denoise(pipeline, PROMPTS, noise, steps=STEPS)
    expected = own(pipeline, PROMPTS, latents=noise, output_type="latent")
    assert torch.allclose(z, expected, atol=1e-4)
    x = own(pipeline, PROMPTS, latents=noise)
    assert torch.allclose(decode(pipeline, z), x, atol=1e-5)


def test_prompts_are_encoded_as_in_the_call(pipeline: Any) -> None:
    c = encode_prompts(pipeline, PROMPTS)
    expected, empty = pipeline.encode_prompt(PROMPTS, "cpu", 1, True)
    assert c.shape == (3, 77, 16)
    assert torch.equal(c, expected)
    assert torch.equal(encode_prompts(pipeline, [""] * 3), empty)
    assert not torch.allclose(c[0], c[1], atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    pipeline = quiet(tiny_pipeline()).to(dtype)
    x = draw(pipeline, PROMPTS, generator=seeded(4), steps=STEPS)
    assert x.dtype == dtype
    expected = own(pipeline, PROMPTS, generator=seeded(4))
    within = 1e-5 if dtype == torch.float64 else 0.1
    assert float((x - expected).abs().max()) < within


def test_the_loop_in_numbers() -> None:
    """Euler's method for dz/dσ = ε̂, the levels taken from the betas."""
    pipeline = tiny_pipeline().to(torch.float64)
    noise = start_noise(pipeline, 1, seeded(5))
    z_0 = denoise(pipeline, PROMPTS[:1], noise, steps=STEPS, strength=3.0)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2
    kept = (1 - betas).cumprod(0)
    each = ((1 - kept) / kept).sqrt()  # σ of each of the 1000 times
    times = torch.linspace(999, 0, STEPS).double()
    low = times.floor().long()
    high = times.ceil().long()
    levels = each[low] + (times - low) * (each[high] - each[low])
    c, u = (encode_prompts(pipeline, [text]) for text in (PROMPTS[0], ""))
    z = levels[0] * noise
    for t, here, there in zip(times, levels, [*levels[1:], 0.0], strict=True):
        y = z / (here**2 + 1).sqrt()
        plain, given = (pipeline.unet(y, t, text).sample for text in (u, c))
        z = z + (there - here) * (plain + 3 * (given - plain))
    assert torch.allclose(z_0, z, rtol=1e-4, atol=1e-4)


# --- strength and scale ---------------------------------------------------------------


def test_strength_0_is_the_empty_prompt_and_1_the_prompt(pipeline: Any) -> None:
    noise = start_noise(pipeline, 3, seeded(6))

    def z(prompts: list[str], strength: float) -> Tensor:
        return denoise(pipeline, prompts, noise, steps=STEPS, strength=strength)

    empty = z([""] * 3, 1.0)
    assert torch.equal(z(PROMPTS, 0.0), empty)
    assert not torch.allclose(z(PROMPTS, 1.0), empty, atol=0.1)
    conditional = own(
        pipeline, PROMPTS, latents=noise, guidance_scale=1, output_type="latent"
    )
    assert torch.allclose(z(PROMPTS, 1.0), conditional, atol=1e-4)
    assert torch.allclose(z([""] * 3, 7.5), empty, atol=1e-4)


def test_the_mixture_of_the_two_guesses(pipeline: Any) -> None:
    z = 3 * start_noise(pipeline, 3, seeded(7))
    c, u = encode_prompts(pipeline, PROMPTS), encode_prompts(pipeline, [""] * 3)
    pipeline.scheduler.set_timesteps(1000)
    t = pipeline.scheduler.timesteps[500]

    def guess(strength: float) -> Tensor:
        with torch.no_grad():
            return guided_noise(pipeline, z, t, c, u, strength)

    line = guess(0.0) + 4 * (guess(1.0) - guess(0.0))
    assert torch.allclose(guess(4.0), line, atol=1e-5)
    assert not torch.allclose(guess(4.0), guess(1.0), atol=1e-2)


def test_forgetting_the_initial_scale_changes_the_picture(pipeline: Any) -> None:
    noise = start_noise(pipeline, 3, seeded(8))
    assert float(noise.std()) == pytest.approx(1, abs=0.1)

    def x(scale: float | None) -> Tensor:
        z = denoise(pipeline, PROMPTS, noise, steps=STEPS, initial_scale=scale)
        return decode(pipeline, z)

    right = x(None)
    assert float(pipeline.scheduler.init_noise_sigma) == pytest.approx(14.6, abs=0.1)
    assert torch.equal(x(float(pipeline.scheduler.init_noise_sigma)), right)
    assert float((x(1.0) - right).abs().max()) > 0.1
    # as if the noise had been too small from the start
    small = own(pipeline, PROMPTS, latents=noise / pipeline.scheduler.init_noise_sigma)
    assert torch.allclose(x(1.0), small, atol=1e-5)


@pytest.mark.parametrize("name", ["Euler", "PNDM"])
def test_steps_can_be_watched(name: str) -> None:
    pipeline = tiny_pipeline(scheduler=SCHEDULERS[name]())
    seen: list[tuple[int, Tensor]] = []
    noise = start_noise(pipeline, 1, seeded(9))
    z = denoise(
        pipeline, PROMPTS[:1], noise, steps=4, watch=lambda k, z: seen.append((k, z))
    )
    calls = 4 if name == "Euler" else 5  # one step of PNDM is a trial
    assert [k for k, _ in seen] == [*range(1, calls + 1)]
    assert torch.equal(seen[-1][1], z)
    assert not torch.equal(seen[0][1], seen[1][1])


# --- the tiny pipeline ----------------------------------------------------------------


def test_tokens_of_any_text_can_be_read_back(pipeline: Any) -> None:
    tokenizer = pipeline.tokenizer
    for text in (*PROMPTS, "", "a b  c", "日本語 ☂", "it's 10"):
        tokens = tokenizer(text).input_ids
        assert (tokens[0], tokens[-1]) == (512, 513)
        assert 513 not in tokens[1:-1]  # which stands for the unknown too
        said = tokenizer.decode(tokens, skip_special_tokens=True)
        assert said.replace(" ", "") == text.lower().replace(" ", "")
    assert tokenizer("seven").input_ids == tokenizer(" Seven ").input_ids
    assert len(tokenizer("seven").input_ids) == 7
    assert len(tokenizer) == 514


def test_the_seed_makes_the_weights_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = tiny_pipeline(1), tiny_pipeline(1), tiny_pipeline(2)
    assert torch.equal(before, torch.get_rng_state())
    for part in ("unet", "vae", "text_encoder"):
        a, b, c = (
            torch.cat([p.flatten() for p in getattr(one, part).parameters()])
            for one in (first, again, other)
        )
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert [*tmp_path.iterdir()] == []


# --- weights --------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("download", [False, True])
def test_without_weights_it_says_so(tmp_path: Path, download: bool) -> None:
    start = perf_counter()
    with pytest.raises(WeightsMissingError) as caught:
        pretrained_pipeline(cache=tmp_path, download=download)
    assert perf_counter() - start < 10
    assert caught.value.name == STABLE_DIFFUSION
    said = str(caught.value)
    for word in (
        f"weights of a StableDiffusionPipeline, {STABLE_DIFFUSION!r}",
        f"no whole set in {tmp_path}",
        "pretrained_pipeline(download=True)",
        "4.3 GB",
    ):
        assert word in said
    assert ("could not download" in said) == download
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_network_is_asked_only_for_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def no_network(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    start = perf_counter()
    with pytest.raises(WeightsMissingError, match=f"set in {tmp_path}: where"):
        pretrained_pipeline(cache=tmp_path)
    assert asked == []
    with pytest.raises(WeightsMissingError, match="and could not download it: where"):
        pretrained_pipeline(cache=tmp_path, download=True)
    assert asked
    assert perf_counter() - start < 10
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("offline")
def test_other_names_without_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match=r"pipeline\('a/b', download=True\)"):
        pretrained_pipeline("a/b", cache=tmp_path)
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(WeightsMissingError, match="in that folder: where there"):
            pretrained_pipeline(folder, download=True)


@pytest.mark.usefixtures("offline")
def test_weights_in_a_folder(pipeline: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    loaded = pretrained_pipeline(tmp_path)
    again = quiet(pretrained_pipeline(str(tmp_path), dtype=torch.bfloat16))
    x = draw(loaded, PROMPTS, generator=seeded(1), steps=2)
    expected = draw(pipeline, PROMPTS, generator=seeded(1), steps=2)
    assert torch.allclose(x, expected, atol=1e-5)
    assert draw(again, PROMPTS, steps=1).dtype == torch.bfloat16
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsMissingError, match="no whole set in that folder"):
        pretrained_pipeline(tmp_path)
    weights.unlink()
    torch.save(pipeline.unet.state_dict(), weights.with_suffix(".bin"))  # a pickle
    with pytest.raises(WeightsMissingError, match="no whole set in that folder"):
        pretrained_pipeline(tmp_path)


# --- what is refused ------------------------------------------------------------------

NOISE = torch.zeros(2, 4, 8, 8)
TWO = PROMPTS[:2]
WRONG: dict[str, tuple[Callable[[Any], object], type[Exception], str]] = {
    "one text": (
        lambda p: draw(p, "a cat"),
        TypeError,
        r'prompts must be like \["a cat", "a dog"\], got \'a cat\'',
    ),
    "no text": (lambda p: draw(p, []), ValueError, r"at least one text, got \[\]"),
    "a number": (lambda p: draw(p, ["a", 3]), TypeError, "must be a text, got 3"),  # type: ignore[list-item]
    "long": (
        lambda p: encode_prompts(p, ["a", "b" * 76]),
        ValueError,
        "at most 77 tokens with its two ends, got 78 in 'bbb",
    ),
    "no steps": (
        lambda p: denoise(p, TWO, NOISE, steps=0),
        ValueError,
        "steps must be at least 1, got 0",
    ),
    "half a step": (
        lambda p: denoise(p, TWO, NOISE, steps=1.5),  # type: ignore[arg-type]
        TypeError,
        "steps must be a whole number, got 1.5",
    ),
    "strength": (
        lambda p: denoise(p, TWO, NOISE, strength=float("inf")),
        ValueError,
        "strength must be a finite number, got inf",
    ),
    "a word for strength": (
        lambda p: denoise(p, TWO, NOISE, strength="7"),  # type: ignore[arg-type]
        TypeError,
        "strength must be a number, got '7'",
    ),
    "scale": (
        lambda p: denoise(p, TWO, NOISE, initial_scale=0),
        ValueError,
        "initial_scale must be a finite number above 0, got 0",
    ),
    "noise of other channels": (
        lambda p: denoise(p, TWO, NOISE[:, :3]),
        ValueError,
        r"noise must have shape \(B, 4, 8, 8\), got \(2, 3, 8, 8\)",
    ),
    "noise without batch": (
        lambda p: denoise(p, TWO, NOISE[0]),
        ValueError,
        r"noise must have shape \(B, 4, h, w\), got \(4, 8, 8\)",
    ),
    "noise of another dtype": (
        lambda p: denoise(p, TWO, NOISE.double()),
        TypeError,
        "noise must have dtype torch.float32 like the model, got torch.float64",
    ),
    "noise of another device": (
        lambda p: denoise(p, TWO, NOISE.to("meta")),
        ValueError,
        "noise must be on cpu like the model, got meta",
    ),
    "noise of another count": (
        lambda p: denoise(p, TWO, NOISE[:1]),
        ValueError,
        "noise must have 2 rows, one a prompt, got 1",
    ),
    "latents": (
        lambda p: decode(p, torch.zeros(2, 3, 64, 64)),
        ValueError,
        r"latents must have shape \(B, 4, 64, 64\), got \(2, 3, 64, 64\)",
    ),
    "NaN": (
        lambda p: decode(p, NOISE / 0),
        ValueError,
        "latents must be finite, got 2 of 2 rows with NaN",
    ),
    "a list": (
        lambda p: decode(p, [0.0]),  # type: ignore[arg-type]
        TypeError,
        r"latents must be a torch.Tensor of shape \(B, 4, h, w\), got list",
    ),
    "height": (
        lambda p: start_noise(p, 1, height=60),
        ValueError,
        "height must be a multiple of 8 pixels, got 60",
    ),
    "width": (
        lambda p: draw(p, TWO, width=0),
        ValueError,
        "width must be at least 1, got 0",
    ),
    "count": (lambda p: start_noise(p, 0), ValueError, "count must be at least 1"),
    "a seed": (
        lambda p: start_noise(p, 1, 3),  # type: ignore[arg-type]
        TypeError,
        "generator must be a torch.Generator",
    ),
    "a part": (
        lambda p: draw(p.unet, TWO),
        TypeError,
        "must be a StableDiffusionPipeline, got UNet2DConditionModel",
    ),
    "dtype": (
        lambda p: pretrained_pipeline(dtype=torch.int64),
        TypeError,
        "dtype must be a floating torch.dtype, got torch.int64",
    ),
    "seed": (lambda p: tiny_pipeline(-1), ValueError, "seed must be at least 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(pipeline: Any, name: str) -> None:
    act, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        act(pipeline)


def test_the_longest_prompt_is_taken(pipeline: Any) -> None:
    assert encode_prompts(pipeline, ["b" * 75, ""]).shape == (2, 77, 16)
