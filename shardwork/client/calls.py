"""The coordinator as async functions: thin calls over `shardwork.session.Session`, one per RPC a requester uses.

Owns paging and the reconnecting watch; speaks in wire messages. Used by the rest of this package.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from ..errors import InvalidInput, NotAuthenticated, ShardworkError, Unreachable
from ..session import Session
from ..v1 import jobs_pb2, storage_pb2, wallet_pb2
from ..wire import error_from_rpc

EVENTS_PER_PAGE = 500
#: lines of a log that one may ask back for
MOST_LINES = 10_000
#: behind every event there will ever be
_END = 2**63 - 1
#: how long a watch keeps trying to reach a coordinator that went away
WATCH_GIVE_UP_S = 600.0
WATCH_FIRST_PAUSE_S = 0.25
WATCH_LONGEST_PAUSE_S = 10.0


async def quote(session: Session, request: jobs_pb2.QuoteJobRequest) -> jobs_pb2.Quote:
    answer = await session.call(session.jobs.QuoteJob, request)
    return answer.quote


async def submit(session: Session, request: jobs_pb2.SubmitJobRequest) -> jobs_pb2.SubmitJobResponse:
    """Idempotent by `submission_id`, so the session's retries never pay twice."""
    return await session.call(session.jobs.SubmitJob, request, timeout_s=120.0)


async def jobs(session: Session, *, limit: int, states: Iterable[str] = ()) -> list[jobs_pb2.JobView]:
    """The newest `limit` jobs, of these states alone where some are named; paged behind the scenes."""
    wanted = list(states)
    found: list[jobs_pb2.JobView] = []
    token = ""
    while len(found) < limit:
        request = jobs_pb2.ListJobsRequest(page_size=min(limit - len(found), 200), page_token=token, states=wanted)
        page = await session.call(session.jobs.ListJobs, request)
        found.extend(page.jobs)
        token = page.next_page_token
        if not token:
            break
    return found[:limit]


async def people_progress(session: Session, job_id: str, stage: str = "") -> dict[str, Any]:
    """{"id", "stages": [{"stage", "state", "figures"}]}, figures None before items are counted."""
    request = jobs_pb2.GetPeopleProgressRequest(job_id=job_id, stage=stage)
    found = await session.call(session.jobs.GetPeopleProgress, request)
    stages = [(one, json.loads(one.figures_json or "null")) for one in found.stages]
    told = [{"stage": one.stage, "state": one.state, "figures": figures} for one, figures in stages]
    return {"id": found.job_id, "stages": told}


async def job(session: Session, job_id: str) -> jobs_pb2.JobView:
    """One job by id or unambiguous prefix."""
    answer = await session.call(session.jobs.GetJob, jobs_pb2.GetJobRequest(job_id=job_id))
    return answer.job


async def report(session: Session, job_id: str) -> jobs_pb2.GetJobReportResponse:
    return await session.call(session.jobs.GetJobReport, jobs_pb2.GetJobReportRequest(job_id=job_id))


async def log(session: Session, job_id: str, last: int, *, details: bool = True) -> list[jobs_pb2.JobEvent]:
    """The last `last` lines of a job's log, or of its events without `details`; oldest first, paged from the end.

    Raises InvalidInput "logs.bad_count".
    """
    if not 0 <= last <= MOST_LINES:
        raise InvalidInput(
            "logs.bad_count",
            f"A log can be asked for its last 0 to {MOST_LINES:,} lines, not {last:,}.",
            next_step="Ask for fewer, or read everything with: shardwork job events ID",
            last=last,
        )
    found: list[jobs_pb2.JobEvent] = []
    before = _END
    while len(found) < last:
        limit = min(last - len(found), EVENTS_PER_PAGE)
        request = jobs_pb2.ListJobEventsRequest(job_id=job_id, before_sequence=before, limit=limit, details=details)
        answer = await session.call(session.jobs.ListJobEvents, request)
        # a coordinator of an earlier version pages onwards only, and would give the first page again and again
        page = [event for event in answer.events if event.sequence < before]
        if not page:
            break
        before = page[0].sequence
        found = [event for event in page if not (details and is_said_already(event))] + found
    return found


