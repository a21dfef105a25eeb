"""Views: what people see of jobs, built from rows in one read. Used by the jobs RPC, the operator RPC and the web page.

Owns wording and sums for display; decides nothing.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from shardwork import wire
from shardwork.jobs.spec import StageSpec
from shardwork.recipes import recipe
from shardwork.recipes.base import ASK_PHASE, AUDIT_PHASE, AUDITED_PHASES, PEOPLE_PHASES, StageType
from shardwork.recipes.continuing import told
from shardwork.v1 import jobs_pb2
from shardwork.why import Why

from .granting import ready_replicas
from .machine.observing import alarms_of
from .machine.planning import effect_id
from .machine.states import LIVE
from .machine.versions import WIN_RATE
from .money import ledger
from .money.movements import FEES, escrow_account, round_account
from .money.pricing import JobQuote
from .people.progress import why_people
from .queueing.line import JobFacts
from .records import (
    Account,
    Artifact,
    ArtifactState,
    Event,
    Job,
    JobState,
    Lease,
    Outbox,
    Party,
    Replica,
    ReplicaState,
    Round,
    Shard,
    ShardState,
    Stage,
    Transfer,
    TransferKind,
)
from .scheduler import ReadyReplica, Worker, why_waiting
from .store.base import Transaction

JobView: TypeAlias = jobs_pb2.JobView
RoundView: TypeAlias = jobs_pb2.RoundView

#: how publishing names what it found learned by heart, and what was answered to the prompts of the safety set
MEMORISED, SAFETY = "memorised.", "safety."
#: payments that one report lists: an answer has at most 4 MiB
MOST_PAYMENTS = 10_000
#: phases whose shards are there for a round's tokens
COMPUTED = tuple(sorted(AUDITED_PHASES | {"learn"}))
NOTHING_TO_DO = "Nothing to do: it goes on by itself."
#: failed leases that are looked at for a shard that is still to be done
LAST_FAILURES = 8


def job_view(tx: Transaction, job: Job, workers: Sequence[Worker], *, rounds: bool = True) -> jobs_pb2.JobView:
    stages = tx.find(Stage, job_id=job.id, order="position")
    all_rounds = tx.find(Round, job_id=job.id, order="number")
    money = job_money(tx, job, all_rounds)
    view = jobs_pb2.JobView(
        id=job.id,
        name=job.name,
        state=job.state,
        why=wire.why_to_proto(job_why(tx, job, stages, workers)),
        shards=_shard_counts(tx, job, stages),
        budget_msat=job.budget_msat,
        reserved_msat=money["reserved"],
        spent_msat=money["spent"],
        refunded_msat=money["refunded"],
        self_evaluated=job.self_evaluated,
        created_unix_ms=job.created_ms,
        ended_unix_ms=job.ended_ms,
        outputs=_outputs(tx, job, stages),
        priority=json.loads(job.spec_json).get("schedule", {}).get("priority", "normal"),
        donated_msat=sum(one.donated_msat for one in all_rounds),
        topped_up_msat=job.extra_msat,
        deadline_unix_ms=job.deadline_ms,
    )
    repeat: Mapping[str, Any] = json.loads(job.spec_json).get("repeat") or {}
    loop: Sequence[str] = repeat.get("stages", ())
    for stage in stages:
        mine = [one for one in all_rounds if one.stage == stage.name]
        numbers = json.loads(stage.numbers_json)
        start = numbers.get("eval_loss_start")
        view.stages.append(
            jobs_pb2.StageView(
                name=stage.name,
                recipe=stage.recipe,
                state=stage.state,
                planned_rounds=stage.planned_rounds,
                deadline_unix_ms=stage.deadline_ms,
                rounds=[_round_view(one, start, job) for one in mine] if rounds else [],
                why=wire.why_to_proto(Why.from_json(stage.why_json)) if stage.why_json else None,
                best_round=int(numbers.get("best_round", 0)),
                alarms=[wire.why_to_proto(one) for one in alarms_of(stage)],
                continues_from=_continues(stage, numbers),
                memorised=_begun(numbers, MEMORISED),
                safety=_begun(numbers, SAFETY),
                iteration=_iteration(stage.name, loop),
                spent_msat=sum(one.paid_msat + one.fees_msat for one in mine),
                win_rate=_win_rate(numbers),
                reward_start=numbers.get("reward_start"),
                reward_best=numbers.get("best_reward"),
            )
        )
    return view


def _shard_counts(tx: Transaction, job: Job, stages: Sequence[Stage]) -> dict[str, int]:
    """By state. Items that only test people are never done, and no part of the work."""
    counts = tx.count(Shard, "state", job_id=job.id)
    if any(recipe(stage.recipe).stage_type is StageType.PEOPLE for stage in stages):
        for state, number in tx.count(Shard, "state", job_id=job.id, phase=PEOPLE_PHASES - {ASK_PHASE}).items():
            counts[state] -= number
    return {state: number for state, number in counts.items() if number}


def _iteration(stage: str, loop: Collection[str]) -> int:
    """Which time of the job's loop the stage is of; 0: it is outside."""
    plain, _, time = stage.rpartition("-")
    return int(time) if plain in loop and time.isdecimal() else 0


