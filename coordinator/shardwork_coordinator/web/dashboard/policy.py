"""The rules of the house: each with its value, where that comes from, what it may be, and a form that changes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ...policy import changes
from ...policy.rules import EFFECTS, GROUPS, Rule, Value, rule, shown
from ...records import OfferedModel, PolicyChange
from ...settings import Settings
from ...store.base import Transaction
from .shell import Done, Shell
from .visits import Visit

PATH = "/policy"
MOST_CHANGES = 30
MOST_MODELS = 50
#: limits that only a restart with other settings changes; paths, addresses and secrets are not shown
FIXED = (
    "heartbeat_s",
    "lease_ttl_s",
    "reconnect_grace_s",
    "agreement_grace_s",
    "backup_factor",
    "backup_min_s",
    "upload_keep_hours",
    "hub_max_gib",
    "hub_cache_gib",
    "executor_cache_gib",
    "executor_processes",
    "disk_reserve_mib",
    "direct_transfers",
    "encrypt_at_rest",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRow:
    rule: Rule
    #: as it counts now, written and as JSON
    value: str
    value_json: str
    default: str
    setting: str
    #: the change that counts; None: the setting does
    change: PolicyChange | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    title: str
    effect: str
    rows: Sequence[RuleRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A change in words."""

    change: PolicyChange
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    groups: Sequence[Group]
    history: Sequence[Told]
    models: Sequence[OfferedModel]
    #: name, value and meaning of what only settings change
    fixed: Sequence[tuple[str, str, str]]


def router(shell: Shell) -> APIRouter:
    routes, desk = APIRouter(), shell.desk

    async def show(request: Request, visit: Visit) -> Response:
        found = await desk.engine.store.read(lambda tx: policy(tx, desk.house.settings))
        return shell.html(request, visit, "dashboard/policy.html", found=found)

    async def decide(visit: Visit, form: Mapping[str, str], value: str | None) -> Done:
        now_ms = desk.engine.clock.now_ms()
        wish = changes.Wish(
            name=form.get("name", ""),
            value=value,
            reason=form.get("reason", ""),
            actor=visit.user,
            seen_json=form.get("seen"),
        )
        # with its own entry in the audit log
        await desk.commit(lambda tx: changes.decide(tx, desk.house.settings, wish, now_ms))
        await desk.house.refresh()
        now = shown(getattr(desk.house.now, wish.name)) or "empty"
        return Done(path=f"{PATH}#{wish.name}", sentence=f"{wish.name} is {now} now.")

    async def change(request: Request, visit: Visit, form: dict[str, str]) -> Done:
        return await decide(visit, form, form.get("value", ""))

    async def reset(request: Request, visit: Visit, form: dict[str, str]) -> Done:
        return await decide(visit, form, None)

    shell.page(routes, PATH, show)
    shell.action(routes, f"{PATH}/set", change)
    shell.action(routes, f"{PATH}/reset", reset)
    return routes


def policy(tx: Transaction, settings: Settings) -> Policy:
    now = changes.in_force(tx, settings)
    groups = [
        Group(title=title, effect=EFFECTS[title], rows=[_row(tx, name, now, settings) for name in names])
        for title, names in GROUPS.items()
    ]
    fixed = [(name, shown(getattr(settings, name)), Settings.model_fields[name].description or "") for name in FIXED]
    return Policy(
        groups=groups,
        history=[_told(one) for one in changes.history(tx, limit=MOST_CHANGES)],
        models=tx.find(OfferedModel, withdrawn=False, order="name", limit=MOST_MODELS),
        fixed=fixed,
    )


def _row(tx: Transaction, name: str, now: Settings, settings: Settings) -> RuleRow:
    found, value = rule(name), getattr(now, name)
    latest = changes.newest(tx, name)
    return RuleRow(
        rule=found,
        value=shown(value),
        value_json=json.dumps(value),
        default=shown(found.default),
        setting=shown(getattr(settings, name)),
        change=latest if latest is not None and latest.new_json != changes.RESET else None,
    )


def _told(change: PolicyChange) -> Told:
    new = "as the settings say" if change.new_json == changes.RESET else _words(change.new_json)
    return Told(change=change, old=_words(change.old_json), new=new)


def _words(text: str) -> str:
    """A value as JSON, as people write it; what another version wrote stays as it is."""
    try:
        value: Value = json.loads(text)
    except ValueError:
        return text
    return shown(value) or "empty"
