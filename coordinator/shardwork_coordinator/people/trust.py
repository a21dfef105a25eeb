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

__all__ = ["Kind", "Standing", "last", "next_kind", "rightness", "rules", "sameness", "state_of", "weighed"]

_STATES = {
    State.PROBATION: AnnotatorState.PROBATION,
    State.CLEARED: AnnotatorState.CLEARED,
    State.STOPPED: AnnotatorState.STOPPED,
}
#: share of pairs in the same order from which a ranking is as it should be, and how far off a score may be
RANKED, OFF = 0.5, 1
#: answers of a comparison that name no side
UNSAID = ("tie", "both_bad")


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
        unsaid=_unsaid(tx, vote) if vote.phase == Kind.GOLD and vote.right < 0 else None,
    )
    return after(known, seen, rules(params))


def state_of(known: Standing) -> AnnotatorState:
    return _STATES[known.state]


def last(known: Standing) -> AnnotatorState:
    """When nothing is left to test somebody with: the likelier of the two."""
    return _STATES[last_word(known)]


def rightness(answer: dict[str, Any], known: dict[str, Any] | None, *, made: bool) -> int:
    """1: the answer is the known one, both in the item's own order; 0: it is not; -1: that can't be said."""
    if known is None or (made and answer.get("winner") in UNSAID):
        return -1
    return int(_is_right(answer, known))


def sameness(first_json: str, second_json: str) -> int:
    """1: an item was judged twice alike, both answers in the item's own order; 0: it was not; -1: no side was named
    either time, which somebody who always presses that key does too."""
    first, second = json.loads(first_json)["answer"], json.loads(second_json)["answer"]
    same = _is_right(second, first)
    return -1 if same and first.get("winner") in UNSAID else int(same)


def _is_right(answer: dict[str, Any], known: dict[str, Any]) -> bool:
    if "winner" in known:
        return str(answer.get("winner")) == str(known["winner"])
    if "ranking" in known:
        return _agreement(answer.get("ranking", []), known["ranking"]) >= RANKED
    if "scores" in known:
        given = answer.get("scores", {})
        return all(abs(_mean(given.get(name, 0)) - _mean(value)) <= OFF for name, value in known["scores"].items())
    return str(answer.get("verdict")) == str(known.get("verdict"))


def _others(tx: Transaction, vote: Vote) -> Mapping[str, Key]:
    """What others had pressed before at their task of the same number."""
    columns = ("annotator", "answer_json", "shown", "cast_ms")
    rows = tx.pick(Vote, columns, job_id=vote.job_id, stage=vote.stage, number=vote.number)
    return {
        annotator: _key(answer, shown)
        for annotator, answer, shown, cast_ms in rows
        if annotator != vote.annotator and answer and 0 < cast_ms < vote.cast_ms
    }


def _unsaid(tx: Transaction, vote: Vote) -> tuple[int, int]:
    """How many others named no side of this item either, and how many others answered it."""
    rows = tx.pick(Vote, ("annotator", "answer_json"), shard_id=vote.shard_id)
    winners = [json.loads(said)["answer"].get("winner") for who, said in rows if said and who != vote.annotator]
    return sum(winner in UNSAID for winner in winners), len(winners)


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
