"""Who may read and send what: the grants matrix, proof by sending, limits, and answers that tell nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

from shardwork import transfer
from shardwork.artifact import LEAF_BYTES, Manifest, describe_folder
from shardwork.errors import Conflict, Corrupt, InvalidInput, LimitExceeded, NotFound, ShardworkError
from shardwork.identity.role import Role
from shardwork.v1 import artifacts_pb2 as pb
from shardwork.wire import error_from_rpc
from shardwork_coordinator.artifacts.quota import ArtifactLimits
from shardwork_coordinator.machine.attempts import lease_id
from shardwork_coordinator.records import Artifact, ArtifactState, Purpose, Replica, ReplicaState, Shard, ShardState
from shardwork_coordinator.rpc.artifacts import may_read
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.store.memory import MemoryStore

from .service import NamedSession, Service, fill, frames_of, serving

OWNER, WORKER, STRANGER = "0a", "0b", "0c"
CONTENT = "5" * 64


def shard(inputs: dict[str, str]) -> Shard:
    return Shard(
        id="j/s/r1/learn/s0",
        job_id="j",
        stage="s",
        round=1,
        phase="learn",
        position=0,
        recipe="sft",
        state=ShardState.RUNNING,
        order_json="{}",
        inputs_json=json.dumps(inputs),
        seed=b"\0" * 32,
        work_units=1,
        price_msat=1,
        fee_msat=0,
        attempts_left=1,
        created_ms=1,
    )


def replica(state: ReplicaState, worker: str = WORKER) -> Replica:
    return Replica(
        shard_id="j/s/r1/learn/s0",
        number=0,
        job_id="j",
        stage="s",
        round=1,
        phase="learn",
        purpose=Purpose.PRIMARY,
        state=state,
        worker_id=worker,
    )


def row(artifact_id: str, owner: str, state: ArtifactState = ArtifactState.STORED) -> Artifact:
    return Artifact(id=artifact_id, owner=owner, purpose="input", state=state, bytes=1, leaves=1, created_ms=1)


def caller(party: str, role: Role) -> Caller:
    return Caller(party, b"\0" * 32, role)


LIVE = {ReplicaState.LEASED, ReplicaState.COMMITTED, ReplicaState.SUBMITTED}


@pytest.mark.parametrize("state", list(ReplicaState))
async def test_a_lease_grants_its_inputs_while_it_lives(state: ReplicaState) -> None:
    rows = MemoryStore()
    rows.start()

    def put(tx: Transaction) -> None:
        tx.insert(row(CONTENT, OWNER))
        tx.insert(shard({"train": CONTENT, "base": "6" * 64}))
        tx.insert(replica(state))

    await rows.write(put)

    async def allowed(party: str, role: Role, artifact_id: str = CONTENT) -> bool:
        return await rows.read(lambda tx: may_read(tx, caller(party, role), artifact_id))

    assert await allowed(WORKER, Role.WORKER) is (state in LIVE)
    assert not await allowed(WORKER, Role.WORKER, "7" * 64)
    assert not await allowed(WORKER, Role.REQUESTER)
    assert not await allowed(STRANGER, Role.WORKER)
    assert not await allowed(STRANGER, Role.REQUESTER)
    assert await allowed(OWNER, Role.REQUESTER)
    assert await allowed("0f", Role.OPERATOR)
    rows.close()


async def test_a_staged_row_grants_nothing() -> None:
    rows = MemoryStore()
    rows.start()
    await rows.write(lambda tx: tx.put(row(CONTENT, OWNER, ArtifactState.STAGING)))
    assert not await rows.read(lambda tx: may_read(tx, caller(OWNER, Role.REQUESTER), CONTENT))
    rows.close()


async def uploaded(service: Service, folder: Path) -> Manifest:
    return await transfer.upload_folder(NamedSession(service.port, OWNER), folder, purpose="input")


async def refusal(session: NamedSession, artifact_id: str) -> tuple[str, str]:
    with pytest.raises(NotFound) as caught:
        await session.call(session.artifacts.GetManifest, pb.GetManifestRequest(artifact_id=artifact_id))
    request = pb.DownloadLeavesRequest(artifact_id=artifact_id, first_leaf=0, leaf_count=1)
    with pytest.raises(grpc.aio.AioRpcError) as download:
        async for _ in session.artifacts.DownloadLeaves(request, metadata=await session.metadata()):
            pass
    told = error_from_rpc(download.value)
    assert (told.code, told.why.sentence) == (caught.value.code, caught.value.why.sentence)
    return told.code, told.why.sentence


async def test_forbidden_and_unknown_ids_get_the_same_answer(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        manifest = await uploaded(service, fill(tmp_path / "in", a=5))
        stranger = NamedSession(service.port, STRANGER)
        assert await refusal(stranger, manifest.id) == await refusal(stranger, "0" * 64)


async def test_a_lease_holder_reads_over_the_wire_until_its_lease_expires(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        manifest = await uploaded(service, fill(tmp_path / "in", a=5))
        worker = NamedSession(service.port, WORKER, Role.WORKER)
        await service.rows.write(lambda tx: tx.insert(shard({"train": manifest.id})))
        await service.rows.write(lambda tx: tx.put(replica(ReplicaState.LEASED)))
        await transfer.download(worker, manifest.id, tmp_path / "out")
        await service.rows.write(lambda tx: tx.put(replica(ReplicaState.EXPIRED)))
        with pytest.raises(NotFound):
            await transfer.download(worker, manifest.id, tmp_path / "again")


async def begin(session: NamedSession, manifest: Manifest, purpose: str = "input") -> pb.BeginUploadResponse:
    request = pb.BeginUploadRequest(manifest=manifest.to_bytes(), purpose=purpose)
    return await session.call(session.artifacts.BeginUpload, request)


async def send(session: NamedSession, frames: list[pb.UploadLeavesRequest]) -> pb.UploadLeavesResponse:
    try:
        return await session.artifacts.UploadLeaves(iter(frames), metadata=await session.metadata())
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from None


async def owns(service: Service, artifact_id: str, owner: str) -> Artifact | None:
    return await service.rows.read(lambda tx: tx.get(Artifact, artifact_id, owner))


async def test_a_stranger_who_knows_a_manifest_must_send_every_leaf(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=2 * LEAF_BYTES)
    async with serving(tmp_path / "store") as service:
        manifest = await uploaded(service, folder)
        stranger = NamedSession(service.port, STRANGER)
        begun = await begin(stranger, manifest)
        assert (begun.durable_leaves, begun.complete) == (0, False)
        await refusal(stranger, manifest.id)
        data = (folder / "a").read_bytes()
        half = await send(stranger, frames_of(manifest.id, 0, data[:LEAF_BYTES]))
        assert (half.durable_leaves, half.complete) == (1, False)
        await refusal(stranger, manifest.id)
        with pytest.raises(Corrupt):
            await send(stranger, frames_of(manifest.id, 1, bytes(LEAF_BYTES)))
        await refusal(stranger, manifest.id)
        done = await send(stranger, frames_of(manifest.id, 1, data[LEAF_BYTES:]))
        assert done.complete
        await transfer.download(stranger, manifest.id, tmp_path / "out")
        mine, theirs = await owns(service, manifest.id, STRANGER), await owns(service, manifest.id, OWNER)
        assert mine is not None and theirs is not None and mine == replace(theirs, owner=STRANGER)


async def test_what_one_may_read_already_is_complete_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        manifest = await uploaded(service, fill(tmp_path / "in", a=5))
        await service.rows.write(lambda tx: tx.insert(shard({"train": manifest.id})))
        await service.rows.write(lambda tx: tx.put(replica(ReplicaState.LEASED)))
        lease = lease_id(replica(ReplicaState.LEASED))
        begun = await begin(NamedSession(service.port, WORKER, Role.WORKER), manifest, lease)
        assert begun.complete
        mine = await owns(service, manifest.id, WORKER)
        assert mine is not None and mine.state is ArtifactState.STORED and mine.purpose == lease


async def test_two_owners_sending_the_same_content_at_once_both_get_it(tmp_path: Path) -> None:
    """Two workers that agree bit by bit hand in equal artifacts at the same moment."""
    folder = fill(tmp_path / "in", a=5 * LEAF_BYTES, b=3)
    async with serving(tmp_path / "store") as service:
        sessions = [NamedSession(service.port, party, Role.WORKER) for party in (OWNER, WORKER, STRANGER)]
        found = await asyncio.gather(
            *(transfer.upload_folder(session, folder, purpose="lease") for session in sessions)
        )
        for session in sessions:
            assert await owns(service, found[0].id, session.party) is not None
        assert list((tmp_path / "store" / "uploads").iterdir()) == []


async def code_of(frames: list[pb.UploadLeavesRequest], session: NamedSession) -> tuple[type[ShardworkError], str]:
    with pytest.raises(ShardworkError) as caught:
        await send(session, frames)
    return type(caught.value), caught.value.code


async def test_malformed_streams_are_refused_by_name(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=LEAF_BYTES)
    manifest, data = describe_folder(folder), (folder / "a").read_bytes()
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        assert await code_of(frames_of(manifest.id, 0, data), session) == (NotFound, "artifact.no_upload")
        assert await code_of(frames_of("../x", 0, data), session) == (NotFound, "artifact.not_found")
        assert await code_of([], session) == (InvalidInput, "artifact.empty_stream")
        await begin(session, manifest)
        assert await code_of(frames_of(manifest.id, 1, data), session) == (Conflict, "artifact.wrong_leaf")
        large = frames_of(manifest.id, 0, data, (256 << 10) + 1)
        assert await code_of(large, session) == (LimitExceeded, "artifact.frame_too_large")
        mixed = frames_of(manifest.id, 0, data)
        mixed[1].artifact_id = "0" * 64
        assert await code_of(mixed, session) == (InvalidInput, "artifact.mixed_stream")
        long = frames_of(manifest.id, 0, data + b"x")
        assert await code_of(long, session) == (InvalidInput, "artifact.too_much_data")


async def test_limits_are_told(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=LEAF_BYTES)
    manifest = describe_folder(folder)
    limits = ArtifactLimits(artifact_max_bytes=10, reserve_bytes=0)
    async with serving(tmp_path / "small", limits) as service:
        with pytest.raises(LimitExceeded) as caught:
            await begin(NamedSession(service.port, OWNER), manifest)
        assert caught.value.code == "artifact.too_large"
    async with serving(tmp_path / "full", ArtifactLimits(reserve_bytes=1 << 60)) as service:
        with pytest.raises(LimitExceeded) as caught:
            await begin(NamedSession(service.port, OWNER), manifest)
        assert caught.value.code == "artifact.no_space"
    async with serving(tmp_path / "busy", ArtifactLimits(uploads_max=1, reserve_bytes=0)) as service:
        session, other = NamedSession(service.port, OWNER), NamedSession(service.port, STRANGER)
        await begin(session, manifest)
        await begin(other, manifest)
        holding = session.artifacts.UploadLeaves(metadata=await session.metadata())
        await holding.write(pb.UploadLeavesRequest(artifact_id=manifest.id))
        while not service.desk.streams.count:
            await asyncio.sleep(0)
        frames = frames_of(manifest.id, 0, (folder / "a").read_bytes())
        assert await code_of(frames, other) == (LimitExceeded, "artifact.too_many_uploads")
        holding.cancel()


@pytest.mark.parametrize("purpose", ["", "x" * 513, "input\x1b[2J", "a\nb"])
async def test_a_purpose_is_asked_for(tmp_path: Path, purpose: str) -> None:
    async with serving(tmp_path / "store") as service:
        with pytest.raises(InvalidInput):
            await begin(NamedSession(service.port, OWNER), describe_folder(fill(tmp_path / "in", a=1)), purpose)


async def test_noise_is_not_a_manifest(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        with pytest.raises(InvalidInput) as caught:
            await session.call(session.artifacts.BeginUpload, pb.BeginUploadRequest(manifest=b"x", purpose="input"))
        assert caught.value.code == "artifact.bad_manifest"


async def test_leaves_beyond_the_end_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        manifest = await uploaded(service, fill(tmp_path / "in", a=5))
        session = NamedSession(service.port, OWNER)
        for first, count in ((0, 2), (2, 1), (1 << 63, 1 << 63)):
            request = pb.DownloadLeavesRequest(artifact_id=manifest.id, first_leaf=first, leaf_count=count)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in session.artifacts.DownloadLeaves(request, metadata=await session.metadata()):
                    pass
            assert error_from_rpc(caught.value).code == "artifact.no_such_leaf"
