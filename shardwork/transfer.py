"""Transfer: artifacts to and from the coordinator, resumed at the leaf after a dropped connection or a killed process.

Owns frames, retries and stalls; hashing is `artifact`, the files of a download are `partial`, tokens the session's.
Memory stays flat: one leaf buffer per transfer. Used by the client and the worker's agent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import grpc.aio

from . import direct
from .artifact import LEAF_BYTES, Leaf, Manifest, describe_folder, open_leaf_file, read_leaf, verify_folder
from .errors import Corrupt, NotAuthenticated, ShardworkError, Unreachable
from .ids import sha256_hex
from .pace import Pace, pace_of
from .partial import PartialDownload
from .v1 import artifacts_pb2 as pb
from .wire import error_from_rpc

if TYPE_CHECKING:
    from .v1.artifacts_pb2_grpc import ArtifactsServiceAsyncStub

Request = TypeVar("Request")
Response = TypeVar("Response")
P = ParamSpec("P")
T = TypeVar("T")
Progress = Callable[[int, int], None]

FRAME_BYTES = 256 << 10
#: without any progress for so long a transfer fails with the last error
GIVE_UP_S = 600.0
#: a stream that moves nothing for so long is cut and begun again
STALL_S = 90.0
CALL_TIMEOUT_S = 60.0
BACKOFF_S = 0.2
BACKOFF_CAP_S = 10.0
#: not Unreachable, yet gone by itself when asked again; grpc answers "internal" for any refusal that came while it
#: wrote, and beginning again brings out the real one
_PASSING = frozenset(
    {
        "artifact.superseded",
        "artifact.wrong_leaf",
        "artifact.too_many_uploads",
        "artifact.too_many_calls",
        "rpc.internal",
        "rpc.unknown",
    }
)


class ArtifactSession(Protocol):
    """What a transfer needs of `shardwork.session.Session`."""

    @property
    def artifacts(self) -> Any:
        """An ArtifactsServiceAsyncStub; Any, as pyright takes no cached_property for a property of a Protocol."""
        ...

    async def metadata(self) -> tuple[tuple[str, str], ...]: ...

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        timeout_s: float = 30.0,
        retries: int = 5,
    ) -> Response: ...

    async def move(self) -> bool:
        """To another coordinator, if this one is gone."""
        ...


async def upload_folder(
    session: ArtifactSession,
    folder: Path,
    *,
    purpose: str,
    manifest: Manifest | None = None,
    progress: Progress | None = None,
    give_up_s: float = GIVE_UP_S,
) -> Manifest:
    """Sends the folder's files; what the coordinator acknowledged before is not sent again. `purpose` is "input" or a
    lease id. Raises Corrupt "artifact.bad_leaf" when a file no longer matches, Unreachable after `give_up_s` idle."""
    if manifest is None:
        manifest = await asyncio.to_thread(describe_folder, folder)
    request = pb.BeginUploadRequest(manifest=manifest.to_bytes(), purpose=purpose)
    patience, untried = _Patience(give_up_s), True
    while True:
        try:
            begun = await session.call(_stub(session).BeginUpload, request, timeout_s=CALL_TIMEOUT_S, retries=0)
            patience.reached(begun.durable_leaves)
            if not begun.complete and untried and not begun.durable_leaves:
                untried = False
                if await direct.upload(session, folder, manifest, _counting(progress, manifest.total_bytes)):
                    break
            if not begun.complete:
                await _send(session, folder, manifest, begun.durable_leaves, progress=progress)
            break
        except ShardworkError as error:
            await patience.wait(error, session)
    _tell(progress, manifest.total_bytes, manifest.total_bytes)
    return manifest


async def download(
    session: ArtifactSession,
    artifact_id: str,
    into: Path,
    *,
    progress: Progress | None = None,
    give_up_s: float = GIVE_UP_S,
) -> Manifest:
    """Fetches the artifact to the folder `into`, which appears whole or not at all; goes on from "<into>.part". A
    folder that is there already is checked instead. Raises NotFound, Corrupt, Conflict, LimitExceeded
    "artifact.no_space", Unreachable after `give_up_s` idle."""
    patience = _Patience(give_up_s)
    manifest = await _fetch_manifest(session, artifact_id, patience)
    if into.exists():
        await asyncio.to_thread(verify_folder, into, manifest)
        return manifest
    partial = PartialDownload(into, manifest)
    try:
        await _in_thread(partial.open)
        patience.reached(partial.done)
        if partial.done < manifest.leaf_count:
            shortcut = direct.DirectDownload(
                session, manifest, lambda: partial.done, lambda: _Filling(partial, progress, pace_of(session)).add
            )
            await shortcut.run()
        while partial.done < manifest.leaf_count:
            try:
                await _receive(session, partial, progress)
            except ShardworkError as error:
                patience.reached(partial.done)
                await patience.wait(error, session)
        await _in_thread(partial.finish)
    finally:
        partial.close()
    _tell(progress, manifest.total_bytes, manifest.total_bytes)
    return manifest


async def manifest_of(session: ArtifactSession, artifact_id: str, *, give_up_s: float = GIVE_UP_S) -> Manifest:
    """What an artifact holds. Raises NotFound, Corrupt, Unreachable after `give_up_s` idle."""
    return await _fetch_manifest(session, artifact_id, _Patience(give_up_s))


async def fetch_leaf(
    session: ArtifactSession, manifest: Manifest, number: int, *, give_up_s: float = GIVE_UP_S
) -> bytes:
    """One leaf alone, checked; for whoever reads a piece of a large file. Raises as `download`."""
    leaf, patience = manifest.leaf(number), _Patience(give_up_s)
    while True:
        try:
            data = await _receive_leaf(session, manifest, leaf)
            await asyncio.to_thread(leaf.check, data)
            return data
        except ShardworkError as error:
            await patience.wait(error, session)


async def size_of(session: ArtifactSession, artifact_id: str) -> int:
    """Bytes of an artifact's files, without fetching them. Raises NotFound, Unreachable after a while."""
    return (await _fetch_manifest(session, artifact_id, _Patience(GIVE_UP_S))).total_bytes


