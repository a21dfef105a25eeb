"""`migrate`, `backup`, `restore` and `keys`: the command line over upkeep. Called by `cli`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Annotated

import typer

from ..existing_store import DataDir, settings_of

#: exit code of a command that Ctrl-C ended
INTERRUPTED = 130

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]

AllowLoss = Annotated[bool, typer.Option("--allow-loss", help="Go on without artifacts that are missing or damaged.")]

keys_app = typer.Typer(help="Make the keys of a coordinator before it runs.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.command()(migrate)
    app.command()(backup)
    app.command()(restore)
    app.add_typer(keys_app, name="keys")


def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the SQL that would run; change nothing.")] = False,
    data_dir: DataDir = None,
    database: Annotated[str | None, typer.Option(help="Database URL; SQLite in the data folder by default.")] = None,
    as_json: Json = False,
) -> None:
    """Bring the database to this version's schema, in one transaction. `serve` does the same at its start; run it
    before an upgrade to see what comes, or as a job of its own."""
    from ..app import open_store, telling_unusable
    from ..store import SqlStore

    store = open_store(settings_of(data_dir, {"database": database}))
    if not isinstance(store, SqlStore):
        print("nothing to do: this database is kept in memory")
        return
    with telling_unusable():
        done = store.migrate(dry_run=dry_run)
    if as_json:
        steps = [{"revision": one.revision, "what": one.what} for one in done.steps]
        print(json.dumps({"before": done.before, "after": done.after, "steps": steps, "dry_run": dry_run}))
        return
    for step in done.steps:
        print(f"-- {step.revision}: {step.what}")
    if dry_run:
        print("\n".join(f"{statement};" for statement in done.statements))
    verb = "would go" if dry_run else "went"
    where = f"{verb} from {done.before or 'nothing'} to {done.after}" if done.steps else f"is at {done.after} already"
    print(f"-- the database {where}")


def backup(
    target: Annotated[Path, typer.Argument(help="New or empty folder; there will be keys in it.")],
    data_dir: DataDir = None,
    allow_loss: AllowLoss = False,
    as_json: Json = False,
) -> None:
    """Copy database, keys and artifacts, consistently, also while the coordinator serves. The ledger of the copy is
    checked."""
    from .backup import back_up
    from .snapshot import SAYS

    with _heeding_ctrl_c(target / SAYS):
        snapshot = asyncio.run(back_up(settings_of(data_dir, {}), target, allows_loss=allow_loss))
    if as_json:
        print(snapshot.model_dump_json())
        return
    print(f"backed up to {target}: revision {snapshot.revision}, {snapshot.transfers} transfers that balance")
    print(f"{snapshot.artifacts} artifacts of {snapshot.artifact_bytes} bytes, {len(snapshot.keys)} keys")
    if snapshot.artifacts_elsewhere:
        print("the artifacts stay in their object store, which is not copied: keep its old versions")
    print("it holds keys: whoever has it is the coordinator. Take it to another machine")


def restore(
    source: Annotated[Path, typer.Argument(help="Folder that `backup` made.")],
    data_dir: DataDir = None,
    quick: Annotated[bool, typer.Option("--quick", help="Don't read every byte of every artifact.")] = False,
    allow_loss: AllowLoss = False,
    as_json: Json = False,
) -> None:
    """Make a new data folder from a backup: checks digests, books and artifacts, and overwrites nothing."""
    from .restore import restore as bring_back
    from .snapshot import DATABASE

    settings = settings_of(data_dir, {})
    with _heeding_ctrl_c(settings.data_dir / DATABASE):
        work = bring_back(source, settings.data_dir, reads_all=not quick, allows_loss=allow_loss)
        done = asyncio.run(work)
    if as_json:
        found = {
            "artifacts_checked": done.artifacts_checked,
            "artifacts_elsewhere": done.artifacts_elsewhere,
            "artifacts_lost": done.artifacts_lost,
        }
        print(json.dumps({"data_dir": str(settings.data_dir), **found, **json.loads(done.snapshot.model_dump_json())}))
        return
    print(f"restored to {settings.data_dir}: {done.snapshot.transfers} transfers that balance")
    print(f"{done.artifacts_checked} artifacts checked, {len(done.snapshot.keys)} keys")
    if done.artifacts_elsewhere:
        print(f"{done.artifacts_elsewhere} artifacts lie in {done.snapshot.artifacts_elsewhere} and were not looked at")
    for artifact in done.artifacts_lost:
        print(f"lost: artifact {artifact}; jobs that need it fail")
    print(f"start it: shardwork-coordinator serve --data-dir {settings.data_dir} …")


@contextlib.contextmanager
def _heeding_ctrl_c(whole: Path) -> Generator[None, None, None]:
    """Ctrl-C ends it at once: asyncio's own handler would wait for the next await, and copying has none. `whole`: the
    file that is there once the work is done."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt:
        left = f"{whole} is there and whole." if whole.exists() else "What was begun was cleared away."
        print(f"error: Interrupted. {left}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGINT, before)


@keys_app.command("create")
def keys_create(
    folder: Annotated[Path, typer.Argument(help="New folder for the keys.")],
    encrypt_at_rest: Annotated[bool, typer.Option(help="A key for encrypted artifacts as well.")] = False,
    as_json: Json = False,
) -> None:
    """Make the keys that all coordinators of one market share, and their authority's certificate `ca.pem`."""
    from .keys import create

    digest = create(folder, encrypts=encrypt_at_rest)
    if as_json:
        print(json.dumps({"folder": str(folder), "ca_sha256": digest}))
        return
    print(f"keys in {folder}; workers and clients will know the coordinator by ca={digest}")
