"""Centred clipping: what is far from the centre counts only with the length of the usual distance (Karimireddy et al.,
arXiv 2012.10333, section 4).

    v <- v + mean over i of (x_i - v) min(1, tau / |x_i - v|)

The paper starts at the momentum and leaves tau to be chosen. Here v starts at the delta nearest to all others, and tau
is the median distance to v, so that nothing needs a scale. v stays in the span of the deltas: coefficients suffice, and
every distance follows from the deltas' inner products.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from .mean import WeightedMean
from .multi_krum import squared_distances
from .rule import JUDGE_FROM, Evidence, Matrix

ITERATIONS = 5

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]


class CentredClip(WeightedMean):
    name: ClassVar[str] = "centred_clip"
    needs_products: ClassVar[bool] = True

    def coefficients(self, evidence: Evidence, weights: Mapping[int, float]) -> Mapping[int, float]:
        if len(weights) < JUDGE_FROM or evidence.products is None:
            return weights
        share = np.array([weights[index] for index in evidence.norms])
        centre = _nearest_to_all(evidence.products)
        for _ in range(ITERATIONS):
            distance = _distances_to(centre, evidence.products)
            bound = float(np.median(distance))
            pull = share * np.divide(bound, distance, out=np.ones_like(distance), where=distance > bound)
            centre = centre * (1 - pull.sum()) + pull
        return dict(zip(evidence.norms, centre.tolist(), strict=True))


def _nearest_to_all(products: Matrix) -> Vector:
    """Coefficients that name the delta with the least sum of distances."""
    start = np.zeros(len(products))
    start[int(np.argmin(np.sqrt(squared_distances(products)).sum(axis=1)))] = 1
    return start


def _distances_to(centre: Vector, products: Matrix) -> Vector:
    """|x_i - v| with v = sum of centre_i x_i."""
    squares = np.diag(products) - 2 * (products @ centre) + centre @ products @ centre
    return np.asarray(np.sqrt(np.maximum(squares, 0)))
