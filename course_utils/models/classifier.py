"""A convolutional classifier of digits: the judge of the generative models.

    p(c|x) = softmax_c(net(x)),    loss = E[−log p(c|x)]    (cross-entropy, nats)

Each training image is turned, scaled and shifted a little at each step, so that the
network never sees the same pixels twice (Simard, Steinkraus and Platt 2003, "Best
practices for convolutional neural networks applied to visual document analysis").
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from course_utils.checks import check_count, check_images, check_labels, check_shape
from course_utils.data.images import Images, ImageSplits
from course_utils.distributions import uniform
from course_utils.networks.basic import gradient_if_asked
from course_utils.networks.images import channels_last
from course_utils.training.history import History
from course_utils.training.loop import train_epochs


class Classifier(nn.Module):
    """Four convolutions with batch normalization, and one linear layer.

    Args:
        width: channels of the first layer, w; the others have twice as many.
        shape: (C, H, W) of an image, H and W at least 8.
        classes: how many there are.

    Raises:
        ValueError: counts below 1, or another kind of shape.
    """

    def __init__(
        self,
        width: int = 16,
        shape: Sequence[int] = (1, 28, 28),
        classes: int = 10,
    ) -> None:
        super().__init__()
        w, self.shape = check_count("width", width), check_shape(shape)
        if len(self.shape) != 3 or min(self.shape[1:]) < 8:
            raise ValueError(
                "images must have a shape (C, H, W) with sides of at least 8 pixels,"
                f" got {self.shape}"
            )
        channels, height, across = self.shape
        self.body = nn.Sequential(
            *_convolution(channels, w, 5, stride=2),  # (B, w, 14, 14) of 28 × 28
            *_convolution(w, 2 * w, 3, pool=True),  # (B, 2w, 7, 7)
            *_convolution(2 * w, 2 * w, 3),
            *_convolution(2 * w, 2 * w, 3, pool=True),  # (B, 2w, 3, 3)
            nn.Flatten(),  # (B, 18w)
        )
        left = ((height + 1) // 8) * ((across + 1) // 8)  # places of the last layer
        self.head = nn.Linear(2 * w * left, check_count("classes", classes))
        channels_last(self)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees of images x (B, C, H, W): (B, 18·width)."""
        check_images(x, shape=self.shape, like=self.head.weight)
        return self.body(x.contiguous(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images x (B, C, H, W) in [0, 1]: (B, classes).

        Raises:
            TypeError, ValueError: images of another shape, dtype or device; NaN or
                infinite pixels.
        """
        return self.head(self.features(x))

    def log_prob(self, x: Tensor, chunk: int = 1000) -> Tensor:
        """log p(c|x) of any number of images, (N, C), in nats; in evaluation mode.

        There is a gradient if the images require one.
        """
        check_images(x, shape=self.shape, like=self.head.weight)
        chunk = check_count("chunk", chunk)
        in_training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            with gradient_if_asked(x):
                parts = [self(part).log_softmax(dim=1) for part in x.split(chunk)]
        finally:
            for module in in_training:
                module.training = True
        return torch.cat(parts)


def _convolution(
    before: int, after: int, size: int, stride: int = 1, pool: bool = False
) -> list[nn.Module]:
    """Convolution, batch normalization, ReLU; the borders are padded with zeros.

    With ``pool`` the largest of each 2 × 2 is taken before ReLU, which gives the same
    as after it and is faster.
    """
    return [
        nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(after),
        *([nn.MaxPool2d(2)] if pool else []),
        nn.ReLU(inplace=True),
    ]


def augment(
    x: Tensor,
    turn: float = 15.0,
    scale: float = 0.15,
    shear: float = 0.2,
    shift: float = 2.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Each image (B, C, H, W) turned, scaled, sheared and shifted at random.

    Args:
        x: images.
        turn: largest angle, in degrees.
        scale: largest relative change of size.
        shear: largest slant: how far a row moves for each row of distance.
        shift: largest shift along each axis, in pixels.
        generator: source of randomness.
    """
    u = 2 * uniform((5, len(x)), x, generator) - 1  # (5, B) in [−1, 1]
    angle, size, slant = u[0] * turn * pi / 180, 1 + u[1] * scale, u[2] * shear
    sides = u.new_tensor(x.shape[:1:-1])[:, None]  # W, H
    move = u[3:] * shift * 2 / sides  # each side of the image is 2
    c, s = angle.cos() / size, angle.sin() / size
    long = x.shape[2] / x.shape[3]  # H/W: a pixel is square, whatever the sides are
    right, down = [c, (slant - s) * long, move[0]], [s / long, c, move[1]]
    affine = torch.stack(right + down, dim=1).view(-1, 2, 3)
    grid = affine_grid(affine, list(x.shape), align_corners=False)  # (B, H, W, 2)
    return grid_sample(x, grid.to(x.dtype), align_corners=False)


def plain_cross_entropy(model: Classifier, batch: tuple[Tensor, ...]) -> Tensor:
    """−log p(c|x) of a batch (images, labels, …), in nats: (B,)."""
    x, label = batch[:2]
    logits = model(x)
    check_labels(label, classes=logits.shape[1], batch=len(x))
    return cross_entropy(logits, label, reduction="none")


def augmented_cross_entropy(model: Classifier, batch: tuple[Tensor, ...]) -> Tensor:
    """The same, with each image augmented afresh: (B,)."""
    x, label = batch[:2]
    check_images(x, shape=model.shape, like=model.head.weight)
    return plain_cross_entropy(model, (augment(x), label))


def held_out(model: Classifier, images: Images) -> dict[str, Tensor]:
    """Loss in nats and accuracy of each image, (N,): images as they are."""
    log_p = model.log_prob(images.image.to(model.head.weight.device)).cpu()
    check_labels(images.label, classes=log_p.shape[1], batch=len(log_p))
    loss = -log_p.gather(1, images.label[:, None])[:, 0]
    return {
        "loss": loss,
        "accuracy": (log_p.argmax(dim=1) == images.label).float(),
    }


def train_classifier(
    model: Classifier,
    data: ImageSplits,
    *,
    epochs: int = 12,
    batch: int = 128,
    lr: float = 6e-3,
    augmented: bool = True,
) -> History:
    """Train on ``data.train``; validate on ``data.validation`` after each epoch."""
    return train_epochs(
        model,
        data.train,
        augmented_cross_entropy if augmented else plain_cross_entropy,
        epochs=epochs,
        batch=batch,
        lr=lr,
        warmup=200,
        measure=lambda model: held_out(model, data.validation),
    )


def confusion(log_p: Tensor, label: Tensor) -> Tensor:
    """How many images of class i (row) were taken for class j (column): (C, C).

    Args:
        log_p: log p(c|x), (N, C).
        label: the truth, (N,).
    """
    count, classes = log_p.shape
    check_labels(label, classes=classes, batch=count)
    pairs = classes * label + log_p.argmax(dim=1)
    return pairs.bincount(minlength=classes**2).view(classes, classes)
