"""/v1/fine_tuning/jobs: a job in a client's words, its events and its checkpoints; steered by the handlers of gRPC."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import JSONResponse, Response

from shardwork import wire
from shardwork.errors import NotFound
from shardwork.v1 import jobs_pb2
from shardwork.why import Why

from ... import views
from ...records import Event, Job, JobState, Lease, Round, Shard, Stage
from ...rpc import steering
from ...rpc.jobs import HIGHEST_SEQUENCE
from ...store.base import Transaction
from ..routes import Call, Route
from . import creating, kept, lists, results
from .kept import Wishes
from .lists import QUERY
from .tuning import STAGE

MOST = 100
#: words of an event's kind that say how bad it is
ERRORS = ("failed", "exhausted")
WARNINGS = ("rejected", "expired", "retried", "rolled_back", "paused", "screened", "self_evaluated", "memory_halved")
_STATUS = {
    JobState.DRAFT: "queued",
    JobState.FUNDED: "queued",
    JobState.PAUSED: "paused",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


async def create(call: Call) -> Response:
    return await _answer(call, kept.job_name(await creating.create(call)))


async def retrieve(call: Call) -> Response:
    return await _answer(call, call.named["job"])


async def every(call: Call) -> Response:
    limit, after = lists.limit_of(call.asked, 20, MOST), call.asked.get("after", "")

    def look(tx: Transaction) -> tuple[list[dict[str, Any]], bool]:
        found: list[dict[str, Any]] = []
        is_behind, before = not after, _created_ms(tx, after, call) + 1 if after else None
        for job, wishes in kept.every(tx, call.caller, before):
            if is_behind and len(found) == limit:
                return found, True
            if is_behind:
                found.append(view(tx, job, wishes, call))
            is_behind = is_behind or kept.job_name(job.id) == after
        return found, False

    found, has_more = await call.desk.engine.store.read(look)
    return lists.listed(found, has_more=has_more)


def _created_ms(tx: Transaction, after: str, call: Call) -> int:
    """Of the job that is the cursor. Raises InvalidInput "api.bad_cursor"."""
    try:
        return kept.own(tx, after, call.caller)[0].created_ms
    except NotFound:
        raise lists.bad_cursor(after) from None


def steer(handler: Callable[..., Awaitable[Any]], request: type[Any]) -> Callable[[Call], Awaitable[Response]]:
    async def handle(call: Call) -> Response:
        named = call.named["job"]
        job, _ = await call.desk.engine.store.read(lambda tx: kept.own(tx, named, call.caller))
        await handler(request(job_id=job.id), call.caller, call.desk.engine)
        return await _answer(call, named)

    return handle


async def events(call: Call) -> Response:
    """The newest first."""
    limit, after = lists.limit_of(call.asked, 20, MOST), call.asked.get("after", "")
    number = after.removeprefix("ftevent-")
    if after and not (number.isascii() and number.isdecimal() and len(number) <= 18 and after != number):
        raise lists.bad_cursor(after)
    before = int(number) if after else HIGHEST_SEQUENCE

    def look(tx: Transaction) -> list[dict[str, Any]]:
        job, _ = kept.own(tx, call.named["job"], call.caller)
        page = tx.find(
            Event, job_id=job.id, order="sequence", descending=True, after=before, limit=limit + 1, detail=False
        )
        stage, rounds = tx.get(Stage, job.id, STAGE), tx.find(Round, job_id=job.id, stage=STAGE)
        numbers = _numbers(stage, rounds) if stage else {}
        return [event_view(event, numbers) for event in page]

    found = await call.desk.engine.store.read(look)
    return lists.listed(found[:limit], has_more=len(found) > limit)


async def checkpoints(call: Call) -> Response:
    """A round that was kept is one, the newest first: its name is a model to go on from."""
    limit, after = lists.limit_of(call.asked, 10, MOST), call.asked.get("after", "")

    def look(tx: Transaction) -> list[dict[str, Any]]:
        job, wishes = kept.own(tx, call.named["job"], call.caller)
        stage = tx.get(Stage, job.id, STAGE)
        rounds = results.learned(tx.find(Round, job_id=job.id, stage=STAGE))
        inner = results.inner_steps_of(stage) if stage else 0
        return [checkpoint_view(job, wishes, one, inner) for one in reversed(rounds)]

    found = lists.behind(await call.desk.engine.store.read(look), after, lambda each: str(each["id"]))
    return lists.listed(found[:limit], has_more=len(found) > limit)


# ---- in a client's words ------------------------------------------------------------------------------------------


async def _answer(call: Call, named: str) -> Response:
    def look(tx: Transaction) -> dict[str, Any]:
        return view(tx, *kept.own(tx, named, call.caller), call)

    return JSONResponse(await call.desk.engine.store.read(look))


def view(tx: Transaction, job: Job, wishes: Wishes, call: Call) -> dict[str, Any]:
    artifact_id = results.model_of(tx, job) if job.state is JobState.SUCCEEDED else ""
    hyperparameters = {
        "n_epochs": wishes.n_epochs,
        "batch_size": wishes.batch_size,
        "learning_rate_multiplier": wishes.learning_rate_multiplier,
    }
    return {
        "id": kept.job_name(job.id),
        "object": "fine_tuning.job",
        "created_at": job.created_ms // 1000,
        "finished_at": job.ended_ms // 1000 or None,
        "model": wishes.model,
        "fine_tuned_model": kept.model_name(job, wishes) if artifact_id else None,
        "organization_id": job.owner,
        "status": status_of(tx, job),
        "hyperparameters": hyperparameters,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "training_file": wishes.training_file,
        "validation_file": wishes.validation_file,
        "result_files": results.names(job, has_model=bool(artifact_id)),
        "trained_tokens": _trained_tokens(tx, job) if job.state is JobState.SUCCEEDED else None,
        "error": _error(job),
        "user_provided_suffix": wishes.suffix or None,
        "seed": wishes.seed,
        "estimated_finish": None,
        "integrations": [],
        "metadata": wishes.metadata,
        "shardwork": _ours(tx, job, call),
    }


def status_of(tx: Transaction, job: Job) -> str:
    """Files are validated by the first phase, and a job is queued until somebody holds a shard of it."""
    if job.state in _STATUS:
        return _STATUS[job.state]
    rounds = tx.find(Round, job_id=job.id, stage=STAGE, order="number", limit=1)
    if rounds and rounds[0].phase == "prepare":
        return "validating_files"
    leases = tx.find(Lease, job_id=job.id, limit=1)
    return "running" if rounds and leases else "queued"


def event_view(event: Event, numbers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    measured = numbers.get(event.subject) if event.kind == "round.merged" else None
    word = event.kind.rpartition(".")[2]
    return {
        "id": f"ftevent-{event.sequence}",
        "object": "fine_tuning.job.event",
        "created_at": event.at_ms // 1000,
        "level": "error" if word in ERRORS else "warn" if word in WARNINGS else "info",
        "message": event.sentence,
        "type": "metrics" if measured else "message",
        "data": measured or {"code": event.kind, **json.loads(event.evidence_json)},
    }


def checkpoint_view(job: Job, wishes: Wishes, round_: Round, inner_steps: int) -> dict[str, Any]:
    return {
        "id": f"ftckpt-{job.id}-{round_.number}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": round_.ended_ms // 1000,
        "fine_tuned_model_checkpoint": f"{kept.model_name(job, wishes)}:ckpt-{round_.number}",
        "fine_tuning_job_id": kept.job_name(job.id),
        "metrics": _metrics(round_, inner_steps),
        "step_number": round_.number * inner_steps,
    }


def _numbers(stage: Stage, rounds: list[Round]) -> dict[str, dict[str, Any]]:
    """Subject of a round's event -> what it measured."""
    inner = results.inner_steps_of(stage)
    return {f"{one.job_id}/{STAGE}/r{one.number}": _metrics(one, inner) for one in results.learned(rounds)}


