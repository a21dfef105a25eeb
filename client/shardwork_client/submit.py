"""`job submit`: plan, show it, ask, upload and start. Nothing is reserved before the person agreed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from shardwork.client.plan import Priced, measure, price, refuse_unaffordable
from shardwork.client.settings import Access
from shardwork.client.submit import submit
from shardwork.money import show

from . import plan_page
from .access import run
from .outcome import interrupt, is_terminal, say, usage
from .progress import shown
from .render import show as show_page


def submit_file(
    access: Access,
    file: Path,
    *,
    max_sats: int | None,
    yes: bool,
    json_output: bool,
    announce: Callable[[str], None],
) -> str:
    """The id of the started job, after `announce` told it. Raises InvalidInput, NotEnoughFunds, typer.Exit(2)."""
    if not yes and not is_terminal():
        usage(
            "Submitting spends sats and there is no terminal to ask on.",
            f"Agree beforehand:  shardwork job submit {file} --yes",
            json_output,
        )
    with shown() as on_progress:
        measured = measure(file, max_sats=max_sats, on_progress=on_progress)
    priced = run(access, lambda session: price(session, measured))
    if not json_output:
        show_page(plan_page.page(priced), stderr=True)
    refuse_unaffordable(priced)
    if not yes:
        _ask(priced)
    with shown() as on_progress:
        return run(
            access,
            lambda session: submit(session, access, measured, announce=announce, on_progress=on_progress),
        )


def _ask(priced: Priced) -> None:
    kind = "SIMULATED " if priced.asset == "simulated" else ""
    amount = show(priced.quote.reserve_msat)
    say("")
    try:
        agreed = typer.confirm(f"Reserve {kind}{amount} and start the job?", err=True)
    except typer.Abort:
        interrupt("Nothing was submitted.")
    if not agreed:
        say("Nothing was submitted.")
        raise typer.Exit(1)
