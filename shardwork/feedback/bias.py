"""Bias: whether votes follow the place or the length of an answer rather than what it says.

Position: how often the answer that was shown first wins, of votes that have a winner; orders are drawn, so it should
be half. Length: logit of A's win on the difference of both lengths in doublings; a coefficient of 0.7 doubles the odds
of an answer twice as long. Longer may be better, so a length bias is a question and not a verdict. Called by reports.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .intervals import Share, clustered, quantile
from .ratings import chance
from .votes import Vote, Winner

#: precision of the prior around 0, in votes: who has few votes, or only longer winners, gets a finite coefficient
PRIOR = 0.5
STEPS, CLOSE, MOST_STEP = 50, 1e-10, 2.0

#: lengths of A and B of a pair, in any unit
Lengths = Mapping[tuple[str, int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """Log-odds of winning for each doubling of length."""

    value: float
    low: float
    high: float
    votes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    #: how often the first shown wins
    first: Share
    #: how often the longer wins
    longer: Share
    length: Slope


def bias(votes: Iterable[Vote], lengths: Lengths | None = None) -> Bias:
    known = sorted(votes, key=lambda vote: (*vote.pair, vote.annotator, vote.winner, vote.order))
    measured = _differences(known, lengths or {})
    return Bias(
        first=clustered((vote.prompt_id, float(vote.first_won)) for vote in known if vote.first_won is not None),
        longer=clustered((prompt, float((x > 0) == won)) for prompt, x, won in measured if x),
        length=_slope(measured),
    )


def of_annotators(votes: Iterable[Vote], lengths: Lengths | None = None) -> dict[str, Bias]:
    mine: defaultdict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        mine[vote.annotator].append(vote)
    return {name: bias(mine[name], lengths) for name in sorted(mine)}


def _differences(votes: Sequence[Vote], lengths: Lengths) -> list[tuple[str, float, bool]]:
    """(prompt, doublings by which A is longer, whether A won) of each vote with a winner; an empty answer is 1 long."""
    found: list[tuple[str, float, bool]] = []
    for vote in votes:
        if vote.winner in (Winner.A, Winner.B) and vote.pair in lengths:
            a, b = (math.log2(max(length, 1)) for length in lengths[vote.pair])
            found.append((vote.prompt_id, a - b, vote.winner is Winner.A))
    return found


def _slope(measured: Sequence[tuple[str, float, bool]]) -> Slope:
    """Newton's method in one dimension; the interval is clustered by prompt, and never narrower than without."""
    value, curve = 0.0, PRIOR
    for _ in range(STEPS):
        curve = PRIOR + math.fsum(x * x * chance(value * x) * chance(-value * x) for _, x, _ in measured)
        slope = math.fsum(x * (won - chance(value * x)) for _, x, won in measured) - PRIOR * value
        step = max(-MOST_STEP, min(MOST_STEP, slope / curve))
        value += step
        if abs(step) < CLOSE:
            break
    sums: defaultdict[str, float] = defaultdict(float)
    for prompt, x, won in measured:
        sums[prompt] += x * (won - chance(value * x))
    variance = max(math.fsum(each * each for each in sums.values()) / curve**2, 1 / curve)
    half = quantile(max(len(sums), 2)) * math.sqrt(variance)
    return Slope(value=value, low=value - half, high=value + half, votes=len(measured))
