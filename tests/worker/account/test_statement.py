"""The statement: every shard once with its word, every payment with its hash, totals that are those of `status`."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shardwork.errors import InvalidInput
from shardwork.v1 import types_pb2, wallet_pb2, work_pb2
from shardwork.why import Why
from shardwork_worker.account import asking
from shardwork_worker.account.asking import Balance, Transfer
from shardwork_worker.account.book import Fate, Line
from shardwork_worker.account.statement import as_csv, readable, since, statement
from shardwork_worker.cli import app
from shardwork_worker.control import Command

from ..conftest import Workers
from ..fake_coordinator import FakeCoordinator

BALANCE = Balance(earned_msat=9000, held_msat=0, paid_out_msat=5000, available_msat=4000, asset="bitcoin")
WAITS = Why(code="result.waits_for_agreement", sentence="Waits.", evidence={"without_a_second_after_s": "15"})


def line(lease_id: str, state: Fate, why: Why | None = None, **changes: Any) -> Line:
    given: dict[str, Any] = {"at_ms": 60_000, "price_msat": 7000, "paid_msat": 0} | changes
    return Line(
        lease_id=lease_id, coordinator="ab", recipe="sft", phase="learn", work_units=1, state=state, why=why, **given
    )


def transfer(reference: str, msat: int, *, kind: str = "shard", state: str = "posted", **changes: Any) -> Transfer:
    given: dict[str, Any] = {"payment_hash": "", "payout_state": "", "why": None, "at_ms": 61_000} | changes
    name = reference if kind == "payout" else f"pay/{reference}"
    return Transfer(id=name, msat=msat, kind=kind, state=state, reference=reference, **given)


def test_a_shard_is_paid_rejected_or_pending_until_when_and_a_payment_has_its_hash() -> None:
    bad = Why(code="result.bad", sentence="It was bad.")
    lines = [
        line("a#0.1", Fate.PAID, paid_msat=9000),
        line("b#0.1", Fate.REJECTED, bad),
        line("c#0.1", Fate.PENDING, WAITS),
        line("d#0.1", Fate.PENDING),
        line("e#0.1", Fate.GIVEN_BACK, bad),
    ]
    moved = [
        transfer("a#0.1", 9000),
        transfer("e#0.1", 7000, state="voided"),
        transfer("x#0.1", 7000, state="pending"),
        transfer("payout:w/1", -5000, kind="payout", state="posted", payment_hash="cafe", payout_state="settled"),
        transfer("withdrawal:w/1", -5000, kind="payout"),
        transfer("p", 100, kind="deposit"),
    ]
    made = statement(lines, moved, BALANCE).to_json()
    words = {one["id"]: one["word"] for one in made["shards"]}
    at = time.strftime("%H:%M:%S", time.localtime(75))
    assert words == {
        "a#0.1": "paid",
        "b#0.1": "rejected",
        "c#0.1": f"pending until a second worker agrees, or {at} if there is none",
        "d#0.1": "pending until the coordinator's verdict",
        "e#0.1": "not paid (given back)",
    }
    (payment,) = made["payments"]
    assert (payment["state"], payment["payment_hash"], payment["msat"]) == ("settled", "cafe", -5000)
    assert made["earned_msat"] == {"paid": 9000, "pending": 14_000, "held": 0}
    assert made["listed_paid_msat"] == 9000 and made["from"] == "ledger"
    text = readable(made)
    assert "rejected  7 sat  b#0.1  It was bad." in text and "payment hash cafe" in text


def test_csv_has_a_line_for_each_with_code_and_reason() -> None:
    bad = Why(code="result.bad", sentence='It was "bad", and\nlate.')
    made = statement([line("b#0.1", Fate.REJECTED, bad)], [transfer("a#0.1", 9000)], BALANCE).to_json()
    rows = list(csv.DictReader(io.StringIO(as_csv(made))))
    assert [(row["type"], row["id"], row["state"], row["msat"], row["code"]) for row in rows] == [
        ("shard", "a#0.1", "paid", "9000", ""),
        ("shard", "b#0.1", "rejected", "7000", "result.bad"),
    ]
    assert rows[1]["reason"] == bad.sentence


def test_without_the_ledger_the_book_is_told_as_such() -> None:
    made = statement([line("a#0.1", Fate.PAID, paid_msat=9000)], None, None).to_json()
    assert (made["from"], made["earned_msat"]["paid"], made["paid_out_msat"]) == ("book", 9000, None)


def test_many_shards_are_cut_with_how_to_see_the_rest() -> None:
    lines = [line(f"a#0.{number}", Fate.REJECTED) for number in range(30)]
    made = statement(lines, [], BALANCE).to_json()
    assert "and 10 earlier shards" in readable(made) and "earlier" not in readable(made, most=None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h", 86_400), ("7d", 7 * 86_400), ("2w", 14 * 86_400), ("1 d", 86_400)]
)
def test_a_span_ago_is_read(text: str, seconds: int) -> None:
    assert since(text, 10_000_000.0) == (10_000_000 - seconds) * 1000


def test_a_day_is_read_in_local_time_and_nonsense_is_refused() -> None:
    assert since("2026-11-27", 0) == int(time.mktime((2026, 11, 27, 0, 0, 0, 0, 0, -1)) * 1000)
    for text in ("tomorrow", "7", "2026-13-01", ""):
        with pytest.raises(InvalidInput, match="7d"):
            since(text, 0)


async def test_the_command_asks_the_coordinator_page_by_page_and_agrees_with_status(
    coordinator: FakeCoordinator, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    monkeypatch.setattr(asking, "PAGE", 2)
    worker = await workers.here()
    bad = types_pb2.Why(code="result.bad", sentence="It was bad.")
    for number, (state, why) in enumerate((("accepted", None), ("submitted", None), ("rejected", bad)), start=1):
        coordinator.verdict = work_pb2.SubmitResultResponse(
            state=state, paid_msat=7000 if state == "accepted" else 0, why=why
        )
        coordinator.offer(coordinator.lease({"do": "copy"}))
        await coordinator.wait("SubmitResult", number)
        await worker.until_idle()
    coordinator.transfers = [
        wallet_pb2.TransferView(
            sequence=9 - number,
            id=f"pay/{number}",
            at_unix_ms=1000 + number,
            msat=1000,
            kind="shard",
            state="posted",
            reference=f"old#0.{number}",
        )
        for number in range(5)
    ]
    shown = await asyncio.to_thread(
        CliRunner().invoke, app, ["earnings", "--json"], env={"SHARDWORK_HOME": str(workers.home)}
    )
    made = json.loads(shown.stdout)
    assert shown.exit_code == 0 and coordinator.calls["ListTransfers"] == 3
    assert sum(one["id"].startswith("old") for one in made["shards"]) == 5
    assert made["earned_msat"] == (await worker.ask(Command.STATUS))["earned_msat"]
    assert {one["state"] for one in made["shards"]} == {"paid", "pending", "rejected"}
    await coordinator.stop()
    away = await asyncio.to_thread(
        CliRunner().invoke, app, ["earnings", "--csv"], env={"SHARDWORK_HOME": str(workers.home)}
    )
    assert away.exit_code == 7 and "result.bad" in away.stdout and "from the book" in away.stderr


def test_before_the_first_join_it_says_what_to_do(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["earnings"], env={"SHARDWORK_HOME": str(tmp_path)})
    assert getattr(shown.exception, "code", "") == "worker.never_joined"
