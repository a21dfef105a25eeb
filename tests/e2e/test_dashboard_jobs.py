# pyright: standard
"""The dashboard in a real Chromium against a real coordinator: signing in, jobs, a job, its shards, and what is done
there; desktop and phone, light and dark, by keyboard, and without a serious finding of axe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .chromium import MISSING, PASSWORD, Watched, check_axe, first_operator
from .models import write_gpt2
from .world import World

pytestmark = [pytest.mark.nightly, MISSING]

#: where screenshots are kept; nowhere by default
SHOTS = os.environ.get("SHARDWORK_SHOTS", "")
SIZES = ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"))
JOB = """
name: tutor
base_model: ./base
data: rows.jsonl
eval_fraction: 0.2
recipe: sft
params: {method: lora, rank: 4, max_length: 64}
plan: {rounds: 3, shards_per_round: 4, inner_steps: 4}
trust: {class: public}
budget: {max_sats: 500}
"""


@pytest.fixture(scope="module")
def stand(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Any, str]]:
    """A coordinator on which a job has learned, an operator's browser state, and the job's id."""
    world = World(tmp_path_factory.mktemp("dashboard"))
    try:
        world.start("alice", "bob", sats=2_000)
        write_gpt2(world.folder / "base")
        rows = "".join(f'{{"prompt": "say {n}", "completion": "well, {n} it is"}}\n' for n in range(200))
        (world.folder / "rows.jsonl").write_text(rows, encoding="utf-8")
        (world.folder / "job.yaml").write_text(JOB, encoding="utf-8")
        job = world.submit("job.yaml")
        world.finish(job)
        yield world, first_operator(browser, world.processes.setup), job
    finally:
        world.stop()


def opened(browser: Any, stand: tuple[World, Any, str], path: str, width: int = 1280, scheme: str = "light") -> Watched:
    world, state, _ = stand
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, storage_state=state)
    watched = Watched(context.new_page())
    watched.page.goto(world.processes.web + path)
    watched.wait_for("document.documentElement?.dataset.connection === 'live'")
    return watched


def paths(job: str) -> dict[str, str]:
    return {
        "overview": "/overview",
        "jobs": "/jobs",
        "job": f"/jobs/{job}",
        "log": f"/jobs/{job}/log",
        "shard": f"/jobs/{job}/shards/sft/r1/learn/s0",
        "users": "/users",
        "account": "/account",
    }


@pytest.mark.parametrize("name", ["overview", "jobs", "job", "log", "shard", "users", "account"])
def test_each_page_fits_is_quiet_and_accessible(browser: Any, stand: tuple[World, Any, str], name: str) -> None:
    world, _, job = stand
    for width, scheme in SIZES:
        seen = opened(browser, stand, paths(job)[name], width, scheme)
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, scheme)
        assert seen.page.evaluate("document.querySelectorAll('[onclick], main script').length") == 0
        seen.page.wait_for_timeout(300)
        check_axe(seen.page)
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            seen.page.screenshot(path=f"{SHOTS}/dashboard-{name}-{width}-{scheme}.png", full_page=width > 400)
        seen.check_quiet(world.processes.web)
        seen.page.context.close()


def test_a_job_draws_its_curves_and_its_shards(browser: Any, stand: tuple[World, Any, str]) -> None:
    _, _, job = stand
    seen = opened(browser, stand, f"/jobs/{job}?stage=sft&round=1")
    seen.wait_for("document.querySelectorAll('.chart canvas').length >= 3")
    seen.wait_for("document.querySelector('canvas.grid').height > 0")
    assert "4 done" in seen.page.get_attribute("canvas.grid", "aria-label")
    seen.page.hover("canvas.grid", position={"x": 3, "y": 3})
    assert seen.page.inner_text("#pointed") == "shard 0: done"
    seen.page.click("canvas.grid", position={"x": 3, "y": 3})
    seen.page.wait_for_url("**/shards/sft/r1/learn/s0")
    assert "Made, as accepted" in seen.page.inner_text("main")


def test_the_curves_follow_dark_and_light(browser: Any, stand: tuple[World, Any, str]) -> None:
    _, _, job = stand
    seen = opened(browser, stand, f"/jobs/{job}")
    seen.wait_for("document.querySelectorAll('.chart canvas').length >= 3")
    pixels = "document.querySelector('.chart canvas').toDataURL()"
    before = seen.page.evaluate(pixels)
    seen.page.emulate_media(color_scheme="dark")
    seen.wait_for("document.querySelectorAll('.chart canvas').length >= 3")
    seen.page.wait_for_timeout(300)
    assert seen.page.evaluate(pixels) != before
    assert seen.noise == []


def test_a_job_is_paused_and_resumed_by_keyboard(browser: Any, stand: tuple[World, Any, str]) -> None:
    world, _, _ = stand
    long = JOB.replace("rounds: 3", "rounds: 40").replace("name: tutor", "name: long")
    (world.folder / "long.yaml").write_text(long, encoding="utf-8")
    job = world.submit("long.yaml")
    seen = opened(browser, stand, f"/jobs/{job}")
    for step, state in (("Pause", "paused"), ("Resume", "running"), ("Cancel", "cancelled")):
        seen.page.focus(f"summary:text-is('{step}…')")
        seen.page.keyboard.press("Enter")
        seen.page.keyboard.press("Tab")
        seen.page.keyboard.type("because of a test")
        # a commit must not take away what somebody is writing
        seen.page.wait_for_timeout(2_500)
        assert seen.page.input_value("details[open] input[name=reason]") == "because of a test"
        with seen.page.expect_navigation():
            seen.page.keyboard.press("Enter")
        seen.wait_for(f"document.querySelector('.titled .state')?.innerText === '{state}'")
        assert seen.page.inner_text(".said") == f"Job {job} was {state if step != 'Resume' else 'resumed'}."
    assert world.job_state(job) == "cancelled"
    seen.check_quiet(world.processes.web)


def test_a_page_follows_the_job_without_a_reload(browser: Any, stand: tuple[World, Any, str]) -> None:
    world, _, _ = stand
    job = world.submit("job.yaml")
    seen = opened(browser, stand, f"/jobs/{job}")
    seen.page.evaluate("window.same = true; window.swaps = 0")
    seen.page.evaluate("document.addEventListener('htmx:afterSwap', () => { window.swaps += 1; })")
    seen.page.focus("#steps summary:text-is('Clone…')")
    seen.wait_for("window.swaps > 2", 90)
    assert seen.page.evaluate("document.activeElement.innerText") == "Clone…", "what did not change keeps the focus"
    seen.wait_for(
        "document.querySelector('#attempts') && document.querySelector('main').innerText.includes('accepted')", 90
    )
    seen.wait_for("[...document.querySelectorAll('#live .state')].some((one) => one.innerText === 'merged')", 90)
    assert seen.page.inner_text("#steps").startswith("Pause")
    seen.wait_for("document.querySelector('#titled .state').innerText === 'succeeded'", 90)
    seen.wait_for("document.querySelector('#steps').innerText.startsWith('Clone')")
    assert seen.page.evaluate("window.same") is True
    seen.check_quiet(world.processes.web)


def test_signing_in_and_out_with_wrong_and_right_words(browser: Any, stand: tuple[World, Any, str]) -> None:
    world, _, job = stand
    context = browser.new_context(viewport={"width": 390, "height": 800})
    seen = Watched(context.new_page())
    seen.page.goto(f"{world.processes.web}/jobs/{job}")
    assert "/login?next=" in seen.page.url
    seen.page.fill("input[name=name]", "ada")
    seen.page.fill("input[name=password]", "wrong words here")
    seen.page.click("main button")
    assert "Name, password or code is wrong." in seen.page.inner_text("[role=alert]")
    check_axe(seen.page)
    seen.page.fill("input[name=password]", PASSWORD)
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_url(f"**/jobs/{job}")
    seen.page.click("text=Sign out")
    seen.page.wait_for_url("**/login")
    seen.page.go_back()
    seen.page.reload()
    assert "/login" in seen.page.url
