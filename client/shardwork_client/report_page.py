"""`job report` in a terminal: the job, samples of what it learned, who computed what, and where its sats went.

Pure; the same parts as one HTML document are `shardwork.client.display.document`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shardwork.client.display import figures
from shardwork.client.display.iterations import Iteration, iterations, told
from shardwork.client.display.memory import memorised
from shardwork.client.results import PhaseSpent, Report, Sample, ShardPayment, WorkerShare
from shardwork.money import show as sats

from .render import clean, job_page, pairs, state_text, table

#: letters of a prompt and of an answer, payments: a terminal's worth; the document has all
MOST_LETTERS, MOST_PAYMENTS = 160, 20
SAMPLES_SHOWN = 4


def report_page(report: Report) -> RenderableType:
    """The whole report."""
    parts: list[RenderableType] = [job_page(report.status)]
    parts += [Text(clean(known)) for known in (memorised(stage) for stage in report.status.stages) if known]
    if looped := iterations(report.status):
        parts += [Text(""), Text("iterations", style="bold"), _iterations(looped)]
    if report.samples:
        parts += [Text(""), Text("samples", style="bold"), _samples(report.samples)]
    parts += [Text(""), Text("money", style="bold"), _money(report)]
    if report.spent:
        parts += [Text(""), _spent(report.spent)]
    if report.workers:
        parts += [Text(""), _workers(report.workers)]
    if report.payments:
        parts += [Text(""), _payments(report.payments, report.status.id)]
    hidden = report.payments_left_out + max(len(report.payments) - MOST_PAYMENTS, 0)
    if hidden:
        parts.append(Text(f"and {figures.count(hidden)} earlier payments, counted above", style="dim"))
    return Group(*parts)


def _iterations(looped: Sequence[Iteration]) -> RenderableType:
    """One line each, and why one was skipped, stopped or rang below it."""
    names = ("iteration", "state", "reward", "pairs right", "kl", "length", "win rate", "cost")
    grid = table(*names, right=("pairs right", "kl", "length", "cost"))
    for each in looped:
        shown = told(each)
        figures_of = (shown[name] for name in ("reward", "pairs", "kl", "length", "win", "cost"))
        grid.add_row(str(each.iteration), state_text(each.state), *figures_of)
    reasons = [Text(clean(f"{each.iteration}: {each.why.sentence}"), style="dim") for each in looped if each.why]
    return Group(grid, *reasons)


def _samples(samples: Sequence[Sample]) -> RenderableType:
    """Rows first: they say more than what follows from nothing. Before, after, and how the row goes on."""
    chosen = sorted(samples, key=lambda each: each.side == "order")[:SAMPLES_SHOWN]
    parts: list[RenderableType] = []
    for each in chosen:
        rows: list[tuple[str, RenderableType]] = [("prompt", _cut(each.prompt[-MOST_LETTERS:]))]
        if each.base is not None:
            rows.append(("before", _cut(each.base)))
        rows.append(("after", Text(_cut(each.completion), style="bold")))
        if each.expected:
            rows.append(("the row", _cut(each.expected)))
        parts.append(Padding(pairs(rows), (0, 0, 1, 2)))
    return Group(*parts)


def _cut(text: str) -> str:
    shown = clean(" ".join(text.split()))
    return (shown[: MOST_LETTERS - 1] + "…" if len(shown) > MOST_LETTERS else shown) or "(nothing)"


def _money(report: Report) -> RenderableType:
    job, quote = report.status, report.quote
    rows: list[tuple[str, RenderableType]] = []
    if quote is not None:
        low = sats(quote.estimate_low_msat).removesuffix(" sat")
        rows.append(("  quoted", figures.span(low, sats(quote.estimate_high_msat))))
    rows += [
        ("  paid", sats(job.spent_msat - report.fees_msat)),
        ("  fees", sats(report.fees_msat)),
        ("  refunded", sats(job.refunded_msat)),
    ]
    if job.reserved_msat:
        rows.append(("  reserved", sats(job.reserved_msat)))
    return pairs(rows)


def _spent(spent: Sequence[PhaseSpent]) -> Table:
    grid = table("phase", "paid results", "paid", right=("paid results", "paid"))
    for each in spent:
        grid.add_row(clean(each.phase), figures.count(each.results), sats(each.paid_msat))
    return grid


def _workers(workers: Sequence[WorkerShare]) -> Table:
    grid = table(
        "worker", "name", "shards", "accepted", "rejected", "paid", right=("shards", "accepted", "rejected", "paid")
    )
    for each in workers:
        rejected = Text(str(each.rejected), style="red" if each.rejected else "dim")
        name = clean(each.name) or "–"
        grid.add_row(each.worker_id, name, str(each.shards), str(each.accepted), rejected, sats(each.paid_msat))
    return grid


def _payments(payments: Sequence[ShardPayment], job_id: str) -> Table:
    grid = table("payment for shard", "worker", "amount", right=("amount",))
    for paid in payments[-MOST_PAYMENTS:]:
        shard = paid.shard.removeprefix(f"{job_id}/")
        shard = shard if paid.replica == 0 else f"{shard} (copy {paid.replica})"
        grid.add_row(shard, paid.worker_id, sats(paid.msat))
    return grid
