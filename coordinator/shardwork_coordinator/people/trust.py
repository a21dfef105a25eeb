"""Trust: what hidden items, repeated items and time tell of a person, and which of them comes next.

A sequential likelihood ratio between somebody who looks and somebody who does not: each hidden or repeated item moves
it, and a bound on either side ends the probation. Pure; what it knows is kept as JSON in the person's row.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from shardwork.recipes.alignment.people import PeopleParams

from ..records import AnnotatorState

#: how often somebody who looks is right, and somebody who does not
RIGHT, GUESSED = 0.85, 0.5
#: from here on they are told apart: 1 of 20 is taken for the other
BOUND = math.log(19)
#: an answer in less time than reading takes
HASTE = -1.2
#: answers after which somebody who is not the likelier to look is stopped
EARLY = 20
#: of the tasks of somebody in probation: hidden, and repeated. Drawn so, of 3,000 who guess 90 % were stopped within 20
#: answers and 3 % cleared at all; of those who are right 19 times of 20, 98 % were cleared, after 12 on the mean
EARLY_GOLD, EARLY_REPEAT = 0.35, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    golds: int = 0
    golds_right: int = 0
    repeats: int = 0
    repeats_same: int = 0
    hasty: int = 0
    ratio: float = 0.0

    @classmethod
    def of(cls, text: str) -> Evidence:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def tested(known: Evidence, *, right: bool, repeat: bool) -> Evidence:
    """After a hidden item, or one shown a second time."""
    step = math.log(RIGHT / GUESSED) if right else math.log((1 - RIGHT) / (1 - GUESSED))
    ratio = max(min(known.ratio + step, 2 * BOUND), -2 * BOUND)
    if repeat:
        return replace(known, repeats=known.repeats + 1, repeats_same=known.repeats_same + right, ratio=ratio)
    return replace(known, golds=known.golds + 1, golds_right=known.golds_right + right, ratio=ratio)


def hurried(known: Evidence) -> Evidence:
    return replace(known, hasty=known.hasty + 1, ratio=max(known.ratio + HASTE, -2 * BOUND))


def verdict(known: Evidence, before: AnnotatorState, answers: int, params: PeopleParams) -> AnnotatorState:
    """Whether their answers count from now on, after so many of them."""
    if known.ratio <= -BOUND:
        return AnnotatorState.STOPPED
    if before is AnnotatorState.PROBATION and answers >= EARLY and known.ratio < 0:
        return AnnotatorState.STOPPED
    if before is AnnotatorState.CLEARED or known.ratio >= BOUND:
        return AnnotatorState.CLEARED
    untested = params.gold_share == 0 and params.repeat_share == 0
    return AnnotatorState.CLEARED if untested else AnnotatorState.PROBATION


def last_word(known: Evidence) -> AnnotatorState:
    """When nothing is left to test somebody with: the likelier of the two."""
    return AnnotatorState.CLEARED if known.ratio >= 0 else AnnotatorState.STOPPED


def wanted(draw: float, before: AnnotatorState, params: PeopleParams) -> str:
    """What the next task is to be, of "gold", "repeat" and "ask"; `draw` in [0, 1)."""
    gold, repeat = params.gold_share, params.repeat_share
    if before is AnnotatorState.PROBATION:
        gold, repeat = gold and max(gold, EARLY_GOLD), repeat and max(repeat, EARLY_REPEAT)
    return "gold" if draw < gold else "repeat" if draw < gold + repeat else "ask"


def is_right(answer: dict[str, Any], known: dict[str, Any]) -> bool:
    """Whether an answer is the known one, both in the item's own order."""
    if "winner" in known:
        return answer.get("winner") == known["winner"]
    if "ranking" in known:
        return _agreement(answer.get("ranking", []), known["ranking"]) >= 0.5
    if "scores" in known:
        given = answer.get("scores", {})
        return all(abs(_mean(given.get(name, 0)) - _mean(value)) <= 1 for name, value in known["scores"].items())
    return answer.get("verdict") == known.get("verdict")


def is_same(first_json: str, second_json: str) -> bool:
    """Whether an item was judged twice alike, both answers in the item's own order."""
    return is_right(json.loads(second_json)["answer"], json.loads(first_json)["answer"])


def _agreement(one: list[int], other: list[int]) -> float:
    """Share of pairs that both put in the same order."""
    pairs = [(a, b) for at, a in enumerate(other) for b in other[at + 1 :]]
    return sum(one.index(a) < one.index(b) for a, b in pairs) / len(pairs) if pairs and len(one) == len(other) else 0.0


def _mean(value: int | list[int]) -> float:
    return sum(value) / len(value) if isinstance(value, list) else float(value)
