"""Diffusion against diffusers, Gaussian data in closed form, and the exact floors."""

from collections.abc import Callable
from itertools import pairwise
from math import exp, log, pi
from typing import Any

import mpmath
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.models.embeddings import get_timestep_embedding
from scipy.stats import chisquare, ks_2samp
from torch import Tensor

from course_utils.data import PlaneData, Spiral, Square
from course_utils.data.scan import ScannedData
from course_utils.metrics import sliced_wasserstein
from course_utils.models.diffusion import (
    DDIM,
    DDPM,
    ContinuousSchedule,
    DDPMSchedule,
    Denoiser,
    DiffusionLoss,
    GapToOptimum,
    NoiseNet,
    OptimalDenoiser,
    ProbabilityFlow,
    Sampler,
    Schedule,
    VEExponential,
    VEPower,
    VPCosine,
    VPLinear,
    convert,
    cosine_betas,
    data_deviation,
    evidence_lower_bound,
    flow_log_prob,
    jump,
    linear_betas,
    loss_floor,
    mean_loss_floor,
    mlp_denoiser,
    mutual_information,
    smoothed_log_prob,
    start_deviation,
    transition,
    walk,
)
from course_utils.models.diffusion.samplers import Guess, Noise
from course_utils.models.diffusion.schedules import Level
from course_utils.networks.basic import SinusoidalEmbedding
from course_utils.networks.conditioning import Condition
from course_utils.notebook import seeded
from course_utils.solvers import RK4, Euler, Heun
from course_utils.training import train


