"""Rows of people who judge: how each stands in a stage, and every task that they were given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Record
from .states import AnnotatorState, VoteState


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotator(Record):
    """How one person stands in one stage."""

    KEY: ClassVar[tuple[str, ...]] = ("job_id", "stage", "party")
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("job_id", "stage", "number"),)
    job_id: str
    stage: str
    party: str
    #: in the order they came, from 1: also the number of their replica of a shard
    number: int
    state: AnnotatorState = AnnotatorState.PROBATION
    #: tasks given, and answered
    given: int = 0
    votes: int = 0
    practised: int = 0
    #: the last item that was looked at for them
    cursor: str = ""
    #: when they asked last there was no task left for them: the likelier verdict is the last
    nothing_left: bool = False
    #: what the quality rule knows of them, as it wrote it
    evidence_json: str = "{}"
    why_json: str = ""
    joined_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote(Record):
    """One task of an annotator and what became of it; the replica beside it has its money."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    #: nobody judges a shard twice
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("shard_id", "replica"),)
    #: by which the browser knows it; it says nothing of what it is
    id: str
    shard_id: str
    replica: int
    job_id: str
    stage: str
    phase: str
    annotator: str
    #: counted from 1, of this person in this stage
    number: int
    #: of the item
    position: int
    #: the answers' positions in the order they were shown: "1,0"
    shown: str
    state: VoteState
    #: in the item's own order, with scores, reasons and comment; empty while there is none
    answer_json: str = ""
    #: of the body that brought it: the same call again is the same vote
    body_sha256: str = ""
    #: as the browser measured, and the least that reading takes
    ms: int = 0
    least_ms: int = 0
    price_msat: int = 0
    #: of a hidden or repeated item: 1 when it was as it should be, 0 when not; -1 tells nothing
    right: int = -1
    given_ms: int
    cast_ms: int = 0
    decided_ms: int = 0
    why_json: str = ""
