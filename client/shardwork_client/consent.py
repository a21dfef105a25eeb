"""The question before sats are reserved; nothing is submitted before it was answered with yes."""

from __future__ import annotations

import typer

from shardwork.client.plan import Plan
from shardwork.client.results import ControlCost
from shardwork.money import show

from .outcome import interrupt, is_terminal, say, usage


def tell_of_twin(job_id: str, name: str) -> None:
    """Who left `--watch` with Ctrl-C and repeats the command would pay for a second job without a word."""
    say(f"\n! Your job {job_id} has the same name, {name!r}, and has not ended; another one is paid for as well.")
    say(f"→ Follow that one instead:  shardwork job watch {job_id}")


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


def ask_for(cost: ControlCost, job_id: str, sats: int) -> None:
    """The same question before a running job is given more. Exit 2 where there is nobody to ask."""
    say(cost.why.sentence)
    if not is_terminal():
        sentence = "A top-up spends sats and there is no terminal to ask on."
        usage(sentence, f"Agree beforehand:  shardwork job topup {job_id} {sats} --yes", json_output=False)
    try:
        agreed = typer.confirm("Go on?", err=True)
    except typer.Abort:
        interrupt("Nothing was added.")
    if not agreed:
        say("Nothing was added.")
        raise typer.Exit(1)
