"""kill -9 of the coordinator at every step of a payout: paid once or certainly not, and never forgotten."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shardwork.clock import SystemClock
from shardwork_coordinator.payments.simulated import SimulatedPayments

from . import count_jobs
from .aims import PAYOUT_ANSWERED, PAYOUT_REFUSED, PAYOUT_SENT
from .drill import Drill, drill

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

#: every accepted shard is worth a payout
SETTINGS = {"SHARDWORK_PAYOUT_THRESHOLD_SATS": "1", "SHARDWORK_MINIMUM_SHARD_MSAT": "10000"}
#: the rules' absent_after_ms and rest_ms
NEVER_SENT_MS, REST_MS = 600_000, 3_600_000


def test_a_kill_at_each_step_of_a_payout_pays_nobody_twice_and_forgets_nobody(tmp_path: Path) -> None:
    with drill(tmp_path, settings=SETTINGS) as stage:
        count_jobs.write(tmp_path, parts=1)
        alice = earn(stage, "alice", "alice@simulated", PAYOUT_SENT)
        # the last of these kills fell between the intent and the sending: only the node can tell, and only in time
        assert payouts(stage, alice) == [("sent", "")]
        for name, address in (("bob", "unknown@simulated"), ("carol", "carol@simulated")):
            wait_payouts(stage, earn(stage, name, address, PAYOUT_ANSWERED), ["settled"])
        for name, address, names in (
            ("dave", "deaf@simulated", PAYOUT_REFUSED),
            ("erin", "fail@simulated", PAYOUT_REFUSED[1:]),
            ("fred", "overcharge@simulated", PAYOUT_REFUSED[1:]),
        ):
            wait_payouts(stage, earn(stage, name, address, names), ["failed"])
        assert payouts(stage, alice) == [("sent", "")]
        let_time_pass(stage, alice, NEVER_SENT_MS)
        wait_payouts(stage, alice, ["failed"])
        assert payouts(stage, alice) == [("failed", "payout.never_sent")]
        let_time_pass(stage, alice, REST_MS)
        wait_payouts(stage, alice, ["failed", "settled"])
        check_paid(stage)


def earn(stage: Drill, name: str, address: str, names: Sequence[str]) -> str:
    """This worker alone earns a payout, whose steps kill the coordinator; its id."""
    stage.arm(names)
    stage.world.processes.start_worker(name, "--payout", address)
    stage.world.wait_ready(name)
    job = stage.submit()
    stage.wait_killed()
    stage.check_done(job)
    worker = str(stage.world.worker(name)["worker_id"])
    stage.world.processes.kill(name)
    return worker


def payouts(stage: Drill, worker: str) -> list[tuple[str, str]]:
    """(state, code of its reason) of each of the worker's payouts, oldest first."""
    rows = stage.world.rows("select state, why_json from payout where owner = ? order by created_ms", worker)
    return [(state, json.loads(why)["code"] if why else "") for state, why in rows]


def wait_payouts(stage: Drill, worker: str, states: list[str]) -> None:
    stage.world.until(
        lambda: [state for state, _ in payouts(stage, worker)] == states, f"{states}: {payouts(stage, worker)}"
    )


def let_time_pass(stage: Drill, worker: str, span_ms: int) -> None:
    """Ages the worker's payouts: nobody waits an hour."""
    with sqlite3.connect(stage.world.folder / "coordinator" / "coordinator.db", timeout=30) as database:
        database.execute("update payout set updated_ms = updated_ms - ? where owner = ?", (span_ms, worker))
    database.close()


def check_paid(stage: Drill) -> None:
    """The node, the payouts and the ledger tell the same story, and every other msat is still the workers'."""
    world = stage.world
    journal = world.folder / "coordinator" / "simulated-payments.jsonl"
    lines: list[dict[str, Any]] = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    settled = Counter(one["payment"] for one in lines if one.get("state") == "settled")
    assert set(settled.values()) == {1}
    paid = dict(world.rows("select payment_hash, msat from payout where state = 'settled'"))
    assert len(paid) == 3
    assert SimulatedPayments(SystemClock(), journal).settled_msat == paid
    routing = sum(int(one["fee_msat"]) for one in lines if one.get("state") == "settled")
    left = world.rows("select credits_posted, credits_pending from account where id = 'external:simulated'")
    assert left == [(sum(paid.values()) + routing, 0)]
    earned, out, held = world.rows(
        "select sum(credits_posted), sum(debits_posted), sum(debits_pending) from account where id like 'worker:%'"
    )[0]
    assert (earned, out, held) == (6 * 10_000, sum(paid.values()) + routing, 0)