class _Patience:
    """Waits between attempts, and gives up when none of them got further for too long."""

    def __init__(self, give_up_s: float) -> None:
        self._give_up_s = give_up_s
        self._since_s = time.monotonic()
        self._attempt = 0
        self._leaf = 0
        self._refused = False

    def reached(self, leaf: int) -> None:
        """Leaves that are safe on the other end."""
        if leaf > self._leaf:
            self._leaf, self._attempt, self._refused = leaf, 0, False
            self._since_s = time.monotonic()

    async def wait(self, error: ShardworkError, session: ArtifactSession) -> None:
        """Sleeps before the next attempt; raises `error` when another attempt can't help."""
        if isinstance(error, NotAuthenticated) and not self._refused:
            # a token ended on a live stream; the session renews it with the next call
            self._refused = True
        elif not (isinstance(error, Unreachable) or error.code in _PASSING):
            raise error
        if time.monotonic() - self._since_s >= self._give_up_s:
            raise error
        if isinstance(error, Unreachable) and await session.move():
            return
        span_s = min(BACKOFF_CAP_S, BACKOFF_S * float(2**self._attempt))
        self._attempt = min(self._attempt + 1, 16)
        await asyncio.sleep(span_s * (0.5 + random.random() / 2))


async def _send(
    session: ArtifactSession, folder: Path, manifest: Manifest, first: int, *, progress: Progress | None
) -> None:
    """One upload stream from leaf `first`. Raises Unreachable when the artifact is not complete then."""
    async with _one_stream():
        call = _stub(session).UploadLeaves(metadata=await session.metadata())
        try:
            async with aclosing(_frames(folder, manifest, first, progress)) as frames:
                async for frame in frames:
                    async with asyncio.timeout(STALL_S):
                        await call.write(frame)
                    await pace_of(session).went_up(len(frame.data))
            await call.done_writing()
        except asyncio.InvalidStateError:
            pass  # the coordinator ended the call early; its answer says why
        except BaseException:
            call.cancel()
            raise
        async with asyncio.timeout(STALL_S):
            answer = await call
    if not answer.complete:
        raise Unreachable("transfer.cut", "The stream ended before the last leaf.", artifact=manifest.id)


async def _frames(
    folder: Path, manifest: Manifest, first: int, progress: Progress | None
) -> AsyncGenerator[pb.UploadLeavesRequest, None]:
    """Frames of the leaves from `first` on, read through one reused buffer."""
    buffer = bytearray(LEAF_BYTES)
    head = pb.UploadLeavesRequest(artifact_id=manifest.id, first_leaf=first)
    number, sent = 0, 0
    for entry in manifest.files:
        skipped = min(max(first - number, 0), len(entry.leaves))
        number += skipped
        if skipped == len(entry.leaves):
            sent += entry.size
            continue
        sent += skipped * LEAF_BYTES
        with open_leaf_file(folder / entry.path) as file:
            file.seek(skipped * LEAF_BYTES)
            for _ in range(skipped, len(entry.leaves)):
                leaf = await _in_thread(read_leaf, file, buffer)
                # checked here too: grpc may lose the coordinator's refusal of a stream that is still being written
                manifest.leaf(number).check(leaf)
                number += 1
                for start in range(0, len(leaf), FRAME_BYTES):
                    head.data = bytes(leaf[start : start + FRAME_BYTES])
                    yield head
                    head = pb.UploadLeavesRequest()
                sent += len(leaf)
                _tell(progress, sent, manifest.total_bytes)


