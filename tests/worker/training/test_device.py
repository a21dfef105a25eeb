"""What a device says it can do: bf16 where it computes it, a base in few bits where all that it takes loads."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from shardwork.recipes.abilities import Ability
from shardwork_worker.training import device, quantised
from shardwork_worker.training.context import MEMORY_SHARE_VARIABLE

CUDA = [torch.device("cuda", number) for number in range(2)]
FEW = [Ability.BASE_4BIT, Ability.BASE_8BIT]


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Two CUDA devices by their compute capability; no card is at hand here."""
    found = [(9, 0), (9, 0)]

    def name(index: int) -> str:
        return f"card {index}"

    def properties(index: int) -> SimpleNamespace:
        return SimpleNamespace(total_memory=8 - index)

    def version(one: torch.device) -> tuple[int, int]:
        return found[one.index or 0]

    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found))
    monkeypatch.setattr(torch.cuda, "get_device_name", name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", version)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(quantised, "_imports", lambda: True)
    return found


def test_a_cpu_computes_in_bf16_and_reads_no_base_in_few_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "_imports", lambda: True)
    cpu = torch.device("cpu")
    assert device.abilities(cpu) == [Ability.BF16]
    assert device._tries_bf16(cpu), "what is said is so on this machine"  # pyright: ignore[reportPrivateUsage]


def test_a_cuda_device_has_bf16_from_ampere_on(cards: list[tuple[int, int]]) -> None:
    cards[:] = [(8, 0), (7, 5)]
    assert [device.abilities(one) for one in CUDA] == [[Ability.BF16, *FEW], FEW]


def test_several_devices_together_can_what_each_of_them_can(cards: list[tuple[int, int]]) -> None:
    cards[1] = (7, 0)
    first, second, team = device.gpus()
    assert (first["abilities"], second["abilities"]) == ([Ability.BF16, *FEW], FEW)
    assert (team["device"], team["abilities"]) == ("cuda*2", FEW)


def test_a_device_that_fails_at_bf16_does_not_have_it() -> None:
    assert not device._tries_bf16(torch.device("meta", 0))  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    "error", [ImportError("no"), OSError("libcudart.so.11 is missing"), RuntimeError("CUDA setup")]
)
def test_a_package_that_is_there_and_does_not_load_is_not_announced(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str) -> None:
        raise error

    def loads(name: str) -> ModuleType:
        return sys

    monkeypatch.setattr(quantised, "is_bitsandbytes_available", lambda: True)
    monkeypatch.setattr(quantised, "is_accelerate_available", lambda: True)
    monkeypatch.setattr(quantised, "import_module", fails)
    quantised._imports.cache_clear()  # pyright: ignore[reportPrivateUsage]
    assert not quantised.readable(torch.device("cuda", 0))
    monkeypatch.setattr(quantised, "import_module", loads)
    quantised._imports.cache_clear()  # pyright: ignore[reportPrivateUsage]
    assert quantised.readable(torch.device("cuda", 0)) and not quantised.readable(torch.device("cpu"))
    quantised._imports.cache_clear()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(("share", "told"), [("0.5", [(0.5, CUDA[1])]), ("1", []), (None, [])])
def test_the_owners_share_of_a_gpus_memory_is_held_by_torch(
    share: str | None, told: list[tuple[float, torch.device]], cards: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[float, torch.device]] = []

    def hold(part: float, one: torch.device) -> None:
        found.append((part, one))

    def nothing(_value: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", hold)
    monkeypatch.setattr(torch, "set_num_interop_threads", nothing)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", nothing)
    if share is not None:
        monkeypatch.setenv(MEMORY_SHARE_VARIABLE, share)
    device.settle("cuda:1")
    assert found == told
