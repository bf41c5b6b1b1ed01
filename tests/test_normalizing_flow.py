"""The flow against autograd, quadrature, zuko and its own inverse."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
import zuko
from torch import Tensor, nn

from course_utils.data import OlympicRings
from course_utils.models.normalizing_flow import (
    AffineCoupling,
    Bijection,
    NormalizingFlow,
    Permutation,
    RationalQuadraticSpline,
    SplineCoupling,
    affine_flow,
    negative_log_likelihood,
    spline_flow,
)
from course_utils.notebook import seeded

LAYERS: dict[str, Callable[[], Bijection]] = {
    "permutation": lambda: Permutation([1, 0]),
    "permutation of three": lambda: Permutation([2, 0, 1]),
    "affine": lambda: AffineCoupling(2, 16),
    "affine with Fourier features": lambda: AffineCoupling(2, 16, 3),
    "affine in five dimensions": lambda: AffineCoupling(5, 16, 2),
    "spline": lambda: SplineCoupling(2, 8, 16, 3),
    "spline in three dimensions": lambda: SplineCoupling(3, 5, 16, 0),
}
FLOWS: dict[str, Callable[[], NormalizingFlow]] = {
    "affine": lambda: affine_flow(4, 16),
    "affine, random permutations": lambda: affine_flow(5, 16, 2, permutation="random"),
    "spline": lambda: spline_flow(2, 8, 16, 3),
    "spline of three": lambda: spline_flow(3, 6, 16, 2),
}
DIM = {
    "permutation of three": 3,
    "affine in five dimensions": 5,
    "spline in three dimensions": 3,
}


M = TypeVar("M", bound=nn.Module)


def shaken(make: Callable[[], M]) -> M:
    """A module in float64 whose parameters are far from the identity's."""
    torch.manual_seed(1)
    module = make().double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module


def points(n: int, dim: int = 2, spread: float = 1.5, seed: int = 2) -> Tensor:
    generator = seeded(seed)
    return spread * torch.randn(n, dim, generator=generator, dtype=torch.float64)


def log_det_by_autograd(
    f: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor
) -> Tensor:
    """log|det ∂y/∂x| of every point, from the full Jacobian of f: x → (y, …)."""
    jacobians = [
        torch.autograd.functional.jacobian(lambda p: f(p[None])[0][0], p) for p in x
    ]
    return torch.stack([torch.linalg.slogdet(j).logabsdet for j in jacobians])


@pytest.mark.parametrize("name", LAYERS)
def test_layer_log_det_equals_autograd(name: str) -> None:
    layer, x = shaken(LAYERS[name]), points(12, DIM.get(name, 2))
    for direction in (layer.forward, layer.inverse):
        expected = log_det_by_autograd(direction, x)
        assert torch.allclose(direction(x)[1], expected, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_invertible(name: str) -> None:
    layer, x = shaken(LAYERS[name]), points(500, DIM.get(name, 2), spread=3.0)
    y, log_det = layer(x)
    back, log_det_back = layer.inverse(y)
    assert torch.allclose(back, x, atol=1e-8)
    assert torch.allclose(log_det_back, -log_det, atol=1e-6)


@pytest.mark.parametrize("name", FLOWS)
def test_flow_log_det_and_inverse(name: str) -> None:
    flow, z = shaken(FLOWS[name]), points(12)
    y, log_det = flow(z)
    assert torch.allclose(log_det, log_det_by_autograd(flow, z), atol=1e-8)
    back, log_det_back = flow.inverse(y)
    assert torch.allclose(back, z, atol=1e-7)
    assert torch.allclose(log_det_back, -log_det, atol=1e-6)


def of_images(make: Callable[[int], Bijection]) -> NormalizingFlow:
    """Two couplings of the six values of an image, a permutation after each."""
    turn = Permutation([3, 4, 5, 0, 2, 1])
    return NormalizingFlow([make(6), turn, make(6), turn], (2, 1, 3))


@pytest.mark.parametrize(
    "make", [AffineCoupling, lambda dim: SplineCoupling(dim, 5, 16, 2)]
)
def test_a_flow_of_images(make: Callable[[int], Bijection]) -> None:
    """Every value is a coordinate of its own, whatever the memory looks like."""
    flow = shaken(lambda: of_images(make))
    z = points(12, 6).view(12, 2, 1, 3).to(memory_format=torch.channels_last)
    y, log_det = flow(z)
    assert y.shape == z.shape
    flat = log_det_by_autograd(
        lambda p: (flow(p.view(-1, 2, 1, 3))[0].flatten(1), p), z.flatten(1)
    )
    assert torch.allclose(log_det, flat, atol=1e-8)
    back, log_det_back = flow.inverse(y)
    assert torch.allclose(back, z, atol=1e-7)
    assert torch.allclose(log_det_back, -log_det, atol=1e-6)
    base = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((1, 2, 3))
    assert torch.allclose(flow.log_prob(y), base - log_det, atol=1e-6)
    path = flow.path(z)
    assert path.shape == (3, 12, 2, 1, 3)
    assert torch.equal(path[-1], y)
    assert torch.allclose(flow.inverse_path(y), path.flip(0), atol=1e-6)
    assert flow.sample(2).shape == (2, 2, 1, 3)


@pytest.mark.parametrize("name", FLOWS)
def test_density_integrates_to_one(name: str) -> None:
    torch.manual_seed(0)
    flow, n, reach = FLOWS[name]().double(), 700, 9.0
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.2)
    axis = torch.linspace(-reach, reach, n, dtype=torch.float64)
    with torch.no_grad():
        parts = [
            flow.log_prob(torch.cartesian_prod(p, axis)).exp().sum()
            for p in axis.split(70)
        ]
    assert float(torch.stack(parts).sum()) * (
        2 * reach / (n - 1)
    ) ** 2 == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", FLOWS)
