"""The public page: what it tells everybody, what it keeps to itself, and that the operator may switch it off."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace

import httpx
import pytest

from shardwork.errors import Unreachable
from shardwork.v1 import work_pb2
from shardwork_coordinator.links import Machine
from shardwork_coordinator.queueing import standing
from shardwork_coordinator.records import JobState, Lease, Party, Replica, ReplicaState, Shard, ShardState, Standing
from shardwork_coordinator.scheduler import ReadyReplica, Worker
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.web import outlook as outlooks
from shardwork_coordinator.web.dashboard import public
from shardwork_coordinator.web.outlook import DAY_MS, LEAST_SHARDS, Demand, demand, device_name, outlook
from shardwork_coordinator.web.server import Site, build

from .scene import COOKIE, HOSTILE_JOB, OWNER, Scene, everything, signed_in
from .test_pages import Tags

JOIN = "shardwork://here:7700?ca=abcd"
ALICE = "0000000000000001"


@contextlib.asynccontextmanager
async def visitor(scene: Scene, *, public_page: bool = True) -> AsyncGenerator[httpx.AsyncClient, None]:
    settings = Settings(data_dir="/nonexistent", public_page=public_page)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(build(scene.engine, Site(settings=settings, join=lambda: JOIN)))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client
    finally:
        scene.store.close()


async def work(scene: Scene, worker: str, count: int, *, msat: int, given: bool = False, days_ago: float = 0.1) -> None:
    """Accepted shards of half an hour each."""
    ended_ms = scene.clock.now_ms() - int(days_ago * DAY_MS)

    def put(tx: Transaction) -> None:
        for number in range(count):
            name = f"j/tune/r1/learn/{worker}-{days_ago}-{number}"
            tx.put(
                Lease(
                    id=f"{name}#0.1",
                    job_id="j",
                    shard_id=name,
                    replica=0,
                    epoch=1,
                    worker_id=worker,
                    phase="learn",
                    state=ReplicaState.ACCEPTED,
                    granted_ms=ended_ms - 1_800_000,
                    ended_ms=ended_ms,
                    paid_msat=0 if given else msat,
                    donated_msat=msat if given else 0,
                )
            )

    await scene.put(put)


async def look(scene: Scene) -> outlooks.Outlook:
    links, now_ms = scene.links.everywhere(), scene.clock.now_ms()
    return await scene.store.read(lambda tx: outlook(tx, links, now_ms))


# ---- who sees what --------------------------------------------------------------------------------------------------


async def test_everybody_sees_it_without_a_login_and_nobody_is_named() -> None:
    scene = await everything()
    async with visitor(scene) as client:
        answer, plain = await client.get("/"), await client.get("/public.json")
    assert answer.status_code == plain.status_code == 200
    for private in ("news-7b-summaries", "alice", "dora", OWNER, ALICE, HOSTILE_JOB[:20], "example.com"):
        assert private not in answer.text and private not in plain.text
    assert f"shardwork-worker start {JOIN}" in Tags(answer.text).texts
    assert "Payments are simulated: no sat here is real." in answer.text
    assert 'href="/login"' in answer.text and "sse-connect" not in answer.text
    body = plain.json()
    assert (body["open_jobs"], body["workers_attached"], body["payments"]) == (2, 3, "simulated")
    assert plain.headers["cache-control"] == "public, max-age=15"


async def test_it_is_well_formed_and_forbids_inline_and_foreign_content() -> None:
    async with visitor(await everything()) as client:
        answer = await client.get("/")
    tags = Tags(answer.text)
    assert tags.open == []
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert not any(name == "style" or name.startswith("on") for _, attributes in tags.tags for name in attributes)
    links = [value for _, attributes in tags.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links and all(link is not None and link.startswith(("/", "#")) for link in links)


async def test_whoever_signed_in_sees_the_same_with_a_way_to_the_overview() -> None:
    scene = await everything()
    async with visitor(scene) as client:
        client.cookies.set(COOKIE, await signed_in(scene))
        html = (await client.get("/")).text
    assert 'href="/overview">To the overview' in html and "What a device earns here" in html


async def test_switched_off_it_leads_to_the_login_and_says_nothing() -> None:
    scene = await everything()
    async with visitor(scene, public_page=False) as client:
        page, plain = await client.get("/"), await client.get("/public.json")
        client.cookies.set(COOKIE, await signed_in(scene))
        inside = await client.get("/")
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert (plain.status_code, plain.json()["error"]["code"]) == (404, "public.off")
    assert inside.headers["location"] == "/overview"


async def test_an_empty_house_is_honest() -> None:
    async with visitor(Scene()) as client:
        html = (await client.get("/")).text
    assert "No worker has been here in 7 days," in html and "Nobody is listed." in html


async def test_a_database_that_is_away_leaves_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = await everything()

    async def away(work: object) -> None:
        raise Unreachable("store.unreachable", "The database can't be reached.", next_step="Wait.")

    monkeypatch.setattr(public, "KEEP_S", 0.0)
    read = scene.store.read
    async with visitor(scene) as client:
        monkeypatch.setattr(scene.store, "read", away)
        assert (await client.get("/")).status_code == 503
        lost = await client.get("/public.json")
        assert lost.status_code == 503 and lost.json()["error"]["code"] == "store.unreachable"
        monkeypatch.setattr(scene.store, "read", read)
        seen = (await client.get("/public.json")).json()
        monkeypatch.setattr(scene.store, "read", away)
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/public.json")).json() == seen


async def test_many_visitors_share_one_look() -> None:
    scene = Scene()
    async with visitor(scene) as client:
        before = (await client.get("/public.json")).json()
        await scene.job("new", JobState.RUNNING)
        assert (await client.get("/public.json")).json() == before


# ---- figures --------------------------------------------------------------------------------------------------------


async def test_rates_are_the_median_and_the_best_quarter_of_enough_recent_shards() -> None:
    scene = Scene()
    for number in (1, 2):
        await scene.worker(number, f"w{number}")
        link = scene.links.get(f"{number:016x}")
        assert link is not None
        link.capability.MergeFrom(work_pb2.Capability(device="cuda:0", device_name="NVIDIA H100 80GB HBM3"))
    await work(scene, ALICE, LEAST_SHARDS // 2, msat=1_000)
    # given work counts as what it would have earned
    await work(scene, "0000000000000002", LEAST_SHARDS // 2 - 1, msat=3_000, given=True)
    await work(scene, ALICE, LEAST_SHARDS, msat=10**6, days_ago=8)
    (few,) = (await look(scene)).devices
    assert (few.shards, few.median_msat_per_hour, few.top_quarter_msat_per_hour) == (LEAST_SHARDS - 1, None, None)
    await work(scene, "0000000000000002", 1, msat=3_000, days_ago=1)
    (device,) = (await look(scene)).devices
    assert (device.name, device.attached, device.shards) == ("NVIDIA H100 80GB HBM3", 2, LEAST_SHARDS)
    assert (device.median_msat_per_hour, device.top_quarter_msat_per_hour) == (2_000, 6_000)
    async with visitor(scene) as client:
        html = (await client.get("/")).text
    assert 'data-label="Typical, sat an hour" class="number">2</td>' in html and "6 or more" in html


async def test_too_few_shards_are_called_not_enough_data() -> None:
    scene = Scene()
    await scene.worker(1, "w1")
    await work(scene, ALICE, 3, msat=1_000)
    async with visitor(scene) as client:
        html = (await client.get("/")).text
    assert "not enough data: 3 shards in 7 days" in html


@pytest.mark.parametrize(
    ("device", "said", "told"),
    [
        ("cpu", "x86_64", "CPU"),
        ("", "", "CPU"),
        ("cuda:0", "NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"),
        ("cuda:0", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB"),
        ("cuda:0", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 Laptop GPU"),
        ("mps", "Apple M2 Pro", "Apple M2 Pro"),
        ("cuda:0", "AMD Radeon(TM) RX 7900 XTX", "AMD Radeon RX 7900 XTX"),
        ("cuda:0", "NVIDIA buy at shop.example", "Other GPU"),
        ("cuda:0", "<script>", "Other GPU"),
        ("cuda:0", "", "Other GPU"),
    ],
)
def test_devices_are_named_in_their_vendors_words_only(device: str, said: str, told: str) -> None:
    assert device_name(Machine(device=device, device_name=said)) == told


def waiting(recipe: str = "sft", memory_bytes: int = 0) -> ReadyReplica:
    return ReadyReplica(
        shard_id="s",
        number=0,
        recipe=recipe,
        rank=(0, 0, 0),
        memory_bytes=memory_bytes,
        price_msat=1,
        reference_only=False,
        needs_training=True,
    )


@pytest.mark.parametrize(
    ("number", "attached", "found"),
    [(0, 1, Demand.NONE), (1, 2, Demand.LOW), (2, 2, Demand.MIDDLE), (8, 2, Demand.HIGH), (1, 0, Demand.MIDDLE)],
)
def test_demand_is_what_waits_beside_who_is_there(number: int, attached: int, found: Demand) -> None:
    worker = Worker(id="", memory_bytes=10, minimum_msat=0, reference=False, can_train=True, recipes=frozenset({"sft"}))
    samples = [(waiting(), number)] if number else []
    # what it could not take is no demand for it
    assert demand([*samples, (waiting("dpo"), 99), (waiting(memory_bytes=11), 99)], worker, attached) is found


async def test_waiting_work_and_totals_are_counted() -> None:
    scene = Scene()
    job = await scene.job("secret", JobState.RUNNING, rounds=1)
    await scene.learning(job, await scene.worker(1, "w"), number=2, position=0, progress=0.1)

    def put(tx: Transaction) -> None:
        (shard,), (replica,) = tx.find(Shard), tx.find(Replica)
        for number in (1, 2):
            name = f"{shard.id}-{number}"
            tx.put(replace(shard, id=name, state=ShardState.READY, tokens=500))
            tx.put(replace(replica, shard_id=name, state=ReplicaState.READY, worker_id="", epoch=0))
        tx.put(replace(shard, id="done", state=ShardState.DONE))

    await scene.put(put)
    found = await look(scene)
    assert (found.open_jobs, dict(found.kinds)) == (1, {"pretrain": 1})
    assert (found.waiting_shards, found.waiting_tokens, found.shards_done) == (2, 1_000, 1)
    assert (found.workers_attached, found.workers_seen) == (1, 1)


# ---- the leaderboard ------------------------------------------------------------------------------------------------


async def test_only_listed_workers_in_good_standing_are_named_by_paid_and_given_work() -> None:
    scene = Scene()
    for number, name in enumerate(("shy", "payee", "giver", "", "odd", "idle"), start=1):
        worker = await scene.worker(number, name, attached=False)

        def list_it(tx: Transaction, worker: str = worker, name: str = name) -> None:
            row = tx.get(Party, worker)
            assert row is not None
            tx.put(replace(row, listed=name != "shy"))
            if name == "odd":
                standing.change(tx, worker, Standing.QUARANTINED, "x")

        await scene.put(list_it)
        if name != "idle":
            await work(scene, worker, number, msat=1_000, given=name == "giver")
    await work(scene, f"{2:016x}", 50, msat=1_000, days_ago=31)
    leaders = (await look(scene)).leaders
    assert [(one.name, one.shards, one.paid_msat, one.given_msat) for one in leaders] == [
        ("worker 000000", 4, 4_000, 0),
        ("giver", 3, 0, 3_000),
        ("payee", 2, 2_000, 0),
    ]
