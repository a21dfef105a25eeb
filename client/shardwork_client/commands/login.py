"""`shardwork login JOIN`: get to know a coordinator, prove our key to it, and remember the join line."""

from __future__ import annotations

from typing import Annotated

import typer

from ..outcome import emit, guard, say
from .options import JsonOption


def login(
    context: typer.Context,
    join: Annotated[str, typer.Argument(metavar="JOIN", help="shardwork://host:port?ca=<sha256>, from the operator.")],
    name: Annotated[str, typer.Option("--name", help="Shown to the operator beside your id.")] = "",
    json_output: JsonOption = False,
) -> None:
    """Trust a coordinator by its join line, enrol as a requester and remember it.

    Example:  shardwork login 'shardwork://gpu.example.org:7443?ca=5f2c…'
    """
    with guard(json_output):
        from shardwork.identity.authority import JoinLine

        from .. import access

        made = access.run(context, lambda client: client.login(join), name=name)
        if json_output:
            emit({"party_id": made.party_id, "join": made.join, "config": str(made.config_file)})
            return
        say(f"✓ The coordinator at {JoinLine.parse(made.join).address} proved to be the one in the join line.")
        say(f"✓ You are enrolled as requester {made.party_id}.")
        say(f"  Remembered in {made.config_file}")
        say("→ shardwork wallet deposit 2000")
