"""Samples: answers and preferences of a stage side by side, prompt by prompt; for operators, who may read everything.

A page is a number of rows from a byte of the file on; a search reads on from there, as far as one page may, and says
where it stopped. Texts are strangers': cut by `shardwork.feedback.samples`, which `shardwork job samples` uses too, and
escaped by the template.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from shardwork.errors import NotFound
from shardwork.feedback.samples import LONGEST_SEARCH, Row, SampleRow, first_of_each, is_about, prompt_id, sample
from shardwork.problem import Problem

from ....artifacts import ArtifactStore
from ....records import Job, Stage
from ....store.base import Transaction
from ..job import named
from ..shell import Shell, viewer_refused
from ..visits import Visit
from .reading import Lines

PATH = "/jobs/{job_id}/samples/{output}"
PAGE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    job_id: str
    output: str
    search: str
    start: int
    #: another output with answers to the same prompts
    beside: str

    @classmethod
    def of(cls, request: Request) -> Asked:
        query = request.query_params
        start = query.get("at", "")
        return cls(
            job_id=str(request.path_params["job_id"])[:64].replace("\0", ""),
            output=str(request.path_params["output"])[:120],
            search=" ".join(query.get("q", "").split())[:LONGEST_SEARCH],
            start=int(start) if start.isascii() and start.isdigit() and len(start) < 16 else 0,
            beside=query.get("beside", "")[:120],
        )

    def path(self, start: int) -> str:
        query = {"q": self.search, "beside": self.beside, "at": str(start) if start else ""}
        told = urlencode({name: value for name, value in query.items() if value})
        return f"/jobs/{self.job_id}/samples/{self.output}" + (f"?{told}" if told else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesPage:
    job: Job
    samples: Sequence[SampleRow]
    #: lines that are no rows
    problems: Sequence[Problem]
    #: the other output holds more than one page reads, and not every prompt was found in it
    is_beside_unread: bool
    #: outputs with rows of the job
    outputs: Sequence[str]
    first: str
    next: str


def router(shell: Shell) -> APIRouter:
    routes, desk = APIRouter(), shell.desk

    async def show(request: Request, visit: Visit) -> Response:
        if not visit.may_act:
            raise viewer_refused(visit)
        asked = Asked.of(request)
        job, outputs = await desk.engine.store.read(lambda tx: _outputs(tx, asked.job_id))
        seen = await asyncio.to_thread(_page, desk.contents, job, outputs, asked)
        return shell.html(request, visit, "dashboard/alignment/samples.html", seen=seen, asked=asked)

    shell.page(routes, PATH, show)
    return routes


def readable(outputs: Iterable[str]) -> list[str]:
    return [name for name in outputs if name.endswith(".rows")]


def _outputs(tx: Transaction, job_id: str) -> tuple[Job, Mapping[str, str]]:
    job = named(tx, job_id)
    found: dict[str, str] = {}
    for stage in tx.find(Stage, job_id=job.id, order="position"):
        outputs: Mapping[str, Mapping[str, str]] = json.loads(stage.outputs_json)
        found |= {name: outputs[name]["artifact_id"] for name in readable(outputs)}
    return job, found


def _page(contents: ArtifactStore | None, job: Job, outputs: Mapping[str, str], asked: Asked) -> SamplesPage:
    if contents is None or asked.output not in outputs:
        raise NotFound(
            "samples.no_output",
            "This job made no such rows, or has not made them yet.",
            next_step="Its page lists what it made.",
            output=asked.output,
        )
    found = Lines(contents, outputs[asked.output]).page(asked.start, PAGE, lambda row: is_about(row, asked.search))
    beside, is_whole = _beside(contents, outputs.get(asked.beside, ""), found.rows)
    names = (asked.output, asked.beside)
    return SamplesPage(
        job=job,
        samples=[sample(row, beside.get(prompt_id(row)), names) for row in found.rows],
        problems=found.problems,
        is_beside_unread=not is_whole,
        outputs=list(outputs),
        first=asked.path(0) if asked.start else "",
        next=asked.path(found.more) if found.more is not None else "",
    )


def _beside(contents: ArtifactStore, artifact: str, rows: Sequence[Row]) -> tuple[dict[str, Row], bool]:
    """Rows of the other output about the same prompts, as far as one page may read; whether that was far enough."""
    wanted = {prompt_id(row) for row in rows} - {""}
    if not artifact or not wanted:
        return {}, True
    found = Lines(contents, artifact).page(0, len(wanted), first_of_each(wanted))
    by_prompt = {prompt_id(row): row for row in found.rows}
    return by_prompt, found.more is None or len(by_prompt) == len(wanted)
