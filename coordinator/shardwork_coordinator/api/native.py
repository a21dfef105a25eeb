"""The table of /api/v1: a requester's calls as JSON, each by the handler that gRPC calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from fastapi import APIRouter
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from shardwork.protocol import software_version
from shardwork.v1 import jobs_pb2, storage_pb2, wallet_pb2

from ..records import JobState
from ..rpc import asked, jobs, steering, storage, wallet
from ..rpc.artifacts import granted
from . import catalogue, contents, openapi, routes, streams, submitting, uploads
from .desk import ApiDesk
from .mapping import bad_field
from .routes import Call, Route

PREFIX = "/api/v1"
_OBJECT: dict[str, Any] = {"type": "object"}
_INPUTS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {"type": "string"},
    "description": '"STAGE.data", "STAGE.eval_data", "STAGE.base_model" -> artifact id',
}
Handle = Callable[[Call], Awaitable[Message | Response]]


def add(router: APIRouter, desk: ApiDesk) -> None:
    async def document(_: Request) -> Response:
        return JSONResponse(openapi.document(TABLE, PREFIX))

    router.add_api_route(PREFIX + "/openapi.json", document, methods=["GET"], response_model=None)
    routes.add(router, desk, PREFIX, TABLE)


# ---- jobs ---------------------------------------------------------------------------------------------------------


async def _quote(call: Call) -> Message:
    beside = call.asked.beside
    request: jobs_pb2.QuoteJobRequest = call.asked.message
    request.spec_json = submitting.spec_text(beside, request.spec_json)
    return await submitting.quote(request, _inputs(beside), call.caller, call.desk)


async def _submit(call: Call) -> Message:
    request: jobs_pb2.SubmitJobRequest = call.asked.message
    request.spec_json = submitting.spec_text(call.asked.beside, request.spec_json)
    key = call.request.headers.get("idempotency-key", "")
    if key and request.submission_id:
        raise bad_field("submission_id", "Say it once: as submission_id or as Idempotency-Key.")
    request.submission_id = request.submission_id or key
    return await submitting.submit(request, call.caller, call.desk)


async def _people_progress(call: Call) -> Message:
    desk = call.desk.jobs
    return await asked.get_people_progress(call.asked, call.caller, desk.engine, desk.items)


def _inputs(beside: dict[str, Any]) -> dict[str, str]:
    inputs = beside.get("inputs", {})
    named = cast("dict[str, object]", inputs) if isinstance(inputs, dict) else {"": None}
    if not all(isinstance(value, str) for value in named.values()):
        raise bad_field("inputs", "Send an object of artifact ids.")
    return {name: str(value) for name, value in named.items()}


def _of_jobs(handler: Callable[..., Awaitable[Message]]) -> Handle:
    async def handle(call: Call) -> Message:
        return await handler(call.asked, call.caller, call.desk.jobs)

    return handle


def _of_steering(handler: Callable[..., Awaitable[Message]]) -> Handle:
    async def handle(call: Call) -> Message:
        return await handler(call.asked, call.caller, call.desk.engine)

    return handle


def _of_wallet(handler: Callable[..., Awaitable[Message]]) -> Handle:
    async def handle(call: Call) -> Message:
        return await handler(call.asked, call.caller, call.desk.wallet)

    return handle


# ---- artifacts ----------------------------------------------------------------------------------------------------


async def _list_artifacts(call: Call) -> Message:
    desk, now_ms = call.desk.artifacts, call.desk.now_ms
    return await desk.rows.read(lambda tx: storage.list_artifacts(tx, call.asked, call.caller, desk.limits, now_ms))


async def _delete_artifact(call: Call) -> Message:
    ages = call.desk.artifacts.limits.ages
    return await call.desk.commit(lambda tx: storage.delete_artifact(tx, call.asked, call.caller, ages))


async def _upload(call: Call) -> Message:
    """A folder with the one file that came, named so that a job can read it as data."""
    async with uploads.received(call.request, call.caller, call.desk) as form:
        odd = next(iter(form.fields), None)
        if odd is not None:
            raise bad_field(odd[:60], "The form has one file and nothing else.")
        name = f"00000-{uploads.plain_name(form.filename or '')}"
        artifact_id = await uploads.store_named(form, name, call.caller, call.desk)
        return storage_pb2.ArtifactView(
            artifact_id=artifact_id, kind="input", bytes=form.bytes, created_unix_ms=call.desk.now_ms
        )


async def _manifest(call: Call) -> Response:
    manifest = await granted(call.named["artifact_id"], call.caller, call.desk.artifacts)
    files = [{"path": entry.path, "bytes": entry.size} for entry in manifest.files]
    return JSONResponse({"artifact_id": manifest.id, "bytes": manifest.total_bytes, "files": files})


async def _file(call: Call) -> Response:
    manifest = await granted(call.named["artifact_id"], call.caller, call.desk.artifacts)
    path = call.named["path"]
    return contents.answer(call, manifest, contents.of_file(manifest, path), path)


async def _tar(call: Call) -> Response:
    manifest = await granted(call.named["artifact_id"], call.caller, call.desk.artifacts)
    name = manifest.id[:12]
    return contents.answer(call, manifest, await contents.of_tar(call, manifest, name), f"{name}.tar")


# ---- the coordinator ----------------------------------------------------------------------------------------------


async def _server(call: Call) -> Response:
    return JSONResponse(
        {
            "version": software_version(),
            "party_id": call.caller.party_id,
            "asset": call.desk.wallet.payments.asset,
            "file_max_bytes": call.desk.file_max_bytes,
            "job_states": [str(state) for state in JobState],
        }
    )


def _job(method: str, path: str, name: str, summary: str, **more: Any) -> Route:
    return Route(method=method, path=f"/jobs{path}", name=name, summary=summary, **more)


_J, _S, _W = jobs_pb2, storage_pb2, wallet_pb2
_SPEC = ("spec", {**_OBJECT, "description": "the job, as in a job file with its stages; instead of spec_json"})

TABLE: tuple[Route, ...] = (
    _job(
        *("POST", "/quote", "quote_job", "What a job would cost. Measured here when `facts` is left out."),
        takes=_J.QuoteJobRequest,
        gives=_J.QuoteJobResponse,
        handle=_quote,
        beside=(_SPEC, ("inputs", _INPUTS)),
    ),
    _job(
        *("POST", "", "submit_job", "Escrow the reserve and start. Idempotent by submission_id or Idempotency-Key."),
        takes=_J.SubmitJobRequest,
        gives=_J.SubmitJobResponse,
        handle=_submit,
        beside=(_SPEC,),
    ),
    _job(
        *("GET", "", "list_jobs", "Your jobs, the newest first; `states` with commas between."),
        takes=_J.ListJobsRequest,
        gives=_J.ListJobsResponse,
        handle=_of_jobs(jobs.list_jobs),
    ),
    _job(
        *("GET", "/{job_id}", "get_job", "One job, with every reason why it waits."),
        takes=_J.GetJobRequest,
        gives=_J.GetJobResponse,
        handle=_of_jobs(jobs.get_job),
    ),
    _job(
        *("GET", "/{job_id}/report", "get_job_report", "With its workers and payments."),
        takes=_J.GetJobReportRequest,
        gives=_J.GetJobReportResponse,
        handle=_of_jobs(jobs.get_job_report),
    ),
    _job(
        *("GET", "/{job_id}/events", "list_job_events", "A page of its events; `details` for its log."),
        takes=_J.ListJobEventsRequest,
        gives=_J.ListJobEventsResponse,
        handle=_of_jobs(jobs.list_job_events),
    ),
    _job(
        *("GET", "/{job_id}/events/stream", "stream_job_events", "Its events as they happen (server-sent events)."),
        takes=_J.WatchJobRequest,
        gives="text/event-stream",
        handle=streams.stream,
    ),
    _job(
        *("POST", "/{job_id}/pause", "pause_job", "Give out no new shard."),
        takes=_J.PauseJobRequest,
        gives=_J.PauseJobResponse,
        handle=_of_steering(steering.pause_job),
    ),
    _job(
        *("POST", "/{job_id}/resume", "resume_job", "Give out shards again."),
        takes=_J.ResumeJobRequest,
        gives=_J.ResumeJobResponse,
        handle=_of_steering(steering.resume_job),
    ),
    _job(
        *("POST", "/{job_id}/cancel", "cancel_job", "End it; the rest is refunded."),
        takes=_J.CancelJobRequest,
        gives=_J.CancelJobResponse,
        handle=_of_steering(steering.cancel_job),
    ),
    _job(
        *("POST", "/{job_id}/topup", "top_up_job", "Add to its escrow. Idempotent by idempotency_key."),
        takes=_J.TopUpJobRequest,
        gives=_J.TopUpJobResponse,
        handle=_of_steering(steering.top_up_job),
    ),
    _job(
        *("GET", "/{job_id}/preview", "preview_job_control", "What pause, resume, cancel or topup would cost now."),
        takes=_J.PreviewJobControlRequest,
        gives=_J.PreviewJobControlResponse,
        handle=_of_steering(steering.preview_job_control),
    ),
    _job(
        *("GET", "/{job_id}/people", "get_people_progress", "How far its stages are that people answer."),
        takes=_J.GetPeopleProgressRequest,
        gives=_J.GetPeopleProgressResponse,
        handle=_people_progress,
    ),
    _job(
        *("POST", "/{job_id}/people/close", "close_people", "Ask people no more; go on with the answers it has."),
        takes=_J.ClosePeopleRequest,
        gives=_J.ClosePeopleResponse,
        handle=_of_steering(asked.close_people),
    ),
    Route(
        method="GET",
        path="/wallet/balance",
        name="get_balance",
        summary="What you can spend.",
        takes=_W.GetBalanceRequest,
        gives=_W.GetBalanceResponse,
        handle=_of_wallet(wallet.get_balance),
    ),
    Route(
        method="GET",
        path="/wallet/transfers",
        name="list_transfers",
        summary="The newest first.",
        takes=_W.ListTransfersRequest,
        gives=_W.ListTransfersResponse,
        handle=_of_wallet(wallet.list_transfers),
    ),
    Route(
        method="POST",
        path="/wallet/deposits",
        name="create_deposit",
        summary="An invoice to pay in.",
        takes=_W.CreateDepositRequest,
        gives=_W.CreateDepositResponse,
        handle=_of_wallet(wallet.create_deposit),
    ),
    Route(
        method="GET",
        path="/wallet/deposits/{id}",
        name="get_deposit",
        summary="Whether it is paid.",
        takes=_W.GetDepositRequest,
        gives=_W.GetDepositResponse,
        handle=_of_wallet(wallet.get_deposit),
    ),
    Route(
        method="GET",
        path="/artifacts",
        name="list_artifacts",
        handle=_list_artifacts,
        takes=_S.ListArtifactsRequest,
        gives=_S.ListArtifactsResponse,
        summary="What is stored for you, why and until when.",
    ),
    Route(
        method="POST",
        path="/artifacts",
        name="upload_artifact",
        handle=_upload,
        is_form=True,
        gives=_S.ArtifactView,
        summary="Send one file (multipart/form-data, field `file`).",
    ),
    Route(
        method="DELETE",
        path="/artifacts/{artifact_id}",
        name="delete_artifact",
        takes=_S.DeleteArtifactRequest,
        gives=_S.DeleteArtifactResponse,
        handle=_delete_artifact,
        summary="Give your right to it up.",
    ),
    Route(
        method="GET",
        path="/artifacts/{artifact_id}",
        name="get_artifact",
        handle=_manifest,
        summary="Its files.",
    ),
    Route(
        method="GET",
        path="/artifacts/{artifact_id}/tar",
        name="download_artifact",
        handle=_tar,
        gives="application/octet-stream",
        summary="All its files as a tar; with ranges.",
    ),
    Route(
        method="GET",
        path="/artifacts/{artifact_id}/files/{path:path}",
        name="download_artifact_file",
        gives="application/octet-stream",
        handle=_file,
        summary="One of its files; with ranges.",
    ),
    Route(method="GET", path="/models", name="list_models", summary="Base models.", handle=catalogue.models),
    Route(
        method="GET",
        path="/models/{name}",
        name="get_model",
        handle=catalogue.model,
        summary="One base model, whose artifact you may read from now on.",
    ),
    Route(
        method="GET",
        path="/workers",
        name="get_workers",
        handle=catalogue.workers,
        summary="Workers by state and kind of device, and work that waits.",
    ),
    Route(method="GET", path="/server", name="get_server", summary="This coordinator, and you.", handle=_server),
)
