"""What `--json` prints: wire messages as the plain dictionaries that scripts rely on.

The key names are the contract of docs/cli; add freely, rename never. Pure; `render` makes the same things pretty.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardwork.client.display.iterations import Iteration
    from shardwork.client.results import (
        Balance,
        ControlCost,
        Deposit,
        Event,
        JobStatus,
        LogLine,
        Output,
        PhasePrice,
        Quote,
        Report,
        Round,
        Sample,
        SamplesPage,
        Stage,
        StoredArtifact,
        Transfer,
        WinRate,
        Withdrawal,
    )
    from shardwork.feedback.samples import SampleRow, SampleText
    from shardwork.why import Why

Json = dict[str, Any]


def why_json(why: Why | None) -> Json:
    """Empty fields for a job that nothing is in the way of."""
    if why is None:
        return {"code": "", "sentence": "", "evidence": {}, "next_step": ""}
    return {
        "code": why.code,
        "sentence": why.sentence,
        "evidence": dict(sorted(why.evidence.items())),
        "next_step": why.next_step,
    }


def job_json(job: JobStatus) -> Json:
    """`job show --json`."""
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "why": why_json(job.why) if job.why else None,
        "stages": [stage_json(stage) for stage in job.stages],
        "shards": dict(sorted(job.shards.items())),
        "budget_msat": job.budget_msat,
        "reserved_msat": job.reserved_msat,
        "spent_msat": job.spent_msat,
        "refunded_msat": job.refunded_msat,
        "outputs": [output_json(output) for output in job.outputs],
        "self_evaluated": job.self_evaluated,
        "created_unix_ms": job.created_unix_ms,
        "ended_unix_ms": job.ended_unix_ms or None,
        "priority": job.priority,
        "donated_msat": job.donated_msat,
        "topped_up_msat": job.topped_up_msat,
        "deadline_unix_ms": job.deadline_unix_ms or None,
    }


def cost_json(cost: ControlCost) -> Json:
    """`job topup --json` under "cost": what the action was said to cost."""
    return {
        **why_json(cost.why),
        "running_shards": cost.running_shards,
        "running_msat": cost.running_msat,
        "running_paid": cost.running_paid,
        "handed_in_msat": cost.handed_in_msat,
        "refund_msat": cost.refund_msat,
        "stays_reserved_msat": cost.stays_reserved_msat,
        "from_balance_msat": cost.from_balance_msat,
        "balance_after_msat": cost.balance_after_msat,
    }


def finite(value: float | None) -> float | None:
    """JSON has no NaN or infinity: a diverged loss is null there, and its event says so."""
    return value if value is not None and math.isfinite(value) else None


def stage_json(stage: Stage) -> Json:
    return {
        "name": stage.name,
        "recipe": stage.recipe,
        "state": stage.state,
        "planned_rounds": stage.planned_rounds,
        "why": why_json(stage.why) if stage.why else None,
        "best_round": stage.best_round or None,
        "memorised": dict(sorted(stage.memorised.items())) or None,
        **({"continues_from": stage.continues_from} if stage.continues_from else {}),
        "safety": dict(sorted(stage.safety.items())) or None,
        **({"iteration": stage.iteration} if stage.iteration else {}),
        "spent_msat": stage.spent_msat,
        "win_rate": win_rate_json(stage.win_rate),
        "reward_start": finite(stage.reward_start),
        "reward_best": finite(stage.reward_best),
        "alarms": [why_json(each) for each in stage.alarms],
        "rounds": [round_json(each) for each in stage.rounds],
    }


def win_rate_json(rate: WinRate | None) -> Json | None:
    return {"value": rate.value, "low": rate.low, "high": rate.high} if rate else None


def round_json(view: Round) -> Json:
    return {
        "number": view.number,
        "kind": view.kind,
        "state": view.state,
        "phase": view.phase,
        "train_loss": finite(view.train_loss),
        "eval_loss": finite(view.eval_loss),
        "outer": view.outer or None,
        "accepted": view.accepted,
        "rejected": view.rejected,
        "seconds": view.seconds,
        "bytes_up": view.bytes_up,
        "bytes_down": view.bytes_down,
        "measures": {name: finite(value) for name, value in view.measures.items()},
        "paid_msat": view.paid_msat,
        "fees_msat": view.fees_msat,
        **({"tokens": view.tokens} if view.tokens else {}),
    }


def output_json(output: Output) -> Json:
    return {
        "name": output.name,
        "kind": output.kind,
        "digest": output.artifact_id,
        "bytes": output.bytes,
        "deleted": output.deleted,
    }


def report_json(report: Report) -> Json:
    """`job report --json`: the job plus who computed what and every payment."""
    from shardwork.client.display.iterations import iterations  # only here: a library that other commands need not load

    return {
        **job_json(report.status),
        "workers": [
            {
                "id": worker.worker_id,
                "name": worker.name,
                "shards": worker.shards,
                "accepted": worker.accepted,
                "rejected": worker.rejected,
                "paid_msat": worker.paid_msat,
                "donated": worker.donated,
                "donated_msat": worker.donated_msat,
            }
            for worker in report.workers
        ],
        "payments": [
            {
                "shard": payment.shard,
                "replica": payment.replica,
                "worker": payment.worker_id,
                "phase": payment.phase,
                "msat": payment.msat,
            }
            for payment in report.payments
        ],
        "payments_left_out": report.payments_left_out,
        "fees_msat": report.fees_msat,
        "quote": _submitted_json(report.quote) if report.quote else None,
        "spent": [{"phase": each.phase, "results": each.results, "paid_msat": each.paid_msat} for each in report.spent],
        "samples": [sample_json(each) for each in report.samples],
        "iterations": [iteration_json(each) for each in iterations(report.status)],
    }


def iteration_json(each: Iteration) -> Json:
    return {
        "iteration": each.iteration,
        "reward_start": finite(each.reward_start),
        "reward_best": finite(each.reward_best),
        "loss_start": finite(each.loss_start),
        "loss_best": finite(each.loss_best),
        "accuracy": finite(each.accuracy),
        "kl": finite(each.kl),
        "length": finite(each.length),
        "win_rate": win_rate_json(each.win_rate),
        "cost_msat": each.cost_msat,
        "state": each.state,
        "why": why_json(each.why) if each.why else None,
    }


def _submitted_json(quote: Quote) -> Json:
    """What a job was priced at when it was submitted: of its quote, what is kept."""
    return {
        "shards": quote.shards,
        "rounds": quote.rounds,
        "estimate_msat": {"low": quote.estimate_low_msat, "high": quote.estimate_high_msat},
        "compute_msat": quote.compute_msat,
        "verification_msat": quote.verification_msat,
        "fees_msat": quote.fees_msat,
        "reserve_msat": quote.reserve_msat,
    }


def samples_page_json(page: SamplesPage) -> Json:
    """`job samples --json` under "page"."""
    return {
        "output": page.output.name,
        "beside": page.beside.name if page.beside else None,
        "at": page.at,
        "next_at": page.next_at,
        "file_bytes": page.file_bytes,
        "samples": [sample_row_json(row) for row in page.samples],
        "problems": [problem.to_json() for problem in page.problems],
        "beside_unread": page.beside_unread,
    }


def sample_row_json(row: SampleRow) -> Json:
    return {
        "prompt_id": row.prompt_id or None,
        "prompt": sample_text_json(row.prompt),
        "texts": [sample_text_json(text) for text in row.texts],
        "more": row.more,
        "confidence": row.confidence,
        "votes": row.votes,
    }


def sample_text_json(text: SampleText) -> Json:
    return {
        "label": text.label,
        "mark": text.mark or None,
        "text": text.text,
        "more": text.more,
        "tokens": text.tokens,
        "logprob": text.logprob,
        "ended": text.ended,
    }


def sample_json(sample: Sample) -> Json:
    return {
        "stage": sample.stage,
        "side": sample.side,
        "prompt": sample.prompt,
        "base": sample.base,
        "completion": sample.completion,
        "expected": sample.expected or None,
    }


def event_json(event: Event) -> Json:
    """One line of `job events --follow --json` and `job watch --json`."""
    return {
        "sequence": event.sequence,
        "at_unix_ms": event.at_unix_ms,
        "kind": event.kind,
        "subject": event.subject,
        "sentence": event.sentence,
        "evidence": dict(sorted(event.evidence.items())),
    }


def log_json(line: LogLine) -> Json:
    """One line of `job logs --json`."""
    return {
        "sequence": line.sequence,
        "at_unix_ms": line.at_unix_ms,
        "kind": line.kind,
        "sentence": line.sentence,
        "stage": line.stage or None,
        "round": line.round,
        "phase": line.phase or None,
        "shard": line.shard or None,
        "copy": line.copy,
        "attempt": line.attempt,
        "worker": line.worker_id or None,
        "code": line.code or None,
        "evidence": dict(sorted(line.evidence.items())),
    }


def quote_json(quote: Quote) -> Json:
    """The priced part of `job plan --json`; `plan` adds what was measured in the files."""
    return {
        "shards": quote.shards,
        "rounds": quote.rounds,
        "estimate_msat": {"low": quote.estimate_low_msat, "high": quote.estimate_high_msat},
        "compute_msat": quote.compute_msat,
        "verification_msat": quote.verification_msat,
        "fees_msat": quote.fees_msat,
        "reserve_msat": quote.reserve_msat,
        "estimated_seconds": {"low": quote.seconds_low, "high": quote.seconds_high},
        "upload_bytes_per_shard": quote.upload_bytes_per_shard,
        "download_bytes_per_shard": quote.download_bytes_per_shard,
        "msat_per_tera_unit": quote.msat_per_tera_unit,
        "minimum_shard_msat": quote.minimum_shard_msat,
        "fee_basis_points": quote.fee_basis_points,
        "phases": [phase_json(phase) for phase in quote.phases],
    }


def phase_json(phase: PhasePrice) -> Json:
    return {
        "stage": phase.stage,
        "phase": phase.phase,
        "rounds": phase.rounds,
        "shards": phase.shards,
        "copies": phase.copies,
        "work_units": phase.work_units,
        "price_msat": phase.price_msat,
        "fee_msat": phase.fee_msat,
        "total_msat": phase.total_msat,
        "reserve_msat": phase.reserve_msat,
    }


def balance_json(balance: Balance) -> Json:
    return {
        "available_msat": balance.available_msat,
        "held_msat": balance.held_msat,
        "paid_out_msat": balance.paid_out_msat,
        "earned_msat": balance.earned_msat,
        "asset": balance.asset,
    }


def deposit_json(deposit: Deposit) -> Json:
    return {
        "id": deposit.id,
        "msat": deposit.msat,
        "invoice": deposit.invoice,
        "payment_hash": deposit.payment_hash,
        "state": deposit.state,
        "expires_unix_ms": deposit.expires_unix_ms,
        "simulated": deposit.is_simulated,
    }


def withdrawal_json(withdrawal: Withdrawal) -> Json:
    return {
        "id": withdrawal.id,
        "msat": withdrawal.msat,
        "fee_limit_msat": withdrawal.fee_limit_msat,
        "address": withdrawal.address,
        "state": withdrawal.state,
        "why": why_json(withdrawal.why) if withdrawal.why else None,
        "payment_hash": withdrawal.payment_hash or None,
        "preimage": withdrawal.preimage or None,
        "simulated": withdrawal.is_simulated,
        "created_unix_ms": withdrawal.created_unix_ms,
    }


def transfer_json(transfer: Transfer) -> Json:
    return {
        "sequence": transfer.sequence,
        "id": transfer.id,
        "at_unix_ms": transfer.at_unix_ms,
        "msat": transfer.msat,
        "kind": transfer.kind,
        "state": transfer.state,
        "reference": transfer.reference,
    }


def artifact_json(artifact: StoredArtifact) -> Json:
    return {
        "id": artifact.id,
        "kind": artifact.kind,
        "bytes": artifact.bytes,
        "created_unix_ms": artifact.created_unix_ms,
        "kept_until_unix_ms": artifact.kept_until_unix_ms,
        "why": why_json(artifact.why),
    }