class Straight(ContinuousSchedule):
    """One's own: α = 1 − t and σ = t, the path of flow matching backwards."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def rates(self, t: Tensor) -> Level:
        return Level(-torch.ones_like(t), torch.ones_like(t))

    def time(self, log_snr: Tensor) -> Tensor:
        return (-log_snr / 2).sigmoid()


CONTINUOUS: dict[str, ContinuousSchedule] = {
    "VE exponential": VEExponential(),
    "VE linear": VEPower(1.0),
    "VE power 7": VEPower(7.0, 0.002, 80.0),
    "VP cosine": VPCosine(),
    "VP linear": VPLinear(),
    "one's own": Straight(0.005, 0.995),
}
CHAINS = {
    "DDPM linear": DDPMSchedule(linear_betas(40, 1e-3, 0.3)),
    "DDPM cosine": DDPMSchedule(cosine_betas(40)),
}
SCHEDULES: dict[str, Schedule] = {**CONTINUOUS, **CHAINS}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


class Known(Denoiser):
    """Says always the same."""

    def __init__(self, schedule: Schedule, kind: str, output: Tensor) -> None:
        super().__init__(schedule)
        self.kind, self.output = kind, output

    def at(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.output


class ForGaussian(Denoiser):
    """x̂₀ = g·αd²/(α²d² + σ²)·x: the best guess for N(0, d²I) if g = 1."""

    kind = "x0"

    def __init__(
        self, schedule: Schedule, data_std: float, shrink: float = 1.0
    ) -> None:
        super().__init__(schedule, data_std=data_std)
        self.shrink = shrink

    def gain(self, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        power = alpha**2 * self.data_std**2 + sigma**2
        return self.shrink * alpha * self.data_std**2 / power

    def at(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return x * self.gain(t)[:, None]


def moment(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def shaken(net: NoiseNet) -> NoiseNet:
    """In float64, with weights far from those it starts with."""
    generator = seeded(3)
    net = net.double()
    for parameter in net.parameters():
        parameter.data = 0.2 * torch.randn(
            parameter.shape, generator=generator, dtype=torch.float64
        )
    return net


# --- schedules ------------------------------------------------------------------------


def inner_times(schedule: Schedule, n: int = 50) -> Tensor:
    share = torch.linspace(0.002, 0.998, n, dtype=torch.float64)
    return schedule.first + (schedule.last - schedule.first) * share


@pytest.mark.parametrize("name", CONTINUOUS)
def test_rates_are_the_slopes_of_alpha_and_sigma(name: str) -> None:
    schedule = CONTINUOUS[name]
    t = inner_times(schedule)
    rate, h = schedule.rates(t), 1e-5
    slopes = [(f(t + h) - f(t - h)) / (2 * h) for f in (schedule.alpha, schedule.sigma)]
    for slope, expected in zip(slopes, rate, strict=True):
        assert torch.allclose(slope, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_time_inverts_the_log_snr_which_falls(name: str) -> None:
    schedule = CONTINUOUS[name]
    t = inner_times(schedule)
    log_snr = schedule.log_snr(t)
    assert (log_snr.diff() < 0).all()
    assert torch.allclose(schedule.time(log_snr), t, atol=1e-9)


def test_shapes_of_the_schedules() -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.allclose(VEExponential().sigma(t), torch.exp(5 * (t - 1)))
    assert torch.allclose(VEPower(1.0).sigma(t).diff(n=2), torch.zeros(9).double())
    limit = VEPower(1e6).sigma(t)  # ρ → ∞ is the exponential
    assert torch.allclose(limit, VEExponential().sigma(t), rtol=1e-4)
    for name in ("VP cosine", "VP linear", *CHAINS):
        schedule = SCHEDULES[name]
        t = torch.tensor(schedule.times(20), dtype=torch.float64)
        power = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
        assert torch.allclose(power, torch.ones(21).double())


@pytest.mark.parametrize("name", SCHEDULES)
def test_times_fall_from_last_to_first(name: str) -> None:
    schedule = SCHEDULES[name]
    end = 0.0 if name in CHAINS else schedule.first
    for steps in (1, 7, 40):
        times = schedule.times(steps)
        assert len(times) == steps + 1
        assert (times[0], times[-1]) == (schedule.last, end)
        assert all(b < a for a, b in pairwise(times))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_times_even_in_log_snr(name: str) -> None:
    schedule = CONTINUOUS[name]
    times = torch.tensor(schedule.times(12, "log-SNR"), dtype=torch.float64)
    step = schedule.log_snr(times).diff()
    assert torch.allclose(step, step.mean().expand(12), rtol=1e-6)
    assert (times[0], times[-1]) == (schedule.last, schedule.first)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("linear", linear_betas(60)), ("squaredcos_cap_v2", cosine_betas(60))],
)
def test_betas_equal_diffusers(theirs: str, ours: Tensor) -> None:
    scheduler: Any = DDPMScheduler(60, beta_schedule=theirs)
    assert torch.allclose(ours.float(), scheduler.betas, rtol=1e-4)
    bar = DDPMSchedule(ours).alphas_bar
    assert torch.allclose(bar.float(), scheduler.alphas_cumprod, rtol=1e-3)


def test_a_step_of_the_chain_adds_beta() -> None:
    schedule = CHAINS["DDPM linear"]
    for t in (1, 2, 17, 40):
        ratio, added = transition(schedule, t - 1, t)
        assert float(added) == pytest.approx(float(schedule.betas[t - 1]))
        assert float(ratio) ** 2 == pytest.approx(1 - float(schedule.betas[t - 1]))


def test_drawn_times_are_uniform() -> None:
    x = torch.empty(40_000, 1, 1)
    t = CHAINS["DDPM linear"].draw_time(x, seeded(0))
    assert t.shape == (40_000,)
    assert chisquare(t.long().bincount(minlength=41)[1:]).pvalue > 1e-3
    cosine = VPCosine(0.2, 0.6)
    counts = (cosine.draw_time(x, seeded(0)) * 100).long().bincount()[20:60]
    assert len(counts) == 40
    assert chisquare(counts).pvalue > 1e-3


ENDS: dict[str, tuple[Callable[[], object], str]] = {
    "cosine": (lambda: VPCosine(last=1.0), "at t = 1"),
    "power": (lambda: VEPower(7.0, 1e-7), "σ = 1e-07 at t = 0"),
    "chain": (lambda: DDPMSchedule(torch.full((60,), 0.5)), "at t = 60"),
    "one's own, no noise": (lambda: Straight(0.0, 0.9), "σ = 0 at t = 0"),
    "one's own, no data": (lambda: Straight(0.1, 1.0), "got α = 0 and .* at t = 1"),
    "no number": (
        lambda: Straight(0.1, float("nan")),
        "last must not be before first, got nan and 0.1",
    ),
    "the wrong way": (
        lambda: Straight(0.9, 0.1),
        "last must not be before first, got 0.1 and 0.9",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_ends_without_data_or_without_noise_are_refused(name: str) -> None:
    make, message = ENDS[name]
    with pytest.raises(ValueError, match=message):
        make()


# --- the forward process --------------------------------------------------------------


@pytest.mark.parametrize("name", ["VE exponential", "VP cosine", "DDPM linear"])
def test_a_jump_has_the_law_of_a_walk(name: str) -> None:
    schedule = SCHEDULES[name]
    x0 = Square().sample(20_000, seeded(1)).double()
    start = 0.0 if name in CHAINS else schedule.first
    times = sorted({start, *schedule.times(10)[:-1]})
    path = walk(schedule, x0, times, seeded(2))
    for k in (1, 4, 10):
        t = torch.full((len(x0),), times[k]).double()
        direct = jump(schedule, x0, t, normal(len(x0), 2, seed=3))
        for i in range(2):
            assert ks_2samp(path[k][:, i], direct[:, i]).pvalue > 1e-3
            # and each point kept its own x₀
            kept = [
                torch.corrcoef(torch.stack([x0[:, i], x[:, i]]))[0, 1]
                for x in (path[k], direct)
            ]
            assert abs(kept[0] - kept[1]) < 4 * (2 / len(x0)) ** 0.5


def test_steps_of_a_walk_are_independent_and_fresh_noise_is_no_walk() -> None:
    schedule, x0 = VEExponential(), torch.zeros(20_000, 2).double()
    first, second = walk(schedule, x0, [0.8, 1.0], seeded(0))

    def correlation(a: Tensor, b: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([a[:, 0], b[:, 0]]))[0, 1])

    assert abs(correlation(first, second - first)) < 4 / 20_000**0.5
    added = exp(0) - exp(-2)
    assert float((second - first).var()) == pytest.approx(added, rel=0.03)
    t = torch.full((20_000,), 1.0).double()
    fresh = jump(schedule, x0, t, normal(20_000, 2, seed=9))
    assert correlation(first, fresh - first) < -0.3


# --- predictions and networks ---------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_three_predictions_agree(name: str) -> None:
    schedule = SCHEDULES[name]
    x0, eps = normal(20, 2), normal(20, 2, seed=1)
    t = torch.tensor(schedule.times(20)[:-1], dtype=torch.float64)
    x = jump(schedule, x0, t, eps)
    level = Level(schedule.alpha(t)[:, None], schedule.sigma(t)[:, None])
    truth = {"x0": x0, "eps": eps, "v": level.alpha * eps - level.sigma * x0}
    for kind, value in truth.items():
        guess = convert(kind, value, x, level)._asdict()
        for other, expected in truth.items():
            assert torch.allclose(guess[other], expected, atol=1e-9)


def test_sinusoidal_embedding_is_the_transformers() -> None:
    t, dim = torch.arange(1, 41).double(), 32
    ours = SinusoidalEmbedding(dim)(t)
    assert torch.allclose(ours[:, 0], t.sin())
    assert torch.allclose(ours[:, 1], t.cos())
    assert torch.allclose(ours[:, 4], (t / 10000 ** (4 / 32)).sin())
    oracle = get_timestep_embedding(
        t, dim, downscale_freq_shift=0
    )  # sines, then cosines
    interleaved = oracle.unflatten(1, (2, dim // 2)).transpose(1, 2).flatten(1)
    assert torch.allclose(ours, interleaved.double(), atol=1e-5)
    # how alike two steps are depends on their distance alone
    alike = ours @ ours.T
    for k in (0, 1, 9):
        band = alike.diagonal(k)
        assert torch.allclose(band, band[0].expand_as(band), atol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_new_network_is_the_best_linear_guess(name: str) -> None:
    schedule = SCHEDULES[name]
    net = mlp_denoiser(schedule, 0.7).double()
    t = torch.tensor(schedule.times(15)[:-1], dtype=torch.float64)
    x = normal(15, 2)
    expected = ForGaussian(schedule, data_std=0.7).predict(x, t).eps
    assert torch.allclose(net.predict(x, t).eps, expected, atol=1e-9)


def test_with_unit_data_and_preserved_variance_the_network_says_v() -> None:
    net = shaken(mlp_denoiser(VPCosine(), 1.0, width=8, depth=1))
    x, t = normal(30, 2), inner_times(net.schedule, 30)
    inner = net.backbone(x, net.time(t), None)
    assert torch.allclose(net.predict(x, t).v, inner, atol=1e-9)


def test_the_networks_inputs_have_unit_scale_with_preconditioning_only() -> None:
    data, schedule = Square(), VEPower(7.0, 0.002, 80.0)
    x0, t = (
        data.sample(4000, seeded(0)),
        schedule.draw_time(torch.empty(4000), seeded(1)),
    )
    x = jump(schedule, x0, t, torch.randn(4000, 2, generator=seeded(2)))
    seen: list[Tensor] = []
    for preconditioned in (True, False):
        net = mlp_denoiser(
            schedule, float(data_deviation(data)), preconditioned=preconditioned
        )
        net.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        net.predict(x, t)
    far = t > t.median()
    assert float(seen[0].std()) == pytest.approx(1, abs=0.03)
    assert float(seen[0][far].std()) == pytest.approx(1, abs=0.03)
    assert float(seen[1][far].std()) > 5


def test_losses_of_the_three_kinds() -> None:
    schedule, data = VEExponential(), Square()
    net = shaken(mlp_denoiser(schedule, 0.6, width=8))
    x0, t, eps = (
        data.sample(50, seeded(0)).double(),
        inner_times(schedule),
        normal(50, 2),
    )
    each = {k: DiffusionLoss(k).at(net, x0, t, eps) for k in ("eps", "x0", "v")}
    guess = net.predict(jump(schedule, x0, t, eps), t)
    assert torch.allclose(each["eps"], ((guess.eps - eps) ** 2).sum(1))
    # x̂₀ − x₀ = −σ/α·(ε̂ − ε), v̂ − v = (α + σ²/α)·(ε̂ − ε), and here α = 1
    sigma = schedule.sigma(t)
    assert torch.allclose(each["x0"], sigma**2 * each["eps"])
    assert torch.allclose(each["v"], (1 + sigma**2) ** 2 * each["eps"])


# --- samplers against diffusers -------------------------------------------------------

KINDS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
BETAS = {
    "linear": linear_betas(40, 1e-3, 0.3),
    "cosine": cosine_betas(40),
    "scaled_linear": torch.linspace(0.05, 0.5, 40).double() ** 2,
}


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_steps_equal_diffusers(betas: str, kind: str, eta: float) -> None:
    schedule = DDPMSchedule(BETAS[betas])
    theirs: Any = DDIMScheduler(
        40, trained_betas=BETAS[betas].numpy(), prediction_type=kind, clip_sample=False
    )
    theirs.alphas_cumprod = schedule.alphas_bar  # in double precision
    x, output = normal(6, 2), normal(6, 2, seed=1)
    sampler = DDIM(Known(schedule, KINDS[kind], output), eta=eta)
    for steps in (40, 10):
        theirs.set_timesteps(steps)
        for t in (40, 30, 40 // steps):
            ours = sampler.step(x, t, t - 40 // steps, None, seeded(5))
            expected = theirs.step(output, t - 1, x, eta=eta, generator=seeded(5))
            assert torch.allclose(ours, expected.prev_sample, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_steps_equal_diffusers(betas: str, kind: str, variance: str) -> None:
    schedule = DDPMSchedule(BETAS[betas])
    theirs: Any = DDPMScheduler(
        40,
        trained_betas=BETAS[betas].numpy(),
        prediction_type=kind,
        clip_sample=False,
        variance_type=f"fixed_{variance}",
    )
    theirs.alphas_cumprod = schedule.alphas_bar
    x, output = normal(6, 2), normal(6, 2, seed=1)
    sampler = DDPM(Known(schedule, KINDS[kind], output), variance=variance)
    for t in (40, 21, 2, 1):
        ours = sampler.step(x, t, t - 1, None, seeded(5))
        expected = theirs.step(output, t - 1, x, generator=seeded(5)).prev_sample
        assert torch.allclose(ours, expected, rtol=1e-6, atol=1e-8)


def test_ddim_chain_equals_diffusers_with_a_network() -> None:
    schedule = CHAINS["DDPM linear"]
    net = shaken(mlp_denoiser(schedule, 1.0, width=16, time="sinusoidal"))
    theirs: Any = DDIMScheduler(
        40, trained_betas=schedule.betas.numpy(), clip_sample=False
    )
    theirs.alphas_cumprod = schedule.alphas_bar
    theirs.set_timesteps(20)
    start = x = normal(50, 2)
    for i in theirs.timesteps.tolist():
        # their "leading" steps are 38, 36, … 0, ours 40, 38, … 2: start below the top
        with torch.no_grad():
            x = theirs.step(net.predict(x, i + 1.0).eps, i, x).prev_sample
    y = start
    with torch.no_grad():
        for i in range(39, 0, -2):
            y = DDIM(net).step(y, i, max(i - 2, 0))
    assert torch.allclose(x, y, atol=1e-6)


# --- samplers against one another and in closed form ----------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_with_all_the_noise_is_ddpm(name: str) -> None:
    schedule = SCHEDULES[name]
    net = shaken(mlp_denoiser(schedule, 0.6, width=16))
    ddim, ddpm = (
        s.sample(100, steps=8, generator=seeded(1))
        for s in (DDIM(net, eta=1.0), DDPM(net))
    )
    assert torch.allclose(ddim, ddpm, atol=1e-8)
    large = DDPM(net, variance="large").sample(100, steps=8, generator=seeded(1))
    assert not torch.allclose(ddim, large, atol=1e-2)


class Forgetful(Sampler):
    """Guesses x₀ and noises the guess afresh."""

    def move(self, guess: Guess, x: Tensor, t: float, s: float, noise: Noise) -> Tensor:
        alpha, sigma = self.schedule.at(s)
        return alpha * guess(x, t).x0 + sigma * noise()


EVERY: dict[str, Callable[[Denoiser], Sampler]] = {
    "DDPM": DDPM,
    "DDIM η=0": DDIM,
    "DDIM η=.5": lambda denoiser: DDIM(denoiser, eta=0.5),
    "DDIM η=1": lambda denoiser: DDIM(denoiser, eta=1.0),
    "one's own": Forgetful,
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", EVERY)
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_marginals_stay_right_when_the_data_point_is_known(
    name: str, sampler: str, steps: int
) -> None:
    """With x̂₀ = x₀ each keeps x_s ~ N(α_s·x₀, σ_s²I), in steps of any size."""
    schedule, n = SCHEDULES[name], 20_000
    x0 = torch.tensor([[0.4, -0.9]]).double().expand(n, 2)
    last = schedule.at(schedule.last)
    start = last.alpha * x0 + last.sigma * normal(n, 2)
    denoiser = Known(schedule, "x0", x0)
    found = EVERY[sampler](denoiser).path(start, steps=steps, generator=seeded(1))
    assert torch.equal(found.x0, x0.expand(steps, n, 2))
    for t, x in zip(found.times, found.x, strict=True):
        alpha, sigma = map(float, schedule.at(t))
        error = (x.mean(0) - alpha * x0[0]).abs().max()
        assert error <= 4.5 * sigma / n**0.5 + 1e-12
        assert torch.allclose(
            x.std(0), torch.full((2,), sigma).double(), rtol=0.03, atol=1e-12
        )


@pytest.mark.parametrize("name", ["VE exponential", "VP cosine", "VP linear"])
def test_orders_of_the_deterministic_samplers(name: str) -> None:
    """For N(0, d²I) the flow multiplies x by deviation at the end over start's."""
    schedule = CONTINUOUS[name]
    gaussian = ForGaussian(schedule, data_std=0.6)
    (a, s), (b, r) = (
        map(float, schedule.at(t)) for t in (schedule.first, schedule.last)
    )
    exact = ((a**2 * 0.36 + s**2) / (b**2 * 0.36 + r**2)) ** 0.5
    x = torch.ones(1, 2).double()
    cases: list[tuple[Sampler, float]] = [
        (DDIM(gaussian), 2.0),
        (ProbabilityFlow(gaussian, solver=Euler()), 2.0),
        (ProbabilityFlow(gaussian, solver=Heun()), 4.0),
        (ProbabilityFlow(gaussian, solver=RK4()), 16.0),
    ]
    for sampler, ratio in cases:
        error = [
            abs(float(sampler.path(x, steps=n).x[-1, 0, 0]) - exact) for n in (160, 320)
        ]
        assert error[0] < 0.05
        assert error[0] / error[1] == pytest.approx(ratio, rel=0.2)