def is_said_already(event: jobs_pb2.JobEvent) -> bool:
    """Whether the log has another line that says so: a shard of one key is done when its result is accepted. Older
    coordinators have no such line, and name no lease here."""
    return event.kind == "shard.done" and event.evidence.get("copies") == "1" and "lease" in event.evidence


async def events(session: Session, job_id: str, *, after_sequence: int = 0) -> AsyncIterator[jobs_pb2.JobEvent]:
    """Every event so far after `after_sequence`, oldest first."""
    while True:
        request = jobs_pb2.ListJobEventsRequest(job_id=job_id, after_sequence=after_sequence, limit=EVENTS_PER_PAGE)
        page = await session.call(session.jobs.ListJobEvents, request)
        for event in page.events:
            after_sequence = event.sequence
            yield event
        if not page.events:
            return


async def pause(session: Session, job_id: str) -> jobs_pb2.JobView:
    return (await session.call(session.jobs.PauseJob, jobs_pb2.PauseJobRequest(job_id=job_id))).job


async def resume(session: Session, job_id: str) -> jobs_pb2.JobView:
    return (await session.call(session.jobs.ResumeJob, jobs_pb2.ResumeJobRequest(job_id=job_id))).job


async def cancel(session: Session, job_id: str) -> jobs_pb2.JobView:
    return (await session.call(session.jobs.CancelJob, jobs_pb2.CancelJobRequest(job_id=job_id))).job


async def top_up(session: Session, job_id: str, msat: int, *, idempotency_key: str) -> jobs_pb2.JobView:
    request = jobs_pb2.TopUpJobRequest(job_id=job_id, msat=msat, idempotency_key=idempotency_key)
    return (await session.call(session.jobs.TopUpJob, request)).job


async def close_people(session: Session, job_id: str, stage: str) -> jobs_pb2.JobView:
    """`stage` empty: the one that asks people now."""
    request = jobs_pb2.ClosePeopleRequest(job_id=job_id, stage=stage)
    return (await session.call(session.jobs.ClosePeople, request)).job


async def cost_of(session: Session, job_id: str, action: str, msat: int) -> jobs_pb2.PreviewJobControlResponse:
    """What an action would cost now."""
    request = jobs_pb2.PreviewJobControlRequest(job_id=job_id, action=action, msat=msat)
    return await session.call(session.jobs.PreviewJobControl, request)


async def reasons(session: Session, job_id: str) -> jobs_pb2.GetJobResponse:
    """A job with everything that can be said of why it is where it is."""
    return await session.call(session.jobs.GetJob, jobs_pb2.GetJobRequest(job_id=job_id))


async def create_deposit(session: Session, msat: int, *, idempotency_key: str) -> wallet_pb2.Deposit:
    request = wallet_pb2.CreateDepositRequest(msat=msat, idempotency_key=idempotency_key)
    return (await session.call(session.wallet.CreateDeposit, request)).deposit


async def deposit(session: Session, deposit_id: str) -> wallet_pb2.Deposit:
    return (await session.call(session.wallet.GetDeposit, wallet_pb2.GetDepositRequest(id=deposit_id))).deposit


async def create_withdrawal(
    session: Session, msat: int, address: str, *, idempotency_key: str
) -> wallet_pb2.Withdrawal:
    request = wallet_pb2.CreateWithdrawalRequest(msat=msat, address=address, idempotency_key=idempotency_key)
    return (await session.call(session.wallet.CreateWithdrawal, request)).withdrawal


async def withdrawal(session: Session, withdrawal_id: str) -> wallet_pb2.Withdrawal:
    request = wallet_pb2.GetWithdrawalRequest(id=withdrawal_id)
    return (await session.call(session.wallet.GetWithdrawal, request)).withdrawal


