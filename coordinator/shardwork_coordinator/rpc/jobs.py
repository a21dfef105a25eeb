"""The requester's side of the wire: quote, submit, look, follow. Thin servicer at the end.

Owns what is asked of a job before it exists (facts, inputs, cap) and looking at it; steering it is `steering`, what
happens to it is `machine`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import asdict, dataclass, field, replace

from shardwork import wire
from shardwork.errors import Conflict, InvalidInput, LimitExceeded
from shardwork.identity.role import Role
from shardwork.ids import job_id as derive_job_id
from shardwork.jobs.spec import JobSpec
from shardwork.problem import suggest
from shardwork.recipes import recipe
from shardwork.recipes.base import StageFacts, StageType
from shardwork.v1 import jobs_pb2, jobs_pb2_grpc
from shardwork.why import Why

from .. import views
from ..engine import Engine, start_next_stage, write_change
from ..events import Push
from ..machine.opening import open_job
from ..machine.phases import HOUR_MS
from ..money.pricing import JobQuote, RateCard, quote
from ..people.items import Items
from ..reasons import reasons_of
from ..records import Event, Job, JobState, Lease, Shard, Stage, StageState
from ..store.base import Match, Transaction
from . import asked, prospects, steering
from .auth import Caller, Context, Gate
from .continuing import parents
from .proposal import check_cap, check_facts, own_inputs, parse_facts, parse_spec

#: a watcher hears at least this often, so that progress moves and a dead connection shows
WATCH_EVERY_S = 1.0
WATCH_PAUSE_S = 0.2
#: streams that one party may follow at the same time
MOST_WATCHES = 32
MOST_EVENTS = 1_000
#: jobs that may have been submitted in one millisecond
MOST_AT_ONCE = 64
HIGHEST_SEQUENCE = 2**63 - 1
OWNERS = (Role.REQUESTER, Role.OPERATOR)
CLOSED = Why(
    code="job.intake_closed",
    sentence="This coordinator takes no new jobs at the moment; those that run go on.",
    next_step="Submit it later, or ask the operator when intake opens again. Nothing was paid.",
)
FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
#: work units a second when nothing was measured yet: a laptop's cores, and a fast GPU
SLOW_UNITS_PER_S, FAST_UNITS_PER_S = 10**10, 10**13


@dataclass(slots=True, kw_only=True)
class JobsDesk:
    """What the handlers need. The rules among it may change at any time; a call looks at one state of them."""

    engine: Engine
    rates: RateCard
    #: whether new jobs are taken
    is_open: bool = True
    #: jobs of one requester that may run or be paused at the same time
    max_open_jobs: int = 1_000
    #: shards of one requester that may run at the same time; 0: any number
    max_running_shards: int = 0
    #: texts that people are shown; None: nothing is told of their lengths
    items: Items | None = None
    #: streams of `WatchJob` by party
    watching: Counter[str] = field(default_factory=Counter[str])
    #: one plan is priced at a time: it is computing, and requesters can send many
    pricing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))


# ---- before a job exists --------------------------------------------------------------------------------------------


async def quote_job(request: jobs_pb2.QuoteJobRequest, caller: Caller, desk: JobsDesk) -> jobs_pb2.QuoteJobResponse:
    desk = replace(desk)
    spec, facts = parse_spec(request.spec_json), parse_facts(list(request.facts))
    # refused before a sat moves, and before anything is uploaded
    await desk.engine.store.read(lambda tx: parents(tx, spec, facts, caller))
    return jobs_pb2.QuoteJobResponse(quote=await _quoted(spec, facts, await _price(spec, facts, desk), desk))


async def submit_job(request: jobs_pb2.SubmitJobRequest, caller: Caller, desk: JobsDesk) -> jobs_pb2.SubmitJobResponse:
    """Escrows the quote's reserve and starts the job; the same submission id gives the same job."""
    if not 8 <= len(request.submission_id) <= 64:
        raise InvalidInput("job.bad_submission_id", "A submission id has 8 to 64 characters.")
    # the price and the frozen rates must be of one card
    desk = replace(desk)
    spec, facts = parse_spec(request.spec_json), parse_facts(list(request.facts))
    check_facts(spec, facts)
    priced = await _price(spec, facts, desk)
    sent = {item.name: item.artifact_id for item in request.inputs}
    job_id, world = str(derive_job_id(caller.party_id, request.submission_id)), desk.engine.world()

    def work(tx: Transaction) -> tuple[str, list[Push]]:
        known = tx.find(Job, owner=caller.party_id, submission_id=request.submission_id)
        if known:
            if known[0].spec_json != spec.canonical_json():
                raise Conflict("job.submission_reused", "This submission id belongs to another job.", job=known[0].id)
            return known[0].id, []
        # only now: a retry of what was paid must find it, whatever prices are by then
        check_cap(spec, priced, request.max_msat)
        if not desk.is_open:
            raise Conflict.from_why(CLOSED)
        _check_quota(tx, caller, desk)
        inputs = own_inputs(tx, spec, sent, caller, facts)
        draft = _draft(request, spec, caller, job_id, priced, desk, world.now_ms, facts)
        draft = replace(draft, inputs_json=json.dumps(inputs, sort_keys=True))
        tx.insert(draft)
        for stage in _stages(job_id, spec, facts):
            tx.insert(stage)
        pushes = write_change(tx, job_id, open_job(draft), world)
        return job_id, pushes + start_next_stage(tx, job_id, world)

    found, pushes = await desk.engine.store.write(work)
    desk.engine.after_commit(pushes)
    return jobs_pb2.SubmitJobResponse(job_id=found, quote=await _quoted(spec, facts, priced, desk))


