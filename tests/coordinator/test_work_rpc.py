"""What the worker's desk keeps of what workers say; the calls themselves are attacked in tests/contract."""

from __future__ import annotations

import asyncio

import pytest

from shardwork.errors import InvalidInput, StaleLease
from shardwork.v1 import types_pb2, work_pb2
from shardwork_coordinator.engine import live_replica, parse_lease
from shardwork_coordinator.events import Push
from shardwork_coordinator.links import QUEUE_LIMIT, Link, Links
from shardwork_coordinator.machine.attempts import lease_id
from shardwork_coordinator.rpc.said import MOST_SPEEDS, plain, reason, shortened

from .simulation import count_job
from .unruly import Unruly


@pytest.mark.parametrize(
    ("said", "kept"),
    [("fine", "fine"), ("", ""), ("a\x1b[2Jb\n", "a [2Jb "), ("x" * 50, "x" * 10), ("\u202eabc", " abc")],
)
def test_text_is_kept_short_and_without_anything_a_terminal_obeys(said: str, kept: str) -> None:
    assert plain(said, 10) == kept


def test_a_reason_keeps_its_code_only_when_it_is_one() -> None:
    assert reason(types_pb2.Why(code="worker.paused", sentence="Paused.")).code == "worker.paused"
    for code in ("", "Paused", "worker", "worker..paused", "worker.paused\n", "w" * 9 + ".\u00e9"):
        assert reason(types_pb2.Why(code=code)).code == "worker.gave_back"


def test_a_benchmark_is_a_hint_of_few_finite_numbers() -> None:
    odd = [work_pb2.Speed(kind="x", tokens_per_s=number) for number in (float("nan"), float("inf"), -1.0, 0.0)]
    good = work_pb2.Speed(kind="lora\n", preset="p" * 99, tokens_per_s=5.0)
    kept = shortened(work_pb2.Capability(speeds=[*odd, *[good] * 99])).speeds
    assert 0 < len(kept) <= MOST_SPEEDS and {one.tokens_per_s for one in kept} == {5.0}
    assert kept[0].kind == "lora " and len(kept[0].preset) == 20


def test_a_reason_is_never_empty_and_never_large() -> None:
    assert reason(types_pb2.Why()).sentence
    large = types_pb2.Why(
        code="a.b", sentence="s" * 10**6, next_step="n" * 10**6, evidence={f"k{n}" * 99: "v" * 10**4 for n in range(50)}
    )
    assert len(reason(large).to_json()) < 3_500


@pytest.mark.parametrize(
    "text", ["", "a", "a#", "a#0", "a#0.", "#0.1", "a#-1.1", "a#0.99999999999", "a" * 300 + "#0.1"]
)
def test_what_is_no_lease_id_is_refused_before_any_row_is_looked_for(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_lease(text)
    assert refused.value.code == "lease.bad_id"


async def test_a_lease_is_live_for_its_holder_and_epoch_only() -> None:
    simulation = Unruly(workers=2)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    lease = lease_id(held)
    found = await simulation.store.read(lambda tx: live_replica(tx, lease, held.worker_id))
    assert found == held
    for other, worker in ((lease, "somebody"), (lease[:-1] + "2", held.worker_id), ("x#0.1", held.worker_id)):
        with pytest.raises(StaleLease):
            await simulation.store.read(lambda tx, other=other, worker=worker: live_replica(tx, other, worker))  # type: ignore[misc]


def new_link(worker: str = "w") -> Link:
    return Link(
        worker_id=worker,
        name="",
        capability=work_pb2.Capability(),
        minimum_msat=0,
        accepting=True,
        reference=False,
        since_ms=0,
        last_seen_ms=0,
    )


async def end_of(link: Link) -> int:
    """How many messages come before the stream's end."""
    count = 0
    async with asyncio.timeout(1):
        while await link.queue.get() is not None:
            count += 1
    return count


async def test_a_worker_that_stops_reading_is_let_go_and_its_stream_ends() -> None:
    links, link = Links(), new_link()
    links.attach(link)
    links.push([Push(worker_id="w", lease_id=f"l{number}", kind="revoke") for number in range(QUEUE_LIMIT + 1)])
    assert links.all() == []
    assert await end_of(link) < QUEUE_LIMIT


async def test_a_full_stream_can_be_replaced_and_closed() -> None:
    links, first, second = Links(), new_link(), new_link()
    links.attach(first)
    links.push([Push(worker_id="w", lease_id=f"l{number}", kind="revoke") for number in range(QUEUE_LIMIT)])
    links.attach(second)
    assert await end_of(first) < QUEUE_LIMIT
    assert links.get("w") is second and not links.detach(first) and links.detach(second)
    links.attach(second)
    links.close()
    assert await end_of(second) == 0


def test_a_worker_whose_memory_failed_a_shard_gets_none_as_large_any_more() -> None:
    links, link = Links(), new_link()
    link.capability.memory_bytes = 1000
    links.attach(link)
    assert link.as_worker().memory_bytes == 1000
    for failed, left in ((800, 799), (900, 799), (0, 799), (400, 399)):
        links.note_out_of_memory("w", failed)
        assert link.as_worker().memory_bytes == left
    links.note_out_of_memory("nobody", 5)
    assert links.detach(link)
    back = new_link()
    back.capability.memory_bytes = 1000
    links.attach(back)
    assert back.as_worker().memory_bytes == 399, "a reconnect does not make its memory larger"
    restarted = new_link()
    restarted.capability.memory_bytes, restarted.instance = 1000, "another process"
    links.attach(restarted)
    assert restarted.as_worker().memory_bytes == 1000, "its owner may have given it more"
