"""A job's report as one HTML document that needs nothing else: no request, no script, its style and pictures inside.

Light and dark, for a phone and for paper. Names, samples and reasons are strangers' text: the template escapes
all of it, and the document forbids itself whatever is not its own style. Used by `Report.html` and `job report --html`.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files
from typing import Any

from ... import money
from ..results import JobStatus, Output, Report, Round, Sample, ShardPayment, Stage
from ..waiting import position, rounds_done
from . import figures
from .curve import curve
from .iterations import iterations, told
from .loading import loading
from .memory import memorised
from .refusals import refusals
from .trend import trend

#: a document of more rows is slow to open, and `--json` has them all
MOST_PAYMENTS = 2000
_ORIGINS = {"held_out": "a held-out row", "train": "a training row", "order": "a prompt of ours"}

Shown = dict[str, Any]


def document(report: Report) -> str:
    """The whole document."""
    from jinja2 import Environment

    folder = files(__package__ or __name__)
    environment = Environment(autoescape=True, trim_blocks=False)
    environment.filters |= {"words": _words, "sats": money.show}
    template = environment.from_string(folder.joinpath("report.html").read_text("utf-8"))
    job = report.status
    return template.render(
        version=version("shardwork"),
        style=folder.joinpath("report.css").read_text("utf-8"),
        job=job,
        time=_time(job),
        headline=headline(report),
        stages=[_stage(stage, curve(stage)) for stage in job.stages],
        iterations=[{"of": each, **told(each)} for each in iterations(job)],
        # rows first: they say more than what follows from nothing
        samples=[_sample(each) for each in sorted(report.samples, key=lambda each: each.side == "order")],
        money=_money(report),
        phases=[
            {"phase": each.phase, "results": figures.count(each.results), "paid": money.show(each.paid_msat)}
            for each in report.spent
        ],
        workers=report.workers,
        donated=any(worker.donated for worker in report.workers),
        payments=[_payment(each, job.id) for each in report.payments[-MOST_PAYMENTS:]],
        payments_told=_payments_told(report),
        outputs=[_output(each) for each in job.outputs],
    )


def headline(report: Report) -> list[Shown]:
    """What one looks at first: reward or loss, sats, shards, workers, time."""
    job = report.status
    facts: list[Shown] = []
    if (known := trend(job)) is not None:
        change = known.change
        tone = ("better" if known.is_better else "worse") if change else ""
        note = f"{change} since it began" if change else "" if known.rises else "nats a token"
        facts.append({"label": known.label, "value": figures.loss(known.values[-1]), "note": note, "tone": tone})
    facts.append({"label": "spent", "value": money.show(job.spent_msat), "note": f"of {money.show(job.budget_msat)}"})
    facts.append({"label": "shards done", "value": figures.count(job.shards.get("done", 0)), "note": _other(job)})
    rejected = sum(worker.rejected for worker in report.workers)
    results = "1 result rejected" if rejected == 1 else f"{rejected} results rejected"
    facts.append({"label": "workers", "value": figures.count(len(report.workers)), "note": results})
    if job.ended_unix_ms:
        facts.append({"label": "took", "value": figures.duration((job.ended_unix_ms - job.created_unix_ms) // 1000)})
    return facts


def _other(job: JobStatus) -> str:
    counts = [f"{number} {_words(state)}" for state, number in sorted(job.shards.items()) if number and state != "done"]
    return ", ".join(counts)


def _words(text: str) -> str:
    return text.replace("_", " ")


def _time(job: JobStatus) -> str:
    begun = figures.day_time(job.created_unix_ms)
    return f"{begun} to {figures.day_time(job.ended_unix_ms)}" if job.ended_unix_ms else f"since {begun}"


def _stage(stage: Stage, picture: str) -> Shown:
    done = f"{rounds_done(stage)} of {stage.planned_rounds} rounds"
    where = done if stage.state == "running" else position(stage)
    is_told = "published" in where or stage.state != "done" or not stage.best_round
    best = "" if is_told else f", round {stage.best_round} published"
    return {
        "name": stage.name,
        "recipe": stage.recipe,
        "position": f"{_words(stage.state)}, {where}{best}",
        "why": stage.why,
        "alarms": stage.alarms,
        "continues": stage.continues_from,
        "curve": picture,
        "undone": any(each.state == "rolled_back" for each in stage.rounds),
        "memorised": memorised(stage),
        "refusals": refusals(stage),
        "rounds": [_round(each) for each in stage.rounds],
    }


def _round(each: Round) -> Shown:
    return {
        "name": each.number if each.kind in ("learn", "map") else each.kind,
        "state": each.state,
        "train": figures.loss(each.train_loss),
        "held_out": figures.loss(each.eval_loss),
        "outer": each.outer or "–",
        "accepted": each.accepted,
        "rejected": each.rejected,
        "time": figures.duration(each.seconds),
        "up": figures.size(each.bytes_up),
        "down": figures.size(each.bytes_down),
    }


def _sample(each: Sample) -> Shown:
    return {
        "stage": each.stage,
        "origin": _ORIGINS[each.side],
        "prompt": each.prompt,
        "base": each.base.strip() if each.base is not None else None,
        "completion": each.completion.strip(),
        "expected": each.expected.strip(),
    }


def _money(report: Report) -> Shown:
    """What was quoted, and where the budget is: paid, fees, reserved, back."""
    job, quote = report.status, report.quote
    paid, fees = job.spent_msat - report.fees_msat, report.fees_msat
    lines: list[Shown] = []
    if quote is not None:
        asked = figures.span(
            money.show(quote.estimate_low_msat).removesuffix(" sat"), money.show(quote.estimate_high_msat)
        )
        parts = (("compute", quote.compute_msat), ("verification", quote.verification_msat), ("fees", quote.fees_msat))
        note = ", ".join(f"{name} {money.show(amount)}" for name, amount in parts)
        lines.append({"label": "quoted before", "value": asked, "note": note})
    lines.append({"label": "budget", "value": money.show(job.budget_msat), "note": "the cap"})
    kinds = (
        ("paid", "paid to workers", paid, "for results that passed their checks"),
        ("fees", "fees", fees, "the coordinator's share"),
        ("held", "reserved", job.reserved_msat, "for what may still be done"),
        ("back", "refunded", job.refunded_msat, "back in your wallet"),
    )
    shown = [one for one in kinds if one[2] or one[0] == "paid"]
    lines += [{"kind": k, "label": label, "value": money.show(amount), "note": why} for k, label, amount, why in shown]
    if job.donated_msat:
        lines.append({"label": "given to you", "value": money.show(job.donated_msat), "note": "work that took no pay"})
    whole = max(job.budget_msat, 1)
    bar = [{"kind": kind, "share": round(100 * amount / whole, 2)} for kind, _, amount, _ in shown if kind != "back"]
    told = ", ".join(f"{label} {money.show(amount)}" for _, label, amount, _ in shown)
    return {"lines": lines, "bar": bar, "told": f"of {money.show(job.budget_msat)}: {told}"}


def _payment(paid: ShardPayment, job_id: str) -> Shown:
    shard = paid.shard.removeprefix(f"{job_id}/")
    shard = shard if paid.replica == 0 else f"{shard} (copy {paid.replica})"
    return {"shard": shard, "phase": paid.phase, "worker": paid.worker_id, "amount": money.show(paid.msat)}


def _payments_told(report: Report) -> str:
    shown = min(len(report.payments), MOST_PAYMENTS)
    every = len(report.payments) + report.payments_left_out
    if shown == every:
        return f"{figures.count(every)} payments"
    return f"the last {figures.count(shown)} of {figures.count(every)} payments; the sums above hold all"


def _output(output: Output) -> Shown:
    return {
        "name": output.name,
        "kind": output.kind,
        "size": figures.size(output.bytes),
        "artifact_id": output.artifact_id,
        "loading": "\n".join(loading(output.kind, f"out/{output.name}")),
    }
