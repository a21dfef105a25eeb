"""Rows of what is kept: artifacts, events, effects to carry out, first answers, models for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Record
from .states import ArtifactState, OutboxState


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact(Record):
    """One upload of one content by one owner; the bytes are shared by id, the right to read is not."""

    KEY: ClassVar[tuple[str, ...]] = ("id", "owner")
    id: str
    owner: str
    #: "input", a lease id, or "executor"
    purpose: str
    state: ArtifactState
    bytes: int
    leaves: int
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Record):
    """What people and scripts follow; append-only."""

    KEY: ClassVar[tuple[str, ...]] = ("sequence",)
    #: assigned by the store on insert when 0
    sequence: int = 0
    job_id: str
    at_ms: int
    kind: str
    subject: str
    sentence: str
    evidence_json: str = "{}"
    #: of one attempt at a shard: told by the job's log, left out of its events
    detail: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox(Record):
    """An effect that must happen at least once after its transaction committed."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    kind: str
    payload_json: str
    state: OutboxState
    created_ms: int
    attempts: int = 0
    why_json: str = ""
    #: the coordinator that carries it out; nobody yet when empty
    holder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Record):
    """The first answer to an idempotent call, given again to every retry."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    request_sha256: str
    response: bytes
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedModel(Record):
    """A base model that the operator put into the store for everybody."""

    KEY: ClassVar[tuple[str, ...]] = ("name",)
    name: str
    artifact_id: str
    bytes: int
    #: parameters, family, longest input, licence
    facts_json: str
    created_ms: int
    withdrawn: bool = False
