"""Uploads and downloads over a real gRPC server: whole, cut, killed, damaged."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from shardwork import partial, transfer
from shardwork.artifact import LEAF_BYTES, Manifest, describe_folder, verify_folder
from shardwork.errors import Conflict, Corrupt, LimitExceeded, NotFound, Unreachable
from shardwork.session import Session
from shardwork.v1 import artifacts_pb2 as pb
from shardwork.wire import error_from_rpc
from shardwork_coordinator.artifacts.quota import ArtifactLimits
from shardwork_coordinator.rpc.artifacts import FRAME_BYTES, ArtifactsServicer
from shardwork_coordinator.rpc.auth import Context
from tests.coordinator.artifacts.service import NamedSession, NamingGate, Service, fill, frames_of, serving

OWNER = "00aa"


def takes_the_real_session(session: Session) -> transfer.ArtifactSession:
    """Checked by the type checkers alone: the sessions below stand in for this one."""
    return session


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BACKOFF_S", 0.01)


class Counting(ArtifactsServicer):
    """The real servicer, which counts bytes and cuts a stream when told."""

    def __init__(self, service: Service) -> None:
        super().__init__(NamingGate(), service.desk)
        self.received_bytes = 0
        self.sent_bytes = 0
        self.cut_after_bytes: list[int] = []
        self.streams = 0

    async def UploadLeaves(
        self, request_iterator: AsyncIterator[pb.UploadLeavesRequest], context: Context
    ) -> pb.UploadLeavesResponse:
        self.streams += 1
        limit = self.cut_after_bytes.pop(0) if self.cut_after_bytes else None

        async def counted() -> AsyncIterator[pb.UploadLeavesRequest]:
            left = limit
            async for frame in request_iterator:
                self.received_bytes += len(frame.data)
                yield frame
                if left is not None:
                    left -= len(frame.data)
                    if left <= 0:
                        raise Unreachable("test.cut", "The test cut the stream.")

        return await super().UploadLeaves(counted(), context)

    async def DownloadLeaves(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: pb.DownloadLeavesRequest, context: Any
    ) -> None:
        self.streams += 1
        limit = self.cut_after_bytes.pop(0) if self.cut_after_bytes else None
        counting: Any = _CountingContext(context, self, limit)
        await super().DownloadLeaves(request, counting)


class _CountingContext:
    def __init__(self, context: Any, counting: Counting, left: int | None) -> None:
        self._context = context
        self._counting = counting
        self._left = left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, frame: pb.DownloadLeavesResponse) -> None:
        self._counting.sent_bytes += len(frame.data)
        await self._context.write(frame)
        if self._left is not None:
            self._left -= len(frame.data)
            if self._left <= 0:
                raise Unreachable("test.cut", "The test cut the stream.")


async def counted(service: Service) -> Counting:
    """Serves again through a counting servicer."""
    await service.stop()
    counting = Counting(service)
    await service.start(counting)
    return counting


async def test_a_folder_comes_back_as_it_was_sent(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=3 * LEAF_BYTES + 17, empty=0, sub__b=LEAF_BYTES, sub__c=5)
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        seen: list[tuple[int, int]] = []
        manifest = await transfer.upload_folder(
            session, folder, purpose="input", progress=lambda done, total: seen.append((done, total))
        )
        got = await transfer.download(session, manifest.id, tmp_path / "out")
    assert got == manifest == describe_folder(tmp_path / "out")
    assert seen[-1] == (manifest.total_bytes, manifest.total_bytes) and seen == sorted(seen)
    assert not (tmp_path / "out.part").exists()


async def test_a_sessions_pace_hears_of_every_byte_that_goes_and_comes(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=LEAF_BYTES + 17)
    async with serving(tmp_path / "store") as service:
        session: Any = NamedSession(service.port, OWNER)
        session.pace = meter = Heard()
        manifest = await transfer.upload_folder(session, folder, purpose="input")
        await transfer.download(session, manifest.id, tmp_path / "out")
        assert await transfer.size_of(session, manifest.id) == manifest.total_bytes
    assert meter.up == meter.down == manifest.total_bytes


class Heard:
    """A pace that only counts."""

    up = 0
    down = 0

    async def came_down(self, count_bytes: int) -> None:
        self.down += count_bytes

    async def went_up(self, count_bytes: int) -> None:
        self.up += count_bytes


async def test_an_artifact_of_empty_files_needs_no_leaf(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=0, b=0)
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        manifest = await transfer.upload_folder(session, folder, purpose="input")
        await transfer.download(session, manifest.id, tmp_path / "out")
    verify_folder(tmp_path / "out", manifest)


async def test_own_content_is_not_sent_twice(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=2 * LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        counting = await counted(service)
        session = NamedSession(service.port, OWNER)
        await transfer.upload_folder(session, folder, purpose="input")
        await transfer.upload_folder(session, folder, purpose="input")
        assert counting.received_bytes == 2 * LEAF_BYTES


@pytest.mark.parametrize("cut_bytes", [FRAME_BYTES, LEAF_BYTES, 3 * LEAF_BYTES + FRAME_BYTES, 5 * LEAF_BYTES - 1])
async def test_a_cut_upload_sends_less_than_a_leaf_and_a_frame_again(tmp_path: Path, cut_bytes: int) -> None:
    folder = fill(tmp_path / "in", a=4 * LEAF_BYTES + 100, b=3 * LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        counting = await counted(service)
        counting.cut_after_bytes = [cut_bytes]
        manifest = await transfer.upload_folder(NamedSession(service.port, OWNER), folder, purpose="input")
        assert counting.streams == 2
        assert 0 <= counting.received_bytes - manifest.total_bytes < LEAF_BYTES + FRAME_BYTES
        assert service.contents.has(manifest.id)


@pytest.mark.parametrize("cut_bytes", [FRAME_BYTES, 2 * LEAF_BYTES, 3 * LEAF_BYTES + FRAME_BYTES])
async def test_a_cut_download_fetches_less_than_a_leaf_and_a_frame_again(tmp_path: Path, cut_bytes: int) -> None:
    folder = fill(tmp_path / "in", a=4 * LEAF_BYTES + 100, b=3 * LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        counting = await counted(service)
        session = NamedSession(service.port, OWNER)
        manifest = await transfer.upload_folder(session, folder, purpose="input")
        counting.cut_after_bytes = [cut_bytes, cut_bytes]
        await transfer.download(session, manifest.id, tmp_path / "out")
        assert counting.streams == 1 + 3
        assert 0 <= counting.sent_bytes - manifest.total_bytes < 2 * (LEAF_BYTES + FRAME_BYTES)
    verify_folder(tmp_path / "out", manifest)


async def test_one_leaf_comes_alone_also_over_a_stream_that_is_cut(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=5, b=2 * LEAF_BYTES + 17)
    async with serving(tmp_path / "store") as service:
        counting = await counted(service)
        session = NamedSession(service.port, OWNER)
        sent = await transfer.upload_folder(session, folder, purpose="input")
        manifest = await transfer.manifest_of(session, sent.id)
        assert manifest == sent
        for leaf in manifest.each_leaf():
            counting.sent_bytes, counting.cut_after_bytes = 0, [FRAME_BYTES] if leaf.number == 2 else []
            data = (folder / leaf.path).read_bytes()[leaf.offset_bytes : leaf.offset_bytes + leaf.size_bytes]
            assert await transfer.fetch_leaf(session, manifest, leaf.number) == data
            assert counting.cut_after_bytes == [] and counting.sent_bytes <= leaf.size_bytes + 2 * FRAME_BYTES


async def test_an_upload_survives_a_restart_of_the_coordinator(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=24 * LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        counting = await counted(service)
        restarts: list[asyncio.Task[None]] = []

        async def restart() -> None:
            await service.stop()
            await service.start(counting)

        def progress(done: int, total: int) -> None:
            if done >= 8 * LEAF_BYTES and not restarts:
                restarts.append(asyncio.create_task(restart()))

        manifest = await transfer.upload_folder(
            NamedSession(service.port, OWNER), folder, purpose="input", progress=progress
        )
        await restarts[0]
        assert counting.streams >= 2
        assert counting.received_bytes - manifest.total_bytes < LEAF_BYTES + FRAME_BYTES
        assert service.contents.has(manifest.id)


async def test_a_cancelled_upload_keeps_what_arrived(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=32 * LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        counting = await counted(service)
        session = NamedSession(service.port, OWNER)
        uploads: list[asyncio.Task[Manifest]] = []

        def cancel(done: int, total: int) -> None:
            if done == 10 * LEAF_BYTES:
                uploads[0].cancel()

        uploads.append(asyncio.create_task(transfer.upload_folder(session, folder, purpose="input", progress=cancel)))
        with pytest.raises(asyncio.CancelledError):
            await uploads[0]
        manifest = await transfer.upload_folder(session, folder, purpose="input")
        assert counting.received_bytes - manifest.total_bytes < LEAF_BYTES + FRAME_BYTES


KILLED = """
import asyncio, sys
from pathlib import Path
from shardwork import transfer
from tests.coordinator.artifacts.service import NamedSession
async def main():
    session = NamedSession(int(sys.argv[2]), "00aa")
    tell = lambda done, total: print(done, flush=True)
    if sys.argv[1] == "up":
        await transfer.upload_folder(session, Path(sys.argv[3]), purpose="input", progress=tell)
    else:
        await transfer.download(session, sys.argv[4], Path(sys.argv[3]), progress=tell)
