"""`shardwork-worker`: start a worker, see it, and steer the one that runs.

Owns names, flags and exit codes (a contract). Imports stay light: grpc and the agent load only in `start`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from shardwork.errors import InvalidInput, NotFound, ShardworkError

from .commands import bench, earnings, leave, service, top, update
from .commands.options import JsonFlag
from .control import Command, ask
from .status import hanging, offline, readable

app = typer.Typer(
    help="Runs shards of language-model jobs on this machine and is paid for each one that is accepted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Payout = Annotated[
    str | None, typer.Option("--payout", "--payout-address", help="Lightning address that earnings are paid out to.")
]
Listed = Annotated[
    bool | None, typer.Option("--listed/--no-listed", help="Show this worker's name on the public page.")
]


@app.command()
def start(
    join: Annotated[str, typer.Argument(help="The coordinator's join line: shardwork://HOST:PORT?ca=...")],
    payout: Payout = None,
    name: Annotated[str | None, typer.Option(help="Shown to people beside this worker's id.")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda:0, mps, or cuda*2 for two GPUs on one shard.")
    ] = None,
    minimum_sats: Annotated[int | None, typer.Option(help="Least pay for a shard; 0 gives the work.", min=0)] = None,
    sandbox: Annotated[str | None, typer.Option(help="auto, require (no work without one) or off.")] = None,
    minimum_rate: Annotated[
        int | None,
        typer.Option(metavar="MSAT", help="Least pay, in msat, for 10^12 work units (tokens x parameters).", min=0),
    ] = None,
    donate: Annotated[bool | None, typer.Option("--donate", help="Give the work: take no pay at all.")] = None,
    hours: Annotated[str | None, typer.Option(help="Local times at which shards are taken, as 22:00-07:00.")] = None,
    at_limit: Annotated[
        str | None, typer.Option(help="When hours or the day's bytes end: finish the shard, or give_back.")
    ] = None,
    idle_only: Annotated[
        bool | None, typer.Option("--idle-only", help="Work only while nobody else uses this machine.")
    ] = None,
    memory_share: Annotated[float | None, typer.Option(help="Share of the device's memory to use, as 0.5.")] = None,
    power_watts: Annotated[float | None, typer.Option(help="Rest when a GPU draws more (nvidia-smi).")] = None,
    keep_free_bytes: Annotated[str | None, typer.Option(metavar="SIZE", help="Leave so much disk free.")] = None,
    down_bytes_per_s: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Download at most so much a second, as 2MB.")
    ] = None,
    up_bytes_per_s: Annotated[str | None, typer.Option(metavar="SIZE", help="Upload at most so much a second.")] = None,
    day_bytes: Annotated[str | None, typer.Option(metavar="SIZE", help="Move at most so much a day, as 50GB.")] = None,
    input_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Take no shard that has to fetch more than so much.")
    ] = None,
    recipes: Annotated[str | None, typer.Option(help="Job kinds to take, with commas: sft,pretrain.")] = None,
    listed: Listed = None,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="Exit 0 once no work came for a while.")] = False,
    idle_seconds: Annotated[float, typer.Option(hidden=True, min=0)] = 10.0,
) -> None:
    """Join a coordinator and work until stopped. Ctrl-C gives the shard in hand back."""
    from shardwork.config import Home
    from shardwork.session import JoinLine

    from .app import Start, run
    from .settings import load

    home = Home.find()
    flags = {
        "payout_address": payout,
        "name": name,
        "device": device,
        "minimum_sats": minimum_sats,
        "minimum_msat_per_tera_unit": minimum_rate,
        "donate": donate,
        "listed": listed,
        "sandbox": sandbox,
        "hours": hours,
        "at_limit": at_limit,
        "idle_only": idle_only,
        "memory_share": memory_share,
        "power_watts": power_watts,
        "keep_free_bytes": keep_free_bytes,
        "down_bytes_per_s": down_bytes_per_s,
        "up_bytes_per_s": up_bytes_per_s,
        "day_bytes": day_bytes,
        "input_bytes": input_bytes,
        "recipes": recipes,
    }
    settings = load(home, os.environ, flags)
    wanted = Start(join=JoinLine.parse(join), home=home, settings=settings, idle_s=idle_seconds if until_idle else None)
    raise typer.Exit(run(wanted))


@app.command()
def status(as_json: JsonFlag = False) -> None:
    """What the worker does, why, and what it earned. Exit 4 when none runs."""
    exit_code = 0
    try:
        found = _ask(Command.STATUS)
    except NotFound as error:
        found, exit_code = offline(error.why).to_json(), error.exit_code
    typer.echo(json.dumps(found) if as_json else readable(found))
    raise typer.Exit(exit_code)


@app.command()
def why(as_json: JsonFlag = False) -> None:
    """Why there is no work, why something is not paid, why it rests: code, sentence, evidence and next step of each.

    Exit 4 when no worker runs; what its book explains is told all the same.
    """
    from .account import reasons

    exit_code = 0
    try:
        found = _ask(Command.WHY)
    except NotFound as error:
        found, exit_code = _why_offline(error), error.exit_code
    typer.echo(json.dumps(found) if as_json else reasons.readable(found))
    raise typer.Exit(exit_code)


@app.command()
def pause() -> None:
    """Give the shard in hand back at once and take no more."""
    _tell(Command.PAUSE)


@app.command()
def finish() -> None:
    """Complete the shard in hand, then take no more."""
    _tell(Command.FINISH)


@app.command()
def resume() -> None:
    """Take shards again after pause, finish or too many failures."""
    _tell(Command.RESUME)


@app.command()
def stop() -> None:
    """Give the shard in hand back and end the worker."""
    _tell(Command.STOP)


@app.command()
def doctor(
    join: Annotated[str | None, typer.Argument(help="Also check that this coordinator can be reached.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check disk, key, memory, torch, GPU, sandbox and the line, with cause and fix. Exit 1 when something is broken.

    With a join line it also enrols and measures: name, port, TLS, fingerprint, clock, bandwidth.
    """
    import asyncio

    from shardwork.config import Home
    from shardwork.session import JoinLine

    from .doctor.examination import examine
    from .doctor.finding import Health
    from .settings import load

    home = Home.find()
    try:
        settings = load(home, os.environ, {})
    except InvalidInput as error:
        if error.code != "config.unreadable":
            raise
        settings = None  # a home that can't be read is the first finding
    findings = asyncio.run(examine(home, JoinLine.parse(join) if join else None, settings=settings))
    is_broken = any(finding.health is Health.BAD for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": not is_broken, "checks": [finding.to_json() for finding in findings]}))
    else:
        typer.echo("\n".join(hanging(f"{one.health:<5} {one.check:<17} ", one.why.render()) for one in findings))
    raise typer.Exit(1 if is_broken else 0)


app.add_typer(bench.app)
app.add_typer(top.app)
app.add_typer(earnings.app)
app.add_typer(service.app, name="service")
app.add_typer(update.app)
app.add_typer(leave.app)


def main() -> None:
    """Entry of the command. Prints what went wrong and exits with the error's code."""
    try:
        app()
    except ShardworkError as error:
        print(f"error: {error} [{error.code}]", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        # before the worker listened to signals
        raise SystemExit(130) from None
    except OSError as error:
        refused = _file_refused(error)
        print(f"error: {refused} [{refused.code}]", file=sys.stderr)
        raise SystemExit(refused.exit_code) from None


def _file_refused(error: OSError) -> InvalidInput:
    """What a disk or a folder refused, as a sentence: a read-only home is no bug of ours."""
    return InvalidInput(
        "worker.file_refused",
        f"The worker can't use one of its files or folders: {error.strerror or type(error).__name__}.",
        next_step="Mend its permissions or free some space, or set SHARDWORK_HOME to another place. See: "
        "shardwork-worker doctor",
        file=error.filename or "unknown",
    )


def _why_offline(error: NotFound) -> dict[str, Any]:
    from shardwork.clock import SystemClock
    from shardwork.config import Home

    from .account.book import Book
    from .account.reasons import About, Reason, from_book

    book = Book(Home.find().state_dir / "worker")
    told = [Reason(About.WORK, error.why), *from_book(book, SystemClock().now_ms())]
    return {"state": "offline", "reasons": [reason.to_json() for reason in told]}


def _tell(command: Command) -> None:
    found = _ask(command)
    typer.echo("stopped" if command is Command.STOP else readable(found), err=True)


def _ask(command: Command) -> dict[str, Any]:
    from shardwork.config import Home

    return ask(Home.find().state_dir / "worker", command)


if __name__ == "__main__":
    main()
