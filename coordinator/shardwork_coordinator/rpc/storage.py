"""What a party stores here: listed with the reason and the date, and given up by its owner.

Reads rows and `artifacts.retention`; the bytes go with the next sweep. Thin servicer at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from shardwork import wire
from shardwork.errors import Conflict, NotFound
from shardwork.identity.role import Role
from shardwork.v1 import storage_pb2 as pb
from shardwork.v1 import storage_pb2_grpc
from shardwork.why import Why

from ..artifacts.direct import LIFETIME_S, Signed
from ..artifacts.figures import kind_of
from ..artifacts.quota import INPUT, ArtifactLimits, is_charged
from ..artifacts.retention import ENDED, FOR_EVER, Ages, Need, is_over, needs, outputs_only
from ..records import Artifact, ArtifactState, Job
from ..store.base import Transaction
from .artifacts import ArtifactDesk, granted, row_of, store_row
from .auth import Caller, Context, Gate

OWNERS = (Role.REQUESTER, Role.OPERATOR)
PAGE = 200
#: ids are looked up by so many of their digits
LEAST_PREFIX = 8
#: stored, or given up and not yet swept away
HELD = (ArtifactState.STORED, ArtifactState.STAGING)


def list_artifacts(
    tx: Transaction, request: pb.ListArtifactsRequest, caller: Caller, limits: ArtifactLimits, now_ms: int
) -> pb.ListArtifactsResponse:
    """The caller's content by id, with what keeps it."""
    owner = caller.party_id
    mine = tx.find(Artifact, owner=owner, state=ArtifactState.STORED, order="id")
    rows = [row for row in mine if row.id > request.page_token][: PAGE + 1]
    kept = _longest(need for job in tx.find(Job, owner=owner) for need in _needs(tx, job, limits, now_ms))
    views = [_view(row, kept.get(row.id), limits) for row in rows[:PAGE]]
    return pb.ListArtifactsResponse(
        artifacts=views,
        next_page_token=rows[PAGE - 1].id if len(rows) > PAGE else "",
        stored_bytes=sum(row.bytes for row in mine if is_charged(row)),
        limit_bytes=limits.owner_max_bytes,
    )


def delete_artifact(
    tx: Transaction, request: pb.DeleteArtifactRequest, caller: Caller, ages: Ages
) -> pb.DeleteArtifactResponse:
    """Takes the caller's row back; again, because the first answer was lost, changes nothing. Raises NotFound
    "artifact.not_found", Conflict "artifact.in_use" while a job of the caller's that has not ended reads or made it."""
    row = _named(tx.find(Artifact, owner=caller.party_id, state=HELD), request.artifact_id)
    if row.state is ArtifactState.STAGING:
        return pb.DeleteArtifactResponse(artifact_id=row.id, bytes=row.bytes)
    for job in tx.find(Job, owner=caller.party_id):
        if job.state not in ENDED and any(need.artifact_id == row.id for need in needs(tx, job, ages)):
            raise Conflict(
                "artifact.in_use",
                f"Your job {job.id[:8]} needs it.",
                next_step="Wait until the job has ended, or cancel it.",
                job=job.id,
                artifact=row.id,
            )
    tx.put(replace(row, state=ArtifactState.STAGING))
    return pb.DeleteArtifactResponse(artifact_id=row.id, bytes=row.bytes)


async def sign_download(request: pb.SignDownloadRequest, caller: Caller, desk: ArtifactDesk) -> pb.SignDownloadResponse:
    """Addresses of packs that the caller may read now. They stay good for some minutes after the right has ended."""
    manifest = await granted(request.artifact_id, caller, desk)
    direct = desk.contents.direct
    if direct is None or manifest.total_bytes < direct.least_bytes or request.first_leaf >= manifest.leaf_count:
        return pb.SignDownloadResponse()
    if await asyncio.to_thread(desk.contents.is_sealed, manifest.id):
        return pb.SignDownloadResponse()
    signed = await asyncio.to_thread(direct.download, manifest, request.first_leaf)
    return pb.SignDownloadResponse(packs=_packs(signed), expires_unix_ms=_expiry_ms(desk))


async def sign_upload(request: pb.SignUploadRequest, caller: Caller, desk: ArtifactDesk) -> pb.SignUploadResponse:
    """Addresses for the packs of an upload that the caller began, which is within its quota."""
    manifest = await asyncio.to_thread(desk.contents.upload_manifest, request.artifact_id, owner=caller.party_id)
    await asyncio.to_thread(desk.contents.release, manifest.id, owner=caller.party_id)
    direct = desk.contents.direct
    if direct is None or manifest.total_bytes < direct.least_bytes:
        return pb.SignUploadResponse()
    signed = await asyncio.to_thread(direct.upload, manifest, caller.party_id)
    return pb.SignUploadResponse(direct=True, packs=_packs(signed), expires_unix_ms=_expiry_ms(desk))


