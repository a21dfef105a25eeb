# pyright: standard
"""Jobs of alignment on the dashboard in a real Chromium: people, the loop, the report, and answers side by side; on a
desktop and a phone, light and dark, by keyboard, quiet, and without a serious finding of axe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from shardwork_coordinator.accounts import sessions
from shardwork_coordinator.records import WebRole, WebUser
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.web.server import Site, build

from ..coordinator.people.stand import JOB as ASKED
from ..coordinator.people.stand import Stand, always_first, looks, person, rows, standing
from ..coordinator.web.alignment_scene import aligned
from ..coordinator.web.scene import Scene
from .chromium import MISSING, Watched, check_axe

pytestmark = [pytest.mark.nightly, MISSING]

#: where screenshots are kept; nowhere by default
SHOTS = os.environ.get("SHARDWORK_SHOTS", "")
SIZES = ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"))


@dataclass(frozen=True)
class Place:
    """A dashboard with one job: its address, the cookie of an operator, and the job."""

    web: str
    cookie: str
    job: str
    stand: Stand | None = None


@contextlib.asynccontextmanager
async def asked(folder: Path) -> AsyncGenerator[tuple[Any, Any, str, Stand | None], None]:
    """Two who look and one who does not have judged some items, and others are left."""
    async with standing(folder) as stand:
        await stand.submit(rows(12, 30), overlap=2)
        for number, answers in ((1, looks), (2, looks), (3, always_first)):
            one = person(stand, number, answers)
            await one.join()
            await one.work(20)
        yield stand.engine, stand.desk.items._contents, ASKED, stand


@contextlib.asynccontextmanager
async def looped(folder: Path) -> AsyncGenerator[tuple[Any, Any, str, Stand | None], None]:
    scene = Scene()
    job, contents = await aligned(scene, folder)
    yield scene.engine, contents, job, None


def served(scene: Any, folder: Path) -> Generator[Place, None, None]:
    """From a thread with a loop of its own, as long as it is used."""
    found: list[Place] = []
    over = threading.Event()

    async def run() -> None:
        async with scene(folder) as (engine, contents, job, stand):

            def begin(tx: Transaction) -> str:
                tx.insert(WebUser(name="ada", role=WebRole.OPERATOR, password_hash="", created_ms=1))
                return sessions.begin(tx, "ada", engine.clock.now_ms()).text

            cookie = await engine.store.write(begin)
            config = uvicorn.Config(
                build(engine, Site(contents=contents)), host="127.0.0.1", port=0, log_level="warning", lifespan="off"
            )
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            found.append(Place(f"http://127.0.0.1:{port}", cookie, job, stand))
            while not over.is_set():
                await asyncio.sleep(0.05)
            server.force_exit = server.should_exit = True
            await task

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    while not found and thread.is_alive():
        time.sleep(0.02)
    yield found[0]
    over.set()
    thread.join(20)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from served(asked, tmp_path_factory.mktemp("asked"))


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from served(looped, tmp_path_factory.mktemp("looped"))


def opened(browser: Any, place: Place, path: str, width: int = 1280, scheme: str = "light") -> Watched:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.add_cookies([{"name": "shardwork_0", "value": place.cookie, "url": place.web}])
    seen = Watched(context.new_page())
    seen.page.goto(place.web + path)
    seen.wait_for("document.documentElement?.dataset.connection === 'live'")
    return seen


def looked_at(browser: Any, place: Place, name: str, path: str) -> None:
    for width, scheme in SIZES:
        seen = opened(browser, place, path, width, scheme)
        seen.page.wait_for_timeout(300)
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            seen.page.screenshot(path=f"{SHOTS}/alignment-{name}-{width}-{scheme}.png", full_page=True)
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, scheme)
        assert seen.page.evaluate("document.querySelectorAll('[onclick], main script, main img').length") == 0
        check_axe(seen.page)
        seen.check_quiet(place.web)
        seen.page.context.close()


def test_a_stage_of_people_fits_is_quiet_and_accessible(browser: Any, people: Place) -> None:
    looked_at(browser, people, "people", f"/jobs/{people.job}")


def test_a_loop_fits_is_quiet_and_accessible(browser: Any, loop: Place) -> None:
    looked_at(browser, loop, "loop", f"/jobs/{loop.job}")


@pytest.mark.parametrize(
    ("name", "path"), [("versions", "answers-1.rows?beside=after.rows"), ("pairs", "votes-1.rows")]
)
def test_answers_side_by_side_fit_are_quiet_and_accessible(browser: Any, loop: Place, name: str, path: str) -> None:
    looked_at(browser, loop, name, f"/jobs/{loop.job}/samples/{path}")


def test_answers_are_searched_by_keyboard_and_read_on(browser: Any, loop: Place) -> None:
    seen = opened(browser, loop, f"/jobs/{loop.job}")
    seen.page.click("a:text-is('read side by side')")
    seen.page.wait_for_selector(".sample")
    assert seen.page.locator(".sample").count() == 20
    seen.page.click("a[rel=next]")
    seen.page.wait_for_url("**at=*")
    seen.page.focus("input[name=q]")
    seen.page.keyboard.type("about 44")
    with seen.page.expect_navigation():
        seen.page.keyboard.press("Enter")
    assert seen.page.locator(".sample").count() == 1
    assert "first says 44" in seen.page.inner_text(".answers")
    seen.check_quiet(loop.web)


def test_somebody_is_shut_out_from_the_panel_by_keyboard(browser: Any, people: Place) -> None:
    assert people.stand is not None
    shut_out = person(people.stand, 2).id
    seen = opened(browser, people, f"/jobs/{people.job}")
    seen.page.focus(f"#do-Ban-ask-{shut_out}")
    seen.page.keyboard.press("Enter")
    seen.page.keyboard.press("Tab")
    seen.page.keyboard.type("sold its key")
    with seen.page.expect_navigation():
        seen.page.keyboard.press("Enter")
    assert "banned" in seen.page.inner_text(".said")
    seen.page.goto(f"{people.web}/jobs/{people.job}")
    assert seen.page.locator("tr", has_text=shut_out).locator(".state.banned").count() == 1
    seen.page.goto(f"{people.web}/audit")
    assert "sold its key" in seen.page.inner_text("main")
    seen.check_quiet(people.web)
