"""What the sweep deletes, and everything that it must not."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from shardwork import transfer
from shardwork.artifact import LEAF_BYTES, describe_folder, verify_folder
from shardwork.errors import NotFound
from shardwork.identity.role import Role
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.artifacts.expiry import Expiry
from shardwork_coordinator.artifacts.quota import ArtifactLimits
from shardwork_coordinator.artifacts.retention import DAY_MS
from shardwork_coordinator.artifacts.store import UNUSED_S
from shardwork_coordinator.machine.attempts import lease_id
from shardwork_coordinator.records import Artifact, ArtifactState, JobState, ReplicaState, Stage, StageState

from .service import NamedSession, Service, fill, frames_of, serving
from .test_access import OWNER, STRANGER, WORKER, begin, owns, replica, row, send, shard
from .test_quota import content, job_of, put, sent

DAY_S = 24 * 3600.0


async def sweep_later(service: Service, root: Path, *, aged: bool = True) -> None:
    """A sweep when everything that is there now has become old."""
    rows = await service.rows.read(lambda tx: tx.find(Artifact))
    await put(service, *(replace(one, created_ms=one.created_ms - int(DAY_S * 1000)) for one in rows))
    if aged:
        for path in root.rglob("*"):
            os.utime(path, (1, 1))
    await Expiry(service.rows, service.contents, service.desk.clock, ArtifactLimits(keep_s=DAY_S)).sweep()


async def test_what_nobody_finished_or_needs_is_deleted_and_can_be_sent_again(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        loose = await sent(session, content(tmp_path, 0))
        half = describe_folder(content(tmp_path, 1, 2 * LEAF_BYTES))
        await begin(session, half)
        await send(session, frames_of(half.id, 0, (tmp_path / "in1" / "a").read_bytes()[:LEAF_BYTES]))
        await sweep_later(service, tmp_path / "store")
        assert not service.contents.has(loose.id)
        assert list((tmp_path / "store" / "uploads").iterdir()) == list((tmp_path / "store" / "packs").iterdir()) == []
        with pytest.raises(NotFound):
            await transfer.download(session, loose.id, tmp_path / "gone")
        for number in (0, 1):
            manifest = await sent(session, tmp_path / f"in{number}")
            await transfer.download(session, manifest.id, tmp_path / f"out{number}")


async def test_what_a_job_a_result_or_the_house_needs_stays(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        session, worker = NamedSession(service.port, OWNER), NamedSession(service.port, WORKER, Role.WORKER)
        data, model = await sent(session, content(tmp_path, 0)), await sent(session, content(tmp_path, 1))
        delta = await sent(worker, content(tmp_path, 2))
        merged = service.contents.put_folder(content(tmp_path, 3))
        old = service.contents.put_folder(content(tmp_path, 4))
        made = Stage(
            job_id="j",
            name="s",
            position=0,
            recipe="sft",
            state=StageState.DONE,
            planned_rounds=1,
            spec_json="{}",
            artifacts_json=json.dumps({"checkpoint": merged.id}),
            outputs_json=json.dumps({"s.model": {"artifact_id": model.id}}),
        )
        handed_in = replace(replica(ReplicaState.ACCEPTED), outputs_json=json.dumps({"delta": delta.id}))
        await put(service, job_of(OWNER, data.id), made, shard({}), handed_in)
        await put(service, row(merged.id, "house"), row(old.id, "house"))
        await sweep_later(service, tmp_path / "store")
        assert not service.contents.has(old.id)
        for manifest in (data, model, delta, merged):
            assert service.contents.has(manifest.id)
        # a job that ended needs its inputs and what it made on the way for a while, and its outputs for longer
        ended = replace(job_of(OWNER, data.id, JobState.FAILED), ended_ms=service.desk.clock.now_ms())
        await put(service, ended)
        await sweep_later(service, tmp_path / "store")
        assert all(service.contents.has(one.id) for one in (data, model, delta, merged))
        await put(service, replace(ended, ended_ms=ended.ended_ms - 8 * DAY_MS))
        await sweep_later(service, tmp_path / "store")
        assert [service.contents.has(one.id) for one in (data, model, delta, merged)] == [False, True, False, False]
        await put(service, replace(ended, ended_ms=ended.ended_ms - 91 * DAY_MS))
        await sweep_later(service, tmp_path / "store")
        assert not service.contents.has(model.id)


async def test_an_output_waits_for_the_others_of_its_lease(tmp_path: Path) -> None:
    """A model on a slow line takes more than a day, and its samples were there before."""
    async with serving(tmp_path / "store") as service:
        worker, held = NamedSession(service.port, WORKER, Role.WORKER), replica(ReplicaState.COMMITTED)
        folder = content(tmp_path, 0)
        await put(service, shard({}), held)
        sent_first = await transfer.upload_folder(worker, folder, purpose=lease_id(held))
        await sweep_later(service, tmp_path / "store")
        assert service.contents.has(sent_first.id)
        await put(service, replace(held, state=ReplicaState.EXPIRED))
        await sweep_later(service, tmp_path / "store")
        assert not service.contents.has(sent_first.id)


async def test_content_of_two_parties_stays_while_one_needs_it(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        folder = content(tmp_path, 0)
        shared = await sent(NamedSession(service.port, OWNER), folder)
        await sent(NamedSession(service.port, STRANGER), folder)
        await put(service, job_of(OWNER, shared.id))
        await sweep_later(service, tmp_path / "store")
        assert service.contents.has(shared.id)
        theirs = await owns(service, shared.id, STRANGER)
        assert theirs is not None and theirs.state is ArtifactState.STAGING


async def test_what_somebody_just_asked_for_stays_although_no_row_says_so_yet(tmp_path: Path) -> None:
    """An executor found its output stored already, and is about to report it."""
    async with serving(tmp_path / "store") as service:
        loose = await sent(NamedSession(service.port, OWNER), content(tmp_path, 0))
        for path in (tmp_path / "store").rglob("*"):
            os.utime(path, (1, 1))
        assert service.contents.put_folder(tmp_path / "in0") == loose
        await sweep_later(service, tmp_path / "store", aged=False)
        assert service.contents.has(loose.id)


@pytest.mark.parametrize("location", ["folder", "memory"])
def test_a_deleted_artifact_can_be_put_again(tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore.open(tmp_path / "store" if location == "folder" else "memory://", spool=tmp_path / "spool")
    manifest = store.put_folder(fill(tmp_path / "in", a=3))
    assert not store.delete(manifest.id) and store.has(manifest.id)
    monkeypatch.setattr("time.time", lambda: os.stat(tmp_path / "in" / "a").st_mtime + UNUSED_S + 3600)
    assert store.delete(manifest.id) and not store.has(manifest.id) and not store.keep(manifest.id)
    assert store.delete(manifest.id)
    store.put_folder(tmp_path / "in")
    store.materialise(manifest.id, tmp_path / "out")
    verify_folder(tmp_path / "out", manifest)