def _win_rate(numbers: Mapping[str, float]) -> jobs_pb2.WinRate | None:
    if not set(WIN_RATE) <= set(numbers):
        return None
    value, low, high = (numbers[name] for name in WIN_RATE)
    return jobs_pb2.WinRate(value=value, low=low, high=high)


def _begun(numbers: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}


def _continues(stage: Stage, numbers: Mapping[str, float]) -> str:
    """What the stage continues from; a spec without it is not parsed, as a list of jobs has many."""
    if '"continue_from"' not in stage.spec_json:
        return ""
    return told(StageSpec.model_validate_json(stage.spec_json), numbers)


def job_money(tx: Transaction, job: Job, rounds: Sequence[Round]) -> dict[str, int]:
    """Msat spent (as its rounds counted them), refunded, and reserved (the rest of the budget)."""
    spent = sum(one.paid_msat + one.fees_msat for one in rounds)
    # found by the account they left, which is indexed; by their reference it would be the whole ledger
    refunds = tx.find(Transfer, debit=escrow_account(job.id), reason="refund")
    refunded = sum(one.msat for one in refunds if one.kind is TransferKind.POSTED)
    return {"reserved": job.budget_msat - spent - refunded, "refunded": refunded, "spent": spent}


def spent_and_refunded(tx: Transaction, job: Job) -> int:
    money = job_money(tx, job, tx.find(Round, job_id=job.id))
    return money["spent"] + money["refunded"]


def job_why(tx: Transaction, job: Job, stages: Sequence[Stage], workers: Sequence[Worker]) -> Why:
    """Why the job is where it is: its own reason, or what its current phase waits for."""
    if job.why_json:
        return Why.from_json(job.why_json)
    if job.state is JobState.SUCCEEDED:
        return Why(
            code="job.succeeded",
            sentence="Every stage is done and its outputs are published.",
            next_step="Fetch them: `shardwork job download ID DIR`.",
        )
    stage = next((one for one in stages if one.state == "running"), None)
    if stage is None:
        return Why(
            code=f"job.{job.state}",
            sentence=f"The job is {job.state}.",
            next_step="`shardwork job events ID` tells what happened to it.",
        )
    current = tx.find(Round, job_id=job.id, stage=stage.name, order="number", descending=True, limit=1)
    if not current:
        return Why(code="job.starting", sentence="The job is about to start.", next_step=NOTHING_TO_DO)
    return _phase_why(tx, job, current[0], workers)


def _phase_why(tx: Transaction, job: Job, round_: Round, workers: Sequence[Worker]) -> Why:
    if round_.phase in PEOPLE_PHASES:
        return why_people(tx, job, round_)
    where = {"stage": round_.stage, "round": str(round_.number), "phase": round_.phase}
    held = sum(tx.count(Replica, "state", job_id=job.id, state=[str(state) for state in LIVE]).values())
    if held:
        return Why(
            code="job.running",
            sentence=f"{held} {'worker is' if held == 1 else 'workers are'} on the {round_.phase} phase.",
            evidence=where | _last_failure(tx, round_),
            next_step="Nothing to do: `shardwork job watch ID` follows it.",
        )
    waiting = ready_replicas(tx, job, limit=1, device=JobFacts.of(job).device)
    handed_in = tx.find(Replica, job_id=job.id, state=ReplicaState.SUBMITTED)
    if handed_in and waiting and (audit := _audit_of(tx, waiting[0])) is not None:
        lacking = _why_not_covered(tx, job, round_, waiting[0]) or why_waiting(waiting[0], workers)
        return _why_unchecked(audit, len(handed_in), where, lacking)
    if (differing := _most_of_one_shard(handed_in)) > 1:
        return Why(
            code="job.waits_for_tiebreak",
            sentence=f"{differing} workers gave different results for the {round_.phase} phase; one more must decide.",
            evidence=where,
            next_step="Nothing to do while others are attached. If none comes: ask the operator for a reference "
            "worker, or cancel for a refund.",
        )
    if handed_in:
        return Why(
            code="job.waits_for_agreement",
            sentence="One worker handed in this phase; a second one must confirm it.",
            evidence=where,
            next_step="If none comes, the job goes on by itself and is marked self-evaluated.",
        )
    if waiting:
        why = _why_not_covered(tx, job, round_, waiting[0]) or why_waiting(waiting[0], workers)
        return replace(why, evidence={**why.evidence, **_last_failure(tx, round_)})
    effect = tx.get(Outbox, effect_id(round_, round_.phase))
    tried = {"last_failure": Why.from_json(effect.why_json).sentence} if effect and effect.why_json else {}
    return Why(
        code="job.executor",
        sentence=f"The coordinator runs the {round_.phase} phase{', again' if tried else ''}.",
        evidence=where | tried,
        next_step=NOTHING_TO_DO,
    )


