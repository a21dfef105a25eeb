"""Intervals of shares: Wilson's score interval, and how much votes that hang together tell less than so many apart.

Owns the level (95 % everywhere) and the quantiles. Called by `ratings`, `annotators`, `bias` and `consensus`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from statistics import NormalDist

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its interval. Of nothing: a half, and anything is possible."""

    value: float
    low: float
    high: float
    #: of how many; less than were counted where they hang together
    of: float

    @property
    def is_clear(self) -> bool:
        """Whether a half is outside."""
        return self.low > 0.5 or self.high < 0.5


def wilson(hits: float, of: float) -> Share:
    """Wilson (1927): never leaves [0, 1], and covers also near its ends. `hits` may hold halves."""
    if of <= 0:
        return Share(0.5, 0.0, 1.0, 0.0)
    share, z2 = hits / of, Z * Z
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z / (1 + z2 / of) * math.sqrt(max(share * (1 - share), 0.0) / of + z2 / (4 * of * of))
    # rounding must not put the share outside
    return Share(share, min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share), of)


def clustered(values: Iterable[tuple[Hashable, float]]) -> Share:
    """The mean of (cluster, value in [0, 1]) with Wilson's interval, of as many independent votes as these are worth.

    Votes on one prompt are alike: their number is divided by how much the mean's variance over prompts exceeds that of
    independent votes (the design effect, Kish 1965), never by less than 1.
    """
    sums: defaultdict[Hashable, list[float]] = defaultdict(list)
    for cluster, value in values:
        sums[cluster].append(value)
    of = sum(map(len, sums.values()))
    if not of:
        return wilson(0, 0)
    mean = math.fsum(value for each in sums.values() for value in each) / of
    expected = mean * (1 - mean) * of * of / max(of - 1, 1)
    if expected <= 0:
        return wilson(mean * len(sums), len(sums))
    groups = len(sums)
    found = math.fsum(math.fsum(value - mean for value in each) ** 2 for each in sums.values())
    effect = found * groups / (groups - 1) / expected if groups > 1 else of
    worth = min(max(of / max(effect, 1.0), 1.0), of)
    return wilson(mean * worth, worth)


def quantile(groups: int) -> float:
    """Of Student's t with groups - 1 degrees of freedom, by the first terms of its expansion (Fisher and Cornish 1960):
    few clusters say little about their own spread."""
    free = max(groups - 1, 1)
    return Z + (Z**3 + Z) / (4 * free) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * free**2)
