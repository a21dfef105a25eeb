"""Each limit keeps shards away when it should, says why with evidence and a next step, and lets go again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardwork_worker.account.book import Book
from shardwork_worker.limits.guard import POWER_REST_S, Guard, Held
from shardwork_worker.limits.meter import Meter
from shardwork_worker.limits.use import Use
from shardwork_worker.settings import WorkerSettings

from .fake_smi import FakeSmi


class Surroundings:
    """The time, and what others do, as a test says."""

    def __init__(self) -> None:
        self.hour = 12
        self.day = 27
        self.now_s = 1000.0
        self.use = Use()

    def clock(self) -> time.struct_time:
        return time.struct_time((2026, 11, self.day, self.hour, 30, 0, 0, 0, 0))

    async def look(self) -> Use:
        return self.use


@pytest.fixture
def around() -> Surroundings:
    return Surroundings()


Make = Callable[..., Guard]


@pytest.fixture
def make(around: Surroundings, tmp_path: Path) -> Make:
    def made(device: str = "cpu", **settings: Any) -> Guard:
        return Guard(
            WorkerSettings(**settings),
            device,
            Book(tmp_path),
            Meter(),
            disk=tmp_path,
            make_room=lambda: None,
            now=around.clock,
            monotonic=lambda: around.now_s,
            use=around.look,
        )

    return made


async def held(guard: Guard) -> Held:
    found = await guard.look()
    assert found is not None and found.why.sentence and found.why.next_step and found.why.evidence
    return found


async def test_without_limits_nothing_is_kept_away(make: Make) -> None:
    assert await make().look() is None


async def test_hours_end_and_begin_and_the_shard_in_hand_goes_as_its_owner_says(
    make: Make, around: Surroundings
) -> None:
    finishes, gives_back = make(hours="22:00-07:00"), make(hours="22:00-07:00", at_limit="give_back")
    found = await held(finishes)
    assert found.why.code == "worker.limit_hours" and "from 22:00 on" in found.why.sentence
    assert (found.at_once, (await held(gives_back)).at_once) == (False, True)
    around.hour = 23
    assert await finishes.look() is None


async def test_a_days_bytes_are_counted_over_restarts_and_end_with_the_day(
    make: Make, around: Surroundings, tmp_path: Path
) -> None:
    guard = make(day_bytes="1 KB")
    await guard.meter.came_down(600)
    assert await guard.look() is None
    again = make(day_bytes="1 KB")
    await again.meter.went_up(500)
    found = await held(again)
    assert found.why.code == "worker.limit_day_bytes" and found.why.evidence["moved_bytes"] == "1100"
    around.day = 28
    assert await again.look() is None


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (Use(cpu_share=0.5), "others took 50% of the processors' time"),
        (Use(typed_s=10.0), "somebody typed into a terminal 10 s ago"),
        (Use(gpu_pids=(7, 8)), "another process computes on a GPU (7, 8)"),
    ],
)
async def test_a_machine_in_use_is_left_alone_until_it_was_quiet_for_a_while(
    make: Make, around: Surroundings, use: Use, said: str
) -> None:
    around.use = use
    assert await make().look() is None, "only where its owner asked for it"
    guard = make(idle_only=True, idle_minutes=5)
    found = await held(guard)
    assert found.at_once and found.why.code == "worker.limit_in_use" and said in found.why.sentence
    around.use = Use(cpu_share=0.1, typed_s=10_000.0)
    around.now_s += 299
    assert (await held(guard)).why.code == "worker.limit_in_use"
    around.now_s += 2
    assert await guard.look() is None


async def test_a_gpu_above_its_cap_twice_rests_the_worker(
    make: Make, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = FakeSmi(tmp_path / "bin", monkeypatch)
    smi.say(watts="260")
    guard = make("cuda:0", power_watts=250)
    assert await guard.look() is None, "one reading may be a spike"
    found = await held(guard)
    assert found.at_once and found.why.code == "worker.limit_power"
    assert "nvidia-smi -pl 250" in found.why.next_step
    smi.say(watts="40")
    assert (await held(guard)).why.code == "worker.limit_power", "it rests, or it would begin and stop all day"
    around.now_s += POWER_REST_S
    assert await guard.look() is None


async def test_a_cap_that_nobody_can_measure_takes_no_work_but_a_cpu_has_none(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = FakeSmi(tmp_path / "bin", monkeypatch)
    smi.break_down()
    assert (await held(make("cuda:0", power_watts=250))).why.code == "worker.limit_power_unmeasured"
    assert await make("cpu", power_watts=250).look() is None


async def test_a_disk_keeps_what_its_owner_wants_free_once_the_cache_gave_way(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Free:
        free = 100

    def usage(_path: Path) -> Free:
        return Free()

    monkeypatch.setattr(shutil, "disk_usage", usage)
    guard = make(keep_free_bytes=1000)
    found = await held(guard)
    assert found.why.code == "worker.limit_disk" and not found.at_once

    def dropped() -> None:
        Free.free = 2000

    guard.make_room = dropped
    assert await guard.look() is None


async def test_one_reading_that_fails_gives_no_shard_back(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi, guard = FakeSmi(tmp_path / "bin", monkeypatch), make("cuda:0", power_watts=300)
    smi.break_down()
    first = await guard.look()
    assert first is not None and not first.at_once, "nothing new is taken"
    second = await guard.look()
    assert second is not None and second.at_once


async def test_idle_only_takes_nothing_where_nobody_says_who_uses_the_machine(make: Make, around: Surroundings) -> None:
    around.use = Use(measured=False)
    held = await make(idle_only=True).look()
    assert held is not None and held.why.code == "worker.limit_use_unmeasured"
    assert await make().look() is None
