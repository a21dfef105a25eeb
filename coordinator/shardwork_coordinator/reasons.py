"""Reasons: everything that can be said of why a job, or an idle worker, is where it is, beside the one main reason.

Words from rows; decides nothing. Each has a code, a sentence, evidence and a next step. Called by the jobs RPC (`job
why`) and by the sweeper, which tells idle workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from shardwork.money import show
from shardwork.why import Why

from .machine.attempts import called
from .machine.states import FINAL_JOB
from .money.pricing import BASIS_POINTS, RateCard
from .queueing.line import running_on_workers
from .records import Job, JobState, Lease, ReplicaState, Shard
from .scheduler import ReadyReplica, Worker, refusal
from .store.base import Transaction

#: failed attempts that are told
MOST_RETRIES = 5

NO_WORK = Why(
    code="worker.no_work",
    sentence="No job has a shard that waits for a worker.",
    next_step="Nothing to do: the next shard is offered as soon as there is one.",
)


def reasons_of(tx: Transaction, job: Job, *, most_running: int = 0) -> list[Why]:
    """The job's place beside others, what was tried again, its price and its time-out. `most_running`: shards that
    one requester may run at the same time; 0: any number."""
    found = [price_of(job)]
    if job.self_evaluated:
        found.append(
            Why(
                code="job.self_evaluated",
                sentence="No second key was there to confirm set-up, evaluation or publishing: one key's word counts.",
                next_step="Ask the operator for a reference worker, or run the job when more workers are attached.",
            )
        )
    if job.deadline_ms and job.state not in FINAL_JOB:
        at = datetime.fromtimestamp(job.deadline_ms / 1000, UTC)
        found.append(
            Why(
                code="job.has_deadline",
                sentence=f"Its time-out ends the job at {at:%Y-%m-%d %H:%M} UTC, also while it is paused.",
                evidence={"deadline_unix_ms": str(job.deadline_ms)},
                next_step="What is valid by then is paid, the rest refunded, the best checkpoint kept.",
            )
        )
    if job.state is JobState.RUNNING:
        found += _place_in_line(tx, job, most_running)
    found += _tried_again(tx, job)
    return found


def price_of(job: Job) -> Why:
    """Where the prices of its shards come from."""
    rates = RateCard.from_json(job.rates_json)
    percent = f"{rates.fee_basis_points * 100 / BASIS_POINTS:g} %"
    return Why(
        code="price.rate_card",
        sentence=f"A shard pays {rates.msat_per_tera_unit:,} msat for 10^12 work units (tokens x parameters), at least "
        f"{rates.minimum_msat:,} msat, and {percent} on top for the house; the job never costs more than "
        f"{show(job.budget_msat)}.",
        evidence={
            "msat_per_tera_unit": str(rates.msat_per_tera_unit),
            "minimum_msat": str(rates.minimum_msat),
            "fee_basis_points": str(rates.fee_basis_points),
            "budget_msat": str(job.budget_msat),
        },
        next_step="The rates were fixed when the job was submitted; `shardwork job report` lists every payment.",
    )


def _place_in_line(tx: Transaction, job: Job, most_running: int) -> Iterator[Why]:
    running = running_on_workers(tx)
    mine = tx.count(Job, "id", owner=job.owner, state=JobState.RUNNING)
    requesters = tx.count(Job, "owner", state=JobState.RUNNING)
    theirs, everybody = sum(running[one] for one in mine), running.total()
    if most_running and theirs >= most_running:
        yield Why(
            code="line.quota",
            sentence=f"Its requester runs {theirs} shards, and this coordinator lets one requester run {most_running}.",
            evidence={"running": str(theirs), "max_running_shards": str(most_running)},
            next_step="Nothing to do: the next shard is given out when one of them ends.",
        )
    yield Why(
        code="line.fair_share",
        sentence=f"Workers are shared equally between {_parties(len(requesters))} with running jobs, whatever their "
        f"number of jobs; this requester's run {theirs} of the {everybody} shards that run now.",
        evidence={"this_job": str(running[job.id]), "jobs_of_the_requester": str(len(mine))},
        next_step="`schedule: {priority: high}` in a job file puts it before the requester's other jobs.",
    )


def _parties(number: int) -> str:
    return f"{number} requester{'' if number == 1 else 's'}"


def _tried_again(tx: Transaction, job: Job) -> Iterator[Why]:
    """Attempts that came to nothing, newest first."""
    failed = [str(ReplicaState.EXPIRED), str(ReplicaState.REJECTED)]
    for lease in tx.find(Lease, job_id=job.id, state=failed, order="ended_ms", descending=True, limit=MOST_RETRIES):
        shard = tx.get(Shard, lease.shard_id)
        if shard is None or not lease.why_json:
            continue
        why = Why.from_json(lease.why_json)
        refused = lease.state is ReplicaState.REJECTED
        yield Why(
            code="shard.refused" if refused else "shard.tried_again",
            sentence=f"{called(shard)} "
            + ("had a result refused: " if refused else "was taken back from its worker: ")
            + why.sentence,
            evidence={
                "reason": why.code,
                "worker": lease.worker_id,
                "state_now": str(shard.state),
                "attempts_left": str(shard.attempts_left),
                **dict(list(why.evidence.items())[:3]),
            },
            next_step=why.next_step or "It is offered to another worker first; nothing was paid for the attempt.",
        )


def why_idle(worker: Worker, waiting: Sequence[ReadyReplica]) -> Why:
    """Why an attached worker is given nothing, of the oldest shards that wait. Pure."""
    if worker.restricted:
        return worker.restricted
    if worker.rests:
        return Why(
            code="worker.rests",
            sentence=f"The coordinator gives this worker nothing for a while: it {worker.rests}.",
            next_step="Its log says why its shards failed; it is tried again after the rest.",
        )
    if not waiting:
        return NO_WORK
    refusals = [refusal(one, worker) for one in waiting]
    told = next((one for one in refusals if one), None)
    if told is None or not all(refusals):
        return Why(
            code="worker.next_in_line",
            sentence="A shard that it could take waits, and is about to be offered or kept for a better placed worker.",
            next_step="Nothing to do.",
        )
    return Why(
        code="worker.nothing_fits",
        sentence=f"Shards wait, but none for this worker: it {told}.",
        evidence={"waiting": f"{len(waiting)} looked at"},
        next_step="Lower the worker's minimum price, give it more memory, or wait for other jobs.",
    )
