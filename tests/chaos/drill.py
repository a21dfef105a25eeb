"""One scenario's stage: a coordinator that is killed where it is told to be, its world, and what must hold at the end.

Workers can be frozen in the middle of a shard, so that nothing depends on how fast a machine counts. Used by
`test_failpoints_nightly`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..e2e.world import World
from . import count_jobs
from .aims import both
from .failing_coordinator import FailingCoordinator, books

#: a deposit that every scenario makes first
SATS = 1_000
PATIENCE_S = 240.0
#: nothing but the scenario itself disturbs a job
CALM = {"SHARDWORK_BACKUP_MIN_S": "600", "SHARDWORK_AGREEMENT_GRACE_S": "600"}
LIVE = "('leased', 'committed')"


class Drill:
    """Made by `drill`."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.settings = {**CALM, **settings}
        self.coordinator = FailingCoordinator(folder, [], settings=self.settings)
        self.world = World(folder, self.settings, patience_s=PATIENCE_S)
        self.world.processes = self.coordinator.processes
        #: failpoints that it was sent to, in order
        self.aimed_at: list[str] = []

    def start(self) -> None:
        self.coordinator.start()
        count_jobs.write(self.world.folder, parts=3)
        assert self.coordinator.persist("login", self.world.processes.join).returncode == 0
        assert self.coordinator.persist("wallet", "deposit", str(SATS)).returncode == 0

    def arm(self, names: Sequence[str]) -> None:
        """From now on it is killed at both sides of each."""
        self.aimed_at += both(names)
        self.coordinator.arm(both(names))

    def wait_killed(self) -> None:
        """Until it was killed everywhere it was sent to, and serves again."""
        self.world.until(lambda: self.coordinator.is_in_peace, f"a kill; so far {self.coordinator.killed_at}")
        assert self.coordinator.killed_at == self.aimed_at
        assert self.coordinator.faults == []

    def submit(self, file: str = "words.yaml") -> str:
        submitted = self.coordinator.persist("job", "submit", file, "--yes", "--json")
        assert submitted.returncode == 0, submitted.stdout
        return str(json.loads(submitted.stdout)["id"])

    # ---- workers ----------------------------------------------------------------------------------------------

    def join_workers(self, *names: str) -> None:
        for name in names:
            self.world.processes.start_worker(name)
        for name in names:
            self.world.wait_ready(name)

    def freeze(self, name: str) -> None:
        self.world.freeze_child(name)

    def thaw(self, name: str) -> None:
        self.world.thaw_child(name)

    def wait_computing(self, *names: str) -> None:
        self.world.wait_computing(*names)

    def wait_attached(self, name: str) -> None:
        """Until the coordinator serves and this worker, which has a shard in hand, is connected to it."""
        serving, world = self.coordinator.serving, self.world
        world.until(lambda: serving.is_set() and world.worker(name).get("why", 1) is None, f"{name} to be attached")

    # ---- looking ----------------------------------------------------------------------------------------------

    def leases(self, job: str) -> list[tuple[Any, ...]]:
        """(shard, worker's lease state, paid msat), oldest first."""
        return self.world.rows(
            "select shard_id, state, paid_msat from lease where job_id = ? order by granted_ms, id", job
        )

    def check_done(self, job: str, *, copies: int = 0) -> Any:
        """The job succeeded, paid each accepted result once and redid nothing; its report. `copies`: spare results."""
        query = f"select 1 from replica where job_id = ? and state in {LIVE}"
        self.world.until(lambda: self.world.rows(query, job) == [], "every lease to end")
        report = self.world.finish(job)
        assert report["state"] == "succeeded", report["why"]
        accepted = [lease for lease in self.leases(job) if lease[1] == "accepted"]
        assert len(accepted) == len({shard for shard, *_ in accepted}) + copies
        assert sum(paid for *_, paid in accepted) == sum(one["msat"] for one in report["payments"])
        self.check_money(job)
        return report

    def check_money(self, job: str) -> None:
        """The job's budget adds up, and nothing is held for it any more."""
        report = self.world.ask("job", "report", job)
        assert report["reserved_msat"] == 0
        assert report["budget_msat"] == report["spent_msat"] + report["refunded_msat"]
        assert report["spent_msat"] >= sum(one["msat"] for one in report["payments"])

    def check_end(self) -> None:
        """Nothing is left armed; no accepted shard was given out again; no msat came into being or went missing."""
        self.wait_killed()
        redone = self.world.rows(
            "select lease.id from lease join shard on shard.id = lease.shard_id"
            " where shard.done_ms > 0 and lease.granted_ms > shard.done_ms"
        )
        assert redone == []
        found = books(self.world.processes)
        assert found["balanced"] and found["sum_msat"] == 0 and found["violations"] == []
        entered = "select debits_posted from account where id = 'external:simulated'"
        assert self.world.rows(entered) == [(SATS * 1000,)]
        mine, jobs = self.world.balance(), self.world.ask("job", "list")["jobs"]
        spent = sum(int(job["spent_msat"]) for job in jobs)
        taken = "select coalesce(sum(msat), 0) from transfer where reference like 'withdrawal:%' and kind = 'post'"
        out = int(self.world.rows(taken)[0][0])
        assert mine["available_msat"] + spent + out == SATS * 1000 and mine["held_msat"] == 0


@contextlib.contextmanager
def drill(folder: Path, *workers: str, settings: Mapping[str, str] | None = None) -> Generator[Drill, None, None]:
    """A coordinator with these workers, a requester with 1,000 sats and words.yaml; checked after the block."""
    found = Drill(folder, settings or {})
    try:
        found.start()
        found.join_workers(*workers)
        yield found
        found.check_end()
    finally:
        found.coordinator.stop()
