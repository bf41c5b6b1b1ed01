"""Translation between two domains of images without pairs: a CycleGAN.

    G: A → B,  F: B → A            two generators
    D_A, D_B                       two discriminators: is this an image of the domain?

    generators:      min  E[ℓ(D_B(G(a)), 1)] + E[ℓ(D_A(F(b)), 1)]
                          + λ·E[d(a, F(G(a))) + d(b, G(F(b)))]
                          + μ·E[d(b, G(b)) + d(a, F(a))]        (identity, off: μ = 0)
    discriminators:  min  E[ℓ(D_A(a), 1) + ℓ(D_A(F(b)), 0)] + the same of B

ℓ is a squared error or a cross-entropy, d a distance of images. Only images that are
not black are worth a translation: where 85 % of the pixels are black, a plain mean over
pixels is small for a generator that paints everything black. d weighs a pixel by its
grey level.

Networks are those of a small exercise. The generators are local: a pixel of G(a)
depends on 5 × 5 pixels of a. They may train on smaller images than they translate.

Source: Zhu et al. 2017, "Unpaired image-to-image translation using cycle-consistent
adversarial networks" (arXiv:1703.10593).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, softplus
from torch.optim import Adam

from course_utils.checks import (
    check_alike,
    check_count,
    check_images,
    check_labels,
    check_number,
    check_option,
    check_positive,
    check_shape,
)
from course_utils.data.colours import (
    COLOURS,
    ColouredImages,
    TwoDomains,
    colour_of,
    grey_of,
    nearest_colour,
)
from course_utils.networks.basic import frozen, mlp
from course_utils.networks.images import channels_last, conv_decoder, conv_encoder
from course_utils.training.history import History
from course_utils.training.loop import train
from course_utils.training.turns import Turn

Kind = Literal["squares", "entropy"]
KINDS = ("squares", "entropy")
WATCHED = 256  # held-out images of each domain that a training measures

# --- networks -------------------------------------------------------------------------


class Generator(nn.Module):
    """Three convolutions and a sigmoid: images (B, C, H, W) of any size to the same.

    Args:
        network: from images to images in [0, 1]; None for that of the exercise,
            C → 32 → 40 → C with kernels 3, 3 and 1.
        channels: C.
    """

    def __init__(self, network: nn.Module | None = None, channels: int = 3) -> None:
        super().__init__()
        self.channels = check_count("channels", channels)
        self.network = network or nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),  # (B, 32, H, W)
            nn.ReLU(),
            nn.Conv2d(32, 40, 3, padding=1),  # (B, 40, H, W)
            nn.ReLU(),
            nn.Conv2d(40, channels, 1),  # (B, C, H, W)
            nn.Sigmoid(),
        )
        channels_last(self)

    def forward(self, x: Tensor) -> Tensor:
        """The translated images, (B, C, H, W) in [0, 1].

        Raises:
            TypeError, ValueError: images of another shape, dtype or device; NaN or
                infinite pixels; a network that gives another shape.
        """
        size = x.shape[2:] if isinstance(x, Tensor) and x.ndim == 4 else ("H", "W")
        check_images(
            x, shape=(self.channels, *size), like=next(self.network.parameters())
        )
        x = x.contiguous(memory_format=torch.channels_last)
        return check_alike("what the generator gives", self.network(x), x)


class Discriminator(nn.Module):
    """Two convolutions, each with max-pooling, and two linear layers: a logit.

    The exercise ends in a sigmoid: D(x) = σ(logit). The losses take the logit.

    Args:
        shape: (C, H, W) of an image, H and W at least 4.
        hidden: width of the linear layer between.
        classes: labels that it is told, 0 for none. A label adds a learnt row times the
            last features (Miyato and Koyama 2018, arXiv:1802.05637).
    """

    def __init__(
        self, shape: Sequence[int] = (3, 28, 28), hidden: int = 64, classes: int = 0
    ) -> None:
        super().__init__()
        self.shape = check_shape(shape)
        if len(self.shape) != 3 or min(self.shape[1:]) < 4:
            raise ValueError(
                "images must have a shape (C, H, W) with sides of at least 4 pixels,"
                f" got {self.shape}"
            )
        channels, height, width = self.shape
        hidden = check_count("hidden", hidden)
        self.classes = check_count("classes", classes, least=0)
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.MaxPool2d(2),  # (B, 32, H/2, W/2)
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.MaxPool2d(2),  # (B, 64, H/4, W/4)
            nn.ReLU(),
            nn.Flatten(),  # (B, 64·H/4·W/4)
            nn.Linear(64 * (height // 4) * (width // 4), hidden),
            nn.ReLU(),
        )
        self.head = nn.Linear(hidden, 1)
        self.table = nn.Embedding(classes, hidden) if classes else None
        channels_last(self)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """The logit of "x is real", (B,), of images (B, C, H, W).

        Raises:
            TypeError, ValueError: images of another shape, dtype or device; labels that
                are missing, or that it does not take.
        """
        check_images(x, shape=self.shape, like=self.head.weight)
        if (label is None) != (self.table is None):
            wanted = f"{self.classes} labels" if self.classes else "no labels"
            got = "none" if label is None else "some"
            raise ValueError(f"this discriminator takes {wanted}, got {got}")
        h = self.body(x.contiguous(memory_format=torch.channels_last))  # (B, hidden)
        logit = self.head(h)[:, 0]
        if self.table is None or label is None:
            return logit
        check_labels(label, classes=self.classes, batch=len(x))
        return logit + (self.table(label) * h).sum(1)


class CycleGAN(nn.Module):
    """Two generators and two discriminators.

    Attributes:
        to_b, to_a: G and F.
        in_a, in_b: D_A and D_B.

    Args:
        shape: (C, H, W) of the images that are translated.
        shrink: training sees images smaller by this factor, H/shrink × W/shrink. The
            convolutions of the generators take any size.
        make_generator: builds each of the two.
        make_discriminator: builds each of the two, of a shape.

    Raises:
        TypeError, ValueError: another kind of shape, a factor that does not divide it.
    """

    def __init__(
        self,
        shape: Sequence[int] = (3, 28, 28),
        shrink: int = 2,
        make_generator: Callable[..., nn.Module] = Generator,
        make_discriminator: Callable[..., nn.Module] = Discriminator,
    ) -> None:
        super().__init__()
        channels, *sides = self.shape = check_shape(shape)
        self.shrink = check_count("shrink", shrink)
        if any(side % shrink for side in sides):
            raise ValueError(
                f"shrink must divide the sides of the images {self.shape}, got {shrink}"
            )
        small = (channels, *(side // shrink for side in sides))
        self.to_b = make_generator(channels=channels)
        self.to_a = make_generator(channels=channels)
        self.in_a = make_discriminator(small)
        self.in_b = make_discriminator(small)

    def shrunk(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) as training sees them: means over shrink × shrink."""
        return avg_pool2d(x, self.shrink) if self.shrink > 1 else x


