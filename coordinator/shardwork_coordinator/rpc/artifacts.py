"""Artifacts over gRPC: who may send and read which content, and streams of it.

Owns the rows `Artifact` and the rules of access; bytes are `artifacts.ArtifactStore`. A caller may read what it owns,
what a live lease of its own names as an input, and everything as operator. Knowing an id gives nothing: what is unknown
and what is forbidden get one answer, and content that exists already is sent and checked again by an owner who may not
read it. An upload is acknowledged after its bytes are fsynced and its row is committed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace

from shardwork.artifact import LEAF_BYTES, MANIFEST_MAX_BYTES, Manifest
from shardwork.clock import Clock
from shardwork.errors import Conflict, InvalidInput, LimitExceeded, ShardworkError, Unreachable
from shardwork.identity.role import Role
from shardwork.v1 import artifacts_pb2 as pb
from shardwork.v1 import artifacts_pb2_grpc

from ..artifacts import ArtifactStore
from ..artifacts.calls import Calls
from ..artifacts.intake import Intake
from ..artifacts.quota import INPUT, LEASED, ArtifactLimits, check_quota, check_total, lease_bytes
from ..artifacts.store import not_found
from ..artifacts.streams import UploadStream, UploadStreams
from ..artifacts.turns import Turns
from ..artifacts.writing import Writing
from ..machine.attempts import lease_id
from ..records import Artifact, ArtifactState, Replica, ReplicaState, Shard
from ..store.base import Store, Transaction
from .auth import Caller, Context, Gate

FRAME_BYTES = 256 << 10
PURPOSE_MAX = 512
DRAIN_BYTES = 8 << 20
DRAIN_S = 1.0
#: a replica in one of these states still needs its inputs
LIVE = (ReplicaState.LEASED, ReplicaState.COMMITTED, ReplicaState.SUBMITTED)


class ArtifactDesk:
    """What the handlers work with: rows, contents, time, limits, and what is open right now."""

    def __init__(
        self, rows: Store, contents: ArtifactStore, clock: Clock, limits: ArtifactLimits | None = None
    ) -> None:
        self.rows = rows
        self.contents = contents
        self.clock = clock
        self.limits = limits or ArtifactLimits()
        # a large manifest takes 50 ms of the interpreter; the event loop would wait for every thread that wants it, too
        self.parsing = asyncio.Lock()
        self.calls = Calls(of_one_max=self.limits.calls_of_one_max)
        #: one party's uploads begin one after the other, or its quota would be passed by many at once
        self.turns = Turns()
        self.streams = UploadStreams(
            streams_max=self.limits.uploads_max, of_one_max=self.limits.uploads_of_one_max, idle_s=self.limits.idle_s
        )


def may_read(tx: Transaction, caller: Caller, artifact_id: str) -> bool:
    """Whether the caller is the operator, an owner who sent it, or a worker whose live lease names it as an input."""
    if caller.role is Role.OPERATOR:
        return True
    own = tx.get(Artifact, artifact_id, caller.party_id)
    if own is not None and own.state is ArtifactState.STORED:
        return True
    if caller.role is not Role.WORKER:
        return False
    leased = tx.find(Replica, worker_id=caller.party_id, state=LIVE)
    return any(_needs(tx, replica, artifact_id) for replica in leased)


async def begin_upload(request: pb.BeginUploadRequest, caller: Caller, desk: ArtifactDesk) -> pb.BeginUploadResponse:
    """Opens or continues an upload. What the caller may read already is complete at once."""
    async with desk.parsing:
        manifest = await asyncio.to_thread(Manifest.parse, request.manifest)
    _check_size(manifest, desk.limits)
    purpose = _checked_purpose(request.purpose)
    artifact = row_of(manifest, caller, desk, await desk.rows.read(lambda tx: _believed(tx, purpose, caller)))
    async with desk.turns.of(caller.party_id), desk.streams.alone(manifest.id, caller.party_id):
        if await _readable(manifest.id, caller, desk):
            await store_row(desk, artifact)
            return _begun(manifest, manifest.leaf_count, complete=True)
        return await _begin(manifest, replace(artifact, state=ArtifactState.STAGING), caller, desk)


async def _begin(manifest: Manifest, staged: Artifact, caller: Caller, desk: ArtifactDesk) -> pb.BeginUploadResponse:
    """The row first: a folder that no row speaks of would count against nobody."""
    owner = caller.party_id
    await _check_space(manifest, caller, desk)
    await _stage_row(desk, staged, manifest, caller)
    durable = await asyncio.to_thread(desk.contents.begin, manifest, owner=owner)
    complete = durable == manifest.leaf_count
    if complete:
        await _complete(manifest, caller, desk)
    else:
        await asyncio.to_thread(desk.contents.release, manifest.id, owner=owner)
    return _begun(manifest, durable, complete=complete)


async def upload_leaves(
    frames: AsyncIterator[pb.UploadLeavesRequest], caller: Caller, desk: ArtifactDesk
) -> pb.UploadLeavesResponse:
    """Takes leaves until the stream ends. Whole leaves that came are kept, however it ends. What the caller completed
    meanwhile over another stream is complete here, too."""
    first = await _first_frame(frames, desk.limits.idle_s)
    owner = caller.party_id
    async with desk.streams.only(first.artifact_id, owner) as stream:
        if await _owned(first.artifact_id, caller, desk):
            async with desk.parsing:
                manifest = await asyncio.to_thread(desk.contents.manifest, first.artifact_id)
            await _drain(frames)
            return pb.UploadLeavesResponse(durable_leaves=manifest.leaf_count, complete=True)
        manifest = await asyncio.to_thread(desk.contents.upload_manifest, first.artifact_id, owner=owner)
        try:
            durable = await _receive(first, frames, stream, manifest=manifest, owner=owner, desk=desk)
            complete = durable == manifest.leaf_count
            if complete:
                await _complete(manifest, caller, desk)
        finally:
            await asyncio.to_thread(desk.contents.release, manifest.id, owner=owner)
    return pb.UploadLeavesResponse(durable_leaves=durable, complete=complete)


async def get_manifest(request: pb.GetManifestRequest, caller: Caller, desk: ArtifactDesk) -> pb.GetManifestResponse:
    """The canonical manifest bytes of what the caller may read."""
    manifest = await granted(request.artifact_id, caller, desk)
    return pb.GetManifestResponse(manifest=manifest.to_bytes())


async def download_leaves(
    request: pb.DownloadLeavesRequest, caller: Caller, desk: ArtifactDesk
) -> AsyncGenerator[pb.DownloadLeavesResponse, None]:
    """The leaves asked for in frames, each checked against its digest before it leaves; one is read ahead."""
    manifest = await granted(request.artifact_id, caller, desk)
    pieces = desk.contents.read_leaves(manifest.id, request.first_leaf, request.leaf_count)
    ahead = asyncio.create_task(asyncio.to_thread(next, pieces, b""))
    try:
        while piece := await ahead:
            ahead = asyncio.create_task(asyncio.to_thread(next, pieces, b""))
            for start in range(0, len(piece), FRAME_BYTES):
                yield pb.DownloadLeavesResponse(data=piece[start : start + FRAME_BYTES])
    finally:
        # the generator of pieces must not be left running in a thread, nor its error unseen
        await asyncio.wait({ahead})
        ahead.exception()


class ArtifactsServicer(artifacts_pb2_grpc.ArtifactsServiceServicer):
    def __init__(self, gate: Gate, desk: ArtifactDesk) -> None:
        self._gate = gate
        self._desk = desk

    async def BeginUpload(self, request: pb.BeginUploadRequest, context: Context) -> pb.BeginUploadResponse:
        async with self._gate.admit(context) as caller:
            with self._desk.calls.one(caller.party_id):
                return await begin_upload(request, caller, self._desk)

    async def UploadLeaves(
        self, request_iterator: AsyncIterator[pb.UploadLeavesRequest], context: Context
    ) -> pb.UploadLeavesResponse:
        async with self._gate.admit(context) as caller:
            with self._desk.calls.one(caller.party_id):
                try:
                    return await upload_leaves(request_iterator, caller, self._desk)
                except ShardworkError:
                    await _drain(request_iterator)
                    raise

    async def GetManifest(self, request: pb.GetManifestRequest, context: Context) -> pb.GetManifestResponse:
        async with self._gate.admit(context) as caller:
            with self._desk.calls.one(caller.party_id):
                return await get_manifest(request, caller, self._desk)

    # grpc.aio also takes a coroutine that writes to the context, which the generated base does not know; only a
    # write can have a time limit
    async def DownloadLeaves(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: pb.DownloadLeavesRequest, context: Context
    ) -> None:
        async with self._gate.admit(context) as caller:
            with self._desk.calls.one(caller.party_id):
                async with aclosing(download_leaves(request, caller, self._desk)) as frames:
                    async for frame in frames:
                        await _within_idle(context, frame, self._desk.limits.idle_s)


async def _drain(frames: AsyncIterator[pb.UploadLeavesRequest]) -> None:
    """Reads on for a moment after a refusal: a Python client whose write fails takes "internal" for the status, and
    never learns why. What is longer than this is begun again by its sender, who then finds out."""
    left = DRAIN_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            async for frame in frames:
                left -= len(frame.data)
                if left < 0:
                    return


async def _within_idle(context: Context, frame: pb.DownloadLeavesResponse, idle_s: float) -> None:
    """A reader who stops reading must not hold a stream for ever."""
    try:
        async with asyncio.timeout(idle_s):
            await context.write(frame)
    except TimeoutError:
        raise Unreachable("artifact.idle", "Nobody took this download's data for too long.", idle_s=idle_s) from None


async def _receive(
    first: pb.UploadLeavesRequest,
    frames: AsyncIterator[pb.UploadLeavesRequest],
    stream: UploadStream,
    *,
    manifest: Manifest,
    owner: str,
    desk: ArtifactDesk,
) -> int:
    """Writes what comes; answers the durable leaves. A cut or a bad leaf raises after the good ones are durable."""
    intake = Intake(manifest, await _agreed_leaf(first, owner, desk))
    writing = Writing(desk.contents, manifest.id, owner, reserve_bytes=desk.limits.reserve_bytes)
    try:
        async with stream.receiving():
            frame: pb.UploadLeavesRequest | None = first
            while frame is not None:
                _check_frame(frame, manifest)
                intake.add(frame.data)
                if intake.whole_bytes >= LEAF_BYTES:
                    await writing.push(intake.take())
                stream.brought(len(frame.data))
                frame = await anext(frames, None)
    finally:
        durable = await writing.finish(intake.take())
    return durable


async def _first_frame(frames: AsyncIterator[pb.UploadLeavesRequest], idle_s: float) -> pb.UploadLeavesRequest:
    try:
        async with asyncio.timeout(idle_s):
            return await anext(frames)
    except TimeoutError:
        raise Unreachable("artifact.idle", "The stream never sent a frame.", idle_s=idle_s) from None
    except StopAsyncIteration:
        raise InvalidInput("artifact.empty_stream", "The stream has no frame that names the artifact.") from None


async def _agreed_leaf(first: pb.UploadLeavesRequest, owner: str, desk: ArtifactDesk) -> int:
    """The leaf at which both sides go on. Raises Conflict "artifact.wrong_leaf"; beginning again names it."""
    durable = await asyncio.to_thread(desk.contents.durable_leaves, first.artifact_id, owner=owner)
    if first.first_leaf != durable:
        raise Conflict(
            "artifact.wrong_leaf",
            "The upload goes on at another leaf.",
            next_step="Begin the upload again; the answer names the leaf.",
            first_leaf=first.first_leaf,
            durable_leaves=durable,
        )
    return durable


async def _complete(manifest: Manifest, caller: Caller, desk: ArtifactDesk) -> None:
    """Publishes the bytes, then commits the row that makes them the caller's."""
    await asyncio.to_thread(desk.contents.complete, manifest.id, owner=caller.party_id)
    await store_row(desk, row_of(manifest, caller, desk, "input"))


