# pyright: standard
"""The pages of money, artifacts, policy and audit in a real Chromium over a real job: they fit every screen, are quiet
in the console, and their forms do what they say.

Runs where Playwright and a chromium binary are found; elsewhere it is skipped with the reason. SCREENSHOTS=FOLDER
leaves there what it saw.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import BIN

from .chromium import MISSING, PASSWORD, check_axe
from .world import World

SCREENSHOTS = os.environ.get("SCREENSHOTS", "")
PAGES = ("money", "money/transfers", "money/payments", "artifacts", "policy", "audit")
JOB = """
name: words
recipe: count
data: text.txt
plan: {shards_per_round: 3}
trust: {class: public}
budget: {max_sats: 100}
"""

pytestmark = [pytest.mark.nightly, MISSING]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A job that is done and paid, with an operator who may sign in."""
    found = World(tmp_path_factory.mktemp("market"), {"SHARDWORK_WEB": "127.0.0.1:0"})
    try:
        found.start("alice", sats=1_000)
        (found.folder / "text.txt").write_text("one two two\n" * 50, encoding="utf-8")
        (found.folder / "job.yaml").write_text(JOB, encoding="utf-8")
        found.finish(found.submit("job.yaml"))
        operator(found, "user", "add", "ada", "--password-file", "-", said=PASSWORD)
        yield found
    finally:
        found.stop()


def operator(world: World, *arguments: str, said: str = "") -> str:
    """`shardwork-coordinator ARGUMENTS` on the coordinator's own machine."""
    done = subprocess.run(
        [str(BIN / "shardwork-coordinator"), *arguments, "--data-dir", str(world.folder / "coordinator")],
        env=world.processes.environment("coordinator-home"),
        input=said,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def session(browser: Any, world: World) -> Any:
    """What a browser keeps of somebody who signed in."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{world.processes.web}/login")
    page.fill("input[name=name]", "ada")
    page.fill("input[name=password]", PASSWORD)
    page.click("main button")
    page.wait_for_url("**/overview")
    return context.storage_state()


def opened(browser: Any, session: Any, *, width: int = 1280, scheme: str = "light") -> tuple[Any, list[str]]:
    """A page, and what its console says."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, storage_state=session)
    page, noise = context.new_page(), list[str]()
    page.on("console", lambda told: noise.append(f"{told.type}: {told.text}"))
    page.on("pageerror", lambda error: noise.append(f"error: {error}"))
    return page, noise


def kept(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_is_quiet_and_keeps_to_itself(
    browser: Any, world: World, session: Any, path: str, width: int, scheme: str
) -> None:
    page, noise = opened(browser, session, width=width, scheme=scheme)
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url.split("/")[2]))
    page.goto(f"{world.processes.web}/{path}")
    page.wait_for_load_state("load")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelectorAll('[style], style, main script').length") == 0
    assert page.locator("h1").count() == 1
    # every field has a name that a screen reader tells
    fields = "[...document.querySelectorAll('main input:not([type=hidden]), main select')]"
    assert page.evaluate(f"{fields}.every(field => field.labels.length === 1)")
    check_axe(page)
    kept(page, f"{path.replace('/', '-')}-{width}-{scheme}")
    assert noise == [] and asked == {world.processes.web.split("/")[2]}
    page.context.close()


def test_counting_again_is_asked_for_confirmed_and_told(browser: Any, world: World, session: Any) -> None:
    page, noise = opened(browser, session)
    page.goto(f"{world.processes.web}/money")
    page.locator("summary", has_text="Count again").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Count now").click()
    page.wait_for_selector(".said")
    assert "Everything agrees." in page.inner_text(".said")
    assert "add up to zero" in page.inner_text("main")
    check_axe(page)
    kept(page, "money-counted")
    assert noise == []
    page.context.close()


def test_an_account_leads_to_its_statement_and_the_ledger_to_a_file(browser: Any, world: World, session: Any) -> None:
    page, _ = opened(browser, session)
    page.goto(f"{world.processes.web}/money?kind=worker")
    page.locator("tbody th a").first.click()
    page.wait_for_url("**/money/accounts/worker*")
    assert "Balance then" in page.inner_text("main")
    check_axe(page)
    kept(page, "money-statement")
    page.goto(f"{world.processes.web}/money/transfers?reason=shard")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save as CSV").click()
    assert saved.value.suggested_filename == "shardwork-transfers.csv"
    lines = Path(saved.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 7 and all(",shard," in line for line in lines[1:])
    page.context.close()


def test_a_rule_is_changed_obeyed_undone_and_stands_in_the_audit_log(browser: Any, world: World, session: Any) -> None:
    page, noise = opened(browser, session)
    page.goto(f"{world.processes.web}/policy")
    row = page.locator("tr#intake")
    row.locator("summary", has_text="Change").click()
    check_axe(page)
    row.locator("select[name=value]").select_option("closed")
    row.locator("input[name=reason]").fill("the disk is being changed")
    row.get_by_role("button", name="Change it").click()
    page.wait_for_selector(".said")
    assert "intake is closed now." in page.inner_text(".said")
    refused = world.run("job", "submit", "job.yaml", "--yes", "--json")
    assert refused.exit_code == 1 and refused.error["code"] == "job.intake_closed"
    page.goto(f"{world.processes.web}/policy#intake")
    check_axe(page)
    kept(page, "policy-changed")
    page.locator("tr#intake summary", has_text="Undo").click()
    page.locator("tr#intake form[action='/policy/reset'] input[name=reason]").fill("it is done")
    page.get_by_role("button", name="Let the settings count").click()
    page.wait_for_selector(".said")
    assert world.run("job", "submit", "job.yaml", "--yes", "--json").exit_code == 0
    page.goto(f"{world.processes.web}/audit?subject=intake")
    told = page.inner_text("main")
    assert "the disk is being changed" in told and "it is done" in told
    check_axe(page)
    kept(page, "audit-intake")
    assert noise == []
    page.context.close()


def test_an_artifact_leads_through_its_lineage(browser: Any, world: World, session: Any) -> None:
    page, noise = opened(browser, session)
    page.goto(f"{world.processes.web}/artifacts?kind=output")
    page.locator("tbody th a").first.click()
    page.wait_for_url("**/artifacts/*")
    told = page.inner_text("main")
    assert "join, on the coordinator" in told and "map shard 0" in told
    check_axe(page)
    kept(page, "artifact-lineage")
    page.locator(".tree a[href^='/artifacts/']").first.click()
    page.wait_for_load_state("load")
    assert "Why it is kept" in page.inner_text("main")
    assert noise == []
    page.context.close()
