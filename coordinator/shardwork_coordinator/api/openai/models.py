"""/v1/models: base models that are offered, and what the caller's jobs made."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from shardwork.errors import InvalidInput, NotFound
from shardwork.v1 import storage_pb2

from ...hub import offered
from ...records import Job, JobState, OfferedModel
from ...rpc.auth import Caller
from ...rpc.storage import delete_artifact
from ...store.base import Transaction
from ..routes import Call, Route
from . import kept, results
from .kept import Wishes


async def every(call: Call) -> Response:
    def look(tx: Transaction) -> list[dict[str, Any]]:
        bases = [base_view(row) for row in offered.every(tx)]
        made = kept.every(tx, call.caller, state=JobState.SUCCEEDED)
        return bases + [view(job, wishes) for job, wishes in made if results.model_of(tx, job)]

    return JSONResponse({"object": "list", "data": await call.desk.engine.store.read(look)})


async def retrieve(call: Call) -> Response:
    named = call.named["model"]

    def look(tx: Transaction) -> dict[str, Any]:
        if named.startswith("ft:"):
            job, wishes, _ = own(tx, named, call.caller)
            return view(job, wishes)
        row = tx.get(OfferedModel, named)
        if row is None or row.withdrawn:
            raise _missing(named)
        return base_view(row)

    return JSONResponse(await call.desk.engine.store.read(look))


async def delete(call: Call) -> Response:
    """Gives up what a job made, as `shardwork artifact delete` does. Base models are the operator's."""
    named, ages = call.named["model"], call.desk.artifacts.limits.ages

    def work(tx: Transaction) -> None:
        if not named.startswith("ft:") and tx.get(OfferedModel, named) is not None:
            raise InvalidInput(
                "model.not_yours", "A base model is the operator's.", next_step="Delete your own.", param="model"
            )
        _, _, artifact_id = own(tx, named, call.caller)
        delete_artifact(tx, storage_pb2.DeleteArtifactRequest(artifact_id=artifact_id), call.caller, ages)

    await call.desk.commit(work)
    return JSONResponse({"id": named, "object": "model", "deleted": True})


def own(tx: Transaction, named: str, caller: Caller) -> tuple[Job, Wishes, str]:
    """(job, its wishes, artifact id). Raises NotFound "model.not_found", for another's as for none."""
    job_id = named.split(":")[3] if named.count(":") == 3 else ""
    job = tx.get(Job, job_id)
    wishes = kept.wishes_of(tx, job) if job is not None and job.owner == caller.party_id else None
    if job is None or wishes is None or kept.model_name(job, wishes) != named:
        raise _missing(named)
    artifact_id = results.model_of(tx, job) if job.state is JobState.SUCCEEDED else ""
    if not artifact_id:
        raise _missing(named)
    return job, wishes, artifact_id


def base_view(row: OfferedModel) -> dict[str, Any]:
    return {"id": row.name, "object": "model", "created": row.created_ms // 1000, "owned_by": "operator"}


def view(job: Job, wishes: Wishes) -> dict[str, Any]:
    name = kept.model_name(job, wishes)
    return {"id": name, "object": "model", "created": job.ended_ms // 1000, "owned_by": job.owner}


def _missing(named: str) -> NotFound:
    return NotFound(
        "model.not_found", f"There is no model {named[:80]!r}.", next_step="List the models.", param="model"
    )


TABLE: tuple[Route, ...] = (
    Route(method="GET", path="/models", name="openai_models", summary="All.", handle=every),
    Route(method="GET", path="/models/{model}", name="openai_model", summary="One.", handle=retrieve),
    Route(method="DELETE", path="/models/{model}", name="delete_model", summary="Give it up.", handle=delete),
)