def test_log_prob_is_the_density_of_the_samples(name: str) -> None:
    """E[log p(y)] over the flow's own samples is minus H(z) + E[log|det|]."""
    flow = shaken(FLOWS[name])
    z = points(4000, spread=1.0)
    y, log_det = flow(z)
    base = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    assert torch.allclose(flow.log_prob(y), base - log_det, atol=1e-6)
    log_p_z, term = flow.log_prob_parts(y)
    assert torch.allclose(log_p_z, base, atol=1e-6)
    assert torch.allclose(log_p_z + term, flow.log_prob(y))


@pytest.mark.parametrize(
    "make", [lambda: affine_flow(4, 16), lambda: spline_flow(2, 16, 32, 6)]
)
def test_nll_is_never_below_the_entropy(make: Callable[[], NormalizingFlow]) -> None:
    """Cross-entropy = H + KL ≥ H, during training too (minus three standard errors)."""
    torch.manual_seed(0)
    data, flow = OlympicRings(), make()
    optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-2)
    held_out = data.sample(5000)
    for step in range(151):
        optimizer.zero_grad()
        negative_log_likelihood(flow, data.sample(256)).mean().backward()
        optimizer.step()
        if step % 50 == 0:
            nll = negative_log_likelihood(flow, held_out).detach()
            assert (
                float(nll.mean()) >= data.entropy() - 3 * float(nll.std()) / 5000**0.5
            )


def test_the_loss_takes_samples_alone() -> None:
    flow, y = shaken(FLOWS["affine"]), points(20)
    for batch in (y, (y,), [y]):
        assert torch.equal(negative_log_likelihood(flow, batch), -flow.log_prob(y))
    with pytest.raises(ValueError, match=r"expected no labels.*got \(20,\)"):
        negative_log_likelihood(flow, (y, torch.arange(20)))


def test_affine_flow_equals_zuko_with_copied_weights() -> None:
    flow = shaken(lambda: affine_flow(2, 8))
    transforms = []
    for coupling, fixed in zip([flow.layers[2], flow.layers[0]], [0, 1], strict=True):
        assert isinstance(coupling, AffineCoupling)
        transform = zuko.flows.GeneralCouplingTransform(
            2,
            mask=torch.tensor([fixed == 0, fixed == 1]),
            univariate=lambda s, t: (
                torch.distributions.AffineTransform(
                    t, (2 * torch.tanh(s / 2)).exp()
                ).inv
            ),
            shapes=[(), ()],
            hidden_features=(16, 16),
            activation=nn.SiLU,
        ).double()
        ours = list(
            zip(linear(coupling.log_scale), linear(coupling.shift), strict=True)
        )
        for i, (theirs, (s, t)) in enumerate(
            zip(linear(transform.hyper), ours, strict=True)
        ):
            weights = (s.weight, t.weight)
            theirs.weight.data = (
                torch.block_diag(*weights) if i else torch.cat(weights)
            ).detach()
            theirs.bias.data = torch.cat([s.bias, t.bias]).detach()
        transforms.append(transform)
    oracle = zuko.flows.Flow(
        transforms,
        zuko.flows.UnconditionalDistribution(
            zuko.distributions.DiagNormal,
            torch.zeros(2).double(),
            torch.ones(2).double(),
        ),
    )
    y = points(200)
    assert torch.allclose(flow.log_prob(y), oracle().log_prob(y), atol=1e-9)


def linear(network: nn.Module) -> list[Any]:
    """The linear layers of a network, ours or zuko's."""
    return [
        layer
        for layer in network.modules()
        if isinstance(layer, (nn.Linear, zuko.nn.Linear))
    ]