async def granted(artifact_id: str, caller: Caller, desk: ArtifactDesk) -> Manifest:
    """Raises NotFound "artifact.not_found" for what is unknown or forbidden alike."""
    if not await desk.rows.read(_grant(caller, artifact_id)):
        raise not_found(artifact_id)
    async with desk.parsing:
        return await asyncio.to_thread(desk.contents.manifest, artifact_id)


async def _readable(artifact_id: str, caller: Caller, desk: ArtifactDesk) -> bool:
    """Whether the caller may read it, and it will be there: a sweep deletes nothing that was just looked at so."""
    allowed = await desk.rows.read(_grant(caller, artifact_id))
    return allowed and await asyncio.to_thread(desk.contents.keep, artifact_id)


async def _owned(artifact_id: str, caller: Caller, desk: ArtifactDesk) -> bool:
    """Whether the caller sent it all, perhaps over another stream."""
    own = await desk.rows.read(lambda tx: tx.get(Artifact, artifact_id, caller.party_id))
    is_stored = own is not None and own.state is ArtifactState.STORED
    return is_stored and await asyncio.to_thread(desk.contents.keep, artifact_id)


async def store_row(desk: ArtifactDesk, artifact: Artifact) -> None:
    """Inserts the row or moves it on, used from now on; the purpose of the first attempt stays."""

    def work(tx: Transaction) -> None:
        known = tx.get(Artifact, artifact.id, artifact.owner)
        tx.put(replace(artifact, purpose=known.purpose) if known is not None else artifact)

    await desk.rows.write(work)


