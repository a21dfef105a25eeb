"""Rows that coordinators on one database share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster(Record):
    """What all coordinators on one database must share; one row, written by the first."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    #: fingerprints: of the authority's certificate, the signing key and the operator's key
    ca_sha256: str
    coordinator_key: str
    operator_key: str
    #: written into the artifact store, so that another store is not taken for it
    storage_id: str
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator(Record):
    """One run of a coordinator's process."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    #: host:port by which workers and clients reach it
    address: str
    started_ms: int
    #: it lives while this is young; 0 once it ended
    heartbeat_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment(Record):
    """Where a worker is attached, or was last, and what it offers."""

    KEY: ClassVar[tuple[str, ...]] = ("worker_id",)
    worker_id: str
    #: a Coordinator's id; empty while it is attached nowhere
    coordinator: str
    #: what it said at its arrival, a serialised Hello
    hello: bytes
    minimum_msat: int
    accepting: bool
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark(Record):
    """The last commit of one writer's connection, for the next connection to look at."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    number: int
    at_ms: int