def _check_quota(tx: Transaction, caller: Caller, desk: JobsDesk) -> None:
    open_ = sum(tx.count(Job, "state", owner=caller.party_id, state=[JobState.RUNNING, JobState.PAUSED]).values())
    if open_ >= desk.max_open_jobs:
        raise LimitExceeded(
            "job.too_many_open",
            f"You have {open_:,} jobs that have not ended, and this coordinator takes {desk.max_open_jobs:,}.",
            next_step="Wait for one to end, or cancel one: `shardwork job list`.",
            open=open_,
        )


def _draft(
    request: jobs_pb2.SubmitJobRequest,
    spec: JobSpec,
    caller: Caller,
    job_id: str,
    priced: JobQuote,
    desk: JobsDesk,
    now_ms: int,
    facts: Mapping[str, StageFacts],
) -> Job:
    return Job(
        id=job_id,
        owner=caller.party_id,
        submission_id=request.submission_id,
        name=spec.name,
        state=JobState.DRAFT,
        spec_json=spec.canonical_json(),
        facts_json=json.dumps({name: asdict(one) for name, one in facts.items()}, sort_keys=True),
        inputs_json="{}",
        quote_json=priced.to_json(),
        rates_json=desk.rates.to_json(),
        budget_msat=priced.reserve_msat,
        created_ms=now_ms,
        deadline_ms=deadline_of(spec, now_ms),
    )


def deadline_of(spec: JobSpec, now_ms: int) -> int:
    """When a job's time is over that is submitted now; 0: never."""
    hours = spec.schedule.timeout_hours
    return now_ms + int(hours * HOUR_MS) if hours is not None else 0


def _stages(job_id: str, spec: JobSpec, facts: Mapping[str, StageFacts]) -> list[Stage]:
    """Everything `auto` is frozen here."""
    found: list[Stage] = []
    for position, stage in enumerate(spec.stages):
        kind = recipe(stage.recipe)
        frozen = kind.freeze(stage, facts.get(stage.name, StageFacts()))
        found.append(
            Stage(
                job_id=job_id,
                name=stage.name,
                position=position,
                recipe=stage.recipe,
                state=StageState.WAITING,
                planned_rounds=kind.learn_rounds(frozen),
                spec_json=frozen.model_dump_json(by_alias=True),
            )
        )
    return found


async def _price(spec: JobSpec, facts: Mapping[str, StageFacts], desk: JobsDesk) -> JobQuote:
    # planning a thousand shards a round of 32 stages takes seconds, in which nobody else would be answered
    async with desk.pricing:
        return await asyncio.to_thread(quote, spec, facts, desk.rates)


