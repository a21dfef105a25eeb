"""Workers that are not as they should be: one that falls silent without a word, and two with one key.

Whatever they do, a job ends, each shard is paid once, and who is refused is told why.
"""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator

import pytest

from ..chaos import count_jobs
from .world import CALM, World

#: enough for slow machines: what waits for its end is frozen
TTL_S = 6
TOO_LATE = re.compile(r"(is no longer ours|was revoked): This lease [^.]+ or its job ended\.")
LEASES = "select state, worker_id, paid_msat from lease where shard_id = ? order by granted_ms, id"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A coordinator that soon believes a silent worker lost, with alice, bob and words.yaml."""
    settings = {**CALM, "SHARDWORK_LEASE_TTL_S": str(TTL_S), "SHARDWORK_HEARTBEAT_S": "1"}
    world = World(tmp_path_factory.mktemp("pair"), settings)
    try:
        world.start("alice", "bob", sats=1_000)
        count_jobs.write(world.folder)
        yield world
    finally:
        world.stop()


def hold(world: World, name: str) -> tuple[str, str]:
    """(job, shard) as soon as this worker has a shard in hand that it can't end; its child is frozen."""
    world.freeze_child(name)
    job = world.submit("words.yaml")
    world.wait_computing(name)
    return job, str(world.worker(name)["shard"]).partition("#")[0]


def check_paid(world: World, job: str) -> None:
    """The job succeeded, each shard was accepted and paid once, and the books balance."""
    report = world.finish(job)
    assert report["state"] == "succeeded", report["why"]
    paid = [one["shard"] for one in report["payments"]]
    assert len(paid) == len(set(paid)) == 2
    accepted = world.rows("select shard_id from lease where job_id = ? and state = 'accepted'", job)
    assert sorted(shard for (shard,) in accepted) == sorted(paid)
    assert report["budget_msat"] == report["spent_msat"] + report["refunded_msat"]
    books = world.books()
    assert books["balanced"] and books["violations"] == []


def log(world: World, name: str) -> str:
    return " ".join((world.folder / f"{name}.log").read_text().split())


def test_a_machine_that_vanishes_loses_its_shard_and_what_it_brings_later_is_refused(pair: World) -> None:
    alice = pair.worker("alice")["worker_id"]
    job, shard = hold(pair, "alice")
    # as a machine that sleeps: its connection stays, and nobody hears of it
    pair.signal_worker("alice", signal.SIGSTOP)
    try:
        check_paid(pair, job)
        expired, accepted = pair.rows(LEASES, shard)
        assert expired == ("expired", alice, 0)
        assert accepted[0] == "accepted" and accepted[1] != alice and accepted[2] > 0
        [lost] = [one for one in pair.events(job) if one["kind"] == "shard.expired" and one["subject"] == shard]
        assert "it fell silent" in lost["sentence"]
    finally:
        pair.thaw_child("alice")
        pair.signal_worker("alice", signal.SIGCONT)
    # by the answer to what it hands in, or, if that comes first, as it attaches again
    pair.until(lambda: TOO_LATE.search(log(pair, "alice")) is not None, "alice to hear why it is too late")
    assert pair.rows(LEASES, shard) == [expired, accepted]
    pair.wait_ready("alice")
    check_paid(pair, job)


def test_of_two_workers_with_one_key_the_newest_works_and_the_other_is_told_why(pair: World) -> None:
    pair.until(lambda: pair.worker("bob").get("state") == "ready", "bob to be idle")
    pair.processes.end("bob")
    alice = pair.worker("alice")["worker_id"]
    job, shard = hold(pair, "alice")
    key = pair.home("twin").key_path("worker")
    key.parent.mkdir(parents=True, mode=0o700)
    shutil.copy2(pair.home("alice").key_path("worker"), key)
    pair.processes.start_worker("twin")
    try:
        told = pair.wait_replaced("alice")
        assert "SHARDWORK_HOME of its own" in told["next_step"] and told["sentence"] in log(pair, "alice")
        # the twin goes on with what alice had in hand: the same lease, and so no attempt is lost
        check_paid(pair, job)
        assert [(state, worker) for state, worker, _ in pair.rows(LEASES, shard)] == [("accepted", alice)]
        assert pair.worker("alice")["state"] != "ready" and pair.worker("twin")["worker_id"] == alice
        # and the other way round, if their owner says so
        assert pair.command_worker("alice", "resume").exit_code == 0
        pair.wait_replaced("twin")
        pair.wait_ready("alice")
        check_paid(pair, pair.submit("words.yaml"))
    finally:
        pair.processes.end("twin")
