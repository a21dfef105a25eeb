"""One training job under fire: whoever is killed whenever, its bytes and its accounts are those of a quiet day."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardwork.errors import Unreachable

from ..e2e import fixed_job
from ..e2e.world import CALM, WORKERS, World
from .aims import ON_THE_WAY, both
from .failing_coordinator import FailingCoordinator

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

PHASES = ("init", "learn", "evaluate", "publish")
PATIENCE_S = 400.0


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world where nobody is killed."""
    world = World(tmp_path_factory.mktemp("calm"), CALM)
    try:
        world.start(*WORKERS, sats=1_000)
        yield world
    finally:
        world.stop()


@pytest.fixture(scope="module")
def adapter(calm: World) -> dict[str, str]:
    """What the LoRA job gives."""
    fixed_job.write(calm, method="lora")
    return calm_outcome(calm, fixed_job.submit(calm))


@pytest.fixture(scope="module")
def weights(calm: World) -> dict[str, str]:
    """What the same job gives when all weights learn."""
    fixed_job.write(calm, method="full")
    return calm_outcome(calm, fixed_job.submit(calm, submission="all-weights"))


def calm_outcome(calm: World, job: str) -> dict[str, str]:
    calm.finish(job)
    fixed_job.check_accounts(calm, job)
    return fixed_job.outcome(calm, job)


def test_the_same_job_twice_in_one_world_is_one_job(calm: World, adapter: dict[str, str]) -> None:
    counted = "select (select count(*) from job), (select count(*) from transfer)"
    before = calm.rows(counted)
    fixed_job.write(calm, method="lora")
    assert calm.job_state(fixed_job.submit(calm)) == "succeeded"
    assert calm.rows(counted) == before


def test_other_seeds_give_other_bytes(calm: World, adapter: dict[str, str]) -> None:
    fixed_job.write(calm, method="lora")
    found = calm_outcome(calm, fixed_job.submit(calm, submission="another-submission"))
    assert set(found) == set(adapter)
    assert found["sft.model/adapter_model.safetensors"] != adapter["sft.model/adapter_model.safetensors"]


def test_a_worker_killed_in_every_phase_changes_no_byte(calm: World, weights: dict[str, str], tmp_path: Path) -> None:
    # a broken stream costs a worker its lease at once; slowness, which would use up attempts, doesn't
    settings = {**CALM, "SHARDWORK_LEASE_TTL_S": "60", "SHARDWORK_RECONNECT_GRACE_S": "0.5"}
    world = World(tmp_path / "struck", settings, patience_s=PATIENCE_S)
    fixed_job.lend_key(calm, world)
    try:
        world.start(*WORKERS, sats=1_000)
        fixed_job.write(world, method="full")
        # the first phase is too short to be met by chance
        for name in WORKERS:
            world.freeze_child(name)
        job = fixed_job.submit(world, submission="all-weights")
        for phase in PHASES:
            name = holder(world, phase)
            world.processes.kill(name)
            for other in {*WORKERS} - {name}:
                world.thaw_child(other)
            world.processes.start_worker(name)
        world.finish(job)
        fixed_job.check_accounts(world, job)
        assert fixed_job.outcome(world, job) == weights
    finally:
        world.stop()


def holder(world: World, phase: str) -> str:
    """The first worker that is seen with a shard of this phase in hand."""
    found: list[str] = []

    def look() -> bool:
        found.extend(name for name in WORKERS if f"/{phase}/" in str(world.worker(name).get("shard") or ""))
        return bool(found)

    world.until(look, f"a worker with a {phase} shard")
    return found[0]


def test_a_coordinator_killed_at_every_failpoint_of_one_job_changes_no_byte(
    calm: World, adapter: dict[str, str], tmp_path: Path
) -> None:
    failpoints = both(ON_THE_WAY)
    coordinator = FailingCoordinator(tmp_path / "failing", ["none:before", *failpoints], settings=CALM)
    world = World(coordinator.processes.folder, patience_s=PATIENCE_S)
    world.processes = coordinator.processes
    fixed_job.lend_key(calm, world)
    try:
        coordinator.start()
        for name in WORKERS:
            world.processes.start_worker(name)
        assert coordinator.persist("login", world.processes.join).returncode == 0
        assert coordinator.persist("wallet", "deposit", "1000").returncode == 0
        fixed_job.write(world, method="lora")
        coordinator.skip()
        job = submitted(world)
        world.until(lambda: world.job_state(job) in ("succeeded", "failed", "paused"), "the job to end")
        assert coordinator.killed_at == failpoints
        fixed_job.check_accounts(world, job)
        assert coordinator.faults == []
        assert fixed_job.outcome(world, job) == adapter
    finally:
        coordinator.stop()


def submitted(world: World) -> str:
    """Submits until an answer comes, as a person would who sees that the coordinator is away."""
    for _ in range(20):
        try:
            return fixed_job.submit(world)
        except Unreachable:
            time.sleep(0.5)
    raise AssertionError("the coordinator never answered")
