"""`shardwork-worker leave`: stop for good, and take every trace of jobs from this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from shardwork.errors import InvalidInput, ShardworkError

if TYPE_CHECKING:
    from shardwork.config import Home

    from ..account.asking import Balance

app = typer.Typer()


@app.command()
def leave(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    forget_key: Annotated[
        bool, typer.Option("--forget-key", help="Delete the key, too: what it earned and is not paid out is lost.")
    ] = False,
) -> None:
    """Give the shard back, end the worker and its service, wipe cache, journal, book and logs. Keeps key and settings.

    What the coordinator's ledger says of this key stays there: nobody can take it back.
    """
    from shardwork.config import Home

    from ..control import stop_and_wait
    from ..limits.size import show
    from ..status import hanging
    from ..upkeep import leaving, service

    home = Home.find()
    found = leaving.traces(home)
    for folder in found.folders:
        typer.echo(f"wipes   {folder}", err=True)
    typer.echo(f"{'deletes' if forget_key else 'keeps  '} {found.key}", err=True)
    for why in leaving.warnings(found, _balance(home), forget_key=forget_key, state=_state(home)):
        typer.echo(hanging("! ", why.render()), err=True)
    _confirm(yes)
    if service.unit_path().exists():
        service.remove()
    stop_and_wait(home.state_dir / "worker")
    wiped = leaving.wipe(home, forget_key=forget_key)
    typer.echo(f"wiped {show(wiped.bytes)}" + (" and the key" if wiped.forgot_key else ""), err=True)


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput("leave.not_confirmed", "Nobody confirmed.", next_step="Give --yes to leave without asking.")
    typer.confirm("Leave?", abort=True, err=True)


def _state(home: Home) -> str:
    from ..control import Command, ask

    try:
        return str(ask(home.state_dir / "worker", Command.STATUS)["state"])
    except ShardworkError:
        return "offline"


def _balance(home: Home) -> Balance | None:
    """What the coordinator says is unpaid; None when it can't be asked."""
    import asyncio

    from ..account import asking
    from ..account.joined import Joined

    if not home.key_path("worker").exists():
        return None

    async def ask() -> Balance:
        async with asking.asking(Joined(home.state_dir / "worker").last(), home) as session:
            return await asking.balance(session)

    try:
        return asyncio.run(ask())
    except ShardworkError:
        return None
