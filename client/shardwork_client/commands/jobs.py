"""The noun `shardwork job`; its verbs stand in `before`, `following`, `steering`, `collecting` and `serving`."""

from __future__ import annotations

import typer

app = typer.Typer(help="Plan, submit, follow and collect jobs.", no_args_is_help=True)

BEFORE = "Before it costs anything"
FOLLOW = "Follow"
STEER = "Steer"
COLLECT = "Collect"