async def _fetch_manifest(session: ArtifactSession, artifact_id: str, patience: _Patience) -> Manifest:
    request = pb.GetManifestRequest(artifact_id=artifact_id)
    while True:
        try:
            answer = await session.call(_stub(session).GetManifest, request, timeout_s=CALL_TIMEOUT_S, retries=0)
            break
        except ShardworkError as error:
            await patience.wait(error, session)
    if sha256_hex(answer.manifest) != artifact_id:
        raise Corrupt(
            "artifact.wrong_manifest", "The coordinator sent a manifest of another artifact.", artifact=artifact_id
        )
    return await asyncio.to_thread(Manifest.parse, answer.manifest)


async def _receive(session: ArtifactSession, partial: PartialDownload, progress: Progress | None) -> None:
    """One download stream from the first leaf that is missing. Raises Unreachable when it ends before the last."""
    manifest = partial.manifest
    request = pb.DownloadLeavesRequest(
        artifact_id=manifest.id, first_leaf=partial.done, leaf_count=manifest.leaf_count - partial.done
    )
    filling = _Filling(partial, progress, pace_of(session))
    async with _one_stream():
        call = _stub(session).DownloadLeaves(request, metadata=await session.metadata())
        try:
            while True:
                async with asyncio.timeout(STALL_S):
                    frame = await call.read()
                if not isinstance(frame, pb.DownloadLeavesResponse):
                    break
                await filling.add(frame.data)
        finally:
            call.cancel()
    if partial.done < manifest.leaf_count:
        raise Unreachable("transfer.cut", "The stream ended before the last leaf.", artifact=manifest.id)


async def _receive_leaf(session: ArtifactSession, manifest: Manifest, leaf: Leaf) -> bytes:
    request = pb.DownloadLeavesRequest(artifact_id=manifest.id, first_leaf=leaf.number, leaf_count=1)
    data = bytearray()
    async with _one_stream():
        call = _stub(session).DownloadLeaves(request, metadata=await session.metadata())
        try:
            while len(data) < leaf.size_bytes:
                async with asyncio.timeout(STALL_S):
                    frame = await call.read()
                if not isinstance(frame, pb.DownloadLeavesResponse):
                    break
                data += frame.data
        finally:
            call.cancel()
    if len(data) < leaf.size_bytes:
        raise Unreachable("transfer.cut", "The stream ended before the last leaf.", artifact=manifest.id)
    return bytes(data)


class _Filling:
    """Gathers frames in one reused leaf buffer and hands each whole leaf to the disk."""

    def __init__(self, partial: PartialDownload, progress: Progress | None, pace: Pace) -> None:
        self._partial, self._pace = partial, pace
        self._progress = progress
        self._buffer = memoryview(bytearray(LEAF_BYTES))
        self._filled = 0
        self._done_bytes = partial.done_bytes

    async def add(self, data: bytes) -> None:
        partial = self._partial
        await self._pace.came_down(len(data))
        rest = memoryview(data)
        while rest:
            if partial.done == partial.manifest.leaf_count:
                raise Corrupt("transfer.too_much_data", "More data came than was asked for.")
            size = partial.manifest.leaf(partial.done).size_bytes
            taken = min(len(rest), size - self._filled)
            self._buffer[self._filled : self._filled + taken] = rest[:taken]
            self._filled += taken
            rest = rest[taken:]
            if self._filled == size:
                await _in_thread(partial.append, self._buffer[:size])
                self._filled = 0
                self._done_bytes += size
                _tell(self._progress, self._done_bytes, partial.manifest.total_bytes)


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `work` on a thread and sees its end even when cancelled: a file closed under a thread that still uses it
    would let that thread read or write whatever file gets the same descriptor next."""
    task = asyncio.create_task(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        task.exception()
        raise


def _stub(session: ArtifactSession) -> ArtifactsServiceAsyncStub:
    stub: ArtifactsServiceAsyncStub = session.artifacts
    return stub


def _counting(progress: Progress | None, total_bytes: int) -> Callable[[int], None]:
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done = min(done + count, total_bytes)
        _tell(progress, done, total_bytes)

    return told


def _tell(progress: Progress | None, done_bytes: int, total_bytes: int) -> None:
    if progress is not None:
        progress(done_bytes, total_bytes)


@asynccontextmanager
async def _one_stream() -> AsyncGenerator[None, None]:
    """Every way in which a stream can end badly, as a ShardworkError."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from None
    except TimeoutError:
        raise Unreachable("transfer.stalled", "The coordinator moved nothing for too long.", stall_s=STALL_S) from None
    except asyncio.CancelledError:
        # grpc raises this for a status CANCELLED too; only a cancelled task may end as cancelled
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Unreachable("transfer.cut", "The coordinator cancelled the stream.") from None