asyncio.run(main())
"""


async def test_a_cancelled_transfer_waits_for_the_thread_that_uses_its_files() -> None:
    """Else the thread could read or write the next file that gets the same descriptor."""
    started, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        may_end.wait(10)
        ended.set()

    task = asyncio.create_task(transfer._in_thread(work))  # pyright: ignore[reportPrivateUsage]
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


#: prints its peak memory before the first transfer and after each; a session of the shared library alone
ROUNDS = """
import asyncio, resource, sys
from pathlib import Path
import grpc.aio
from shardwork import transfer
from shardwork.v1 import artifacts_pb2_grpc
class Session:
    def __init__(self, port):
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.http2.bdp_probe", 0)])
        self.artifacts = artifacts_pb2_grpc.ArtifactsServiceStub(self.channel)
    async def move(self) -> bool:
        return False

    async def metadata(self):
        return (("party", "00aa"), ("role", "requester"))
    async def call(self, method, request, *, timeout_s=30, retries=5):
        return await method(request, metadata=await self.metadata(), timeout=timeout_s)
def tell():
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
async def main():
    session = Session(int(sys.argv[1]))
    tell()
    for name in sys.argv[2:]:
        manifest = await transfer.upload_folder(session, Path(name), purpose="input")
        await transfer.download(session, manifest.id, Path(name + ".out"))
        tell()
