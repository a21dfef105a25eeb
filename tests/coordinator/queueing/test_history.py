"""A worker's record: its speed, whether it finished anything, and its rest after failures in a row."""

from __future__ import annotations

from dataclasses import replace

from shardwork.why import Why
from shardwork_coordinator.queueing.history import (
    FIRST_REST_S,
    FREE_FAILURES,
    LONGEST_REST_S,
    History,
    history,
)
from shardwork_coordinator.records import Lease, ReplicaState


def lease(
    state: ReplicaState = ReplicaState.ACCEPTED, *, ended_ms: int = 10_000, units: int = 10**10, code: str = ""
) -> Lease:
    why = Why(code=code, sentence="Something.").to_json() if code else ""
    return Lease(
        id=f"l{ended_ms}",
        job_id="j",
        shard_id="s",
        replica=0,
        epoch=1,
        worker_id="w",
        phase="learn",
        state=state,
        granted_ms=ended_ms - 1_000,
        ended_ms=ended_ms,
        why_json=why,
        work_units=units,
    )


def lost(ended_ms: int = 10_000, code: str = "lease.silent") -> Lease:
    return lease(ReplicaState.EXPIRED, ended_ms=ended_ms, code=code)


def test_speed_is_the_median_of_the_larger_shards() -> None:
    assert history([]) == History()
    assert history([lease()]).units_per_s == 10**10
    tiny = [lease(units=10**6) for _ in range(3)]
    assert history([*tiny, lease(), lease(units=10**11), lease(units=10**12)]).units_per_s == 10**11
    # what failed says nothing of speed
    assert history([lost(), lease()]).units_per_s == 10**10


def test_failures_count_until_the_last_success() -> None:
    record = history([lost(40), lost(30), lease(ended_ms=20), lost(10)])
    assert (record.failures_in_a_row, record.last_failure_ms, record.accepted) == (2, 40, 1)


def test_what_is_nobodys_fault_is_no_failure() -> None:
    blameless = [lost(code=code) for code in ("worker.paused", "worker.disk_full", "job.cancelled", "job.failed")]
    assert history(blameless).failures_in_a_row == 0
    assert history([lost(code="worker.unexpected")]).failures_in_a_row == 1


def test_a_job_that_fails_on_everybody_counts_once_and_falling_silent_each_time() -> None:
    refused = [lost(number, code="trainer.failed") for number in (50, 40, 30)]
    assert history(refused).failures_in_a_row == 1
    assert history([replace(one, job_id=f"j{one.ended_ms}") for one in refused]).failures_in_a_row == 3
    assert history([*refused, lost(20), lost(10)]).failures_in_a_row == 3


def test_a_worker_rests_twice_as_long_after_each_failure_beyond_the_free_ones() -> None:
    def rest(failures: int) -> int:
        return History(failures_in_a_row=failures, last_failure_ms=1_000).rests_until_ms()

    assert rest(FREE_FAILURES - 1) == 0
    assert rest(FREE_FAILURES) == 1_000 + FIRST_REST_S * 1_000
    assert rest(FREE_FAILURES + 1) == 1_000 + 2 * FIRST_REST_S * 1_000
    assert rest(10**6) == 1_000 + LONGEST_REST_S * 1_000
