"""`shardwork-coordinator worker show`: what a key earned and what became of it, of workers and of people who judge."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shardwork.errors import NotFound
from shardwork.why import Why
from shardwork_coordinator.cli import app
from shardwork_coordinator.money.movements import worker_account
from shardwork_coordinator.records import Account, Lease, Party, Payout, PayoutState, ReplicaState
from shardwork_coordinator.store import SqlStore
from shardwork_coordinator.store.base import Transaction
from tests.docs.shapes import check

ANNA = "annaannaannaanna"
WHY = Why(code="payout.refused", sentence="The address takes nothing.", next_step="Name another.")


def fill(tx: Transaction) -> None:
    tx.insert(
        Party(
            id=ANNA, name="Anna", roles="annotator", public_key=b"a" * 32, created_ms=1, last_seen_ms=2,
            payout_address="anna@pay.test",
        )
    )  # fmt: skip
    tx.insert(
        Lease(
            id="j/ask/r1/ask/s0#0.1", job_id="j", shard_id="j/ask/r1/ask/s0", replica=0, worker_id=ANNA, phase="ask",
            epoch=1, state=ReplicaState.ACCEPTED, granted_ms=1_000, ended_ms=5_000, paid_msat=5_000,
        )
    )  # fmt: skip
    tx.insert(Account(id=worker_account(ANNA), credits_posted=9_000, debits_posted=2_000, debits_pending=3_000))
    tx.insert(
        Payout(
            id="payout:1", owner=ANNA, address="anna@pay.test", msat=3_000, fee_limit_msat=10,
            state=PayoutState.FAILED, why_json=WHY.to_json(), created_ms=7, updated_ms=8,
        )
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A coordinator's data folder with somebody who judged and was paid."""
    monkeypatch.setenv("SHARDWORK_HOME", str(tmp_path / "home"))
    store = SqlStore(f"sqlite:///{tmp_path / 'data' / 'coordinator.db'}")
    store.start()
    asyncio.run(store.write(fill))
    store.close()
    return tmp_path / "data"


def run(folder: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["worker", "show", *arguments, "--data-dir", str(folder)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_what_somebody_who_judges_earned_is_told_in_words_and_by_json(folder: Path) -> None:
    told = check("shardwork-coordinator worker show", run(folder, ANNA, "--json"))
    money = told["earnings"]
    assert (told["name"], told["attempts"], told["paces"][0]["phase"]) == ("Anna", {"accepted": 1}, "ask")
    names = ("earned_msat", "paid_out_msat", "on_the_way_msat", "available_msat", "address")
    assert [money[name] for name in names] == [9_000, 2_000, 3_000, 4_000, "anna@pay.test"]
    (payout,) = money["payouts"]
    assert (payout["msat"], payout["state"], payout["why"]["code"]) == (3_000, "failed", "payout.refused")
    page = run(folder, ANNA)
    assert "earned 9 sat, not paid out 4 sat, on the way 3 sat, paid out 2 sat" in page and "failed" in page


def test_a_key_that_never_came_is_told(folder: Path) -> None:
    with pytest.raises(NotFound) as refused:
        run(folder, "nobodynobodynobo", "--json")
    assert refused.value.code == "worker.not_found"
    assert json.loads(refused.value.why.to_json())["next_step"]
