# pyright: standard
"""The annotator's page is read by everybody: text stays text, every screen fits, and needs neither mouse nor eyes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from .chromium import MISSING, check_axe
from .fake_people import FakePeople, task
from .people_visit import HERE, HOSTILE, Visit

#: where screenshots are kept; nowhere by default
SHOTS = os.environ.get("SHARDWORK_SHOTS", "")


pytestmark = [pytest.mark.nightly, MISSING]


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
