"""Agreement: Krippendorff's alpha, how far votes agree beyond chance; 1 is perfect, 0 is chance.

alpha = 1 - observed / expected disagreement over the coincidences of values within a unit (Krippendorff 2011,
"Computing Krippendorff's Alpha-Reliability", whose worked example is the test). Units with one value tell nothing.
Nominal for winners, ordinal for scores. Called by reports and dashboards.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Literal

from .votes import Vote

Level = Literal["nominal", "ordinal"]
#: (unit, who, value)
Datum = tuple[Hashable, str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alpha:
    #: None: nothing was judged twice, or all values are the same, so that there is no chance to compare with
    value: float | None
    #: units with two values or more, and values in them
    units: int
    values: int


def of_winners(votes: Iterable[Vote]) -> Alpha:
    """Nominal, of a, b, tie and both bad. Who judged a pair twice counts with their first answer by name."""
    places: dict[str, float] = {}
    data = [(vote.pair, vote.annotator, vote.winner.value) for vote in votes]
    for _, _, winner in sorted(data):
        places.setdefault(winner, float(len(places)))
    return alpha(((pair, who, places[winner]) for pair, who, winner in data), "nominal")


def of_scores(votes: Iterable[Vote], name: str) -> Alpha:
    """Ordinal, of one scale; each answer is a unit of its own."""
    return alpha(
        (
            ((vote.pair, at), vote.annotator, value)
            for vote in votes
            for at, value in enumerate(vote.scores.get(name, ()))
        ),
        "ordinal",
    )


def alpha(data: Iterable[Datum], level: Level) -> Alpha:
    units: defaultdict[Hashable, dict[str, float]] = defaultdict(dict)
    for unit, who, value in data:
        units[unit][who] = min(value, units[unit].get(who, math.inf))
    judged = [Counter(values.values()) for values in units.values() if len(values) > 1]
    weights: defaultdict[tuple[float, float], list[float]] = defaultdict(list)
    totals: Counter[float] = Counter()
    for counts in judged:
        size = counts.total()
        totals.update(counts)
        for one, many in counts.items():
            for other, others in counts.items():
                if one != other:
                    weights[one, other].append(many * others / (size - 1))
    distance = _distance(level, totals)
    observed = math.fsum(math.fsum(each) * distance(*pair) for pair, each in sorted(weights.items()))
    size = totals.total()
    expected = math.fsum(
        totals[one] * totals[other] * distance(one, other) for one in sorted(totals) for other in sorted(totals)
    )
    found = 1 - observed * (size - 1) / expected if expected else None
    return Alpha(value=found, units=len(judged), values=size)


def _distance(level: Level, totals: Counter[float]) -> Callable[[float, float], float]:
    """Nominal: other or not. Ordinal: squared number of values that lie between, the ends counted half."""
    if level == "nominal":
        return lambda one, other: float(one != other)
    order, below = sorted(totals), dict[float, float]()
    passed = 0.0
    for value in order:
        below[value] = passed + totals[value] / 2
        passed += totals[value]
    return lambda one, other: (below[one] - below[other]) ** 2
