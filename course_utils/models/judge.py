"""A judge of digits that refuses what does not look like one.

A classifier has to choose: it gives a grey blob one of ten digits, and is sure of it.
The judge asks two things first. Around the mean m_c of each class the classifier's
features h(x) ∈ R^F of the training images have one covariance C, and

    d²(x) = min_c (h(x) − m_c)ᵀ·C⁻¹·(h(x) − m_c)

says how far x is from all digits; an image farther than 99.5 % of the validation images
is refused. And ink is either there or not: of an image with grey levels g_p

    contrast(x) = Σ_p g_p² / (Σ_p g_p · max_p g_p)

is 1 if every pixel is black or of one brightness, ½ for a round Gaussian blob; an image
below 0.55 is refused.

Source of the distance: Lee et al. 2018, "A simple unified framework for detecting
out-of-distribution samples and adversarial attacks" (arXiv:1807.03888).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_utils.checks import check_images, check_number
from course_utils.data.images import ImageSplits
from course_utils.models.classifier import Classifier
from course_utils.networks.basic import frozen

REFUSED = -1  # in the place of a class
BLURRED = 0.55  # contrast below which an image is a blob; MNIST's digits have 0.6 up
RIDGE = 1e-3  # of the mean variance, added to C: some features hardly vary


class Judge(nn.Module):
    """A classifier, and how far from its training images it may be asked.

    Args:
        classifier: trained; frozen from now on.
        data: ``train`` gives means and covariance, ``validation`` the limit.
        quantile: the share of the validation images that is not refused.

    Raises:
        TypeError: another kind of classifier or data.
        ValueError: a quantile outside (0, 1), a class without training images.
    """

    mean: Tensor
    precision: Tensor
    limit: Tensor

    def __init__(
        self, classifier: Classifier, data: ImageSplits, quantile: float = 0.995
    ) -> None:
        super().__init__()
        if not 0 < check_number("quantile", quantile) < 1:
            raise ValueError(f"quantile must lie in (0, 1), got {quantile!r}")
        for name, value, kind in (
            ("classifier", classifier, Classifier),
            ("data", data, ImageSplits),
        ):
            if not isinstance(value, kind):
                got = type(value).__name__
                raise TypeError(f"{name} must be a {kind.__name__}, got {got}")
        count = data.train.label.bincount(minlength=data.classes)
        if not count.all():
            raise ValueError(
                "every class must have training images, got none of"
                f" {(count == 0).nonzero()[:, 0].tolist()}"
            )
        self.classifier = classifier.eval().requires_grad_(False)
        here = classifier.head.weight
        label = data.train.label.to(here.device)
        seen = self.features(data.train.image.to(here))  # (N, F)
        classes = range(data.classes)
        mean = torch.stack([seen[label == c].mean(0) for c in classes])  # (C, F)
        off = seen - mean[label]
        covariance = off.T @ off / len(off)
        covariance.diagonal().add_(RIDGE * covariance.diagonal().mean())
        self.register_buffer("mean", mean)
        self.register_buffer("precision", torch.linalg.inv(covariance))
        self.register_buffer("limit", mean.new_tensor(torch.inf, dtype=torch.float32))
        held_out = self.distance(data.validation.image.to(here)).float()
        self.limit.fill_(held_out.quantile(quantile))

    @torch.no_grad()
    def distance(self, x: Tensor) -> Tensor:
        """d²(x) of images x (B, C, H, W), (B,): to the nearest class of digits."""
        # what .float() or .half() did to the judge does not change how it computes
        mean, precision = self.mean.double(), self.precision.double()
        off = self.features(x)[:, None] - mean  # (B, C, F)
        return ((off @ precision) * off).sum(2).amin(1).to(x.dtype)

    @torch.no_grad()
    def digit(self, x: Tensor) -> Tensor:
        """The class of each image x (B, C, H, W), or ``REFUSED``: (B,), int64."""
        found = self.classifier.log_prob(x).argmax(dim=1)
        refused = (self.distance(x) > self.limit) | ~(contrast(x) >= BLURRED)
        return found.masked_fill(refused, REFUSED)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """h(x), in double precision, (B, F)."""
        check_images(x, shape=self.classifier.shape, like=self.classifier.head.weight)
        with frozen(self.classifier):
            return torch.cat(
                [self.classifier.features(part).double() for part in x.split(1000)]
            )


def contrast(x: Tensor) -> Tensor:
    """Σg²/(Σg·max g) of grey images (B, 1, H, W), (B,); NaN where all is black.

    Raises:
        TypeError, ValueError: no batch of images; NaN or infinite values.
    """
    pixels = x.shape[1:] if isinstance(x, Tensor) and x.ndim == 4 else ("C", "H", "W")
    g = check_images(x, shape=(*pixels,)).flatten(1)
    return g.square().sum(1) / (g.sum(1) * g.amax(1))