async def _stage_row(desk: ArtifactDesk, artifact: Artifact, manifest: Manifest, caller: Caller) -> None:
    """The row of an upload that begins or goes on, unless it is too much for its party; counted from now on."""
    if caller.role is not Role.OPERATOR:
        now_ms = desk.clock.now_ms()
        # reading is enough: one party's uploads begin one after the other
        await desk.rows.read(lambda tx: check_quota(tx, manifest, caller.party_id, desk.limits, now_ms))
        if artifact.purpose == INPUT:
            await desk.rows.read(lambda tx: check_total(tx, manifest, caller.party_id, desk.limits))

    def work(tx: Transaction) -> None:
        known = tx.get(Artifact, artifact.id, artifact.owner)
        stored = known is not None and known.state is ArtifactState.STORED
        tx.put(replace(artifact, purpose=known.purpose) if known is not None and stored else artifact)

    await desk.rows.write(work)


async def _check_space(manifest: Manifest, caller: Caller, desk: ArtifactDesk) -> None:
    """Raises LimitExceeded "artifact.no_space" before anybody sends what can't be kept. Whoever holds a lease may use
    the last of the room, so that strangers' uploads don't stop jobs that run."""
    leased = await desk.rows.read(lambda tx: lease_bytes(tx, caller.party_id))
    reserve = desk.limits.reserve_bytes * (1 if leased else 2)
    present = await asyncio.to_thread(desk.contents.staged_bytes, manifest.id, owner=caller.party_id)
    missing = max(manifest.total_bytes - present, 0)
    free = await asyncio.to_thread(desk.contents.free_bytes)
    # the manifest is kept, too
    if free - missing - MANIFEST_MAX_BYTES >= reserve:
        return
    raise LimitExceeded(
        "artifact.no_space",
        "The coordinator's disk has no room for this artifact.",
        next_step="Ask the operator to free space.",
        missing_bytes=missing,
        free_bytes=free,
    )