async def complete_direct_upload(
    request: pb.CompleteDirectUploadRequest, caller: Caller, desk: ArtifactDesk
) -> pb.CompleteDirectUploadResponse:
    """Checks every leaf of what was put, then it is the caller's. Raises Corrupt, Conflict "artifact.incomplete"."""
    owner = caller.party_id
    async with desk.streams.alone(request.artifact_id, owner):
        manifest = await asyncio.to_thread(desk.contents.upload_manifest, request.artifact_id, owner=owner)
        direct = desk.contents.direct
        if direct is None:
            raise Conflict(
                "artifact.incomplete", "Nothing can be put directly here.", next_step="Send it over UploadLeaves."
            )
        await asyncio.to_thread(direct.complete, manifest, owner)
        await store_row(desk, row_of(manifest, caller, desk, INPUT))
        await asyncio.to_thread(desk.contents.discard, manifest.id, owner=owner)
    return pb.CompleteDirectUploadResponse(complete=True)


def _packs(signed: Sequence[Signed]) -> list[pb.SignedPack]:
    return [
        pb.SignedPack(url=each.url, first_leaf=each.leaves.start, leaf_count=len(each.leaves), bytes=each.size_bytes)
        for each in signed
    ]


def _expiry_ms(desk: ArtifactDesk) -> int:
    return desk.clock.now_ms() + LIFETIME_S * 1000


def _needs(tx: Transaction, job: Job, limits: ArtifactLimits, now_ms: int) -> Iterable[Need]:
    return (outputs_only if is_over(job, limits.ages, now_ms) else needs)(tx, job, limits.ages)


def _longest(found: Iterable[Need]) -> dict[str, Need]:
    """Of each content the need that lasts longest."""
    longest: dict[str, Need] = {}
    for need in found:
        if need.artifact_id not in longest or need.until_ms > longest[need.artifact_id].until_ms:
            longest[need.artifact_id] = need
    return longest


def _view(row: Artifact, need: Need | None, limits: ArtifactLimits) -> pb.ArtifactView:
    until_ms = max(row.created_ms + int(limits.keep_s * 1000), need.until_ms if need else 0)
    return pb.ArtifactView(
        artifact_id=row.id,
        kind=kind_of(row),
        bytes=row.bytes,
        created_unix_ms=row.created_ms,
        kept_until_unix_ms=0 if until_ms >= FOR_EVER else until_ms,
        why=wire.why_to_proto(_why(need)),
    )


def _why(need: Need | None) -> Why:
    if need is None:
        return Why(
            code="artifact.unused",
            sentence="No job of yours uses it.",
            next_step="Submit a job that does before it expires.",
        )
    lasts = need.until_ms >= FOR_EVER
    sentence = {
        "input": f"Job {need.job_id[:8]} reads it.",
        "output": f"Job {need.job_id[:8]} made it for you.",
        "intermediate": f"Job {need.job_id[:8]} made it on the way.",
    }[need.kind]
    ends = "`shardwork artifact delete` ends it." if lasts and need.kind == "output" else ""
    return Why(code=f"artifact.{need.kind}", sentence=sentence, evidence={"job": need.job_id}, next_step=ends)


def _named(rows: Sequence[Artifact], named: str) -> Artifact:
    found = [row for row in rows if row.id == named or (len(named) >= LEAST_PREFIX and row.id.startswith(named))]
    if not found:
        raise NotFound(
            "artifact.not_found",
            "Nothing of this name is stored for you.",
            next_step="`shardwork artifact list` shows what is; give at least eight digits of an id.",
            artifact=named[:64],
        )
    if len(found) > 1:
        raise NotFound(
            "artifact.ambiguous", "Several of your artifacts begin like this.", next_step="Give more of the id."
        )
    return found[0]


class StorageServicer(storage_pb2_grpc.StorageServiceServicer):
    def __init__(self, gate: Gate, desk: ArtifactDesk) -> None:
        self._gate, self._desk = gate, desk

    async def ListArtifacts(self, request: pb.ListArtifactsRequest, context: Context) -> pb.ListArtifactsResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            now_ms, limits = self._desk.clock.now_ms(), self._desk.limits
            return await self._desk.rows.read(lambda tx: list_artifacts(tx, request, caller, limits, now_ms))

    async def DeleteArtifact(self, request: pb.DeleteArtifactRequest, context: Context) -> pb.DeleteArtifactResponse:
        async with self._gate.admit(context, *OWNERS) as caller:

            def work(tx: Transaction) -> pb.DeleteArtifactResponse:
                return delete_artifact(tx, request, caller, self._desk.limits.ages)

            return await self._desk.rows.write(work)

    async def SignDownload(self, request: pb.SignDownloadRequest, context: Context) -> pb.SignDownloadResponse:
        async with self._gate.admit(context) as caller:
            with self._desk.calls.one(caller.party_id):
                return await sign_download(request, caller, self._desk)

    async def SignUpload(self, request: pb.SignUploadRequest, context: Context) -> pb.SignUploadResponse:
        async with self._gate.admit(context) as caller:
            with self._desk.calls.one(caller.party_id):
                return await sign_upload(request, caller, self._desk)

    async def CompleteDirectUpload(
        self, request: pb.CompleteDirectUploadRequest, context: Context
    ) -> pb.CompleteDirectUploadResponse:
        async with self._gate.admit(context) as caller:
            with self._desk.calls.one(caller.party_id):
                return await complete_direct_upload(request, caller, self._desk)
