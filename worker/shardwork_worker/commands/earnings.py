"""`shardwork-worker earnings`: what each shard earned, what was paid out, and why something was not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shardwork.errors import NotAllowed, NotAuthenticated, NotFound, ShardworkError, Unreachable

from .options import JsonFlag

if TYPE_CHECKING:
    from shardwork.config import Home

    from ..account.statement import Statement

app = typer.Typer()


@app.command()
def earnings(
    since: Annotated[str | None, typer.Option(help="Only from then on: 2026-11-27, 24h, 7d or 2w.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line a shard and a payment.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Each shard: paid, rejected and why, or pending and until when; each payment with its hash. Totals are status's.

    Asks the coordinator's ledger. When it does not tell, shows what this machine's book knows; exits 7 when nothing
    answered, 5 when the key was refused.
    """
    import time

    from shardwork.config import Home

    from ..account import statement

    since_ms = statement.since(since, time.time()) if since else 0
    made, refused = _made(Home.find(), since_ms)
    answer = made.to_json()
    if as_csv:
        typer.echo(statement.as_csv(answer), nl=False)
    elif as_json:
        typer.echo(json.dumps(answer))
    else:
        typer.echo(statement.readable(answer, most=None if since else statement.MOST_SHOWN))
    if refused is not None:
        typer.echo(f"The coordinator does not tell; this is from the book on this machine: {refused}", err=True)
        raise typer.Exit(refused.exit_code)


def _made(home: Home, since_ms: int) -> tuple[Statement, ShardworkError | None]:
    import asyncio

    from ..account import asking, statement
    from ..account.book import Book
    from ..account.joined import Joined

    state = home.state_dir / "worker"
    join = Joined(state).last()
    # of other coordinators that this key works for, others tell
    lines = [line for line in Book(state).since(0) if line.coordinator == join.ca_sha256]

    async def ask() -> tuple[Any, Any]:
        async with asking.asking(join, home) as session:
            return await asking.transfers(session), await asking.balance(session)

    try:
        transfers, balance = asyncio.run(ask())
    except (Unreachable, NotAllowed, NotAuthenticated, NotFound) as error:
        # also a key that is banned, or that another coordinator at this address never saw
        return statement.statement(lines, None, None, since_ms=since_ms), error
    return statement.statement(lines, transfers, balance, since_ms=since_ms), None
