"""From wire messages to `results`, field by field. What an older coordinator does not send is zero."""

from __future__ import annotations

from ..ids import LeaseId
from ..v1 import jobs_pb2, storage_pb2, types_pb2, wallet_pb2
from ..why import Why
from ..wire import why_from_proto
from . import results

#: letters of a worker's id that tell it from the others of a job
SHORT_ID = 8


def why(message: types_pb2.Why) -> Why | None:
    return why_from_proto(message) if message.code else None


def job_status(view: jobs_pb2.JobView) -> results.JobStatus:
    return results.JobStatus(
        id=view.id,
        name=view.name,
        state=view.state,
        why=why(view.why),
        stages=tuple(stage(each) for each in view.stages),
        shards=dict(sorted(view.shards.items())),
        budget_msat=view.budget_msat,
        reserved_msat=view.reserved_msat,
        spent_msat=view.spent_msat,
        refunded_msat=view.refunded_msat,
        outputs=tuple(output(each) for each in view.outputs),
        self_evaluated=view.self_evaluated,
        created_unix_ms=view.created_unix_ms,
        ended_unix_ms=view.ended_unix_ms,
        priority=view.priority or "normal",
        donated_msat=view.donated_msat,
        topped_up_msat=view.topped_up_msat,
        deadline_unix_ms=view.deadline_unix_ms,
    )


def control_cost(view: jobs_pb2.PreviewJobControlResponse) -> results.ControlCost:
    return results.ControlCost(
        why=why_from_proto(view.why),
        running_shards=view.running_shards,
        running_msat=view.running_msat,
        running_paid=view.running_paid,
        handed_in_msat=view.handed_in_msat,
        refund_msat=view.refund_msat,
        stays_reserved_msat=view.stays_reserved_msat,
        from_balance_msat=view.from_balance_msat,
        balance_after_msat=view.balance_after_msat,
    )


def stage(view: jobs_pb2.StageView) -> results.Stage:
    return results.Stage(
        name=view.name,
        recipe=view.recipe,
        state=view.state,
        planned_rounds=view.planned_rounds,
        why=why(view.why),
        best_round=view.best_round,
        memorised=dict(view.memorised),
        continues_from=view.continues_from,
        safety=dict(view.safety),
        iteration=view.iteration,
        spent_msat=view.spent_msat,
        win_rate=win_rate(view.win_rate) if view.HasField("win_rate") else None,
        reward_start=view.reward_start if view.HasField("reward_start") else None,
        reward_best=view.reward_best if view.HasField("reward_best") else None,
        alarms=tuple(why_from_proto(each) for each in view.alarms),
        rounds=tuple(round_of(each) for each in view.rounds),
    )


def win_rate(view: jobs_pb2.WinRate) -> results.WinRate:
    return results.WinRate(value=view.value, low=view.low, high=view.high)


def round_of(view: jobs_pb2.RoundView) -> results.Round:
    return results.Round(
        number=view.number,
        kind=view.kind,
        state=view.state,
        phase=view.phase,
        train_loss=view.train_loss if view.HasField("train_loss") else None,
        eval_loss=view.eval_loss if view.HasField("eval_loss") else None,
        outer=view.outer,
        accepted=view.accepted,
        rejected=view.rejected,
        seconds=view.seconds,
        bytes_up=view.bytes_up,
        bytes_down=view.bytes_down,
        measures=dict(sorted(view.measures.items())),
        paid_msat=view.paid_msat,
        fees_msat=view.fees_msat,
        tokens=view.tokens,
    )


def output(view: jobs_pb2.OutputView) -> results.Output:
    return results.Output(
        name=view.name, kind=view.kind, artifact_id=view.artifact_id, bytes=view.bytes, deleted=view.deleted
    )


def event(view: jobs_pb2.JobEvent) -> results.Event:
    return results.Event(
        sequence=view.sequence,
        at_unix_ms=view.at_unix_ms,
        kind=view.kind,
        subject=view.subject,
        sentence=view.sentence,
        evidence=dict(sorted(view.evidence.items())),
    )


def log_line(view: jobs_pb2.JobEvent) -> results.LogLine:
    """An event with its details as a line: where its subject and lease say it happened, its worker by a short name."""
    evidence = dict(sorted(view.evidence.items()))
    worker, code, lease = (evidence.pop(key, "") for key in ("worker", "code", "lease"))
    # job / stage / round / phase / shard, as far as it concerns one
    place = [*view.subject.split("/"), "", "", "", ""]
    copy, attempt = _attempt(lease)
    return results.LogLine(
        sequence=view.sequence,
        at_unix_ms=view.at_unix_ms,
        kind=view.kind,
        sentence=view.sentence.replace(worker, worker[:SHORT_ID]) if worker else view.sentence,
        stage=place[1],
        round=int(place[2][1:]) if place[2][1:].isdecimal() else None,
        phase=place[3],
        shard=view.subject if place[4] else "",
        copy=copy,
        attempt=attempt,
        worker_id=worker,
        code=code,
        evidence=evidence,
    )


