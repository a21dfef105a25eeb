"""First paint and weight of every page of the dashboard with 10,000 shards in one phase, 1,000 workers and 1,000 jobs.

    python bench/pages.py          # writes bench/results/pages.json; Chromium and Playwright draw, if they are there

The real store on disk (SQLite), the real web server on loopback, a signed-in operator. `server_ms` is the whole answer
over HTTP, a median of several; `first_paint_ms` what a fresh Chromium says of the first content on the screen, and
`kilobytes` all that it fetched for it, nothing from a cache. The raw limit in the same run is a page without figures of
the same server (the sign-in page). Aims: 200 ms and 300 kB.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from bench.scale import JOBS, ROUNDS, fill
from bench.scrape import WORKERS, enrol
from shardwork_coordinator.accounts import sessions
from shardwork_coordinator.records import Lease, ReplicaState, Shard, WebRole, WebUser
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store import SqlStore
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.tls import Authority
from shardwork_coordinator.web import serve_web
from shardwork_coordinator.web.server import Site
from tests.coordinator.simulation import Simulation

RESULTS = Path(__file__).parent / "results" / "pages.json"
CALLS = 9
LEASES = 5_000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
PAGES = ("/", "/overview", "/jobs", "/jobs?state=retrying", "/jobs?state=waiting", "/jobs/{job}", "/jobs/{job}/log")
PAGES += ("/jobs/{job}/shards/{shard}", "/workers", "/workers/{worker}", "/artifacts", "/money", "/money/payments")
PAGES += ("/money/accounts/worker:{worker}", "/policy", "/audit", "/users", "/account")


def one_phase(tx: Transaction, large: str) -> str:
    """All shards of the large job in the phase that is open, and thousands of attempts that ended; a shard's id."""
    open_ = tx.find(Shard, job_id=large, phase="learn", order="position")
    for copy in range(1, ROUNDS):
        for shard in open_:
            position = shard.position + copy * len(open_)
            tx.put(replace(shard, id=f"{shard.id.rpartition('/s')[0]}/s{position}", position=position))
    for number in range(LEASES):
        state = ReplicaState.ACCEPTED if number % 20 else ReplicaState.EXPIRED
        tx.put(
            Lease(
                id=f"bench/{number}",
                job_id=large,
                shard_id=open_[number % len(open_)].id,
                replica=0,
                epoch=number,
                worker_id=f"worker{number % WORKERS:010d}",
                phase="learn",
                state=state,
                granted_ms=number,
                ended_ms=number + 1_000,
                paid_msat=1_000 if number % 20 else 0,
                work_units=10**9,
            )
        )
    return open_[0].id


def sign_in(tx: Transaction, now_ms: int) -> str:
    tx.put(WebUser(name="ada", role=WebRole.OPERATOR, password_hash="", created_ms=now_ms))
    return sessions.begin(tx, "ada", now_ms).text


async def answered(client: httpx.AsyncClient, path: str) -> dict[str, float]:
    found: list[float] = []
    answer = await client.get(path)
    if answer.status_code == 404:
        return {}
    for _ in range(CALLS):
        start = time.perf_counter()
        answer = await client.get(path)
        found.append((time.perf_counter() - start) * 1000)
        answer.raise_for_status()
    return {"server_ms": round(statistics.median(found), 1), "server_most_ms": round(max(found), 1)}


async def painted(web: str, cookie: tuple[str, str], paths: list[str]) -> dict[str, dict[str, float]]:
    """As Chromium says; empty where it or Playwright is missing."""
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        return {}
    if CHROMIUM is None:
        return {}
    found: dict[str, dict[str, float]] = {}
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for path in paths:
            paints: list[float] = []
            weight = 0.0
            for _ in range(5):
                context = await browser.new_context(viewport={"width": 1280, "height": 900})
                await context.add_cookies([{"name": cookie[0], "value": cookie[1], "url": web}])
                page = await context.new_page()
                await page.goto(web + path, wait_until="load")
                timing: dict[str, float] = await page.evaluate(MEASURE)
                paints.append(timing["paint"])
                weight = timing["bytes"] / 1000
                await context.close()
            found[path] = {"first_paint_ms": round(statistics.median(paints), 1), "kilobytes": round(weight, 1)}
        await browser.close()
    return found


MEASURE = """async () => {
  for (let tries = 0; tries < 100 && !performance.getEntriesByName("first-contentful-paint").length; tries += 1)
    await new Promise((done) => setTimeout(done, 20));
  const files = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  return {
    paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
    bytes: files.reduce((sum, one) => sum + one.transferSize, 0),
  };
}"""


async def measure(folder: Path) -> dict[str, Any]:
    store = SqlStore(f"sqlite:///{folder / 'coordinator.db'}")
    simulation = Simulation(workers=WORKERS, store=store)
    large = await fill(simulation)
    await store.write(enrol)
    shard = await store.write(lambda tx: one_phase(tx, large))
    now_ms = simulation.engine.clock.now_ms()
    secret = await store.write(lambda tx: sign_in(tx, now_ms))
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    names = {"job": large, "shard": shard.removeprefix(f"{large}/"), "worker": "worker0000000007"}
    paths = [path.format(**names) for path in PAGES]
    site = Site(settings=Settings(data_dir=folder))
    async with serve_web(site, simulation.engine, Authority.load_or_create(keys)) as address:
        cookie = (f"shardwork_{address.url.rpartition(':')[2]}", secret)
        async with httpx.AsyncClient(base_url=address.url, cookies=dict([cookie]), timeout=60) as client:
            await client.get("/login")
            served = {path: await answered(client, path) for path in paths}
            empty = await answered(httpx.AsyncClient(base_url=address.url), "/login")
        shown = [path for path in paths if served[path]]
        drawn = await painted(address.url, cookie, shown)
        empty |= (await painted(address.url, ("nobody", "x"), ["/login"])).get("/login", {})
    store.close()
    pages = {path.replace(large, "JOB"): served[path] | drawn.get(path, {}) for path in shown}
    return {
        "jobs": JOBS,
        "workers": WORKERS,
        "shards_in_the_phase": 10_000,
        "cores": os.cpu_count(),
        "raw": empty,
        "pages": pages,
        "worst_first_paint_ms": max((one.get("first_paint_ms", 0.0) for one in pages.values()), default=0.0),
        "most_kilobytes": max((one.get("kilobytes", 0.0) for one in pages.values()), default=0.0),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        found = asyncio.run(measure(Path(folder)))
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
