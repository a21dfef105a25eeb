"""Which device is taken and what its execution class is called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shardwork.errors import InvalidInput
from shardwork.recipes.abilities import Ability
from shardwork_worker import probe
from shardwork_worker.trainer_process import Device, Ready

GPU = Device(device="cuda:0", name="NVIDIA H100", memory_bytes=80 << 30)
CPU = Device(device="cpu", name="a cpu", memory_bytes=8 << 30)
BOTH = Ready(torch="2.13.0", devices=[GPU, CPU])


def test_auto_takes_the_best_device_and_a_name_takes_that_one() -> None:
    assert probe.choose_device(BOTH, "auto") is GPU
    assert probe.choose_device(BOTH, "cpu") is CPU


def test_a_device_that_is_not_there_is_refused_naming_the_nearest() -> None:
    with pytest.raises(InvalidInput) as caught:
        probe.choose_device(BOTH, "cuda:1")
    assert caught.value.why.next_step == "Use --device cuda:0."


def test_the_execution_class_names_all_that_changes_bytes(tmp_path: Path) -> None:
    assert probe.execution_class(BOTH, GPU) == "cuda:NVIDIA H100:torch2.13.0:fp32:t1"
    assert probe.execution_class(BOTH, CPU).startswith("cpu:")
    assert probe.execution_class(BOTH, CPU) != probe.execution_class(Ready(torch="2.6.0", devices=[CPU]), CPU)


def test_the_capability_says_what_the_chosen_device_can_do(tmp_path: Path) -> None:
    able = replace(GPU, abilities=frozenset({Ability.BF16, Ability.BASE_4BIT}))
    assert list(probe.capability(BOTH, able, disk=tmp_path).abilities) == ["base_4bit", "bf16"]
    assert list(probe.capability(BOTH, CPU, disk=tmp_path).abilities) == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("flags\t\t: fpu avx avx2 avx512f", "avx512"),
        ("flags\t\t: fpu avx avx2", "avx2"),
        ("Features\t: fp asimd", "neon"),
        ("flags\t\t: fpu sse2", "base"),
        ("nothing", "base"),
    ],
)
def test_the_instruction_set_is_the_widest_one(tmp_path: Path, line: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{line}\n")
    assert probe.instruction_set(tmp_path / "cpuinfo") == name


def test_without_cpuinfo_the_instruction_set_is_unknown(tmp_path: Path) -> None:
    assert probe.instruction_set(tmp_path / "none") == "unknown"