def _audit_of(tx: Transaction, waiting: ReadyReplica) -> Shard | None:
    shard = tx.get(Shard, waiting.shard_id)
    return shard if shard is not None and shard.phase == AUDIT_PHASE else None


def _why_unchecked(audit: Shard, handed_in: int, where: Mapping[str, str], lacking: Why) -> Why:
    """Results are there, and only others than those who made them may check them. `lacking`: why nobody does."""
    results = "1 result is" if handed_in == 1 else f"{handed_in} results are"
    return Why(
        code="job.waits_for_audit",
        sentence=f"{results} handed in, unpaid until another worker has checked a sample. {lacking.sentence}",
        evidence={**lacking.evidence, **where, "audit": audit.id, "because": lacking.code},
        next_step="Start another worker, or wait: where none comes for a while the job goes on by itself and is marked "
        "self-evaluated.",
    )


def _most_of_one_shard(replicas: Sequence[Replica]) -> int:
    return max(Counter(one.shard_id for one in replicas).values(), default=0)


def _why_not_covered(tx: Transaction, job: Job, round_: Round, waiting: ReadyReplica) -> Why | None:
    """A spare copy or another try that neither the round's reserve nor a top-up pays for."""
    shard = tx.get(Shard, waiting.shard_id)
    if shard is None:
        return None
    needed = shard.price_msat + shard.fee_msat
    left = ledger.available(tx, round_account(job.id, round_.stage, round_.number)) + job.extra_msat
    if left >= needed:
        return None
    return Why(
        code="shard.not_covered",
        sentence=f"What is left of the round's reserve ({left:,} msat) does not pay for it ({needed:,} msat).",
        evidence={"shard": shard.id, "left_msat": str(left), "needed_msat": str(needed)},
        next_step="`shardwork job topup ID SATS` pays for it; what is not used comes back.",
    )


def _last_failure(tx: Transaction, round_: Round) -> dict[str, str]:
    """Why the last attempt at a shard of the phase came to nothing, while one is still to be done."""
    failed = [str(ReplicaState.EXPIRED), str(ReplicaState.REJECTED)]
    last = tx.find(Lease, job_id=round_.job_id, state=failed, order="ended_ms", descending=True, limit=LAST_FAILURES)
    for lease in last:
        shard = tx.get(Shard, lease.shard_id)
        is_here = shard is not None and (shard.round, shard.phase) == (round_.number, round_.phase)
        if shard is not None and is_here and shard.why_json and shard.state in (ShardState.READY, ShardState.RUNNING):
            return {"last_failure": Why.from_json(shard.why_json).sentence}
    return {}


def running_shards(tx: Transaction, job: Job, now_ms: int, names: dict[str, str]) -> list[jobs_pb2.RunningShard]:
    found: list[jobs_pb2.RunningShard] = []
    for one in tx.find(Replica, job_id=job.id, state=[str(state) for state in LIVE], order="shard_id"):
        running = jobs_pb2.RunningShard(
            shard=one.shard_id,
            phase=one.phase,
            worker_id=one.worker_id,
            worker_name=names.get(one.worker_id, ""),
            progress=one.progress,
            seconds=(now_ms - one.granted_ms) / 1000,
        )
        if one.loss is not None:
            running.loss = one.loss
        found.append(running)
    return found


def event_view(event: Event) -> jobs_pb2.JobEvent:
    return jobs_pb2.JobEvent(
        sequence=event.sequence,
        at_unix_ms=event.at_ms,
        kind=event.kind,
        subject=event.subject,
        sentence=event.sentence,
        evidence=json.loads(event.evidence_json),
    )


