"""Report: what is worth knowing of some votes, as one JSON object: who agrees with whom, whose place or length won, and
people, judge and their blend side by side: cost, time and quality.

Quality of a side is how often it prefers what all votes together make likeliest (Dawid and Skene): nobody knows what is
right, and every side is measured by the same. Pure. Called by the recipe consensus and by `shardwork feedback report`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from .agreement import of_winners
from .annotators import dawid_skene
from .bias import Bias, bias
from .blending import Blend, Side, Spent, agreement, blend, side
from .consensus import Rule, Verdict, consensus
from .intervals import Share, clustered
from .pooling import Pool, one_of_each_judge
from .ratings import ratings, win_rate
from .votes import Origin, Vote

#: models of which each two are compared; more give a page nobody reads
MOST_MODELS = 12
#: the judge's confidence is compared with people's votes in so many steps from a half to 1
CALIBRATION_STEPS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Votes with what was made of them."""

    pool: Pool
    people: Sequence[Verdict]
    judge: Sequence[Verdict]
    verdicts: Sequence[Verdict]
    rule: Rule
    how: Blend


def judged(pool: Pool, rule: Rule, how: Blend) -> Judged:
    """The rule makes people one voice. A single judge is one already: it says itself how sure it is."""
    by_people, by_judge = sides(pool.votes)
    people = consensus(by_people, rule)
    told = one_of_each_judge(by_judge)
    judge = consensus(told, rule if len({vote.annotator for vote in told}) > 1 else Rule.MAJORITY)
    return Judged(pool=pool, people=people, judge=judge, verdicts=blend(people, judge, how), rule=rule, how=how)


