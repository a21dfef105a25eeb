"""Every artifact: newest or largest first, by kind, owner or job, and by the beginning of its id. Reads.

What there is, is looked through among the newest or largest `MOST_LOOKED` rows; the page says so when there are more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ....artifacts.figures import KINDS, kind_of
from ....artifacts.retention import HOUSE, Ages, needs
from ....records import Artifact, ArtifactState, Job, Party
from ....store.base import Transaction
from ..shell import Shell
from ..visits import Visit

PATH = "/artifacts"
PAGE, MOST_LOOKED = 50, 20_000
LONGEST = 100
ORDERS: Mapping[str, str] = {"newest": "created_ms", "largest": "bytes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRow:
    id: str
    kind: str
    state: str
    owner: str
    #: the owner's name, or "the house"
    name: str
    bytes: int
    created_ms: int
    #: the job that its purpose names; empty: it names none
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactList:
    artifacts: Sequence[ArtifactRow]
    #: of what was looked through and matches
    total: int
    total_bytes: int
    #: there is more than was looked through
    is_cut: bool
    newer: str
    older: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    kind: str = ""
    search: str = ""
    owner: str = ""
    job: str = ""
    order: str = "newest"
    unfinished: bool = False
    page: int = 0

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """From an address; what makes no sense is left out."""
        text = {name: query.get(name, "").strip().replace("\0", "")[:LONGEST] for name in ("q", "owner", "job")}
        kind, order, page = query.get("kind", ""), query.get("order", ""), query.get("page", "")
        return cls(
            kind=kind if kind in KINDS else "",
            search=text["q"].lower(),
            owner=text["owner"],
            job=text["job"],
            order=order if order in ORDERS else "newest",
            unfinished=query.get("unfinished") == "1",
            page=int(page) if page.isascii() and page.isdigit() and len(page) < 5 else 0,
        )

    def path(self, **changed: object) -> str:
        fields: dict[str, object] = {
            "kind": self.kind,
            "q": self.search,
            "owner": self.owner,
            "job": self.job,
            "order": "" if self.order == "newest" else self.order,
            "unfinished": "1" if self.unfinished else "",
        }
        asked = urlencode({name: value for name, value in (fields | changed).items() if value})
        return f"{PATH}?{asked}" if asked else PATH


def router(shell: Shell) -> APIRouter:
    routes, desk = APIRouter(), shell.desk

    async def show(request: Request, visit: Visit) -> Response:
        wanted, now = Wanted.of(request.query_params), desk.settings
        ages = Ages(keep_days=now.keep_days, keep_outputs_days=now.keep_outputs_days)
        found = await desk.engine.store.read(lambda tx: listed(tx, wanted, ages))
        seen: dict[str, Any] = {"found": found, "wanted": wanted, "kinds": KINDS, "orders": tuple(ORDERS)}
        return shell.html(request, visit, "dashboard/artifacts/list.html", figures=desk.storage, **seen)

    shell.page(routes, PATH, show)
    return routes


def listed(tx: Transaction, wanted: Wanted, ages: Ages) -> ArtifactList:
    rows, is_cut = _looked(tx, wanted, ages)
    found = [row for row in rows if not wanted.kind or kind_of(row) == wanted.kind]
    start = wanted.page * PAGE
    shown = found[start : start + PAGE]
    return ArtifactList(
        artifacts=[_row(tx, row) for row in shown],
        total=len(found),
        total_bytes=sum(row.bytes for row in found),
        is_cut=is_cut,
        newer=wanted.path() if wanted.page else "",
        older=wanted.path(page=wanted.page + 1) if len(found) > start + PAGE else "",
    )


def _looked(tx: Transaction, wanted: Wanted, ages: Ages) -> tuple[list[Artifact], bool]:
    """Rows of the wanted state, owner, job and beginning, in the wanted order; and whether there are more."""
    state = ArtifactState.STAGING if wanted.unfinished else ArtifactState.STORED
    equals: dict[str, Any] = {"state": state} | ({"owner": wanted.owner} if wanted.owner else {})
    if wanted.job:
        job = tx.get(Job, wanted.job)
        ids = sorted({need.artifact_id for need in needs(tx, job, ages)} if job else ())[:MOST_LOOKED]
        rows = [row for one in ids for row in tx.find(Artifact, id=one, **equals)]
    elif wanted.search:
        beginning = tx.find(Artifact, order="id", after=wanted.search, limit=MOST_LOOKED + 1, **equals)
        rows = tx.find(Artifact, id=wanted.search, **equals)
        rows += [row for row in beginning if row.id.startswith(wanted.search)]
    else:
        rows = tx.find(Artifact, order=ORDERS[wanted.order], descending=True, limit=MOST_LOOKED + 1, **equals)
        return rows[:MOST_LOOKED], len(rows) > MOST_LOOKED
    rows = [row for row in rows if row.id.startswith(wanted.search)]
    rows.sort(key=lambda row: (row.bytes if wanted.order == "largest" else row.created_ms, row.id), reverse=True)
    return rows[:MOST_LOOKED], len(rows) > MOST_LOOKED


def _row(tx: Transaction, row: Artifact) -> ArtifactRow:
    return ArtifactRow(
        id=row.id,
        kind=kind_of(row),
        state=str(row.state),
        owner=row.owner,
        name=name_of(tx, row.owner),
        bytes=row.bytes,
        created_ms=row.created_ms,
        job_id=job_of(row),
    )


def name_of(tx: Transaction, owner: str) -> str:
    if owner == HOUSE:
        return "the house"
    party = tx.get(Party, owner)
    return party.name if party and party.name else owner


def job_of(row: Artifact) -> str:
    """The job that a row was made for, as far as its purpose tells."""
    if row.purpose.startswith("output of "):
        return row.purpose.removeprefix("output of ")
    # a lease's id begins with its job's
    return row.purpose.split("/")[0] if kind_of(row) == "result" and "/" in row.purpose else ""
