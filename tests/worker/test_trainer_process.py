"""The warm child as the agent sees it: one request at a time, interrupts, deaths and restarts."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shardwork.errors import Internal, ShardworkError
from shardwork_worker import trainer_process
from shardwork_worker.trainer_process import Done, RunOrder, TrainerProcess

from .agent_process import FAKE_CHILD


@pytest.fixture
async def trainer(tmp_path: Path) -> AsyncIterator[TrainerProcess]:
    process = TrainerProcess(FAKE_CHILD, log=tmp_path / "state" / "trainer.log", grace_s=0.3)
    yield process
    await process.stop()


def order(tmp_path: Path, lease_id: str = "one", **what: Any) -> RunOrder:
    output = tmp_path / lease_id
    output.mkdir()
    return RunOrder(
        lease_id=lease_id,
        phase="learn",
        recipe="sft",
        order_json=json.dumps(what),
        seed=b"\x01" * 32,
        inputs={},
        output_dir=output,
        device="cpu",
    )


def ignore(fraction: float, loss: float | None) -> None:
    """Progress that a test does not look at."""


async def started(trainer: TrainerProcess, wanted: RunOrder) -> asyncio.Task[Done]:
    """The run once its first progress came."""
    reported = asyncio.Event()
    running = asyncio.create_task(trainer.run(wanted, lambda fraction, loss: reported.set()))
    async with asyncio.timeout(10):
        await reported.wait()
    return running


async def test_a_ready_child_names_its_devices_and_stays_warm(trainer: TrainerProcess, tmp_path: Path) -> None:
    ready = await trainer.start()
    assert (ready.torch, [device.device for device in ready.devices]) == ("", ["cpu"])
    pid = trainer.pid
    seen: list[tuple[float, float | None]] = []
    for name in ("one", "two"):
        done = await trainer.run(order(tmp_path, name, do="copy"), lambda fraction, loss: seen.append((fraction, loss)))
        assert (done.outputs["delta"] / "made").read_bytes() == b"01" * 32
        assert (done.metrics, done.compute_ms) == ({"train_loss": 1.25}, 12)
    assert seen == [(0.5, 1.25)] * 2
    assert trainer.pid == pid


async def test_cancelling_a_run_interrupts_the_shard_and_keeps_the_child(
    trainer: TrainerProcess, tmp_path: Path
) -> None:
    await trainer.start()
    pid = trainer.pid
    running = await started(trainer, order(tmp_path, "one", do="wait", go=str(tmp_path / "go")))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await trainer.run(order(tmp_path, "two", do="copy"), ignore)).outputs
    assert trainer.pid == pid


async def test_a_child_that_does_not_obey_is_killed_and_replaced(trainer: TrainerProcess, tmp_path: Path) -> None:
    await trainer.start()
    pid = trainer.pid
    running = await started(trainer, order(tmp_path, "one", do="hang"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert trainer.pid is None and not Path(f"/proc/{pid}").exists()
    assert (await trainer.run(order(tmp_path, "two", do="copy"), ignore)).outputs


async def test_a_death_is_told_with_exit_status_and_last_words(trainer: TrainerProcess, tmp_path: Path) -> None:
    with pytest.raises(Internal) as caught:
        await trainer.run(order(tmp_path, "one", do="crash"), ignore)
    assert caught.value.code == "trainer.died"
    assert caught.value.why.evidence["exit_status"] == "3"
    assert "as it was told" in caught.value.why.evidence["stderr"]
    assert (await trainer.run(order(tmp_path, "two", do="copy"), ignore)).outputs


async def test_what_the_child_reports_is_raised(trainer: TrainerProcess, tmp_path: Path) -> None:
    with pytest.raises(ShardworkError) as caught:
        await trainer.run(order(tmp_path, do="fail"), ignore)
    assert caught.value.code == "test.failed"


async def test_a_child_that_cannot_start_says_what_it_printed(tmp_path: Path) -> None:
    broken = TrainerProcess((sys.executable, "-c", "raise SystemExit('no module')"), log=tmp_path / "trainer.log")
    with pytest.raises(Internal) as caught:
        await broken.start()
    assert (caught.value.code, caught.value.why.evidence["stderr"]) == ("trainer.died", "no module")


async def test_a_child_that_breaks_the_framing_is_ended(tmp_path: Path) -> None:
    stray = TrainerProcess((sys.executable, "-c", "print('a stray print', flush=True)"), log=tmp_path / "trainer.log")
    with pytest.raises(Internal) as caught:
        await stray.start()
    assert caught.value.code == "trainer.died" and stray.pid is None


async def test_the_log_of_a_warm_child_is_bounded(
    trainer: TrainerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trainer.start()
    first, log = trainer.pid, tmp_path / "state" / "trainer.log"
    monkeypatch.setattr(trainer_process, "LOG_LIMIT_BYTES", 100)
    log.write_text("a warning\n" * 20)
    await trainer.run(order(tmp_path, do="copy"), ignore)
    assert trainer.pid == first
    assert log.stat().st_size == 0 and log.with_suffix(".old.log").read_text().startswith("a warning")
