"""`why`: each wait, refusal and unpaid shard comes with a code, a sentence, evidence and a next step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shardwork.v1 import types_pb2, work_pb2
from shardwork.why import Why
from shardwork.wire import why_to_proto
from shardwork_worker.account.book import Book, Fate, Line
from shardwork_worker.account.payee import Payee
from shardwork_worker.account.reasons import About, from_book, readable
from shardwork_worker.cli import app
from shardwork_worker.control import Command

from ..conftest import InProcess, Workers, let_go
from ..fake_coordinator import FakeCoordinator

IDLE = Why(code="worker.nothing_fits", sentence="Nothing fits.", evidence={"waiting": "2"}, next_step="Wait.")


def told(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {reason["code"]: reason for reason in answer["reasons"]}


async def until(worker: InProcess, code: str) -> dict[str, Any]:
    while code not in (found := told(await worker.ask(Command.WHY))):
        pass
    return found


async def test_an_idle_worker_gives_the_coordinators_reason_and_a_paused_one_its_own(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    worker = await workers.here()
    # its Hello is heard before it hears the welcome
    assert "worker.unheard" in await until(worker, "worker.unheard")
    coordinator.push(work_pb2.AttachResponse(idle=work_pb2.Idle(why=why_to_proto(IDLE))))
    found = await until(worker, IDLE.code)
    assert found[IDLE.code] == {
        "about": "work",
        "code": IDLE.code,
        "sentence": "Nothing fits.",
        "evidence": {"waiting": "2"},
        "next_step": "Wait.",
    }
    await worker.ask(Command.PAUSE)
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("ReleaseLease")
    answer = await worker.ask(Command.WHY)
    assert [reason["code"] for reason in answer["reasons"]] == ["worker.paused"], "and not once more as history"
    paused = told(answer)["worker.paused"]
    assert (paused["about"], paused["next_step"]) == ("limit", "shardwork-worker resume")


async def test_a_pending_a_rejected_and_a_returned_shard_are_explained(
    coordinator: FakeCoordinator, workers: Workers, waiting: dict[str, Any]
) -> None:
    worker = await workers.here(minimum_sats=5)
    waits = types_pb2.Why(code="result.waits_for_agreement", sentence="It waits for a second worker.")
    coordinator.verdict = work_pb2.SubmitResultResponse(state="submitted", why=waits)
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("SubmitResult")
    await worker.until_idle()
    bad = types_pb2.Why(code="result.not_finite", sentence="Its delta is not finite.", evidence={"file": "delta"})
    coordinator.verdict = work_pb2.SubmitResultResponse(state="rejected", why=bad)
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("SubmitResult", 2)
    await worker.until_idle()
    coordinator.offer(coordinator.lease({"do": "copy"}, price_msat=4999))
    await coordinator.wait("ReleaseLease")
    found = told(await worker.ask(Command.WHY))
    assert found["result.waits_for_agreement"]["sentence"].startswith("7 sat for job/tune/r1/learn/s0#0.1 are pending")
    assert "was rejected and is not paid: Its delta is not finite." in found["result.not_finite"]["sentence"]
    assert found["result.not_finite"]["evidence"]["file"] == "delta"
    assert found["worker.below_minimum"]["about"] == "work"
    assert found["worker.below_minimum"]["sentence"].startswith("1 shard was given back within a day")
    assert "minimum_sats" in found["worker.below_minimum"]["next_step"]
    coordinator.offer(coordinator.lease(waiting))
    await coordinator.until_computing()
    assert told(await worker.ask(Command.WHY))["worker.working"]["sentence"].endswith("computing, 50%.")
    let_go(waiting)


async def test_what_waits_for_its_verdict_survives_a_restart_and_is_asked_for(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    worker = await workers.here()
    coordinator.verdict = work_pb2.SubmitResultResponse(state="submitted")
    coordinator.offer(coordinator.lease({"do": "copy"}))
    first = await coordinator.wait("SubmitResult")
    await worker.until_idle()
    await worker.ask(Command.STOP)
    await worker.task
    coordinator.verdict = work_pb2.SubmitResultResponse(state="accepted", paid_msat=7000)
    again = await workers.here()
    assert await coordinator.wait("SubmitResult", 2) == first
    while (await again.ask(Command.STATUS))["earned_msat"] != {"paid": 7000, "pending": 0, "held": 0}:
        pass
    line = Book(again.folders.state).since(0)[0]
    assert (line.state, line.paid_msat) == (Fate.PAID, 7000)


def test_without_a_worker_the_book_still_explains_and_the_exit_code_is_4(tmp_path: Path) -> None:
    why = Why(code="result.late", sentence="It came too late.")
    line = Line(
        lease_id="a#0.1",
        coordinator="ab",
        recipe="sft",
        phase="learn",
        price_msat=7000,
        work_units=1,
        at_ms=2**42,
        state=Fate.REJECTED,
        why=why,
    )
    Book(tmp_path / "state" / "worker").note(line)
    shown = CliRunner().invoke(app, ["why", "--json"], env={"SHARDWORK_HOME": str(tmp_path)})
    found = told(json.loads(shown.stdout))
    assert shown.exit_code == 4 and list(found) == ["worker.not_running", "result.late"]
    assert all(reason["next_step"] for reason in found.values())
    plain = CliRunner().invoke(app, ["why"], env={"SHARDWORK_HOME": str(tmp_path)})
    assert "state   offline" in plain.stdout and "a#0.1 was rejected and is not paid: It came too late." in plain.stdout


@pytest.mark.parametrize(
    ("payee", "codes"),
    [
        (None, []),
        (Payee(), []),
        (Payee(available_msat=5, asset="bitcoin"), ["pay.no_address"]),
        (Payee(available_msat=5, threshold_msat=9, address="a@b"), ["pay.below_threshold"]),
        (Payee(available_msat=9, threshold_msat=9, address="a@b"), ["pay.on_its_way"]),
        (Payee(available_msat=5, asset="simulated"), ["pay.no_address", "pay.simulated"]),
    ],
)
def test_sats_that_are_not_paid_out_are_explained(payee: Payee | None, codes: list[str], tmp_path: Path) -> None:
    found = from_book(Book(tmp_path), 0, payee)
    assert [reason.why.code for reason in found] == codes
    assert all(reason.about is About.PAY and reason.why.next_step for reason in found)
    text = readable({"state": "ready", "reasons": [reason.to_json() for reason in found]})
    assert all(f"[{code}]" in text for code in codes)
