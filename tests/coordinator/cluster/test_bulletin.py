"""Notices: what they carry, how long they may be, and that a strange one harms nobody."""

from __future__ import annotations

import json
from pathlib import Path

from shardwork.why import Why
from shardwork_coordinator.cluster.bulletin import MOST_BYTES, Bulletin, payloads
from shardwork_coordinator.cluster.membership import Membership
from shardwork_coordinator.events import Push

from ..simulation import Simulation


def push(number: int, *, sentence: str = "It is over.") -> Push:
    why = Why(code="lease.stale", sentence=sentence)
    return Push(worker_id="worker0000000000", lease_id=f"j/s/r1/learn/s{number}#0.1", kind="revoke", why=why)


def bulletin(simulation: Simulation, folder: Path) -> Bulletin:
    return Bulletin(simulation.engine, Membership(simulation.engine, "here:1", folder), "postgresql:///nowhere")


def test_many_pushes_are_split_into_notices_that_are_short_enough_and_nothing_is_lost() -> None:
    found = payloads("a", [push(number) for number in range(200)], moved=False)
    assert len(found) > 1 and all(len(one.encode()) <= MOST_BYTES for one in found)
    assert [one["lease"] for text in found for one in json.loads(text)["pushes"]] == [
        push(number).lease_id for number in range(200)
    ]


def test_a_reason_that_is_too_long_is_left_out_and_the_push_goes_out() -> None:
    (found,) = payloads("a", [push(1, sentence="x" * 9_000)], moved=True)
    said = json.loads(found)
    assert (said["pushes"][0]["why"], said["moved"]) == (None, True)


async def test_what_one_calls_reaches_the_worker_that_is_attached_to_the_other(tmp_path: Path) -> None:
    simulation = Simulation(workers=1)
    (text,) = payloads("another", [push(7)], moved=False)
    simulation.engine.work_ready.clear()
    bulletin(simulation, tmp_path)._hear(text)  # pyright: ignore[reportPrivateUsage]
    (link,) = simulation.links.all()
    said = link.queue.get_nowait()
    assert said is not None and said.revoke.lease_id == push(7).lease_id and said.revoke.why.code == "lease.stale"
    assert simulation.engine.work_ready.is_set()


async def test_a_notice_of_ones_own_or_of_another_program_is_passed_over(tmp_path: Path) -> None:
    simulation = Simulation(workers=1)
    listening = bulletin(simulation, tmp_path)
    simulation.engine.work_ready.clear()
    for text in (*payloads("", [push(1)], moved=False), "hello", "{}", '{"pushes": 3}', '{"pushes": [{}]}'):
        listening._hear(text)  # pyright: ignore[reportPrivateUsage]
    assert simulation.links.all()[0].queue.empty()
    assert not simulation.engine.work_ready.is_set()
