"""Pictures from text by latent diffusion, with the pipelines that ``diffusers`` loads.

A pipeline holds four parts: a text encoder, a network that predicts noise, a decoder of
latents into pixels, and a scheduler, which knows the noise levels and how to step from
one to the next. The loop that its call hides is

    c = encoder(tokens of the prompt),   u = encoder(tokens of "")
    z_T = σ_init·ε,  ε ~ N(0, I)
    for t in the scheduler's times:
        y = scale_model_input(z, t)
        ε̂ = ε_θ(y, t, u) + w·(ε_θ(y, t, c) − ε_θ(y, t, u))
        z = step(ε̂, t, z)
    x = decode(z/s),   brought from [−1, 1] to [0, 1]

with s the scaling factor of the latents and f the pixels along a side of one of them (8
for Stable Diffusion). The network of some pipelines predicts x₀ or v in the place of ε;
the scheduler knows, and the loop is the same.

Sources: Rombach et al. 2022, "High-resolution image synthesis with latent diffusion
models" (arXiv:2112.10752); Ho and Salimans 2022, "Classifier-free diffusion guidance"
(arXiv:2207.12598).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from course_utils.checks import (
    check_count,
    check_generator,
    check_number,
    check_positive,
    check_samples,
)
from course_utils.models.guidance import guide

STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"


class Pipeline(Protocol):
    """What the loop asks of a ``StableDiffusionPipeline``, the only kind it takes."""

    tokenizer: Any  # texts to tokens (B, L)
    text_encoder: Any  # tokens to c (B, L, E)
    unet: Any  # y (B, C, h, w), t and c to a guess of ε
    vae: Any  # latents (B, C, h, w) to pixels (B, 3, H, W)
    scheduler: Any  # the times, σ_init, and the steps
    vae_scale_factor: int  # f = H/h

    @property
    def device(self) -> torch.device: ...

    def to(self, *place: Any) -> Pipeline: ...

    def __call__(self, *args: Any, **options: Any) -> Any: ...


# --- the loop -------------------------------------------------------------------------


@torch.no_grad()
def encode_prompts(pipeline: Pipeline, prompts: Sequence[str]) -> Tensor:
    """c of each prompt, (B, L, E): a vector for each of its L tokens.

    A short prompt is filled up to L, the most that the encoder takes: 77 for Stable
    Diffusion. The two ends take a token each.

    Args:
        pipeline: as :func:`pretrained_pipeline` or :func:`tiny_pipeline` makes.
        prompts: B texts; "" is no condition.

    Raises:
        TypeError: one text in the place of several; another kind of pipeline.
        ValueError: no prompt; one of more than L tokens, which the pipeline's own call
            cuts off in silence.
    """
    texts = _check_prompts(pipeline, prompts)
    tokens = pipeline.tokenizer(
        texts,
        padding="max_length",
        max_length=pipeline.tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids  # (B, L)
    return pipeline.text_encoder(tokens.to(pipeline.device))[0]


def start_noise(
    pipeline: Pipeline,
    count: int,
    generator: torch.Generator | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Tensor:
    """ε ~ N(0, I) in the shape of latents, (B, C, H/f, W/f), not yet times σ_init.

    Args:
        pipeline: says C, f, the dtype and the device.
        count: B.
        generator: of random numbers, on its own device; None for torch's.
        height, width: H and W in pixels, multiples of f; None for those that the
            network was trained at.

    Raises:
        TypeError, ValueError: sizes that are no whole numbers, too small, or no
            multiples of f; a generator of another kind.
    """
    check_generator(generator)
    usual = _check_pipeline(pipeline).unet.config.sample_size
    usual = (usual, usual) if isinstance(usual, int) else usual
    f = pipeline.vae_scale_factor
    sides = [
        side if size is None else _check_side(name, size, f)
        for name, size, side in zip(
            ("height", "width"), (height, width), usual, strict=True
        )
    ]
    shape = (check_count("count", count), pipeline.unet.config.in_channels, *sides)
    # drawn where the generator is, so that a seed gives the same picture on a GPU
    place = pipeline.device if generator is None else generator.device
    noise = torch.randn(
        shape, generator=generator, device=place, dtype=pipeline.unet.dtype
    )
    return noise.to(pipeline.device)


def guided_noise(
    pipeline: Pipeline,
    z: Tensor,
    t: Tensor,
    c: Tensor,
    u: Tensor,
    strength: float,
) -> Tensor:
    """ε̂ = ε_u + w·(ε_c − ε_u) of latents z (B, C, h, w) at the scheduler's time t.

    Args:
        pipeline: whose scheduler has been given its times.
        z: latents.
        t: one of these times, ().
        c, u: the prompts, and the empty prompt, encoded, (B, L, E) each.
        strength: w. The network is not asked for what has weight 0.
    """
    y = pipeline.scheduler.scale_model_input(z, t)

    def noise(text: Tensor) -> Tensor:
        return pipeline.unet(y, t, encoder_hidden_states=text).sample

    return guide(lambda: noise(u), lambda: noise(c), strength)


@torch.no_grad()
def denoise(
    pipeline: Pipeline,
    prompts: Sequence[str],
    noise: Tensor,
    *,
    steps: int = 50,
    strength: float = 7.5,
    initial_scale: float | None = None,
    watch: Callable[[int, Tensor], object] | None = None,
) -> Tensor:
    """Latents z_0 (B, C, h, w) of the prompts, from noise ε of the same shape.

    A scheduler that draws noise in its steps takes it from torch's own generator. The
    pipeline's own call has w = 1 for every w < 1; this loop does what w says.

    Args:
        pipeline: its scheduler is given new times.
        prompts: B texts.
        noise: ε, as :func:`start_noise` draws.
        steps: N; a few schedulers ask the network more than N times.
        strength: w.
        initial_scale: σ_init; None for that of the scheduler.
        watch: called after each step with its number, from 1 on, and the latents.

    Raises:
        TypeError, ValueError: as for :func:`encode_prompts`; noise of another shape,
            dtype or device, or not one for each prompt; steps < 1; a strength that is
            not finite; a scale that is not above 0.
    """
    check_count("steps", steps)
    _check_strength(strength)
    c = encode_prompts(pipeline, prompts)  # (B, L, E)
    u = encode_prompts(pipeline, [""] * len(c))
    _check_latents("noise", noise, pipeline, len(c))
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(steps, device=noise.device)
    if initial_scale is None:
        initial_scale = scheduler.init_noise_sigma
    z = check_positive("initial_scale", initial_scale) * noise
    for step, t in enumerate(scheduler.timesteps, start=1):
        eps = guided_noise(pipeline, z, t, c, u, strength)
        z = scheduler.step(eps, t, z).prev_sample
        if watch is not None:
            watch(step, z)
    return z


@torch.no_grad()
def decode(pipeline: Pipeline, z: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] of latents z (B, C, H/f, W/f).

    Raises:
        TypeError, ValueError: latents of another shape, dtype or device; NaN.
    """
    _check_latents("latents", z, pipeline)
    x = pipeline.vae.decode(z / pipeline.vae.config.scaling_factor).sample
    return (x / 2 + 0.5).clamp(0, 1)  # from [−1, 1]


