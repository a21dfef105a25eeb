"""The table of legal moves, for every kind of record that has a state. Everything else raises with the story."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any, TypeVar

from shardwork.errors import Conflict

from ..records import Job, JobState, Replica, ReplicaState, Round, RoundState, Shard, ShardState, Stage, StageState

_JOB: dict[JobState, frozenset[JobState]] = {
    JobState.DRAFT: frozenset({JobState.FUNDED}),
    JobState.FUNDED: frozenset({JobState.RUNNING}),
    JobState.RUNNING: frozenset({JobState.PAUSED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    # shards that ran when it was paused are finished, and the last of them may be the job's last
    JobState.PAUSED: frozenset({JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
}
_STAGE: dict[StageState, frozenset[StageState]] = {
    StageState.WAITING: frozenset({StageState.RUNNING, StageState.SKIPPED}),
    # a later time of a loop that learned nothing
    StageState.RUNNING: frozenset({StageState.DONE, StageState.FAILED, StageState.CANCELLED, StageState.SKIPPED}),
}
_ROUND: dict[RoundState, frozenset[RoundState]] = {
    RoundState.OPEN: frozenset({RoundState.JUDGING, RoundState.MERGED, RoundState.ABANDONED}),
    # within one step: what is judged is merged, or merging, when the step ends
    # or another phase of the same round is leased (rollouts are scored, then learned from)
    RoundState.JUDGING: frozenset({RoundState.OPEN, RoundState.MERGING, RoundState.MERGED}),
    # too few usable deltas: rolled back before anything was evaluated
    RoundState.MERGING: frozenset(
        {RoundState.EVALUATING, RoundState.MERGED, RoundState.ROLLED_BACK, RoundState.ABANDONED}
    ),
    RoundState.EVALUATING: frozenset({RoundState.MERGED, RoundState.ROLLED_BACK, RoundState.ABANDONED}),
}
_SHARD: dict[ShardState, frozenset[ShardState]] = {
    ShardState.READY: frozenset({ShardState.RUNNING}),
    ShardState.RUNNING: frozenset({ShardState.READY, ShardState.DONE, ShardState.EXHAUSTED}),
    # the requester resumed the job: the shard gets fresh attempts
    ShardState.EXHAUSTED: frozenset({ShardState.READY}),
}
_REPLICA: dict[ReplicaState, frozenset[ReplicaState]] = {
    ReplicaState.READY: frozenset({ReplicaState.LEASED, ReplicaState.EXPIRED}),
    ReplicaState.LEASED: frozenset({ReplicaState.COMMITTED, ReplicaState.EXPIRED}),
    ReplicaState.COMMITTED: frozenset({ReplicaState.SUBMITTED, ReplicaState.REJECTED, ReplicaState.EXPIRED}),
    # back to leased: a person takes an answer back
    ReplicaState.SUBMITTED: frozenset({ReplicaState.ACCEPTED, ReplicaState.REJECTED, ReplicaState.LEASED}),
    ReplicaState.EXPIRED: frozenset({ReplicaState.READY}),
    ReplicaState.REJECTED: frozenset({ReplicaState.READY}),
}
LEGAL: dict[type[StrEnum], dict[Any, frozenset[Any]]] = {
    JobState: _JOB,
    StageState: _STAGE,
    RoundState: _ROUND,
    ShardState: _SHARD,
    ReplicaState: _REPLICA,
}

Stateful = TypeVar("Stateful", Job, Stage, Round, Shard, Replica)


def move(record: Stateful, state: StrEnum, **changes: Any) -> Stateful:
    """The record in its new state. Raises Conflict "machine.illegal_move" when the table has no such move."""
    allowed = LEGAL[type(state)].get(record.state, frozenset())
    if state not in allowed:
        raise Conflict(
            "machine.illegal_move",
            f"A {type(record).__name__.lower()} can't go from {record.state} to {state}.",
            subject=name(record),
            allowed=", ".join(sorted(str(one) for one in allowed)) or "none, it is final",
        )
    # the table above is what ties the enum to the record
    return replace(record, state=state, **changes)  # type: ignore[arg-type]


def name(record: Job | Stage | Round | Shard | Replica) -> str:
    """How events and errors call it."""
    match record:
        case Job() | Shard():
            return record.id
        case Stage():
            return f"{record.job_id}/{record.name}"
        case Round():
            return f"{record.job_id}/{record.stage}/r{record.number}"
        case Replica():
            return f"{record.shard_id}#{record.number}"