async def _quoted(spec: JobSpec, facts: Mapping[str, StageFacts], priced: JobQuote, desk: JobsDesk) -> jobs_pb2.Quote:
    """The price with what is known of time, bytes and workers."""
    slow, fast = await _speeds(desk)
    workers = max(len(desk.engine.links.accepting()), 1)
    warnings = prospects.warnings(spec, priced.largest, desk.engine.links.attached())
    warnings += [] if desk.is_open else [CLOSED]
    up, down = _bytes(spec, facts)
    return jobs_pb2.Quote(
        shards=priced.shards,
        rounds=priced.rounds,
        estimate_low_msat=priced.low_msat,
        estimate_high_msat=priced.reserve_msat,
        compute_msat=priced.compute_msat,
        verification_msat=priced.verification_msat,
        fees_msat=priced.fees_msat,
        reserve_msat=priced.reserve_msat,
        seconds_low=max(priced.serial_units // fast, 1),
        seconds_high=max(priced.serial_units // slow, priced.total_units // slow // workers, 1) + priced.shards,
        warnings=[wire.why_to_proto(why) for why in warnings],
        upload_bytes_per_shard=up,
        download_bytes_per_shard=down,
        msat_per_tera_unit=desk.rates.msat_per_tera_unit,
        minimum_shard_msat=desk.rates.minimum_msat,
        fee_basis_points=desk.rates.fee_basis_points,
        phases=[jobs_pb2.PhasePrice(**asdict(one)) for one in priced.phases],
    )


async def _speeds(desk: JobsDesk) -> tuple[int, int]:
    """(slow, fast) work units a second, from recent accepted leases where there are any."""

    def look(tx: Transaction) -> list[int]:
        leases = tx.find(Lease, phase="learn", state="accepted", order="ended_ms", descending=True, limit=20)
        speeds: list[int] = []
        for lease in leases:
            shard = tx.get(Shard, lease.shard_id)
            if shard is not None and lease.compute_ms > 0:
                speeds.append(max(shard.work_units * 1000 // lease.compute_ms, 1))
        return sorted(speeds)

    speeds = await desk.engine.store.read(look)
    return (speeds[0], speeds[-1]) if speeds else (SLOW_UNITS_PER_S, FAST_UNITS_PER_S)


def _bytes(spec: JobSpec, facts: Mapping[str, StageFacts]) -> tuple[int, int]:
    """(up, down) of one shard of the largest stage: delta and two moments where it learns, else next to nothing; the
    base once, then updates."""
    width = {"int8": 1, "bf16": 2, "fp32": 4}
    sizes: list[tuple[int, int]] = []
    for stage in spec.stages:
        measured = facts.get(stage.name, StageFacts())
        each = width.get(str(stage.params.get("encoding", "int8")), 1)
        learns = recipe(stage.recipe).stage_type is StageType.ROUNDS
        update = 3 * each * measured.trained_params if learns else 0
        sizes.append((update, update + 4 * measured.run_params))
    return max(sizes)


# ---- looking --------------------------------------------------------------------------------------------------------


async def list_jobs(request: jobs_pb2.ListJobsRequest, caller: Caller, desk: JobsDesk) -> jobs_pb2.ListJobsResponse:
    size = min(request.page_size or 50, 200)
    last = _page(request.page_token)
    workers, states = desk.engine.links.attached(), _states(request)

    def look(tx: Transaction) -> jobs_pb2.ListJobsResponse:
        found = _jobs_before(tx, last, size + MOST_AT_ONCE + 1, {**_mine(caller), **states})
        jobs = found[:size]
        token = f"{jobs[-1].created_ms}-{jobs[-1].id}" if len(found) > size else ""
        shown = [views.job_view(tx, job, workers, rounds=False) for job in jobs]
        return jobs_pb2.ListJobsResponse(jobs=shown, next_page_token=token)

    return await desk.engine.store.read(look)


def _mine(caller: Caller) -> dict[str, Match]:
    return {} if caller.role is Role.OPERATOR else {"owner": caller.party_id}


def _states(request: jobs_pb2.ListJobsRequest) -> dict[str, Match]:
    """Raises InvalidInput "job.no_state"."""
    known = [str(state) for state in JobState]
    odd = next((state for state in request.states if state not in known), None)
    if odd is not None:
        raise InvalidInput(
            "job.no_state", f"No job is {odd[:40]!r}.", next_step=suggest(odd, known, what="states"), key="states"
        )
    return {"state": list(request.states)} if request.states else {}


def _jobs_before(tx: Transaction, last: tuple[int, str] | None, limit: int, named: Mapping[str, Match]) -> list[Job]:
    """Such jobs, newest first, behind the last of the page before; those of one millisecond go by id."""
    after = None if last is None else last[0] + 1
    found = tx.find(Job, order="created_ms", descending=True, limit=limit, after=after, **named)
    return [job for job in found if last is None or (job.created_ms, job.id) < last]


def _page(token: str) -> tuple[int, str] | None:
    """(created_ms, id) of the last job of the page before."""
    if not token:
        return None
    created, _, job_id = token.partition("-")
    if not (created.isascii() and created.isdigit() and len(created) <= 18 and job_id):
        raise InvalidInput("job.bad_page", "This is not a page token that an earlier answer named.", token=token[:40])
    return int(created), job_id


async def get_job(request: jobs_pb2.GetJobRequest, caller: Caller, desk: JobsDesk) -> jobs_pb2.GetJobResponse:
    workers = desk.engine.links.attached()

    def look(tx: Transaction) -> jobs_pb2.GetJobResponse:
        job = steering.own_job(tx, request.job_id, caller)
        reasons = [wire.why_to_proto(why) for why in reasons_of(tx, job, most_running=desk.max_running_shards)]
        return jobs_pb2.GetJobResponse(job=views.job_view(tx, job, workers), reasons=reasons)

    return await desk.engine.store.read(look)


async def get_job_report(
    request: jobs_pb2.GetJobReportRequest, caller: Caller, desk: JobsDesk
) -> jobs_pb2.GetJobReportResponse:
    workers = desk.engine.links.attached()

    def look(tx: Transaction) -> jobs_pb2.GetJobReportResponse:
        return views.report_view(tx, steering.own_job(tx, request.job_id, caller), workers)

    return await desk.engine.store.read(look)


async def list_job_events(
    request: jobs_pb2.ListJobEventsRequest, caller: Caller, desk: JobsDesk
) -> jobs_pb2.ListJobEventsResponse:
    """A page of a job's events, or of its log, onwards from one of them or backwards."""
    limit = min(request.limit or MOST_EVENTS, MOST_EVENTS)
    if request.after_sequence and request.before_sequence:
        raise InvalidInput(
            "job.two_ends",
            "A page of events goes on after one or ends before one, not both.",
            next_step="Leave after_sequence or before_sequence out.",
        )

    def look(tx: Transaction) -> jobs_pb2.ListJobEventsResponse:
        job = steering.own_job(tx, request.job_id, caller)
        if request.before_sequence:
            events = _events_before(tx, job, request, limit)
        else:
            events = _events_after(tx, job, request.after_sequence, limit, details=request.details)
        return jobs_pb2.ListJobEventsResponse(events=[views.event_view(event) for event in events])

    return await desk.engine.store.read(look)


def _events_after(tx: Transaction, job: Job, after: int, limit: int, *, details: bool) -> list[Event]:
    named = _told(details)
    return tx.find(Event, job_id=job.id, order="sequence", after=min(after, HIGHEST_SEQUENCE), limit=limit, **named)


def _events_before(tx: Transaction, job: Job, request: jobs_pb2.ListJobEventsRequest, limit: int) -> list[Event]:
    before, named = min(request.before_sequence, HIGHEST_SEQUENCE), _told(request.details)
    newest = tx.find(Event, job_id=job.id, order="sequence", descending=True, after=before, limit=limit, **named)
    return newest[::-1]


def _told(details: bool) -> dict[str, bool]:
    """What of a job's events is asked for: all of them, or all but details."""
    return {} if details else {"detail": False}


async def watch_job(
    request: jobs_pb2.WatchJobRequest, caller: Caller, desk: JobsDesk
) -> AsyncGenerator[jobs_pb2.WatchJobResponse, None]:
    """Every event after the given one, with the job as it is, until the job is final and all was said, or until the
    coordinator stops: who watches then looks for it again."""
    with _watching(caller, desk):
        after = min(request.after_sequence, HIGHEST_SEQUENCE)
        while True:
            committed = desk.engine.committed
            response = await _look_at(request, after, caller, desk)
            if response.events:
                after = response.events[-1].sequence
            yield response
            if response.final:
                return
            # others' commits wake every watcher: many watchers of a busy coordinator must not read without a pause
            await asyncio.sleep(WATCH_PAUSE_S)
            try:
                async with asyncio.timeout(WATCH_EVERY_S):
                    await committed.wait()
            except TimeoutError:
                pass
            if desk.engine.links.are_closed:
                return


@contextlib.contextmanager
def _watching(caller: Caller, desk: JobsDesk) -> Generator[None, None, None]:
    """Counts a party's streams. Raises LimitExceeded "job.too_many_watches"."""
    if desk.watching[caller.party_id] >= MOST_WATCHES:
        raise LimitExceeded(
            "job.too_many_watches",
            f"You follow {MOST_WATCHES} jobs already.",
            next_step="End one of the other `shardwork job watch` commands.",
        )
    desk.watching[caller.party_id] += 1
    try:
        yield
    finally:
        desk.watching[caller.party_id] -= 1
        if not desk.watching[caller.party_id]:
            del desk.watching[caller.party_id]


async def _look_at(
    request: jobs_pb2.WatchJobRequest, after: int, caller: Caller, desk: JobsDesk
) -> jobs_pb2.WatchJobResponse:
    workers, now_ms = desk.engine.links.attached(), desk.engine.clock.now_ms()
    names = {link.worker_id: link.name for link in desk.engine.links.everywhere()}

    def look(tx: Transaction) -> jobs_pb2.WatchJobResponse:
        job = steering.own_job(tx, request.job_id, caller)
        events = _events_after(tx, job, after, MOST_EVENTS, details=request.details)
        return jobs_pb2.WatchJobResponse(
            events=[views.event_view(event) for event in events],
            job=views.job_view(tx, job, workers),
            running=views.running_shards(tx, job, now_ms, names),
            final=job.state in FINAL and len(events) < MOST_EVENTS,
        )

    return await desk.engine.store.read(look)


class JobsServicer(jobs_pb2_grpc.JobsServiceServicer):
    def __init__(self, gate: Gate, desk: JobsDesk) -> None:
        self._gate, self._desk = gate, desk

    async def QuoteJob(self, request: jobs_pb2.QuoteJobRequest, context: Context) -> jobs_pb2.QuoteJobResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await quote_job(request, caller, self._desk)

    async def SubmitJob(self, request: jobs_pb2.SubmitJobRequest, context: Context) -> jobs_pb2.SubmitJobResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await submit_job(request, caller, self._desk)

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, context: Context) -> jobs_pb2.ListJobsResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await list_jobs(request, caller, self._desk)

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Context) -> jobs_pb2.GetJobResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await get_job(request, caller, self._desk)

    async def GetJobReport(
        self, request: jobs_pb2.GetJobReportRequest, context: Context
    ) -> jobs_pb2.GetJobReportResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await get_job_report(request, caller, self._desk)

    async def ListJobEvents(
        self, request: jobs_pb2.ListJobEventsRequest, context: Context
    ) -> jobs_pb2.ListJobEventsResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await list_job_events(request, caller, self._desk)

    async def PauseJob(self, request: jobs_pb2.PauseJobRequest, context: Context) -> jobs_pb2.PauseJobResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await steering.pause_job(request, caller, self._desk.engine)

    async def ResumeJob(self, request: jobs_pb2.ResumeJobRequest, context: Context) -> jobs_pb2.ResumeJobResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await steering.resume_job(request, caller, self._desk.engine)

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Context) -> jobs_pb2.CancelJobResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await steering.cancel_job(request, caller, self._desk.engine)

    async def TopUpJob(self, request: jobs_pb2.TopUpJobRequest, context: Context) -> jobs_pb2.TopUpJobResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await steering.top_up_job(request, caller, self._desk.engine)

    async def PreviewJobControl(
        self, request: jobs_pb2.PreviewJobControlRequest, context: Context
    ) -> jobs_pb2.PreviewJobControlResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await steering.preview_job_control(request, caller, self._desk.engine)

    async def GetPeopleProgress(
        self, request: jobs_pb2.GetPeopleProgressRequest, context: Context
    ) -> jobs_pb2.GetPeopleProgressResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await asked.get_people_progress(request, caller, self._desk.engine, self._desk.items)

    async def ClosePeople(self, request: jobs_pb2.ClosePeopleRequest, context: Context) -> jobs_pb2.ClosePeopleResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            return await asked.close_people(request, caller, self._desk.engine)

    async def WatchJob(
        self, request: jobs_pb2.WatchJobRequest, context: Context
    ) -> AsyncGenerator[jobs_pb2.WatchJobResponse, None]:
        async with self._gate.admit(context, *OWNERS) as caller:
            async for response in watch_job(request, caller, self._desk):
                yield response