def draw(
    pipeline: Pipeline,
    prompts: Sequence[str],
    *,
    generator: torch.Generator | None = None,
    height: int | None = None,
    width: int | None = None,
    steps: int = 50,
    strength: float = 7.5,
    initial_scale: float | None = None,
    watch: Callable[[int, Tensor], object] | None = None,
) -> Tensor:
    """An image of each prompt, (B, 3, H, W) in [0, 1]: noise, loop and decoder.

    The arguments and errors are those of :func:`start_noise` and :func:`denoise`.
    """
    texts = _check_prompts(pipeline, prompts)
    noise = start_noise(pipeline, len(texts), generator, height, width)
    z = denoise(
        pipeline,
        texts,
        noise,
        steps=steps,
        strength=strength,
        initial_scale=initial_scale,
        watch=watch,
    )
    return decode(pipeline, z)


# --- pipelines ------------------------------------------------------------------------


def tiny_pipeline(seed: int = 0, scheduler: Any = None) -> Pipeline:
    """A pipeline of the classes of Stable Diffusion that has learnt nothing.

    Its images of 64 × 64 pixels are noise; it shows that code runs. Latents are
    (4, 8, 8), f = 8, L = 77 and E = 16. Nothing is read from a file or written to one.

    Args:
        seed: of the weights.
        scheduler: None for ``EulerDiscreteScheduler``, with σ_init ≈ 14.6.

    Raises:
        TypeError, ValueError: a seed that is no whole number ≥ 0.
    """
    check_count("seed", seed, least=0)
    tokenizer = _tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {"text_encoder": _tiny_encoder(tokenizer), "unet": _tiny_unet()}
        parts["vae"] = _tiny_autoencoder()
    if scheduler is None:
        scheduler = _diffusers().EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
        )
    return _diffusers().StableDiffusionPipeline(
        **{name: part.eval().requires_grad_(False) for name, part in parts.items()},
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _tiny_tokenizer() -> Any:
    """A token for each byte, in a word or at its end: of any text and any language."""
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())  # 256 signs, one for each byte
    signs = [*letters, *(f"{letter}</w>" for letter in letters)]
    signs += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {sign: place for place, sign in enumerate(signs)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _tiny_encoder(tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _tiny_unet() -> Any:
    return _diffusers().UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=16,
    )


def _tiny_autoencoder() -> Any:
    return _diffusers().AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.18215,
        sample_size=64,
    )