def test_ddpm_for_gaussian_data_tends_to_the_data() -> None:
    gaussian = ForGaussian(VEExponential(), data_std=0.6)
    errors = []
    for steps in (20, 80):
        x = DDPM(gaussian).sample(40_000, steps=steps, generator=seeded(0))
        # variance by hand: x_s = (r·k + g·c)·x_t + noise, all of them numbers
        v = 0.36 + 1.0
        for t, s in pairwise(gaussian.schedule.times(steps)):
            st, ss = exp(5 * (t - 1)) ** 2, exp(5 * (s - 1)) ** 2
            v = (ss / st + (st - ss) / st * float(gaussian.gain(moment(t)))) ** 2 * v
            v += ss * (st - ss) / st
        assert float(x.var()) == pytest.approx(v, rel=0.03)
        errors.append(abs(v - (0.36 + exp(-10))))
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("name", ["VE exponential", "DDPM linear"])
def test_ddim_repeats_bit_for_bit_and_draws_nothing(name: str) -> None:
    net = shaken(mlp_denoiser(SCHEDULES[name], 0.6, width=16))
    start = normal(30, 2)
    generator = seeded(4)
    before = generator.get_state()
    paths = [DDIM(net).path(start, steps=9, generator=generator) for _ in range(2)]
    assert torch.equal(paths[0].x, paths[1].x)
    assert torch.equal(generator.get_state(), before)
    for noisy in (DDIM(net, eta=0.3), DDPM(net)):
        ends = [
            noisy.path(start, steps=9, generator=seeded(k)).x[-2] for k in (0, 0, 1)
        ]
        assert torch.equal(ends[0], ends[1])
        assert not torch.equal(ends[0], ends[2])


