"""The price of a plan as a person reads it: what it adds up to, and what each phase takes of it.

Pure; part of the plan's page (`plan_page`). A narrow terminal is shown the columns that the sum is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from shardwork.client.display import figures
from shardwork.client.plan import Plan
from shardwork.client.results import PhasePrice, Quote
from shardwork.money import show as sats

from .render import NARROW, clean, table

#: phases that a page lists; a job may have 32 stages
MOST_PHASES = 40


@dataclass(frozen=True, slots=True)
class Price:
    """The quote line by line, beside the budget and the wallet that it is held against. Narrow: without the words."""

    plan: Plan

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        grid = Table.grid(padding=(0, 3, 0, 0))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column(style="dim", overflow="fold")
        for label, amount, words in _lines(self.plan):
            grid.add_row(label, amount, words if options.max_width >= NARROW else "")
        yield grid


def _lines(plan: Plan) -> list[tuple[str, Text, str]]:
    quote, budget = plan.quote, plan.measured.budget_msat
    short = "red" if budget < quote.reserve_msat else ""
    poor = "red" if plan.available_msat < quote.reserve_msat else ""
    kind = "  simulated" if plan.asset == "simulated" else ""
    low, high = sats(quote.estimate_low_msat).removesuffix(" sat"), sats(quote.estimate_high_msat)
    return [
        ("  compute", Text(sats(quote.compute_msat)), "what shards and people's answers earn"),
        ("  verification", Text(sats(quote.verification_msat)), "what is done twice, or checked by another worker"),
        ("  fees", Text(sats(quote.fees_msat)), "the coordinator's share"),
        ("  estimate", Text(figures.span(low, high), style="bold"), "what it should cost"),
        ("  reserve", Text(sats(quote.reserve_msat), style="bold"), "held at submit, the cap; the rest returns"),
        ("  budget", Text(sats(budget), style=short), "budget.max_sats of the job file, or --max-sats"),
        ("  wallet", Text(sats(plan.available_msat), style=poor), f"available now{kind}"),
    ]


@dataclass(frozen=True, slots=True)
class Phases:
    """A line for each phase: how often it is run, its shards, the keys that must agree, the price of one and of all."""

    quote: Quote

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self.quote.phases[:MOST_PHASES]
        yield _wide(shown) if options.max_width >= NARROW else _narrow(shown)
        if len(self.quote.phases) > len(shown):
            yield Text(f"  and {len(self.quote.phases) - len(shown)} more phases; --json lists all", style="dim")
        yield Text(f"  {rate(self.quote)}", style="dim")


def _wide(phases: Sequence[PhasePrice]) -> Table:
    columns = ("rounds", "shards", "keys", "a shard", "fee", "in all", "reserve")

    def values(each: PhasePrice) -> tuple[str, ...]:
        counts = (figures.count(each.rounds), figures.count(each.shards), str(each.copies))
        return *counts, _bare(each.price_msat), _bare(each.fee_msat), sats(each.total_msat), sats(each.reserve_msat)

    return _grid(phases, columns, values)


def _narrow(phases: Sequence[PhasePrice]) -> Table:
    def values(each: PhasePrice) -> tuple[str, ...]:
        times = figures.count(each.rounds * each.shards * each.copies)
        return times, _bare(each.price_msat + each.fee_msat), sats(each.total_msat)

    return _grid(phases, ("shards", "a shard", "in all"), values)


def _grid(
    phases: Sequence[PhasePrice], columns: Sequence[str], values: Callable[[PhasePrice], tuple[str, ...]]
) -> Table:
    """A line a phase; where there are several stages, below a line with the stage's name."""
    grid = table("  phase", *columns, right=columns, fold=("  phase",))
    several, stage = len({each.stage for each in phases}) > 1, ""
    for each in phases:
        if several and each.stage != stage:
            grid.add_row(Text(f"  {clean(each.stage)}", style="bold"))
            stage = each.stage
        grid.add_row(f"  {'  ' if several else ''}{clean(each.phase)}", *values(each))
    return grid


def _bare(msat: int) -> str:
    return sats(msat).removesuffix(" sat")


def rate(quote: Quote) -> str:
    """ "a shard costs 0.01 sat for 10^12 work units, at least 1 sat, and 2 % fee"."""
    least = f", at least {sats(quote.minimum_shard_msat)}" if quote.minimum_shard_msat else ""
    fee = f"{quote.fee_basis_points / 100:g}"
    return f"a shard costs {sats(quote.msat_per_tera_unit)} for 10^12 work units{least}, and {fee} % fee"