def _metrics(round_: Round, inner_steps: int) -> dict[str, Any]:
    """Only what was measured."""
    found = {"step": round_.number * inner_steps, "train_loss": round_.train_loss, "valid_loss": round_.eval_loss}
    return {name: value for name, value in found.items() if value is not None}


def _error(job: Job) -> dict[str, Any] | None:
    if job.state is not JobState.FAILED:
        return None
    why = Why.from_json(job.why_json) if job.why_json else Why(code="job.failed", sentence="The job failed.")
    is_data = why.code.startswith(("data.", "facts."))
    message = f"{why.sentence} {why.next_step}".strip()
    return {"code": why.code, "message": message, "param": "training_file" if is_data else None}


def _trained_tokens(tx: Transaction, job: Job) -> int:
    return sum(shard.tokens for shard in tx.find(Shard, job_id=job.id, phase="learn", state="done"))


def _ours(tx: Transaction, job: Job, call: Call) -> dict[str, Any]:
    """What these clients have no words for: money, and why it waits."""
    job_view = views.job_view(tx, job, call.desk.engine.links.attached(), rounds=False)
    why = wire.why_from_proto(job_view.why)
    return {
        "job_id": job.id,
        "budget_msat": job_view.budget_msat,
        "spent_msat": job_view.spent_msat,
        "refunded_msat": job_view.refunded_msat,
        "self_evaluated": job_view.self_evaluated,
        "why": {"code": why.code, "message": why.sentence, "next_step": why.next_step},
    }


def _steering(verb: str, handler: Callable[..., Awaitable[Any]], request: type[Any]) -> Route:
    path = f"/fine_tuning/jobs/{{job}}/{verb}"
    return Route(method="POST", path=path, name=f"{verb}_tuning", summary=f"{verb} it", handle=steer(handler, request))


_JOBS = "/fine_tuning/jobs"
TABLE: tuple[Route, ...] = (
    Route(method="POST", path=_JOBS, name="create_tuning", summary="Start.", handle=create),
    Route(method="GET", path=_JOBS, name="list_tunings", summary="Yours.", handle=every, beside=QUERY),
    Route(method="GET", path=_JOBS + "/{job}", name="retrieve_tuning", summary="One.", handle=retrieve),
    Route(
        method="GET",
        path=_JOBS + "/{job}/events",
        name="list_tuning_events",
        summary="Its events.",
        handle=events,
        beside=QUERY,
    ),
    Route(
        method="GET",
        path=_JOBS + "/{job}/checkpoints",
        name="list_tuning_checkpoints",
        summary="Its checkpoints.",
        handle=checkpoints,
        beside=QUERY,
    ),
    _steering("cancel", steering.cancel_job, jobs_pb2.CancelJobRequest),
    _steering("pause", steering.pause_job, jobs_pb2.PauseJobRequest),
    _steering("resume", steering.resume_job, jobs_pb2.ResumeJobRequest),
)
