"""An hour with two open pages of the dashboard and 50 events a second: does memory stay flat, on both sides?

    python bench/soak.py [--minutes 60]          # writes bench/results/soak.json; needs Chromium and Playwright

The real store on disk (SQLite), the real web server on loopback, one page on the overview (its own stream), one on a
running job (the pulse). Sampled every 30 s: resident memory of the server's process, and of each page the JavaScript
heap after a collection, DOM nodes and listeners. Flat means: the median of the last third is at most a tenth above
that of the second third. The console must have stayed silent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.pages import CHROMIUM, FLAGS, sign_in
from shardwork_coordinator.records import Event
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store import SqlStore
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.tls import Authority
from shardwork_coordinator.web import serve_web
from shardwork_coordinator.web.server import Site
from tests.coordinator.simulation import Simulation, count_job

RESULTS = Path(__file__).parent / "results" / "soak.json"
EVENTS_PER_S = 50
SAMPLE_S = 30.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


COUNT_SWAPS = "window.swaps = 0; document.addEventListener('htmx:afterSwap', () => { window.swaps += 1; });"


async def speak(simulation: Simulation, job: str, until_s: float) -> int:
    """Commits events at the given pace; how many."""
    engine, told, began = simulation.engine, 0, time.monotonic()
    while time.monotonic() < until_s:
        number = told

        def work(tx: Transaction, number: int = number) -> None:
            sentence = f"learn shard {number} went to worker {number % 16:016x}."
            tx.insert(
                Event(job_id=job, at_ms=engine.clock.now_ms(), kind="shard.leased", subject=job, sentence=sentence)
            )

        await engine.store.write(work)
        engine.after_commit(())
        told += 1
        await asyncio.sleep(max(began + told / EVENTS_PER_S - time.monotonic(), 0))
    return told


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


async def sample(sessions: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"server_mb": round(resident_mb(), 1), "pages": []}
    for session in sessions:
        await session.send("HeapProfiler.collectGarbage")
        metrics = {one["name"]: one["value"] for one in (await session.send("Performance.getMetrics"))["metrics"]}
        found["pages"].append(
            {
                "heap_mb": round(metrics["JSHeapUsedSize"] / 1e6, 2),
                "nodes": int(metrics["Nodes"]),
                "listeners": int(metrics["JSEventListeners"]),
            }
        )
    return found


def flat(values: Sequence[float]) -> dict[str, Any]:
    third = max(len(values) // 3, 1)
    middle, last = statistics.median(values[third : 2 * third] or values), statistics.median(values[-third:])
    return {"second_third": middle, "last_third": last, "flat": last <= middle * 1.1}


async def measure(folder: Path, minutes: float) -> dict[str, Any]:
    from playwright.async_api import async_playwright

    store = SqlStore(f"sqlite:///{folder / 'coordinator.db'}")
    simulation = Simulation(workers=16, store=store)
    job = await simulation.submit(count_job(parts=400))
    secret = await store.write(lambda tx: sign_in(tx, simulation.engine.clock.now_ms()))
    (folder / "keys").mkdir(mode=0o700)
    samples: list[dict[str, Any]] = []
    noise: list[str] = []
    authority = Authority.load_or_create(folder / "keys")
    async with (
        serve_web(Site(settings=Settings(data_dir=folder)), simulation.engine, authority) as address,
        async_playwright() as driver,
    ):
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        context = await browser.new_context()
        cookie = f"shardwork_{address.url.rpartition(':')[2]}"
        await context.add_cookies([{"name": cookie, "value": secret, "url": address.url}])
        sessions: list[Any] = []
        for path in ("/overview", f"/jobs/{job}"):
            page = await context.new_page()
            await page.add_init_script(COUNT_SWAPS)
            page.on("console", lambda said: noise.append(said.text))
            page.on("pageerror", lambda error: noise.append(str(error)))
            await page.goto(address.url + path)
            session = await context.new_cdp_session(page)
            await session.send("Performance.enable")
            sessions.append(session)
        until_s = time.monotonic() + minutes * 60
        speaking = asyncio.create_task(speak(simulation, job, until_s))
        while time.monotonic() < until_s:
            await asyncio.sleep(min(SAMPLE_S, max(until_s - time.monotonic(), 0.1)))
            samples.append(await sample(sessions))
        told = await speaking
        swaps = [await page.evaluate("window.swaps") for page in context.pages]
        live = [await page.evaluate("document.documentElement.dataset.connection") for page in context.pages]
        await browser.close()
    store.close()
    return {
        "minutes": minutes,
        "events": told,
        "events_per_s": round(told / (minutes * 60), 1),
        "connections_at_the_end": live,
        "swaps": swaps,
        "console": noise,
        "server_mb": flat([one["server_mb"] for one in samples]),
        "overview_heap_mb": flat([one["pages"][0]["heap_mb"] for one in samples]),
        "job_heap_mb": flat([one["pages"][1]["heap_mb"] for one in samples]),
        "samples": samples[:: max(len(samples) // 20, 1)],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), minutes))
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
