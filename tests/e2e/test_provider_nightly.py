"""A provider's commands on real processes: how fast they take effect, what an outage leaves, what limits keep away, and
that what was earned is told alike everywhere. In order: the village goes from one test to the next."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import models
from .jobfile import LONG_STEPS, write_sft
from .world import CALM, World

pytestmark = pytest.mark.nightly
#: a command of the owner is carried out within this time
AT_ONCE_S = 5.0
#: so long the coordinator is away; a worker that gave up after some tries would have by then
OUTAGE_S = 75.0
#: and so soon after its return the worker is there again
BACK_S = 20.0


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A coordinator, one worker and a requester."""
    world = World(tmp_path_factory.mktemp("village"), {**CALM, "SHARDWORK_AGREEMENT_GRACE_S": "0"})
    try:
        world.start("carol", sats=50_000)
        models.write_gpt2(world.folder / "models" / "gpt2")
        models.write_chat(world.folder / "chat.jsonl")
        yield world
    finally:
        world.stop()


def status(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.command_worker("carol", "status", "--json").json
    return found


def reasons(world: World) -> set[str]:
    return {reason["code"] for reason in world.command_worker("carol", "why", "--json").json["reasons"]}


def test_pause_and_finish_of_a_worker_at_work_take_effect_within_seconds(village: World) -> None:
    job = village.submit(write_sft(village.folder, "steered.yaml", steps=3 * LONG_STEPS))
    village.wait_mid_shard(["carol"])
    started_s = time.monotonic()
    assert village.command_worker("carol", "pause").exit_code == 0
    assert time.monotonic() - started_s < AT_ONCE_S
    assert (status(village)["state"], status(village)["shard"]) == ("paused", None)
    assert village.command_worker("carol", "resume").exit_code == 0
    _, shard = village.wait_mid_shard(["carol"])
    started_s = time.monotonic()
    assert village.command_worker("carol", "finish").exit_code == 0
    assert time.monotonic() - started_s < AT_ONCE_S
    assert (status(village)["state"], status(village)["shard"].partition("#")[0]) == ("draining", shard)
    village.until(lambda: status(village)["state"] == "paused", "the shard to be completed")
    assert village.rows("select state from shard where id = ?", shard) == [("done",)]
    assert "worker.finished" in reasons(village)
    assert village.command_worker("carol", "resume").exit_code == 0
    assert village.finish(job)["state"] == "succeeded"


def test_a_worker_is_there_again_after_an_outage_of_the_coordinator(village: World) -> None:
    village.wait_ready("carol")
    village.kill_coordinator()
    village.until(lambda: status(village)["state"] == "offline", "the worker to notice")
    assert any(code.startswith("coordinator.") for code in reasons(village))
    time.sleep(OUTAGE_S)
    assert status(village)["state"] == "offline"
    village.start_coordinator()
    started_s = time.monotonic()
    village.until(lambda: status(village)["state"] == "ready", "the worker to be back")
    assert time.monotonic() - started_s < BACK_S
    assert village.finish(village.submit(write_sft(village.folder, "after.yaml", steps=2)))["state"] == "succeeded"


def test_what_was_earned_is_the_same_in_status_earnings_the_ledger_and_the_csv(village: World) -> None:
    village.wait_ready("carol")
    told = village.command_worker("carol", "earnings", "--json").json
    assert told["earned_msat"] == status(village)["earned_msat"] and told["earned_msat"]["paid"] > 0
    paid = village.rows("select sum(paid_msat) from lease where state = 'accepted'")[0][0]
    assert told["earned_msat"]["paid"] == told["listed_paid_msat"] == paid
    rows = list(csv.DictReader(io.StringIO(village.command_worker("carol", "earnings", "--csv").stdout)))
    assert sum(int(row["msat"]) for row in rows if row["state"] == "paid") == paid
    assert "given_back" in {row["state"] for row in rows}


def test_limits_are_heard_by_the_coordinator_so_that_no_offer_comes(village: World) -> None:
    assert village.command_worker("carol", "stop").exit_code == 0
    village.until(lambda: village.processes.is_over("carol"), "the worker to end")
    config = village.home("carol").config_dir / "worker.toml"
    now = time.localtime()
    config.write_text(f'hours = "{(now.tm_hour + 3) % 24:02d}:00-{(now.tm_hour + 4) % 24:02d}:00"\n')
    village.processes.start_worker("carol")
    village.until(lambda: village.worker("carol").get("state") == "paused", "the worker to rest")
    assert "worker.limit_hours" in reasons(village)
    job = village.submit(write_sft(village.folder, "night.yaml", steps=2))
    village.until(lambda: village.ask("job", "why", job)["code"] == "shard.workers_paused", "the job to say so")
    assert village.rows("select count(*) from lease where job_id = ?", job) == [(0,)]
    config.write_text("")
    assert village.command_worker("carol", "stop").exit_code == 0
    village.until(lambda: village.processes.is_over("carol"), "the worker to end")
    village.processes.start_worker("carol")
    assert village.finish(job)["state"] == "succeeded"


def test_leaving_leaves_no_trace_of_jobs(village: World) -> None:
    village.wait_ready("carol")
    home: Path = village.folder / "carol"
    said = village.command_worker("carol", "leave", "--yes")
    assert said.exit_code == 0, said.stderr
    assert "not paid out" in said.stderr
    village.until(lambda: village.processes.is_over("carol"), "the worker to end")
    left = {file.relative_to(home).as_posix() for file in home.rglob("*") if file.is_file()}
    assert {name for name in left if not name.endswith(".log")} == {"config/keys/worker.key", "config/worker.toml"}
