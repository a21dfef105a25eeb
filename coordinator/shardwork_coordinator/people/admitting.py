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
from ..records import Annotator, AnnotatorState, Job, Shard, Stage, Vote, VoteState
from ..store.base import Transaction
from .places import Place

ENOUGH_PEOPLE = Why(
    code="people.enough_people",
    sentence="As many people as this task can use are at it.",
    next_step="Look again later, or choose another task.",
)
#: people for each place of an item who are let in whatever is left: some leave, and some are stopped
SPARE = 2
TAKEN = (VoteState.GIVEN, VoteState.CAST, VoteState.HELD, VoteState.PAID)


def why_not(tx: Transaction, place: Place, shard: Shard) -> Why | None:
    """Why a newcomer gets nothing; `shard` is any item that is asked, for its price. None: there is room."""
    key: dict[str, Any] = {"job_id": place.job, "stage": place.stage}
    people = tx.count(Annotator, "state", **key)
    able = sum(people.values()) - people.get(AnnotatorState.STOPPED, 0)
    if able < SPARE * place.params.overlap:
        return None
    taken = sum(tx.count(Vote, "state", **key, phase=ASK_PHASE, state=TAKEN).values())
    free = max(place.asked * place.params.overlap - taken, 0)
    stage = found(tx.get(Stage, place.job, place.stage), "stage", place.stage)
    asked = free + free * beside_basis_points(StageSpec.model_validate_json(stage.spec_json)) // BASIS_POINTS
    # half of their tests lie behind those who are at it
    tests = TESTS_OF_ONE * (people.get(AnnotatorState.PROBATION, 0) // 2 + 1)
    left = ledger.available(tx, round_account(shard.job_id, shard.stage, shard.round))
    job = found(tx.get(Job, place.job), "job", place.job)
    needed = (asked + tests) * (shard.price_msat + shard.fee_msat)
    return ENOUGH_PEOPLE if left + job.extra_msat < needed else None
