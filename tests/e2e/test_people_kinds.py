# pyright: standard
"""The annotator's page: orders, points, mended texts, and what may be said beside an answer."""

from __future__ import annotations

from typing import Any

import pytest

from .chromium import MISSING
from .fake_people import FakePeople
from .people_visit import Visit

pytestmark = [pytest.mark.nightly, MISSING]


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
