"""The same job gives the same bytes: undisturbed, with a worker killed, with the coordinator killed.

The killed parties are started again, as an init system would. Longer campaigns are in `tests/chaos`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import fixed_job
from .world import CALM, WORKERS, World

#: a killed worker's lease is given to another as soon as its stream breaks; mere slowness costs nobody a lease
SOON = {**CALM, "SHARDWORK_LEASE_TTL_S": "60", "SHARDWORK_RECONNECT_GRACE_S": "0.5"}


@pytest.fixture(scope="module")
def undisturbed(town: World) -> dict[str, str]:
    """What comes out when nothing happens."""
    fixed_job.write(town)
    job = fixed_job.submit(town)
    town.finish(job)
    fixed_job.check_accounts(town, job)
    return fixed_job.outcome(town, job)


@pytest.fixture
def stricken(town: World, tmp_path: Path) -> Iterator[World]:
    """A fresh coordinator with fresh workers, and the same requester as in town."""
    world = World(tmp_path / "stricken", SOON)
    fixed_job.lend_key(town, world)
    try:
        world.start(*WORKERS, sats=1_000)
        fixed_job.write(world)
        yield world
    finally:
        world.stop()


def test_killed_workers_and_coordinators_change_no_byte(undisturbed: dict[str, str], stricken: World) -> None:
    job = fixed_job.submit(stricken)
    # kill -9 of a worker in the middle of a shard; another takes it
    name, shard = stricken.wait_mid_shard(WORKERS)
    stricken.processes.kill(name)
    accepted = "select worker_id from lease where shard_id = ? and state = 'accepted'"
    stricken.until(lambda: stricken.rows(accepted, shard) != [], f"{shard} to be taken over")
    stricken.processes.start_worker(name)
    # kill -9 of the coordinator while shards of round 2 are computed
    stricken.wait_phase(job, "learn", number=2)
    stricken.wait_mid_shard(WORKERS)
    stricken.kill_coordinator()
    # and again right after it merged them, before it could note that
    stricken.start_coordinator(armed="effect:execute:after")
    stricken.until(lambda: stricken.processes.is_over("coordinator"), "the coordinator to die in the merge")
    assert stricken.rows("select phase from round where job_id = ? and number = 2", job) == [("merge",)]
    stricken.start_coordinator()
    stricken.finish(job)
    fixed_job.check_accounts(stricken, job)
    assert fixed_job.outcome(stricken, job) == undisturbed
    lost = [one for one in stricken.events(job) if one["kind"] == "shard.expired"]
    assert [one["subject"] for one in lost] == [shard], "the coordinator's deaths cost no worker its shard"
