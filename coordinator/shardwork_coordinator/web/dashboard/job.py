"""The page of one job: stage graph, curves, shard grid, attempts, events, outputs and money. Actions are `steering`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from shardwork import wire
from shardwork.client import received
from shardwork.client.display.iterations import iterations
from shardwork.client.results import JobStatus
from shardwork.errors import NotFound
from shardwork.jobs.spec import JobSpec, StageSpec, references
from shardwork.why import Why

from ... import views
from ...engine import LONGEST_LEASE_ID
from ...machine.states import FINAL_JOB, LIVE
from ...people import places
from ...people.items import Longer
from ...reasons import reasons_of
from ...records import Event, Job, Party, Replica, Round, Stage
from ...rpc import steering
from ...scheduler import Worker
from ...store.base import Transaction
from .. import rows
from . import curves, grid, tries
from .alignment import panel, reports
from .shell import Shell, as_json
from .visits import Visit

PATH = "/jobs/{job_id}"
MOST_EVENTS = 25
LOG_PAGE = 200
#: what an operator may do while the job lives, and in which states
STEPS = {"pause": ("running", "funded"), "resume": ("paused",), "cancel": ("running", "paused", "funded", "draft")}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageBox:
    """A stage in the graph."""

    stage: Stage
    #: stages that it reads from or waits for
    reads: Sequence[str]
    rounds: Sequence[views.RoundView]
    merged: int
    why: Why | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    job: Job
    row: rows.JobRow
    owner_name: str
    view: views.JobView
    why: Why
    reasons: Sequence[Why]
    stages: Sequence[StageBox]
    #: of the stages that ask people
    panels: Sequence[panel.Panel]
    #: as its owner is told
    status: JobStatus
    #: of the stages that made one of votes
    reports: reports.Known
    charts: Sequence[curves.Chart]
    grid: grid.Grid | None
    held: Sequence[tries.Held]
    #: of the job, beside those
    more_held: int
    attempts: tries.Attempts
    #: each with its sentence, in which workers have names
    events: Sequence[tuple[Event, str]]
    #: action -> what it would mean now
    steps: Mapping[str, str] = field(default_factory=dict[str, str])


def router(shell: Shell) -> APIRouter:
    routes, engine = APIRouter(), shell.desk.engine
    known = reports.Reports(shell.desk.contents)

    async def show(request: Request, visit: Visit) -> Response:
        asked = Asked.of(request)
        # texts of items are no rows: what is needed of them is read before everything else
        items, told = await engine.store.read(
            lambda tx: (places.items_of(tx, asked.job_id), reports.artifacts(tx, asked.job_id))
        )
        around = Around(
            attached=engine.links.attached(),
            now_ms=engine.clock.now_ms(),
            most_running=shell.desk.settings.max_running_shards,
            longer=await shell.desk.items.longer(items) if shell.desk.items else {},
            reports=await known.of(told),
        )
        seen = await engine.store.read(lambda tx: page(tx, asked, around))
        words: dict[str, Any] = {"as_json": as_json, "left": panel.left, "causes": panel.CAUSES, "times": iterations}
        base = str(request.base_url).rstrip("/")
        return shell.html(request, visit, "dashboard/job.html", seen=seen, asked=asked, base=base, **words)

    async def log(request: Request, visit: Visit) -> Response:
        asked = Asked.of(request)
        seen = await engine.store.read(lambda tx: log_page(tx, asked))
        return shell.html(request, visit, "dashboard/log.html", asked=asked, **seen)

    async def job_file(request: Request, visit: Visit) -> Response:
        job = await engine.store.read(lambda tx: named(tx, Asked.of(request).job_id))
        name = f'attachment; filename="job-{job.id}.yaml"'
        return Response(as_yaml(job), media_type="application/yaml", headers={"Content-Disposition": name})

    shell.page(routes, PATH, show)
    shell.page(routes, f"{PATH}/log", log)
    shell.page(routes, f"{PATH}/job.yaml", job_file)
    return routes


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What of a job is looked at."""

    job_id: str
    #: stage, round and phase of the shard grid; empty: where the job is
    stage: str = ""
    round: int | None = None
    phase: str = ""
    #: attempts of this state only, and those before this moment, or at it and behind this lease
    state: str = ""
    before: int | None = None
    beside: str = ""

    @classmethod
    def of(cls, request: Request) -> Asked:
        query = request.query_params

        def number(name: str) -> int | None:
            text = query.get(name, "")
            return int(text) if text.isascii() and text.isdigit() and len(text) < 17 else None

        return cls(
            job_id=str(request.path_params["job_id"])[:64].replace("\0", ""),
            stage=query.get("stage", "")[:64].replace("\0", ""),
            round=number("round"),
            phase=query.get("phase", "")[:32].replace("\0", ""),
            state=query.get("state", "") if query.get("state", "") in tries.STATES else "",
            before=number("before"),
            beside=query.get("beside", "")[:LONGEST_LEASE_ID].replace("\0", ""),
        )

    @property
    def place(self) -> tries.Place | None:
        """Where a page of attempts goes on."""
        return None if self.before is None else (self.before, self.beside)


