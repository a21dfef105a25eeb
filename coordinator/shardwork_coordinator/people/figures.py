"""Figures of one person, as their page shows them: money over all stages, and how they stand in one."""

from __future__ import annotations

from typing import Any

from shardwork.feedback.quality import Rules

from ..money import ledger
from ..money.movements import worker_account
from ..records import Account, Annotator, AnnotatorState, Vote, VoteState
from ..store.base import Transaction
from .places import Place

#: answers by which somebody's standing is known nearly always
MOSTLY_KNOWN = Rules().probation_items


def of_person(tx: Transaction, party: str) -> dict[str, int]:
    """What was paid, waits for a verdict, can be taken out, and how much they answered."""
    name = worker_account(party)
    account = tx.get(Account, name) or Account(id=name)
    # the pay of a task is held from the moment it is given; nobody has earned it before it is answered
    open_ = tx.pick(Vote, ("price_msat",), annotator=party, state=VoteState.GIVEN)
    return {
        "paid_msat": account.credits_posted,
        "held_msat": max(account.credits_pending - sum(msat for (msat,) in open_), 0),
        "available_msat": max(ledger.available(tx, name), 0),
        "votes": sum(votes for (votes,) in tx.pick(Annotator, ("votes",), party=party)),
    }


def in_stage(me: Annotator | None, place: Place) -> dict[str, Any]:
    """`cleared_at`: by so many answers their standing is mostly known."""
    if me is None:
        return {
            "state": str(AnnotatorState.PROBATION),
            "done": 0,
            "practice_left": place.practice,
            "cleared_at": MOSTLY_KNOWN,
        }
    return {
        "state": str(me.state),
        "done": me.votes - me.practised,
        "practice_left": max(place.practice - me.practised, 0),
        "cleared_at": MOSTLY_KNOWN,
    }
