"""One artifact: what it is, who may read it, which jobs keep it until when, and its lineage. Reads rows only, never
its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from shardwork.errors import NotFound

from ....artifacts.figures import kind_of
from ....artifacts.opening import artifact_limits
from ....artifacts.quota import ArtifactLimits
from ....artifacts.retention import FOR_EVER, HOUSE, Need, needs
from ....records import Artifact, ArtifactState, Job, OfferedModel
from ....store.base import Transaction
from ..shell import Shell
from ..visits import Visit
from .lineage import Lineage, lineage
from .listing import job_by, name_of

PATH = "/artifacts"
#: the newest jobs among whose inputs it is looked for
MOST_JOBS = 5_000
#: jobs that are looked into
MOST_LOOKED_INTO = 20
#: an effect's result is stored within this of its job's end
SLACK_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    id: str
    name: str
    kind: str
    state: str
    purpose: str
    job_id: str
    created_ms: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """A job that keeps it."""

    job_id: str
    job: str
    state: str
    #: "input", "output" or "intermediate"
    kind: str
    #: whose rows it keeps
    owners: Sequence[str]
    #: 0: for as long as the job lives; -1: until its owner deletes it
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    id: str
    bytes: int
    leaves: int
    owners: Sequence[Owner]
    keeping: Sequence[Keeping]
    #: when the next sweeps may delete it if no job needs it any more
    loose_ms: int
    lineages: Sequence[Lineage]
    #: names under which the operator offers it to everybody, which keeps it
    offered: Sequence[str]


def router(shell: Shell) -> APIRouter:
    routes, desk = APIRouter(), shell.desk

    async def show(request: Request, visit: Visit) -> Response:
        name, now_ms = request.path_params["artifact"], desk.engine.clock.now_ms()
        limits = artifact_limits(desk.settings)
        found = await desk.engine.store.read(lambda tx: content(tx, name, limits, now_ms))
        return shell.html(request, visit, "dashboard/artifacts/content.html", found=found)

    shell.page(routes, PATH + "/{artifact}", show)
    return routes


def content(tx: Transaction, artifact_id: str, limits: ArtifactLimits, now_ms: int) -> Content:
    """Raises NotFound "artifact.unknown_id"."""
    rows = tx.find(Artifact, id=artifact_id)
    if not rows:
        raise NotFound(
            "artifact.unknown_id",
            "No artifact with this id was ever sent here.",
            next_step="Look for the beginning of its id among the artifacts.",
            id=artifact_id[:80],
        )
    largest = max(rows, key=lambda row: row.bytes)
    jobs = _jobs(tx, rows)
    # what was copied from a hub goes a while after its last use
    keep_ms = {True: limits.ages.keep_ms, False: int(limits.keep_s * 1000)}
    stored = [row.created_ms + keep_ms[kind_of(row) == "hub"] for row in rows if row.state is ArtifactState.STORED]
    return Content(
        id=artifact_id,
        bytes=largest.bytes,
        leaves=largest.leaves,
        owners=[_owner(tx, row) for row in rows],
        keeping=[one for job in jobs for one in _keeping(tx, job, artifact_id, limits, now_ms)],
        loose_ms=max(stored, default=0),
        offered=[one.name for one in tx.find(OfferedModel, artifact_id=artifact_id, withdrawn=False)],
        lineages=[found for job in jobs if (found := lineage(tx, job, artifact_id)) is not None],
    )


def _owner(tx: Transaction, row: Artifact) -> Owner:
    return Owner(
        id=row.owner,
        name=name_of(tx, row.owner),
        kind=kind_of(row),
        state=str(row.state),
        purpose=row.purpose,
        job_id=job_by(row.owner, row.purpose),
        created_ms=row.created_ms,
        bytes=row.bytes,
    )


def _jobs(tx: Transaction, rows: Sequence[Artifact]) -> list[Job]:
    """Jobs that may have made or read it: those that its rows name, those with it among their inputs, and for what the
    executor made, those that lived when it was stored."""
    artifact_id, named = rows[0].id, [job_by(row.owner, row.purpose) for row in rows]
    made = [row.created_ms for row in rows if row.owner == HOUSE]
    wanted = ("id", "inputs_json", "created_ms", "ended_ms")
    for name, inputs, created_ms, ended_ms in tx.pick(
        Job, wanted, order="created_ms", descending=True, limit=MOST_JOBS
    ):
        lived = [at for at in made if created_ms <= at and (not ended_ms or at <= ended_ms + SLACK_MS)]
        if lived or artifact_id in inputs:
            named.append(name)
    found = [tx.get(Job, name) for name in dict.fromkeys(named) if name]
    return [job for job in found if job is not None][:MOST_LOOKED_INTO]


def _keeping(tx: Transaction, job: Job, artifact_id: str, limits: ArtifactLimits, now_ms: int) -> list[Keeping]:
    found: dict[str, list[Need]] = {}
    for need in needs(tx, job, limits.ages, artifact_id):
        if need.until_ms > now_ms:
            found.setdefault(need.kind, []).append(need)
    return [
        Keeping(
            job_id=job.id,
            job=job.name,
            state=str(job.state),
            kind=kind,
            owners=sorted({name_of(tx, need.owner) for need in some}),
            until_ms=_until(max(need.until_ms for need in some), job),
        )
        for kind, some in found.items()
    ]


def _until(until_ms: int, job: Job) -> int:
    if until_ms < FOR_EVER:
        return until_ms
    return -1 if job.ended_ms else 0
