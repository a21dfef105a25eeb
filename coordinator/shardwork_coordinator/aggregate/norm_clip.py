"""Norm clipping: a delta longer than the median is shortened to it, then the weighted mean (after Sun et al., arXiv
1911.07963, section 5; the bound is the round's own median).

It limits how far any delta can pull and leaves nobody out; a sign flip of ordinary length passes untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import ClassVar

from .mean import WeightedMean
from .rule import JUDGE_FROM, Evidence


class NormClip(WeightedMean):
    name: ClassVar[str] = "norm_clip"

    def coefficients(self, evidence: Evidence, weights: Mapping[int, float]) -> Mapping[int, float]:
        if len(weights) < JUDGE_FROM:
            return weights
        bound = median(evidence.norms[index] for index in weights)
        return {
            index: weight * bound / evidence.norms[index] if evidence.norms[index] > bound else weight
            for index, weight in weights.items()
        }
