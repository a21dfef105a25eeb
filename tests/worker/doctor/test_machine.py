"""This machine: disk, memory and GPUs (faked), each with cause, evidence and fix."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from shardwork_worker import child
from shardwork_worker.doctor import gpu, machine
from shardwork_worker.doctor.finding import Health
from shardwork_worker.doctor.gpu import check_gpus
from shardwork_worker.doctor.machine import check_disk_speed, check_memory
from shardwork_worker.trainer_process import Device, Ready

from ..limits.fake_smi import FakeSmi

CPU = Device(device="cpu", name="cpu", memory_bytes=1)
CUDA = Device(device="cuda:0", name="A100", memory_bytes=1)


def test_the_disk_is_written_to_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TRIAL_BYTES", 2 << 20)
    found = check_disk_speed(tmp_path)
    assert found.why.evidence["written"] == "2.0 MiB" and found.why.evidence["a_second"].endswith("iB")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(machine, "SLOW_BYTES_PER_S", 1 << 60)
    slow = check_disk_speed(tmp_path)
    assert slow.health is Health.NOTE and "SHARDWORK_HOME" in slow.why.next_step
    assert check_disk_speed(tmp_path / "none").health is Health.BAD


@pytest.mark.parametrize(
    ("free_kib", "health"), [(8 * 1024 * 1024, Health.OK), (1024, Health.NOTE), (None, Health.NOTE)]
)
def test_memory_that_is_free_now_is_told(free_kib: int | None, health: Health, tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    if free_kib is not None:
        meminfo.write_text(f"MemTotal: 16777216 kB\nMemFree: 5 kB\nMemAvailable: {free_kib} kB\n")
    found = check_memory(meminfo)
    assert found.health is health and (free_kib is None or found.why.evidence["total"] == "16.0 GiB")


@pytest.mark.parametrize(
    ("ready", "health", "words"),
    [
        (Ready(torch="2.9", cuda="12.6", devices=[CUDA, CPU]), Health.OK, "fit each other"),
        (Ready(torch="2.9+cpu", devices=[CPU]), Health.BAD, "built without CUDA"),
        (
            Ready(torch="2.9", cuda="13.0", devices=[CPU]),
            Health.BAD,
            "built for CUDA 13.0, and this driver serves 12.4",
        ),
        (Ready(torch="2.9", cuda="12.6", devices=[CPU]), Health.BAD, "no GPU inside the sandbox"),
        (Ready(torch="", devices=[CPU]), Health.NOTE, "without torch"),
        (None, Health.NOTE, "without torch"),
    ],
)
async def test_the_driver_and_torchs_cuda_are_compared(
    ready: Ready | None, health: Health, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSmi(tmp_path / "bin", monkeypatch)
    driver, card = await check_gpus(ready)
    assert driver.health is health and words in driver.why.sentence
    assert driver.why.evidence["driver"] == "550.54.14" and driver.why.evidence["driver_serves_cuda"] == "12.4"
    assert card.why.evidence["watts"] == "250.5" and card.health is Health.OK


async def test_a_driver_that_does_not_answer_is_broken_and_no_gpu_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "NODE", tmp_path / "none")
    smi = FakeSmi(tmp_path / "bin", monkeypatch)
    smi.break_down()
    (broken,) = await check_gpus(None)
    assert broken.health is Health.BAD and "restart" in broken.why.next_step
    monkeypatch.setenv("PATH", str(tmp_path))
    (none,) = await check_gpus(None)
    assert none.health is Health.OK and "No NVIDIA GPU" in none.why.sentence


async def test_a_hot_gpu_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSmi(tmp_path / "bin", monkeypatch).say(gpus="0, A100, 550.54, 1, 1, 99, 91, [N/A], [N/A]\n")
    _, card = await check_gpus(None)
    assert card.health is Health.NOTE and card.why.evidence["watts"] == "unknown"


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        ("__version__ = '2.9'\ncuda: Optional[str] = '12.6'\nhip = None\n", "12.6"),
        ("cuda = '13.0'\n", "13.0"),
        ("cuda: Optional[str] = None\n", ""),
        (None, ""),
    ],
)
def test_the_child_reads_what_torch_was_built_for_without_importing_it(
    text: str | None, cuda: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "version.py").write_text(text)

    def spec(_name: str) -> SimpleNamespace:
        return SimpleNamespace(origin=str(tmp_path / "__init__.py"))

    monkeypatch.setattr(importlib.util, "find_spec", spec)
    monkeypatch.setattr(child, "has_gpu", lambda: False)
    assert child.ready()["cuda"] == cuda
