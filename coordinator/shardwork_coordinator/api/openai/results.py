"""Result files of a fine-tuning job, made when they are read: its losses as CSV, and what it learned as a tar.

The tar holds the adapter's folder as `peft` loads it; its bytes are always the same, so a download may resume.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from starlette.responses import Response

from ...records import Artifact, ArtifactState, Job, JobState, Round, Stage
from ...rpc.artifacts import granted
from ...rpc.auth import Caller
from ...store.base import Transaction
from .. import contents
from ..contents import Piece
from ..routes import Call
from .kept import Wishes, every, wishes_of
from .tuning import STAGE

_NAME = re.compile(r"file-([0-9a-f]{12})-(metrics|model)")
MODEL = f"{STAGE}.model"


class Kind(StrEnum):
    METRICS = "metrics"
    MODEL = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One result file."""

    job: Job
    wishes: Wishes
    kind: Kind
    #: of the model
    artifact_id: str

    @property
    def id(self) -> str:
        return f"file-{self.job.id}-{self.kind}"

    @property
    def filename(self) -> str:
        return f"{self.job.id}-metrics.csv" if self.kind is Kind.METRICS else f"{self.job.id}.tar"


def names(job: Job, *, has_model: bool) -> list[str]:
    """Ids of the job's result files."""
    if job.state is not JobState.SUCCEEDED:
        return []
    return [f"file-{job.id}-{kind}" for kind in Kind if has_model or kind is Kind.METRICS]


def model_of(tx: Transaction, job: Job) -> str:
    """The artifact id of what the job learned; empty where there is none (any more)."""
    stage = tx.get(Stage, job.id, STAGE)
    output = json.loads(stage.outputs_json).get(MODEL) if stage else None
    row = tx.get(Artifact, output["artifact_id"], job.owner) if output else None
    return row.id if row is not None and row.state is ArtifactState.STORED else ""


def of_owner(tx: Transaction, caller: Caller) -> list[Made]:
    """Of every job of the caller's that succeeded."""
    found = every(tx, caller, state=JobState.SUCCEEDED)
    return [made for job, wishes in found for made in _of_job(tx, job, wishes)]


async def find(call: Call, named: str) -> Made | None:
    """The caller's result file of this id."""
    match = _NAME.fullmatch(named)
    if match is None:
        return None

    def look(tx: Transaction) -> Made | None:
        job = tx.get(Job, match[1])
        if job is None or job.owner != call.caller.party_id or job.state is not JobState.SUCCEEDED:
            return None
        wishes = wishes_of(tx, job)
        return next((one for one in _of_job(tx, job, wishes) if one.id == named), None) if wishes else None

    return await call.desk.engine.store.read(look)


async def view(call: Call, made: Made) -> dict[str, Any]:
    return {
        "id": made.id,
        "object": "file",
        "bytes": contents.size_of((await _pieces(call, made))[1]),
        "created_at": made.job.ended_ms // 1000,
        "filename": made.filename,
        "purpose": "fine-tune-results",
        "status": "processed",
        "status_details": None,
    }


async def content(call: Call, made: Made) -> Response:
    manifest, pieces = await _pieces(call, made)
    if manifest is None:
        return Response(pieces[0].data, media_type="text/csv")
    return contents.answer(call, manifest, pieces, made.filename)


def metrics(rounds: Sequence[Round], inner_steps: int) -> str:
    """A line for each round that was kept, at the steps that each shard had taken."""
    lines = ["step,round,train_loss,valid_loss"]
    for one in learned(rounds):
        lines.append(f"{one.number * inner_steps},{one.number},{_number(one.train_loss)},{_number(one.eval_loss)}")
    return "\n".join(lines) + "\n"


def learned(rounds: Sequence[Round]) -> list[Round]:
    """Rounds of learning that were kept, in order."""
    return sorted((one for one in rounds if one.kind == "learn" and one.state == "merged"), key=lambda one: one.number)


def inner_steps_of(stage: Stage) -> int:
    return int(json.loads(stage.spec_json)["plan"]["inner_steps"])


def _of_job(tx: Transaction, job: Job, wishes: Wishes) -> list[Made]:
    artifact_id = model_of(tx, job)
    kinds = Kind if artifact_id else (Kind.METRICS,)
    return [Made(job=job, wishes=wishes, kind=kind, artifact_id=artifact_id) for kind in kinds]


async def _pieces(call: Call, made: Made) -> tuple[Any, list[Piece]]:
    """(the manifest, or None for what is no artifact's, pieces)."""
    if made.kind is Kind.MODEL:
        manifest = await granted(made.artifact_id, call.caller, call.desk.artifacts)
        return manifest, await contents.of_tar(call, manifest, made.job.id)

    def look(tx: Transaction) -> str:
        stage = tx.get(Stage, made.job.id, STAGE)
        rounds = tx.find(Round, job_id=made.job.id, stage=STAGE)
        return metrics(rounds, inner_steps_of(stage)) if stage else ""

    text = (await call.desk.engine.store.read(look)).encode()
    return None, [Piece(len(text), data=text)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
