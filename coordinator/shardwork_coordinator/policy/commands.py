"""`shardwork-coordinator policy`: the rules of the house from the coordinator's own machine. Part of `cli`.

A coordinator that serves obeys within two seconds.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..existing_store import DataDir, read, settings_of, write

if TYPE_CHECKING:
    from ..records import PolicyChange
    from ..store.base import Transaction

policy_app = typer.Typer(help="Look at the rules of the house, and change them while it runs.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The rule's name.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the audit log.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@policy_app.command("list")
def every(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Every rule with its value, and who changed it last."""
    from .changes import RESET, in_force, newest
    from .rules import rules, shown

    settings = settings_of(data_dir, {})

    def look(tx: Transaction) -> list[dict[str, Any]]:
        now, found = in_force(tx, settings), list[dict[str, Any]]()
        for rule in rules():
            change = newest(tx, rule.name)
            by = change if change is not None and change.new_json != RESET else None
            found.append(
                {
                    "name": rule.name,
                    "value": getattr(now, rule.name),
                    "setting": getattr(settings, rule.name),
                    "default": rule.default,
                    "changed_by": by.actor if by else "",
                    "changed_unix_ms": by.at_ms if by else 0,
                    "bounds": rule.bounds,
                    "meaning": rule.meaning,
                }
            )
        return found

    rows = asyncio.run(read(settings, look))
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        origin = f"  changed by {row['changed_by']}, {_date(row['changed_unix_ms'])}" if row["changed_by"] else ""
        print(f"{row['name']:<22} {shown(row['value']) or '(empty)'}{origin}")


@policy_app.command("set")
def change(
    name: Name,
    value: Annotated[str, typer.Argument(help="Its new value.")],
    reason: Reason,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Change a rule. Jobs that run keep the prices they were submitted with."""
    _decide(data_dir, name, value, reason, as_json=as_json)


@policy_app.command("reset")
def reset(name: Name, reason: Reason, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Let a rule be again what the settings say."""
    _decide(data_dir, name, None, reason, as_json=as_json)


@policy_app.command("history")
def told(
    name: Annotated[str | None, typer.Argument(help="Only of this rule.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, newest first.")] = 50,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Who changed what, when and why."""
    from .changes import history

    def look(tx: Transaction) -> list[PolicyChange]:
        return history(tx, name, limit)

    found: list[PolicyChange] = asyncio.run(read(settings_of(data_dir, {}), look))
    if as_json:
        print(json.dumps([_json(one) for one in found]))
        return
    for one in found:
        new = "as the settings say" if one.new_json == "null" else one.new_json
        print(f"{_date(one.at_ms)}  {one.name}: {one.old_json} -> {new}  {one.actor}: {one.reason}")
    if not found:
        print("Nothing was changed.")


def _decide(data_dir: Path | None, name: str, value: str | None, reason: str, *, as_json: bool) -> None:
    from ..accounts.audit import COMMAND_LINE
    from .changes import Wish, decide

    settings, now_ms = settings_of(data_dir, {}), time.time_ns() // 1_000_000
    wish = Wish(name=name, value=value, reason=reason, actor=COMMAND_LINE)

    def work(tx: Transaction) -> PolicyChange:
        return decide(tx, settings, wish, now_ms)

    made: PolicyChange = asyncio.run(write(settings, work))
    if as_json:
        print(json.dumps(_json(made)))
        return
    now = "as the settings say" if value is None else made.new_json
    print(f"{name}: {made.old_json} -> {now}. A coordinator that serves obeys within two seconds.")


def _json(row: PolicyChange) -> dict[str, Any]:
    return {
        "name": row.name,
        "old": json.loads(row.old_json),
        "new": json.loads(row.new_json),
        "actor": row.actor,
        "reason": row.reason,
        "at_unix_ms": row.at_ms,
    }


def _date(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_ms / 1000))
