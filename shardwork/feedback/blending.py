"""Blending: people's verdicts and a judge's made one, by weights and a rule for conflicts; and how well each did.

A verdict's word for A is weighed: (people's weight * share + judge's * share) / both weights. One who alone judged a
pair decides it, unless their weight is 0. Contradictory weights are refused. Called by the executor's consensus stage
and by reports.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ..errors import InvalidInput
from .consensus import Pair, Verdict
from .intervals import Share, clustered
from .votes import Winner


class Conflict(StrEnum):
    """What becomes of a pair of which people prefer one answer and the judge the other."""

    PEOPLE_FIRST = "people_first"
    #: whoever has more weight times confidence
    WEIGHTED = "weighted"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    people: float = 1.0
    judge: float = 1.0
    conflict: Conflict = Conflict.PEOPLE_FIRST

    def __post_init__(self) -> None:
        for name, weight in (("people", self.people), ("judge", self.judge)):
            if not math.isfinite(weight) or weight < 0:
                raise InvalidInput(
                    "blend.bad_weight",
                    f"The weight of {name} in the blend must be a finite number from 0, but is {weight}.",
                    next_step="Correct it; 0 leaves their votes out.",
                    weight=weight,
                )
        if self.people == self.judge == 0:
            raise InvalidInput(
                "blend.no_weight",
                "Both weights of the blend are 0, so that nobody's votes count.",
                next_step="Give people or the judge a weight above 0.",
            )
        if self.people == 0 and self.conflict is Conflict.PEOPLE_FIRST:
            raise InvalidInput(
                "blend.people_without_weight",
                "The blend puts people first where they contradict the judge, but their weight is 0.",
                next_step="Give people a weight above 0, or choose conflict weighted or drop.",
            )


def blend(people: Iterable[Verdict], judge: Iterable[Verdict], how: Blend) -> list[Verdict]:
    """A verdict for each pair that somebody with weight judged, sorted."""
    said = {one.pair: one for one in people} if how.people else {}
    told = {one.pair: one for one in judge} if how.judge else {}
    found: list[Verdict] = []
    for pair in sorted(said.keys() | told.keys()):
        one, other = said.get(pair), told.get(pair)
        if one is not None and other is not None:
            found.append(_both(one, other, how))
        else:
            found.extend(each for each in (one, other) if each is not None)
    return found


def _both(people: Verdict, judge: Verdict, how: Blend) -> Verdict:
    votes = people.votes + judge.votes
    if people.winner is None or judge.winner is None:
        return replace(judge if people.winner is None else people, votes=votes)
    if not (people.is_preference and judge.is_preference):
        return _weighed(people, judge, how) if how.conflict is Conflict.WEIGHTED else _without_side(people, judge, how)
    if people.winner is judge.winner or how.conflict is Conflict.WEIGHTED:
        return _weighed(people, judge, how)
    if how.conflict is Conflict.DROP:
        return replace(people, winner=None, confidence=0.0, votes=votes)
    return replace(people, votes=votes)


def _without_side(people: Verdict, judge: Verdict, how: Blend) -> Verdict:
    """One of them, or both, prefers neither answer."""
    votes = people.votes + judge.votes
    if people.winner is judge.winner or how.conflict is Conflict.PEOPLE_FIRST:
        return replace(people, votes=votes)
    return replace(people, winner=None, confidence=0.0, votes=votes)


def _weighed(people: Verdict, judge: Verdict, how: Blend) -> Verdict:
    """Dividing by the larger weight first keeps huge weights finite."""
    largest = max(how.people, how.judge)
    weight, other = how.people / largest, how.judge / largest
    share = (weight * people.share_a + other * judge.share_a) / (weight + other)
    votes = people.votes + judge.votes
    if abs(share - 0.5) < 1e-9:
        same = people.winner if people.winner is judge.winner else Winner.TIE
        return replace(people, winner=same, confidence=0.5, votes=votes)
    return replace(people, winner=Winner.A if share > 0.5 else Winner.B, confidence=max(share, 1 - share), votes=votes)


def agreement(people: Iterable[Verdict], judge: Iterable[Verdict]) -> Share:
    """How often the judge prefers what people prefer, of pairs where both prefer one."""
    told = {one.pair: one for one in judge if one.is_preference}
    both = [(one, told[one.pair]) for one in people if one.is_preference and one.pair in told]
    return clustered((one.prompt_id, float(one.winner is other.winner)) for one, other in both)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to judge, for the chart that compares them."""

    name: str
    pairs: int
    #: pairs that became a preference
    preferences: int
    votes: int
    cost_msat: int
    #: the stages that asked, from beginning to end
    took_ms: int
    #: mean time of a vote; None: not measured
    ms_per_vote: float | None
    #: how often it prefers what is right; None where nothing is known to be right
    quality: Share | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What votes of one kind took."""

    cost_msat: int = 0
    took_ms: int = 0
    #: of votes, all together
    ms: int = 0
    #: votes of which the time was measured
    timed: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            cost_msat=self.cost_msat + other.cost_msat,
            took_ms=self.took_ms + other.took_ms,
            ms=self.ms + other.ms,
            timed=self.timed + other.timed,
        )


def side(name: str, verdicts: Iterable[Verdict], spent: Spent, right: Mapping[Pair, Winner] | None = None) -> Side:
    """People, judge or blend. `right`: what is known, as of spot checks or planted answers; a verdict without a
    preference is left out."""
    found = sorted(verdicts, key=lambda one: one.pair)
    known = [one for one in found if right and one.is_preference and right.get(one.pair) in (Winner.A, Winner.B)]
    quality = clustered((one.prompt_id, float((right or {})[one.pair] is one.winner)) for one in known)
    return Side(
        name=name,
        pairs=len(found),
        preferences=sum(one.is_preference for one in found),
        votes=sum(one.votes for one in found),
        cost_msat=spent.cost_msat,
        took_ms=spent.took_ms,
        ms_per_vote=spent.ms / spent.timed if spent.timed else None,
        quality=quality if known else None,
    )