def named(tx: Transaction, job_id: str) -> Job:
    """Raises NotFound "job.not_found"."""
    job = tx.get(Job, job_id)
    if job is None:
        raise NotFound(
            "job.not_found", f"There is no job {job_id!r}.", next_step="The list of jobs can be searched.", job=job_id
        )
    return job


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What a page needs that is no row of its job."""

    attached: Sequence[Worker]
    now_ms: int
    most_running: int
    longer: Longer
    reports: reports.Known


def page(tx: Transaction, asked: Asked, around: Around) -> JobPage:
    job, attached, now_ms = named(tx, asked.job_id), around.attached, around.now_ms
    stages = tx.find(Stage, job_id=job.id, order="position")
    rounds = tx.find(Round, job_id=job.id, order="number")
    view = views.job_view(tx, job, attached)
    owner = tx.get(Party, job.owner)
    in_hand, living = tries.held(tx, job, now_ms), [str(state) for state in LIVE]
    events = tx.find(Event, job_id=job.id, order="sequence", descending=True, limit=MOST_EVENTS, detail=False)
    return JobPage(
        job=job,
        row=rows.job_row(tx, job, attached),
        owner_name=owner.name if owner else "",
        view=view,
        why=wire.why_from_proto(view.why),
        reasons=reasons_of(tx, job, most_running=around.most_running),
        stages=[_box(stage, stages, view) for stage in stages],
        panels=panel.panels(tx, stages, now_ms, around.longer),
        status=received.job_status(view),
        reports=around.reports,
        charts=curves.charts(tx, job, stages, rounds),
        grid=grid.look(tx, job, stages, rounds, (asked.stage, asked.round, asked.phase)),
        held=in_hand,
        more_held=sum(tx.count(Replica, "state", job_id=job.id, state=living).values()) - len(in_hand),
        attempts=tries.attempts(tx, job, asked.state, asked.place),
        events=list(zip(events, rows.in_words(tx, events), strict=True)),
        steps=_steps(tx, job),
    )


def _steps(tx: Transaction, job: Job) -> dict[str, str]:
    """What may be done now, and what it would cost."""
    if job.state in FINAL_JOB:
        return {}
    possible = [name for name, states in STEPS.items() if job.state in states]
    return {name: steering.preview(tx, job, name, 0).why.sentence for name in possible}


def _box(stage: Stage, stages: Sequence[Stage], view: views.JobView) -> StageBox:
    spec = StageSpec.model_validate_json(stage.spec_json) if len(stage.spec_json) > 2 else None
    wanted = {one.split(".", 1)[0] for one in references(spec)} if spec else set[str]()
    if spec and spec.run_if:
        wanted.add(spec.run_if.stage)
    mine = next(one for one in view.stages if one.name == stage.name)
    return StageBox(
        stage=stage,
        reads=[one.name for one in stages if one.name in wanted],
        rounds=list(mine.rounds),
        merged=sum(1 for one in mine.rounds if one.state == "merged" and one.kind not in ("setup", "publish")),
        why=Why.from_json(stage.why_json) if stage.why_json else None,
    )


def log_page(tx: Transaction, asked: Asked) -> dict[str, Any]:
    """Everything that was said of the job, newest first, details as well."""
    job = named(tx, asked.job_id)
    before = {} if asked.before is None else {"after": asked.before}
    events = tx.find(Event, job_id=job.id, order="sequence", descending=True, limit=LOG_PAGE + 1, **before)
    more = len(events) > LOG_PAGE
    return {
        "job": job,
        "events": [
            (one, sentence, json.loads(one.evidence_json))
            for one, sentence in zip(events[:LOG_PAGE], rows.in_words(tx, events[:LOG_PAGE]), strict=True)
        ],
        "older": f"/jobs/{job.id}/log?before={events[LOG_PAGE - 1].sequence}" if more else "",
        "newer": f"/jobs/{job.id}/log" if asked.before is not None else "",
    }


def as_yaml(job: Job) -> str:
    """The job as a file that its owner can submit again; paths are those of its owner's machine."""
    spec = JobSpec.model_validate_json(job.spec_json).model_dump(by_alias=True, mode="json", exclude_defaults=True)
    head = f"# Job {job.id} as it was submitted. Files are named as on its owner's machine.\n"
    return head + yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)
