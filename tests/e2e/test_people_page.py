# pyright: standard
"""The annotator's page in a real Chromium, on a desktop and on a phone that is touched: somebody comes in, each key and
gesture arrives as the right call, and nothing is lost with the line or counted twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .chromium import MISSING
from .fake_people import FakePeople, now_ms, task
from .people_visit import HERE, Visit

pytestmark = [pytest.mark.nightly, MISSING]


# ---- coming in -----------------------------------------------------------------------------------------------------


def test_pay_time_and_guideline_stand_there_before_anything_is_begun(visit: Visit) -> None:
    visit.page.goto(f"{visit.web}/people{HERE}")
    visit.page.wait_for_selector(".offer .facts")
    offer = visit.page.inner_text(".offer")
    assert "3 sat each" in offer
    assert "about 25 s each" in offer
    assert "13 words" in offer
    assert visit.fake.people == {}
    visit.joins()
    assert "Prefer the answer that is right." in visit.page.inner_text("main")
    assert "the pay is held" in visit.page.inner_text("main")
    assert "worth nothing" in visit.page.inner_text("main")
    assert "Simulated sats" in visit.page.inner_text("header")
    visit.keeps_quiet()


def test_somebody_joins_once_and_is_known_after_a_reload(visit: Visit) -> None:
    visit.page.goto(f"{visit.web}/people{HERE}")
    visit.page.fill("#join [name=name]", "Mira")
    visit.page.fill("#join [name=payout]", "mira@wallet.example")
    visit.page.dblclick("#join button")
    visit.page.wait_for_selector(".begin a")
    assert [body for name, body in visit.fake.calls if name == "join"] == [
        {"name": "Mira", "payout": "mira@wallet.example"}
    ]
    visit.page.reload()
    visit.page.wait_for_selector(".begin a")
    assert len(visit.fake.people) == 1


@pytest.mark.parametrize("link", [f"{HERE}?dragonfly", f"{HERE}/dragonfly"])
def test_the_word_of_a_link_lets_in(visit: Visit, link: str) -> None:
    visit.page.goto(f"{visit.web}/people{link}")
    visit.page.fill("#join [name=name]", "Mira")
    visit.page.click("#join button")
    visit.page.wait_for_selector(".begin a")
    assert [body for name, body in visit.fake.calls if name == "join"] == [{"name": "Mira", "invitation": "dragonfly"}]


def test_the_stored_key_cannot_be_read_out(visit: Visit) -> None:
    visit.joins()
    read = """() => new Promise((done) => {
      const opening = indexedDB.open("shardwork-people");
      opening.onsuccess = () => {
        const asked = opening.result.transaction("identity").objectStore("identity").get("me");
        asked.onsuccess = () =>
          crypto.subtle.exportKey("pkcs8", asked.result.key).then(() => done("out"), () => done("shut"));
      };
    })"""
    assert visit.page.evaluate(read) == "shut"


def test_a_copy_of_the_key_is_somebody_again_in_another_browser(
    browser: Any, fake: FakePeople, web: str, tmp_path: Path
) -> None:
    first = Visit(browser, fake, web)
    first.page.goto(f"{web}/people{HERE}")
    first.page.fill("#join [name=name]", "Mira")
    first.page.check("#join [name=copy]")
    first.page.fill("#join [name=passphrase]", "four words of no sense")
    with first.page.expect_download() as saved:
        first.page.click("#join button")
    copy = tmp_path / "key.json"
    saved.value.save_as(copy)
    first.page.wait_for_selector(".begin a")
    first.context.close()
    other = Visit(browser, fake, web, "phone")
    other.page.goto(f"{web}/people{HERE}")
    other.page.click("main summary")
    other.page.set_input_files("#return [name=file]", copy)
    other.page.fill("#return [name=passphrase]", "some other words")
    other.page.click("#return button")
    other.seen.wait_for("!document.querySelector('[role=alert].alert').hidden")
    assert "passphrase does not fit" in other.page.inner_text(".alert")
    other.page.fill("#return [name=passphrase]", "four words of no sense")
    other.page.click("#return button")
    other.page.wait_for_selector(".begin a")
    assert len(fake.people) == 1
    other.page.goto(f"{web}/people#money")
    other.page.wait_for_selector("#who")
    assert "Mira" in other.page.inner_text("main")


def test_a_browser_that_makes_no_such_key_is_told_so(browser: Any, fake: FakePeople, web: str) -> None:
    visit = Visit(browser, fake, web)
    visit.page.add_init_script("crypto.subtle.generateKey = () => Promise.reject(new Error('unknown'))")
    visit.page.goto(f"{web}/people{HERE}")
    assert "too old to make the key" in visit.panel()


def test_a_device_whose_clock_is_an_hour_late_gets_in(browser: Any, fake: FakePeople, web: str) -> None:
    visit = Visit(browser, fake, web)
    visit.page.add_init_script("const real = Date.now; Date.now = () => real() - 3600_000")
    visit.begins()
    visit.presses("1", at=1)
    visit.waits_for(2)
    assert fake.votes["lease-1"]["answer"] == {"winner": "a"}


# ---- judging -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "answer"), [("1", "a"), ("2", "b"), ("0", "tie"), ("b", "both_bad"), ("B", "both_bad")]
)
def test_each_key_is_its_answer(visit: Visit, key: str, answer: str) -> None:
    visit.begins()
    visit.presses(key, at=1)
    visit.waits_for(2)
    vote = visit.fake.votes["lease-1"]
    assert vote["answer"] == {"winner": answer}
    assert 0 < vote["ms"] < 60_000
    assert set(vote) == {"lease", "answer", "ms"}
    assert "3 sat held" in visit.page.inner_text("header")
    visit.keeps_quiet()


@pytest.mark.parametrize("answer", ["a", "b", "tie", "both_bad"])
def test_each_button_is_its_answer(visit: Visit, answer: str) -> None:
    visit.begins()
    visit.waits_for(1)
    visit.page.click(f"[data-winner={answer}]")
    visit.waits_for(2)
    assert visit.fake.votes["lease-1"]["answer"] == {"winner": answer}


def test_every_button_is_big_enough_for_a_thumb(visit: Visit) -> None:
    visit.begins()
    pressed = "button, .item summary, header a:not(.skip)"
    sizes = "(found) => found.map((one) => [one.innerText, one.offsetWidth, one.offsetHeight])"
    small = [box for box in visit.page.eval_on_selector_all(pressed, sizes) if box[1] and min(box[1:]) < 44]
    assert small == []


@pytest.mark.parametrize(("to", "answer"), [("left", "a"), ("right", "b")])
def test_a_swipe_is_its_answer(browser: Any, fake: FakePeople, web: str, to: str, answer: str) -> None:
    visit = Visit(browser, fake, web, "phone").begins()
    visit.swipes(to, at=1)
    visit.waits_for(2)
    assert fake.votes["lease-1"]["answer"] == {"winner": answer}
    visit.context.close()


def test_skip_and_report_leave_an_item_and_undo_gives_the_last_one_back(visit: Visit) -> None:
    visit.begins()
    visit.presses("s", at=1)
    visit.presses("r", at=2)
    visit.page.click("dialog [value^=Harmful]")
    visit.page.fill("dialog input:not([type=radio])", "an insult")
    visit.page.click("dialog .pick")
    visit.presses("1", at=3)
    visit.waits_for(4)
    assert visit.fake.left == {"lease-1": "skipped", "lease-2": "Harmful, hateful or illegal · an insult"}
    visit.page.keyboard.press("u")
    visit.presses("2", at=3)
    # what was on the screen before comes back
    visit.waits_for(4)
    assert visit.fake.votes["lease-3"]["answer"] == {"winner": "b"}
    assert [name for name, _ in visit.fake.calls if name in ("vote", "undo")] == ["vote", "undo", "vote"]
    visit.keeps_quiet()


def test_undo_is_offered_only_while_it_helps(visit: Visit) -> None:
    visit.fake.undo_ms = 1_500
    visit.begins()
    visit.presses("1", at=1)
    visit.waits_for(2)
    undo = "document.querySelector('[aria-keyshortcuts=u]').disabled"
    assert visit.page.evaluate(undo) is False
    visit.seen.wait_for(undo)
    visit.page.keyboard.press("u")
    visit.presses("1", at=2)
    visit.waits_for(3)
    assert visit.fake.taken_back == []


def test_a_key_that_the_coordinator_forgot_joins_again(visit: Visit) -> None:
    visit.joins()
    key, known = visit.fake.people.popitem()
    visit.page.click(".begin a")
    visit.waits_for(1)
    assert visit.fake.people == {key: known}


def test_a_report_thought_better_of_sends_nothing(visit: Visit) -> None:
    visit.begins()
    visit.presses("r", at=1)
    visit.page.keyboard.press("Escape")
    visit.presses("1", at=1)
    visit.waits_for(2)
    assert visit.fake.left == {}


def test_pressing_twice_answers_once(visit: Visit) -> None:
    visit.begins()
    visit.waits_for(1)
    visit.page.dblclick("[data-winner=a]")
    visit.waits_for(2)
    visit.page.keyboard.press("2")
    visit.page.keyboard.press("2")
    visit.waits_for(3)
    assert {lease: vote["answer"]["winner"] for lease, vote in visit.fake.votes.items()} == {
        "lease-1": "a",
        "lease-2": "b",
    }
    assert [name for name, _ in visit.fake.calls if name == "vote"] == ["vote", "vote"]


def test_too_early_is_said_and_not_sent(visit: Visit) -> None:
    visit.fake.items[0]["least_ms"] = 2_500
    visit.begins()
    visit.page.keyboard.press("1")
    assert visit.page.inner_text("#said").startswith("Please read first: you can answer in ")
    assert "Read first" in visit.page.inner_text(".bar")
    visit.presses("1", at=1)
    visit.waits_for(2)
    assert visit.fake.votes["lease-1"]["ms"] >= 2_500


# ---- a lost line ---------------------------------------------------------------------------------------------------


def test_an_answer_without_a_line_is_kept_and_sent_later(visit: Visit) -> None:
    visit.begins()
    visit.waits_for(1)
    visit.page.route("**/people/api/*", lambda route: route.abort())
    visit.page.keyboard.press("2")
    assert "Your answer is kept" in visit.panel()
    assert "1 answer is kept on this device" in visit.page.inner_text("#connection")
    # the page may be closed and opened again meanwhile
    visit.page.reload()
    visit.seen.wait_for("document.getElementById('connection').innerText.includes('1 answer is kept')")
    assert visit.fake.votes == {}
    visit.page.unroute("**/people/api/*")
    visit.waits_for(2)
    assert visit.fake.votes["lease-1"]["answer"] == {"winner": "b"}
    assert visit.page.is_hidden("#connection")


def test_an_answer_that_was_heard_but_never_confirmed_counts_once(visit: Visit) -> None:
    visit.fake.lost_answers = 1
    visit.begins()
    visit.presses("1", at=1)
    visit.waits_for(2)
    first, second = (body for name, body in visit.fake.calls if name == "vote")
    assert first == second
    assert visit.fake.counted() == 1


def test_an_answer_that_waits_can_be_taken_back(visit: Visit) -> None:
    visit.fake.lost_answers = 1
    visit.begins()
    visit.waits_for(1)
    # it arrives, but its answer doesn't, and then there is no line
    visit.page.route("**/people/api/vote", lambda route: (route.fetch(), route.abort()))
    visit.page.keyboard.press("1")
    assert "Your answer is kept" in visit.panel()
    visit.page.keyboard.press("u")
    visit.waits_for(1)
    visit.page.unroute("**/people/api/vote")
    visit.page.keyboard.press("0")
    visit.waits_for(2)
    assert visit.fake.votes["lease-1"]["answer"] == {"winner": "tie"}
    assert visit.fake.counted() == 1


def test_a_break_is_offered_after_long_work_and_not_after_one(visit: Visit) -> None:
    visit.fake.items = [task(number, expires_ms=now_ms() + 9 * 3_600_000) for number in range(1, 16)]
    visit.page.clock.install()
    visit.begins()
    for number in range(1, 14):
        assert visit.page.is_hidden("#rest"), number
        visit.presses("1", at=number)
        visit.waits_for(number + 1)
        if number < 13:
            visit.page.clock.fast_forward("04:00")
    assert "A break costs nothing" in visit.page.inner_text("#rest")
    visit.page.clock.fast_forward("06:00")
    visit.presses("1", at=14)
    visit.waits_for(15)
    assert visit.page.is_hidden("#rest")
