"""Samples: answers and preferences of a stage side by side, prompt by prompt; for operators, who may read everything.

A page is a number of rows from a byte of the file on, so that no file needs an index; a search reads on from there, as
far as one page may, and says where it stopped. Texts are strangers': cut here, escaped by the template.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from shardwork.errors import NotFound

from ....artifacts import ArtifactStore
from ....records import Job, Stage
from ....store.base import Transaction
from ..job import named
from ..shell import Shell, viewer_refused
from ..visits import Visit
from .reading import Lines, Row

PATH = "/jobs/{job_id}/samples/{output}"
PAGE = 20
#: of one text, and answers side by side
MOST_LETTERS, MOST_ANSWERS = 6_000, 8
LONGEST_SEARCH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """An answer, or a prompt, under what it is called."""

    label: str
    text: str
    #: letters that are not shown
    more: int = 0
    note: str = ""
    #: "", "chosen" or "rejected"
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    prompt_id: str
    prompt: Text
    texts: Sequence[Text]
    #: said of the row as a whole
    note: str


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
    samples: Sequence[Sample]
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
    needle = asked.search.casefold()
    lines = Lines(contents, outputs[asked.output])
    found = lines.page(asked.start, PAGE, lambda row: not needle or needle in _words(row.get("prompt", "")).casefold())
    beside = _beside(contents, outputs.get(asked.beside, ""), found.rows)
    return SamplesPage(
        job=job,
        samples=[_sample(row, beside.get(_id(row)), asked) for row in found.rows],
        outputs=list(outputs),
        first=asked.path(0) if asked.start else "",
        next=asked.path(found.more) if found.more is not None else "",
    )


def _beside(contents: ArtifactStore, artifact: str, rows: Sequence[Row]) -> dict[str, Row]:
    """Rows of the other output about the same prompts, as far as one page may read."""
    wanted = {_id(row) for row in rows} - {""}
    if not artifact or not wanted:
        return {}
    found = Lines(contents, artifact).page(0, len(wanted), lambda row: _id(row) in wanted)
    return {_id(row): row for row in found.rows}


def _sample(row: Row, other: Row | None, asked: Asked) -> Sample:
    texts = _texts(row, asked.output if other else "")
    if other is not None:
        texts += _texts(other, asked.beside)
    return Sample(
        prompt_id=_id(row), prompt=_cut("Prompt", row.get("prompt", "")), texts=texts[:MOST_ANSWERS], note=_note(row)
    )


def _texts(row: Row, source: str) -> list[Text]:
    """The row's answers. `source`: told with each where there are several."""
    of = f" · {source}" if source else ""
    if "chosen" in row or "rejected" in row:
        return [_cut(f"{name}{of}", row.get(name, ""), mark=name) for name in ("chosen", "rejected")]
    answers: Any = row.get("answers")
    if isinstance(answers, list):
        return [_answer(one, of) for one in cast("list[object]", answers)[:MOST_ANSWERS]]
    return [_cut(f"{name}{of}", row[name]) for name in ("completion", "answer", "text") if name in row][:1]


def _answer(value: object, of: str) -> Text:
    answer = cast("Row", value) if isinstance(value, dict) else {"text": value}
    said = [f"{answer['tokens']} tokens"] if isinstance(answer.get("tokens"), int) else []
    if isinstance(answer.get("logprob"), int | float):
        said.append(f"log-probability {answer['logprob']:.3g}")
    if answer.get("ended") is False:
        said.append("cut off")
    return _cut(f"{answer.get('model') or 'answer'}{of}"[:200], answer.get("text", ""), note=", ".join(said))


def _note(row: Row) -> str:
    said: list[str] = []
    if isinstance(row.get("confidence"), int | float):
        said.append(f"confidence {100 * row['confidence']:.0f} %")
    if isinstance(row.get("votes"), int):
        said.append(f"{row['votes']} {'vote' if row['votes'] == 1 else 'votes'}")
    return ", ".join(said)


def _cut(label: str, value: object, *, note: str = "", mark: str = "") -> Text:
    text = _words(value)
    more = max(len(text) - MOST_LETTERS, 0)
    return Text(label=label, text=text[:MOST_LETTERS], more=more, note=note, mark=mark)


def _words(value: object) -> str:
    """A text, or a conversation's turns."""
    if not isinstance(value, list):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    turns = [cast("Row", one) if isinstance(one, dict) else {"content": one} for one in cast("list[object]", value)]
    if len(turns) == 1:
        return str(turns[0].get("content", ""))
    return "\n\n".join(f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in turns)


def _id(row: Row) -> str:
    return str(row.get("prompt_id", ""))
