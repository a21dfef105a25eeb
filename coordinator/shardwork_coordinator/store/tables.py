"""Tables: the SQL shape of every record, derived from `records`, `columns` and `rules`.

The migrations repeat this shape in frozen form, and add triggers; a test compares the two. Portable between SQLite
and PostgreSQL. Used by `sql`, by the migrations' environment and by tests.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

from ..records import (
    RECORDS,
    Annotator,
    ApiFile,
    ApiKey,
    Artifact,
    Attachment,
    AuditEntry,
    DepositRow,
    Event,
    Job,
    Lease,
    Outbox,
    Party,
    Payout,
    PolicyChange,
    Record,
    Replica,
    Shard,
    Share,
    Stage,
    Transfer,
    Vote,
    WebSession,
)
from . import columns as shape
from .rules import rules

#: what sweeps, grants and statements look up
INDEXES: tuple[tuple[type[Record], tuple[str, ...]], ...] = (
    (Job, ("state", "deadline_ms")),
    (Job, ("owner", "created_ms")),
    (Stage, ("state", "deadline_ms")),
    (Share, ("owner", "open")),
    (Shard, ("job_id", "stage", "round", "phase")),
    (Shard, ("state",)),
    (Shard, ("audits",)),
    (Replica, ("state", "job_id", "created_ms", "shard_id", "number")),
    (Replica, ("job_id", "stage", "round", "phase")),
    (Replica, ("worker_id", "state")),
    (Lease, ("worker_id", "ended_ms")),
    (Lease, ("job_id", "state", "ended_ms")),
    (Lease, ("shard_id",)),
    (Artifact, ("owner",)),
    (Event, ("job_id", "sequence")),
    (Outbox, ("state",)),
    (Transfer, ("debit", "sequence")),
    (Transfer, ("credit", "sequence")),
    (DepositRow, ("state",)),
    (Payout, ("state",)),
    (Payout, ("owner", "created_ms")),
    (Attachment, ("coordinator",)),
    (Party, ("standing",)),
    (Party, ("last_seen_ms",)),
    (Party, ("listed",)),
    (WebSession, ("user",)),
    (ApiKey, ("owner",)),
    (ApiFile, ("owner",)),
    (AuditEntry, ("subject",)),
    (PolicyChange, ("name", "id")),
    (Artifact, ("created_ms",)),
    (Job, ("created_ms",)),
    (Job, ("name",)),
    (Lease, ("ended_ms",)),
    (Shard, ("job_id", "phase", "state", "id")),
    (Annotator, ("party",)),
    (Annotator, ("state", "last_ms")),
    (Vote, ("annotator", "given_ms")),
    (Vote, ("annotator", "job_id", "stage", "number")),
    (Vote, ("job_id", "stage", "state")),
    (Vote, ("job_id", "stage", "number")),
    (Vote, ("state", "cast_ms")),
)


def text_type() -> TypeEngine[Any]:
    """Text that sorts by code point everywhere, as SQLite and Python do."""
    return Text().with_variant(Text(collation="C"), "postgresql")


def number_type() -> TypeEngine[Any]:
    return BigInteger()


def event_number_type() -> TypeEngine[Any]:
    """SQLite counts by itself only in a column whose type is spelt INTEGER."""
    return BigInteger().with_variant(Integer(), "sqlite")


def _sql_type(kind: type[Record], column: shape.Column) -> TypeEngine[Any]:
    if kind is Event and column.name == "sequence":
        return event_number_type()
    if column.type is int:
        return number_type()
    if column.type is float:
        return Double()
    if column.type is bool:
        return Boolean()
    return LargeBinary() if column.type is bytes else text_type()


def _build(kind: type[Record], metadata: MetaData) -> Table:
    name = shape.table_name(kind)
    counted = kind is Event
    return Table(
        name,
        metadata,
        *(
            Column(
                column.name,
                _sql_type(kind, column),
                nullable=column.nullable,
                autoincrement=counted and column.name == "sequence",
            )
            for column in shape.columns(kind).values()
        ),
        PrimaryKeyConstraint(*kind.KEY, name=f"pk_{name}"),
        *(UniqueConstraint(*names, name=f"uq_{name}_{'_'.join(names)}") for names in kind.UNIQUE),
        *(CheckConstraint(rule.sql, name=rule.name) for rule in rules(kind)),
        *(Index(f"ix_{name}_{'_'.join(names)}", *names) for owner, names in INDEXES if owner is kind),
    )


def _build_all() -> tuple[MetaData, dict[type[Record], Table]]:
    metadata = MetaData()
    return metadata, {kind: _build(kind, metadata) for kind in RECORDS}


METADATA, TABLES = _build_all()
