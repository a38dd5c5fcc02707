"""How near the pictures as a whole are to real ones, in the features of a classifier of emojis.

The features are those of a small network that ships with the models here. Distances in them are **not** FID and
cannot be compared with published ones; they compare two models with each other over the same prompts.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Features = NDArray[np.float64]

NEIGHBOURS = 3


class Gaussian:
    """Fitted to features [n, width]."""

    def __init__(self, features: Features) -> None:
        self.mean, self.covariance = features.mean(0), np.cov(features, rowvar=False)

    @cached_property
    def root(self) -> Features:
        """Of the covariance."""
        values, vectors = linalg.eigh(self.covariance)
        return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def frechet_distance(real: Gaussian, generated: Gaussian) -> float:
    """Heusel et al., arXiv 1706.08500, eq. 6.

    Biased upwards when samples are few, and the more so the fewer: compare at equal counts.
    """
    shift = real.mean - generated.mean
    # The trace of (one other)^(1/2) from a symmetric product with the same eigenvalues: stable at low rank too.
    values = linalg.eigvalsh(real.root @ generated.covariance @ real.root)
    spread = np.trace(real.covariance) + np.trace(generated.covariance)
    return float(shift @ shift + spread - 2 * np.sqrt(np.clip(values, 0, None)).sum())


def precision_recall(real: Features, generated: Features) -> tuple[float, float]:
    """Shares of generated features near real ones, and of real ones near generated (Kynkaanniemi et al.,
    arXiv 1904.06991, eq. 1 and 2; 3 neighbours).

    Precision falls when pictures look wrong, recall when they look alike. Both need some hundred samples.
    """
    return _covered(generated, real), _covered(real, generated)


def _covered(points: Features, manifold: Features) -> float:
    """The share of points that lie within the radius of some point of the manifold."""
    nearest = min(NEIGHBOURS, len(manifold) - 1)  # the nearest of all is the point itself
    radius = np.partition(_distances(manifold, manifold), nearest, axis=1)[:, nearest]
    return float((_distances(points, manifold) <= radius).any(axis=1).mean())


def _distances(left: Features, right: Features) -> Features:
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    return np.sqrt(np.clip(squares, 0, None))
