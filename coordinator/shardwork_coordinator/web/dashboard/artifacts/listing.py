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

from ....artifacts.figures import KINDS, kind_by
from ....artifacts.retention import HOUSE, Ages, needs
from ....records import Artifact, ArtifactState, Job, Party
from ....store.base import Transaction
from ..shell import Shell
from ..visits import Visit

PATH = "/artifacts"
PAGE, MOST_LOOKED = 50, 20_000
LONGEST = 100
#: ids of one question; each number of them is a statement of its own, and compiling a long one takes longer than asking
CHUNK = 50
#: columns that the list needs
ROW = ("id", "owner", "purpose", "state", "bytes", "created_ms")
Row = tuple[Any, ...]
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
    found = [row for row in rows if kind_by(row[1], row[2]) == wanted.kind] if wanted.kind else rows
    start = wanted.page * PAGE
    return ArtifactList(
        artifacts=[_row(tx, row) for row in found[start : start + PAGE]],
        total=len(found),
        total_bytes=sum(row[4] for row in found),
        is_cut=is_cut,
        newer=wanted.path() if wanted.page else "",
        older=wanted.path(page=wanted.page + 1) if len(found) > start + PAGE else "",
    )


def _looked(tx: Transaction, wanted: Wanted, ages: Ages) -> tuple[list[Row], bool]:
    """Rows of the wanted state, owner, job and beginning, in the wanted order; and whether there are more."""
    state = ArtifactState.STAGING if wanted.unfinished else ArtifactState.STORED
    equals: dict[str, Any] = {"state": state} | ({"owner": wanted.owner} if wanted.owner else {})
    if wanted.job:
        rows = _of_job(tx, wanted.job, ages, equals)
    elif wanted.search:
        rows = tx.pick(Artifact, ROW, id=wanted.search, **equals)
        rows += tx.pick(Artifact, ROW, order="id", after=wanted.search, limit=MOST_LOOKED + 1, **equals)
    else:
        rows = tx.pick(Artifact, ROW, order=ORDERS[wanted.order], descending=True, limit=MOST_LOOKED + 1, **equals)
        return rows[:MOST_LOOKED], len(rows) > MOST_LOOKED
    rows = [row for row in rows if row[0].startswith(wanted.search)]
    place = ROW.index(ORDERS[wanted.order])
    rows.sort(key=lambda row: (row[place], row[0]), reverse=True)
    return rows[:MOST_LOOKED], len(rows) > MOST_LOOKED


def _of_job(tx: Transaction, job_id: str, ages: Ages, equals: dict[str, Any]) -> list[Row]:
    """What a job keeps, or kept."""
    job = tx.get(Job, job_id)
    ids = sorted({need.artifact_id for need in needs(tx, job, ages)} if job else ())
    chunks = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
    return [row for chunk in chunks for row in tx.pick(Artifact, ROW, id=chunk, **equals)]


def _row(tx: Transaction, row: Row) -> ArtifactRow:
    artifact_id, owner, purpose, state, size, created_ms = row
    return ArtifactRow(
        id=artifact_id,
        kind=kind_by(owner, purpose),
        state=str(state),
        owner=owner,
        name=name_of(tx, owner),
        bytes=size,
        created_ms=created_ms,
        job_id=job_by(owner, purpose),
    )


def name_of(tx: Transaction, owner: str) -> str:
    if owner == HOUSE:
        return "the house"
    party = tx.get(Party, owner)
    return party.name if party and party.name else owner


def job_by(owner: str, purpose: str) -> str:
    """The job that a row was made for, as far as its purpose tells."""
    if purpose.startswith("output of "):
        return purpose.removeprefix("output of ")
    # a lease's id begins with its job's
    return purpose.split("/")[0] if kind_by(owner, purpose) == "result" and "/" in purpose else ""
