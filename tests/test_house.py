"""Any shape, any device, any float dtype: every public model, loss and sampler.

One table lists what is public. Each entry builds its model for samples of a shape and
says what it does with a batch of them; everything that comes out must live where the
samples live. The ``meta`` device stands for a GPU: a tensor that is made on the CPU by
mistake cannot be mixed with one on it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import course_utils
from course_utils.checks import check_labels, check_points, check_times
from course_utils.data.captions import Captions
from course_utils.models.classifier import (
    Classifier,
    augment,
    augmented_cross_entropy,
    plain_cross_entropy,
)
from course_utils.models.clustering import (
    ContrastLoss,
    DigitCode,
    InformationLoss,
    LabelLoss,
    Views,
)
from course_utils.models.diffusion import (
    DDIM,
    DDPM,
    DDPMSchedule,
    DiffusionLoss,
    GuidedDenoiser,
    NoiseNet,
    ProbabilityFlow,
    Schedule,
    VEExponential,
    VEPower,
    VPCosine,
    VPLinear,
    evidence_lower_bound,
    flow_log_prob,
    jump,
    linear_betas,
    mlp_denoiser,
    walk,
)
from course_utils.models.diffusion.denoiser import LogSNRFeatures
from course_utils.models.flow_matching import (
    FlowMatching,
    FlowMatchingLoss,
    GuidedVelocity,
    VelocityNet,
    mlp_velocity,
)
from course_utils.models.flow_matching.path import LinearPath
from course_utils.models.flow_matching.velocity import TimeFeatures
from course_utils.models.kernel_density import KernelDensity
from course_utils.models.latent_diffusion import (
    LatentSpace,
    TextToImage,
    caption_flow,
    gaussian_floor,
    straight_loss,
    teacher_pairs,
)
from course_utils.models.normalizing_flow import (
    AffineCoupling,
    NormalizingFlow,
    Permutation,
    SplineCoupling,
    negative_log_likelihood,
)
from course_utils.models.translation import CycleGAN, Game, identity_loss
from course_utils.models.vae import (
    JointVAE,
    RelaxedLoss,
    coloured_vae,
    conv_vae,
    exact_elbo,
    exact_log_prob,
    log_weights,
    negative_elbo,
)
from course_utils.networks.conditioning import ClassLabels, Tokens, Vectors, Words
from course_utils.networks.images import conv_decoder

SHAPES = [(2,), (1, 28, 28), (3, 8, 8)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
B = 4
CAPTIONS = Captions()
Outputs = list[Tensor]


class SmallNet(nn.Module):
    """A backbone of one's own: a convolution for images, a layer for points."""

    def __init__(self, shape: tuple[int, ...], time_dim: int, dim: int) -> None:
        super().__init__()
        self.layer = (
            nn.Conv2d(shape[0], shape[0], 3, padding=1)
            if len(shape) == 3
            else nn.Linear(shape[0], shape[0])
        )
        self.shift = nn.Linear(time_dim + dim, 1)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        if condition is None:
            condition = time.new_empty(len(x), 0)
        elif condition.ndim == 3:  # tokens: their mean
            condition = condition.mean(1)
        shift = self.shift(torch.cat([time, condition], dim=1))
        return self.layer(x) + shift.view(-1, *[1] * (x.ndim - 1))


def labels(x: Tensor) -> Tensor:
    return torch.zeros(len(x), dtype=torch.int64, device=x.device)


# --- what is public: name → (model for samples of a shape, what is done with it) ------

Act = Callable[[Any, Tensor], list[Tensor]]
Case = tuple[Callable[[tuple[int, ...]], Any], Act]


def flow(shape: tuple[int, ...]) -> FlowMatching:
    network = mlp_velocity(shape, width=8, depth=1, frequencies=1)
    return FlowMatching(network, shape)


def flow_of_ones_own(shape: tuple[int, ...]) -> FlowMatching:
    known = ClassLabels(3, 5, drop=0.2)
    backbone = SmallNet(shape, TimeFeatures().out_dim, known.out_dim)
    return FlowMatching(VelocityNet(backbone, known), shape)


def guided_flow(shape: tuple[int, ...]) -> FlowMatching:
    return FlowMatching(GuidedVelocity(flow_of_ones_own(shape).velocity, 2.0), shape)


def denoiser_of_ones_own(shape: tuple[int, ...]) -> NoiseNet:
    schedule, known = VPCosine(), ClassLabels(3, 5, drop=0.2)
    time = LogSNRFeatures(schedule)
    backbone = SmallNet(shape, time.out_dim, known.out_dim)
    return NoiseNet(schedule, backbone, time, shape=shape, condition=known)


