"""Gathering: the accepted votes of a stage, as the file that the executor's join reads, and whether there are any.
Called by the outbox and by whoever ends a stage early.

They are final when join is due, so the same file is made however often it is asked for.
"""

from __future__ import annotations

import json

from shardwork.recipes.base import ASK_PHASE

from ..records import Vote, VoteState
from ..store.base import Transaction

FILE = "votes.jsonl"
#: what counts, or will when its stage ends, unless its person is found not to look
COUNTING = (VoteState.CAST, VoteState.HELD, VoteState.PAID)


def votes_file(tx: Transaction, job: str, stage: str) -> str:
    """A line for each, ordered by item and person."""
    rows = tx.find(Vote, job_id=job, stage=stage, state=VoteState.PAID)
    asked = [one for one in rows if one.phase == ASK_PHASE]
    asked.sort(key=lambda one: (one.position, one.annotator))
    return "".join(json.dumps(_line(one), sort_keys=True, ensure_ascii=False) + "\n" for one in asked)


def has_answers(tx: Transaction, job: str, stage: str) -> bool:
    """Whether the stage has anything to go on with."""
    return bool(tx.find(Vote, job_id=job, stage=stage, phase=ASK_PHASE, state=COUNTING, limit=1))


def _line(vote: Vote) -> dict[str, object]:
    return {
        "item": vote.position,
        "annotator": vote.annotator,
        "shown": [int(one) for one in vote.shown.split(",")],
        "ms": vote.ms or vote.cast_ms - vote.given_ms,
        "job": vote.job_id,
        **json.loads(vote.answer_json),
    }
