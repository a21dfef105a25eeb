"""/metrics: Prometheus' format and naming, the right numbers, and no more work per scrape than needed."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shardwork.errors import Unreachable
from shardwork_coordinator.money import ledger
from shardwork_coordinator.records import Account, Lease, Party, Standing
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.web.kept import Beside, Kept
from shardwork_coordinator.web.metrics import Metrics
from shardwork_coordinator.web.server import build

from .scene import Scene, everything

#: every label there is; none of them is an id
LABELS = {
    *("state", "standing", "version", "python", "kind", "phase", "reason", "outcome", "service", "method", "code", "le")
}
UNITS = ("_msat", "_seconds", "_bytes", "_fds")


async def scraped(scene: Scene) -> dict[tuple[str, str], float]:
    """(sample, label value) -> number."""
    text = (await Metrics(scene.engine).scrape()).decode()
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_page_is_served_as_prometheus_wants_it() -> None:
    scene = await everything()
    transport = httpx.ASGITransport(build(scene.engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9") as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert b"# TYPE shardwork_jobs gauge" in answer.content
    scene.store.close()


async def test_numbers_are_those_of_the_store() -> None:
    scene = await everything()
    found = await scraped(scene)
    assert found["shardwork_jobs", "running"] == 2
    assert found["shardwork_jobs", "paused"] == 1
    assert found["shardwork_workers", "busy"] == 2
    assert found["shardwork_workers", "offline"] == 1
    assert found["shardwork_leases_total", "accepted"] == 2
    assert found["shardwork_owed_msat", ""] == 4_500
    assert found["shardwork_fees_msat_total", ""] == 40
    assert found["shardwork_escrow_msat", ""] == 6 * 55_080 - 4_540
    assert found["shardwork_ledger_balanced", ""] == 1
    assert found["shardwork_ledger_checked_timestamp_seconds", ""] == scene.clock.now_ms() / 1000
    scene.store.close()


async def test_workers_are_counted_by_what_the_operator_lets_them_do() -> None:
    scene = await everything()

    def say(tx: Transaction) -> None:
        workers = [one for one in tx.find(Party, order="id") if "worker" in one.roles.split(",")]
        tx.put(replace(workers[0], standing=Standing.QUARANTINED))
        tx.put(replace(workers[1], standing=Standing.BANNED))
        tx.put(replace(workers[0], id="r", public_key=b"r", roles="requester", standing=Standing.BANNED))

    await scene.store.write(say)
    found = await scraped(scene)
    scene.store.close()
    standings = {label: number for (name, label), number in found.items() if name == "shardwork_worker_standings"}
    workers = sum(number for (name, _), number in found.items() if name == "shardwork_workers")
    assert standings == {"normal": workers - 2, "drained": 0, "quarantined": 1, "banned": 1}


async def test_a_read_that_the_database_cut_short_and_that_is_run_again_tells_each_figure_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = await everything()
    read = scene.engine.store.read

    async def cut_short(work: Callable[[Transaction], object]) -> object:
        await read(work)
        return await read(work)

    monkeypatch.setattr(scene.engine.store, "read", cut_short)
    found = await scraped(scene)
    scene.store.close()
    assert found["shardwork_store_up", ""] == 1 and found["shardwork_jobs", "running"] == 2


async def test_names_follow_the_conventions_and_labels_hold_no_ids() -> None:
    scene = await everything()
    text = (await Metrics(scene.engine).scrape()).decode()
    scene.store.close()
    assert not re.search(r"[0-9a-f]{12}", re.sub(r"^#.*$|[0-9.e+]+$", "", text, flags=re.MULTILINE))
    for family in text_string_to_metric_families(text):
        assert family.name.startswith(("shardwork_", "process_"))
        assert family.documentation
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert set(sample.labels) <= LABELS
        if "msat" in family.name:
            assert family.name.endswith(UNITS)


async def test_an_empty_coordinator_scrapes() -> None:
    scene = Scene()
    found = await scraped(scene)
    assert found["shardwork_events_total", ""] == 0
    assert found["shardwork_ledger_balanced", ""] == 1
    # an alert can be written before the first one happened
    assert found["shardwork_jobs", "paused"] == found["shardwork_shards", "exhausted"] == 0
    assert found["shardwork_leases_total", "rejected"] == found["shardwork_workers", "offline"] == 0
    assert found["shardwork_worker_standings", "quarantined"] == 0
    scene.store.close()


async def test_books_that_do_not_add_up_are_told() -> None:
    scene = await everything()

    def steal(tx: Transaction) -> None:
        account = next(one for one in tx.find(Account) if one.id.startswith("worker:"))
        tx.put(Account(id=account.id, credits_posted=account.credits_posted + 1))

    await scene.store.write(steal)
    assert (await scraped(scene))["shardwork_ledger_balanced", ""] == 0
    scene.store.close()


async def test_the_ledger_is_recounted_once_for_many_scrapes(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, counted = await everything(), 0
    check = ledger.check

    def counting(tx: Transaction) -> ledger.LedgerReport:
        nonlocal counted
        counted += 1
        return check(tx)

    monkeypatch.setattr(ledger, "check", counting)
    metrics = Metrics(scene.engine)
    for _ in range(5):
        await metrics.scrape()
    assert counted == 1
    scene.store.close()


async def test_running_leases_are_no_outcome() -> None:
    scene = await everything()
    leases = await scene.store.read(lambda tx: tx.count(Lease, "state"))
    assert sum(leases.values()) == 2
    names = {label for name, label in await scraped(scene) if name == "shardwork_leases_total"}
    assert names == {"accepted", "rejected", "expired"}
    scene.store.close()


async def test_a_kept_answer_is_computed_again_when_its_time_is_over() -> None:
    now_s, asked = 0.0, 0

    async def compute() -> int:
        nonlocal asked
        asked += 1
        return asked

    kept = Kept(compute, 60.0, seconds=lambda: now_s)
    assert [await kept.get(), await kept.get()] == [1, 1]
    now_s = 60.0
    assert await kept.get() == 2


async def test_a_slow_answer_is_kept_longer() -> None:
    now_s = 0.0

    async def compute() -> float:
        nonlocal now_s
        now_s += 10.0
        return now_s

    kept = Kept(compute, 1.0, seconds=lambda: now_s)
    assert await kept.get() == 10.0
    now_s = 150.0
    assert await kept.get() == 10.0
    now_s = 201.0
    assert await kept.get() == 211.0


async def test_promtool_finds_nothing_to_mend() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; it comes with Debian's package prometheus")
    scene = await everything()
    text = await Metrics(scene.engine, folder=Path("/")).scrape()
    scene.store.close()
    done = await asyncio.to_thread(subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_a_store_that_does_not_answer_leaves_the_rest_of_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = await everything()

    def away(work: object) -> None:
        raise Unreachable("store.unreachable", "The database does not answer.")

    monkeypatch.setattr(scene.engine.store, "read", away)
    found = await scraped(scene)
    scene.store.close()
    assert found["shardwork_store_up", ""] == 0
    assert found["shardwork_workers_attached", ""] == 3
    assert not {"shardwork_jobs", "shardwork_ledger_balanced", "shardwork_escrow_msat"} & {name for name, _ in found}


async def test_scrapes_within_seconds_read_the_store_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, looks = await everything(), 0
    read = scene.engine.store.read

    def counting(work: Callable[[Transaction], object]) -> Awaitable[object]:
        nonlocal looks
        looks += 1
        return read(work)

    monkeypatch.setattr(scene.engine.store, "read", counting)
    metrics = Metrics(scene.engine)
    for _ in range(5):
        await metrics.scrape()
    scene.store.close()
    # the ledger's count, and one look
    assert looks == 2


async def test_what_takes_long_goes_on_beside_once_and_is_had_later() -> None:
    begun, finish = 0, asyncio.Event()

    async def compute() -> int:
        nonlocal begun
        begun += 1
        await finish.wait()
        return begun

    beside = Beside(Kept(compute, 0.0, seconds=lambda: 0.0), "store")
    assert [await beside.get(0), await beside.get(0)] == [False, False]
    finish.set()
    assert all(await asyncio.gather(beside.get(1), beside.get(1)))
    assert (beside.latest, begun) == (1, 1)
    finish.clear()
    # another is begun, and the last answer stays until it ends
    assert (await beside.get(0), beside.latest) == (False, 1)
    finish.set()
    assert (await beside.get(1), beside.latest) == (True, 2)


async def test_one_that_fails_leaves_no_answer() -> None:
    async def compute() -> int:
        raise Unreachable("store.unreachable", "Away.")

    beside = Beside(Kept(compute, 0.0, seconds=lambda: 0.0), "store")
    beside.latest = 7
    assert not await beside.get(1)
    assert beside.latest is None
