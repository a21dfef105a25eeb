"""History: what somebody was asked here, what they answered, and what came of it; the newest first."""

from __future__ import annotations

from typing import Any

from shardwork.errors import InvalidInput
from shardwork.why import Why

from ..records import Vote, VoteState
from ..store.base import Transaction
from . import answers
from .desk import PeopleDesk
from .signing import Call, annotator

PAGE = 50
ENDED = [state for state in VoteState if state is not VoteState.GIVEN]
LONGEST = 15


async def history(call: Call, desk: PeopleDesk) -> dict[str, Any]:
    """Raises InvalidInput "people.bad_page"."""
    text = str(call.body.get("before", ""))
    if text and not (text.isascii() and text.isdecimal() and len(text) <= LONGEST):
        raise InvalidInput(
            "people.bad_page", "The page is named by a number.", next_step="Take `next` from the page before."
        )
    before = int(text) if text else None

    def look(tx: Transaction) -> dict[str, Any]:
        annotator(tx, call)
        rows = tx.find(
            Vote, annotator=call.party, state=ENDED, order="given_ms", descending=True, after=before, limit=PAGE
        )
        more = rows[-1].given_ms if len(rows) == PAGE else None
        return {"votes": [_line(row) for row in rows], "next": more}

    return await desk.engine.store.read(look)


def _line(row: Vote) -> dict[str, Any]:
    shown = [int(one) for one in row.shown.split(",")]
    why = Why.from_json(row.why_json) if row.why_json else None
    return {
        "lease": row.id,
        "job": row.job_id,
        "stage": row.stage,
        "number": row.number,
        "at_ms": row.cast_ms or row.decided_ms or row.given_ms,
        "answer": answers.as_shown(row.answer_json, shown) if row.answer_json else None,
        "state": "held" if row.state is VoteState.CAST else str(row.state),
        "msat": row.price_msat,
        "why": {"code": why.code, "sentence": why.sentence, "next_step": why.next_step} if why else None,
    }
