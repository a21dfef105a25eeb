"""The process that measures: what takes for ever or kills it costs its sender an answer, and the next one nothing."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shardwork.errors import Internal, LimitExceeded
from shardwork_coordinator.api.measuring import Measurer

from .stand import rows

pytestmark = pytest.mark.nightly


@pytest.fixture
async def measurer(tmp_path: Path) -> AsyncIterator[Measurer]:
    made = Measurer(str(tmp_path / "artifacts"), tmp_path / "scratch")
    yield made
    made.close()


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def die(code: int) -> None:
    os._exit(code)


async def test_what_takes_too_long_is_ended_and_the_next_file_is_checked(measurer: Measurer, tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_bytes(rows())
    with pytest.raises(LimitExceeded) as caught:
        await measurer.lanes.small.ask(sleep, 600.0, 0.1)
    assert caught.value.code == "measuring.too_slow"
    await measurer.check(tmp_path / "chat.jsonl", len(rows()), "anna")


async def test_a_process_that_died_is_told_and_replaced(measurer: Measurer, tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_bytes(rows())
    with pytest.raises(Internal) as caught:
        await measurer.lanes.small.ask(die, 9, 60.0)
    assert caught.value.code == "measuring.died"
    await measurer.check(tmp_path / "chat.jsonl", len(rows()), "anna")