def with_text(shape: tuple[int, ...], known: Vectors | Words) -> NoiseNet:
    schedule = VEExponential()
    time = LogSNRFeatures(schedule)
    backbone = SmallNet(shape, time.out_dim, known.out_dim)
    return NoiseNet(schedule, backbone, time, shape=shape, condition=known)


def flow_with_text(shape: tuple[int, ...]) -> FlowMatching:
    known = Words(9, 5, drop=0.3)
    backbone = SmallNet(shape, TimeFeatures().out_dim, known.out_dim)
    return FlowMatching(VelocityNet(backbone, known), shape)


class Painter(nn.Module):
    """From text to image: VAE and flow, as one module that can be moved."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.vae = conv_vae(4, width=2, hidden=8, shape=shape)
        self.flow = caption_flow(4, embedding=5, width=8, depth=1)


def normalizing_flow(kind: str, shape: tuple[int, ...]) -> NormalizingFlow:
    dim = torch.Size(shape).numel()
    make: Callable[..., Any] = AffineCoupling
    if kind == "spline":
        make = lambda d, w: SplineCoupling(d, 3, w, 0)  # noqa: E731
    swap = Permutation(list(range(dim))[::-1])
    return NormalizingFlow([make(dim, 4), swap, make(dim, 4)], shape)


def use_flow(model: FlowMatching, x: Tensor) -> list[Tensor]:
    known = labels(x) if model.classes else None
    batch = x if known is None else (x, known)
    return [
        FlowMatchingLoss()(model, batch),
        FlowMatchingLoss(reduction="mean", generator=torch.Generator())(model, batch),
        model.sample(B, known, steps=2),
        model.trajectory(x, known, steps=2),
        model.trajectory(x, known, steps=2, reverse=True),
    ]


def use_denoiser(model: Any, x: Tensor) -> list[Tensor]:
    known = labels(x) if model.classes else None
    return [*denoise(model, x, known)]


def denoise(model: Any, x: Tensor, known: Tensor | None) -> Iterator[Tensor]:
    batch = x if known is None else (x, known)
    for kind in ("eps", "x0", "v"):
        yield DiffusionLoss(kind, torch.Generator())(model, batch)
    for sampler in (DDIM(model), DDIM(model, eta=0.5), DDPM(model)):
        yield sampler.sample(B, known, steps=2)
    run = DDPM(model).path(x, known, steps=2, generator=torch.Generator())
    yield from (run.x, run.x0)
    if not isinstance(model.schedule, DDPMSchedule):
        yield ProbabilityFlow(model).sample(B, known, steps=2, clean=True)
    yield from evidence_lower_bound(model, x, known, levels=2, repeats=2)
    each = DDIM(model, start_std=torch.ones(model.classes)) if model.classes else None
    if each is not None:
        yield each.sample(B, known, steps=1)


def use_text(text: Callable[[Tensor], Tensor]) -> Act:
    return lambda model, x: [*denoise(model, x, text(x))]


def texts(x: Tensor) -> Tensor:
    """Places of words: one word, two, …, and a row without any."""
    rows = torch.arange(1, B + 1).expand(B, B).tril().roll(1, 0)
    return rows.clone().index_fill(0, torch.tensor(0), 0).to(x.device)


def use_flow_with_text(model: FlowMatching, x: Tensor) -> list[Tensor]:
    text = texts(x)
    known = model.velocity.condition(text, len(x))
    assert known is not None
    late = GuidedVelocity(model.velocity, 2.0, between=(0.3, 0.6))
    t = torch.linspace(0, 1, B, device=x.device)
    return [
        FlowMatchingLoss()(model, (x, text)),
        straight_loss(model, (x, x, text)),
        known,
        late(x, t, text),
        FlowMatching(late, model.shape).trajectory(x, text, steps=4),
        model.sample(B, None, steps=2),
    ]


def use_painter(painter: Painter, x: Tensor) -> list[Tensor]:
    space = LatentSpace(painter.vae, x)
    model = TextToImage(space, painter.flow)
    prompts = ["a red seven", "שבע אדום", "something blue", "the digit 3"]
    z = space.encode(x, torch.Generator())
    pairs = teacher_pairs(painter.flow, CAPTIONS, B, steps=2)
    loss = straight_loss(painter.flow, pairs)
    if not z.is_meta:
        assert gaussian_floor(z.repeat(3, 1)) > 0
    return [
        loss,
        z,
        space.decode(z),
        *space.law(x),
        model.path(prompts, z, steps=3, between=(0.3, 0.6)),
        model.draw(prompts, generator=torch.Generator(), steps=2),
        model.draw(None, count=B, steps=2),
        *pairs[:2],
    ]


def use_normalizing_flow(model: NormalizingFlow, x: Tensor) -> list[Tensor]:
    z, log_det = model.inverse(x)
    parts = [*model(z), model.path(z), model.inverse_path(x), model.sample(B)]
    return [negative_log_likelihood(model, x), z, log_det, *parts]


def use_vae(model: Any, x: Tensor) -> list[Tensor]:
    q = model.posterior(x)
    weights = log_weights(model.decoder, q, x, 3, torch.Generator())
    return [negative_elbo(model, (x,)), model.sample(B), model.reconstruct(x), weights]


def use_joint_vae(model: JointVAE, x: Tensor) -> list[Tensor]:
    exact = exact_elbo(model, x, 2, torch.Generator()).elbo
    each = [] if model.continuous else [exact_log_prob(model, x)]
    return [RelaxedLoss(3)(model, (x,)), *use_vae(model, x), exact, *each]


def use_classifier(model: Any, x: Tensor) -> list[Tensor]:
    batch = (x, labels(x))
    return [
        plain_cross_entropy(model, batch),
        augmented_cross_entropy(model, batch),
        augment(x, generator=torch.Generator()),
        model.log_prob(x),
    ]


def use_digit_code(model: DigitCode, x: Tensor) -> list[Tensor]:
    seen, views = model.seen(x), Views(recolour=True)
    batch = (seen, labels(x))
    return [
        InformationLoss(views, batch)(model, batch),
        ContrastLoss(views)(model.body, batch),
        LabelLoss(views)(model, batch),
        model(x),
        model.features(seen),
        views(x, torch.Generator()),
    ]


def use_translation(model: CycleGAN, x: Tensor) -> list[Tensor]:
    game, batch = Game(identity=0.5), (x, x.flip(0))
    losses = [game.generators(model, batch), game.discriminators(model, batch)]
    if x.shape[1] == 3:  # grey images have no tints
        losses.append(identity_loss(model, batch))
    return [*losses, model.to_b(x), model.to_a(x)]


def with_shape(build: Callable[..., nn.Module], shape: tuple[int, ...]) -> nn.Module:
    return build(shape=shape)


CASES: dict[str, Case] = {
    "flow matching": (flow, use_flow),
    "flow matching, a backbone of one's own": (flow_of_ones_own, use_flow),
    "flow matching, guided": (guided_flow, use_flow),
    "likelihood of flow matching": (
        lambda s: FlowMatching(mlp_velocity(s, width=4, depth=1, frequencies=0), s),
        lambda m, x: [m.log_prob(x, steps=1)],
    ),
    "diffusion, a backbone of one's own": (denoiser_of_ones_own, use_denoiser),
    "diffusion, guided": (
        lambda s: GuidedDenoiser(denoiser_of_ones_own(s), 2.0),
        use_denoiser,
    ),
    "diffusion, vectors of a text": (
        lambda s: with_text(s, Vectors(6, 5)),
        use_text(lambda x: torch.ones_like(x).flatten(1)[:, :1].expand(-1, 6)),
    ),
    "diffusion, tokens of a text": (
        lambda s: with_text(s, Tokens(6, 5, drop=0.3)),
        use_text(lambda x: x.new_ones(len(x), 7, 6)),
    ),
    "diffusion, words of a text": (
        lambda s: with_text(s, Words(9, 5, drop=0.3)),
        use_text(texts),
    ),
    "flow matching, words of a text": (flow_with_text, use_flow_with_text),
    "text to image": (Painter, use_painter),
    "likelihood of diffusion": (
        lambda s: mlp_denoiser(VPLinear(), shape=s, width=4, depth=1, frequencies=0),
        lambda m, x: [flow_log_prob(m, x, steps=1)],
    ),
    "affine flow": (lambda s: normalizing_flow("affine", s), use_normalizing_flow),
    "spline flow": (lambda s: normalizing_flow("spline", s), use_normalizing_flow),
    "VAE": (lambda s: conv_vae(4, width=2, hidden=8, shape=s), use_vae),
    "VAE, continuous and discrete": (
        lambda s: coloured_vae(2, (3, 2), width=2, hidden=8, shape=s),
        use_joint_vae,
    ),
    "VAE, discrete": (
        lambda s: coloured_vae(0, (3, 2), width=2, hidden=8, shape=s),
        use_joint_vae,
    ),
    "classifier": (lambda s: Classifier(2, s, classes=3), use_classifier),
    "translation": (lambda s: CycleGAN(s, shrink=2), use_translation),
    "code without labels": (lambda s: DigitCode(3, 2, s, side=8), use_digit_code),
}
SCHEDULES = [
    VEExponential(),
    VEPower(7.0),
    VPCosine(),
    VPLinear(),
    DDPMSchedule(linear_betas(4, end=0.8)),
]
TIMES = ("log-SNR", "sinusoidal", "plain")
for i, one in enumerate(SCHEDULES):
    time = TIMES[i % len(TIMES)]
    build = partial(mlp_denoiser, one, time=time, width=8, depth=1, frequencies=1)
    CASES[f"diffusion, {type(one).__name__}, {time}"] = (
        partial(with_shape, build),
        use_denoiser,
    )

FOR_IMAGES = {
    "VAE",
    "VAE, continuous and discrete",
    "VAE, discrete",
    "classifier",
    "code without labels",
    "text to image",
    "translation",
}
LIKELIHOODS = {name for name in CASES if "likelihood" in name}
# half precision holds no likelihoods, and no spline's knots
PRECISE = LIKELIHOODS | {"affine flow", "spline flow"}


def suited(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether a case makes sense; a likelihood takes a pass for each value."""
    if name in FOR_IMAGES and len(shape) < 3:
        return False
    if name in LIKELIHOODS and torch.Size(shape).numel() > 300:
        return False
    return name not in PRECISE or dtype != torch.bfloat16


