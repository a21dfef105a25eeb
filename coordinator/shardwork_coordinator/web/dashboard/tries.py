"""Tries: every attempt at a job's shards, those that run and those that ended, with worker, time, pay and reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from shardwork.why import Why

from ...machine.attempts import called_by
from ...machine.states import LIVE
from ...records import Job, Lease, Party, Replica, Shard
from ...store.base import Transaction

PAGE = 25
MOST_HELD = 20
STATES = ("accepted", "rejected", "expired")
#: when the last attempt of the page before ended, and its lease
Place = tuple[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A shard in somebody's hands."""

    shard_id: str
    #: "learn shard 3"
    called: str
    number: int
    epoch: int
    purpose: str
    phase: str
    round: int
    worker_id: str
    worker: str
    state: str
    step: str
    percent: int
    loss: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt that ended."""

    lease_id: str
    shard_id: str
    #: "learn shard 3"
    called: str
    replica: int
    phase: str
    worker_id: str
    worker: str
    state: str
    ended_ms: int
    seconds: float
    compute_seconds: float
    paid_msat: int
    donated: bool
    why: Why | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """A page of them, the latest first."""

    tries: Sequence[Attempt]
    counts: dict[str, int]
    newer: str
    older: str


def held(tx: Transaction, job: Job, now_ms: int, shard_id: str = "") -> list[Held]:
    """What is being worked on, of the job or of one of its shards."""
    living = [str(state) for state in LIVE]
    found = tx.find(Replica, job_id=job.id, state=living, order="granted_ms", limit=MOST_HELD)
    if shard_id:
        found = tx.find(Replica, shard_id=shard_id, state=living)
    names = _names(tx, {one.worker_id for one in found})
    called = _called(tx, (one.shard_id for one in found))
    return [
        Held(
            shard_id=one.shard_id,
            called=called.get(one.shard_id, one.phase),
            number=one.number,
            epoch=one.epoch,
            purpose=str(one.purpose),
            phase=one.phase,
            round=one.round,
            worker_id=one.worker_id,
            worker=names.get(one.worker_id, one.worker_id),
            state=str(one.state),
            step=one.step,
            percent=int(100 * one.progress),
            loss=one.loss,
            seconds=(now_ms - one.granted_ms) / 1000,
        )
        for one in found
    ]


def attempts(tx: Transaction, job: Job, state: str, before: Place | None) -> Attempts:
    found = _newest(tx, job, [state] if state else list(STATES), before)
    of_state = {"state": state} if state else {}
    last = found[PAGE - 1] if len(found) > PAGE else None
    older = urlencode({"before": last.ended_ms, "beside": last.id} | of_state) if last else ""
    return Attempts(
        tries=ended(tx, found[:PAGE]),
        counts=tx.count(Lease, "state", job_id=job.id),
        newer=f"/jobs/{job.id}?{urlencode(of_state)}#attempts" if before is not None else "",
        older=f"/jobs/{job.id}?{older}#attempts" if last else "",
    )


def _newest(tx: Transaction, job: Job, states: Sequence[str], before: Place | None) -> list[Lease]:
    """One more than a page. Many may have ended in one millisecond, as when their job was cancelled."""
    equals: dict[str, Any] = {"job_id": job.id, "state": states}
    if before is None:
        return tx.find(Lease, order="ended_ms", descending=True, limit=PAGE + 1, **equals)
    at_ms, name = before
    beside = tx.find(Lease, ended_ms=at_ms, order="id", descending=True, after=name, limit=PAGE + 1, **equals)
    left = PAGE + 1 - len(beside)
    if not left:
        return beside
    return beside + tx.find(Lease, order="ended_ms", descending=True, after=at_ms, limit=left, **equals)


def ended(tx: Transaction, leases: Sequence[Lease]) -> list[Attempt]:
    names = _names(tx, {one.worker_id for one in leases})
    called = _called(tx, (one.shard_id for one in leases))
    return [
        Attempt(
            lease_id=one.id,
            shard_id=one.shard_id,
            called=called.get(one.shard_id, one.phase),
            replica=one.replica,
            phase=one.phase,
            worker_id=one.worker_id,
            worker=names.get(one.worker_id, one.worker_id),
            state=str(one.state),
            ended_ms=one.ended_ms,
            seconds=max(one.ended_ms - one.granted_ms, 0) / 1000,
            compute_seconds=one.compute_ms / 1000,
            paid_msat=one.paid_msat,
            donated=one.donated_msat > 0,
            why=Why.from_json(one.why_json) if one.why_json else None,
        )
        for one in leases
    ]


def _names(tx: Transaction, workers: set[str]) -> dict[str, str]:
    found = tx.pick(Party, ("id", "name"), id=sorted(workers)) if workers else []
    return {worker: name or worker for worker, name in found}


def _called(tx: Transaction, shards: Iterable[str]) -> dict[str, str]:
    rows = tx.pick(Shard, ("id", "phase", "position", "audits"), id=sorted(set(shards)))
    return {name: called_by(*columns) for name, *columns in rows}
