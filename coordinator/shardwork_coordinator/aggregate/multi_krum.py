"""Multi-Krum: the mean of the deltas nearest to their nearest others (Blanchard et al., NeurIPS 2017, section 4).

With f of K counted as hostile, a delta's score is the sum of squared distances to its K - f - 2 nearest others; the f
highest are left out. Made for a fifth hostile; it collapses at two fifths that collude (reference: reliability-security
4.3), and a minority that is alike looks nearest to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from .mean import WeightedMean
from .rule import Evidence, Matrix, hostile


class MultiKrum(WeightedMean):
    name: ClassVar[str] = "multi_krum"
    needs_products: ClassVar[bool] = True

    def screen(self, evidence: Evidence) -> Mapping[int, str]:
        # the paper asks for K >= 2 f + 3
        count = len(evidence.norms)
        bad = hostile(count, least_honest=3)
        if bad == 0 or evidence.products is None:
            return {}
        scores = _scores(squared_distances(evidence.products), nearest=count - bad - 2)
        worst = np.argsort(-scores, kind="stable")[:bad]
        return {index: "screened_krum" for position, index in enumerate(evidence.norms) if position in worst}


def squared_distances(products: Matrix) -> Matrix:
    """(deltas, deltas) from their inner products."""
    squares = np.diag(products)
    return np.asarray(np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0))


def _scores(distances: Matrix, *, nearest: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    # of each row sorted, the first entry is the delta's distance to itself
    return np.asarray(np.sort(distances, axis=1)[:, 1 : nearest + 1].sum(axis=1))