class WeightsMissingError(FileNotFoundError):
    """The weights of a pipeline are not here, or not whole, and could not be had.

    Attributes:
        name: what was looked for.
    """

    def __init__(self, name: str, place: str, ask: str, error: Exception) -> None:
        self.name = name
        why = str(error).strip().splitlines() or [""]
        super().__init__(
            f"expected the weights of a StableDiffusionPipeline, {name!r}, as"
            f" safetensors, found no whole set in {place}: where there is a"
            f" network, pretrained_pipeline({ask}download=True) fetches it once, of"
            " Stable Diffusion 1.5 about 4.3 GB, with variant='fp16' 2.1 GB"
            f" ({type(error).__name__}: {why[0]})"
        )


def pretrained_pipeline(
    name: str | Path = STABLE_DIFFUSION,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    download: bool = False,
    cache: str | Path | None = None,
) -> Pipeline:
    """A pipeline with the weights that were trained, from files that are here.

    It comes without the checker that hides some pictures, which the loop does not ask:
    look before you show. Stable Diffusion 1.5 may be used under the licence CreativeML
    OpenRAIL-M. Its own scheduler has σ_init = 1; one with another scale is made by
    ``EulerDiscreteScheduler.from_config(pipeline.scheduler.config)``.

    Args:
        name: a folder that ``save_pretrained`` wrote, or a name in the hub.
        device, dtype: of the weights; ``torch.float16`` needs a GPU.
        variant: "fp16" for files of half the size, where the hub has them.
        download: whether what is not in the cache is fetched; without it no network
            is asked. A download that broke off goes on where it stopped.
        cache: the folder of the cache; None for that of diffusers.

    Raises:
        TypeError: a dtype that is none.
        WeightsMissingError: no weights, or not all; only files of safetensors count.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating torch.dtype, got {dtype!r}")
    there, wanted = torch.device(device), str(name)
    folder = isinstance(name, Path) or Path(name).is_dir() or name.count("/") > 1
    place = "that folder" if folder else str(cache or "the cache of diffusers")
    ask = "" if folder or name == STABLE_DIFFUSION else f"{name!r}, "
    load = partial(
        _diffusers().StableDiffusionPipeline.from_pretrained,
        wanted,
        dtype=dtype,
        variant=variant,
        use_safetensors=True,  # no pickles
        cache_dir=cache,
        low_cpu_mem_usage=False,
        requires_safety_checker=False,
        **dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder")),
    )
    try:
        pipeline = load(local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        if folder or not download:
            raise WeightsMissingError(wanted, place, ask, error) from error
        try:
            pipeline = load(local_files_only=False)
        except Exception as error:  # what a network raises has no common class
            place += " and could not download it"
            raise WeightsMissingError(wanted, place, ask, error) from error
    return pipeline.to(there)


def _diffusers() -> Any:
    """The library, without what it says of torchvision, which is not needed here."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        import diffusers

        _ = diffusers.StableDiffusionPipeline  # imported now
    finally:
        logging.set_verbosity(before)
    return diffusers


# --- checks ---------------------------------------------------------------------------


def _check_pipeline(pipeline: Any) -> Any:
    """Raises TypeError for what is no ``StableDiffusionPipeline``."""
    if not isinstance(pipeline, _diffusers().StableDiffusionPipeline):
        got = type(pipeline).__name__
        raise TypeError(f"pipeline must be a StableDiffusionPipeline, got {got}")
    return pipeline


def _check_prompts(pipeline: Any, prompts: Sequence[str]) -> list[str]:
    """The prompts, each short enough; errors as :func:`encode_prompts` says."""
    _check_pipeline(pipeline)
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise TypeError(f'prompts must be like ["a cat", "a dog"], got {prompts!r}')
    if not len(prompts):
        raise ValueError(f"prompts must hold at least one text, got {prompts!r}")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise TypeError(f"a prompt must be a text, got {prompt!r}")
    limit = pipeline.tokenizer.model_max_length
    for prompt in prompts:
        count = len(pipeline.tokenizer(prompt, verbose=False).input_ids)
        if count > limit:
            raise ValueError(
                f"a prompt must have at most {limit} tokens with its two ends, got"
                f" {count} in {prompt!r}"
            )
    return list(prompts)


def _check_side(name: str, size: int, f: int) -> int:
    """A side in latents of one in pixels."""
    if check_count(name, size) % f:
        raise ValueError(f"{name} must be a multiple of {f} pixels, got {size}")
    return size // f


def _check_strength(strength: float) -> None:
    if not isfinite(check_number("strength", strength)):
        raise ValueError(f"strength must be a finite number, got {strength!r}")


def _check_latents(
    name: str, z: Tensor, pipeline: Any, count: int | None = None
) -> None:
    """Latents (B, C, h, w) of any h and w, in the dtype of the pipeline."""
    unet = _check_pipeline(pipeline).unet
    free: Any = z.shape[2:] if isinstance(z, Tensor) and z.ndim == 4 else ("h", "w")
    like = next(unet.parameters())
    check_samples(z, shape=(unet.config.in_channels, *free), like=like, name=name)
    if count is not None and len(z) != count:
        raise ValueError(f"{name} must have {count} rows, one a prompt, got {len(z)}")