def test_spline_equals_zuko_on_the_same_knots() -> None:
    torch.manual_seed(0)
    ours = RationalQuadraticSpline(
        2 * torch.randn(300, 1, 3 * 10 - 1).double(), bound=4.0
    )
    oracle = zuko.transforms.MonotonicRQSTransform(
        *torch.zeros(2, 300, 1, 10), torch.zeros(300, 1, 9)
    )
    oracle.horizontal, oracle.vertical = ours.knots_x, ours.knots_y
    oracle.derivatives = ours.slopes
    x = 5 * torch.rand(300, 1).double() * torch.tensor([[1.0], [-1.0]]).repeat(150, 1)
    y, log_slope = ours(x)
    expected, expected_log_slope = oracle.call_and_ladj(x)
    assert torch.allclose(y, expected)
    assert torch.allclose(log_slope, expected_log_slope)
    back, log_slope_back = ours.inverse(y)
    assert torch.allclose(back, oracle.inv(y), atol=1e-7)
    assert torch.allclose(log_slope_back, -log_slope, atol=1e-6)
    outside = x.abs() > 4
    assert outside.any()
    assert torch.equal(y[outside], x[outside])


def test_a_new_flow_is_the_identity() -> None:
    z = points(100, spread=2.0)
    for make in FLOWS.values():
        y, log_det = make().double()(z)
        assert torch.allclose(y.sort(1).values, z.sort(1).values, atol=1e-6)
        assert torch.allclose(log_det, torch.zeros(100).double(), atol=1e-5)


@pytest.mark.parametrize("name", FLOWS)
def test_path_runs_from_noise_to_data_one_axis_at_a_time(name: str) -> None:
    flow, z = shaken(FLOWS[name]), points(50)
    path = flow.path(z)
    couplings = sum(not isinstance(layer, Permutation) for layer in flow.layers)
    assert path.shape == (couplings + 1, 50, 2)
    assert torch.equal(path[-1], flow(z)[0])
    moved = (path.diff(dim=0) != 0).any(1)  # (C, 2): which axis each coupling moves
    assert (moved.sum(1) <= 1).all()
    back = flow.inverse_path(path[-1])
    assert torch.allclose(back, path.flip(0), atol=1e-6)


def orders(flow: NormalizingFlow) -> list[list[int]]:
    return [
        layer.order.tolist() for layer in flow.layers if isinstance(layer, Permutation)
    ]


def test_swap_moves_both_axes_and_random_permutations_repeat_with_the_seed() -> None:
    assert orders(affine_flow(6, 8)) == [[1, 0]] * 5
    torch.manual_seed(3)
    drawn = orders(affine_flow(200, 1, permutation="random"))
    assert 60 < drawn.count([0, 1]) < 140


def test_sample_repeats_with_the_generator() -> None:
    flow = shaken(FLOWS["affine"])
    draws = [flow.sample(5, seeded(s)) for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[0].dtype == torch.float64


BAD = [
    (torch.zeros(3, 3), ValueError, r"shape \(B, 2\), got \(3, 3\)"),
    (torch.zeros(0, 2), ValueError, "at least one row"),
    (torch.full((4, 2), float("nan")), ValueError, "got 4 of 4 rows with NaN"),
    (torch.full((4, 2), float("-inf")), ValueError, "must be finite"),
    (
        torch.zeros(4, 2).double(),
        TypeError,
        "dtype torch.float32 like the model, got torch.float64",
    ),
    (
        torch.zeros(4, 2).long(),
        TypeError,
        "samples must have a floating dtype, got torch.int64",
    ),
]


@pytest.mark.parametrize(("y", "error", "message"), BAD)
def test_bad_points(y: Tensor, error: type[Exception], message: str) -> None:
    flow = spline_flow(2, 4, 8, 1)
    for method in (flow.log_prob, flow.inverse, flow.path, flow.inverse_path, flow):
        with pytest.raises(error, match=message):
            method(y)


def test_bad_counts_and_options() -> None:
    flow = affine_flow(2, 8)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        flow.sample(0)
    with pytest.raises(ValueError, match="couplings must be at least 1, got 0"):
        affine_flow(0)
    with pytest.raises(ValueError, match="bins must be at least 2, got 1"):
        spline_flow(bins=1)
    with pytest.raises(ValueError, match="size must be at least 1, got -4"):
        affine_flow(width=-4)
    with pytest.raises(ValueError, match="frequencies must be at least 0, got -1"):
        spline_flow(frequencies=-1)
    with pytest.raises(
        ValueError, match="permutation must be one of 'swap', 'random', got 'flip'"
    ):
        affine_flow(permutation="flip")
    with pytest.raises(ValueError, match="order must be a permutation of 0 … 1"):
        Permutation([0, 0])
    with pytest.raises(
        ValueError, match="bound must be a finite number above 0, got 0"
    ):
        SplineCoupling(bound=0)
    with pytest.raises(
        ValueError, match="max_log_scale must be a finite number above 0"
    ):
        AffineCoupling(max_log_scale=float("nan"))
