# pyright: standard
"""Every action of the dashboard that its pages' own tests leave out, as a person does it: on a desktop and on a phone.

What each did is looked up where it counts: in the database, with the workers, at the next sign-in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyotp.totp import TOTP

from .chromium import MISSING, PASSWORD, Watched, check_axe, first_operator
from .world import World

pytestmark = [pytest.mark.nightly, MISSING]

SHOTS = os.environ.get("SHARDWORK_SHOTS", "")
JOB = """
name: words
recipe: count
data: text.txt
plan: {shards_per_round: 2}
trust: {class: public}
budget: {max_sats: 100}
"""


@dataclass(frozen=True)
class Person:
    """An operator at a screen of some size."""

    browser: Any
    world: World
    state: Any
    width: int
    scheme: str

    def opens(self, path: str, *, state: Any = None) -> Watched:
        context = self.browser.new_context(
            viewport={"width": self.width, "height": 900},
            color_scheme=self.scheme,
            storage_state=state or self.state,
            accept_downloads=True,
        )
        seen = Watched(context.new_page())
        seen.page.goto(self.world.processes.web + path)
        return seen

    def lets_in(self, name: str) -> Watched:
        """A new viewer."""
        seen = self.opens("/users")
        fills(seen, "form[action='/users/add']", {"name": name, "password": PASSWORD})
        return seen

    def name(self, word: str) -> str:
        return f"{word}{self.width}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two workers whose payouts the pretend network refuses, or never ends."""
    found = World(tmp_path_factory.mktemp("actions"), {"SHARDWORK_PAYOUT_THRESHOLD_SATS": "1"})
    try:
        found.start(sats=5_000)
        for name, address in (("alice", "fail@simulated"), ("bob", "hang@simulated")):
            found.processes.start_worker(name, "--payout", address)
        for name in ("alice", "bob"):
            found.wait_ready(name)
        (found.folder / "text.txt").write_text("one two two\n" * 50, encoding="utf-8")
        (found.folder / "job.yaml").write_text(JOB, encoding="utf-8")
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def state(browser: Any, world: World) -> Any:
    return first_operator(browser, world.processes.setup)


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["desktop", "phone"])
def person(request: pytest.FixtureRequest, browser: Any, world: World, state: Any) -> Person:
    return Person(browser, world, state, *request.param)


def acts(seen: Watched, label: str, *, within: str = "main", fields: Mapping[str, str] | None = None) -> str:
    """Opens what an action would do, fills in its form and does it; what the page says then."""
    page = seen.page
    page.locator(f"{within} details.deed > summary", has_text=label).first.click()
    form = page.locator(f"{within} details.deed[open] form").first
    for name, text in (fields or {}).items():
        form.locator(f"[name={name}]").fill(text)
    check_axe(page)
    with page.expect_navigation():
        form.locator("button").click()
    return str(page.inner_text(".said"))


def kept(seen: Watched, person: Person, name: str) -> None:
    if SHOTS:
        path = Path(SHOTS) / f"actions-{name}-{person.width}-{person.scheme}.png"
        seen.page.screenshot(path=path, full_page=person.width > 400)


def worker_id(world: World, name: str) -> str:
    return str(world.rows("select id from party where name = ?", name)[0][0])


def test_a_job_is_found_among_others_cloned_and_cancelled(person: Person) -> None:
    world = person.world
    for name in ("alice", "bob"):
        assert world.command_worker(name, "pause").exit_code == 0
    job = world.submit("job.yaml")
    seen = person.opens("/jobs")
    seen.page.fill("[name=q]", "nothing has this name")
    seen.page.press("[name=q]", "Enter")
    seen.wait_for("document.querySelector('.empty') !== null")
    assert "Show all" in seen.page.inner_text(".empty")
    seen.page.fill("[name=q]", job[:8])
    seen.page.press("[name=q]", "Enter")
    seen.wait_for("document.querySelectorAll('tbody tr').length === 1")
    seen.page.locator(".tabs a", has_text="waiting").click()
    seen.wait_for("new URL(location).searchParams.get('state') === 'waiting'")
    seen.page.click(f"#job-{job}")
    seen.wait_for("document.documentElement?.dataset.connection === 'live'")
    seen.page.locator("summary", has_text="Clone").click()
    with seen.page.expect_download() as saved:
        seen.page.get_by_role("link", name=f"Save job-{job}.yaml").click()
    text = Path(saved.value.path()).read_text(encoding="utf-8")
    assert "recipe: count" in text and "max_sats: 100" in text
    assert acts(seen, "Cancel", fields={"reason": "nobody needs it"}) == f"Job {job} was cancelled."
    kept(seen, person, "cancelled")
    assert world.job_state(job) == "cancelled"
    for name in ("alice", "bob"):
        assert world.command_worker(name, "resume").exit_code == 0
        world.wait_ready(name)
    seen.check_quiet(world.processes.web)


def test_a_shard_is_taken_from_a_worker_that_sits_on_it(person: Person) -> None:
    world = person.world
    world.finish(world.submit("job.yaml"))
    assert world.command_worker("bob", "pause").exit_code == 0
    world.freeze_child("alice")
    job = world.submit("job.yaml")
    world.wait_computing("alice")
    seen = person.opens(f"/jobs/{job}")
    seen.wait_for("document.documentElement?.dataset.connection === 'live'")
    seen.wait_for("[...document.querySelectorAll('summary')].some((one) => one.innerText.startsWith('Requeue'))")
    assert world.command_worker("bob", "resume").exit_code == 0
    said = acts(seen, "Requeue", fields={"reason": "alice stands still"})
    assert said == "The shard is offered to others."
    kept(seen, person, "requeued")
    assert "The operator gave this shard to another worker" in world.run("job", "logs", job).stdout
    world.thaw_child("alice")
    assert world.finish(job)["state"] == "succeeded"
    seen.check_quiet(world.processes.web)


