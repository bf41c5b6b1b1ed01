"""Latent optimization: no encoder, but a posterior q_i(z) stored for each image i.

    q_i = N(μ_i, diag exp(log σ²_i)),    learnt together with the decoder

One step sees one batch and moves only that batch's rows, so each row moves once an
epoch, while the decoder moves at each batch. :class:`LatentRecipe` sets the two
learning rates apart and can take several steps on the rows before the decoder's; where
the rows begin is up to :func:`first_posteriors`.

Source: Bojanowski et al. 2018, GLO (arXiv:1707.05776), here with a posterior an image.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer, SparseAdam

from course_utils.checks import check_count, check_positive
from course_utils.data.mnist import MNIST
from course_utils.models.vae.linear import LinearVAE, principal_components
from course_utils.models.vae.model import (
    Bound,
    DiagonalNormal,
    GaussianDecoder,
    conv_decoder,
    lower_bound,
)
from course_utils.training import History, fit_epochs

Start = Literal["random", "prior", "whitened", "linear"]


class LatentTable(nn.Module):
    """One posterior an image, looked up by the image's index.

    Its gradients are sparse: only the rows of the batch get one.

    Args:
        mean: initial μ, (N, D).
        log_var: initial log σ², (N, D), or one number for all of them.

    Raises:
        ValueError: shapes that differ.
    """

    def __init__(self, mean: Tensor, log_var: Tensor | float) -> None:
        super().__init__()
        if not isinstance(log_var, Tensor):
            log_var = torch.full_like(mean, log_var)
        if mean.ndim != 2 or mean.shape != log_var.shape:
            raise ValueError(
                "mean and log_var must both have shape (N, D), "
                f"got {tuple(mean.shape)} and {tuple(log_var.shape)}"
            )
        self.mean = nn.Embedding.from_pretrained(mean.clone(), False, sparse=True)
        self.log_var = nn.Embedding.from_pretrained(log_var.clone(), False, sparse=True)

    def forward(self, index: Tensor) -> DiagonalNormal:
        """The posteriors of the images ``index`` (B,), in that order.

        Raises:
            IndexError: an index outside 0 … N−1.
        """
        count = self.mean.num_embeddings
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < count:
            raise IndexError(
                f"images must be numbered 0 … {count - 1},"
                f" got {int(index.min())} … {int(index.max())}"
            )
        return DiagonalNormal(self.mean(index), self.log_var(index))


class LatentVAE(nn.Module):
    """A table of posteriors in the encoder's place, and a Gaussian decoder."""

    def __init__(self, table: LatentTable, decoder: GaussianDecoder) -> None:
        super().__init__()
        self.table, self.decoder = table, decoder

    def posteriors(self) -> DiagonalNormal:
        """The whole table, without gradients: q_i of every image, (N, D), in order."""
        rows = self.table.mean.weight, self.table.log_var.weight
        return DiagonalNormal(*(row.detach() for row in rows))

    def forward(
        self, x: Tensor, index: Tensor, generator: torch.Generator | None = None
    ) -> Bound:
        """The ELBO of images x (B, …), which are numbers ``index`` (B,), in parts."""
        return lower_bound(self.decoder, self.table(index), x, generator)