async def cancel_withdrawal(session: Session, withdrawal_id: str) -> wallet_pb2.Withdrawal:
    request = wallet_pb2.CancelWithdrawalRequest(id=withdrawal_id)
    return (await session.call(session.wallet.CancelWithdrawal, request)).withdrawal


async def balance(session: Session) -> wallet_pb2.GetBalanceResponse:
    return await session.call(session.wallet.GetBalance, wallet_pb2.GetBalanceRequest())


async def transfers(session: Session, *, limit: int) -> list[wallet_pb2.TransferView]:
    """The newest `limit` transfers of the caller's account, newest first."""
    found: list[wallet_pb2.TransferView] = []
    before = 0
    while len(found) < limit:
        request = wallet_pb2.ListTransfersRequest(limit=min(limit - len(found), 200), before_sequence=before)
        page = await session.call(session.wallet.ListTransfers, request)
        if not page.transfers:
            break
        found.extend(page.transfers)
        before = page.transfers[-1].sequence
    return found[:limit]


async def watch(
    session: Session,
    job_id: str,
    *,
    after_sequence: int = 0,
    details: bool = False,
    on_lost: Callable[[ShardworkError, int], None],
) -> AsyncGenerator[jobs_pb2.WatchJobResponse, None]:
    """Every change until the job is final, across coordinator restarts; no event comes twice.

    `details`: what the job's log tells, too. `on_lost` hears of each failed attempt and its number since the last
    answer. Raises Unreachable after WATCH_GIVE_UP_S without an answer.
    """
    loop = asyncio.get_running_loop()
    last_answer_s, attempt, refused = loop.time(), 0, False
    while True:
        try:
            request = jobs_pb2.WatchJobRequest(job_id=job_id, after_sequence=after_sequence, details=details)
            async with aclosing(_watch_once(session, request)) as answers:
                async for answer in answers:
                    fresh = [event for event in answer.events if event.sequence > after_sequence]
                    after_sequence = max([after_sequence, *(event.sequence for event in fresh)])
                    del answer.events[:]
                    answer.events.extend(fresh)
                    last_answer_s, attempt, refused = loop.time(), 0, False
                    yield answer
                    if answer.final:
                        return
            lost: ShardworkError = Unreachable("watch.ended", "The coordinator ended the stream.")
        except grpc.aio.AioRpcError as error:
            lost = error_from_rpc(error, session.join.address)
        except Unreachable as error:
            lost = error
        if isinstance(lost, NotAuthenticated) and not refused:
            # a restarted coordinator may not know our token any more
            refused = True
            await session.renew()
            continue
        if not isinstance(lost, Unreachable) or loop.time() - last_answer_s > WATCH_GIVE_UP_S:
            raise lost
        attempt += 1
        on_lost(lost, attempt)
        if await session.move():
            continue
        pause_s = min(WATCH_FIRST_PAUSE_S * 2 ** (attempt - 1), WATCH_LONGEST_PAUSE_S)
        await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))


async def _watch_once(
    session: Session, request: jobs_pb2.WatchJobRequest
) -> AsyncGenerator[jobs_pb2.WatchJobResponse, None]:
    call = session.jobs.WatchJob(request, metadata=await session.metadata())
    try:
        async for answer in call:
            yield answer
    finally:
        call.cancel()


async def stored(session: Session) -> list[storage_pb2.ArtifactView]:
    """Everything that the coordinator keeps for the caller, by id."""
    found: list[storage_pb2.ArtifactView] = []
    token = ""
    while True:
        request = storage_pb2.ListArtifactsRequest(page_token=token)
        answer = await session.call(session.storage.ListArtifacts, request)
        found += answer.artifacts
        token = answer.next_page_token
        if not token:
            return found


async def delete_artifact(session: Session, artifact_id: str) -> storage_pb2.DeleteArtifactResponse:
    request = storage_pb2.DeleteArtifactRequest(artifact_id=artifact_id)
    return await session.call(session.storage.DeleteArtifact, request)