def sides(votes: Iterable[Vote]) -> tuple[list[Vote], list[Vote]]:
    """People's, and judges'."""
    found: dict[Origin, list[Vote]] = {origin: [] for origin in Origin}
    for vote in votes:
        found[vote.source].append(vote)
    return found[Origin.PEOPLE], found[Origin.JUDGE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What stages paid for votes, and how long they took from their beginning to their end."""

    people_msat: int = 0
    judge_msat: int = 0
    people_ms: int = 0
    judge_ms: int = 0

    def __add__(self, other: Costs) -> Costs:
        return Costs(
            people_msat=self.people_msat + other.people_msat,
            judge_msat=self.judge_msat + other.judge_msat,
            people_ms=self.people_ms + other.people_ms,
            judge_ms=self.judge_ms + other.judge_ms,
        )


def report(found: Judged, known: Costs | None) -> dict[str, Any]:
    """Every figure; None where nothing is known, such as what the votes cost."""
    costs = known or Costs()
    every = [*found.pool.votes, *found.pool.unknown]
    people, judge = sides(every)
    shown_people, shown_judge = sides(found.pool.votes)
    lengths = found.pool.lengths()
    likely = dawid_skene([*shown_people, *one_of_each_judge(shown_judge)])
    right = {pair: answer.winner for pair, answer in likely.answers.items()}
    spent = {
        "people": _spent(shown_people, costs.people_msat, costs.people_ms),
        "judge": _spent(shown_judge, costs.judge_msat, costs.judge_ms),
    }
    # a judge that contradicts itself everywhere has no verdict, and costs all the same
    compared = [
        side(name, verdicts, cost, right)
        for name, verdicts, cost, asked in (
            ("people", found.people, spent["people"], shown_people),
            ("judge", found.judge, spent["judge"], shown_judge),
            ("blend", found.verdicts, spent["people"] + spent["judge"], found.pool.votes),
        )
        if asked
    ]
    both = agreement(found.people, found.judge)
    return {
        "votes": len(every),
        "unknown": len(found.pool.unknown),
        "people": len({vote.annotator for vote in people}),
        "pairs": len(found.verdicts),
        "preferences": sum(one.is_preference for one in found.verdicts),
        "rule": found.rule.value,
        "weights": {"people": found.how.people, "judge": found.how.judge},
        "conflict": found.how.conflict.value,
        "agreement": {
            "judge_with_people": share_json(both) if both.of else None,
            "people_alpha": asdict(of_winners(people)) if people else None,
            "flips": share_json(_flips(judge)) if judge else None,
            "calibration": _calibration(found),
        },
        "bias": {
            "people": bias_json(bias(shown_people, lengths)) if people else None,
            "judge": bias_json(bias(shown_judge, lengths)) if judge else None,
        },
        "costs": asdict(known) if known is not None else None,
        "sides": [_side_json(one, known is not None) for one in compared],
        "annotators": [
            {"annotator": one.annotator, "accuracy": share_json(one.share), "votes": one.votes}
            for one in sorted(likely.annotators.values(), key=lambda one: (-one.share.value, one.annotator))
        ],
        **ratings_json(every),
    }


def ratings_json(votes: Sequence[Vote]) -> dict[str, Any]:
    rated = ratings(votes)
    best = [one.model for one in rated[:MOST_MODELS]]
    rates = (win_rate(votes, model, against) for model, against in combinations(best, 2))
    return {
        "ratings": [asdict(one) for one in rated],
        "win_rates": [
            {**{key: getattr(one, key) for key in ("model", "against", "wins", "losses", "ties")}, **_rate(one.rate)}
            for one in rates
            if one.wins + one.losses + one.ties
        ],
    }


def share_json(one: Share) -> dict[str, float]:
    return {"value": one.value, "low": one.low, "high": one.high, "of": one.of}


def bias_json(one: Bias) -> dict[str, Any]:
    """How often the first shown wins; how often the longer; log-odds of winning for each doubling of length."""
    return {"first": share_json(one.first), "longer": share_json(one.longer), "length": asdict(one.length)}


# ---- inside -------------------------------------------------------------------------------------------------------


def _rate(rate: Share) -> dict[str, float]:
    return {"rate": rate.value, "low": rate.low, "high": rate.high}


def _spent(votes: Sequence[Vote], msat: int, took_ms: int) -> Spent:
    timed = [vote.ms for vote in votes if vote.ms]
    return Spent(cost_msat=msat, took_ms=took_ms, ms=sum(timed), timed=len(timed))


def _side_json(one: Side, is_priced: bool) -> dict[str, Any]:
    paid = one.cost_msat if is_priced else None
    told = {
        "cost_msat": paid,
        "msat_per_pair": paid / one.pairs if paid is not None and one.pairs else None,
        "took_ms": one.took_ms if is_priced else None,
    }
    return {**asdict(one), **told, "quality": share_json(one.quality) if one.quality else None}


def _flips(votes: Sequence[Vote]) -> Share:
    """Of pairs that a judge was asked about in both orders: where it contradicts itself."""
    asked: defaultdict[tuple[str, tuple[str, int, int], str], set[str]] = defaultdict(set)
    times: defaultdict[tuple[str, tuple[str, int, int], str], int] = defaultdict(int)
    for vote in votes:
        key = vote.prompt_id, vote.pair, vote.annotator
        asked[key].add(vote.winner)
        times[key] += 1
    return clustered((key[0], float(len(asked[key]) > 1)) for key in sorted(times) if times[key] > 1)


def _calibration(found: Judged) -> list[dict[str, float]]:
    """How often people agree with a judge that is so sure."""
    people = {one.pair: one for one in found.people if one.is_preference}
    steps: defaultdict[int, list[tuple[float, bool]]] = defaultdict(list)
    for one in found.judge:
        if one.is_preference and one.pair in people:
            at = min(int((one.confidence - 0.5) * 2 * CALIBRATION_STEPS), CALIBRATION_STEPS - 1)
            steps[at].append((one.confidence, one.winner is people[one.pair].winner))
    return [
        {
            "confidence": sum(sure for sure, _ in each) / len(each),
            "agrees": sum(agrees for _, agrees in each) / len(each),
            "pairs": len(each),
        }
        for _, each in sorted(steps.items())
    ]