asyncio.run(main())
"""


async def kill_midway(*arguments: str, after_bytes: int) -> None:
    """Runs a transfer in a process of its own and kills it with SIGKILL once it reports so much."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, *arguments, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}
    )
    assert process.stdout is not None
    while line := await process.stdout.readline():
        if int(line) >= after_bytes:
            break
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    assert process.returncode == -signal.SIGKILL


async def test_a_killed_uploader_goes_on_at_the_leaf(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=100 * LEAF_BYTES, b=30 * LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        counting = await counted(service)
        await kill_midway("up", str(service.port), str(folder), after_bytes=20 * LEAF_BYTES)
        manifest = await transfer.upload_folder(NamedSession(service.port, OWNER), folder, purpose="input")
        assert counting.streams == 2
        assert 0 <= counting.received_bytes - manifest.total_bytes < LEAF_BYTES + FRAME_BYTES
        assert service.contents.has(manifest.id)


async def test_a_killed_downloader_goes_on_from_its_disk(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=100 * LEAF_BYTES, b=30 * LEAF_BYTES)
    into = tmp_path / "out"
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        manifest = await transfer.upload_folder(session, folder, purpose="input")
        await kill_midway("down", str(service.port), str(into), manifest.id, after_bytes=20 * LEAF_BYTES)
        assert not into.exists()
        seen: list[int] = []
        await transfer.download(session, manifest.id, into, progress=lambda done, total: seen.append(done))
        assert seen[0] > 20 * LEAF_BYTES
    verify_folder(into, manifest)


async def test_damaged_bytes_on_disk_are_fetched_again(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=3 * LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        counting = await counted(service)
        session = NamedSession(service.port, OWNER)
        manifest = await transfer.upload_folder(session, folder, purpose="input")
        part = tmp_path / "out.part" / "files"
        shutil.copytree(folder, part)
        (tmp_path / "out.part" / "manifest").write_bytes(manifest.to_bytes())
        flip_bit(part / "a", LEAF_BYTES + 5)
        await transfer.download(session, manifest.id, tmp_path / "out")
        assert counting.sent_bytes == 2 * LEAF_BYTES
    verify_folder(tmp_path / "out", manifest)


async def test_a_corrupt_upload_is_refused_by_file_and_leaf(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=LEAF_BYTES, b=3 * LEAF_BYTES)
    manifest = describe_folder(folder)
    flip_bit(folder / "b", LEAF_BYTES + 7)
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        with pytest.raises(Corrupt) as caught:
            await transfer.upload_folder(session, folder, purpose="input", manifest=manifest)
        assert caught.value.code == "artifact.bad_leaf"
        assert caught.value.why.evidence == {"file": "b", "leaf": "1"}
        assert not service.contents.has(manifest.id)
        service.contents.close()


async def test_a_file_that_shrank_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=2 * LEAF_BYTES)
    manifest = describe_folder(folder)
    os.truncate(folder / "a", LEAF_BYTES + 1)
    async with serving(tmp_path / "store") as service:
        with pytest.raises(Corrupt):
            await transfer.upload_folder(NamedSession(service.port, OWNER), folder, purpose="input", manifest=manifest)


class Lying(ArtifactsServicer):
    """A coordinator that flips one bit of each frame."""

    async def DownloadLeaves(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: pb.DownloadLeavesRequest, context: Any
    ) -> None:
        await context.write(pb.DownloadLeavesResponse(data=b"\0" * LEAF_BYTES))


async def test_a_corrupt_download_is_refused_by_file_and_leaf(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=2 * LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        manifest = await transfer.upload_folder(session, folder, purpose="input")
        await service.stop()
        await service.start(Lying(NamingGate(), service.desk))
        with pytest.raises(Corrupt) as caught:
            await transfer.download(session, manifest.id, tmp_path / "out")
        assert (caught.value.code, caught.value.why.evidence["file"]) == ("artifact.bad_leaf", "a")
        with pytest.raises(Corrupt, match=r"leaf: 0"):
            await transfer.fetch_leaf(session, manifest, 0)
    assert not (tmp_path / "out").exists()


async def test_a_damaged_pack_is_told_to_the_reader(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=3 * LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        manifest = await transfer.upload_folder(session, folder, purpose="input")
        flip_bit(tmp_path / "store" / "packs" / manifest.id / "0", 2 * LEAF_BYTES)
        with pytest.raises(Corrupt) as caught:
            await transfer.download(session, manifest.id, tmp_path / "out")
        assert caught.value.why.evidence == {"file": "a", "leaf": "2"}
        with pytest.raises(Corrupt):
            await transfer.fetch_leaf(session, manifest, 2)


async def test_a_folder_that_is_there_is_checked_and_not_fetched(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        counting = await counted(service)
        session = NamedSession(service.port, OWNER)
        manifest = await transfer.upload_folder(session, folder, purpose="input")
        await transfer.download(session, manifest.id, folder)
        assert counting.sent_bytes == 0
        flip_bit(folder / "a", 0)
        with pytest.raises(Corrupt):
            await transfer.download(session, manifest.id, folder)


async def test_a_download_that_does_not_fit_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(tmp_path / "in", a=LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        counting = await counted(service)
        session = NamedSession(service.port, OWNER)
        manifest = await transfer.upload_folder(session, folder, purpose="input")
        monkeypatch.setattr(partial, "RESERVE_BYTES", 1 << 60)
        with pytest.raises(LimitExceeded) as caught:
            await transfer.download(session, manifest.id, tmp_path / "out")
        assert caught.value.code == "artifact.no_space" and counting.sent_bytes == 0


async def test_two_downloads_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        manifest = await transfer.upload_folder(session, folder, purpose="input")
        holder = partial.PartialDownload(tmp_path / "out", manifest)
        holder.open()
        with pytest.raises(Conflict) as caught:
            await transfer.download(session, manifest.id, tmp_path / "out")
        assert caught.value.code == "artifact.download_busy"
        holder.close()
        await transfer.download(session, manifest.id, tmp_path / "out")


async def test_an_unknown_artifact_is_not_waited_for(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        with pytest.raises(NotFound):
            await transfer.download(NamedSession(service.port, OWNER), "0" * 64, tmp_path / "out")


async def test_a_transfer_gives_up_on_a_coordinator_that_stays_away(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=1)
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        await service.stop()
        with pytest.raises(Unreachable):
            await transfer.upload_folder(session, folder, purpose="input", give_up_s=0.1)


async def test_an_idle_upload_is_ended_and_keeps_its_leaves(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=2 * LEAF_BYTES)
    async with serving(tmp_path / "store", ArtifactLimits(reserve_bytes=0, idle_s=0.2)) as service:
        session = NamedSession(service.port, OWNER)
        manifest = describe_folder(folder)
        request = pb.BeginUploadRequest(manifest=manifest.to_bytes(), purpose="input")
        await session.call(session.artifacts.BeginUpload, request)
        call = session.artifacts.UploadLeaves(metadata=await session.metadata())
        for frame in frames_of(manifest.id, 0, (folder / "a").read_bytes()[: LEAF_BYTES + 100]):
            await call.write(frame)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert error_from_rpc(caught.value).code == "artifact.idle"
        assert service.contents.durable_leaves(manifest.id, owner=OWNER) == 1


async def test_a_new_connection_ends_the_older_stream_of_the_same_upload(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=3 * LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        manifest = describe_folder(folder)
        request = pb.BeginUploadRequest(manifest=manifest.to_bytes(), purpose="input")
        await session.call(session.artifacts.BeginUpload, request)
        older = session.artifacts.UploadLeaves(metadata=await session.metadata())
        for frame in frames_of(manifest.id, 0, (folder / "a").read_bytes()[:LEAF_BYTES]):
            await older.write(frame)
        await transfer.upload_folder(NamedSession(service.port, OWNER), folder, purpose="input")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await older
        assert error_from_rpc(caught.value).code == "artifact.superseded"


async def test_the_mebibytes_of_many_transfers_do_not_pile_up(tmp_path: Path) -> None:
    """Five shards of 40 MiB there and back in a process of its own: the fourth round costs no more than the first."""
    folders = [fill(tmp_path / f"in{number}", a=40 * LEAF_BYTES) for number in range(5)]
    async with serving(tmp_path / "store") as service:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ROUNDS, str(service.port), *map(str, folders),
            stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."},
        )  # fmt: skip
        out, _ = await process.communicate()
    assert process.returncode == 0
    peaks_kib = [int(line) for line in out.split()]
    assert len(peaks_kib) == 6
    assert peaks_kib[-1] - peaks_kib[0] < 30 * 1024, peaks_kib


def flip_bit(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
