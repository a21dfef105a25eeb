"""Limits through a worker that runs: what the coordinator hears, what happens to the shard in hand, what `why` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shardwork.config import Home
from shardwork.errors import InvalidInput
from shardwork.why import Why
from shardwork_worker import agent
from shardwork_worker.control import Command
from shardwork_worker.limits.guard import Guard, Held
from shardwork_worker.limits.size import parse, show
from shardwork_worker.settings import WorkerSettings, load

from ..conftest import InProcess, Workers, let_go
from ..fake_coordinator import FakeCoordinator

WHY = Why(code="worker.limit_hours", sentence="Not now.", evidence={"hours": "1"}, next_step="Wait.")


class Switch:
    """What the guard answers."""

    held: Held | None = None


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Switch:
    switch = Switch()

    async def look(_self: Guard) -> Held | None:
        return switch.held

    monkeypatch.setattr(Guard, "look", look)
    monkeypatch.setattr(agent, "LIMITS_CHECK_S", 0.01)
    return switch


async def told(worker: InProcess) -> dict[str, Any]:
    return {reason["code"]: reason for reason in (await worker.ask(Command.WHY))["reasons"]}


async def test_a_worker_outside_its_hours_says_so_in_its_hello_and_takes_work_once_they_begin(
    coordinator: FakeCoordinator, workers: Workers, switch: Switch
) -> None:
    switch.held = Held(WHY, False)
    worker = await workers.here()
    assert not coordinator.last("Hello").accepting
    status = await worker.ask(Command.STATUS)
    assert (status["state"], status["why"]["code"]) == ("paused", "worker.limit_hours")
    assert (await told(worker))["worker.limit_hours"]["about"] == "limit"
    switch.held = None
    await coordinator.wait_until(
        lambda: any(name == "Heartbeat" and beat.accepting for name, beat in coordinator.events)
    )
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("SubmitResult")


async def test_the_shard_in_hand_is_finished_and_no_other_taken(
    coordinator: FakeCoordinator, workers: Workers, switch: Switch, waiting: dict[str, Any]
) -> None:
    worker = await workers.here()
    coordinator.offer(coordinator.lease(waiting))
    await coordinator.until_computing()
    switch.held = Held(WHY, False)
    await coordinator.wait_until(
        lambda: any(name == "Heartbeat" and not beat.accepting for name, beat in coordinator.events)
    )
    assert (await worker.ask(Command.STATUS))["state"] == "draining"
    late = coordinator.lease({"do": "copy"})
    coordinator.offer(late)
    released = await coordinator.wait("ReleaseLease")
    assert (released.lease_id, released.why.code) == (late.lease_id, "worker.limit_hours")
    let_go(waiting)
    await coordinator.wait("SubmitResult")
    assert (await worker.until_idle())["state"] == "paused"


async def test_the_shard_in_hand_is_given_back_at_once_where_the_limit_says_so(
    coordinator: FakeCoordinator, workers: Workers, switch: Switch, waiting: dict[str, Any]
) -> None:
    worker = await workers.here()
    lease = coordinator.lease(waiting)
    coordinator.offer(lease)
    await coordinator.until_computing()
    switch.held = Held(WHY, True)
    released = await coordinator.wait("ReleaseLease")
    assert (released.lease_id, released.why.code) == (lease.lease_id, "worker.limit_hours")
    assert (await worker.until_idle())["shards_failed"] == 0


async def test_a_look_that_fails_is_told_and_does_not_end_the_looking(
    coordinator: FakeCoordinator,
    workers: Workers,
    switch: Switch,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await workers.here()
    looks = 0

    async def look(_self: Guard) -> Held | None:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise FileNotFoundError("the cache folder")
        return Held(WHY, False)

    monkeypatch.setattr(Guard, "look", look)
    await coordinator.wait_until(
        lambda: any(name == "Heartbeat" and not beat.accepting for name, beat in coordinator.events)
    )
    assert "the cache folder" in capsys.readouterr().err


async def test_only_wanted_kinds_and_the_share_of_memory_are_offered(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    await workers.here(recipes=["sft"], memory_share=0.25)
    capability = coordinator.last("Hello").capability
    assert list(capability.recipes) == ["sft"] and capability.memory_bytes == (1 << 30) // 4


async def test_a_shard_with_too_large_inputs_is_given_back_before_they_are_fetched(
    coordinator: FakeCoordinator, workers: Workers, tmp_path: Path
) -> None:
    worker = await workers.here(input_bytes=100)
    large = coordinator.keep_file(tmp_path / "large", "rows", b"x" * 101)
    for number in range(agent.BREAKER_LIMIT):
        coordinator.offer(coordinator.lease({"do": "copy"}, {"rows": large}))
        await coordinator.wait("ReleaseLease", number + 1)
        await worker.until_idle()
    small = coordinator.keep_file(tmp_path / "small", "rows", b"x" * 99)
    coordinator.offer(coordinator.lease({"do": "copy"}, {"rows": small}))
    await coordinator.wait("SubmitResult")
    assert coordinator.calls["DownloadLeaves"] == 1
    assert "worker.limit_input_bytes" in await told(worker)


async def test_what_is_moved_is_counted_in_the_book_also_at_the_end(
    coordinator: FakeCoordinator, workers: Workers, tmp_path: Path
) -> None:
    worker = await workers.here(day_bytes=10_000)
    rows = coordinator.keep_file(tmp_path / "rows", "rows", b"x" * 20_000)
    coordinator.offer(coordinator.lease({"do": "copy"}, {"rows": rows}))
    await coordinator.wait("SubmitResult")
    await worker.until_idle()
    await worker.ask(Command.STOP)
    await worker.task
    again = await workers.here(day_bytes=10_000)
    assert not coordinator.last("Hello").accepting
    assert "worker.limit_day_bytes" in await told(again)


def test_settings_of_limits_are_read_from_file_and_refused_with_what_is_valid(tmp_path: Path) -> None:
    home = Home.find({"SHARDWORK_HOME": str(tmp_path)})
    home.config_dir.mkdir()
    (home.config_dir / "worker.toml").write_text(
        'hours = "22:00-07:00"\nday_bytes = "50 GB"\nrecipes = ["sft"]\nup_bytes_per_s = "1MiB"\n'
    )
    found = load(home, {"SHARDWORK_RECIPES": "sft, count"}, {"at_limit": "give_back"})
    assert (found.day_bytes, found.up_bytes_per_s, found.recipes) == (50 * 10**9, 1 << 20, ["sft", "count"])
    for flags, said in (
        ({"hours": "night"}, "22:00-07:00"),
        ({"recipes": "stf"}, "the nearest is sft"),
        ({"day_bytes": "many"}, "500MB"),
        ({"down_bytes_per_s": "1KB"}, "16384"),
        ({"memory_share": 1.5}, "less than or equal to 1"),
    ):
        with pytest.raises(InvalidInput, match="not valid") as refused:
            load(home, {}, flags)
        assert said in str(refused.value) and "--" in str(refused.value)


def test_sizes_are_read_and_shown() -> None:
    assert [parse(text) for text in ("1", "2 kb", "1.5MiB", "3GB", 7)] == [1, 2000, 1572864, 3 * 10**9, 7]
    assert [show(count) for count in (5, 2048, 3 * 1024**3, 5 * 1024**4)] == [
        "5 bytes",
        "2.0 KiB",
        "3.0 GiB",
        "5.0 TiB",
    ]
    assert WorkerSettings().recipes == []
