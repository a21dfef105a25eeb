"""`shardwork-worker update`: finish the shard, install, start again; whatever fails brings the old version back."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shardwork.errors import Conflict, InvalidInput, NotFound, ShardworkError

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
    typer.echo(f"looking for {to or 'a newer version'}", err=True)
    if not updating.is_due(wanted):
        typer.echo(f"{before} is what there is; nothing to do", err=True)
        return
    _confirm(f"Update from {before}?", yes)
    is_service = service.unit_path().exists()
    was_running = _drain(home, patience_minutes * 60)
    if was_running:
        if is_service:
            service.stop()
        # also one that was started by hand beside an idle service
        stop_and_wait(home.state_dir / "worker")
    typer.echo("installing; Ctrl-C brings the old version back", err=True)
    try:
        done = updating.change(wanted)
        typer.echo(f"{done.before} -> {done.after}", err=True)
    finally:
        # with either version: a worker that ran before runs again
        if was_running and is_service:
            service.start()
        elif was_running:
            typer.echo("The worker was stopped. Start it again:  shardwork-worker start JOIN", err=True)


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
        before = ask(folder, Command.STATUS)
        if before["state"] == "joining":
            # it has nothing in hand, and takes no other command than stop
            return True
        found = ask(folder, Command.FINISH)
    except NotFound:
        return False
    until_s = time.monotonic() + patience_s
    if found.get("shard"):
        typer.echo(f"waiting for the shard in hand, {found['shard']}; Ctrl-C changes nothing", err=True)
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
    except NotFound:
        # it ended by itself meanwhile
        return True
    except BaseException:
        # also Ctrl-C: it goes on as it did
        if not _rests_by_its_owner(before):
            with contextlib.suppress(ShardworkError):
                ask(folder, Command.RESUME)
        raise
    return True


def _rests_by_its_owner(status: Mapping[str, Any]) -> bool:
    from ..refusals import DRAINING, FINISHED, PAUSED

    return bool(status.get("why")) and status["why"]["code"] in (PAUSED.code, FINISHED.code, DRAINING.code)
