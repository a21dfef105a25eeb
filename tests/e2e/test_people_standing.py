# pyright: standard
"""The annotator's page: practice, what is held and when it is paid, being stopped, history and money."""

from __future__ import annotations

import pytest

from .chromium import MISSING
from .fake_people import now_ms
from .people_visit import Visit

pytestmark = [pytest.mark.nightly, MISSING]


# ---- practice, standing, ends --------------------------------------------------------------------------------------


def test_practice_says_whether_it_was_right_and_waits_to_be_read(visit: Visit) -> None:
    visit.fake.items[0]["practice"] = visit.fake.items[1]["practice"] = True
    visit.fake.practice = {"lease-1": (True, "The first one answers."), "lease-2": (False, "The second one is wrong.")}
    visit.begins()
    assert "Practice, unpaid" in visit.page.inner_text(".item")
    visit.presses("1", at=1)
    assert "That is right" in visit.panel()
    visit.page.keyboard.press("Enter")
    visit.presses("2", at=2)
    visit.page.wait_for_selector(".panel.warn")
    assert "The second one is wrong." in visit.panel()
    visit.page.click("[data-go]")
    visit.waits_for(3)
    assert "0 sat held" in visit.page.inner_text("header")


def test_held_is_explained_and_paid_once_enough_are_judged(visit: Visit) -> None:
    visit.fake.cleared_at = 3
    visit.begins()
    assert "Held until 3 judged: 3 to go." in visit.page.inner_text("#standing")
    for number in (1, 2):
        visit.presses("1", at=number)
    visit.waits_for(3)
    assert "Held until 3 judged: 1 to go." in visit.page.inner_text("#standing")
    assert "0 sat paid" in visit.page.inner_text("header")
    assert "6 sat held" in visit.page.inner_text("header")
    visit.presses("1", at=3)
    visit.waits_for(4)
    assert "3 items judged. Every answer is paid at once." in visit.page.inner_text("#standing")
    assert "9 sat paid" in visit.page.inner_text("header")


def test_somebody_who_is_stopped_reads_why(visit: Visit) -> None:
    visit.begins()
    visit.presses("1", at=1)
    visit.waits_for(2)
    visit.fake.why_stopped = "Answers to items whose answer is known were those of somebody who does not look."
    visit.presses("1", at=2)
    visit.page.wait_for_selector(".panel")
    assert "This did not count" in visit.panel()
    visit.page.keyboard.press("Enter")
    visit.seen.wait_for("document.querySelector('main h1').innerText === 'You were stopped in this task'")
    assert "somebody who does not look" in visit.panel()
    assert visit.page.locator("main [data-go]").count() == 0
    visit.page.click("main a.button")
    visit.page.wait_for_selector(".task")
    assert "somebody who does not look" in visit.page.inner_text("main")


def test_the_end_of_the_items_is_said_and_the_last_one_may_be_taken_back(visit: Visit) -> None:
    del visit.fake.items[1:]
    visit.begins()
    visit.presses("1", at=1)
    assert "Every item is judged." in visit.panel()
    visit.page.keyboard.press("u")
    visit.presses("0", at=1)
    visit.page.wait_for_selector(".panel")
    assert visit.fake.votes["lease-1"]["answer"] == {"winner": "tie"}


def test_an_item_whose_time_is_over_goes_and_the_next_one_comes(visit: Visit) -> None:
    visit.joins()
    visit.fake.items[0]["expires_ms"] = now_ms() + 6_000
    visit.page.click(".begin a")
    visit.page.wait_for_selector(".left:not([hidden])")
    assert "left for this one" in visit.page.inner_text(".left")
    assert "The time for this item is over" in visit.panel()
    visit.page.keyboard.press("1")
    visit.page.keyboard.press("Enter")
    visit.presses("2", at=2)
    visit.waits_for(3)
    assert list(visit.fake.votes) == ["lease-2"]


# ---- history and money ---------------------------------------------------------------------------------------------


def test_history_has_each_answer_with_its_state_and_pay(visit: Visit) -> None:
    visit.begins()
    for number, key in ((1, "1"), (2, "b")):
        visit.presses(key, at=number)
    visit.waits_for(3)
    visit.page.goto(f"{visit.web}/people#history")
    visit.page.wait_for_selector(".vote")
    newest, oldest = visit.page.locator(".vote").all_inner_texts()
    assert "Both bad" in newest
    assert "The first is better" in oldest
    assert "held" in oldest
    assert "3 sat" in oldest
    with visit.page.expect_download() as saved:
        visit.page.click("text=Save as a file")
    assert saved.value.suggested_filename == "shardwork-history.json"


def test_an_address_is_given_later_and_sats_are_taken_out(visit: Visit) -> None:
    visit.fake.cleared_at = 1
    visit.begins()
    visit.presses("1", at=1)
    visit.waits_for(2)
    visit.page.goto(f"{visit.web}/people#money")
    visit.page.wait_for_selector("#withdraw")
    assert "Save an address first." in visit.page.inner_text("#withdraw")
    assert visit.page.is_disabled("#withdraw button")
    assert "These sats are simulated." in visit.page.inner_text("main")
    visit.page.fill("#payout input", "mira")
    visit.page.click("#payout button")
    visit.seen.wait_for("document.querySelector('main .said').innerText.includes('no Lightning address')")
    visit.page.fill("#payout input", "mira@wallet.example")
    visit.page.click("#payout button")
    visit.seen.wait_for("document.querySelector('main .said').innerText === 'The address is saved.'")
    visit.page.click("#withdraw button")
    visit.seen.wait_for(
        "document.querySelector('main .said').innerText === '3 sat are on their way to mira@wallet.example.'"
    )
    assert ("withdraw", {"msat": 0}) in visit.fake.calls
