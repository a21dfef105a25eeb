"""`shardwork-worker update`: finish the shard, install, start again; whatever fails brings the old version back."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from shardwork.errors import Conflict, InvalidInput, NotFound

if TYPE_CHECKING:
    from shardwork.config import Home

app = typer.Typer()
LOOK_S = 1.0


@app.command()
def update(
    to: Annotated[str, typer.Option(help="Another version, or a wheel's path; the newest by default.")] = "",
    patience_minutes: Annotated[float, typer.Option(help="How long to wait for the shard in hand.", min=0)] = 120.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Install another version into this environment, safely: nothing is given back half done, and there is a way back.

    The shard in hand is completed first. A worker that runs as a service is started again; any other one by you.
    """
    from shardwork.config import Home

    from ..control import stop_and_wait
    from ..upkeep import service, updating

    home, wanted = Home.find(), _wanted(to)
    before = updating.installed()
    if not updating.is_due(wanted):
        typer.echo(f"{before} is what there is; nothing to do", err=True)
        return
    _confirm(f"Update from {before}?", yes)
    is_service = service.unit_path().exists()
    was_running = _drain(home, patience_minutes * 60)
    if was_running:
        service.stop() if is_service else stop_and_wait(home.state_dir / "worker")
    try:
        done = updating.change(wanted)
    finally:
        # with either version: a worker that ran before runs again
        if was_running and is_service:
            service.start()
    typer.echo(f"{done.before} -> {done.after}", err=True)
    if was_running and not is_service:
        typer.echo("Start it again:  shardwork-worker start JOIN", err=True)


def _wanted(to: str) -> str:
    """What pip is asked for; with the worker's extra, whose packages move as well."""
    if not to:
        return "shardwork[worker]"
    return f"{to}[worker]" if to.endswith(".whl") else f"shardwork[worker]=={to}"


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput(
            "update.not_confirmed", "Nobody confirmed.", next_step="Give --yes to update without asking."
        )
    typer.confirm(question, abort=True, err=True)


def _drain(home: Home, patience_s: float) -> bool:
    """Has the worker complete its shard and take no more; whether one runs. Raises Conflict "update.still_busy"."""
    from ..control import Command, ask

    folder = home.state_dir / "worker"
    try:
        found = ask(folder, Command.FINISH)
    except NotFound:
        return False
    until_s = time.monotonic() + patience_s
    try:
        while found.get("shard"):
            if time.monotonic() > until_s:
                raise Conflict(
                    "update.still_busy",
                    "The shard in hand takes longer than you would wait.",
                    next_step="Nothing was changed. Give --patience-minutes, or pause the worker first.",
                    shard=found["shard"],
                )
            time.sleep(LOOK_S)
            found = ask(folder, Command.STATUS)
    except BaseException:
        # also Ctrl-C: it goes on as it did
        ask(folder, Command.RESUME)
        raise
    return True
