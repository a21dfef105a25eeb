"""The page of one shard: what it is to compute and for how much, every attempt at it, and what was said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from shardwork.errors import NotFound
from shardwork.recipes.base import AUDIT_PHASE, AUDITED_PHASES
from shardwork.why import Why

from ...machine.attempts import called
from ...machine.audits import about, target
from ...records import Event, Job, Lease, Party, Replica, Shard
from ...store.base import Transaction
from .. import rows
from . import tries
from .job import named
from .shell import Shell
from .visits import Visit

MOST_EVENTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The result that an audit is about, or an audit of the result."""

    called: str
    #: address of the shard's page
    path: str
    worker_id: str
    worker: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPage:
    job: Job
    shard: Shard
    #: "learn shard 3"
    called: str
    #: of an audit: what it checks, and who handed that in
    checks: Checked | None
    why: Why | None
    #: artifacts that it reads, by name
    inputs: Mapping[str, str]
    replicas: Sequence[Replica]
    held: Sequence[tries.Held]
    attempts: Sequence[tries.Attempt]
    #: what the accepted result holds
    outputs: Mapping[str, str]
    metrics: Mapping[str, float]
    #: audits of what was handed in
    audits: Sequence[Checked]
    events: Sequence[tuple[Event, str]]


def router(shell: Shell) -> APIRouter:
    routes, engine = APIRouter(), shell.desk.engine

    async def show(request: Request, visit: Visit) -> Response:
        job_id, place = str(request.path_params["job_id"]), str(request.path_params["place"])
        now_ms = engine.clock.now_ms()
        seen = await engine.store.read(lambda tx: page(tx, job_id, place, now_ms))
        return shell.html(request, visit, "dashboard/shard.html", seen=seen)

    async def find(request: Request, visit: Visit) -> Response:
        """From the number that somebody typed to the shard's page."""
        query = request.query_params
        place = f"{query.get('in', '')[:120]}/s{query.get('position', '')[:9].strip()}"
        return RedirectResponse(
            f"/jobs/{quote(str(request.path_params['job_id']))}/shards/{quote(place)}", status_code=303
        )

    # a shard's id has slashes: job/stage/round/phase/shard
    shell.page(routes, "/jobs/{job_id}/shards/{place:path}", show)
    shell.page(routes, "/jobs/{job_id}/shard", find)
    return routes


def page(tx: Transaction, job_id: str, place: str, now_ms: int) -> ShardPage:
    """`place` is the shard's id without its job."""
    job = named(tx, job_id.replace("\0", ""))
    shard_id = f"{job.id}/{place}".replace("\0", "")
    shard = tx.get(Shard, shard_id)
    if shard is None or shard.job_id != job.id:
        raise NotFound(
            "shard.not_found", "There is no such shard.", next_step="Its job's page lists them.", shard=place
        )
    replicas = tx.find(Replica, shard_id=shard.id, order="number")
    canonical = next((one for one in replicas if one.number == shard.canonical), None)
    # of this job, so that the index of shards finds them
    events = tx.find(Event, job_id=job.id, subject=shard.id, order="sequence", descending=True, limit=MOST_EVENTS)
    leases = sorted(tx.find(Lease, shard_id=shard.id), key=lambda one: one.granted_ms, reverse=True)
    return ShardPage(
        job=job,
        shard=shard,
        called=called(shard),
        checks=_checks(tx, shard) if shard.audits else None,
        why=Why.from_json(shard.why_json) if shard.why_json else None,
        inputs=json.loads(shard.inputs_json),
        replicas=replicas,
        held=tries.held(tx, job, now_ms, shard.id),
        attempts=tries.ended(tx, [one for one in leases if one.ended_ms]),
        outputs=json.loads(canonical.outputs_json) if canonical else {},
        metrics=json.loads(canonical.metrics_json) if canonical else {},
        audits=_audits(tx, shard, replicas) if shard.phase in AUDITED_PHASES else (),
        events=list(zip(events, rows.in_words(tx, events), strict=True)),
    )


def _checks(tx: Transaction, audit: Shard) -> Checked | None:
    name, number = target(audit)
    shard, replica = tx.get(Shard, name), tx.get(Replica, name, number)
    if shard is None or replica is None:
        return None
    return _checked(tx, shard, replica, str(replica.state))


def _audits(tx: Transaction, shard: Shard, replicas: Sequence[Replica]) -> list[Checked]:
    """Each with who checks, where anybody does yet."""
    # of this job and phase, so that an index finds them
    key: dict[str, Any] = {"job_id": shard.job_id, "stage": shard.stage, "round": shard.round, "phase": AUDIT_PHASE}
    found = tx.find(Shard, **key, audits=[about(one) for one in replicas])
    return [_checked(tx, one, tx.get(Replica, one.id, max(one.canonical, 0)), str(one.state)) for one in found]


def _checked(tx: Transaction, shard: Shard, replica: Replica | None, state: str) -> Checked:
    worker = replica.worker_id if replica else ""
    party = tx.get(Party, worker) if worker else None
    return Checked(
        called=called(shard),
        path=f"/jobs/{shard.job_id}/shards/{shard.id.removeprefix(f'{shard.job_id}/')}",
        worker_id=worker,
        worker=(party.name if party else "") or worker,
        state=state,
    )