@dataclass
class LatentRecipe:
    """How a :class:`LatentVAE` learns: ``train(…, loss, optimizers=optimizers)``.

    Attributes:
        decoder_lr: peak learning rate of the decoder.
        latent_lr: peak learning rate of the rows.
        latent_steps: steps on the rows of a batch; the decoder moves with the last.
    """

    decoder_lr: float = 2e-3
    latent_lr: float = 2e-3
    latent_steps: int = 1
    _rows: Optimizer | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_positive("decoder_lr", self.decoder_lr)
        check_positive("latent_lr", self.latent_lr)
        check_count("latent_steps", self.latent_steps)

    def optimizers(self, model: LatentVAE) -> list[Optimizer]:
        """AdamW for the decoder, and Adam that touches only rows with a gradient."""
        betas = (0.9, 0.99)
        self._rows = SparseAdam(model.table.parameters(), self.latent_lr, betas)
        decoder = AdamW(model.decoder.parameters(), self.decoder_lr, betas, fused=True)
        return [decoder, self._rows]

    def loss(self, model: LatentVAE, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """−ELBO of a batch (images, labels, indices), (B,), after the rows' steps."""
        x, _, index = batch
        for _ in range(self.latent_steps - 1):
            assert self._rows is not None, "optimizers() comes before loss()"
            self._rows.zero_grad()
            rows = list(model.table.parameters())
            loss = -model(x, index).elbo.mean()
            for row, gradient in zip(
                rows, torch.autograd.grad(loss, rows), strict=True
            ):
                row.grad = gradient
            self._rows.step()
        return -model(x, index).elbo


def whitened_components(x: Tensor, latent: int) -> Tensor:
    """Scores on the first ``latent`` principal components, each of variance 1: (N, D).

    A start for μ: similar images begin with similar latents, and all of them together
    have the mean and covariance of the prior.

    Raises:
        ValueError: more components than pixels or images.
    """
    pca = principal_components(x, latent)
    along = (x.flatten(1).double() - pca.middle) @ pca.direction  # (N, D)
    return (along / pca.variance.clamp(min=1e-6).sqrt()).to(x)


def first_posteriors(
    x: Tensor, start: Start, latent: int = 200, sigma: float = 0.4
) -> DiagonalNormal:
    """Where the rows of images x (N, …) begin, (N, D).

    ``random``: μ ~ N(0, I), σ² = 1. ``prior``: μ = 0, σ² = 1, so that KL = 0.
    ``whitened``: μ of :func:`whitened_components`, σ² = e⁻¹. ``linear``: the exact
    posteriors of probabilistic PCA with the decoder's σ. Their aggregate has the mean
    and covariance of the prior, and a component whose variance is below σ² stays the
    prior.

    Args:
        x: images.
        start: one of these four.
        latent: D.
        sigma: the decoder's σ.

    Raises:
        ValueError: another start, or more components than pixels or images.
    """
    zeros = torch.zeros(len(x), check_count("latent", latent))
    if start == "random":
        return DiagonalNormal(torch.randn_like(zeros), zeros)
    if start == "prior":
        return DiagonalNormal(zeros, zeros)
    if start == "whitened":
        return DiagonalNormal(whitened_components(x, latent), zeros - 1)
    if start == "linear":
        with torch.no_grad():
            return LinearVAE(x, latent, sigma).posterior(x)
    names = ", ".join(map(repr, get_args(Start)))
    raise ValueError(f"start must be one of {names}, got {start!r}")


def latent_vae(
    data: MNIST, start: Start = "linear", latent: int = 200, sigma: float = 0.4
) -> LatentVAE:
    """The decoder of ``conv_vae``, untrained, and a row for each training image."""
    rows = LatentTable(*first_posteriors(data.train.image, start, latent, sigma))
    return LatentVAE(rows, GaussianDecoder(conv_decoder(latent), latent, sigma))


def train_latents(
    model: LatentVAE,
    data: MNIST,
    *,
    epochs: int = 10,
    batch: int = 128,
    lr: float = 3e-3,
    latent_lr: float = 0.03,
    latent_steps: int = 1,
    watched: int = 1000,
    keep: Collection[int] = (),
) -> History:
    """Minimise −ELBO over ``data.train``, decoder and rows together.

    The history's ``training`` is −ELBO of the first images of ``data.train`` with their
    own rows; ``reconstruction``, −log p(x|z), and ``KL`` are its two parts. All are in
    nats an image.

    Args:
        model: trained in place; row i belongs to image i of ``data.train``.
        data: its ``train`` images.
        epochs, batch: passes over the images, images in a batch.
        lr, latent_lr, latent_steps: see :class:`LatentRecipe`.
        watched: how many images are measured after an epoch.
        keep: epochs whose weights the history keeps.

    Raises:
        ValueError: a table of another size.
    """
    rows, images = model.table.mean.num_embeddings, len(data.train)
    if rows != images:
        raise ValueError(
            f"the table must have a row for each of {images} images, got {rows} rows"
        )
    recipe = LatentRecipe(lr, latent_lr, latent_steps)
    x = data.train.image[:watched]

    def validate() -> dict[str, Tensor]:
        seen: Bound = model(x, torch.arange(len(x)))
        return {
            "training": -seen.elbo,
            "reconstruction": -seen.reconstruction,
            "KL": seen.kl,
        }

    return fit_epochs(
        model,
        data.train,
        recipe.loss,
        epochs=epochs,
        batch=batch,
        optimizers=recipe.optimizers,
        validate=validate,
        keep=keep,
    )


def fit_posterior(
    decoder: GaussianDecoder,
    x: Tensor,
    start: DiagonalNormal,
    *,
    steps: int = 100,
    lr: float = 0.1,
    generator: torch.Generator | None = None,
    watch: Callable[[int, Bound], None] | None = None,
) -> DiagonalNormal:
    """Maximise the ELBO of images x (B, …) over q alone; the decoder stays as it is.

    What an image gets at test time when there is no encoder; with an encoder's q as
    ``start`` it also shows what amortisation costs.

    Args:
        decoder: p(x|z).
        x: images.
        start: where q begins, (B, D).
        steps, lr: of Adam, whose rate falls to zero along a cosine.
        generator: source of the z.
        watch: called with each step and the bound at it.

    Raises:
        ValueError: settings out of range, posteriors that do not match the images.
    """
    check_count("steps", steps)
    check_positive("lr", lr)
    if len(start.mean) != len(x):
        raise ValueError(
            "start must hold one posterior an image, "
            f"got {len(start.mean)} for {len(x)} images"
        )
    mean, log_var = (part.detach().clone().requires_grad_() for part in start)
    optimizer = torch.optim.Adam([mean, log_var], lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        bound = lower_bound(decoder, DiagonalNormal(mean, log_var), x, generator)
        if watch:
            watch(step, bound)
        mean.grad, log_var.grad = torch.autograd.grad(
            -bound.elbo.sum(), [mean, log_var]
        )
        optimizer.step()
        schedule.step()
    return DiagonalNormal(mean.detach(), log_var.detach())
