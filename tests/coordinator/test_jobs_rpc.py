"""What is asked of a job before it exists, and what its owner finds; the calls are attacked in tests/contract."""

from __future__ import annotations

import asyncio
import json

import pytest

from shardwork.errors import Conflict, InvalidInput, NotFound
from shardwork.identity.role import Role
from shardwork.jobs.spec import JobSpec
from shardwork.v1 import jobs_pb2
from shardwork_coordinator import views
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.rpc.jobs import (
    JobsDesk,
    get_job,
    get_job_report,
    list_job_events,
    list_jobs,
    quote_job,
    watch_job,
)
from shardwork_coordinator.rpc.proposal import parse_facts, parse_spec
from shardwork_coordinator.rpc.steering import cancel_job, pause_job, resume_job

from .simulation import OWNER, count_job, sft_job
from .unruly import Unruly

ME = Caller(OWNER, bytes(32), Role.REQUESTER)
OTHER = Caller("other00000000000", bytes(32), Role.REQUESTER)
OPERATOR = Caller("operator00000000", bytes(32), Role.OPERATOR)
JOBS = ("job000000001", "job000000002", "joc000000003")


async def desk_of(simulation: Unruly) -> JobsDesk:
    """Three jobs, a second apart."""
    for job_id in JOBS:
        await simulation.submit(count_job(parts=1), job_id=job_id)
        simulation.clock.advance(1)
    return JobsDesk(engine=simulation.engine, rates=simulation.rates)


async def test_jobs_are_listed_newest_first_page_by_page_and_to_their_owner_only() -> None:
    desk = await desk_of(Unruly())
    pages: list[list[str]] = []
    token = ""
    while True:
        page = await list_jobs(jobs_pb2.ListJobsRequest(page_size=2, page_token=token), ME, desk)
        pages.append([job.id for job in page.jobs])
        token = page.next_page_token
        if not token:
            break
    assert pages == [[JOBS[2], JOBS[1]], [JOBS[0]]]
    assert list((await list_jobs(jobs_pb2.ListJobsRequest(), OTHER, desk)).jobs) == []
    assert len((await list_jobs(jobs_pb2.ListJobsRequest(), OPERATOR, desk)).jobs) == 3


async def test_jobs_of_one_millisecond_are_all_listed_once() -> None:
    simulation = Unruly()
    for number in range(7):
        await simulation.submit(count_job(parts=1), job_id=f"job{number:09d}")
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    seen: list[str] = []
    token = ""
    for _ in range(4):
        page = await list_jobs(jobs_pb2.ListJobsRequest(page_size=2, page_token=token), ME, desk)
        seen += [job.id for job in page.jobs]
        token = page.next_page_token
    assert token == "" and seen == [f"job{number:09d}" for number in reversed(range(7))]


async def test_a_report_lists_the_latest_payments_and_counts_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Unruly()
    job_id = await simulation.submit(count_job(parts=5))
    await simulation.run_to_end()
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    whole = await get_job_report(jobs_pb2.GetJobReportRequest(job_id=job_id), ME, desk)
    assert (len(whole.payments), whole.payments_left_out) == (5, 0)
    monkeypatch.setattr(views, "MOST_PAYMENTS", 2)
    cut = await get_job_report(jobs_pb2.GetJobReportRequest(job_id=job_id), ME, desk)
    assert (list(cut.payments), cut.payments_left_out) == (list(whole.payments[-2:]), 3)
    assert cut.workers == whole.workers


@pytest.mark.parametrize("token", ["x", "-1", "1.5", "²", "9" * 19, "5", "5-", "-job"])
async def test_a_page_token_that_no_answer_named_is_refused(token: str) -> None:
    simulation = Unruly()
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    with pytest.raises(InvalidInput, match="page token"):
        await list_jobs(jobs_pb2.ListJobsRequest(page_token=token), ME, desk)


async def test_a_job_is_found_by_a_prefix_that_names_one_only() -> None:
    desk = await desk_of(Unruly())
    assert (await get_job(jobs_pb2.GetJobRequest(job_id="joc"), ME, desk)).job.id == JOBS[2]
    with pytest.raises(InvalidInput, match="Several"):
        await get_job(jobs_pb2.GetJobRequest(job_id="job"), ME, desk)
    for named, caller in (("", ME), ("joc", OTHER), (JOBS[0], OTHER), ("nope", OPERATOR)):
        with pytest.raises(NotFound):
            await get_job(jobs_pb2.GetJobRequest(job_id=named), caller, desk)


async def test_control_is_the_owners_and_ends_with_the_job() -> None:
    simulation = Unruly()
    desk = await desk_of(simulation)
    paused = await pause_job(jobs_pb2.PauseJobRequest(job_id=JOBS[0]), ME, desk.engine)
    assert (paused.job.state, paused.job.why.code) == ("paused", "job.paused_by_requester")
    assert (await resume_job(jobs_pb2.ResumeJobRequest(job_id=JOBS[0]), ME, desk.engine)).job.state == "running"
    with pytest.raises(NotFound):
        await cancel_job(jobs_pb2.CancelJobRequest(job_id=JOBS[0]), OTHER, desk.engine)
    cancelled = (await cancel_job(jobs_pb2.CancelJobRequest(job_id=JOBS[0]), ME, desk.engine)).job
    assert (cancelled.state, cancelled.spent_msat, cancelled.refunded_msat) == ("cancelled", 0, cancelled.budget_msat)
    assert (await cancel_job(jobs_pb2.CancelJobRequest(job_id=JOBS[0]), ME, desk.engine)).job == cancelled
    for again in (
        pause_job(jobs_pb2.PauseJobRequest(job_id=JOBS[0]), ME, desk.engine),
        resume_job(jobs_pb2.ResumeJobRequest(job_id=JOBS[0]), OPERATOR, desk.engine),
    ):
        with pytest.raises(Conflict, match="already"):
            await again


