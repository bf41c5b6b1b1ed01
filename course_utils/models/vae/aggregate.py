"""The aggregate posterior: where the latents of all images lie, taken together.

    q(z) = (1/N)·Σ_i q_i(z)

Training decodes latents from q(z), sampling decodes latents from the prior p(z). The
mean KL of the ELBO has one part for each of two things (Hoffman and Johnson 2016,
"ELBO surgery"):

    (1/N)·Σ_i KL(q_i ‖ p) = KL(q(z) ‖ p) + I(i; z),    0 ≤ I(i; z) ≤ log N

where I(i; z) is what a latent says about which image it belongs to. And of all
distributions with the mean m and covariance C of q(z), N(m, C) is the nearest to p:

    KL(q(z) ‖ p) ≥ KL(N(m, C) ‖ p)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.checks import check_count
from course_utils.distributions import DiagonalNormal, normal


class Aggregate(NamedTuple):
    """The mean and covariance of an aggregate posterior, exact.

    Attributes:
        mean: m, (D,).
        covariance: C, (D, D).
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, q: DiagonalNormal) -> Aggregate:
        """m = E_i[μ_i], C = Cov_i[μ_i] + E_i[diag σ_i²], of posteriors q (N, D)."""
        mean = q.mean.detach().double()
        spread = (mean - mean.mean(0)).T.cov(correction=0)
        within = q.log_var.detach().double().exp().mean(0).diag()
        return cls(mean.mean(0), spread + within)

    def kl_to_prior(self) -> float:
        """KL(N(m, C) ‖ N(0, I)) = ½·(‖m‖² + tr C − D − log det C), in nats."""
        square = self.mean.square().sum() + self.covariance.trace()
        return float(square - len(self.mean) - self.covariance.logdet()) / 2

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` latents from N(m, C), (count, D)."""
        shape = (check_count("count", count), len(self.mean))
        eps = normal(shape, self.mean, generator)
        root = torch.linalg.cholesky(self.covariance)
        return (self.mean + eps @ root.T).to(torch.get_default_dtype())
