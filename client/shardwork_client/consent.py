"""The question before sats are reserved; nothing is submitted before it was answered with yes."""

from __future__ import annotations

import typer

from shardwork.client.plan import Plan
from shardwork.client.results import ControlCost
from shardwork.money import show

from .outcome import interrupt, say


def ask(plan: Plan) -> None:
    """Returns when the person agrees. Raises typer.Exit(1) when not, 130 on Ctrl-C."""
    kind = "SIMULATED " if plan.asset == "simulated" else ""
    say("")
    try:
        agreed = typer.confirm(f"Reserve {kind}{show(plan.quote.reserve_msat)} and start the job?", err=True)
    except typer.Abort:
        interrupt("Nothing was submitted.")
    if not agreed:
        say("Nothing was submitted.")
        raise typer.Exit(1)


def ask_for(cost: ControlCost) -> None:
    """The same question before a running job is given more."""
    say(cost.why.sentence)
    try:
        agreed = typer.confirm("Go on?", err=True)
    except typer.Abort:
        interrupt("Nothing was added.")
    if not agreed:
        say("Nothing was added.")
        raise typer.Exit(1)
