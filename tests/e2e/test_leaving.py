"""Leaving politely: a watcher detaches, a worker stops or pauses in the middle of a shard, and the job goes on."""

from __future__ import annotations

import json
import signal
from typing import Any

from .jobfile import LONG_STEPS, write_sft
from .world import WORKERS, World

ATTEMPTS = "select attempts_left from shard where id = ?"
#: well below the 12 s after which a silent lease is taken back
AT_ONCE_MS = 4_000


def test_ctrl_c_of_a_watch_detaches_and_the_job_goes_on(town: World) -> None:
    job = town.submit(write_sft(town.folder, "watched.yaml", steps=LONG_STEPS))
    watch = town.begin("job", "watch", job)
    assert watch.stdout is not None
    assert "job.running" in watch.stdout.readline()
    watch.send_signal(signal.SIGINT)
    _, stderr = watch.communicate(timeout=30)
    assert watch.returncode == 130
    assert f"shardwork job watch {job}" in stderr and "Traceback" not in stderr
    assert town.job_state(job) == "running"
    assert town.finish(job)["state"] == "succeeded"
    assert town.run("job", "watch", job).exit_code == 0


def given_back(town: World, job: str, shard: str, worker_id: str) -> dict[str, Any]:
    """The event that tells of the shard's return, once it is there."""

    def events() -> list[dict[str, Any]]:
        return [one for one in town.events(job) if one["kind"] == "shard.expired" and one["subject"] == shard]

    town.until(lambda: bool(events()), f"{shard} to be given back")
    event = events()[0]
    assert worker_id in event["sentence"]
    return event


def check_taken_over(town: World, shard: str, worker_id: str) -> None:
    """One lease of the shard came to nothing and cost nothing; the other worker's was accepted and paid."""
    leases = town.rows("select state, worker_id, paid_msat from lease where shard_id = ? order by granted_ms", shard)
    assert [state for state, *_ in leases] == ["expired", "accepted"]
    assert leases[0][1:] == (worker_id, 0)
    assert leases[1][1] != worker_id and leases[1][2] > 0


def test_a_paused_worker_gives_its_shard_back_at_once_and_at_no_cost(town: World) -> None:
    job = town.submit(write_sft(town.folder, "paused.yaml", steps=2 * LONG_STEPS))
    name, shard = town.wait_mid_shard(WORKERS)
    worker_id, attempts = town.worker(name)["worker_id"], town.rows(ATTEMPTS, shard)
    assert town.command_worker(name, "pause").exit_code == 0
    status = town.command_worker(name, "status", "--json").json
    assert (status["state"], status["why"]["code"], status["shard"]) == ("paused", "worker.paused", None)
    given_back(town, job, shard, worker_id)
    assert town.rows(ATTEMPTS, shard) == attempts
    accepted = "select 1 from lease where shard_id = ? and state = 'accepted'"
    town.until(lambda: town.rows(accepted, shard) != [], "the other worker to compute the shard")
    assert town.command_worker(name, "resume").exit_code == 0
    report = town.finish(job)
    assert report["state"] == "succeeded", report["why"]
    check_taken_over(town, shard, worker_id)
    check_log(town, job, shard, worker_id)


def check_log(town: World, job: str, shard: str, worker_id: str) -> None:
    """`job logs` tells of both attempts, each with its worker."""
    said = town.run("job", "logs", job, "-n", 1000, "--json")
    assert said.exit_code == 0, said.stderr
    lines = [line for line in map(json.loads, said.stdout.splitlines()) if line["shard"] == shard]
    kinds = [line["kind"].removeprefix("shard.") for line in lines if line["kind"] != "shard.progress"]
    assert kinds == ["leased", "expired", "retried", "leased", "uploaded", "accepted"]
    by_kind = {line["kind"]: line for line in lines}
    assert (by_kind["shard.expired"]["worker"], by_kind["shard.expired"]["code"]) == (worker_id, "worker.paused")
    assert (by_kind["shard.accepted"]["attempt"], by_kind["shard.accepted"]["worker"] != worker_id) == (2, True)
    # how much of it is told depends on when heartbeats fell
    told = [line for line in lines if line["kind"] == "shard.progress"]
    assert all(float(line["evidence"]["loss"]) > 0 for line in told)


def test_a_stopped_worker_gives_its_shard_back_at_once_and_another_takes_it(town: World) -> None:
    job = town.submit(write_sft(town.folder, "stopped.yaml", steps=LONG_STEPS))
    name, shard = town.wait_mid_shard(WORKERS)
    worker_id, attempts = town.worker(name)["worker_id"], town.rows(ATTEMPTS, shard)
    [(lease_started_ms,)] = town.rows("select max(granted_ms) from lease where shard_id = ?", shard)
    before = town.now_ms()
    town.signal_worker(name, signal.SIGTERM)
    event = given_back(town, job, shard, worker_id)
    assert "stopped by its owner" in event["sentence"]
    assert event["at_unix_ms"] - before < AT_ONCE_MS
    assert lease_started_ms < before
    assert town.rows(ATTEMPTS, shard) == attempts
    town.until(lambda: town.processes.is_over(name), f"{name} to end")
    town.processes.start_worker(name)
    report = town.finish(job)
    assert report["state"] == "succeeded", report["why"]
    check_taken_over(town, shard, worker_id)
