"""`shardwork-worker service …`: have systemd start this worker at each boot, without root."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from shardwork.errors import NotFound

from .options import JsonFlag

app = typer.Typer(help="This worker under systemd's user manager: started with the machine, restarted when it fails.")

#: what a unit must be told of the environment it was installed from
CARRIED = ("SHARDWORK_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")


@app.command()
def install(
    join: Annotated[str, typer.Argument(help="The coordinator's join line; settings come from worker.toml.")],
    only_print: Annotated[bool, typer.Option("--print", help="Print the unit, and change nothing.")] = False,
) -> None:
    """Write the unit, check it, enable it and start it; again brings it up to date."""
    from shardwork.session import JoinLine

    from ..upkeep import service
    from ..upkeep.unit import Unit

    unit = Unit(
        program=Path(sys.executable).with_name("shardwork-worker"),
        join=JoinLine.parse(join).text(),
        environment={name: os.environ[name] for name in CARRIED if os.environ.get(name)},
    )
    if only_print:
        typer.echo(unit.text(), nl=False)
        return
    found = service.install(unit)
    typer.echo(f"installed {found.path}: {found.enabled}, {found.active}", err=True)
    typer.echo("To run it while nobody is logged in: loginctl enable-linger", err=True)


@app.command()
def remove() -> None:
    """Stop the service, which gives its shard back, and take the unit away."""
    from ..upkeep import service

    typer.echo("removed" if service.remove() else "there was none", err=True)


@app.command()
def status(as_json: JsonFlag = False) -> None:
    """Whether it is installed, enabled and active. Exit 4 when it is not installed."""
    from ..upkeep import service

    try:
        found = service.status()
    except NotFound as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"installed": False}))
        raise typer.Exit(error.exit_code) from None
    if as_json:
        told = {"installed": True, "path": str(found.path), "enabled": found.enabled, "active": found.active}
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{found.path}: {found.enabled}, {found.active}")