DEVICES = ["meta", "cuda"] if torch.cuda.is_available() else ["meta"]
EVERY = [(n, s, d) for n in CASES for s in SHAPES for d in DTYPES if suited(n, s, d)]
ON_A_DEVICE = [
    (n, s)
    for n in CASES
    for s in ((2,), (3, 8, 8))
    if suited(n, s, torch.float32) and not (n in LIKELIHOODS and s != (2,))
]


@pytest.mark.parametrize(("name", "shape", "dtype"), EVERY)
def test_any_shape_and_dtype(
    name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    build, act = CASES[name]
    model = build(shape).to(dtype)
    x = torch.rand(B, *shape).to(dtype)
    outputs = act(model, x)
    for out in outputs:
        assert out.dtype == dtype
        assert out.isfinite().all()
        assert B in out.shape[:2]
    if not outputs[0].requires_grad:
        return  # a likelihood by a solver
    outputs[0].mean().backward()
    assert all(
        p.grad.isfinite().all() for p in model.parameters() if p.grad is not None
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "shape"), ON_A_DEVICE)
def test_any_device(name: str, shape: tuple[int, ...], device: str) -> None:
    build, act = CASES[name]
    outputs = act(build(shape).to(device), torch.rand(B, *shape).to(device))
    assert {out.device.type for out in outputs} == {device}
    assert all(out.is_meta or out.isfinite().all() for out in outputs)


