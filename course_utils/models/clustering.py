"""Ten groups of images without labels, by the changes that a group must survive.

A *view* of an image is the image after a change that leaves its digit as it is: turned,
scaled, slanted, moved, written with another pen. Three steps make a code c of it, with
two views a_i, b_i of each image i:

    1. contrast: numbers g(x) of length 1, which a small network makes of the features,
       alike for two views of an image and unlike for views of different images, with v
       over all views but a_i:

           L = −log [ e^{g(a_i)·g(b_i)/τ} / Σ_v e^{g(a_i)·g(v)/τ} ]

       Afterwards g is thrown away; the features h(x), of length 1, are kept.

    2. k-means: the centres m_c of K clouds of features are the start of the code,

           q(c|x) ∝ exp(−‖h(x) − m_c‖²/2T)

    3. mutual information: features and code move so that a view says as much as it
       can about the code of the other view,

           max I(c_a; c_b) = Σ_cd P_cd·log(P_cd/(P_c·P_d)),  P = E_i[q(·|a_i)·q(·|b_i)ᵀ]

       with either view as the first.

No label is used; which digit a group is has to be looked up afterwards.

Sources: Chen et al. 2020, SimCLR (arXiv:2002.05709); Ji, Henriques and Vedaldi 2019,
IIC (arXiv:1807.06653); Arthur and Vassilvitskii 2007, "k-means++".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import inf
from typing import Any

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, normalize

from course_utils.checks import (
    check_alike,
    check_count,
    check_images,
    check_labels,
    check_number,
    check_positive,
    check_samples,
    check_shape,
)
from course_utils.data.images import Images, ImageSplits
from course_utils.distributions import fine_dtype, uniform, widen
from course_utils.models.classifier import augment
from course_utils.networks.basic import frozen, mlp
from course_utils.networks.images import channels_last
from course_utils.training.history import History
from course_utils.training.loop import train, train_epochs

FEATURES = 128  # numbers in h

# --- views ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Views:
    """Changes that leave the digit as it is, each drawn anew for each image.

    Attributes:
        turn, scale, shear, shift: the largest ones, see ``classifier.augment``:
            degrees, a share of the size, a slant, pixels of the image.
        pen: pixels become x^e^u, u uniform in [−pen, pen]: on blurred images a power
            below 1 thickens the strokes, one above 1 thins them.
        recolour: whether each image gets another colour; for coloured images only.

    Raises:
        TypeError, ValueError: a change that is no number, or below 0.
    """

    turn: float = 20.0
    scale: float = 0.2
    shear: float = 0.3
    shift: float = 0.8
    pen: float = 0.9
    recolour: bool = False

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)[:-1]):
            if not 0 <= check_number(name, getattr(self, name)) < inf:
                raise ValueError(
                    f"{name} must be a finite number of at least 0,"
                    f" got {getattr(self, name)!r}"
                )

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A view of each image x (B, C, H, W) in [0, 1], of the same shape."""
        if self.recolour:
            x = recoloured(x, generator)
        x = augment(x, self.turn, self.scale, self.shear, self.shift, generator)
        return rewritten(x, self.pen, generator)


def rewritten(
    x: Tensor, pen: float, generator: torch.Generator | None = None
) -> Tensor:
    """x^e^u, u uniform in [−pen, pen], one u an image: another pen, (B, C, H, W)."""
    u = pen * (2 * uniform((len(x),), x, generator) - 1)
    return x.clamp(0, 1) ** widen(u.exp(), x)