def test_the_path_ends_where_sample_does() -> None:
    net = mlp_denoiser(VEExponential(), 0.6, classes=5, width=16)
    label = torch.arange(30) % 5
    sampler = DDIM(net)
    x = sampler.sample(30, label, steps=6, generator=seeded(2))
    path = sampler.path(sampler.start(30, label, seeded(2)), label, steps=6)
    assert path.x.shape == (7, 30, 2)
    assert torch.equal(path.x[-1], x)
    assert torch.equal(path.x0[3], net.predict(path.x[3], path.times[3], label).x0)
    clean = sampler.sample(30, label, steps=6, clean=True, generator=seeded(2))
    assert torch.equal(clean, net.predict(x, 0.0, label).x0)


def test_the_start_has_the_deviation_of_the_last_x() -> None:
    data = Square()
    net = mlp_denoiser(VEExponential(), float(data_deviation(data)))
    assert float(start_deviation(net)) == pytest.approx((1 / 3 + 1) ** 0.5)
    x = DDIM(net).start(50_000, None, seeded(0))
    noisy = jump(
        VEExponential(),
        data.sample(50_000, seeded(1)),
        torch.ones(50_000),
        torch.randn(50_000, 2, generator=seeded(2)),
    )
    assert float(x.std()) == pytest.approx(float(noisy.std()), rel=0.01)
    narrow = DDIM(net, start_std=1.0).start(50_000, None, seeded(0))
    assert torch.allclose(narrow * float(start_deviation(net)), x, atol=1e-5)
    by_class = mlp_denoiser(VEExponential(), 0.6, classes=2)
    label = torch.tensor([0, 1]).repeat(10_000)
    x = DDIM(by_class, start_std=torch.tensor([0.5, 2.0])).start(20_000, label)
    assert float(x[0::2].std()) == pytest.approx(0.5, rel=0.03)
    assert float(x[1::2].std()) == pytest.approx(2.0, rel=0.03)


