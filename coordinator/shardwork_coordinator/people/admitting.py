"""Admitting: whether a stage takes one more person. Each newcomer costs hidden and repeated items until their standing
is known; more people than the reserve can tell apart would spend it on tests, and the items would stay unasked."""

from __future__ import annotations

from typing import Any

from shardwork.jobs.spec import StageSpec
from shardwork.recipes.alignment.people import beside_basis_points
from shardwork.recipes.base import ASK_PHASE
from shardwork.why import Why

from ..engine import found
from ..money import ledger
from ..money.movements import round_account
from ..money.pricing import BASIS_POINTS, TESTS_OF_ONE
from ..records import Annotator, AnnotatorState, Job, Round, Shard, Stage, Vote, VoteState
from ..store.base import Transaction
from .places import Place

ENOUGH_PEOPLE = Why(
    code="people.enough_people",
    sentence="As many people as this task can use are at it.",
    next_step="Look again later, or choose another task.",
)
#: who did something in this time is at it
HERE_MS = 15 * 60_000
#: people for each place of an item who are let in whatever is left: some leave, and some are stopped
SPARE = 2
TAKEN = (VoteState.GIVEN, VoteState.CAST, VoteState.HELD, VoteState.PAID)


def why_not(tx: Transaction, place: Place, shard: Shard, now_ms: int) -> Why | None:
    """Why a newcomer gets nothing; `shard` is any item that is asked, for its price. None: there is room."""
    key: dict[str, Any] = {"job_id": place.job, "stage": place.stage}
    # who does nothing keeps nobody out
    here: dict[str, Any] = {"order": "last_ms", "after": now_ms - HERE_MS}
    seen = tx.pick(Annotator, ("state",), **key, state=(AnnotatorState.PROBATION, AnnotatorState.CLEARED), **here)
    if len(seen) < SPARE * place.params.overlap:
        return None
    probation = sum(state is AnnotatorState.PROBATION for (state,) in seen)
    stage = found(tx.get(Stage, place.job, place.stage), "stage", place.stage)
    free = _free(tx, place)
    asked = free + free * beside_basis_points(StageSpec.model_validate_json(stage.spec_json)) // BASIS_POINTS
    # half of their tests lie behind those who are at it
    tests = TESTS_OF_ONE * (probation // 2 + 1)
    needed = (asked + tests) * (shard.price_msat + shard.fee_msat)
    return ENOUGH_PEOPLE if _left_msat(tx, shard) < needed else None


def affords_tests(tx: Transaction, place: Place, shard: Shard, round_: Round) -> bool:
    """Whether the reserve pays for more than the items that are still to be asked: if not, who is known is tested no
    more, so that the stage comes to its end."""
    left = _left_msat(tx, shard)
    # counted only when it may be tight
    return 2 * left >= round_.reserved_msat or left > _free(tx, place) * (shard.price_msat + shard.fee_msat)


def _free(tx: Transaction, place: Place) -> int:
    """Places of items that nobody has taken."""
    key: dict[str, Any] = {"job_id": place.job, "stage": place.stage}
    taken = sum(tx.count(Vote, "state", **key, phase=ASK_PHASE, state=TAKEN).values())
    return max(place.asked * place.params.overlap - taken, 0)


def _left_msat(tx: Transaction, shard: Shard) -> int:
    job = found(tx.get(Job, shard.job_id), "job", shard.job_id)
    return ledger.available(tx, round_account(shard.job_id, shard.stage, shard.round)) + job.extra_msat