def test_a_worker_is_marked_and_put_into_quarantine_and_let_out(person: Person) -> None:
    world, name = person.world, worker_id(person.world, "bob")
    seen = person.opens(f"/workers/{name}")
    marked = "select reference, standing from party where id = ?"
    assert "is a reference worker" in acts(seen, "Mark as reference", fields={"reason": "it is ours"})
    assert bool(world.rows(marked, name)[0][0])
    assert "no longer" in acts(seen, "Unmark reference", fields={"reason": "it is not"})
    assert "is in quarantine" in acts(seen, "Quarantine", fields={"reason": "odd results"})
    assert "Reason: odd results" in seen.page.inner_text(".standing")
    kept(seen, person, "quarantine")
    assert tuple(world.rows(marked, name)[0]) == (0, "quarantined")
    world.until(lambda: "quarantine" in str(world.worker("bob").get("why")), "the worker to hear of it")
    acts(seen, "Restore", fields={"reason": "they were right"})
    assert world.rows(marked, name)[0][1] == "normal"
    world.wait_ready("bob")
    seen.check_quiet(world.processes.web)


def test_a_payment_that_failed_is_begun_again_and_one_on_its_way_asked_about(person: Person) -> None:
    world = person.world
    ended = "select count(*) from payout where state = ?"
    for _ in range(10):
        world.finish(world.submit("job.yaml"))
        if all(world.rows(ended, each)[0][0] for each in ("failed", "sent")):
            break
    seen = person.opens("/money/payments?state=failed")
    before = world.rows(ended, "failed")[0][0]
    assert "simulated failure" in seen.page.inner_text("main")
    check_axe(seen.page)
    kept(seen, person, "payments-failed")
    assert "payout" in acts(seen, "Pay out again", fields={"reason": "the node was away"})
    world.until(lambda: world.rows(ended, "failed")[0][0] > before, "the new payout to fail as well")
    seen = person.opens("/money/payments")
    kept(seen, person, "payments-asked")
    acts(seen, "Ask the node now", fields={"reason": "it takes long"})
    noted = "select action from auditentry where action in ('payout.ask', 'payout.retry')"
    assert {action for (action,) in world.rows(noted)} == {"payout.ask", "payout.retry"}
    assert world.books()["balanced"] is True
    seen.check_quiet(world.processes.web)


def test_people_are_let_in_shut_out_and_given_another_password(person: Person) -> None:
    world, name = person.world, person.name("vera")
    seen = person.lets_in(name)
    viewer = signed_in(person, name, PASSWORD)
    assert viewer.page.url.endswith("/overview")
    viewer.page.goto(f"{world.processes.web}/policy")
    assert viewer.page.locator("details.deed").count() == 0, "a viewer changes nothing"
    row = f"tr:has(th:has-text('{name}'))"
    acts(seen, "Disable", within=row)
    viewer.page.goto(f"{world.processes.web}/overview")
    assert "/login" in viewer.page.url, "its session ended at once"
    acts(seen, "Enable", within=row)
    acts(seen, "Set password", within=row, fields={"password": "five other words of nonsense"})
    kept(seen, person, "people")
    assert signed_in(person, name, PASSWORD).page.url.endswith("/login")
    assert signed_in(person, name, "five other words of nonsense").page.url.endswith("/overview")
    seen.check_quiet(world.processes.web)


def test_an_account_gets_another_password_codes_and_ends_its_sessions(person: Person) -> None:
    world, name, new = person.world, person.name("otto"), "six more words that make sense"
    person.lets_in(name)
    seen = signed_in(person, name, PASSWORD)
    seen.page.goto(f"{world.processes.web}/account")
    fills(seen, "form[action='/account/password']", {"password": PASSWORD, "new": new})
    seen = signed_in(person, name, new)
    seen.page.goto(f"{world.processes.web}/account")
    secret = seen.page.inner_text("code.secret").replace(" ", "")
    kept(seen, person, "account")
    wanted = {"code": TOTP(secret).now(), "password": new}
    fills(seen, "form[action='/account/codes']", wanted)
    assert "is asked for at each sign-in" in seen.page.inner_text("main")
    other = signed_in(person, name, new)
    assert "code" in other.page.inner_text("main") and not other.page.url.endswith("/overview")
    with seen.page.expect_navigation():
        seen.page.click("form[action='/account/sessions/end'] button")
    seen.page.goto(f"{world.processes.web}/overview")
    assert "/login" in seen.page.url
    assert seen.noise == []


def signed_in(person: Person, name: str, password: str) -> Watched:
    """What a browser shows to somebody who signs in; the login page again when that is refused."""
    context = person.browser.new_context(viewport={"width": person.width, "height": 900}, color_scheme=person.scheme)
    seen = Watched(context.new_page())
    seen.page.goto(f"{person.world.processes.web}/login")
    seen.page.fill("input[name=name]", name)
    seen.page.fill("input[name=password]", password)
    with seen.page.expect_navigation():
        seen.page.click("main button")
    return seen


def fills(seen: Watched, form: str, fields: Mapping[str, str]) -> None:
    for name, text in fields.items():
        seen.page.fill(f"{form} [name={name}]", text)
    with seen.page.expect_navigation():
        seen.page.click(f"{form} button")