def test_tensors_without_values_pass_the_checks() -> None:
    with FakeTensorMode():
        x = torch.empty(B, 2, device="cuda")  # of a GPU that is not there
        assert check_points(x) is x
        t = torch.empty(B, device="cuda")
        assert check_times(t, batch=B, first=0.0, last=1.0) is t
        assert check_labels(labels(x), classes=3, batch=B).device == x.device


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_forward_process_in_any_shape(
    schedule: Schedule, shape: tuple[int, ...]
) -> None:
    x, eps = torch.randn(2, 28, *shape)
    t = schedule.draw_time(x)
    each = torch.stack(
        [
            jump(schedule, x[i : i + 1], t[i : i + 1], eps[i : i + 1])[0]
            for i in range(28)
        ]
    )
    assert torch.allclose(jump(schedule, x, t, eps), each)
    times = schedule.times(3)[::-1]
    assert walk(schedule, x.to("meta"), times, torch.Generator()).shape == (
        4,
        28,
        *shape,
    )


@pytest.mark.parametrize("shape", [(1, 12, 16), (3, 8, 8)])
def test_a_density_of_stored_images_of_any_shape(shape: tuple[int, ...]) -> None:
    images = torch.rand(5, *shape)
    assert KernelDensity(images, 0.4).log_prob(images[:2]).shape == (2,)
    assert conv_decoder(3, 2, 8, shape)(torch.zeros(1, 3)).shape[1:] == shape


