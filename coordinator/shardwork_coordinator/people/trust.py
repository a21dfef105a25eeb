"""Trust: what somebody's answers tell of them, in the words of the quality rule (`shardwork.feedback.quality`).

Pure but for `others`, which reads what people pressed before. Owns when an answer is the known one, or the same twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shardwork.feedback.quality import COPY_ITEMS, Key, Kind, Rules, Seen, Standing, State, after, last_word, next_kind
from shardwork.recipes.alignment.people import PeopleParams

from ..records import AnnotatorState, Vote
from ..store.base import Transaction
from . import answers

__all__ = ["Kind", "Standing", "is_right", "is_same", "last", "next_kind", "rules", "state_of", "weighed"]

_STATES = {
    State.PROBATION: AnnotatorState.PROBATION,
    State.CLEARED: AnnotatorState.CLEARED,
    State.STOPPED: AnnotatorState.STOPPED,
}
#: share of pairs in the same order from which a ranking is as it should be, and how far off a score may be
RANKED, OFF = 0.5, 1


def rules(params: PeopleParams) -> Rules:
    return Rules(gold_share=params.gold_share, repeat_share=params.repeat_share)


def weighed(tx: Transaction, known: Standing, vote: Vote, params: PeopleParams) -> Standing:
    """The standing with this answer, which can't be taken back any more."""
    seen = Seen(
        kind=Kind(vote.phase),
        right=None if vote.right < 0 else vote.right == 1,
        key=_key(vote.answer_json, vote.shown),
        too_fast=vote.cast_ms - vote.given_ms < vote.least_ms,
        others=_others(tx, vote) if known.items < COPY_ITEMS else {},
    )
    return after(known, seen, rules(params))


def state_of(known: Standing) -> AnnotatorState:
    return _STATES[known.state]


def last(known: Standing) -> AnnotatorState:
    """When nothing is left to test somebody with: the likelier of the two."""
    return _STATES[last_word(known)]


def is_right(answer: dict[str, Any], known: dict[str, Any]) -> bool:
    """Whether an answer is the known one, both in the item's own order."""
    if "winner" in known:
        return str(answer.get("winner")) == str(known["winner"])
    if "ranking" in known:
        return _agreement(answer.get("ranking", []), known["ranking"]) >= RANKED
    if "scores" in known:
        given = answer.get("scores", {})
        return all(abs(_mean(given.get(name, 0)) - _mean(value)) <= OFF for name, value in known["scores"].items())
    return str(answer.get("verdict")) == str(known.get("verdict"))


def is_same(first_json: str, second_json: str) -> bool:
    """Whether an item was judged twice alike, both answers in the item's own order."""
    return is_right(json.loads(second_json)["answer"], json.loads(first_json)["answer"])


def _others(tx: Transaction, vote: Vote) -> Mapping[str, Key]:
    """What others had pressed before at their task of the same number."""
    columns = ("annotator", "answer_json", "shown", "cast_ms")
    rows = tx.pick(Vote, columns, job_id=vote.job_id, stage=vote.stage, number=vote.number)
    return {
        annotator: _key(answer, shown)
        for annotator, answer, shown, cast_ms in rows
        if annotator != vote.annotator and answer and 0 < cast_ms < vote.cast_ms
    }


def _key(answer_json: str, shown: str) -> Key:
    winner = answers.as_shown(answer_json, [int(one) for one in shown.split(",")]).get("winner")
    return {"a": Key.LEFT, "b": Key.RIGHT}.get(str(winner), Key.OTHER)


def _agreement(one: list[int], other: list[int]) -> float:
    """Share of pairs that both put in the same order."""
    pairs = [(a, b) for at, a in enumerate(other) for b in other[at + 1 :]]
    if not pairs or sorted(one) != sorted(other):
        return 0.0
    return sum(one.index(a) < one.index(b) for a, b in pairs) / len(pairs)


def _mean(value: int | list[int]) -> float:
    return sum(value) / len(value) if isinstance(value, list) else float(value)
