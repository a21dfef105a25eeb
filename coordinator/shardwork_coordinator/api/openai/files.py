"""/v1/files: a name for a stored artifact of its owner, with one JSONL file in it, ready to be a job's data.

Rows are checked as they come in, so that a mistake is told with its line before anything is asked for. A job's results
are files, too (`results`); they are made when they are read.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, Response

from shardwork.errors import Conflict, InvalidInput, LimitExceeded, NotFound
from shardwork.v1 import storage_pb2

from ...records import ApiFile, Artifact, ArtifactState
from ...rpc.artifacts import granted
from ...rpc.auth import Caller
from ...rpc.storage import delete_artifact
from ...store.base import Transaction
from .. import contents, uploads
from ..mapping import bad_field
from ..routes import Call, Route
from . import lists, results

PURPOSE, RESULTS = "fine-tune", "fine-tune-results"
MOST_FILES = 10_000
LIST_QUERY = (*lists.QUERY, ("order", {"enum": ["asc", "desc"]}), ("purpose", {"type": "string"}))


async def create(call: Call) -> Response:
    desk, caller = call.desk, call.caller
    async with uploads.received(call.request, caller, desk) as form:
        _check_fields(form.fields)
        shown = uploads.plain_name(form.filename or "")
        # the suffix says how rows are read, and these are read line by line
        name = f"{Path(shown).stem}.jsonl"
        form.path = await asyncio.to_thread(form.path.rename, form.path.with_name(name))
        await desk.measurer.check(form.path, form.bytes, caller.party_id)
        artifact_id = await uploads.store_named(form, f"00000-{name}", caller, desk)
    row = ApiFile(
        id=f"file-{secrets.token_hex(12)}",
        owner=caller.party_id,
        artifact_id=artifact_id,
        filename=shown,
        purpose=PURPOSE,
        bytes=form.bytes,
        created_ms=desk.now_ms,
    )
    await desk.commit(lambda tx: _keep(tx, row, row.created_ms - _keep_ms(call)))
    return JSONResponse(view(row, _keep_ms(call)))


async def every(call: Call) -> Response:
    texts: dict[str, str] = call.asked
    limit, order = lists.limit_of(texts, MOST_FILES, MOST_FILES), texts.get("order", "desc")
    if order not in ("asc", "desc"):
        raise bad_field("order", "Say asc or desc.")
    since_ms, wanted = call.desk.now_ms - _keep_ms(call), texts.get("purpose", "")

    def look(tx: Transaction) -> list[ApiFile | results.Made]:
        sent = _living(tx, call.caller, since_ms) if wanted in ("", PURPOSE) else []
        return [*sent, *(results.of_owner(tx, call.caller) if wanted in ("", RESULTS) else [])]

    found = sorted(await call.desk.engine.store.read(look), key=_age, reverse=order == "desc")
    page = await _behind(call, found, texts.get("after", ""), descends=order == "desc")
    shown = [await _view(call, each) for each in page[:limit]]
    return lists.listed(shown, has_more=len(page) > limit)


async def retrieve(call: Call) -> Response:
    named = call.named["file_id"]
    made = await results.find(call, named)
    return JSONResponse(await _view(call, made or await own(call, named)))


async def content(call: Call) -> Response:
    named = call.named["file_id"]
    made = await results.find(call, named)
    if made is not None:
        return await results.content(call, made)
    row = await own(call, named)
    manifest = await granted(row.artifact_id, call.caller, call.desk.artifacts)
    return contents.answer(call, manifest, contents.of_file(manifest, manifest.files[0].path), row.filename)


async def delete(call: Call) -> Response:
    named, caller, desk = call.named["file_id"], call.caller, call.desk.artifacts
    if await results.find(call, named) is not None:
        raise Conflict(
            "file.is_result",
            "A job's result is not deleted by itself.",
            next_step="Delete the model that the job made.",
            param="file_id",
        )
    row = await own(call, named)

    def work(tx: Transaction) -> None:
        tx.put(replace(row, deleted=True))
        others = tx.find(ApiFile, owner=caller.party_id, artifact_id=row.artifact_id, deleted=False)
        stored = tx.get(Artifact, row.artifact_id, caller.party_id)
        if not others and stored is not None and stored.state is ArtifactState.STORED:
            request = storage_pb2.DeleteArtifactRequest(artifact_id=row.artifact_id)
            delete_artifact(tx, request, caller, desk.limits.ages)

    await call.desk.commit(work)
    return JSONResponse({"id": row.id, "object": "file", "deleted": True})


async def own(call: Call, named: str, param: str = "file_id") -> ApiFile:
    """Raises NotFound "file.not_found", for another's as for none."""

    since_ms = call.desk.now_ms - _keep_ms(call)

    def look(tx: Transaction) -> ApiFile | None:
        row = tx.get(ApiFile, named)
        is_own = row is not None and row.owner == call.caller.party_id and not row.deleted
        return row if row is not None and is_own and row.created_ms > since_ms and _is_stored(tx, row) else None

    row = await call.desk.engine.store.read(look)
    if row is None:
        raise NotFound(
            "file.not_found",
            f"You have no file {named[:60]!r}.",
            next_step="List your files; one that expired is sent again.",
            param=param,
        )
    return row


