"""How far an image's features lie from those the reader was trained on.

Probabilistic principal components (Tipping & Bishop 1999): the distance is the Mahalanobis
distance inside the first k principal directions plus the residual outside them in units of the
mean residual variance, over the square root of the number of dimensions. Inliers lie near 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetread.errors import StatisticRefused, expected

__all__ = ["FeatureStatistics", "fit_statistics"]

_MIN_IMAGES = 30


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """Mean (D,), principal directions (k, D), their variances (k,), residual variance: float32."""

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    variances: NDArray[np.float32]
    residual: float

    def distances(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distance of each row of ``embeddings`` (N, D); shape (N,), inliers near 1."""
        centred = embeddings.astype(np.float64) - self.mean
        scores = centred @ self.directions.T.astype(np.float64)
        inside = (scores**2 / self.variances).sum(1)
        outside = np.maximum((centred**2).sum(1) - (scores**2).sum(1), 0) / self.residual
        return np.asarray(np.sqrt((inside + outside) / embeddings.shape[1]))

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Return what a bundle stores."""
        residual = np.array([self.residual], dtype=np.float32)
        return {
            "mean": self.mean,
            "directions": self.directions,
            "variances": self.variances,
            "residual": residual,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, NDArray[np.float32]]) -> FeatureStatistics:
        """Rebuild from :meth:`tensors`."""
        return cls(tensors["mean"], tensors["directions"], tensors["variances"], float(tensors["residual"][0]))


def fit_statistics(embeddings: NDArray[np.float32], components: int = 64) -> FeatureStatistics:
    """Fit the statistics to training embeddings (N, D).

    Raises:
        StatisticRefused: fewer than 30 images.
    """
    count, width = embeddings.shape
    if count < _MIN_IMAGES:
        raise StatisticRefused(
            expected(f"at least {_MIN_IMAGES} training images for the gate", count, "add images or --no-gate")
        )
    mean = embeddings.mean(0, dtype=np.float64)
    centred = embeddings - mean
    kept = min(components, width - 1, count // 4)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / (count - 1)
    total = float(variances.sum())
    residual = max((total - float(variances[:kept].sum())) / (width - kept), 1e-12 * total, 1e-12)
    floor = np.maximum(variances[:kept], residual)
    return FeatureStatistics(
        mean.astype(np.float32), directions[:kept].astype(np.float32), floor.astype(np.float32), residual
    )