def _attempt(lease: str) -> tuple[int | None, int | None]:
    """(copy, attempt) that a lease's id names."""
    try:
        identity = LeaseId.parse(lease)
    except ValueError:
        return None, None
    return identity.replica, identity.epoch


def change(answer: jobs_pb2.WatchJobResponse) -> results.Change:
    return results.Change(
        events=tuple(event(each) for each in answer.events),
        status=job_status(answer.job) if answer.HasField("job") else None,
        running=tuple(running_shard(each) for each in answer.running),
        is_final=answer.final,
    )


def running_shard(view: jobs_pb2.RunningShard) -> results.RunningShard:
    return results.RunningShard(
        shard=view.shard,
        phase=view.phase,
        worker_id=view.worker_id,
        worker_name=view.worker_name,
        progress=view.progress,
        loss=view.loss if view.HasField("loss") else None,
        seconds=view.seconds,
    )


def report(answer: jobs_pb2.GetJobReportResponse, samples: tuple[results.Sample, ...] = ()) -> results.Report:
    return results.Report(
        status=job_status(answer.job),
        workers=tuple(
            results.WorkerShare(
                worker_id=each.worker_id,
                name=each.name,
                shards=each.shards,
                accepted=each.accepted,
                rejected=each.rejected,
                paid_msat=each.paid_msat,
                donated=each.donated,
                donated_msat=each.donated_msat,
            )
            for each in answer.workers
        ),
        payments=tuple(
            results.ShardPayment(
                shard=each.shard, replica=each.replica, worker_id=each.worker_id, phase=each.phase, msat=each.msat
            )
            for each in answer.payments
        ),
        payments_left_out=answer.payments_left_out,
        quote=quote(answer.quote) if answer.quote.reserve_msat else None,
        spent=tuple(
            results.PhaseSpent(phase=each.phase, results=each.results, paid_msat=each.paid_msat)
            for each in answer.spent
        ),
        samples=samples,
    )


def quote(message: jobs_pb2.Quote) -> results.Quote:
    return results.Quote(
        shards=message.shards,
        rounds=message.rounds,
        estimate_low_msat=message.estimate_low_msat,
        estimate_high_msat=message.estimate_high_msat,
        compute_msat=message.compute_msat,
        verification_msat=message.verification_msat,
        fees_msat=message.fees_msat,
        reserve_msat=message.reserve_msat,
        seconds_low=message.seconds_low,
        seconds_high=message.seconds_high,
        upload_bytes_per_shard=message.upload_bytes_per_shard,
        download_bytes_per_shard=message.download_bytes_per_shard,
        warnings=tuple(why_from_proto(each) for each in message.warnings),
        phases=tuple(phase_price(each) for each in message.phases),
        msat_per_tera_unit=message.msat_per_tera_unit,
        minimum_shard_msat=message.minimum_shard_msat,
        fee_basis_points=message.fee_basis_points,
    )


def phase_price(message: jobs_pb2.PhasePrice) -> results.PhasePrice:
    return results.PhasePrice(
        stage=message.stage,
        phase=message.phase,
        rounds=message.rounds,
        shards=message.shards,
        copies=message.copies,
        work_units=message.work_units,
        price_msat=message.price_msat,
        fee_msat=message.fee_msat,
        total_msat=message.total_msat,
        reserve_msat=message.reserve_msat,
    )


def balance(message: wallet_pb2.GetBalanceResponse) -> results.Balance:
    return results.Balance(
        available_msat=message.available_msat,
        held_msat=message.held_msat,
        paid_out_msat=message.paid_out_msat,
        earned_msat=message.earned_msat,
        asset=message.asset,
    )


def deposit(message: wallet_pb2.Deposit) -> results.Deposit:
    return results.Deposit(
        id=message.id,
        msat=message.msat,
        invoice=message.invoice,
        payment_hash=message.payment_hash,
        state=message.state,
        expires_unix_ms=message.expires_unix_ms,
        is_simulated=message.simulated,
    )


def withdrawal(message: wallet_pb2.Withdrawal) -> results.Withdrawal:
    return results.Withdrawal(
        id=message.id,
        msat=message.msat,
        fee_limit_msat=message.fee_limit_msat,
        address=message.address,
        state=message.state,
        why=why(message.why),
        payment_hash=message.payment_hash,
        preimage=message.preimage,
        is_simulated=message.simulated,
        created_unix_ms=message.created_unix_ms,
    )


def transfer(view: wallet_pb2.TransferView) -> results.Transfer:
    return results.Transfer(
        sequence=view.sequence,
        id=view.id,
        at_unix_ms=view.at_unix_ms,
        msat=view.msat,
        kind=view.kind,
        state=view.state,
        reference=view.reference,
    )


def stored_artifact(message: storage_pb2.ArtifactView) -> results.StoredArtifact:
    return results.StoredArtifact(
        id=message.artifact_id,
        kind=message.kind,
        bytes=message.bytes,
        created_unix_ms=message.created_unix_ms,
        kept_until_unix_ms=message.kept_until_unix_ms,
        why=why_from_proto(message.why),
    )