def view(row: ApiFile, keep_ms: int) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": row.created_ms // 1000,
        "expires_at": (row.created_ms + keep_ms) // 1000,
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "processed",
        "status_details": None,
    }


async def _view(call: Call, one: ApiFile | results.Made) -> dict[str, Any]:
    return view(one, _keep_ms(call)) if isinstance(one, ApiFile) else await results.view(call, one)


def _age(one: ApiFile | results.Made) -> tuple[int, str]:
    return (one.created_ms if isinstance(one, ApiFile) else one.job.ended_ms), one.id


def _keep_ms(call: Call) -> int:
    """As long as inputs of jobs that ended; `artifacts.expiry` keeps them."""
    return call.desk.artifacts.limits.ages.keep_ms


def _is_stored(tx: Transaction, row: ApiFile) -> bool:
    """Its content may have been given up by another of its names."""
    stored = tx.get(Artifact, row.artifact_id, row.owner)
    return stored is not None and stored.state is ArtifactState.STORED


def _living(tx: Transaction, caller: Caller, since_ms: int) -> list[ApiFile]:
    """The caller's files that are neither deleted nor expired."""
    owner = caller.party_id
    rows = tx.find(ApiFile, owner=owner, deleted=False, order="created_ms", after=since_ms)
    ids = tx.pick(Artifact, ("id",), owner=owner, state=ArtifactState.STORED) if rows else []
    stored = {str(one) for (one,) in ids}
    return [row for row in rows if row.artifact_id in stored]


async def _behind(
    call: Call, found: list[ApiFile | results.Made], after: str, *, descends: bool
) -> Sequence[ApiFile | results.Made]:
    """Those behind the cursor, which may have been deleted since the page that named it."""

    def look(tx: Transaction) -> ApiFile | None:
        return tx.get(ApiFile, after)

    gone = await call.desk.engine.store.read(look) if after else None
    if gone is None or gone.owner != call.caller.party_id:
        return lists.behind(found, after, lambda each: str(each.id))
    return [each for each in found if (_age(each) < _age(gone) if descends else _age(each) > _age(gone))]


def _keep(tx: Transaction, row: ApiFile, since_ms: int) -> None:
    """Raises LimitExceeded "file.too_many": rows stay, also those of one content that is stored once."""
    living = tx.pick(
        ApiFile, ("id",), owner=row.owner, deleted=False, order="created_ms", after=since_ms, limit=MOST_FILES
    )
    if len(living) >= MOST_FILES:
        raise LimitExceeded(
            "file.too_many",
            f"You have {MOST_FILES:,} files.",
            next_step="Delete some of them, or use those that are there for several jobs.",
        )
    tx.insert(row)


def _check_fields(fields: dict[str, str]) -> None:
    odd = next((name for name in fields if name != "purpose"), None)
    if odd is not None:
        raise bad_field(odd[:60], "This coordinator does not know it; leave it out.")
    if fields.get("purpose") != PURPOSE:
        raise InvalidInput(
            "file.bad_purpose",
            f"A file is for {PURPOSE!r} here, not for {fields.get('purpose', '')[:40]!r}.",
            next_step=f"Say purpose={PURPOSE!r}.",
            param="purpose",
        )


TABLE: tuple[Route, ...] = (
    Route(method="POST", path="/files", name="create_file", summary="Send JSONL.", handle=create, is_form=True),
    Route(method="GET", path="/files", name="list_files", summary="Yours.", handle=every, beside=LIST_QUERY),
    Route(method="GET", path="/files/{file_id}", name="retrieve_file", summary="One.", handle=retrieve),
    Route(method="GET", path="/files/{file_id}/content", name="file_content", summary="Its bytes.", handle=content),
    Route(method="DELETE", path="/files/{file_id}", name="delete_file", summary="Give it up.", handle=delete),
)