async def test_a_report_adds_up_and_events_go_on_where_they_were_left() -> None:
    simulation = Unruly()
    await simulation.submit(sft_job(rounds=1))
    job = await simulation.run_to_end()
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    report = await get_job_report(jobs_pb2.GetJobReportRequest(job_id=job.id), ME, desk)
    assert sum(one.msat for one in report.payments) == sum(one.paid_msat for one in report.workers) > 0
    assert report.job.budget_msat == report.job.spent_msat + report.job.refunded_msat
    everything = (await list_job_events(jobs_pb2.ListJobEventsRequest(job_id=job.id), ME, desk)).events
    first = (await list_job_events(jobs_pb2.ListJobEventsRequest(job_id=job.id, limit=3), ME, desk)).events
    rest = jobs_pb2.ListJobEventsRequest(job_id=job.id, after_sequence=first[-1].sequence)
    assert [*first, *(await list_job_events(rest, ME, desk)).events] == list(everything)


async def test_a_watch_of_a_finished_job_says_everything_and_ends() -> None:
    simulation = Unruly()
    await simulation.submit(count_job(parts=1))
    job = await simulation.run_to_end()
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    seen = [one async for one in watch_job(jobs_pb2.WatchJobRequest(job_id=job.id), ME, desk)]
    assert [one.final for one in seen] == [True]
    assert seen[0].events[-1].kind == "job.succeeded"
    assert desk.watching == {}


async def test_a_watch_ends_at_once_when_the_coordinator_stops() -> None:
    simulation = Unruly(workers=0)
    job = await simulation.submit(count_job(parts=1))
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    watching = watch_job(jobs_pb2.WatchJobRequest(job_id=job), ME, desk)
    assert not (await anext(watching)).final
    simulation.engine.close()
    async with asyncio.timeout(30):
        assert [one.final async for one in watching] == []
    assert desk.watching == {}


async def test_a_quote_is_free_and_warns_when_nobody_is_there() -> None:
    simulation = Unruly(workers=0)
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    request = jobs_pb2.QuoteJobRequest(
        spec_json=sft_job().canonical_json(),
        facts=[jobs_pb2.StageFacts(stage="tune", run_params=10**6, trained_params=10**4)],
    )
    quote = (await quote_job(request, ME, desk)).quote
    assert 0 < quote.estimate_low_msat <= quote.reserve_msat
    assert 1 <= quote.seconds_low <= quote.seconds_high
    assert [why.code for why in quote.warnings] == ["plan.no_workers"]


async def test_a_shard_that_learns_nothing_sends_no_update() -> None:
    """Of a judge only the base travels, and of people not even that."""
    simulation = Unruly(workers=0)
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    plan = {"rounds": 1, "shards_per_round": 2, "inner_steps": 2}
    spec = {"name": "a", "trust": {"class": "public"}, "budget": {"max_sats": 500}}
    sizes: dict[str, tuple[int, int]] = {}
    for kind in ("judge", "dpo"):
        stage = {"name": "one", "recipe": kind, "base_model": "models/m", "data": "a.jsonl", "plan": plan, "params": {}}
        told = jobs_pb2.StageFacts(stage="one", rows=64, tokens=999, run_params=10**6, trained_params=10**6)
        text = JobSpec.model_validate({**spec, "stages": [stage]}).canonical_json()
        quote = (await quote_job(jobs_pb2.QuoteJobRequest(spec_json=text, facts=[told]), ME, desk)).quote
        sizes[kind] = quote.upload_bytes_per_shard, quote.download_bytes_per_shard
    assert sizes == {"judge": (0, 4 * 10**6), "dpo": (3 * 10**6, 7 * 10**6)}


def test_facts_are_read_as_sent_and_bounded() -> None:
    sent = jobs_pb2.StageFacts(stage="a", rows=1, tokens=2, run_params=3, trained_params=4, input_bytes=5)
    found = parse_facts([sent])["a"]
    assert (found.rows, found.tokens, found.run_params, found.trained_params, found.input_bytes) == (1, 2, 3, 4, 5)
    sent.tokens = 10**13 + 1
    with pytest.raises(InvalidInput, match="that much"):
        parse_facts([sent])


def test_a_wrong_key_is_named() -> None:
    spec = json.loads(sft_job().canonical_json())
    spec["stages"][0]["plan"]["rounds"] = 0
    with pytest.raises(InvalidInput) as refused:
        parse_spec(json.dumps(spec))
    assert refused.value.why.evidence["key"] == "stages.0.plan.rounds"


async def test_a_job_that_waits_says_who_is_paused_and_what_failed_last() -> None:
    simulation = Unruly(workers=1)
    job_id = await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    await simulation.lose(held)
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    link = simulation.links.get(held.worker_id)
    assert link is not None
    link.accepting = False
    why = (await get_job(jobs_pb2.GetJobRequest(job_id=job_id), ME, desk)).job.why
    assert (why.code, why.evidence["last_failure"]) == ("shard.workers_paused", "it fell silent.")
    link.accepting = True
    await simulation.granting.grant()
    why = (await get_job(jobs_pb2.GetJobRequest(job_id=job_id), ME, desk)).job.why
    assert (why.code, why.evidence["last_failure"]) == ("job.running", "it fell silent.")
