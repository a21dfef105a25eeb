"""How much one key may take: disk that nothing needs, unfinished uploads, streams, calls; and what counts as needed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

from shardwork import transfer
from shardwork.artifact import LEAF_BYTES, Manifest, describe_folder
from shardwork.errors import LimitExceeded, ShardworkError
from shardwork.identity.role import Role
from shardwork.v1 import artifacts_pb2 as pb
from shardwork.wire import error_from_rpc
from shardwork_coordinator.artifacts.quota import ArtifactLimits
from shardwork_coordinator.records import Artifact, Job, JobState, Record, ReplicaState
from shardwork_coordinator.store.base import Transaction

from .service import NamedSession, Service, fill, frames_of, serving
from .test_access import OWNER, STRANGER, WORKER, begin, code_of, owns, replica, send, shard

#: room for three artifacts of one leaf
SMALL = ArtifactLimits(reserve_bytes=0, loose_max_bytes=3 * LEAF_BYTES, staged_max=2)


def content(folder: Path, number: int, size_bytes: int = LEAF_BYTES) -> Path:
    return fill(folder / f"in{number}", a=size_bytes)


async def put(service: Service, *rows: Record) -> None:
    def work(tx: Transaction) -> None:
        for row in rows:
            tx.put(row)

    await service.rows.write(work)


def job_of(owner: str, artifact_id: str, state: JobState = JobState.RUNNING) -> Job:
    return Job(
        id="j",
        owner=owner,
        submission_id="s",
        name="j",
        state=state,
        spec_json="{}",
        facts_json="{}",
        inputs_json=json.dumps({"s.data": artifact_id}),
        quote_json="{}",
        rates_json="{}",
        budget_msat=1,
        created_ms=1,
    )


async def sent(session: NamedSession, folder: Path) -> Manifest:
    return await transfer.upload_folder(session, folder, purpose="input")


async def assert_over_quota(session: NamedSession, folder: Path) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as caught:
        await sent(session, folder)
    assert caught.value.code == "artifact.over_quota"
    return caught.value


def staged(root: Path) -> list[Path]:
    return list((root / "uploads").iterdir())


async def test_a_key_stores_only_so_much_that_no_job_uses(tmp_path: Path) -> None:
    async with serving(tmp_path / "store", SMALL) as service:
        session = NamedSession(service.port, OWNER)
        first = await sent(session, content(tmp_path, 0))
        for number in (1, 2):
            await sent(session, content(tmp_path, number))
        more = content(tmp_path, 3)
        told = (await assert_over_quota(session, more)).why
        assert told.evidence["unused_bytes"] == told.evidence["limit_bytes"] == str(3 * LEAF_BYTES)
        assert told.evidence["this_bytes"] == str(LEAF_BYTES) and "upload_quota_gib" in told.next_step
        assert staged(tmp_path / "store") == [] and await owns(service, describe_folder(more).id, OWNER) is None
        # others are not kept from anything, and what is there already is never refused
        await sent(NamedSession(service.port, STRANGER), more)
        await sent(session, tmp_path / "in0")
        # an input of a job is no longer loose, until the job fails
        await put(service, job_of(OWNER, first.id))
        await sent(session, more)
        await put(service, job_of(OWNER, first.id, JobState.CANCELLED))
        await assert_over_quota(session, content(tmp_path, 4))


async def test_a_few_bytes_are_counted_as_what_they_cost(tmp_path: Path) -> None:
    async with serving(tmp_path / "store", SMALL) as service:
        session = NamedSession(service.port, OWNER)
        for number in range(3):
            await sent(session, content(tmp_path, number, 32))
        await assert_over_quota(session, content(tmp_path, 3, 32))


async def test_unfinished_uploads_count_and_are_few(tmp_path: Path) -> None:
    async with serving(tmp_path / "store", SMALL) as service:
        session = NamedSession(service.port, OWNER)
        begun = [describe_folder(content(tmp_path, number)) for number in range(2)]
        for manifest in begun:
            await begin(session, manifest)
        with pytest.raises(LimitExceeded) as caught:
            await begin(session, describe_folder(content(tmp_path, 2)))
        assert caught.value.code == "artifact.too_many_staged"
        # those that are begun go on
        assert (await begin(session, begun[0])).durable_leaves == 0
        assert (await send(session, frames_of(begun[0].id, 0, (tmp_path / "in0" / "a").read_bytes()))).complete
        assert len(staged(tmp_path / "store")) == 1
        await assert_over_quota(session, content(tmp_path, 3, 2 * LEAF_BYTES))


async def test_many_uploads_begun_at_once_pass_no_limit(tmp_path: Path) -> None:
    limits = replace(SMALL, staged_max=100)
    async with serving(tmp_path / "store", limits) as service:
        session = NamedSession(service.port, OWNER)
        manifests = [describe_folder(content(tmp_path, number, 32)) for number in range(12)]
        answers = await asyncio.gather(*(begin(session, one) for one in manifests), return_exceptions=True)
        refused = [one for one in answers if isinstance(one, ShardworkError)]
        assert [one.code for one in refused] == ["artifact.over_quota"] * 9
        assert len(staged(tmp_path / "store")) == 3


async def test_a_lease_gives_room_for_its_outputs_and_a_result_is_not_loose(tmp_path: Path) -> None:
    limits = replace(SMALL, loose_max_bytes=1)
    async with serving(tmp_path / "store", limits) as service:
        session = NamedSession(service.port, WORKER, Role.WORKER)
        folder = content(tmp_path, 0, 3 * LEAF_BYTES)
        await assert_over_quota(session, folder)
        await put(service, replace(shard({}), memory_bytes=LEAF_BYTES), replica(ReplicaState.COMMITTED))
        output = await sent(session, folder)
        held = replace(replica(ReplicaState.ACCEPTED), outputs_json=json.dumps({"delta": output.id}))
        held = replace(held, granted_ms=service.desk.clock.now_ms())
        await put(service, held)
        await assert_over_quota(session, content(tmp_path, 1))
        # the next lease finds all of its room again, and junk left by the one before takes it
        await put(service, replace(replica(ReplicaState.LEASED), number=1))
        await sent(session, content(tmp_path, 1, 3 * LEAF_BYTES))
        await assert_over_quota(session, content(tmp_path, 2, 3 * LEAF_BYTES))


async def test_the_operator_has_no_quota(tmp_path: Path) -> None:
    async with serving(tmp_path / "store", replace(SMALL, loose_max_bytes=1)) as service:
        manifest = await sent(NamedSession(service.port, OWNER, Role.OPERATOR), content(tmp_path, 0))
        assert service.contents.has(manifest.id)


@pytest.mark.parametrize(("leases", "refused"), [(0, True), (1, False)])
async def test_the_last_of_the_room_is_for_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leases: int, refused: bool
) -> None:
    """64 MiB are never filled, and the 64 before them only by whoever works."""
    async with serving(tmp_path / "store", ArtifactLimits(reserve_bytes=64 << 20)) as service:
        monkeypatch.setattr(service.contents, "free_bytes", lambda: 100 << 20)
        if leases:
            await put(service, shard({}), replica(ReplicaState.LEASED))
        session = NamedSession(service.port, WORKER, Role.WORKER)
        manifest = describe_folder(content(tmp_path, 0))
        if not refused:
            assert not (await begin(session, manifest)).complete
            return
        with pytest.raises(LimitExceeded) as caught:
            await begin(session, manifest)
        assert caught.value.code == "artifact.no_space"
        assert staged(tmp_path / "store") == []


async def test_room_that_was_promised_to_many_is_looked_at_again_with_each_leaf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = content(tmp_path, 0, 2 * LEAF_BYTES)
    async with serving(tmp_path / "store", ArtifactLimits(reserve_bytes=1 << 20)) as service:
        session, manifest = NamedSession(service.port, OWNER), describe_folder(folder)
        await begin(session, manifest)
        monkeypatch.setattr(service.contents, "free_bytes", lambda: (1 << 20) + 100)
        frames = frames_of(manifest.id, 0, (folder / "a").read_bytes())
        assert await code_of(frames, session) == (LimitExceeded, "artifact.no_space")
        assert service.contents.staged_bytes(manifest.id, owner=OWNER) == 0


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not look():
            await asyncio.sleep(0)


async def test_one_key_has_few_streams_and_leaves_the_others_theirs(tmp_path: Path) -> None:
    manifests = [describe_folder(content(tmp_path, number)) for number in range(3)]
    async with serving(tmp_path / "store", ArtifactLimits(reserve_bytes=0, uploads_of_one_max=2)) as service:
        session = NamedSession(service.port, OWNER)
        held: list[grpc.aio.StreamUnaryCall[pb.UploadLeavesRequest, pb.UploadLeavesResponse]] = []
        for number, manifest in enumerate(manifests):
            await begin(session, manifest)
            if number < 2:
                held.append(session.artifacts.UploadLeaves(metadata=await session.metadata()))
                await held[-1].write(pb.UploadLeavesRequest(artifact_id=manifest.id))
        await until(lambda: service.desk.streams.count == 2)
        frames = frames_of(manifests[2].id, 0, (tmp_path / "in2" / "a").read_bytes())
        assert await code_of(frames, session) == (LimitExceeded, "artifact.too_many_uploads")
        await sent(NamedSession(service.port, STRANGER), tmp_path / "in2")
        for call in held:
            call.cancel()


async def test_one_key_has_few_calls_open_also_before_their_first_frame(tmp_path: Path) -> None:
    async with serving(tmp_path / "store", ArtifactLimits(reserve_bytes=0, calls_of_one_max=3)) as service:
        session, other = NamedSession(service.port, OWNER), NamedSession(service.port, STRANGER)
        manifest = await sent(other, content(tmp_path, 0))
        silent = [session.artifacts.UploadLeaves(metadata=await session.metadata()) for _ in range(4)]
        for call in silent:
            await call.wait_for_connection()
        done, open_ = await asyncio.wait(
            [asyncio.ensure_future(_status(call)) for call in silent], return_when="FIRST_COMPLETED"
        )
        assert [one.result() for one in done] == ["artifact.too_many_calls"] and len(open_) == 3
        with pytest.raises(LimitExceeded):
            await session.call(session.artifacts.GetManifest, pb.GetManifestRequest(artifact_id=manifest.id))
        await transfer.download(other, manifest.id, tmp_path / "out")
        for call in silent:
            call.cancel()
        await asyncio.wait(open_)
        await sent(session, content(tmp_path, 1))


async def _status(call: grpc.aio.StreamUnaryCall[pb.UploadLeavesRequest, pb.UploadLeavesResponse]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error_from_rpc(error).code
    except asyncio.CancelledError:
        return "cancelled"
    return "answered"


async def test_a_stream_that_trickles_holds_no_place(tmp_path: Path) -> None:
    """A byte now and then kept a stream alive for ever."""
    manifest = describe_folder(content(tmp_path, 0))
    async with serving(tmp_path / "store", ArtifactLimits(reserve_bytes=0, idle_s=0.2)) as service:
        session = NamedSession(service.port, OWNER)
        await begin(session, manifest)
        call = session.artifacts.UploadLeaves(metadata=await session.metadata())
        await call.write(pb.UploadLeavesRequest(artifact_id=manifest.id))
        await until(lambda: service.desk.streams.count == 1)
        async with asyncio.timeout(20):
            while service.desk.streams.count:
                # grpc may lose the reason that a stream ended with while it was written to
                with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await call.write(pb.UploadLeavesRequest(data=b"x"))
                await asyncio.sleep(0.01)
        assert await _status(call) in ("artifact.idle", "rpc.internal")


async def test_rows_of_before_the_window_do_not_count(tmp_path: Path) -> None:
    """What is older is deleted by the sweep, which may be behind."""
    async with serving(tmp_path / "store", replace(SMALL, keep_s=10.0)) as service:
        session = NamedSession(service.port, OWNER)
        for number in range(3):
            await sent(session, content(tmp_path, number))
        await assert_over_quota(session, content(tmp_path, 3))
        rows = await service.rows.read(lambda tx: tx.find(Artifact, owner=OWNER))
        await put(service, *(replace(row, created_ms=row.created_ms - 10_000) for row in rows))
        await sent(session, tmp_path / "in3")
