"""Places: the stages that people are asked in, as their rows say it. What never changes of one is kept in memory."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass

from shardwork.errors import NotFound
from shardwork.jobs.spec import StageSpec
from shardwork.money import MSAT_PER_SAT
from shardwork.recipes.alignment.people import PRACTICE_ITEMS, PeopleParams, params_of
from shardwork.recipes.base import ASK_PHASE
from shardwork.why import Why

from ..records import Job, JobState, Round, RoundState, ShardState, Stage, StageState
from ..store.base import Transaction

RECIPE = "people"
#: of an item that not enough people have judged
STILL_ASKED = (ShardState.READY, ShardState.RUNNING)
MOST_KEPT = 256
#: letters that somebody takes in a second at best, and the least for any item
LETTERS_A_SECOND, LEAST_MS, MOST_LEAST_MS = 60, 1_200, 30_000

CLOSED = Why(
    code="people.closed",
    sentence="This task is over or has not begun.",
    next_step="Choose another task.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A stage that asks people."""

    job: str
    stage: str
    params: PeopleParams
    #: artifact with the items
    items: str
    asked: int
    golds: int
    #: mean of an item
    letters: int

    @property
    def pay_msat(self) -> int:
        return self.params.pay_sats * MSAT_PER_SAT

    @property
    def practice(self) -> int:
        return min(PRACTICE_ITEMS, self.golds // 2)

    def least_ms(self, letters: int) -> int:
        """In less nobody can have read so much."""
        if self.params.least_seconds != "auto":
            return round(self.params.least_seconds * 1000)
        return min(max(LEAST_MS, letters * 1000 // LETTERS_A_SECOND), MOST_LEAST_MS)

    @property
    def seconds(self) -> int:
        """What an item takes somebody who reads it."""
        return max(5, self.letters // 20)


class Places:
    """Kept by (job, stage) once its items are counted: from then on none of this changes."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], Place] = OrderedDict()

    def of(self, tx: Transaction, job: str, stage: str) -> Place:
        """Raises NotFound "people.unknown"."""
        known = self._known.get((job, stage))
        if known is not None:
            return known
        row = tx.get(Stage, job, stage)
        place = read(row) if row is not None else None
        if place is None:
            raise NotFound(
                "people.unknown", "There is no such task.", next_step="Open the link again, or choose from the list."
            )
        self._known[job, stage] = place
        if len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)
        return place


def read(stage: Stage) -> Place | None:
    """None for a stage that asks nobody, or whose items are not counted yet."""
    artifacts = json.loads(stage.artifacts_json)
    if stage.recipe != RECIPE or "items" not in artifacts:
        return None
    numbers = json.loads(stage.numbers_json)
    return Place(
        job=stage.job_id,
        stage=stage.name,
        params=params_of(StageSpec.model_validate_json(stage.spec_json)),
        items=artifacts["items"],
        asked=int(numbers.get("items", 0)),
        golds=int(numbers.get("golds", 0)),
        letters=int(numbers.get("letters", 0)),
    )


def items_of(tx: Transaction, job_id: str) -> dict[str, str]:
    """Stage -> the artifact with its items, of the job's stages that ask people."""
    rows = [read(stage) for stage in tx.find(Stage, job_id=job_id, recipe=RECIPE)]
    return {place.stage: place.items for place in rows if place is not None}


def running(tx: Transaction) -> list[tuple[Job, Stage]]:
    """Stages whose people are asked now."""
    found: list[tuple[Job, Stage]] = []
    for stage in tx.find(Stage, state=StageState.RUNNING):
        if stage.recipe == RECIPE and (job := tx.get(Job, stage.job_id)) is not None:
            found.append((job, stage))
    return found


def open_round(tx: Transaction, job: str, stage: str) -> Round | None:
    """The round in which people are asked now."""
    rounds = tx.find(Round, job_id=job, stage=stage, order="number", descending=True, limit=1)
    is_open = rounds and rounds[0].phase == ASK_PHASE and rounds[0].state is RoundState.OPEN
    return rounds[0] if is_open else None


def why_shut(tx: Transaction, job_id: str, stage: str) -> Why | None:
    """Why nobody is given a task of it now; None while people are."""
    job = tx.get(Job, job_id)
    if job is None or open_round(tx, job_id, stage) is None:
        return CLOSED
    if job.state is JobState.PAUSED:
        return Why(
            code="people.paused",
            sentence="Whoever asks has paused this task.",
            next_step="Come back later; what you did is safe.",
        )
    return CLOSED if job.state is not JobState.RUNNING else None
