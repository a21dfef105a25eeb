"""`shardwork-coordinator worker`: look at workers and say what each may do, from the coordinator's own machine.

Each change stands in the audit log, and takes effect at every coordinator on the database within about a second. Part
of `cli`; what a standing means is `standing`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shardwork.money import show as sats

from ..existing_store import DataDir, read, settings_of, write

if TYPE_CHECKING:
    from ..accounts.audit import Deed
    from ..store.base import Transaction

worker_app = typer.Typer(help="Look at workers, and say what each may do.", no_args_is_help=True)

Worker = Annotated[str, typer.Argument(help="Worker id.")]
Reason = Annotated[str, typer.Option(help="Why; for the audit log, and told to the worker's owner.")]


@worker_app.command("list")
def list_workers(
    data_dir: DataDir = None, as_json: Annotated[bool, typer.Option("--json", help="One JSON list on stdout.")] = False
) -> None:
    """Every worker that ever enrolled."""
    from google.protobuf.json_format import MessageToDict

    from ..links import Links
    from ..rpc.operator import worker_views

    views = asyncio.run(read(settings_of(data_dir, {}), partial(worker_views, links=Links())))
    if as_json:
        print(json.dumps([MessageToDict(view, preserving_proto_field_name=True) for view in views]))
        return
    for view in views:
        marks = [view.standing] if view.standing != "normal" else []
        marks += ["reference"] if view.reference else []
        line = f"{view.id}  {view.name or '-'}  accepted {view.accepted}  rejected {view.rejected}  {' '.join(marks)}"
        print(line.rstrip())


@worker_app.command("show")
def show(
    worker: Annotated[str, typer.Argument(help="Id of a worker, or of somebody who judges.")],
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """What a worker, or somebody who judges, did and earned, what of it is paid out, and where to."""
    from ..web.dossier import dossier_json
    from . import standing

    def look(tx: Transaction) -> dict[str, Any]:
        return dossier_json(tx, standing.worker(tx, worker))

    told = asyncio.run(read(settings_of(data_dir, {}), look))
    if as_json:
        print(json.dumps(told))
        return
    money, counts = told["earnings"], told["attempts"]
    print(f"{told['id']}  {told['name'] or '-'}  {told['standing']}")
    print("  ".join(f"{state} {count}" for state, count in counts.items()) or "nothing has ended yet")
    print(
        f"earned {sats(money['earned_msat'])}, not paid out {sats(money['available_msat'])}, "
        f"on the way {sats(money['on_the_way_msat'])}, paid out {sats(money['paid_out_msat'])}"
    )
    for one in money["payouts"]:
        print(f"{one['id']}  {sats(one['msat'])}  {one['state']}")


@worker_app.command("drain")
def drain(worker: Worker, reason: Reason, data_dir: DataDir = None) -> None:
    """Let a worker finish what it holds, and give it nothing new."""
    _set("drained", worker, reason, data_dir)


@worker_app.command("quarantine")
def quarantine(worker: Worker, reason: Reason, data_dir: DataDir = None) -> None:
    """Give a worker's shards to others, give it nothing new, and hold its earnings."""
    _set("quarantined", worker, reason, data_dir)


@worker_app.command("ban")
def ban(worker: Worker, reason: Reason, data_dir: DataDir = None) -> None:
    """Quarantine a worker and refuse its key, for whatever it is used."""
    _set("banned", worker, reason, data_dir)


@worker_app.command("restore")
def restore(worker: Worker, reason: Reason, data_dir: DataDir = None) -> None:
    """Let a worker do everything again; held earnings are paid out."""
    _set("normal", worker, reason, data_dir)


@worker_app.command("reference")
def reference(
    worker: Worker,
    off: Annotated[bool, typer.Option("--off", help="Take the mark away.")] = False,
    reason: Annotated[str, typer.Option(help="Why; for the audit log.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Mark a worker as `reference`: its init, evaluate and publish results need no second key."""
    from . import standing

    deed = standing.reference_deed(worker, reference=not off, reason=reason)
    _do(data_dir, deed, lambda tx: standing.mark_reference(tx, worker, reference=not off))


def _set(name: str, worker: str, reason: str, data_dir: Path | None) -> None:
    from ..records import Standing
    from . import standing

    wanted = Standing(name)
    deed = standing.deed(worker, wanted, standing.stated(reason))
    _do(data_dir, deed, lambda tx: standing.change(tx, worker, wanted, reason))


def _do(data_dir: Path | None, deed: Deed, work: Callable[[Transaction], object]) -> None:
    """Does it and notes it, in one transaction."""
    from ..accounts import audit

    now_ms = time.time_ns() // 1_000_000

    def both(tx: Transaction) -> None:
        work(tx)
        audit.enter(tx, deed, audit.COMMAND_LINE, now_ms)

    asyncio.run(write(settings_of(data_dir, {}), both))
    print(deed.sentence)