def report_view(tx: Transaction, job: Job, workers: Sequence[Worker]) -> jobs_pb2.GetJobReportResponse:
    leases = tx.find(Lease, job_id=job.id, order="granted_ms")
    names = {one.id: one.name for one in tx.find(Party, id=sorted({lease.worker_id for lease in leases}))}
    shares: dict[str, jobs_pb2.WorkerShare] = {}
    shards: dict[str, set[str]] = defaultdict(set)
    spent: dict[str, jobs_pb2.PhaseSpent] = {}
    payments: list[jobs_pb2.ShardPayment] = []
    for lease in leases:
        share = shares.setdefault(
            lease.worker_id, jobs_pb2.WorkerShare(worker_id=lease.worker_id, name=names.get(lease.worker_id, ""))
        )
        shards[lease.worker_id].add(lease.shard_id)
        share.accepted += lease.state is ReplicaState.ACCEPTED
        share.rejected += lease.state is ReplicaState.REJECTED
        share.paid_msat += lease.paid_msat
        share.donated += lease.donated_msat > 0
        share.donated_msat += lease.donated_msat
        if lease.paid_msat:
            phase = spent.setdefault(lease.phase, jobs_pb2.PhaseSpent(phase=lease.phase))
            phase.results += 1
            phase.paid_msat += lease.paid_msat
        if lease.state is ReplicaState.ACCEPTED:
            payments.append(
                jobs_pb2.ShardPayment(
                    shard=lease.shard_id,
                    replica=lease.replica,
                    worker_id=lease.worker_id,
                    msat=lease.paid_msat,
                    phase=lease.phase,
                    donated=lease.donated_msat > 0,
                )
            )
    for worker, share in shares.items():
        share.shards = len(shards[worker])
    view, tokens = job_view(tx, job, workers), round_tokens(tx, job.id)
    for stage in view.stages:
        for one in stage.rounds:
            one.tokens = tokens.get((stage.name, one.number), 0)
    return jobs_pb2.GetJobReportResponse(
        job=view,
        workers=sorted(shares.values(), key=lambda share: -share.paid_msat),
        payments=payments[-MOST_PAYMENTS:],
        payments_left_out=max(len(payments) - MOST_PAYMENTS, 0),
        quote=_submitted_quote(job),
        spent=sorted(spent.values(), key=lambda each: -each.paid_msat),
    )


def round_tokens(tx: Transaction, job_id: str) -> dict[tuple[str, int], int]:
    """(stage, round) -> tokens that its shards of work hold. Reads every shard: for what is not asked all the time."""
    found: defaultdict[tuple[str, int], int] = defaultdict(int)
    for stage, round_, count in tx.pick(Shard, ("stage", "round", "tokens"), job_id=job_id, phase=COMPUTED):
        found[stage, round_] += count
    return dict(found)


def _submitted_quote(job: Job) -> jobs_pb2.Quote:
    """The sums of the price that the job was submitted at."""
    kept = json.loads(job.quote_json)
    if not kept:
        return jobs_pb2.Quote()
    priced = JobQuote(**kept)
    return jobs_pb2.Quote(
        shards=priced.shards,
        rounds=priced.rounds,
        estimate_low_msat=priced.low_msat,
        estimate_high_msat=priced.reserve_msat,
        compute_msat=priced.compute_msat,
        verification_msat=priced.verification_msat,
        fees_msat=priced.fees_msat,
        reserve_msat=priced.reserve_msat,
    )


def _round_view(round_: Round, start: float | None, job: Job) -> jobs_pb2.RoundView:
    ended_ms = round_.ended_ms or job.ended_ms
    view = jobs_pb2.RoundView(
        number=round_.number,
        kind=round_.kind,
        state=round_.state,
        phase=round_.phase,
        accepted=round_.accepted,
        rejected=round_.rejected,
        seconds=max(ended_ms - round_.started_ms, 0) / 1000 if ended_ms else 0.0,
        bytes_up=round_.bytes_up,
        bytes_down=round_.bytes_down,
        outer=round_.outer,
        measures=json.loads(round_.measures_json),
        paid_msat=round_.paid_msat,
        fees_msat=round_.fees_msat,
    )
    eval_loss = start if round_.number == 0 else round_.eval_loss
    if round_.train_loss is not None:
        view.train_loss = round_.train_loss
    if eval_loss is not None:
        view.eval_loss = eval_loss
    return view


def _outputs(tx: Transaction, job: Job, stages: Sequence[Stage]) -> list[jobs_pb2.OutputView]:
    found: list[jobs_pb2.OutputView] = []
    for stage in stages:
        for name, output in json.loads(stage.outputs_json).items():
            row = tx.get(Artifact, output["artifact_id"], job.owner)
            found.append(
                jobs_pb2.OutputView(
                    name=name,
                    kind=output["kind"],
                    artifact_id=output["artifact_id"],
                    bytes=row.bytes if row else 0,
                    deleted=row is not None and row.state is not ArtifactState.STORED,
                )
            )
    return found


def house_totals(tx: Transaction) -> dict[str, int]:
    """Msat in escrow, owed to workers, paid out and taken as fees, over all accounts."""
    totals = {"escrow": 0, "owed": 0, "fees": ledger.available(tx, FEES), "paid": 0}
    for name, debits, credits in tx.pick(Account, ("id", "debits_posted", "credits_posted")):
        kind, balance = name.partition(":")[0], credits - debits
        if kind in ("escrow", "round"):
            totals["escrow"] += balance
        elif kind == "worker":
            totals["owed"] += balance
            totals["paid"] += debits
    return totals
