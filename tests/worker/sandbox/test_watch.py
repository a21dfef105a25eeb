"""A shard that writes too much is ended; one that keeps its bounds never notices."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from shardwork.errors import Internal, LimitExceeded
from shardwork_worker.sandbox import watch
from shardwork_worker.sandbox.watch import looked_at, within


async def test_the_work_of_a_shard_that_writes_too_much_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    killed = asyncio.Event()

    async def greedy() -> None:
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / "deep" / "er" / "file").write_bytes(b"x" * 200_000)
        await killed.wait()
        raise Internal("trainer.died", "The child died.")

    async def kill() -> None:
        killed.set()

    with pytest.raises(LimitExceeded) as caught:
        await within(greedy(), tmp_path, limit_bytes=100_000, kill=kill)
    assert caught.value.code == "trainer.output_too_large"
    assert int(caught.value.why.evidence["bytes"]) >= 200_000


async def test_a_result_or_an_error_passes_through(tmp_path: Path) -> None:
    async def kill() -> None:
        raise AssertionError("nothing is to be killed")

    async def fail() -> int:
        raise Internal("trainer.died", "The child died.")

    async def give() -> int:
        return 7

    assert await within(give(), tmp_path, limit_bytes=1, kill=kill) == 7
    with pytest.raises(Internal):
        await within(fail(), tmp_path, limit_bytes=1, kill=kill)


async def test_cancelling_cancels_the_work_and_waits_for_its_end(tmp_path: Path) -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("gave up")

    async def kill() -> None:
        raise AssertionError("a cancelled shard is asked, not killed")

    task = asyncio.create_task(within(work(), tmp_path, limit_bytes=1, kill=kill))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["gave up"]


def test_many_files_and_links_are_counted_and_never_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lease"
    folder.mkdir()
    large = tmp_path / "large"
    large.write_bytes(b"x" * 500_000)
    (folder / "link").symlink_to(large)
    (folder / "around").symlink_to(folder)
    assert looked_at(folder, 100_000) is None
    monkeypatch.setattr(watch, "FILES_MAX", 5)
    for number in range(12):
        (folder / str(number)).touch()
    found = looked_at(folder, 100_000)
    assert found is not None and found.code == "trainer.output_too_large"


def test_a_disk_that_a_shard_filled_is_the_disks_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    folder = tmp_path / "lease"
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * 10_000)

    def full(_path: object) -> Usage:
        return Usage(free=1000)

    monkeypatch.setattr(shutil, "disk_usage", full)
    found = looked_at(folder, 1 << 40)
    assert found is not None and found.code == "worker.disk_full"
    assert looked_at(tmp_path / "nothing-there", 1) is None
