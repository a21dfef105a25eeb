"""What `shardwork-worker` prints with --json is of the published shapes, key by key, also when nothing answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from shardwork.why import Why
from shardwork_worker.account.asking import Balance, Transfer
from shardwork_worker.account.book import Fate, Line
from shardwork_worker.account.statement import statement
from shardwork_worker.bench.income import Power, Rates
from shardwork_worker.bench.report import Report, Result
from shardwork_worker.cli import app
from shardwork_worker.doctor.finding import Health, finding
from shardwork_worker.status import Earned, State, Status

from .shapes import MODULE, check
from .test_schemas import commands_with_json

WHY = Why(code="a.b", sentence="So it is.", evidence={"k": "v"}, next_step="Nothing.")
LINE = Line(
    lease_id="j/s/r1/learn/s0#0.1",
    coordinator="c",
    recipe="sft",
    phase="learn",
    price_msat=7,
    work_units=1,
    at_ms=5,
    state=Fate.REJECTED,
    why=WHY,
)
PAYOUT = Transfer(
    id="payout:1",
    at_ms=6,
    msat=-9,
    kind="payout",
    state="posted",
    reference="r",
    payment_hash="h",
    payout_state="settled",
    why=None,
)
BALANCE = Balance(earned_msat=1, held_msat=2, paid_out_msat=3, available_msat=4, asset="simulated")
MEASURED = Result(kind="lora", recipe="sft", preset="tiny-1m", parameters=5, units_per_token=3, tokens_per_s=9.5)
REFUSED = Result(kind="lora", recipe="sft", preset="tiny-1m", parameters=5, units_per_token=3, why=WHY)


def report(results: list[Result], rates: Rates) -> dict[str, Any]:
    made = Report(
        device="cpu", device_name="n", torch="2", sandbox="none", at_ms=1, rates=rates, power=Power(), results=results
    )
    return made.to_json()


def test_every_command_that_speaks_json_has_a_schema() -> None:
    spoken = set(commands_with_json(typer.main.get_command(app), "shardwork-worker"))
    assert {command for command in MODULE.SHAPES if command.startswith("shardwork-worker ")} == spoken


@pytest.mark.parametrize("words", ["status", "why", "service status"])
def test_without_a_worker_the_shapes_are_the_same(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    done = CliRunner().invoke(app, [*words.split(), "--json"], env={"SHARDWORK_HOME": str(tmp_path)})
    assert done.exit_code == 4
    check(f"shardwork-worker {words}", done.stdout)


BUSY = Status(state=State.BUSY, shard="s", progress=0.5, step="computing", loss=1.5, earned=Earned(paid_msat=3))


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("status", BUSY.to_json()),
        ("doctor", {"ok": True, "checks": [finding("disk", Health.NOTE, "Little.", free=3).to_json()]}),
        ("earnings", statement([LINE], None, None).to_json()),
        ("earnings", statement([LINE], [PAYOUT], BALANCE).to_json()),
        ("bench", report([MEASURED, REFUSED], Rates())),
        ("bench", report([], Rates(asset="simulated"))),
        ("service status", {"installed": True, "path": "/x", "enabled": "enabled", "active": "active"}),
    ],
)
def test_what_is_printed_is_of_the_published_shape(command: str, answer: Mapping[str, Any]) -> None:
    assert check(f"shardwork-worker {command}", json.dumps(answer)) == answer
