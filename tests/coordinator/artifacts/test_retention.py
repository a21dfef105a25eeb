"""What a job keeps, for whom and until when; what owners see of it and may give up; the total of one party."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shardwork import transfer
from shardwork.artifact import LEAF_BYTES, Manifest
from shardwork.errors import Conflict, LimitExceeded, NotFound
from shardwork.identity.role import Role
from shardwork.v1 import storage_pb2 as pb
from shardwork_coordinator.artifacts.expiry import Expiry
from shardwork_coordinator.artifacts.quota import ArtifactLimits
from shardwork_coordinator.artifacts.retention import DAY_MS, FOR_EVER, HOUSE, Ages, needs
from shardwork_coordinator.machine.attempts import lease_id
from shardwork_coordinator.records import (
    Artifact,
    ArtifactState,
    Job,
    JobState,
    ReplicaState,
    Round,
    RoundState,
    Stage,
    StageState,
)
from shardwork_coordinator.store.base import Transaction

from .service import NamedSession, Service, serving
from .test_access import OWNER, STRANGER, WORKER, owns, replica, row, shard
from .test_quota import content, job_of, put, sent

AGES = Ages(keep_days=7, keep_outputs_days=90)
ENDED_MS = 1_000 * DAY_MS


def stage(outputs_json: str = "{}") -> Stage:
    made = Stage(
        job_id="j", name="s", position=0, recipe="sft", state=StageState.DONE, planned_rounds=1, spec_json="{}"
    )
    return replace(made, artifacts_json=json.dumps({"checkpoint": "c" * 64}), outputs_json=outputs_json)


def round_of(number: int, state: RoundState, **results: str) -> Round:
    return Round(
        job_id="j",
        stage="s",
        number=number,
        kind="learn",
        state=state,
        phase="apply",
        results_json=json.dumps(results),
        started_ms=1,
        ended_ms=ENDED_MS if state is RoundState.MERGED else 0,
    )


async def kept(service: Service, job: Job, ages: Ages = AGES) -> dict[tuple[str, str], int]:
    def look(tx: Transaction) -> dict[tuple[str, str], int]:
        return {(need.artifact_id, need.owner): need.until_ms for need in needs(tx, job, ages)}

    return await service.rows.read(look)


async def test_a_live_job_keeps_everything_but_old_rounds_deltas(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        delta, now = "d" * 64, "e" * 64
        handed_in = replace(replica(ReplicaState.ACCEPTED), outputs_json=json.dumps({"delta": delta}))
        running = replace(handed_in, number=1, round=2, outputs_json=json.dumps({"delta": now}))
        rounds = (
            round_of(1, RoundState.MERGED, **{"delta-0": delta, "new_checkpoint": "c" * 64}),
            round_of(2, RoundState.OPEN),
        )
        await put(service, stage(), *rounds, handed_in, running)
        found = await kept(service, job_of(OWNER, "a" * 64))
        assert found[delta, WORKER] == found[delta, HOUSE] == ENDED_MS + 7 * DAY_MS
        others = {key: until for key, until in found.items() if key[0] != delta}
        assert set(others.values()) == {FOR_EVER}
        assert {("a" * 64, OWNER), ("c" * 64, HOUSE), (now, WORKER)} <= set(others)


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
async def test_a_job_that_ended_keeps_its_outputs_for_longer(tmp_path: Path, state: JobState) -> None:
    async with serving(tmp_path / "store") as service:
        made = json.dumps({"s.model": {"artifact_id": "b" * 64, "kind": "model"}})
        await put(service, stage(outputs_json=made), row("b" * 64, OWNER))
        ended = replace(job_of(OWNER, "a" * 64, state), ended_ms=ENDED_MS)
        found = await kept(service, ended)
        assert found["a" * 64, OWNER] == found["c" * 64, HOUSE] == ENDED_MS + 7 * DAY_MS
        assert found["b" * 64, OWNER] == ENDED_MS + 90 * DAY_MS
        assert (await kept(service, ended, Ages(keep_outputs_days=0)))["b" * 64, OWNER] == FOR_EVER
        # what its owner gave up is kept by nothing
        await put(service, replace(row("b" * 64, OWNER), state=ArtifactState.STAGING))
        assert (await kept(service, ended))["b" * 64, OWNER] == 0


async def listed(service: Service, session: NamedSession) -> pb.ListArtifactsResponse:
    return await session.call(session.storage.ListArtifacts, pb.ListArtifactsRequest())


async def delete(session: NamedSession, artifact_id: str) -> pb.DeleteArtifactResponse:
    return await session.call(session.storage.DeleteArtifact, pb.DeleteArtifactRequest(artifact_id=artifact_id))


async def two_of_them(service: Service, folder: Path, session: NamedSession) -> tuple[Manifest, Manifest]:
    """One that a running job reads and one that nothing does."""
    used, loose = await sent(session, content(folder, 0)), await sent(session, content(folder, 1))
    await put(service, job_of(OWNER, used.id))
    return used, loose


async def test_owners_see_what_is_kept_why_and_until_when(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        used, loose = await two_of_them(service, tmp_path, session)
        now_ms, answer = service.desk.clock.now_ms(), await listed(service, session)
        seen = {one.artifact_id: (one.kind, one.kept_until_unix_ms, one.why.code) for one in answer.artifacts}
        assert seen == {
            used.id: ("input", 0, "artifact.input"),
            loose.id: ("input", now_ms + DAY_MS, "artifact.unused"),
        }
        assert (answer.stored_bytes, answer.limit_bytes) == (2 * LEAF_BYTES, service.desk.limits.owner_max_bytes)
        assert not (await listed(service, NamedSession(service.port, STRANGER))).artifacts


async def test_an_owner_gives_up_what_no_running_job_needs(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        used, loose = await two_of_them(service, tmp_path, session)
        assert (await delete(session, loose.id[:12])).artifact_id == loose.id
        assert [one.artifact_id for one in (await listed(service, session)).artifacts] == [used.id]
        with pytest.raises(NotFound):
            await transfer.download(session, loose.id, tmp_path / "gone")
        with pytest.raises(Conflict) as caught:
            await delete(session, used.id)
        assert caught.value.code == "artifact.in_use" and caught.value.why.evidence["job"] == "j"
        # once more, because the first answer may have been lost
        assert (await delete(session, loose.id)).bytes == LEAF_BYTES
        with pytest.raises(NotFound):
            await delete(NamedSession(service.port, STRANGER), used.id)


async def test_one_party_stores_only_so_much_whatever_uses_it(tmp_path: Path) -> None:
    limits = ArtifactLimits(reserve_bytes=0, owner_max_bytes=2 * LEAF_BYTES)
    async with serving(tmp_path / "store", limits) as service:
        session = NamedSession(service.port, OWNER)
        used, loose = await two_of_them(service, tmp_path, session)
        with pytest.raises(LimitExceeded) as caught:
            await sent(session, content(tmp_path, 2))
        why = caught.value.why
        assert why.code == "artifact.over_total_quota" and "owner_quota_gib" in why.next_step
        told = [why.evidence[name] for name in ("stored_bytes", "limit_bytes", "this_bytes")]
        assert told == [str(2 * LEAF_BYTES), str(2 * LEAF_BYTES), str(LEAF_BYTES)]
        await delete(session, loose.id)
        await sent(session, tmp_path / "in2")
        assert await owns(service, used.id, OWNER)


async def test_what_is_computed_under_a_lease_is_not_its_workers_to_pay_for(tmp_path: Path) -> None:
    limits = ArtifactLimits(reserve_bytes=0, owner_max_bytes=1)
    async with serving(tmp_path / "store", limits) as service:
        worker, held = NamedSession(service.port, WORKER, Role.WORKER), replica(ReplicaState.LEASED)
        await put(service, shard({}), held)
        await transfer.upload_folder(worker, content(tmp_path, 0), purpose=lease_id(held))
        # somebody else's lease, or one that is over, is no purpose
        for session in (NamedSession(service.port, STRANGER, Role.WORKER), worker):
            await put(service, replace(held, state=ReplicaState.EXPIRED if session is worker else ReplicaState.LEASED))
            with pytest.raises(LimitExceeded) as caught:
                await transfer.upload_folder(session, content(tmp_path, 1), purpose=lease_id(held))
            assert caught.value.code == "artifact.over_total_quota"


async def test_a_job_that_is_submitted_while_a_sweep_looks_keeps_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path / "store") as service:
        data = await sent(NamedSession(service.port, OWNER), content(tmp_path, 0))
        [mine] = await service.rows.read(lambda tx: tx.find(Artifact))
        await put(service, replace(mine, created_ms=1))
        expiry = Expiry(service.rows, service.contents, service.desk.clock, service.desk.limits)
        write = service.rows.write

        async def late(work: Callable[[Transaction], Any]) -> Any:
            """Just before the sweep takes the row back."""
            await write(lambda tx: tx.put(replace(job_of(OWNER, data.id), created_ms=service.desk.clock.now_ms())))
            return await write(work)

        monkeypatch.setattr(service.rows, "write", late)
        assert (await expiry.sweep()).rows == 0
        kept_row = await owns(service, data.id, OWNER)
        assert kept_row is not None and kept_row.state is ArtifactState.STORED


async def test_a_dry_run_says_what_would_go_and_lets_it_stay(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        loose = await sent(NamedSession(service.port, OWNER), content(tmp_path, 0))
        [mine] = await service.rows.read(lambda tx: tx.find(Artifact))
        await put(service, replace(mine, created_ms=1))
        expiry = Expiry(service.rows, service.contents, service.desk.clock, service.desk.limits)
        told = await expiry.sweep(dry_run=True)
        assert (told.rows, told.artifacts, told.bytes) == (1, [loose.id], LEAF_BYTES)
        assert service.contents.has(loose.id) and await owns(service, loose.id, OWNER) == replace(mine, created_ms=1)
