"""The list of jobs: search, filter by what they are at, pages of the newest first. Reads; the page of one job is `job`.

A search finds jobs whose id or name begins with what was typed, and those of an owner whose whole id it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ...machine.states import LIVE
from ...records import Job, JobState, Lease, Outbox, OutboxState, Replica, ReplicaState, Shard, ShardState
from ...scheduler import Worker
from ...store.base import Transaction
from .. import rows
from .shell import Shell
from .visits import Visit

PATH = "/jobs"
PAGE = 25
#: jobs of one millisecond that a page may begin with
MOST_AT_ONCE = 25
#: failed attempts among which retried work is looked for
MOST_FAILURES = 400
MOST_FOUND = 200
LONGEST_SEARCH = 100
FAILED = (str(ReplicaState.EXPIRED), str(ReplicaState.REJECTED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody asked the list for."""

    #: a JobState, "waiting", "retrying" or "" for all
    state: str = ""
    search: str = ""
    #: created_ms and id of the last job of the page before
    after: tuple[int, str] | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """From an address; what makes no sense is left out."""
        state = query.get("state", "")
        created, _, job_id = query.get("after", "").partition("-")
        is_place = created.isascii() and created.isdigit() and len(created) < 17 and job_id.isalnum()
        return cls(
            state=state if state in (*JobState, "waiting", "retrying") else "",
            search=query.get("q", "").strip()[:LONGEST_SEARCH].replace("\0", ""),
            after=(int(created), job_id) if is_place else None,
        )

    def path(self, **changed: str) -> str:
        """The address of this list with something else."""
        fields = {"state": self.state, "q": self.search} | changed
        asked = urlencode({name: value for name, value in fields.items() if value})
        return f"{PATH}?{asked}" if asked else PATH


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A job in the list."""

    row: rows.JobRow
    owner: str
    shards: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobList:
    jobs: Sequence[Listed]
    counts: Mapping[str, int]
    total: int
    #: more names begin with what was searched than were looked at
    is_cut: bool
    newer: str
    older: str


def router(shell: Shell) -> APIRouter:
    routes = APIRouter()

    async def show(request: Request, visit: Visit) -> Response:
        wanted, engine = Wanted.of(request.query_params), shell.desk.engine
        attached = engine.links.attached()
        found = await engine.store.read(lambda tx: listed(tx, wanted, attached))
        tabs = ("", "running", "waiting", "retrying", "paused", "succeeded", "failed", "cancelled")
        return shell.html(request, visit, "dashboard/jobs.html", found=found, wanted=wanted, tabs=tabs)

    shell.page(routes, PATH, show)
    return routes


def listed(tx: Transaction, wanted: Wanted, attached: Sequence[Worker]) -> JobList:
    """One page, newest first."""
    found, is_cut = _matching(tx, wanted)
    jobs = [job for job in found if wanted.after is None or (job.created_ms, job.id) < wanted.after]
    shown = jobs[:PAGE]
    counts = tx.count(Job, "state")
    older = wanted.path(after=f"{shown[-1].created_ms}-{shown[-1].id}") if len(jobs) > PAGE else ""
    return JobList(
        jobs=[
            Listed(
                row=rows.job_row(tx, job, attached),
                owner=job.owner,
                shards=tx.count(Shard, "state", job_id=job.id),
            )
            for job in shown
        ],
        counts=counts,
        total=sum(counts.values()),
        is_cut=is_cut,
        newer=wanted.path() if wanted.after else "",
        older=older,
    )


def _matching(tx: Transaction, wanted: Wanted) -> tuple[list[Job], bool]:
    """Candidates of the page, newest first, a few more than one page holds; and whether a search left some out."""
    at_work = waiting(tx) if wanted.state == "waiting" else retrying(tx) if wanted.state == "retrying" else None
    # several may be of one millisecond
    after = None if wanted.after is None else wanted.after[0] + 1
    if wanted.search:
        found, is_cut = _searched(tx, wanted.search, after)
        fits = [job for job in found if _fits(job, wanted.state, at_work)]
        return sorted(fits, key=lambda job: (job.created_ms, job.id), reverse=True), is_cut
    limit = PAGE + MOST_AT_ONCE + 1
    if at_work is None:
        state = {"state": wanted.state} if wanted.state else {}
        return tx.find(Job, order="created_ms", descending=True, limit=limit, after=after, **state), False
    running = tx.pick(Job, ("id",), state=JobState.RUNNING, order="created_ms", descending=True, after=after)
    names = [name for (name,) in running if name in at_work][:limit]
    return [job for name in names if (job := tx.get(Job, name)) is not None], False


def _searched(tx: Transaction, search: str, after: int | None) -> tuple[list[Job], bool]:
    """By the beginning of id or name, or by owner; and whether there are more."""
    found: dict[str, Job] = {}
    for equals in ({"owner": search}, {"name": search}, {"id": search}):
        same = tx.find(Job, order="created_ms", descending=True, limit=MOST_FOUND, after=after, **equals)
        found |= {job.id: job for job in same}
    is_cut = False
    for column in ("id", "name"):
        behind = tx.pick(Job, ("id", column), order=column, after=search, limit=MOST_FOUND + 1)
        names = [name for name, text in behind if text.startswith(search)]
        is_cut = is_cut or len(names) > MOST_FOUND
        found |= {name: job for name in names[:MOST_FOUND] if (job := tx.get(Job, name)) is not None}
    return list(found.values()), is_cut


def _fits(job: Job, state: str, at_work: set[str] | None) -> bool:
    return job.id in at_work if at_work is not None else not state or job.state == state


def waiting(tx: Transaction) -> set[str]:
    """Running jobs of which no shard is in anybody's hands."""
    held = tx.count(Replica, "job_id", state=[str(state) for state in LIVE])
    return set(tx.count(Job, "id", state=JobState.RUNNING)) - set(held)


def retrying(tx: Transaction) -> set[str]:
    """Running jobs with a shard that failed lately and is still to be done, or a step of ours that failed."""
    running = set(tx.count(Job, "id", state=JobState.RUNNING))
    failed = tx.pick(
        Lease, ("job_id", "shard_id"), state=FAILED, order="ended_ms", descending=True, limit=MOST_FAILURES
    )
    shards = {shard for job, shard in failed if job in running}
    unfinished = (str(ShardState.READY), str(ShardState.RUNNING))
    found = (
        {job for (job,) in tx.pick(Shard, ("job_id",), id=sorted(shards), state=unfinished)} if shards else set[str]()
    )
    steps = tx.pick(Outbox, ("payload_json", "attempts"), state=OutboxState.PENDING)
    return found | {json.loads(payload)["job_id"] for payload, attempts in steps if attempts} & running