# --- losses ---------------------------------------------------------------------------


def adversarial(logit: Tensor, real: bool, kind: Kind = "squares") -> Tensor:
    """ℓ(D(x), y) for y = 1 (``real``) or 0, (B,), with D(x) = σ(logit).

    ``squares``: (D(x) − y)²; ``entropy``: −log D(x) or −log(1 − D(x)), in nats. Where
    real and false cannot be told apart, D = ½ is best, and the two terms of a
    discriminator add up to ¼ + ¼ or to log 4.
    """
    check_option("kind", kind, KINDS)
    if kind == "entropy":
        return softplus(-logit if real else logit)
    return (logit.sigmoid() - float(real)).square()


def distance(x: Tensor, y: Tensor, background: float | None = 0.05) -> Tensor:
    """d(x, y) = Σ_p w_p·|x_p − y_p| / Σ_p w_p, (B,), of images (B, C, H, W).

    The weight of a pixel is w_p = max_k x_pk + ``background``: its grey level in x, and
    a little. |·| is a mean over channels. With None all weights are 1: a plain mean.
    """
    error = (check_alike("images", y, x) - x).abs().mean(1).flatten(1)  # (B, P)
    if background is None:
        return error.mean(1)
    weight = x.detach().amax(1).flatten(1) + check_positive("background", background)
    return (weight * error).sum(1) / weight.sum(1)


