"""Instruments: commits as the writer makes them, phases by how they ended, and how late the loop is."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from shardwork.errors import Internal, Unreachable
from shardwork_coordinator.store import SqlStore
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.telemetry.instruments import Instruments
from shardwork_coordinator.telemetry.lag import watch_lag


def value(instruments: Instruments, name: str, **labels: str) -> float:
    found = instruments.registry.get_sample_value(name, labels)
    return found or 0.0


async def test_commits_are_timed_and_failed_groups_are_counted(tmp_path: Path) -> None:
    instruments = Instruments()
    store = SqlStore(f"sqlite:///{tmp_path / 'a.db'}", committed=instruments.committed)
    store.start()

    def broken(tx: Transaction) -> None:
        raise ValueError

    await store.write(lambda tx: None)
    with pytest.raises(ValueError):
        await store.write(broken)
    store.close()
    assert value(instruments, "shardwork_store_commit_duration_seconds_count") == 1
    assert value(instruments, "shardwork_store_works_total") == 1
    assert value(instruments, "shardwork_store_commit_failures_total") == 1


def test_a_phase_counts_by_how_it_ended() -> None:
    instruments = Instruments()
    with instruments.phase("merge"):
        assert value(instruments, "shardwork_executor_tasks_in_progress") == 1
    for error in (Unreachable("a.b", "Away."), Internal("a.b", "Broken.")):
        with pytest.raises(type(error)), instruments.phase("merge"):
            raise error
    found = {
        each: value(instruments, "shardwork_executor_tasks_total", phase="merge", outcome=each) for each in OUTCOMES
    }
    assert found == {"done": 1, "failed": 1, "waits": 1}
    assert value(instruments, "shardwork_executor_tasks_in_progress") == 0
    assert value(instruments, "shardwork_executor_task_duration_seconds_count", phase="merge") == 3


OUTCOMES = ("done", "failed", "waits")


async def test_a_busy_loop_is_seen_to_be_late() -> None:
    seen: list[float] = []
    told = asyncio.Event()

    def observe(seconds: float) -> None:
        seen.append(seconds)
        told.set()

    moments = itertools.chain((100.0, 103.5), itertools.repeat(200.0))
    task = asyncio.create_task(watch_lag(observe, 0.0, seconds=lambda: next(moments)))
    await told.wait()
    task.cancel()
    assert seen[0] == 3.5
