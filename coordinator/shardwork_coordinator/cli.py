"""`shardwork-coordinator`: serve, and look at the books.

Owns flags, signals and exit codes; `app` builds what runs. Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from shardwork.errors import ShardworkError, Unreachable
from shardwork.protocol import software_version

from .existing_store import DataDir, existing_store, read, settings_of
from .model_commands import model_app
from .policy.commands import policy_app
from .queueing.commands import worker_app
from .upkeep import commands as upkeep
from .user_commands import user_app

app = typer.Typer(
    help="Run a Shardwork coordinator.",
    no_args_is_help=True,
    add_completion=False,
    # its tracebacks show the values of variables, and ours hold keys
    pretty_exceptions_enable=False,
)
ledger_app = typer.Typer(help="Look at the books.", no_args_is_help=True)
storage_app = typer.Typer(help="Look at stored artifacts, and delete what nobody needs.", no_args_is_help=True)
app.add_typer(user_app, name="user")
app.add_typer(model_app, name="model")
app.add_typer(policy_app, name="policy")
app.add_typer(ledger_app, name="ledger")
app.add_typer(worker_app, name="worker")
app.add_typer(storage_app, name="storage")

#: how often it is looked whether the store still takes changes
STORE_CHECK_S = 2.0

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command()
def serve(
    data_dir: DataDir = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT for gRPC; port 0 is any free one.")] = None,
    web: Annotated[str | None, typer.Option(help="HOST:PORT of dashboard, HTTP API and /metrics.")] = None,
    advertise: Annotated[str | None, typer.Option(help="Host name to put into the join line.")] = None,
    database: Annotated[str | None, typer.Option(help="Database URL; SQLite in the data folder by default.")] = None,
    storage: Annotated[str | None, typer.Option(help="Artifact folder or object-store URL.")] = None,
    keys_dir: Annotated[Path | None, typer.Option(help="Folder of keys shared with other coordinators.")] = None,
    encrypt_at_rest: Annotated[
        bool | None, typer.Option(help="Encrypt new artifacts, with a key of this store.")
    ] = None,
    payments: Annotated[str | None, typer.Option(help="Payment back-end: simulated.")] = None,
) -> None:
    """Serve until Ctrl-C. Once ready, prints one JSON line with the join line, the web address and the process id."""
    flags = {
        "listen": listen,
        "web": web,
        "advertise": advertise,
        "database": database,
        "storage": storage,
        "keys_dir": keys_dir,
        "encrypt_at_rest": encrypt_at_rest,
        "payments": payments,
    }
    raise typer.Exit(asyncio.run(_serve(settings_of(data_dir, flags))))


async def _serve(settings: Any) -> int:
    from .app import serving
    from .telemetry import logs

    stop, log = asyncio.Event(), logs.Log("app")
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.loop_failed)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as running:
        said = {"join": running.join, "web": running.web, "pid": os.getpid()}
        # whoever starts it makes the first user of the dashboard
        print(json.dumps(said | ({"setup": running.setup} if running.setup else {})), flush=True)
        log.info("coordinator.started", version=software_version(), pid=os.getpid())
        # what is loaded by now stays for good; looking through it would stop everybody for 0.1 s each time
        gc.collect()
        gc.freeze()
        waiting = asyncio.create_task(stop.wait())
        watching = asyncio.create_task(_watch_store(running.engine.store), name="store")
        done, _ = await asyncio.wait({waiting, watching, *running.background}, return_when=asyncio.FIRST_COMPLETED)
        watching.cancel()
        if waiting in done:
            log.info("coordinator.stopping")
            return 0
        if watching in done:
            watching.result()
        # a part that ended on its own is a broken contract: say which, and stop rather than limp
        broken = next(iter(done))
        error = broken.exception()
        log.error("coordinator.part_ended", part=broken.get_name(), error=error)
        how = logs.kind_of(error) if error else "without an error"
        print(f"error: the {broken.get_name()} loop ended: {how}", file=sys.stderr)
        return 1


async def _watch_store(store: Any) -> None:
    """Until the store takes no changes any more, as after a commit that met a full disk. Then this process ends with
    the reason, for a supervisor or a person to start it again: one that only refuses looks alive and is not."""
    while True:
        await asyncio.sleep(STORE_CHECK_S)
        # an empty transaction: nothing is written to the disk. A database server may be away for a while: then calls
        # are refused, and all goes on by itself once it answers
        with contextlib.suppress(Unreachable):
            await store.write(_nothing)


def _nothing(_: Any) -> None:
    return None


@ledger_app.command("check")
def ledger_check(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Recount every transfer and compare with the accounts. Exit 1 when the books do not balance."""
    from .money.ledger import check, ledger_report_json

    report = asyncio.run(read(settings_of(data_dir, {}), check))
    if as_json:
        print(json.dumps(ledger_report_json(report)))
    else:
        print("balanced" if report.balanced else "NOT BALANCED")
        print(f"{report.transfers} transfers, {report.accounts} accounts, sum {report.sum_msat} msat")
        for violation in report.violations:
            print(f"violation: {violation.render()}")
    raise typer.Exit(0 if report.balanced else 1)


@storage_app.command("show")
def storage_show(data_dir: DataDir = None, as_json: Json = False) -> None:
    """What is stored, by kind, and the ages and limits that are in force."""
    from .artifacts.commands import show

    found = asyncio.run(show(settings_of(data_dir, {}), existing_store))
    print(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))


@storage_app.command("sweep")
def storage_sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; delete nothing.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Delete what no job, lease or owner keeps any more; safe beside a coordinator that serves. `serve` does the same
    every ten minutes."""
    from .artifacts.commands import sweep

    swept = asyncio.run(sweep(settings_of(data_dir, {}), existing_store, dry_run=dry_run))
    if as_json:
        print(json.dumps(swept))
        return
    verb = "would delete" if dry_run else "deleted"
    print(f"{verb} {len(swept['artifacts'])} artifacts, {swept['bytes']} bytes, {swept['uploads']} unfinished uploads")


upkeep.add_to(app)


def main() -> None:
    """Entry point: typed errors become their sentence and exit code, never a traceback."""
    try:
        app()
    except ShardworkError as error:
        print(f"error: {error.why.render()} [{error.code}]", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(f"error: The coordinator can't use a file or folder: {error.strerror or error}{place}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
