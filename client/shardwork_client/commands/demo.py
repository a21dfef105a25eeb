"""`shardwork demo start | status | stop`: a coordinator and a worker of one's own in the background, to try things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ..outcome import emit, guard, say
from .options import JsonOption

if TYPE_CHECKING:
    from ..demo.local import LocalDemo, Served

app = typer.Typer(help="A coordinator and a worker of your own on this machine, to try things.", no_args_is_help=True)


@app.command()
def start(json_output: JsonOption = False) -> None:
    """Start it, or find it running; after a crash it goes on with the same data.

    Example:  shardwork init --demo
    """
    with guard(json_output, interrupted="What was started runs on:  shardwork demo stop"):
        local = demo()
        was_running = local.is_running()
        served = local.ensure()
        if json_output:
            emit(_json(local))
        else:
            say("The demo runs already." if was_running else "✓ Started a coordinator and a worker in the background.")
            show(local, served)
            say("→ shardwork init --demo")


@app.command()
def status(json_output: JsonOption = False) -> None:
    """Whether it runs, where, and where its logs are."""
    with guard(json_output):
        local = demo()
        served = local.known()
        if json_output:
            emit(_json(local))
        elif served is None:
            say("There is no demo on this machine yet.\n→ shardwork demo start")
        else:
            say("The demo runs." if local.is_running() else "The demo does not run.\n→ shardwork demo start")
            show(local, served)


@app.command()
def stop(json_output: JsonOption = False) -> None:
    """Stop both. Jobs, sats and keys are kept for the next start."""
    with guard(json_output):
        local = demo()
        ended = local.stop()
        if json_output:
            emit(_json(local))
        else:
            say(f"✓ Stopped: {', '.join(ended)}. Its data stays in {local.folder}" if ended else "It does not run.")


def demo() -> LocalDemo:
    """The demo of this home."""
    from shardwork.config import Home

    from ..demo.local import LocalDemo

    return LocalDemo(Home.find())


def show(local: LocalDemo, served: Served) -> None:
    """Where it is, and how to end it: on stderr."""
    say(f"  join line  {served.join}")
    say(f"  dashboard  {served.setup or served.web}")
    say(f"  logs       {local.coordinator.log}")
    say(f"             {local.worker.log}")
    say("  stop it    shardwork demo stop")


def _json(local: LocalDemo) -> dict[str, object]:
    served = local.known()
    return {
        "running": local.is_running(),
        "join": served.join if served else None,
        "web": served.web if served else None,
        "folder": str(local.folder),
        "coordinator_pid": local.coordinator.pid(),
        "worker_pid": local.worker.pid(),
    }
