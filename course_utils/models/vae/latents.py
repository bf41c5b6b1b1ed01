"""Latent optimization: no encoder, but a posterior q_i(z) stored for each image i.

    q_i = N(μ_i, diag exp(log σ²_i)),    learnt together with the decoder

One step sees one batch and moves only that batch's rows, so each row moves once an
epoch, while the decoder moves at each batch. :func:`latent_turns` sets the two learning
rates apart and can take several steps on the rows before the decoder's; where the rows
begin is up to :func:`first_posteriors`.

Source: Bojanowski et al. 2018, GLO (arXiv:1707.05776), here with a posterior an image.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import repeat
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Adam, SparseAdam

from course_utils.checks import check_count, check_positive
from course_utils.data.images import ImageSplits
from course_utils.distributions import DiagonalNormal
from course_utils.models.vae.linear import LinearVAE, principal_components
from course_utils.models.vae.model import ElboParts, GaussianDecoder, lower_bound
from course_utils.networks.basic import frozen
from course_utils.networks.images import conv_decoder
from course_utils.training.history import History
from course_utils.training.loop import train, train_epochs
from course_utils.training.turns import Turn, adamw

Start = Literal["random", "prior", "whitened", "linear"]


class LatentTable(nn.Module):
    """One posterior an image, looked up by the image's index.

    Args:
        mean: initial μ, (N, D).
        log_var: initial log σ², (N, D), or one number for all of them.
        sparse: whether only the rows of the batch get a gradient.

    Raises:
        ValueError: shapes that differ.
    """

    def __init__(
        self, mean: Tensor, log_var: Tensor | float, sparse: bool = True
    ) -> None:
        super().__init__()
        if not isinstance(log_var, Tensor):
            log_var = torch.full_like(mean, log_var)
        if mean.ndim != 2 or mean.shape != log_var.shape:
            raise ValueError(
                "mean and log_var must both have shape (N, D), "
                f"got {tuple(mean.shape)} and {tuple(log_var.shape)}"
            )
        self.mean, self.log_var = (
            nn.Embedding.from_pretrained(rows.detach().clone(), False, sparse=sparse)
            for rows in (mean, log_var)
        )

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

    def posteriors(self) -> DiagonalNormal:
        """The whole table, without gradients: q_i of every image, (N, D), in order."""
        rows = self.mean.weight, self.log_var.weight
        return DiagonalNormal(*(row.detach() for row in rows))


class LatentVAE(nn.Module):
    """A table of posteriors in the encoder's place, and a Gaussian decoder."""

    def __init__(self, table: LatentTable, decoder: GaussianDecoder) -> None:
        super().__init__()
        self.table, self.decoder = table, decoder

    def forward(
        self, x: Tensor, index: Tensor, generator: torch.Generator | None = None
    ) -> ElboParts:
        """The ELBO of images x (B, …), which are numbers ``index`` (B,), in parts."""
        return lower_bound(self.decoder, self.table(index), x, generator)


def negative_row_elbo(model: LatentVAE, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """−ELBO of each image of a batch (images, labels, indices), (B,), in nats."""
    x, _, index = batch
    return -model(x, index).elbo


def latent_turns(
    model: LatentVAE,
    lr: float = 2e-3,
    latent_lr: float = 2e-3,
    latent_steps: int = 1,
) -> list[Turn[LatentVAE, tuple[Tensor, Tensor, Tensor]]]:
    """Steps on the rows of a batch alone, then one on rows and decoder together.

    Args:
        model: whose rows and decoder move.
        lr: peak learning rate of the decoder, by AdamW.
        latent_lr: peak learning rate of the rows, by an Adam that touches only rows
            with a gradient.
        latent_steps: steps on the rows of a batch; the decoder moves with the last.
    """
    lr, latent_lr = check_positive("lr", lr), check_positive("latent_lr", latent_lr)
    latent_steps = check_count("latent_steps", latent_steps)
    rows = SparseAdam(model.table.parameters(), latent_lr, betas=(0.9, 0.99))
    both = [adamw(model.decoder.parameters(), lr), rows]
    return [
        Turn(negative_row_elbo, [rows], repeats=latent_steps - 1, name="rows alone"),
        Turn(negative_row_elbo, both, name="rows and decoder"),
    ]


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
    data: ImageSplits, start: Start = "linear", latent: int = 200, sigma: float = 0.4
) -> LatentVAE:
    """The decoder of ``conv_vae``, untrained, and a row for each training image."""
    rows = LatentTable(*first_posteriors(data.train.image, start, latent, sigma))
    network = conv_decoder(latent, shape=data.train.shape)
    return LatentVAE(rows, GaussianDecoder(network, latent, sigma))


def train_latents(
    model: LatentVAE,
    data: ImageSplits,
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

    What the history has measured: ``training`` is −ELBO of the first images of
    ``data.train`` with their own rows; ``reconstruction``, −log p(x|z), and ``KL`` are
    its two parts. All are in nats an image.

    Args:
        model: trained in place; row i belongs to image i of ``data.train``.
        data: its ``train`` images.
        epochs, batch: passes over the images, images in a batch.
        lr, latent_lr, latent_steps: see :func:`latent_turns`.
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
    x = data.train.image[:watched]

    def measure(model: LatentVAE) -> dict[str, Tensor]:
        here = model.decoder.sigma.device
        seen: ElboParts = model(x.to(here), torch.arange(len(x), device=here))
        return {
            "training": -seen.elbo,
            "reconstruction": -seen.reconstruction,
            "KL": seen.kl,
        }

    return train_epochs(
        model,
        data.train,
        latent_turns(model, lr, latent_lr, latent_steps),
        epochs=epochs,
        batch=batch,
        measure=measure,
        keep=keep,
    )


def train_posterior(
    decoder: GaussianDecoder,
    x: Tensor,
    start: DiagonalNormal,
    *,
    steps: int = 100,
    lr: float = 0.1,
    generator: torch.Generator | None = None,
) -> tuple[DiagonalNormal, History]:
    """Maximise the ELBO of images x (B, …) over q alone; the decoder stays as it is.

    What an image gets at test time when there is no encoder; with an encoder's q as
    ``start`` it also shows what amortisation costs. The history's loss is −ELBO.

    Args:
        decoder: p(x|z).
        x: images.
        start: where q begins, (B, D).
        steps, lr: of Adam, whose rate falls to zero along a cosine.
        generator: source of the z.

    Raises:
        ValueError: settings out of range, posteriors that do not match the images.
    """
    check_positive("lr", lr)
    if len(start.mean) != len(x):
        raise ValueError(
            "start must hold one posterior an image, "
            f"got {len(start.mean)} for {len(x)} images"
        )
    rows = LatentTable(*start, sparse=False)

    def loss(rows: LatentTable, batch: tuple[Tensor, Tensor]) -> Tensor:
        return -lower_bound(decoder, rows(batch[1]), batch[0], generator).elbo

    everything = repeat((x, torch.arange(len(x), device=x.device)))
    turn = Turn(loss, [Adam(rows.parameters(), lr)])
    with frozen(decoder):
        history = train(rows, [turn], everything, steps, warmup=1)
    return rows.posteriors(), history