def test_the_optimal_denoiser_draws_the_data() -> None:
    square, n = Square("by class"), 4000
    uniform = Square()
    floor = sliced_wasserstein(
        uniform.sample(n, seeded(0)), uniform.sample(n, seeded(1))
    )
    for schedule in (VEExponential(), VPCosine()):
        best = OptimalDenoiser(uniform, schedule)
        for sampler in (DDIM(best), DDPM(best), ProbabilityFlow(best)):
            x = sampler.sample(n, steps=30, clean=True, generator=seeded(2))
            assert sliced_wasserstein(x, uniform.sample(n, seeded(3))) < floor + 0.03
            assert float(uniform.inside(x).float().mean()) > 0.995
    label = torch.arange(500) % 5
    best = OptimalDenoiser(square, VEExponential(), given_label=True)
    std = (1 + data_deviation(square, given_label=True) ** 2).sqrt()
    x = DDIM(best, start_std=std).sample(
        500, label, steps=20, clean=True, generator=seeded(3)
    )
    assert float((square.log_prob(x, label) > -torch.inf).float().mean()) > 0.97


# --- likelihood -----------------------------------------------------------------------


def log_normal(x: Tensor, std: float) -> Tensor:
    return torch.distributions.Normal(0.0, std).log_prob(x).sum(1)


def chain_std(denoiser: ForGaussian, times: list[float], start_std: float) -> float:
    """Deviation of x₀ under the model: ancestral steps down to f, then the decoder."""
    variance = start_std**2
    for t, s in pairwise(times):
        now, then = denoiser.schedule.at(t), denoiser.schedule.at(s)
        ratio, added = transition(denoiser.schedule, s, t)
        kept = then.sigma**2 / now.sigma**2
        factor = ratio * kept + then.alpha * added / now.sigma**2 * denoiser.gain(
            moment(t)
        )
        variance = float(factor) ** 2 * variance + float(added * kept)
    first = denoiser.schedule.at(times[-1])
    decoder = float(first.sigma / first.alpha) ** 2
    return (float(denoiser.gain(moment(times[-1]))) ** 2 * variance + decoder) ** 0.5


@pytest.mark.parametrize("name", ["VE exponential", "VP cosine", "VP linear", *CHAINS])
@pytest.mark.parametrize(
    ("shrink", "start_factor"), [(1.0, 1.0), (1.0, 1.3), (0.9, 1.0), (1.05, 0.8)]
)
def test_the_bound_is_below_the_likelihood_of_the_same_model(
    name: str, shrink: float, start_factor: float
) -> None:
    """A linear denoiser makes a Gaussian model, its likelihood in closed form."""
    schedule = SCHEDULES[name]
    denoiser = ForGaussian(schedule, 0.6, shrink)
    x = 0.6 * normal(30, 2)
    start_std = start_factor * float(start_deviation(denoiser))
    bound = evidence_lower_bound(
        denoiser, x, repeats=32, start_std=start_std, generator=seeded(1)
    )
    fine = name not in CHAINS
    times = schedule.times(2000, "log-SNR") if fine else schedule.times(40)[:-1]
    exact = log_normal(x, chain_std(denoiser, times, start_std))
    assert (bound.value <= exact + 5 * bound.standard_error + 0.005).all()
    if fine:
        gap = float((exact - bound.value).mean())
        right = shrink == start_factor == 1  # nothing is lost then but in the decoder
        assert gap == pytest.approx(0, abs=0.01) if right else gap > 0.02


