"""`shardwork login JOIN`: get to know a coordinator, prove our key to it, and remember the join line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..outcome import emit, guard, say
from .options import JsonOption

if TYPE_CHECKING:
    from shardwork.session import Session


def login(
    join: Annotated[str, typer.Argument(metavar="JOIN", help="shardwork://host:port?ca=<sha256>, from the operator.")],
    name: Annotated[str, typer.Option("--name", help="Shown to the operator beside your id.")] = "",
    json_output: JsonOption = False,
) -> None:
    """Trust a coordinator by its join line, enrol as a requester and remember it.

    Example:  shardwork login 'shardwork://gpu.example.org:7443?ca=5f2c…'
    """
    with guard(json_output):
        from shardwork.client.settings import Access, save_join
        from shardwork.config import Home
        from shardwork.session import JoinLine

        from .. import access

        line = JoinLine.parse(join)
        where = Access(line, Home.find())
        party = access.run(where, _enrolled_as, name=name)
        saved = save_join(where.home, line)
        if json_output:
            emit({"party_id": party, "join": line.text(), "config": str(saved)})
            return
        say(f"✓ The coordinator at {line.address} proved to be the one in the join line.")
        say(f"✓ You are enrolled as requester {party}.")
        say(f"  Remembered in {saved}")
        say("→ shardwork wallet deposit 2000")


async def _enrolled_as(session: Session) -> str:
    return session.party_id
