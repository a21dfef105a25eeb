"""The audit log: what people did as operators, newest first, by actor, action and subject. Only ever read."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ...records import AuditEntry
from ...store.base import Store, Transaction
from ..rows import moment
from .money.export import MOST_ROWS, csv_response
from .shell import Shell
from .visits import Visit

PATH = "/audit"
PAGE, EXPORT_PAGE = 50, 1_000
LONGEST = 200
COLUMNS = ("at", "actor", "action", "subject", "sentence", "reason", "evidence", "id")
#: pages of what an action is about, by the beginning of its name; the subject follows
PLACES: Mapping[str, str] = {
    "job.": "/jobs/",
    "shard.": "/jobs/",
    "worker.": "/workers/",
    "policy.": "/policy#",
    "artifact.": "/artifacts/",
    "user.": "/users#",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryRow:
    entry: AuditEntry
    evidence: Mapping[str, str]
    #: the page of its subject; empty: there is none
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryList:
    entries: Sequence[EntryRow]
    #: who and what there is, with how often
    actors: Mapping[str, int]
    actions: Mapping[str, int]
    newer: str
    older: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    actor: str = ""
    action: str = ""
    subject: str = ""
    #: the last entry of the page before
    after: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        names = ("actor", "action", "subject", "after")
        return cls(**{name: query.get(name, "").strip().replace("\0", "")[:LONGEST] for name in names})

    @property
    def matches(self) -> dict[str, Any]:
        given = {"actor": self.actor, "action": self.action, "subject": self.subject}
        return {name: value for name, value in given.items() if value}

    def path(self, base: str = PATH, **changed: str) -> str:
        asked = urlencode({name: value for name, value in (self.matches | changed).items() if value})
        return f"{base}?{asked}" if asked else base


def router(shell: Shell) -> APIRouter:
    routes, store = APIRouter(), shell.desk.engine.store

    async def show(request: Request, visit: Visit) -> Response:
        wanted = Wanted.of(request.query_params)
        found = await store.read(lambda tx: listed(tx, wanted))
        return shell.html(request, visit, "dashboard/audit.html", found=found, wanted=wanted, most=MOST_ROWS)

    async def export(request: Request, visit: Visit) -> Response:
        return csv_response("audit", COLUMNS, exported(store, Wanted.of(request.query_params)))

    shell.page(routes, PATH, show)
    shell.page(routes, f"{PATH}.csv", export)
    return routes


def listed(tx: Transaction, wanted: Wanted) -> EntryList:
    found = _newest(tx, wanted, wanted.after, PAGE + 1)
    shown = found[:PAGE]
    return EntryList(
        entries=[EntryRow(entry=one, evidence=json.loads(one.evidence_json), path=_place(one)) for one in shown],
        actors=dict(sorted(tx.count(AuditEntry, "actor").items())),
        actions=dict(sorted(tx.count(AuditEntry, "action").items())),
        newer=wanted.path() if wanted.after else "",
        older=wanted.path(after=shown[-1].id) if len(found) > PAGE else "",
    )


async def exported(store: Store, wanted: Wanted) -> AsyncGenerator[Sequence[Sequence[object]], None]:
    after = wanted.after
    while found := await store.read(partial(_newest, wanted=wanted, after=after, limit=EXPORT_PAGE)):
        yield [
            (moment(one.at_ms), one.actor, one.action, one.subject, one.sentence, one.reason, one.evidence_json, one.id)
            for one in found
        ]
        after = found[-1].id


def _newest(tx: Transaction, wanted: Wanted, after: str, limit: int) -> list[AuditEntry]:
    return tx.find(AuditEntry, order="id", descending=True, after=after or None, limit=limit, **wanted.matches)


def _place(entry: AuditEntry) -> str:
    if entry.action.startswith("payout."):
        return "/money/payments"
    base = next((path for start, path in PLACES.items() if entry.action.startswith(start)), "")
    subject = entry.subject.split("/")[0] if base == "/jobs/" else entry.subject
    return f"{base}{subject}" if base and subject.replace("-", "").replace("_", "").isalnum() else ""