def recoloured(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The largest channel of each pixel times a random colour: (B, C, H, W).

    The colours are uniform in [0, 1]^C, over their largest channel.
    """
    colour = uniform(x.shape[:2], x, generator)  # (B, C)
    colour = colour / colour.amax(1, keepdim=True).clamp(min=1e-6)
    return x.amax(1, keepdim=True) * colour.to(x.dtype)[:, :, None, None]


# --- network --------------------------------------------------------------------------


class DigitCode(nn.Module):
    """q(c|x) = softmax(W·h(x) + b), h of length 1: K groups of coloured images.

    The network does not see colour: of each pixel it takes the largest channel, over
    the largest of the image, and at fewer pixels, which blurs it.

    Args:
        classes: K.
        width: channels of the first convolution, w; the others have 2w and 4w.
        shape: (C, H, W) of an image.
        side: S, pixels across what the network sees; a multiple of 8.
        colour: whether it sees all channels instead.

    Raises:
        ValueError: counts below 1, another kind of shape.
    """

    def __init__(
        self,
        classes: int = 10,
        width: int = 16,
        shape: Sequence[int] = (3, 28, 28),
        side: int = 16,
        colour: bool = False,
    ) -> None:
        super().__init__()
        self.shape, w = check_shape(shape), check_count("width", width)
        self.side, self.colour = check_count("side", side), colour
        if len(self.shape) != 3 or side % 8:
            raise ValueError(
                "images must have a shape (C, H, W), and side must be a multiple of 8,"
                f" got {self.shape} and {side}"
            )
        channels = self.shape[0] if colour else 1
        self.body = nn.Sequential(
            *_halving(channels, w),  # (B, w, S/2, S/2)
            *_halving(w, 2 * w),  # (B, 2w, S/4, S/4)
            *_halving(2 * w, 4 * w),  # (B, 4w, S/8, S/8)
            nn.Flatten(),
            nn.Linear(4 * w * (side // 8) ** 2, FEATURES),
            nn.BatchNorm1d(FEATURES),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(FEATURES, check_count("classes", classes))
        channels_last(self)

    def seen(self, x: Tensor) -> Tensor:
        """What the network sees of images x (B, C, H, W): (B, 1, S, S) in [0, 1].

        Raises:
            TypeError, ValueError: images of another shape, dtype or device; NaN or
                infinite pixels.
        """
        check_images(x, shape=self.shape, like=self.head.weight)
        x = x if self.colour else x.amax(1, keepdim=True)
        x = x / x.amax((1, 2, 3), keepdim=True).clamp(min=1e-3)
        fine, size = x.to(fine_dtype(x)), (self.side, self.side)
        small = interpolate(fine, size, mode="bilinear", antialias=True)
        return small.clamp(0, 1).to(x.dtype)

    def features(self, seen: Tensor) -> Tensor:
        """h, of length 1, of what is seen, (B, ·, S, S): (B, 128)."""
        return normalize(self.body(seen), dim=1)

    def logits(self, seen: Tensor) -> Tensor:
        """W·h + b of what is seen: (B, K)."""
        return self.head(self.features(seen))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of q(c|x) of images x (B, C, H, W) in [0, 1]: (B, K)."""
        return self.logits(self.seen(x))

    @torch.no_grad()
    def code(self, x: Tensor, chunk: int = 1000) -> Tensor:
        """The likeliest group of any number of images, (N,), int64."""
        parts = x.split(check_count("chunk", chunk))
        return torch.cat([self(part).argmax(dim=1) for part in parts])


def _halving(before: int, after: int) -> list[nn.Module]:
    """A convolution that halves the sides, batch normalization, ReLU."""
    return [
        nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    ]


# --- losses ---------------------------------------------------------------------------


def nt_xent(a: Tensor, b: Tensor, temperature: float = 0.3) -> Tensor:
    """−log share of the right partner, a mean over both directions: (B,), in nats.

        ℓ(a_i) = −log [ e^{a_i·b_i/τ} / Σ_v e^{a_i·v/τ} ],   v: the 2B − 1 other rows

    A row that is like its partner as much as like all others costs log(2B − 1).

    Args:
        a, b: rows of two views of the same images, (B, D); their length is set to 1.
        temperature: τ.

    Raises:
        TypeError, ValueError: rows of different shapes, NaN or infinity, τ ≤ 0.
    """
    check_positive("temperature", temperature)
    check_samples(a, shape=a.shape[1:], name="features")
    check_alike("the other views", b, a)
    rows = normalize(torch.cat([a, b]), dim=1)  # (2B, D)
    alike = (rows @ rows.T / temperature).fill_diagonal_(-inf)  # (2B, 2B)
    partner = torch.arange(len(rows), device=rows.device).roll(len(a))
    return cross_entropy(alike, partner, reduction="none").view(2, -1).mean(0)


def shared_information(p: Tensor, q: Tensor) -> Tensor:
    """What each pair of views adds to I(c_a; c_b), (B,), in nats; its mean is I.

        P = Σ_i (p_i·q_iᵀ + q_i·p_iᵀ)/2B,   I = Σ_cd P_cd·log(P_cd/(P_c·P_d)) ≤ log K

    Args:
        p, q: q(c|a_i) and q(c|b_i), rows that sum to 1, (B, K).

    Raises:
        TypeError, ValueError: rows of different shapes, NaN or infinity.
    """
    check_samples(p, shape=p.shape[1:], name="probabilities")
    check_alike("the other probabilities", q, p)
    joint = p.T @ q / len(p)
    joint = (joint + joint.T) / 2  # (K, K)
    alone = joint.sum(0)
    least = torch.finfo(p.dtype).tiny
    ratio = (joint.clamp(min=least) / torch.outer(alone, alone).clamp(min=least)).log()
    return ((p @ ratio) * q).sum(1)  # the ratio is symmetric


@dataclass(frozen=True)
class ContrastLoss:
    """:func:`nt_xent` of what a network makes of two views of each image: (B,).

    Attributes:
        views: what may change.
        temperature: τ.
    """

    views: Views
    temperature: float = 0.3

    def __call__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        x = batch[0]
        a, b = network(torch.cat([self.views(x), self.views(x)])).chunk(2)
        return nt_xent(a, b, self.temperature)


@dataclass(frozen=True)
class LabelLoss:
    """−log q(c|view) of the labels of a batch (images, labels, …): (B,), in nats.

    Attributes:
        views: what may change.
    """

    views: Views

    def __call__(self, code: DigitCode, batch: tuple[Tensor, ...]) -> Tensor:
        x, label = batch[:2]
        logits = code.logits(self.views(x))
        check_labels(label, classes=logits.shape[1], batch=len(x))
        return cross_entropy(logits, label, reduction="none")


@dataclass(frozen=True)
class InformationLoss:
    """−I(c_a; c_b) of two views of each image: (B,), in nats.

    Attributes:
        views: what may change.
        known: some images and their labels, whose mean :class:`LabelLoss` is added.
    """

    views: Views
    known: tuple[Tensor, Tensor] | None = None

    def __call__(self, code: DigitCode, batch: tuple[Tensor, ...]) -> Tensor:
        x = batch[0]
        both = code.logits(torch.cat([self.views(x), self.views(x)])).softmax(dim=1)
        loss = -shared_information(*both.chunk(2))
        if self.known is not None:
            loss = loss + LabelLoss(self.views)(code, self.known).mean()
        return loss


# --- k-means --------------------------------------------------------------------------


def k_means(
    x: Tensor, clusters: int, starts: int = 10, seed: int = 0
) -> tuple[Tensor, float]:
    """The centres m (K, D) of rows x (N, D), and E‖x − m‖² to the nearest of them.

    Of several starts, each by k-means++, the one with the least distance: most starts
    end in a poor optimum.

    Args:
        x: rows.
        clusters: K, at most N.
        starts: how many.
        seed: of the starts.

    Raises:
        TypeError, ValueError: no finite rows, fewer rows than clusters.
    """
    check_samples(x, shape=x.shape[1:], name="rows")
    clusters, starts = check_count("clusters", clusters), check_count("starts", starts)
    seed = check_count("seed", seed, least=0)
    if x.ndim != 2 or len(x) < clusters:
        raise ValueError(
            f"x must have shape (N, D) with N of at least {clusters} clusters,"
            f" got {tuple(x.shape)}"
        )
    rows, found = x.detach().double().cpu().numpy(), []
    for start in range(starts):
        centres, near = kmeans2(
            rows, clusters, iter=30, minit="++", rng=seed + 1000 * start
        )
        found.append((float(((rows - centres[near]) ** 2).sum(1).mean()), centres))
    distance, best = min(found, key=lambda one: one[0])
    return torch.from_numpy(best).to(x), distance


@torch.no_grad()
def start_from_clusters(
    code: DigitCode, seen: Tensor, starts: int = 10, spread: float = 0.1
) -> None:
    """Let q(c|x) ∝ exp(−‖h(x) − m_c‖²/2T), with the centres m of k-means.

    As h has length 1, that is a linear layer: W = m/T, b = −‖m‖²/2T.

    Args:
        code: trained features; its last layer is set.
        seen: what the network sees of some images, (N, ·, S, S).
        starts: of k-means, whose seed is drawn from torch's random numbers.
        spread: T.
    """
    spread = check_positive("spread", spread)
    seed = int(torch.randint(2**31, ()))
    with frozen(code):
        rows = torch.cat([code.features(part) for part in seen.split(1000)])
    centres, _ = k_means(rows, code.head.out_features, starts, seed)
    code.head.weight.copy_(centres / spread)
    code.head.bias.copy_(-centres.square().sum(1) / (2 * spread))


# --- training -------------------------------------------------------------------------


def train_digit_code(
    code: DigitCode,
    data: ImageSplits,
    *,
    views: Views = Views(),
    contrast: int = 6,
    information: int = 6,
    batch: int = 250,
    lr: float = 4e-3,
    temperature: float = 0.3,
    clustered: int = 5000,
    labels: int = 0,
) -> History:
    """Contrast, k-means, mutual information, on ``data.train``.

    The history has the losses of the two trainings, ``contrast`` and ``information``.

    Args:
        code: trained in place.
        data: its ``train`` images; their labels are looked at only if ``labels`` asks.
        views: what may change in an image while its digit stays.
        contrast, information: epochs of the two trainings. Without the first there is
            no k-means: the code starts at random. Without the second it stays as
            k-means left it.
        batch, lr: images in a batch, peak rate.
        temperature: of the contrast, τ.
        clustered: how many images k-means takes.
        labels: how many labels of each class are added to the mutual information.
    """
    began = time.process_time()
    images = seen_images(code, data.train)
    history = History(losses={"contrast": [], "information": []})
    settings: dict[str, Any] = {"batch": batch, "lr": lr}
    if check_count("contrast", contrast, least=0):
        network = nn.Sequential(code.body, mlp([FEATURES, FEATURES, 64]))
        loss = ContrastLoss(views, temperature)
        first = train_epochs(network, images, loss, epochs=contrast, **settings)
        history.losses["contrast"], history.interrupted = first.loss, first.interrupted
        start_from_clusters(code, images.image[:clustered])
    if check_count("information", information, least=0) and not history.interrupted:
        known = None
        if check_count("labels", labels, least=0):
            few = images.per_class(labels)
            known = (few.image, few.label)
        asked = InformationLoss(views, known)
        second = train_epochs(code, images, asked, epochs=information, **settings)
        history.losses["information"] = second.loss
        history.interrupted = second.interrupted
    history.seconds = time.process_time() - began
    code.eval()
    return history


def train_labels(
    code: DigitCode,
    data: ImageSplits,
    *,
    views: Views = Views(),
    labels: int = 10,
    steps: int = 1000,
    batch: int = 100,
    lr: float = 2e-3,
) -> History:
    """What a few labels alone give: cross-entropy of views of those images.

    Args:
        code: trained in place.
        data: its first ``train`` images of each class.
        views: what may change in an image while its digit stays.
        labels: how many of each class.
        steps, batch, lr: steps, images in a batch, peak rate.
    """
    few = seen_images(code, data.train).per_class(labels)
    return train(code, LabelLoss(views), few.batches(batch), steps, lr=lr)


def seen_images(code: DigitCode, images: Images) -> Images:
    """The images as the network sees them, with their labels."""
    seen = torch.cat([code.seen(part) for part in images.image.split(1000)])
    return Images(seen, images.label, images.classes)