def _needs(tx: Transaction, replica: Replica, artifact_id: str) -> bool:
    shard = tx.get(Shard, replica.shard_id)
    return shard is not None and artifact_id in json.loads(shard.inputs_json).values()


def _grant(caller: Caller, artifact_id: str) -> Callable[[Transaction], bool]:
    return lambda tx: may_read(tx, caller, artifact_id)


def row_of(manifest: Manifest, caller: Caller, desk: ArtifactDesk, purpose: str) -> Artifact:
    return Artifact(
        id=manifest.id,
        owner=caller.party_id,
        purpose=purpose,
        state=ArtifactState.STORED,
        bytes=manifest.total_bytes,
        leaves=manifest.leaf_count,
        created_ms=desk.clock.now_ms(),
    )


def _begun(manifest: Manifest, durable: int, *, complete: bool) -> pb.BeginUploadResponse:
    return pb.BeginUploadResponse(artifact_id=manifest.id, durable_leaves=durable, complete=complete)


def _checked_purpose(purpose: str) -> str:
    if not 0 < len(purpose) <= PURPOSE_MAX or not purpose.isprintable():
        raise InvalidInput(
            "artifact.bad_purpose", 'The purpose must be "input" or a lease id.', purpose=repr(purpose[:64])
        )
    return purpose


def _believed(tx: Transaction, purpose: str, caller: Caller) -> str:
    """A lease that the caller does not hold is no purpose: it would keep the upload out of the caller's quota."""
    held = tx.find(Replica, worker_id=caller.party_id, state=LEASED) if purpose != INPUT else []
    return purpose if any(lease_id(replica) == purpose for replica in held) else INPUT


def _check_size(manifest: Manifest, limits: ArtifactLimits) -> None:
    if manifest.total_bytes > limits.artifact_max_bytes:
        raise LimitExceeded(
            "artifact.too_large",
            "The artifact is larger than this coordinator takes.",
            next_step="Split it, or ask the operator to raise the limit.",
            bytes=manifest.total_bytes,
            limit_bytes=limits.artifact_max_bytes,
        )


def _check_frame(frame: pb.UploadLeavesRequest, manifest: Manifest) -> None:
    if len(frame.data) > FRAME_BYTES:
        raise LimitExceeded(
            "artifact.frame_too_large", "A frame has at most 256 KiB.", bytes=len(frame.data), limit_bytes=FRAME_BYTES
        )
    if frame.artifact_id not in ("", manifest.id):
        raise InvalidInput("artifact.mixed_stream", "One stream carries one artifact.", artifact=frame.artifact_id[:64])
