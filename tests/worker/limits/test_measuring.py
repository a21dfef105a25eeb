"""What is measured: GPUs through a fake nvidia-smi, what others use through a fake /proc, bytes a second."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from shardwork_worker.limits import gpu
from shardwork_worker.limits.meter import Line, Meter
from shardwork_worker.limits.use import Users

from .fake_smi import FakeSmi

TICKS = "cpu  {user} 0 0 {idle} 0 0 0 0 0 0\n"


async def test_gpus_are_read_and_what_is_not_known_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = FakeSmi(tmp_path / "bin", monkeypatch)
    (found,) = await gpu.readings()
    assert (found.index, found.name, found.watts, found.limit_watts, found.celsius) == (
        0,
        "NVIDIA A100",
        250.5,
        300,
        61,
    )
    assert await gpu.newest_cuda() == "12.4"
    smi.say(watts="[N/A]", pids="12\n34\nnobody\n")
    assert (await gpu.readings())[0].watts is None and await gpu.computing_pids() == [12, 34]
    smi.say(gpus="no GPU\n0, too, few\n")
    assert await gpu.readings() == []
    smi.break_down()
    assert await gpu.readings() == [] and await gpu.newest_cuda() == ""


async def test_a_tool_that_hangs_is_ended_and_one_that_is_not_there_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSmi(tmp_path / "bin", monkeypatch)
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(gpu, "TIMEOUT_S", 0.05)
    assert await gpu.readings() == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not gpu.is_here() and await gpu.readings() == []


@pytest.mark.parametrize(
    ("device", "indices"), [("cpu", []), ("cuda:1", [1]), ("cuda", [0]), ("cuda*2", [0, 1]), ("mps", [])]
)
async def test_only_the_workers_own_gpus_count(
    device: str, indices: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(f"{number}, GPU, 1.0, 1, 1, 1, 1, 10, 10\n" for number in range(3))
    FakeSmi(tmp_path / "bin", monkeypatch).say(gpus=lines)
    assert [one.index for one in gpu.of_device(await gpu.readings(), device)] == indices


def process(proc: Path, pid: int, parent: int, ticks: int) -> None:
    (proc / str(pid)).mkdir(parents=True, exist_ok=True)
    cells = [*["S", str(parent)], *["0"] * 9, str(ticks), "0", "0", "0"]
    (proc / str(pid) / "stat").write_text(f"{pid} (a (strange) name) {' '.join(cells)}\n")


async def test_processor_time_of_others_leaves_out_this_worker_and_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    proc = tmp_path / "proc"
    process(proc, 10, 1, 100)
    process(proc, 11, 10, 50)
    process(proc, 12, 11, 0)
    process(proc, 20, 1, 999)
    (proc / "stat").write_text(TICKS.format(user=1000, idle=1000))
    users = Users(proc=proc, dev=tmp_path / "dev", own_pid=10)
    assert (await users.look()).cpu_share is None
    process(proc, 12, 11, 200)
    (proc / "stat").write_text(TICKS.format(user=1250, idle=1150))
    seen = await users.look()
    # 250 of 400 ticks were busy, 200 of them ours
    assert seen.cpu_share == pytest.approx(50 / 400) and seen.typed_s is None


def unheard(_: object) -> None:
    """What a kill does to a process in the kernel's hands."""


async def test_a_tool_that_waits_for_a_hung_driver_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSmi(tmp_path / "bin", monkeypatch)
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(gpu, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(gpu, "END_S", 0.05)
    # one in the kernel's hands is not ended by a kill
    monkeypatch.setattr(asyncio.subprocess.Process, "kill", unheard)
    started: list[asyncio.subprocess.Process] = []
    make = asyncio.create_subprocess_exec

    async def noted(*words: Any, **options: Any) -> asyncio.subprocess.Process:
        started.append(await make(*words, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    async with asyncio.timeout(20):
        assert await gpu.readings() == []
    started[0].terminate()
    await started[0].wait()


async def test_typing_and_foreign_gpu_processes_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSmi(tmp_path / "bin", monkeypatch).say(pids="10\n77\n")
    dev = tmp_path / "dev"
    (dev / "pts").mkdir(parents=True)
    for name, ago_s in (("0", 500), ("1", 90)):
        (dev / "pts" / name).touch()
        os.utime(dev / "pts" / name, (time.time() - ago_s, 0))
    process(tmp_path / "proc", 10, 1, 0)
    seen = await Users(proc=tmp_path / "proc", dev=dev, own_pid=10).look()
    assert seen.gpu_pids == (77,) and seen.typed_s is not None and 85 < seen.typed_s < 100


def test_a_line_is_held_to_its_rate_and_saves_nothing_up() -> None:
    line = Line(1000)
    assert line.wait_s(500, 10.0) == pytest.approx(0.5)
    assert line.wait_s(500, 10.0) == pytest.approx(1.0)
    assert line.wait_s(500, 99.0) == pytest.approx(0.5)
    assert Line(None).wait_s(10**9, 0.0) == 0.0


async def test_the_meter_counts_both_ways_and_waits_for_the_one_that_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    meter = Meter(up_bytes_per_s=100_000)
    await meter.came_down(10**9)
    assert slept == []
    await meter.went_up(1_000_000)
    assert slept == [pytest.approx(10, abs=0.1)]
    assert (meter.take(), meter.take()) == (10**9 + 10**6, 0)