def shuffled_tints(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Coloured images (B, 3, H, W), each in the colour of another, drawn at random."""
    order = torch.randperm(len(x), generator=generator).to(x.device)
    return grey_of(x) * colour_of(x).nan_to_num()[order, :, None, None]


class ImagePool:
    """Past images of a generator, of which its discriminator sees some again.

    Until it is full, the pool keeps each image and gives it back. Then each image goes
    back as it is, or, with probability ½, an older one does, whose place it takes.

    Args:
        size: how many images are kept; 0 for none.
        generator: source of randomness; it lives on the CPU.

    Source: Shrivastava et al. 2017 (arXiv:1612.07828).
    """

    def __init__(
        self, size: int = 50, generator: torch.Generator | None = None
    ) -> None:
        self.size = check_count("size", size, least=0)
        self.generator = generator
        self.kept: list[Any] = []

    def __call__(self, x: Tensor, *beside: Tensor) -> Any:
        """Images (B, …), new or old, without gradients; what is beside them goes along.

        Returns:
            The images, or a tuple of them and of what was beside them.
        """
        given = [
            tuple(row.detach() for row in rows) for rows in zip(x, *beside, strict=True)
        ]
        if self.size:
            given = [self._exchange(rows) for rows in given]
        out = tuple(torch.stack(column) for column in zip(*given, strict=True))
        return out if beside else out[0]

    def _exchange(self, new: Any) -> Any:
        if len(self.kept) < self.size:
            self.kept.append(new)
            return new
        if float(torch.rand((), generator=self.generator)) < 0.5:
            return new
        at = int(torch.randint(self.size, (), generator=self.generator))
        old, self.kept[at] = self.kept[at], new
        return old


Pair = tuple[Tensor, Tensor]  # images of A and of B


@dataclass
class Game:
    """The losses of the two turns, and the pools between them.

    Attributes:
        kind: of the adversarial loss.
        cycle, identity: λ and μ.
        background: of the distance d.
        pool: images in each of the two pools.
        pairs: images of A and of B that belong together, if there are any; d of their
            translations is added to the generators' loss.

    The generators move first, then the discriminators, on images that they made.
    """

    kind: Kind = "squares"
    cycle: float = 0.5
    identity: float = 0.0
    background: float | None = 0.05
    pool: int = 50
    pairs: Pair | None = None

    def __post_init__(self) -> None:
        check_option("kind", self.kind, KINDS)
        for name in ("cycle", "identity"):
            if not 0 <= check_number(name, getattr(self, name)) < float("inf"):
                raise ValueError(
                    f"{name} must be a finite number of at least 0,"
                    f" got {getattr(self, name)!r}"
                )
        self.pool_a, self.pool_b = ImagePool(self.pool), ImagePool(self.pool)
        self.made: Pair | None = None  # F(b) and G(a) of the generators' last turn

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """d(x, y), (B,)."""
        return distance(x, y, self.background)

    def generators(self, model: CycleGAN, batch: Any) -> Tensor:
        """What G and F minimise, (B,): of images of A and of B, with labels or not."""
        (a, *label_a), (b, *label_b) = split(model, batch)
        to_b, to_a = model.to_b(a), model.to_a(b)  # G(a), F(b)
        self.made = to_a.detach(), to_b.detach()
        loss = adversarial(model.in_b(to_b, *label_a), True, self.kind)
        loss = loss + adversarial(model.in_a(to_a, *label_b), True, self.kind)
        if self.cycle:
            there = self.distance(a, model.to_a(to_b))  # d(a, F(G(a)))
            back = self.distance(b, model.to_b(to_a))  # d(b, G(F(b)))
            loss = loss + self.cycle * (there + back)
        if self.identity:
            same = self.distance(b, model.to_b(b)) + self.distance(a, model.to_a(a))
            loss = loss + self.identity * same
        return loss if self.pairs is None else loss + self.of_pairs(model).mean()

    def of_pairs(self, model: CycleGAN) -> Tensor:
        """d(b, G(a)) + d(a, F(b)) of the images that belong together, (N,)."""
        assert self.pairs is not None, "there are pairs"
        a, b = (model.shrunk(x) for x in self.pairs)
        return self.distance(b, model.to_b(a)) + self.distance(a, model.to_a(b))

    def discriminators(self, model: CycleGAN, batch: Any) -> Tensor:
        """What D_A and D_B minimise, (B,): real images against those of the pools."""
        (a, *label_a), (b, *label_b) = split(model, batch)
        if self.made is None:
            raise ValueError("the generators must have their turn first")
        old_a = self.pool_a(self.made[0], *label_b)  # F(b), with the label of b
        old_b = self.pool_b(self.made[1], *label_a)
        return self.told_apart(model.in_a, (a, *label_a), old_a) + self.told_apart(
            model.in_b, (b, *label_b), old_b
        )

    def told_apart(self, network: nn.Module, real: Any, made: Any) -> Tensor:
        """ℓ(D(x), 1) + ℓ(D(x̂), 0), (B,), in one pass of D."""
        made = made if isinstance(made, tuple) else (made,)
        both = [torch.cat(each) for each in zip(real, made, strict=True)]
        of_real, of_made = network(*both).chunk(2)
        return adversarial(of_real, True, self.kind) + adversarial(
            of_made, False, self.kind
        )


def split(model: CycleGAN, batch: Any) -> list[tuple[Tensor, ...]]:
    """Images of A and of B as training sees them, each with its labels if it has any.

    Args:
        model: whose ``shrink`` counts.
        batch: (a, b), or ((a, labels), (b, labels)).

    Raises:
        TypeError: a batch of another form.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        got = type(batch).__name__
        raise TypeError(f"a batch must be images of A and images of B, got {got}")
    parts = [(one,) if isinstance(one, Tensor) else tuple(one) for one in batch]
    return [(model.shrunk(x), *label) for x, *label in parts]


# --- training -------------------------------------------------------------------------


def identity_loss(model: CycleGAN, batch: Any) -> Tensor:
    """d(x, G(x)) + d(y, F(y)), (B,), with the tints of a batch shuffled.

    Generators that start here keep shapes, whatever the colour is, and have not yet
    decided on colours.
    """
    (a, *_), (b, *_) = split(model, batch)
    a, b = shuffled_tints(a), shuffled_tints(b)
    return distance(a, model.to_b(a)) + distance(b, model.to_a(b))


def translation_turns(
    model: CycleGAN,
    game: Game,
    lr: float = 5e-3,
    discriminator_lr: float = 2e-3,
    betas: tuple[float, float] = (0.5, 0.99),
) -> list[Turn[CycleGAN, Any]]:
    """The turn of the generators, then that of the discriminators; four Adams.

    Args:
        model: whose networks move.
        game: what they minimise.
        lr, discriminator_lr: peak learning rates of generators and discriminators.
        betas: Adam's. The first is low: what is past in a game is soon out of date.
    """
    lr = check_positive("lr", lr)
    other = check_positive("discriminator_lr", discriminator_lr)
    g, f, d_a, d_b = (
        Adam(network.parameters(), rate, betas=betas, fused=True)
        for network, rate in (
            (model.to_b, lr),
            (model.to_a, lr),
            (model.in_a, other),
            (model.in_b, other),
        )
    )
    return [
        Turn(game.generators, [g, f], name="generators"),
        Turn(game.discriminators, [d_a, d_b], name="discriminators"),
    ]


def labelled_batches(data: TwoDomains, size: int) -> Iterator[Any]:
    """As ``data.batches(size)``, with the labels: ((a, labels), (b, labels))."""
    data.steps(size)  # a size that is too large is refused

    def each(images: ColouredImages) -> Iterator[Pair]:
        return ((x, y) for x, y, _ in images.batches(size) if len(x) == size)

    return zip(each(data.a), each(data.b), strict=True)


def train_translation(
    model: CycleGAN,
    data: TwoDomains,
    held_out: TwoDomains,
    *,
    steps: int = 700,
    batch: int = 16,
    warm_up: int = 150,
    warm_lr: float = 2e-3,
    lr: float = 5e-3,
    discriminator_lr: float = 2e-3,
    labelled: bool = False,
    keep: Collection[int] = (),
    steps_per_epoch: int = 50,
    **losses: Any,
) -> History:
    """The identity first, then the game; what happens is measured on held-out images.

    What the history has measured, see :func:`held_out_losses`. Its losses are those of
    the turns, and of the identity before them.

    Args:
        model: trained in place.
        data: images of the two domains.
        held_out: others, of which the first are measured.
        steps, batch: of the game; images of each domain in a step.
        warm_up, warm_lr: steps before it and their peak learning rate; 0 for none.
        lr, discriminator_lr: see :func:`translation_turns`.
        labelled: whether the discriminators are told the labels.
        keep: epochs of ``steps_per_epoch`` steps whose weights the history keeps.
        steps_per_epoch: measure after so many.
        losses: settings of :class:`Game`.
    """
    game, before = Game(**losses), None
    if check_count("warm_up", warm_up, least=0):
        g, f = (
            Adam(network.parameters(), check_positive("warm_lr", warm_lr), fused=True)
            for network in (model.to_b, model.to_a)
        )
        turn: Turn[CycleGAN, Any] = Turn(identity_loss, [g, f], name="warm-up")
        with frozen(model.in_a), frozen(model.in_b):
            before = train(model, [turn], data.batches(batch), warm_up, warmup=1)
        if before.interrupted:
            return before
    batches = labelled_batches(data, batch) if labelled else data.batches(batch)
    history = train(
        model,
        translation_turns(model, game, lr, discriminator_lr),
        batches,
        steps,
        warmup=1,
        measure=lambda model: held_out_losses(model, game, held_out, labelled),
        steps_per_epoch=steps_per_epoch,
        keep=keep,
    )
    if before is not None:
        history.losses = {**before.losses, **history.losses}
        history.seconds += before.seconds
    return history


# --- what a translation is worth ------------------------------------------------------

DIRECTIONS = ("A to B", "B to A")


class Translated(NamedTuple):
    """Images of one domain, translated, and how well.

    Attributes:
        image: G(x), (B, 3, H, W).
        again: F(G(x)), (B, 3, H, W).
        colour: the nearest of the ten colours to that of G(x), (B,); −1 for a dark one.
        right: whether it is the colour of x's class in the other domain, (B,).
        shape_error: mean |grey of G(x) − grey of x| over pixels, (B,).
        cycle_error: mean |F(G(x)) − x| over pixels and channels, (B,).
    """

    image: Tensor
    again: Tensor
    colour: Tensor
    right: Tensor
    shape_error: Tensor
    cycle_error: Tensor


def rule_of(images: ColouredImages) -> Tensor:
    """The colour of each class, (classes,); −1 for a class without images."""
    rule = torch.full((images.classes,), -1)
    rule[images.label] = images.colour
    return rule


@torch.no_grad()
def translate(
    there: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    images: ColouredImages,
    rule: Tensor | Sequence[int],
    chunk: int = 500,
) -> Translated:
    """Translate images and hold the outcome against the truth.

    Args:
        there, back: the translator to the other domain, and the one back.
        images: of one domain.
        rule: class → colour in the other domain.
        chunk: images at a time.

    Raises:
        ValueError: a rule that has not a colour for each class.
    """
    wanted = torch.as_tensor(rule)
    check_labels(wanted, classes=len(COLOURS), batch=images.classes)
    parts = []
    for x in images.image.split(check_count("chunk", chunk)):
        y = check_alike("what the translator gives", there(x), x)
        z = check_alike("what the translator back gives", back(y), x)
        shape_error = (grey_of(y) - grey_of(x)).abs().flatten(1).mean(1)
        cycle_error = (z - x).abs().flatten(1).mean(1)
        parts.append((y, z, nearest_colour(y), shape_error, cycle_error))
    y, z, colour, *errors = (torch.cat(part) for part in zip(*parts, strict=True))
    return Translated(y, z, colour, colour == wanted[images.label], *errors)


def translations(model: CycleGAN, domains: TwoDomains) -> dict[str, Translated]:
    """Both directions: ``A to B`` of the images of A, ``B to A`` of those of B."""
    rule_a, rule_b = rule_of(domains.a), rule_of(domains.b)
    return {
        "A to B": translate(model.to_b, model.to_a, domains.a, rule_b),
        "B to A": translate(model.to_a, model.to_b, domains.b, rule_a),
    }


def colour_confusion(found: Tensor, label: Tensor, classes: int = 10) -> Tensor:
    """How many images of a class (row) took a colour (column): (classes, 11).

    The last column is that of images without a colour.

    Args:
        found: colours, (B,), −1 for none.
        label: classes, (B,).
        classes: how many there are.
    """
    check_labels(label, classes=classes, batch=len(found))
    columns = len(COLOURS) + 1
    place = columns * label + found.remainder(columns)  # −1 becomes the last
    return place.bincount(minlength=classes * columns).view(classes, columns)


@torch.no_grad()
def held_out_losses(
    model: CycleGAN, game: Game, held_out: TwoDomains, labelled: bool = False
) -> dict[str, Tensor]:
    """All losses and measures of the first held-out images, one value an image.

    ``cycle`` and ``identity`` are the losses without their weights; ``G fools D_B`` and
    ``F fools D_A`` the adversarial losses; ``D_A`` and ``D_B`` those of discriminators
    on new translations, not on the pools; ``right``, ``shape`` and ``back`` what
    :class:`Translated` measures in each direction, at full size.
    """
    domains = TwoDomains(_first(held_out.a), _first(held_out.b), "first")
    here = next(model.parameters())
    batch = tuple(
        (one.image.to(here), one.label.to(here.device))
        if labelled
        else one.image.to(here)
        for one in (domains.a, domains.b)
    )
    (a, *label_a), (b, *label_b) = split(model, batch)
    to_b, to_a = model.to_b(a), model.to_a(b)
    told = {
        "cycle": game.distance(a, model.to_a(to_b))
        + game.distance(b, model.to_b(to_a)),
        "identity": game.distance(b, model.to_b(b)) + game.distance(a, model.to_a(a)),
        "G fools D_B": adversarial(model.in_b(to_b, *label_a), True, game.kind),
        "F fools D_A": adversarial(model.in_a(to_a, *label_b), True, game.kind),
        "D_A": game.told_apart(model.in_a, (a, *label_a), (to_a, *label_b)),
        "D_B": game.told_apart(model.in_b, (b, *label_b), (to_b, *label_a)),
    }
    for direction, found in translations(model, domains).items():
        told[f"right {direction}"] = found.right.float()
        told[f"shape {direction}"] = found.shape_error
        told[f"back {direction}"] = found.cycle_error
    return told


def _first(images: ColouredImages) -> ColouredImages:
    """The images that a training watches."""
    image, label, colour = (
        part[:WATCHED] for part in (images.image, images.label, images.colour)
    )
    return ColouredImages(image, label, images.classes, colour=colour)


# --- networks that the recipe does not use --------------------------------------------


class ColourDiscriminator(nn.Module):
    """A discriminator that sees the colour of an image and nothing of its shape.

    Args:
        shape: (3, H, W) of an image.
        width: of two hidden layers.
    """

    def __init__(self, shape: Sequence[int] = (3, 28, 28), width: int = 64) -> None:
        super().__init__()
        self.shape = check_shape(shape)
        self.network = mlp([3, width, width, 1])

    def forward(self, x: Tensor) -> Tensor:
        """The logit of "x is real", (B,)."""
        check_images(x, shape=self.shape, like=next(self.parameters()))
        return self.network(colour_of(x).nan_to_num())[:, 0]


def whole_image_generator(channels: int = 3, latent: int = 64) -> Generator:
    """A generator of 28 × 28 pixels that draws all of them from ``latent`` numbers.

    Nothing makes it keep a shape: it can turn one digit into another.
    """
    shape = (check_count("channels", channels), 28, 28)
    network = nn.Sequential(
        conv_encoder(latent, shape=shape),
        nn.SiLU(),
        conv_decoder(latent, shape=shape),
        nn.Sigmoid(),
    )
    return Generator(network, channels)
