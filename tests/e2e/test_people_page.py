# pyright: standard
"""The annotator's page in a real Chromium, on a desktop and on a phone that is touched: every key and gesture arrives
as the right call, nothing is lost with the line, nothing is counted twice, and everybody can read it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .chromium import MISSING, Watched, check_axe
from .fake_people import FakePeople, served, task

pytestmark = [pytest.mark.nightly, MISSING]

#: where screenshots are kept; nowhere by default
SHOTS = os.environ.get("SHARDWORK_SHOTS", "")
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
SIZES = {"desktop": DESKTOP, "phone": PHONE}
HERE = "#000000000001/people"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"


class Visit:
    """Somebody with a browser of their own at the stand-in."""

    def __init__(self, browser: Any, fake: FakePeople, web: str, size: str = "desktop", **settings: Any) -> None:
        self.fake, self.web = fake, web
        self.context = browser.new_context(**SIZES[size], **settings)
        self.context.set_default_timeout(15_000)
        self.seen = Watched(self.context.new_page())
        self.page = self.seen.page

    def joins(self, name: str = "Mira") -> Visit:
        """Through the form, to the introduction of the one task."""
        self.page.goto(f"{self.web}/people{HERE}")
        self.page.fill("#join [name=name]", name)
        self.page.click("#join button")
        self.page.wait_for_selector(".begin a")
        return self

    def begins(self) -> Visit:
        self.joins()
        self.page.click(".begin a")
        self.page.wait_for_selector(".item")
        return self

    def waits_for(self, number: int) -> None:
        self.page.wait_for_selector(f".item[data-lease=lease-{number}] .bar:not([data-early]):not([aria-busy=true])")

    def presses(self, key: str, *, at: int) -> None:
        """As soon as this item may be answered."""
        self.waits_for(at)
        self.page.keyboard.press(key)

    def panel(self) -> str:
        self.page.wait_for_selector(".panel")
        return self.page.inner_text("main")

    def swipes(self, to: str, *, at: int) -> None:
        """With a finger, across the first answer."""
        self.waits_for(at)
        box = self.page.locator(".answer .text").first.bounding_box()
        middle, y, by = box["x"] + box["width"] / 2, box["y"] + 12, 40 if to == "right" else -40
        line = self.context.new_cdp_session(self.page)
        touch = lambda kind, x: line.send(  # noqa: E731
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [] if kind == "touchEnd" else [{"x": x, "y": y}]}
        )
        touch("touchStart", middle)
        for step in range(1, 4):
            touch("touchMove", middle + step * by)
        touch("touchEnd", 0)

    def keeps_quiet(self) -> None:
        self.seen.check_quiet(self.web)


@pytest.fixture
def fake() -> FakePeople:
    return FakePeople([task(number) for number in range(1, 9)])


@pytest.fixture
def web(fake: FakePeople) -> Iterator[str]:
    with served(fake) as address:
        yield address


@pytest.fixture(params=["desktop", "phone"])
def visit(request: pytest.FixtureRequest, browser: Any, fake: FakePeople, web: str) -> Iterator[Visit]:
    found = Visit(browser, fake, web, request.param)
    yield found
    found.context.close()


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


def test_points_tags_and_a_note_go_with_the_answer(visit: Visit) -> None:
    visit.fake.items[0] |= {"scores": ["helpful"], "reasons": ["wrong", "too long"]}
    visit.begins()
    visit.waits_for(1)
    visit.page.check(".tag:nth-of-type(2) input")
    visit.page.check(".points >> nth=0 >> input[value='4']")
    visit.page.keyboard.press("1")
    assert "has no points for Answer 2" in visit.page.inner_text("#said")
    visit.page.check(".points >> nth=1 >> input[value='2']")
    visit.page.click(".item summary")
    visit.page.fill(".marks textarea", "both miss 1 and 2")
    visit.page.click("[data-winner=a]")
    visit.waits_for(2)
    vote = visit.fake.votes["lease-1"]
    assert vote["scores"] == {"helpful": [4, 2]}
    assert vote["reasons"] == ["too long"]
    assert vote["comment"] == "both miss 1 and 2"


# ---- the other kinds -----------------------------------------------------------------------------------------------


def ranked(fake: FakePeople) -> None:
    fake.items[0] |= {"kind": "rank", "answers": ["one", "two", "three"]}


def test_an_order_is_typed(visit: Visit) -> None:
    ranked(visit.fake)
    visit.begins()
    for key in "312":
        visit.presses(key, at=1)
    visit.presses("Enter", at=1)
    visit.waits_for(2)
    assert visit.fake.votes["lease-1"]["answer"] == {"ranking": [2, 0, 1]}
    visit.keeps_quiet()


def test_an_order_is_made_with_buttons_and_arrows(visit: Visit) -> None:
    ranked(visit.fake)
    visit.begins()
    visit.waits_for(1)
    visit.page.click("[aria-label='Answer 3: better']")
    visit.page.focus("[data-at='0'] .text")
    visit.page.keyboard.press("Shift+ArrowDown")
    visit.page.keyboard.press("Shift+ArrowDown")
    assert visit.page.evaluate("document.activeElement.closest('li').dataset.at") == "0"
    visit.page.click(".picks button")
    visit.waits_for(2)
    assert visit.fake.votes["lease-1"]["answer"] == {"ranking": [2, 1, 0]}


def test_an_order_is_dragged(browser: Any, fake: FakePeople, web: str) -> None:
    ranked(fake)
    visit = Visit(browser, fake, web).begins()
    visit.waits_for(1)
    handle = visit.page.locator("[data-at='0'] .drag").bounding_box()
    last = visit.page.locator("[data-at='2']").bounding_box()
    visit.page.mouse.move(handle["x"] + 10, handle["y"] + 10)
    visit.page.mouse.down()
    visit.page.mouse.move(last["x"] + 10, last["y"] + last["height"] - 4, steps=8)
    visit.page.mouse.up()
    visit.page.keyboard.press("Enter")
    visit.waits_for(2)
    assert fake.votes["lease-1"]["answer"] == {"ranking": [1, 2, 0]}


def test_points_are_asked_for_every_scale(visit: Visit) -> None:
    visit.fake.items[0] |= {"kind": "score", "answers": ["a text"], "scores": ["clear", "right"]}
    visit.begins()
    visit.presses("4", at=1)
    visit.page.keyboard.press("Enter")
    assert "“right” has no points yet" in visit.page.inner_text("#said")
    visit.page.keyboard.press("2")
    visit.page.keyboard.press("Enter")
    visit.waits_for(2)
    assert visit.fake.votes["lease-1"]["answer"] == {"scores": {"clear": 4, "right": 2}}


@pytest.mark.parametrize(("key", "verdict"), [("k", "keep"), ("d", "discard")])
def test_a_text_is_kept_or_thrown_away(visit: Visit, key: str, verdict: str) -> None:
    visit.fake.items[0] |= {"kind": "review", "answers": ["a text"]}
    visit.begins()
    visit.presses(key, at=1)
    visit.waits_for(2)
    assert visit.fake.votes["lease-1"]["answer"] == {"verdict": verdict}


def test_a_text_is_mended_and_keys_are_letters_meanwhile(visit: Visit) -> None:
    visit.fake.items[0] |= {"kind": "review", "answers": ["a txt"]}
    visit.begins()
    visit.presses("e", at=1)
    visit.page.keyboard.press("Control+a")
    visit.page.keyboard.type("a desk, kept")
    visit.page.keyboard.press("Control+Enter")
    visit.waits_for(2)
    assert visit.fake.votes["lease-1"]["answer"] == {"verdict": "edit", "text": "a desk, kept"}


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
    from .fake_people import now_ms

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
    visit.page.wait_for_selector("#withdraw button:enabled")
    assert "These sats are simulated." in visit.page.inner_text("main")
    visit.page.click("#withdraw button")
    visit.seen.wait_for("document.querySelector('main .said').innerText.includes('no address')")
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
    assert ("withdraw", {"msat": 3_000}) in visit.fake.calls


# ---- what others wrote, and who reads it ---------------------------------------------------------------------------


def test_scripts_stay_text_everywhere(visit: Visit) -> None:
    visit.fake.title = visit.fake.guideline = HOSTILE
    visit.fake.items[0] |= {"prompt": [{"role": HOSTILE, "content": HOSTILE}], "answers": [HOSTILE, "```\n" + HOSTILE]}
    visit.fake.items[0] |= {"reasons": [HOSTILE], "scores": [HOSTILE]}
    visit.joins(HOSTILE[:40])
    assert HOSTILE in visit.page.inner_text(".guideline")
    visit.page.click(".begin a")
    visit.waits_for(1)
    assert visit.page.locator(".written").all_inner_texts() == [HOSTILE, HOSTILE, "```\n" + HOSTILE]
    visit.page.click("a.leave")
    visit.page.goto(f"{visit.web}/people#money")
    visit.page.wait_for_selector("#who")
    assert visit.page.title() == "Judge answers · Shardwork"
    assert visit.page.evaluate("document.querySelectorAll('script:not([src]), main img, [style], style').length") == 0
    visit.keeps_quiet()


LONG = "A long answer that goes on. " * 200
ODD = (
    "مرحبا بالعالم\nשלום עולם\n\n```python\ndef f(x):\n\treturn 'x' * 10_000\n```\n"
    + "unbroken" * 60
    + " 👩🏽‍🚀 \u202eevil\u202c"
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_each_screen_fits_is_quiet_and_accessible(
    browser: Any, fake: FakePeople, web: str, size: str, scheme: str
) -> None:
    marked = {"scores": ["helpful", "harmless"], "reasons": ["wrong", "too long", "rude"]}
    fake.items[:] = [
        task(1, practice=True),
        task(2, prompt=ODD, answers=[LONG, ODD], **marked),
        task(3, kind="rank", answers=["one", LONG, ODD]),
        task(4, kind="score", answers=[ODD], scores=["clear", "right"]),
        task(5, kind="review", answers=[LONG]),
    ]
    fake.practice = {"lease-1": (True, "The first one answers what was asked.")}
    visit = Visit(browser, fake, web, size, color_scheme=scheme)
    visit.page.goto(f"{web}/people{HERE}")
    visit.page.wait_for_selector(".offer .facts")
    look(visit, "welcome", size, scheme)
    visit.joins()
    look(visit, "task", size, scheme)
    visit.page.click(".begin a")
    visit.presses("1", at=1)
    visit.page.wait_for_selector(".panel")
    look(visit, "practice", size, scheme)
    visit.page.keyboard.press("Enter")
    for number, kind, keys in ((2, "compare", "1"), (3, "rank", "312\n"), (4, "score", "44\n"), (5, "review", "k")):
        visit.waits_for(number)
        look(visit, kind, size, scheme)
        for key in keys:
            visit.page.keyboard.press("Enter" if key == "\n" else key)
    visit.page.wait_for_selector(".panel")
    look(visit, "end", size, scheme)
    for name in ("tasks", "history", "money"):
        visit.page.goto(f"{web}/people#{name}")
        visit.page.wait_for_selector("main .card:visible")
        look(visit, name, size, scheme)
    visit.keeps_quiet()
    visit.context.close()


def look(visit: Visit, name: str, size: str, scheme: str) -> None:
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    is_dark = visit.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(246, 247, 249)"
    assert is_dark == (scheme == "dark")
    visit.page.wait_for_timeout(200)
    check_axe(visit.page, ("minor", "moderate", "serious", "critical"))
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        visit.page.screenshot(path=f"{SHOTS}/people-{name}-{size}-{scheme}.png")


def test_everything_is_reached_by_keyboard_alone(browser: Any, fake: FakePeople, web: str) -> None:
    visit = Visit(browser, fake, web).joins()
    visit.page.focus(".begin a")
    visit.page.keyboard.press("Enter")
    visit.waits_for(1)
    # the item's heading has the focus: reading begins there
    assert visit.page.evaluate("document.activeElement.tagName") == "H1"
    reached = set()
    for _ in range(25):
        visit.page.keyboard.press("Tab")
        reached.add(visit.page.evaluate("document.activeElement.innerText.split('\\n')[0]"))
    assert {"1 is better", "2 is better", "Equal", "Both bad", "Skip", "Report"} <= reached


def test_single_keys_can_be_switched_off(browser: Any, fake: FakePeople, web: str) -> None:
    visit = Visit(browser, fake, web).joins()
    visit.page.goto(f"{web}/people#money")
    visit.page.click("text=Answer with single keys")
    visit.page.goto(f"{web}/people{HERE}/judge")
    visit.presses("1", at=1)
    visit.page.click("[data-winner=b]")
    visit.waits_for(2)
    assert fake.votes["lease-1"]["answer"] == {"winner": "b"}
