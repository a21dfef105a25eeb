# pyright: standard
"""Workers in the dashboard and the public page, in a real Chromium against a real coordinator and a real worker.

Runs where Playwright and a chromium binary are found; elsewhere it is skipped with the reason. With SHARDWORK_SHOTS set
to a folder, the screenshots that were looked at are left there.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import BIN

from .chromium import MISSING, Watched, check_axe
from .test_browser import WIDTHS, submit
from .world import World

PASSWORD = "correct horse battery"
PAGES = ("/workers", "/workers/{worker}", "/")

pytestmark = [pytest.mark.nightly, MISSING]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A coordinator with a user, a worker that did a job, and nobody else."""
    found = World(tmp_path_factory.mktemp("world"))
    try:
        found.start("alice", sats=1_000)
        submit(found, "words")
        job = found.ask("job", "list")["jobs"][0]["id"]
        found.finish(job)
        operate(found, "user", "add", "ada", "--password-file", "-", given=PASSWORD)
        yield found
    finally:
        found.stop()


def operate(world: World, *arguments: str, given: str = "") -> str:
    """`shardwork-coordinator ARGUMENTS` beside the one that serves."""
    done = subprocess.run(
        [str(BIN / "shardwork-coordinator"), *arguments, "--data-dir", str(world.folder / "coordinator")],
        env=world.processes.environment("coordinator-home"),
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def worker_id(world: World) -> str:
    return operate(world, "worker", "list").split()[0]


def context(browser: Any, *, width: int = 1280, scheme: str = "light", scripts: bool = True) -> Any:
    size = {"width": width, "height": 900}
    return browser.new_context(viewport=size, color_scheme=scheme, java_script_enabled=scripts)


def sign_in(page: Any, world: World) -> None:
    page.goto(f"{world.processes.web}/login")
    page.fill("[name=name]", "ada")
    page.fill("[name=password]", PASSWORD)
    page.press("[name=password]", "Enter")
    page.wait_for_url("**/overview")


@pytest.fixture(scope="module")
def page(browser: Any, world: World) -> Iterator[Watched]:
    opened = context(browser)
    watched = Watched(opened.new_page())
    sign_in(watched.page, world)
    yield watched
    opened.close()


def decide(page: Any, label: str, reason: str) -> None:
    """As a person with a keyboard does it."""
    page.locator("details.deed > summary", has_text=label).focus()
    page.keyboard.press("Enter")
    page.locator("details.deed[open] input[name=reason]").fill(reason)
    with page.expect_navigation():
        page.keyboard.press("Enter")


def test_a_worker_is_found_drained_and_restored_and_hears_of_it(page: Watched, world: World) -> None:
    page.page.goto(f"{world.processes.web}/workers")
    page.page.fill("[name=q]", "ali")
    page.page.press("[name=q]", "Enter")
    page.wait_for("document.querySelectorAll('.roster tbody tr').length === 1")
    page.page.click("text=alice")
    page.wait_for("document.documentElement?.dataset.connection === 'live'")
    text = page.page.inner_text("main")
    assert "passed its checks" in text and "Tokens/s" in text and "100 %" in text
    decide(page.page, "Drain", "maintenance at noon")
    assert "is drained: it finishes what it holds" in page.page.inner_text(".said")
    assert "Reason: maintenance at noon" in page.page.inner_text(".standing")
    world.until(lambda: "drains" in str(world.worker("alice").get("why")), "the worker to hear of it")
    decide(page.page, "Restore", "done")
    assert page.page.locator(".standing").count() == 0
    world.until(lambda: "drains" not in str(world.worker("alice").get("why")), "the worker to hear of it")


def test_a_form_without_a_reason_stays_and_an_open_one_is_not_swapped_away(page: Watched, world: World) -> None:
    page.page.goto(f"{world.processes.web}/workers/{worker_id(world)}")
    page.wait_for("document.documentElement?.dataset.connection === 'live'")
    page.page.locator("details.deed > summary", has_text="Quarantine").click()
    page.page.locator("details.deed[open] button").click()
    page.page.locator("details.deed[open] input[name=reason]").fill("half a wo")
    operate(world, "worker", "reference", worker_id(world), "--reason", "something changes meanwhile")
    page.page.wait_for_timeout(4_000)
    assert page.page.input_value("details.deed[open] input[name=reason]") == "half a wo"
    assert page.page.locator(".standing").count() == 0, "nothing was done without a reason"


def test_a_banned_worker_goes_without_a_reload(page: Watched, world: World) -> None:
    page.page.goto(f"{world.processes.web}/workers/{worker_id(world)}")
    decide(page.page, "Ban", "wrong results")
    page.wait_for("document.querySelector('h1 ~ .state').innerText === 'offline'")
    world.until(lambda: "revoked" in str(world.worker("alice").get("why")), "the worker to be refused")
    decide(page.page, "Restore", "it was another one")
    page.wait_for("document.querySelector('h1 ~ .state').innerText === 'ready'", 60)
    page.check_quiet(world.processes.web)


@pytest.mark.parametrize("path", PAGES)
def test_pages_fit_small_and_dark_screens(browser: Any, world: World, path: str, tmp_path: Path) -> None:
    shots = Path(os.environ.get("SHARDWORK_SHOTS", tmp_path))
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            opened = context(browser, width=width, scheme=scheme)
            watched = Watched(opened.new_page())
            sign_in(watched.page, world)
            watched.page.goto(world.processes.web + path.format(worker=worker_id(world)))
            watched.wait_for("document.documentElement?.dataset.connection === 'live'")
            assert watched.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert watched.page.evaluate("document.querySelectorAll('[style], style, main script').length") == 0
            check_axe(watched.page)
            name = path.format(worker="ID").strip("/").replace("/", "-") or "public"
            watched.page.screenshot(path=shots / f"{name}-{width}-{scheme}.png", full_page=True)
            assert watched.noise == []
            opened.close()


def test_the_public_page_reads_without_scripts_or_login(browser: Any, world: World) -> None:
    opened = context(browser, scripts=False)
    plain = opened.new_page()
    plain.goto(world.processes.web)
    text = plain.inner_text("main")
    assert f"shardwork-worker start {world.processes.join}" in text
    assert "Payments are simulated" in text and "alice" not in text, text
    assert "not enough data" in text, text
    plain.click("text=Sign in")
    assert plain.url.endswith("/login")
    opened.close()
