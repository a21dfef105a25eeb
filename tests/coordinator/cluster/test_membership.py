"""Who lives, who is attached where, and who may carry out what: two coordinators' cores on one store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shardwork.clock import ManualClock
from shardwork.identity.keys import SigningKey
from shardwork.v1 import work_pb2
from shardwork_coordinator.cluster.membership import SILENT_MS, Membership, living
from shardwork_coordinator.engine import Engine
from shardwork_coordinator.granting import Granting
from shardwork_coordinator.links import Link, Links, to_hello
from shardwork_coordinator.outbox import _claimable  # pyright: ignore[reportPrivateUsage]
from shardwork_coordinator.records import Attachment, Outbox, OutboxState, Party, Replica, ReplicaState
from shardwork_coordinator.store import Store
from shardwork_coordinator.store.base import Transaction

from ..simulation import Simulation, count_job


class Core:
    """One coordinator's engine, links and membership on the shared store and clock."""

    def __init__(self, name: str, store: Store, clock: ManualClock, folder: Path) -> None:
        self.links = Links(name)
        self.engine = Engine(store, self.links, clock)
        (folder / name).mkdir()
        self.membership = Membership(self.engine, f"{name}:1", folder / name)

    async def attach(self, worker: str) -> Link:
        """As `rpc.work` does."""
        now_ms = self.engine.clock.now_ms()
        link = Link(
            worker_id=worker,
            name=worker,
            capability=work_pb2.Capability(recipes=["count"], memory_bytes=1 << 40),
            minimum_msat=0,
            accepting=True,
            reference=False,
            since_ms=now_ms,
            last_seen_ms=now_ms,
        )

        def note(tx: Transaction) -> None:
            if tx.get(Party, worker) is None:
                tx.put(
                    Party(
                        id=worker, public_key=worker.encode(), roles="worker", name=worker, created_ms=0, last_seen_ms=0
                    )
                )
            row = Attachment(
                worker_id=worker,
                coordinator=self.links.coordinator,
                hello=to_hello(link),
                minimum_msat=0,
                accepting=True,
                since_ms=now_ms,
            )
            tx.put(row)

        await self.engine.store.write(note)
        self.links.attach(link)
        return link


async def pair(store: Store, folder: Path) -> tuple[ManualClock, Core, Core]:
    clock = ManualClock()
    a, b = Core("a", store, clock, folder), Core("b", store, clock, folder)
    await a.membership.begin()
    await b.membership.begin()
    await a.membership.look()
    return clock, a, b


async def test_each_learns_of_the_other_and_of_its_workers(store: Store, tmp_path: Path) -> None:
    _, a, b = await pair(store, tmp_path)
    link = await a.attach("w1")
    await b.membership.look()
    assert (a.membership.addresses, b.membership.addresses) == (("a:1", "b:1"), ("b:1", "a:1"))
    assert [one.id for one in b.links.attached()] == ["w1"] and b.links.accepting_here() == []
    assert b.engine.world().workers == a.engine.world().workers
    assert link.queue.empty()


async def test_workers_are_told_when_a_coordinator_comes_or_goes(store: Store, tmp_path: Path) -> None:
    clock, a, b = await pair(store, tmp_path)
    link = await a.attach("w1")
    clock.advance((SILENT_MS + 1) / 1000)
    await a.membership._beat()  # pyright: ignore[reportPrivateUsage]
    await a.membership.look()
    told = link.queue.get_nowait()
    assert told is not None and list(told.peers.addresses) == ["a:1"]
    await b.membership._beat()  # pyright: ignore[reportPrivateUsage]
    await a.membership.look()
    told = link.queue.get_nowait()
    assert told is not None and list(told.peers.addresses) == ["a:1", "b:1"]


async def test_the_workers_of_a_silent_coordinator_count_no_more(store: Store, tmp_path: Path) -> None:
    clock, a, b = await pair(store, tmp_path)
    await a.attach("w1")
    clock.advance((SILENT_MS + 1) / 1000)
    await b.membership._beat()  # pyright: ignore[reportPrivateUsage]
    await b.membership.look()
    assert b.links.attached() == [] and not b.membership.has_others


async def test_a_worker_that_went_to_the_other_loses_its_old_link_and_gets_nothing_over_it(
    store: Store, tmp_path: Path
) -> None:
    clock, a, b = await pair(store, tmp_path)
    old = await a.attach("w1")
    clock.advance(1)
    await b.attach("w1")
    simulation = Simulation(workers=0, store=store)
    await simulation.submit(count_job(parts=1))
    await simulation.run_effects()
    # before it looked, it still believes that the worker is here
    assert await Granting(a.engine, SigningKey(bytes(32)), simulation.settings).grant() == 0
    await a.membership.look()
    assert a.links.all() == [] and old.queue.get_nowait() is None
    assert await Granting(b.engine, SigningKey(bytes(32)), simulation.settings).grant() == 1
    held = await store.read(lambda tx: tx.find(Replica, state=ReplicaState.LEASED))
    assert [one.worker_id for one in held] == ["w1"]


async def test_a_run_that_begins_ends_the_last_one_in_its_folder(store: Store, tmp_path: Path) -> None:
    clock, a, _ = await pair(store, tmp_path)
    again = Membership(Engine(store, Links("a2"), clock), "a:1", tmp_path / "a")
    await again.begin()
    assert sorted(await store.read(lambda tx: living(tx, clock.now_ms()))) == ["a2", "b"]
    await again.end()
    assert sorted(await store.read(lambda tx: living(tx, clock.now_ms()))) == ["b"]
    assert a.membership.id == "a"


async def test_an_effect_is_left_to_its_claimer_until_that_one_is_silent(store: Store, tmp_path: Path) -> None:
    clock, _, b = await pair(store, tmp_path)
    effect = Outbox(id="e", kind="execute", payload_json="{}", state=OutboxState.PENDING, created_ms=1, holder="a")

    def keep(tx: Transaction) -> None:
        for one in (effect, replace(effect, id="f", holder=""), replace(effect, id="g", holder="b")):
            tx.put(one)

    await store.write(keep)

    async def claimable() -> list[str]:
        return [one.id for one in await store.read(lambda tx: _claimable(tx, "b", ["g"], clock.now_ms()))]

    assert await claimable() == ["f"]
    clock.advance((SILENT_MS + 1) / 1000)
    await b.membership._beat()  # pyright: ignore[reportPrivateUsage]
    assert sorted(await claimable()) == ["e", "f"]