def test_the_bound_of_a_chain_equals_its_definition() -> None:
    """E_q[log p(x_0 … x_T) − log q(x_1 … x_T | x₀)] over simulated walks."""
    schedule, n = CHAINS["DDPM linear"], 20_000
    denoiser = ForGaussian(schedule, data_std=0.8)
    x0 = torch.tensor([[0.3, -0.7]]).double()
    path = walk(schedule, x0.expand(n, 2), [float(t) for t in range(41)], seeded(0))

    def log_q(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return torch.distributions.Normal(mean, variance.sqrt()).log_prob(x).sum(1)

    ratio = log_normal(path[40], float(start_deviation(denoiser)))
    for t in range(1, 41):
        a, beta = schedule.alphas[t - 1], schedule.betas[t - 1]
        ratio -= log_q(path[t], a.sqrt() * path[t - 1], beta)
        bar = schedule.alphas_bar[t - 1]
        guess = denoiser.gain(moment(t)) * path[t]
        if t == 1:
            ratio += log_q(path[0], guess, (1 - bar) / bar)
            continue
        before = schedule.alphas_bar[t - 2]
        mean = before.sqrt() * beta / (1 - bar) * guess
        mean = mean + a.sqrt() * (1 - before) / (1 - bar) * path[t]
        ratio += log_q(path[t - 1], mean, beta * (1 - before) / (1 - bar))
    bound = evidence_lower_bound(denoiser, x0, repeats=400, generator=seeded(1))
    error = (float(ratio.var()) / n + float(bound.standard_error) ** 2) ** 0.5
    assert float(bound.value) == pytest.approx(float(ratio.mean()), abs=4 * error)
    assert float(bound.value) == pytest.approx(
        float(bound.reconstruction - bound.diffusion - bound.prior)
    )


def test_the_standard_error_is_the_spread_of_the_bound() -> None:
    net = shaken(mlp_denoiser(VEExponential(), 0.6, width=8))
    x = Square().sample(1, seeded(0)).double()
    many = [
        evidence_lower_bound(net, x, levels=6, repeats=8, generator=seeded(k))
        for k in range(200)
    ]
    spread = float(torch.cat([b.value for b in many]).std())
    claimed = float((torch.cat([b.standard_error for b in many]) ** 2).mean()) ** 0.5
    assert claimed == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("name", ["VE exponential", "VP cosine", "DDPM cosine"])
def test_mean_bound_is_never_above_minus_the_entropy(name: str) -> None:
    data, schedule = Square(), SCHEDULES[name]
    torch.manual_seed(0)
    new = mlp_denoiser(schedule, 0.58, width=32)
    trained = mlp_denoiser(schedule, 0.58, width=32)
    train(trained, DiffusionLoss(), data.batches(256), 150, lr=1e-2)
    x = data.sample(1500, seeded(1))
    best = OptimalDenoiser(data, schedule)
    means = []
    for denoiser in (new, trained, best):
        some = x[:150] if denoiser is best else x
        value = evidence_lower_bound(
            denoiser, some, levels=16, repeats=2, generator=seeded(2)
        ).value.double()
        error = float(value.std()) / len(some) ** 0.5
        assert float(value.mean()) <= -data.entropy() + 3 * error
        means.append(float(value.mean()))
    assert means[0] < means[1] < -data.entropy() + 0.05


@pytest.mark.parametrize("name", CONTINUOUS)
def test_flow_likelihood_is_exact_for_gaussian_data(name: str) -> None:
    schedule = CONTINUOUS[name]
    denoiser = ForGaussian(schedule, data_std=0.6)
    x = 0.6 * normal(20, 2)
    alpha, sigma = map(float, schedule.at(schedule.first))
    exact = log_normal(x, (0.36 + (sigma / alpha) ** 2) ** 0.5)
    found = flow_log_prob(denoiser, x, steps=120)
    assert torch.allclose(found, exact, atol=1e-5)
    # a wrong start is a wrong density: N(0, ½²) and the flow's stretch
    wide = start_deviation(denoiser)
    moved = (found - log_normal(x, 1.0)) - (
        flow_log_prob(denoiser, x, steps=120, start_std=2 * float(wide))
        - log_normal(x, 1.0)
    )
    at_last = x * float(wide) / (0.36 + (sigma / alpha) ** 2) ** 0.5
    expected = log_normal(at_last, float(wide)) - log_normal(at_last, 2 * float(wide))
    assert torch.allclose(moved, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["VE exponential", "VP cosine", "VP linear"])
def test_flow_likelihood_of_the_truth_is_the_smoothed_density(name: str) -> None:
    schedule, data = CONTINUOUS[name], Square()
    if name == "VE exponential":  # up to σ = 1 the start is no normal law
        schedule = VEExponential(sigma_max=30.0)
    x = torch.tensor([[0.0, 0.0], [0.7, -0.2], [0.99, 0.5], [1.003, 0.1]]).double()
    found = flow_log_prob(OptimalDenoiser(data, schedule), x, steps=100)
    assert torch.allclose(found, smoothed_log_prob(data, schedule, x), atol=0.02)
    assert found[0] == pytest.approx(-log(4), abs=0.02)


def test_divergence_of_the_truth_equals_autograd() -> None:
    data, schedule = Square(), VPCosine()
    best, x = OptimalDenoiser(data, schedule), normal(50, 2)
    for t in (0.1, 0.5, 0.9):
        value, div = best.x0_and_divergence(x, t)
        expected, expected_div = Denoiser.x0_and_divergence(best, x, t)
        assert torch.allclose(value, expected)
        assert torch.allclose(div, expected_div, rtol=1e-5, atol=1e-7)


def test_likelihoods_depend_on_the_class() -> None:
    data, schedule = Square("by class"), VEExponential()
    best = OptimalDenoiser(data, schedule, given_label=True)
    x = torch.tensor([[0.05, 0.1], [0.05, 0.1], [0.95, 0.95]])
    label = torch.tensor([0, 1, 4])
    std = (1 + data_deviation(data, given_label=True) ** 2).sqrt()
    ode = flow_log_prob(best, x, label, steps=10, start_std=std)
    bound = evidence_lower_bound(
        best, x, label, levels=3, repeats=2, start_std=std, generator=seeded(0)
    )
    truth = data.log_prob(x, label)
    right = torch.tensor([True, False, True])
    assert torch.allclose(ode[right], truth[right], atol=0.2)
    assert (bound.value <= ode + 5 * bound.standard_error + 0.2).all()
    assert ode[1] < -20
    assert bound.value[1] < -20


# --- the truth ------------------------------------------------------------------------


def test_floors_of_the_square() -> None:
    data, ve = Square(), VEExponential()
    assert mean_loss_floor(data, ve) == pytest.approx(1.6546, abs=1e-3)
    assert loss_floor(data, ve, 0.0) / 2 == pytest.approx(0.99, abs=0.005)
    assert loss_floor(data, ve, 1.0) / 2 == pytest.approx(0.25, abs=0.002)
    whole = VPCosine(0.005, 1 - 1e-6)
    assert mean_loss_floor(data, whole) == pytest.approx(0.6931, abs=1e-3)
    assert mean_loss_floor(data, VPLinear()) == pytest.approx(0.3670, abs=1e-3)
    given = mean_loss_floor(data, ve, given_label=True, nodes=3)
    assert given < mean_loss_floor(data, ve, nodes=3) - 0.1


@pytest.mark.parametrize(
    ("data", "schedule"),
    [
        (Square(), VEExponential()),
        (Square("by class"), VPCosine()),
        (Spiral(standardized=True), CHAINS["DDPM linear"]),
    ],
)
def test_the_floor_is_the_loss_of_the_best_denoiser(
    data: PlaneData, schedule: Schedule
) -> None:
    gap = GapToOptimum(data, schedule, times=20, points=400, generator=seeded(0))
    best = gap(OptimalDenoiser(data, schedule))
    assert float(best["gap"].max()) < 1e-6
    loss = best["loss"].double()
    nodes = 12 if isinstance(schedule, VPCosine) else 32
    floor = mean_loss_floor(data, schedule, nodes=nodes)
    assert float(loss.mean()) == pytest.approx(
        floor, abs=4 * float(loss.std()) / len(loss) ** 0.5
    )
    torch.manual_seed(0)
    net = mlp_denoiser(schedule, float(data_deviation(data)), width=8)
    new = gap(net)
    excess = float(new["loss"].mean() - loss.mean())
    noise = (new["loss"] - best["loss"] - new["gap"]).double()
    assert excess == pytest.approx(
        float(new["gap"].mean()), abs=4 * float(noise.std()) / len(noise) ** 0.5
    )
    assert float(new["gap"].mean()) > 0.01


def test_training_comes_near_the_floor_with_and_without_classes() -> None:
    torch.manual_seed(0)
    data, schedule = Square("by class"), VEExponential()
    for given_label in (False, True):
        batches = data.batches(256, seeded(0), labelled=given_label)
        net = mlp_denoiser(schedule, 0.5, width=48, classes=5 if given_label else 0)
        gap = GapToOptimum(
            data, schedule, given_label, times=8, points=300, generator=seeded(1)
        )
        before = float(gap(net)["gap"].mean())
        train(net, DiffusionLoss(generator=seeded(2)), batches, 250, lr=6e-3)
        assert float(gap(net)["gap"].mean()) < before / 1.5


@pytest.mark.parametrize("t", [1, 8, 20, 40])
def test_information_is_the_entropy_that_noise_leaves(t: int) -> None:
    data, schedule, n = (
        Spiral(standardized=True),
        DDPMSchedule(linear_betas(40)),
        10_000,
    )
    alpha, sigma = schedule.at(t)
    s = float(sigma / alpha)
    eps = torch.randn(n, 2, generator=seeded(1), dtype=torch.float64)
    u = data.sample(n, seeded(0)).double() + s * eps
    # I = h(u) − h(sε), each from the same noise
    normal = -(eps**2).sum(1) / 2 - log(2 * pi * s**2)
    gain = normal - data.posterior(u, s).log_density
    error = float(gain.std()) / n**0.5
    found = mutual_information(data, schedule, t)
    assert found == pytest.approx(float(gain.mean()), abs=4 * error + 1e-4)


def test_information_needs_noise_and_signal() -> None:
    with pytest.raises(ValueError, match="must be a finite number above 0"):
        mutual_information(Square(), DDPMSchedule(linear_betas(4)), 0)
    with pytest.raises(ValueError, match="σ/α must be below 403"):
        mutual_information(Square(), VEExponential(1e-2, 1e4), 1.0)


def test_deviations_of_the_data() -> None:
    assert float(data_deviation(Square())) == pytest.approx(3**-0.5, abs=1e-5)
    assert float(data_deviation(Spiral(standardized=True))) == pytest.approx(
        1, abs=1e-5
    )
    data = Square("by class")
    each = data_deviation(data, given_label=True)
    x, label = data.sample_labelled(100_000, seeded(0))
    for c in range(5):
        assert float(x[label == c].std()) == pytest.approx(float(each[c]), rel=0.02)


# --- the square in closed form --------------------------------------------------------


@pytest.mark.parametrize("s", [0.02, 0.2, 1.0, 4.0])
def test_the_squares_posterior_equals_the_scan(s: float) -> None:
    data, noise = Square(), torch.full((2,), s, dtype=torch.float64)
    u = data.sample(200, seeded(0)).double() + s * normal(200, 2)
    ours = data.posterior(u, s)
    scan = ScannedData._posterior(data, u, noise, None)
    for a, b in zip(ours, scan, strict=True):
        assert torch.allclose(a, b, rtol=2e-3, atol=2e-3 * min(1.0, s))
    scan_mmse = float(ScannedData._mmse(data, noise, None).sum())
    assert data.mmse(s) == pytest.approx(scan_mmse, rel=1e-4)


@pytest.mark.parametrize("s", [1e-3, 0.0067, 0.3, 10.0])
@pytest.mark.parametrize("u", [0.0, 0.3, 0.9999, 1.0001, 1.2, -2.0, 9.0])
def test_the_squares_posterior_far_out(s: float, u: float) -> None:
    """Against 60 digits."""
    found = Square().posterior(torch.tensor([[u, 0.0]], dtype=torch.float64), s)
    with mpmath.workdps(60):
        n = mpmath.mpf(s)
        # by symmetry at −|u|, where nothing is near 1 − 1
        b, c = (-1 + abs(mpmath.mpf(u))) / n, (1 + abs(mpmath.mpf(u))) / n
        mass = (mpmath.erfc(b / mpmath.sqrt(2)) - mpmath.erfc(c / mpmath.sqrt(2))) / 2
        mean = (mpmath.npdf(b) - mpmath.npdf(c)) / mass
        variance = 1 + (b * mpmath.npdf(b) - c * mpmath.npdf(c)) / mass - mean**2
        expected = float(n * mean - abs(mpmath.mpf(u)))
        other = float(mpmath.log(mpmath.erf(1 / n / mpmath.sqrt(2)) / 2))
        log_density = float(mpmath.log(mass / 2)) + other
        variance = float(n**2 * variance)
    sign = 1 if u < 0 else -1
    assert float(found.mean[0, 0]) == pytest.approx(sign * expected, abs=1e-9)
    assert float(found.variance[0, 0]) == pytest.approx(variance, rel=1e-6)
    assert float(found.log_density) == pytest.approx(log_density, rel=1e-9)


# --- wrong input ----------------------------------------------------------------------

NET = mlp_denoiser(VEExponential(), 0.6, width=8)
LABELLED = mlp_denoiser(VEExponential(), 0.6, width=8, classes=5)
CHAIN = mlp_denoiser(CHAINS["DDPM linear"], 1.0, width=8)
X = torch.zeros(3, 2)
BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "no steps": (
        lambda: DDIM(NET).sample(3, steps=0),
        ValueError,
        "steps must be at least 1, got 0",
    ),
    "no points": (
        lambda: DDIM(NET).sample(0),
        ValueError,
        "n must be at least 1, got 0",
    ),
    "more steps than T": (
        lambda: DDIM(CHAIN).sample(3, steps=41),
        ValueError,
        "steps must be at most T = 40, got 41",
    ),
    "noise of another shape": (
        lambda: jump(VPCosine(), X, torch.full((3,), 0.1), X[:1]),
        ValueError,
        r"eps must have the shape of x0, \(3, 2\), got \(1, 2\)",
    ),
    "eta": (
        lambda: DDIM(NET, eta=1.5),
        ValueError,
        r"eta must lie between 0 and 1, got 1\.5",
    ),
    "eta nan": (
        lambda: DDIM(NET, eta=float("nan")),
        ValueError,
        "eta must lie between 0 and 1",
    ),
    "variance": (
        lambda: DDPM(NET, variance="huge"),
        ValueError,
        "variance must be one of 'small', 'large'",
    ),
    "start": (
        lambda: DDIM(NET, start_std=0.0).sample(3),
        ValueError,
        r"start_std must be above 0, got 0\.0",
    ),
    "start by class": (
        lambda: DDIM(LABELLED, start_std=torch.ones(3)).sample(
            3, torch.zeros(3).long()
        ),
        ValueError,
        r"of shape \(5,\), got \(3,\)",
    ),
    "no labels": (
        lambda: DDIM(LABELLED).sample(3),
        ValueError,
        "5 classes: expected labels, got None",
    ),
    "no labels for the loss": (
        lambda: DiffusionLoss()(LABELLED, X),
        ValueError,
        "5 classes: expected labels",
    ),
    "no labels for the bound": (
        lambda: evidence_lower_bound(LABELLED, X),
        ValueError,
        "expected labels",
    ),
    "no labels for the flow": (
        lambda: flow_log_prob(LABELLED, X),
        ValueError,
        "expected labels",
    ),
    "labels": (
        lambda: DDIM(NET).sample(3, torch.zeros(3).long()),
        ValueError,
        "no classes: expected no labels",
    ),
    "class 5": (
        lambda: DDIM(LABELLED).sample(3, torch.tensor([0, 1, 5])),
        ValueError,
        "labels must lie in 0 … 4, got 0 … 5",
    ),
    "no classes": (
        lambda: OptimalDenoiser(Spiral(), VPCosine(), True),
        ValueError,
        "Spiral has no classes",
    ),
    "flow of a chain": (
        lambda: flow_log_prob(CHAIN, X),
        TypeError,
        "the likelihood by the flow needs a schedule with a time derivative",
    ),
    "ODE of a chain": (
        lambda: ProbabilityFlow(CHAIN),
        TypeError,
        "the probability flow needs a schedule with a time derivative",
    ),
    "classes": (
        lambda: mlp_denoiser(VPCosine(), classes=-1),
        ValueError,
        "classes must be at least 0, got -1",
    ),
    "no guess": (
        lambda: Denoiser(VPCosine()),  # type: ignore[abstract]
        TypeError,
        "abstract",
    ),
    "points": (
        lambda: evidence_lower_bound(NET, torch.zeros(3, 3)),
        ValueError,
        r"shape \(B, 2\)",
    ),
    "dtype": (
        lambda: flow_log_prob(NET, X.double()),
        TypeError,
        r"dtype torch\.float32 like the model",
    ),
    "repeats": (
        lambda: evidence_lower_bound(NET, X, repeats=1),
        ValueError,
        "repeats must be at least 2",
    ),
    "kind": (
        lambda: DiffusionLoss("score"),
        ValueError,
        "kind must be one of 'x0', 'eps', 'v'",
    ),
    "time": (
        lambda: mlp_denoiser(VEExponential(), time="clock"),
        ValueError,
        "time must be one of",
    ),
    "odd embedding": (
        lambda: SinusoidalEmbedding(5),
        ValueError,
        "dim must be even, got 5",
    ),
    "betas": (
        lambda: DDPMSchedule(torch.tensor([0.1, 1.0])),
        ValueError,
        "betas must lie between 0 and 1",
    ),
    "no betas": (
        lambda: linear_betas(0),
        ValueError,
        "steps must be at least 1, got 0",
    ),
    "sigmas": (
        lambda: VEExponential(1.0, 0.5),
        ValueError,
        "sigma_min must be below sigma_max",
    ),
    "times": (lambda: VPCosine(0.0), ValueError, "0 < first < last ≤ 1"),
    "spacing of a chain": (
        lambda: DDIM(CHAIN, even_in="log-SNR").sample(3, steps=4),
        TypeError,
        "a chain of steps has no time for every log-SNR",
    ),
    "spacing": (
        lambda: VPCosine().times(4, "sigma"),
        ValueError,
        "even_in must be one of 't', 'log-SNR'",
    ),
    "a step back": (
        lambda: DDPM(NET).step(X, 0.4, 0.5),
        ValueError,
        "the noise must grow from s to t, got s = 0.5 and t = 0.4",
    ),
    "a walk back": (
        lambda: walk(VPCosine(), X, [0.5, 0.4]),
        ValueError,
        "times must rise",
    ),
    "data_std": (
        lambda: mlp_denoiser(VPCosine(), 0.0),
        ValueError,
        "data_std must be a finite number above 0",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_input(case: str) -> None:
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()
