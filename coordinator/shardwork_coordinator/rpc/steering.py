"""What a job's owner does to it: pause, resume, cancel, top up; and what each would cost, before it happens.

Functions of (request, caller, engine), called by the servicer in `jobs`; what a step means is `machine`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shardwork import wire
from shardwork.errors import Conflict, InvalidInput, NotEnoughFunds, NotFound
from shardwork.identity.role import Role
from shardwork.money import show
from shardwork.v1 import jobs_pb2
from shardwork.why import Why

from .. import views
from ..engine import Engine, advance, slice_of_job
from ..events import JobCancelled, JobPaused, JobResumed, MachineEvent, Push, ToppedUp
from ..machine.states import FINAL_JOB, LIVE
from ..money import ledger
from ..money.movements import user_account
from ..records import Job, JobState, Replica, ReplicaState, Shard, Transfer
from ..store.base import Transaction
from .auth import Caller

ACTIONS = ("pause", "resume", "cancel", "topup")
MOST_TOP_UP_MSAT = 21_000_000 * 10**8 * 1_000
SHORTEST_KEY, LONGEST_KEY = 8, 64


def own_job(tx: Transaction, named: str, caller: Caller) -> Job:
    """The caller's job of this id or unambiguous prefix; another's is as unknown as none."""
    everything = caller.role is Role.OPERATOR
    exact = tx.get(Job, named)
    if exact is not None and (everything or exact.owner == caller.party_id):
        return exact
    known = tx.find(Job) if everything else tx.find(Job, owner=caller.party_id)
    mine = [job for job in known if named and job.id.startswith(named)]
    if not mine:
        raise NotFound(
            "job.not_found", f"You have no job {named!r}.", next_step="`shardwork job list` shows your jobs.", job=named
        )
    if len(mine) > 1:
        raise InvalidInput(
            "job.ambiguous",
            f"Several of your jobs start with {named!r}.",
            next_step="Give more of the id.",
            jobs=", ".join(job.id for job in mine[:5]),
        )
    return mine[0]


async def control(
    job_id: str, caller: Caller, engine: Engine, make_event: Callable[[], MachineEvent]
) -> jobs_pb2.JobView:
    """Pause, resume or cancel: only the owner or the operator, only while the job lives."""
    world, event = engine.world(), make_event()

    def work(tx: Transaction) -> list[Push]:
        job = own_job(tx, job_id, caller)
        if job.state is JobState.CANCELLED and isinstance(event, JobCancelled):
            # asked again because the first answer was lost
            return []
        check_lives(job)
        return advance(tx, slice_of_job(tx, job), event, world)

    engine.after_commit(await engine.store.write(work))
    return await view_of(job_id, caller, engine)


async def pause_job(request: jobs_pb2.PauseJobRequest, caller: Caller, engine: Engine) -> jobs_pb2.PauseJobResponse:
    why = Why(
        code="job.paused_by_requester",
        sentence="The requester paused the job; shards that run are finished and paid.",
        next_step="Resume it with `shardwork job resume`.",
    )
    return jobs_pb2.PauseJobResponse(job=await control(request.job_id, caller, engine, lambda: JobPaused(why=why)))


async def resume_job(request: jobs_pb2.ResumeJobRequest, caller: Caller, engine: Engine) -> jobs_pb2.ResumeJobResponse:
    return jobs_pb2.ResumeJobResponse(job=await control(request.job_id, caller, engine, JobResumed))


async def cancel_job(request: jobs_pb2.CancelJobRequest, caller: Caller, engine: Engine) -> jobs_pb2.CancelJobResponse:
    return jobs_pb2.CancelJobResponse(job=await control(request.job_id, caller, engine, JobCancelled))


async def top_up_job(request: jobs_pb2.TopUpJobRequest, caller: Caller, engine: Engine) -> jobs_pb2.TopUpJobResponse:
    """Moves sats from the owner's balance into the job's escrow; the same key again changes nothing."""
    key, msat, world = request.idempotency_key, request.msat, engine.world()
    if not (SHORTEST_KEY <= len(key) <= LONGEST_KEY and key.isprintable()):
        raise InvalidInput("job.bad_key", f"An idempotency key has {SHORTEST_KEY} to {LONGEST_KEY} printable letters.")
    _check_amount(msat)

    def work(tx: Transaction) -> list[Push]:
        job = own_job(tx, request.job_id, caller)
        transfer = f"top-up/{job.id}/{key}"
        known = tx.get(Transfer, transfer)
        if known is not None:
            if known.msat != msat:
                raise Conflict(
                    "job.key_reused", "This idempotency key belongs to a top-up of another amount.", msat=known.msat
                )
            return []
        check_lives(job)
        _check_balance(tx, job, msat)
        return advance(tx, slice_of_job(tx, job), ToppedUp(msat=msat, transfer=transfer), world)

    engine.after_commit(await engine.store.write(work))
    return jobs_pb2.TopUpJobResponse(job=await view_of(request.job_id, caller, engine))


async def preview_job_control(
    request: jobs_pb2.PreviewJobControlRequest, caller: Caller, engine: Engine
) -> jobs_pb2.PreviewJobControlResponse:
    """What an action would cost if it happened now. Changes nothing."""
    if request.action not in ACTIONS:
        raise InvalidInput(
            "job.unknown_action",
            f"There is no action {request.action[:40]!r}.",
            next_step=f"One of {', '.join(ACTIONS)}.",
        )
    if request.action == "topup":
        _check_amount(request.msat)

    def look(tx: Transaction) -> jobs_pb2.PreviewJobControlResponse:
        job = own_job(tx, request.job_id, caller)
        if not (request.action == "cancel" and job.state is JobState.CANCELLED):
            check_lives(job)
        if request.action == "topup":
            _check_balance(tx, job, request.msat)
        return preview(tx, job, request.action, request.msat)

    return await engine.store.read(look)


def preview(tx: Transaction, job: Job, action: str, msat: int) -> jobs_pb2.PreviewJobControlResponse:
    names = ("shard_id", "donated")
    running = tx.pick(Replica, names, job_id=job.id, state=[str(state) for state in LIVE])
    waiting = tx.pick(Replica, names, job_id=job.id, state=ReplicaState.SUBMITTED)
    running_msat, handed_in_msat = _cost(tx, running), _cost(tx, waiting)
    inside = _inside(tx, job)
    balance = ledger.available(tx, user_account(job.owner))
    refund = inside - handed_in_msat if action == "cancel" else 0
    found = jobs_pb2.PreviewJobControlResponse(
        running_shards=len(running),
        running_msat=running_msat,
        running_paid=action != "cancel",
        handed_in_msat=handed_in_msat,
        refund_msat=refund,
        stays_reserved_msat=inside - refund - (handed_in_msat if action == "cancel" else 0),
        deadline_unix_ms=job.deadline_ms,
    )
    if action == "topup":
        found.from_balance_msat = msat
        found.stays_reserved_msat += msat
    found.balance_after_msat = balance + refund - found.from_balance_msat
    found.why.CopyFrom(wire.why_to_proto(_in_words(action, job, found)))
    return found


def _in_words(action: str, job: Job, cost: jobs_pb2.PreviewJobControlResponse) -> Why:
    one = cost.running_shards == 1
    shards, are = f"{cost.running_shards} {'shard that runs' if one else 'shards that run'}", "is" if one else "are"
    evidence = {"running_shards": str(cost.running_shards), "running_msat": str(cost.running_msat)}
    late = "" if not job.deadline_ms else " Its time-out runs on."
    match action:
        case "pause":
            return Why(
                code="cost.pause",
                sentence=f"No new shard is given out. {shards} {are} finished and paid, up to "
                f"{show(cost.running_msat)}; {show(cost.stays_reserved_msat)} stay in escrow.{late}",
                evidence=evidence,
                next_step="`shardwork job resume` goes on where it stopped; `shardwork job cancel` refunds the rest.",
            )
        case "resume":
            return Why(
                code="cost.resume",
                sentence="It costs nothing more: shards are given out again, and paid from the "
                f"{show(cost.stays_reserved_msat)} in escrow.",
                evidence=evidence,
                next_step="Shards that failed on every attempt get fresh ones; mend their reason first.",
            )
        case "topup":
            return Why(
                code="cost.top_up",
                sentence=f"{show(cost.from_balance_msat)} go from your balance into the job's escrow. They pay for "
                "spare copies and further tries that its plan did not reserve; the rest comes back at its end.",
                evidence=evidence | {"balance_after_msat": str(cost.balance_after_msat)},
                next_step="The prices of its shards do not change.",
            )
        case _:
            return Why(
                code="cost.cancel",
                sentence=f"{shards} {are} stopped and not paid; results that were handed in are paid "
                f"({show(cost.handed_in_msat)}); {show(cost.refund_msat)} come back to your balance.",
                evidence=evidence | {"refund_msat": str(cost.refund_msat)},
                next_step="A cancelled job can't go on; its best checkpoint so far can be downloaded.",
            )


def _cost(tx: Transaction, replicas: Sequence[tuple[str, bool]]) -> int:
    """Pay and fees of these (shard, donated), without those whose workers give their work."""
    paid = [shard for shard, donated in replicas if not donated]
    found = tx.pick(Shard, ("id", "price_msat", "fee_msat"), id=sorted(set(paid)))
    prices = {shard: price + fee for shard, price, fee in found}
    return sum(prices[shard] for shard in paid)


def _inside(tx: Transaction, job: Job) -> int:
    """What the job still has, in escrow and reserved by its rounds; holds still count."""
    return job.budget_msat - views.spent_and_refunded(tx, job)


def _check_amount(msat: int) -> None:
    if not 0 < msat <= MOST_TOP_UP_MSAT:
        raise InvalidInput(
            "job.bad_top_up",
            "A top-up is at least 1 msat and at most all there is.",
            next_step="Add another amount.",
            msat=msat,
        )


def _check_balance(tx: Transaction, job: Job, msat: int) -> None:
    balance = ledger.available(tx, user_account(job.owner))
    if balance < msat:
        raise NotEnoughFunds(
            "ledger.insufficient",
            f"Your balance is {show(balance)}, and the top-up {show(msat)}.",
            next_step="`shardwork wallet deposit SATS`, or top up with less.",
            available_msat=balance,
        )


def check_lives(job: Job) -> None:
    if job.state in FINAL_JOB:
        raise Conflict(
            "job.final",
            f"The job has ended already: {job.state}.",
            next_step="`shardwork job report` shows what became of it; submit a new job to go on.",
            job=job.id,
        )


async def view_of(job_id: str, caller: Caller, engine: Engine) -> jobs_pb2.JobView:
    """The caller's job as it is now."""
    workers = engine.links.attached()
    return await engine.store.read(lambda tx: views.job_view(tx, own_job(tx, job_id, caller), workers))
