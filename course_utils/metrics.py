"""How far a model is from the truth: points, features of images, codes of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import ot
import torch
from scipy.optimize import linear_sum_assignment
from scipy.special import rel_entr
from torch import Tensor

from course_utils.checks import check_alike, check_count, check_labels, check_points
from course_utils.data.plane import PlaneData


class Estimate(NamedTuple):
    """A mean over samples and its standard error."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """The mean of independent values (N,), and their deviation over √N.

        Raises:
            ValueError: not one axis, or fewer than two values.
        """
        if values.ndim != 1 or len(values) < 2:
            raise ValueError(
                f"values must have shape (N,), N ≥ 2, got {tuple(values.shape)}"
            )
        values = values.double()
        return cls(float(values.mean()), float(values.std()) / len(values) ** 0.5)


@torch.no_grad()
def kl_to_truth(
    log_prob: Callable[[Tensor], Tensor],
    data: PlaneData,
    n: int = 100_000,
    generator: torch.Generator | None = None,
) -> Estimate:
    """KL(p‖q) = E_p[log p(x) − log q(x)] in nats, from n fresh points of the data.

    This is the gap between the model's negative log-likelihood and its floor, the
    entropy of the data.

    Args:
        log_prob: the model's log q, (B, 2) → (B,).
        data: the truth p.
        n: number of points; the standard error falls as 1/√n.
        generator: source of randomness.

    Raises:
        ValueError: n < 2.
    """
    x = data.sample(check_count("n", n, least=2), generator)
    ratio = torch.cat(
        [
            true - check_alike("what log_prob gives", log_prob(part), true)
            for part in x.split(10_000)
            for true in [data.log_prob(part)]
        ]
    )
    return Estimate.of(ratio)


def share_off_support(data: PlaneData, x: Tensor) -> float:
    """Share of the points x (B, 2) where the true density is zero."""
    return 1 - float(data.inside(x).double().mean())


def sliced_wasserstein(
    x: Tensor, y: Tensor, projections: int = 64, seed: int = 0
) -> float:
    """Sliced Wasserstein-2 distance between two clouds, in the units of the points.

    The root mean square, over directions, of the W₂ distance between the clouds'
    projections on a line. Two finite samples of one law are not at distance 0: hold the
    result against the distance between two samples of the data.

    Args:
        x, y: points (N, D) and (M, D).
        projections: number of directions.
        seed: which directions.

    Raises:
        TypeError, ValueError: not two clouds of finite points; no direction.
    """
    projections = check_count("projections", projections)
    seed = check_count("seed", seed, least=0)
    for points in (x, y):
        check_points(points, dim=x.shape[-1])
    a, b = (points.detach().float().numpy() for points in (x, y))
    return float(
        ot.sliced_wasserstein_distance(a, b, n_projections=projections, p=2, seed=seed)
    )


def path_ratio(path: Tensor) -> Tensor:
    """Length of each path over the distance between its ends, 1 for a straight line.

    Args:
        path: (T, B, D), the points at T ≥ 2 moments.

    Returns:
        Tensor of shape (B,).

    Raises:
        ValueError: fewer than two moments, or not three axes.
    """
    return path_length(path) / (path[-1] - path[0]).norm(dim=1)


def path_length(path: Tensor) -> Tensor:
    """Length of each path (T, B, D), shape (B,).

    Raises:
        ValueError: fewer than two moments, or not three axes.
    """
    return _steps(path, least=2).norm(dim=2).sum(0)


def turning(path: Tensor) -> Tensor:
    """Sum of the angles between successive steps of each path (T, B, D), in radians.

    0 for a straight line, 2π for a circle. Steps of length 0 do not turn.

    Raises:
        ValueError: fewer than three moments, or not three axes.
    """
    step = _steps(path, least=3)  # (T − 1, B, D)
    dot = (step[1:] * step[:-1]).sum(2)
    product = (step[1:].norm(dim=2) * step[:-1].norm(dim=2)).clamp(min=1e-12)
    moves = product > 1e-12
    return (dot / product).clamp(-1, 1).acos().where(moves, 0.0).sum(0)


def _steps(path: Tensor, least: int) -> Tensor:
    """The steps (T − 1, B, D) of a path of at least ``least`` moments."""
    if path.ndim != 3 or len(path) < least:
        raise ValueError(
            f"a path must have shape (T, B, D) with T ≥ {least},"
            f" got {tuple(path.shape)}"
        )
    check_points(path.flatten(1), dim=path.shape[1] * path.shape[2])
    return path.diff(dim=0)


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """‖μ_x − μ_y‖² + tr(Σ_x + Σ_y − 2(Σ_xΣ_y)^½) of two clouds of features, (N, F).

    The squared distance between the Gaussians with the clouds' means and covariances.
    It is positive for two samples of one law too, and falls as they grow: compare
    clouds of one size only. Features are those of a classifier of these images, so
    values cannot be compared with those of another classifier.

    Source: Heusel et al. 2017, FID (arXiv:1706.08500).

    Raises:
        ValueError: fewer than two rows, clouds of different widths, NaN or infinity.
    """
    if (
        x.ndim != 2
        or y.ndim != 2
        or x.shape[1] != y.shape[1]
        or min(len(x), len(y)) < 2
    ):
        raise ValueError(
            "features must have shapes (N, F) and (M, F) with N, M ≥ 2, "
            f"got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    clouds = [check_points(z, dim=x.shape[1]).double() for z in (x, y)]
    mean = [z.mean(0) for z in clouds]
    covariance = [torch.atleast_2d(z.T.cov()) for z in clouds]  # (F, F), F = 1 too
    return float(ot.gaussian.bures_wasserstein_distance(*mean, *covariance)) ** 2


def spread_within(x: Tensor, group: Tensor) -> float:
    """Mean ‖x_i − x_j‖ of two different rows of one group, over all groups alike.

    Args:
        x: features (N, F).
        group: whole numbers from 0, int64, (N,); each that occurs has two rows or more.

    Raises:
        TypeError, ValueError: no finite rows, no group for each, a group of one row.
    """
    check_points(x, dim=x.shape[-1] if isinstance(x, Tensor) and x.ndim else 1)
    numbers = isinstance(group, Tensor) and group.numel()
    largest = int(group.max()) if numbers else 0
    check_labels(group, classes=max(largest, 0) + 1, batch=len(x))
    means = []
    for each in group.unique():
        rows = x.detach()[group == each].double()
        if len(rows) < 2:
            raise ValueError(f"each group must have two rows, got one of {int(each)}")
        means.append(torch.pdist(rows).mean())
    return float(torch.stack(means).mean())


# --- codes and classes ----------------------------------------------------------------


def counts(code: Tensor, label: Tensor) -> Tensor:
    """How often code k comes with class c, (K, C), int64, as large as it has to be.

    Args:
        code, label: whole numbers from 0, int64, (N,) each.

    Raises:
        TypeError, ValueError: other dtypes, different shapes, none, numbers below 0.
    """
    for numbers in (code, label):
        largest = numbers.max() if isinstance(numbers, Tensor) and len(numbers) else 0
        check_labels(numbers, classes=int(largest) + 1, batch=len(code))
    if not len(code):
        raise ValueError("there must be at least one code, got none")
    classes = int(label.max()) + 1
    size = (int(code.max()) + 1) * classes
    return (classes * code + label).bincount(minlength=size).view(-1, classes)


def one_to_one(code: Tensor, label: Tensor, codes: int = 10) -> Tensor:
    """Which class each code stands for, if no two may stand for one: (K,), int64.

    Of all such assignments the one with which most samples agree. A code that is left
    over, because there are fewer classes than codes, stands for −1.

    Args:
        code, label: whole numbers from 0, int64, (N,) each.
        codes: K, how many codes there are.

    Source: Kuhn 1955, "The Hungarian method for the assignment problem".

    Raises:
        TypeError, ValueError: as for :func:`counts`; codes of K or more.
    """
    check_labels(code, classes=check_count("codes", codes), batch=len(code))
    rows, columns = linear_sum_assignment(counts(code, label).numpy(), maximize=True)
    found = torch.full((codes,), -1)
    found[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return found


def one_to_one_accuracy(code: Tensor, label: Tensor) -> float:
    """The share of samples whose code stands for their class, by :func:`one_to_one`.

    The assignment is the best one for these very samples, of K! with K of each: that
    flatters, by little where samples are many.

    Args:
        code, label: whole numbers from 0, int64, (N,) each.

    Raises:
        TypeError, ValueError: as for :func:`counts`.
    """
    table = counts(code, label)
    right = table.numpy()[linear_sum_assignment(table.numpy(), maximize=True)].sum()
    return float(right) / len(code)


def mutual_information(code: Tensor, label: Tensor) -> float:
    """I = Σ p(k, c)·log p(k, c)/(p(k)·p(c)) of the samples' own shares, in nats.

    At most the entropy of each of them, such as log 10. Of independent ones N samples
    still show about (K − 1)(C − 1)/2N.

    Args:
        code, label: whole numbers from 0, int64, (N,) each.

    Raises:
        TypeError, ValueError: as for :func:`counts`.
    """
    p = counts(code, label).double() / len(code)
    apart = torch.outer(p.sum(1), p.sum(0))
    return float(rel_entr(p.numpy(), apart.numpy()).sum())
