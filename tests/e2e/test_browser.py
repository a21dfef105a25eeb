# pyright: standard
"""The overview page in a real Chromium against a real coordinator: live, quiet in the console, mending itself.

Runs where Playwright and a chromium binary are found; elsewhere it is skipped with the reason.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .chromium import MISSING, Watched, first_operator
from .world import World

HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>"
WIDTHS = (1280, 390)
JOB = """
name: {name}
recipe: count
data: text.txt
plan: {{shards_per_round: 2}}
trust: {{class: public}}
budget: {{max_sats: 100}}
"""

#: folder of a world -> the state of a browser that is signed in there
SIGNED_IN: dict[Path, Any] = {}

pytestmark = [pytest.mark.nightly, MISSING]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A coordinator whose page keeps its port over a restart."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = World(tmp_path, {"SHARDWORK_WEB": f"127.0.0.1:{port}"})
    try:
        yield found
    finally:
        found.stop()


def submit(world: World, name: str) -> None:
    (world.folder / "text.txt").write_text("one two two\n" * 50, encoding="utf-8")
    quoted = name.replace("'", "''")
    (world.folder / "job.yaml").write_text(JOB.format(name=f"'{quoted}'"), encoding="utf-8")
    said = world.run("job", "submit", "job.yaml", "--yes", "--json")
    assert said.exit_code == 0, said.stderr


def opened(browser: Any, world: World, *, width: int = 1280, scheme: str = "light") -> Watched:
    if world.folder not in SIGNED_IN:
        SIGNED_IN[world.folder] = first_operator(browser, world.processes.setup)
    state = SIGNED_IN[world.folder]
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, storage_state=state)
    watched = Watched(context.new_page())
    watched.page.goto(f"{world.processes.web}/overview")
    watched.wait_for("document.documentElement?.dataset.connection === 'live'")
    return watched


def test_the_page_is_live_quiet_and_keeps_to_itself(browser: Any, world: World) -> None:
    world.start(sats=1_000)
    seen = opened(browser, world)
    assert "No job yet." in seen.page.inner_text("main")
    submit(world, HOSTILE[:60])
    seen.wait_for("document.querySelectorAll('.job').length === 1")
    # nobody is there to work: the reason stands on the page without a reload
    seen.wait_for("document.querySelector('.job .why').innerText.length > 10")
    world.processes.start_worker("alice")
    seen.wait_for("document.querySelector('.job').classList.contains('succeeded')", 60)
    assert seen.page.inner_text("h3") == HOSTILE[:60]
    assert seen.page.title() == "Overview · Shardwork"
    assert seen.page.evaluate("document.querySelectorAll('[style], style, main script').length") == 0
    seen.check_quiet(world.processes.web)


def test_the_page_fits_small_and_dark_screens(browser: Any, world: World) -> None:
    world.start("alice", sats=1_000)
    submit(world, "a-name-without-a-place-to-break-" * 2)
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            seen = opened(browser, world, width=width, scheme=scheme)
            assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            dark = seen.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(246, 247, 249)"
            assert dark == (scheme == "dark")
            seen.page.context.close()


def test_the_focus_survives_a_swap_and_is_visible(browser: Any, world: World) -> None:
    world.start("alice", sats=1_000)
    submit(world, "first")
    seen = opened(browser, world)
    seen.wait_for("document.querySelector('.job.succeeded') !== null", 60)
    seen.page.focus(".events a")
    seen.page.keyboard.press("Tab")
    focused = seen.page.evaluate("document.activeElement.id")
    assert focused.startswith("event-")
    assert seen.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    seen.page.evaluate("window.before = document.querySelector('.events')")
    submit(world, "second")
    seen.wait_for("document.querySelector('.events') !== window.before")
    # by then the focused line may have left the list; while it is there it keeps the focus
    if seen.page.evaluate(f"document.getElementById('{focused}') !== null"):
        assert seen.page.evaluate("document.activeElement.id") == focused


def test_a_lost_coordinator_is_said_and_found_again(browser: Any, world: World) -> None:
    world.start(sats=1_000)
    seen = opened(browser, world, width=390)
    top = "document.querySelector('main').getBoundingClientRect().top"
    before = seen.page.evaluate(top)
    world.processes.kill("coordinator")
    seen.wait_for("document.documentElement?.dataset.connection === 'lost'", 20)
    assert seen.page.evaluate(top) == pytest.approx(before, abs=1)
    assert seen.page.inner_text("#connection").startswith("Reconnecting. This is from ")
    world.start_coordinator()
    seen.wait_for("document.documentElement?.dataset.connection === 'live'", 30)
    submit(world, "after the restart")
    seen.wait_for("document.querySelector('h3')?.innerText === 'after the restart'")


def test_a_connection_that_dies_without_a_word_is_noticed(browser: Any, world: World) -> None:
    world.start()
    seen = opened(browser, world)
    pid = world.processes._running["coordinator"].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        seen.wait_for("document.documentElement?.dataset.connection === 'lost'", 30)
    finally:
        os.kill(pid, signal.SIGCONT)
    seen.wait_for("document.documentElement?.dataset.connection === 'live'", 60)
    assert seen.page.inner_text("#connection") == "Live"
