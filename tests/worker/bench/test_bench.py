"""The benchmark: what it writes is the preset's model, sats follow from the rates, and it stops where a device ends."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shardwork.config import Home
from shardwork.errors import LimitExceeded
from shardwork.models.presets import PRESETS, preset_params
from shardwork.session import JoinLine
from shardwork_worker import trainer_process
from shardwork_worker.app import Folders, Start, only_one
from shardwork_worker.bench import measuring
from shardwork_worker.bench.income import SHARD_TOKENS, Power, Rates, msat_per_hour
from shardwork_worker.bench.measuring import Bench
from shardwork_worker.bench.report import Report, Result, readable, speeds
from shardwork_worker.bench.workload import Case, Kind, shapes, write_base, write_rows
from shardwork_worker.cli import app
from shardwork_worker.sandbox.jail import Mode
from shardwork_worker.settings import WorkerSettings
from shardwork_worker.trainer_process import RunOrder

from ..agent_process import FAKE_CHILD
from ..conftest import Workers
from ..fake_coordinator import FakeCoordinator
from ..limits.fake_smi import FakeSmi


@pytest.mark.parametrize("preset", PRESETS)
def test_the_weights_are_those_that_the_preset_counts(preset: str) -> None:
    count = sum(math.prod(shape) for shape in shapes(PRESETS[preset]).values())
    assert count == preset_params(preset, PRESETS[preset].vocab)


def test_an_adapter_learns_little_and_is_paid_less(tmp_path: Path) -> None:
    whole, adapter = Case(Kind.FULL, "15m"), Case(Kind.LORA, "15m")
    assert 0 < adapter.trained < whole.trained / 20
    assert adapter.units_per_token < whole.units_per_token == 3 * whole.parameters
    assert adapter.memory_bytes < whole.memory_bytes
    assert {file.name for file in write_base(tmp_path / "base", Case(Kind.PRETRAIN, "tiny-1m")).iterdir()} == {
        "config.json"
    }
    assert {file.name for file in write_rows(tmp_path / "rows", "tiny-1m").iterdir()} == {
        "index.json",
        "rows-00000.safetensors",
    }


def test_sats_an_hour_are_those_of_the_shards_that_fit_into_it() -> None:
    rates = Rates(msat_per_tera_unit=10, minimum_msat=1_000)
    # 3600 shards an hour, each at the least price
    assert msat_per_hour(SHARD_TOKENS, 1, rates) == 3_600_000
    units = 10**12 // SHARD_TOKENS * 500
    assert msat_per_hour(SHARD_TOKENS, units, rates) == pytest.approx(5_000 * 3600, rel=1e-3)


def test_power_is_counted_only_when_all_of_it_is_known_and_measured_watts_serve() -> None:
    assert Power(watts=500, price_per_kwh=0.2).msat_per_hour is None
    assert Power(watts=500, price_per_kwh=0.2, sats_per_unit=1000).msat_per_hour == 100_000
    result = Result(
        kind="lora", recipe="sft", preset="15m", parameters=1, units_per_token=1, tokens_per_s=25_600, watts=200
    )
    report = Report(
        device="cuda:0",
        device_name="A100",
        torch="2",
        sandbox="kernel",
        at_ms=1,
        rates=Rates(asset="bitcoin"),
        power=Power(price_per_kwh=0.5, sats_per_unit=1000),
        results=[result],
    )
    (line,) = report.to_json()["results"]
    assert (line["watts"], line["watts_measured"], line["power_msat_per_hour"]) == (200, True, 100_000)
    assert line["net_msat_per_hour"] == 3_600_000 - 100_000
    text = readable(report.to_json())
    assert "25,600      3,600    100  3,500" in text and "the coordinator's rates now" in text


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    home = Home.find({"SHARDWORK_HOME": str(tmp_path)})
    Folders.of(home).make()
    settings = WorkerSettings(sandbox=Mode.OFF, memory_share=0.5)
    start = Start(join=JoinLine("localhost", 1, ""), home=home, settings=settings, child_command=FAKE_CHILD)
    return Bench(start, lambda _text: None)


async def test_without_torch_it_says_so_and_measures_nothing(bench: Bench) -> None:
    report = await bench.run()
    assert [(one.kind, one.tokens_per_s, one.why and one.why.code) for one in report.results] == [
        (kind.value, None, "bench.no_torch") for kind in Kind
    ]


async def test_each_kind_ends_at_the_first_model_that_is_too_slow_too_large_or_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def measure(_self: object, case: Case) -> tuple[float, float | None]:
        if case.kind is Kind.LORA:
            raise LimitExceeded("trainer.out_of_memory", "No memory.")
        return (10_000.0 if case.preset == "tiny-1m" else 100.0), None

    def parsed(frame: Mapping[str, Any]) -> Any:
        return original({**frame, "torch": "2.9"})

    original = trainer_process._parse_ready  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(trainer_process, "_parse_ready", parsed)
    monkeypatch.setattr(measuring, "_Place", type("Place", (measuring._Place,), {"measure": measure}))  # pyright: ignore[reportPrivateUsage]
    found = [(one.kind, one.preset, one.why.code if one.why else "") for one in (await bench.run()).results]
    assert found == [
        ("pretrain", "tiny-1m", ""),
        ("pretrain", "small-3m", "bench.too_slow"),
        ("full", "tiny-1m", ""),
        ("full", "small-3m", "bench.too_slow"),
        ("lora", "tiny-1m", "trainer.out_of_memory"),
    ]
    bench.presets = ("350m", "1b")
    # half of the fake's 1 GiB
    assert {one.why.code for one in (await bench.run()).results if one.why} == {"bench.too_large"}


async def test_watts_are_the_mean_of_what_the_devices_gpus_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSmi(tmp_path / "bin", monkeypatch).say(watts="200")
    monkeypatch.setattr(measuring, "WATTS_EVERY_S", 0.0)
    watts: list[float] = []
    async with measuring._watching("cuda:0", watts):  # pyright: ignore[reportPrivateUsage]
        while len(watts) < 2:
            await asyncio.sleep(0)
    assert set(watts) == {200.0}


def test_an_unknown_preset_and_a_worker_that_runs_are_refused(tmp_path: Path) -> None:
    env = {"SHARDWORK_HOME": str(tmp_path)}
    wrong = CliRunner().invoke(app, ["bench", "--preset", "15n"], env=env)
    assert "15m" in str(wrong.exception)
    folder = tmp_path / "state" / "worker"
    folder.mkdir(parents=True)
    with only_one(folder):
        busy = CliRunner().invoke(app, ["bench", "--preset", "15m"], env=env)
    assert getattr(busy.exception, "code", "") == "worker.already_running"


@pytest.mark.nightly
def test_the_real_child_is_measured_shut_in_and_leaves_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "--preset", "tiny-1m", "--json"], env={"SHARDWORK_HOME": str(tmp_path)})
    report = json.loads(done.stdout.splitlines()[-1])
    assert [(one["kind"], one["why"]) for one in report["results"]] == [(kind.value, None) for kind in Kind]
    assert all(one["tokens_per_s"] > 10 and one["msat_per_hour"] > 0 for one in report["results"])
    assert json.loads((tmp_path / "state" / "worker" / "bench.json").read_text()) == report
    assert not list((tmp_path / "cache" / "worker" / "artifacts").iterdir())


def test_an_order_of_the_benchmark_is_one_that_the_child_reads() -> None:
    case = Case(Kind.LORA, "15m")
    order = RunOrder(
        lease_id="a",
        phase="learn",
        recipe=case.recipe,
        order_json=case.learn_order(3).canonical_json(),
        seed=bytes(32),
        inputs={},
        output_dir=Path("/x"),
        device="cpu",
    )
    assert json.loads(order.order_json)["tuning"]["method"] == "lora" and not case.from_scratch


async def test_the_kept_benchmark_of_this_device_is_told_as_a_hint(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    state = workers.home / "state" / "worker"
    state.mkdir(parents=True)
    line = {"kind": "lora", "preset": "15m", "tokens_per_s": 174.0}
    slow = {"kind": "full", "preset": "1b", "tokens_per_s": None}
    (state / "bench.json").write_text(json.dumps({"device": "cpu", "results": [line, slow]}))
    await workers.here()
    (told,) = coordinator.last("Hello").capability.speeds
    assert (told.kind, told.preset, told.tokens_per_s) == ("lora", "15m", 174.0)
    assert speeds(state, "cuda:0") == [] and speeds(state / "none", "cpu") == []
    (state / "bench.json").write_text("[]")
    assert speeds(state, "cpu") == []