# --- the house ------------------------------------------------------------------------

ROOT = Path(course_utils.__file__).parent


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, as its statements name them."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith("course_utils")}


MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path
    for path in ROOT.rglob("*.py")
    if path.name != "__init__.py"
}


def test_no_import_goes_in_a_circle() -> None:
    left = {name: imported(path) & set(MODULES) for name, path in MODULES.items()}
    while left:
        free = {name for name, needs in left.items() if not needs & set(left)}
        assert free, f"these import each other: {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in free}


def test_a_package_is_imported_by_its_modules() -> None:
    packages = {str(p.parent.relative_to(ROOT)) for p in ROOT.rglob("__init__.py")}
    names = {f"course_utils.{p}".replace("/", ".") for p in packages if p != "."}
    for name, path in MODULES.items():
        assert not imported(path) & names, f"{name} should name the defining module"


# --- nothing is broadcast in silence --------------------------------------------------


class Grey(nn.Module):
    """A backbone that gives one channel, whatever it is given."""

    def forward(self, x: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        return x.mean(1, keepdim=True)


@pytest.mark.parametrize("preconditioned", [True, False])
def test_a_backbone_gives_the_shape_it_was_given(preconditioned: bool) -> None:
    x, schedule = torch.rand(B, 3, 8, 8), VPCosine()
    flow = FlowMatching(VelocityNet(Grey(), preconditioned=preconditioned), (3, 8, 8))
    noise = NoiseNet(
        schedule,
        Grey(),
        LogSNRFeatures(schedule),
        shape=(3, 8, 8),
        preconditioned=preconditioned,
    )
    wrong = r"backbone gives must have shape \(4, 3, 8, 8\), got \(4, 1, 8, 8\)"
    with pytest.raises(ValueError, match=wrong):
        FlowMatchingLoss()(flow, x)
    with pytest.raises(ValueError, match=wrong):
        DiffusionLoss()(noise, x)


def test_a_vae_takes_one_image_for_each_latent() -> None:
    vae = conv_vae(4, width=2, hidden=8)
    with pytest.raises(ValueError, match=r"\(5, 1, 28, 28\), got \(1, 1, 28, 28\)"):
        vae.decoder.log_likelihood(torch.rand(1, 1, 28, 28), torch.randn(5, 4))
    vae.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 5))
    with pytest.raises(ValueError, match=r"encoder gives must have shape \(2, 8\)"):
        vae.posterior(torch.rand(2, 1, 28, 28))


def test_times_keep_their_precision_beside_half_precision() -> None:
    t = torch.tensor([0.996, 0.9985, 0.999])
    zeros = torch.zeros(3, 1, dtype=torch.bfloat16)
    noise_left = LinearPath().point(zeros + 1, zeros, t)[:, 0].float()
    assert torch.allclose(noise_left, 1 - t, rtol=0.01)
    x0, eps = torch.rand(2, 500, 2).bfloat16()
    small = torch.full((500,), 0.005)
    denoiser = mlp_denoiser(VPCosine(), width=8, depth=1, frequencies=0).bfloat16()
    with torch.no_grad():  # v is about ε where there is hardly any noise
        half = DiffusionLoss("v").at(denoiser, x0, small, eps).float()
        full = DiffusionLoss("v").at(denoiser.float(), x0.float(), small, eps.float())
    assert torch.allclose(half, full, atol=0.15)


# --- each room keeps to itself --------------------------------------------------------

MAY_NOT = {  # the map of CONTRIBUTING.md
    "networks": ("data", "models", "training"),
    "data": ("models", "networks", "training", "artifacts", "recipes"),
    "training": ("data", "models", "networks", "artifacts", "recipes"),
    "models": (
        "artifacts",
        "data.alice",
        "data.download",
        "data.mnist",
        "data.registries",
        "live",
        "plotting",
        "recipes",
    ),
    "live": ("artifacts", "recipes", "training"),
}


@pytest.mark.parametrize("room", MAY_NOT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    inside = {k: v for k, v in MODULES.items() if k.startswith(f"course_utils.{room}.")}
    assert inside
    for name, path in inside.items():
        for other in MAY_NOT[room]:
            whole = f"course_utils.{other}"
            found = {m for m in imported(path) if f"{m}.".startswith(f"{whole}.")}
            assert not found, f"{name} imports {sorted(found)}"
