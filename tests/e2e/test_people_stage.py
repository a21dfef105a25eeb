# pyright: standard
"""The annotator's page against a real coordinator: what is pressed, drawn and typed lies in its store as the right row,
in the item's own order; careful people are paid, careless ones are not, and a coordinator that dies loses nothing."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .chromium import MISSING
from .people_visit import Visit
from .world import World

pytestmark = [pytest.mark.nightly, MISSING]

GOOD, BAD = "a careful answer", "a careless answer"
JOB = """
name: {name}
recipe: people
data: {name}.jsonl
params: {{title: Better, guideline: Prefer care., pay_sats: 3, overlap: 9, least_seconds: 0, {more}}}
trust: {{class: public}}
budget: {{max_sats: 8000}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A coordinator whose page keeps its address over a restart."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = World(tmp_path_factory.mktemp("people"), {"SHARDWORK_WEB": f"127.0.0.1:{port}"})
    try:
        found.start(sats=20_000)
        yield found
    finally:
        found.stop()


def asked(world: World, name: str, rows: list[dict[str, Any]], more: str) -> str:
    """The job, once people may answer."""
    (world.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (world.folder / f"{name}.yaml").write_text(JOB.format(name=name, more=more), encoding="utf-8")
    job = world.submit(f"{name}.yaml")
    ready = "select 1 from round where job_id = ? and phase = 'ask' and state = 'open'"
    world.until(lambda: bool(world.rows(ready, job)), "people to be asked")
    return job


def pair(number: int, good: int, *, gold: bool = False) -> dict[str, Any]:
    """A row whose answer at `good` is the better one."""
    texts = [GOOD, BAD] if good == 0 else [BAD, GOOD]
    answers = [{"model": f"m{at}", "text": text} for at, text in enumerate(texts)]
    row: dict[str, Any] = {"prompt": f"Question {number}?", "answers": answers}
    return row | ({"gold": {"winner": "ab"[good]}} if gold else {})


@pytest.fixture(scope="module")
def plain(world: World) -> str:
    """Nobody is tested, so every answer is paid."""
    rows = [pair(number, number % 2) for number in range(12)]
    return asked(world, "plain", rows, "gold_share: 0, repeat_share: 0, reasons: [clear, short], scores: [helpful]")


@pytest.fixture(scope="module")
def tested(world: World) -> str:
    """Half of the items have a known answer."""
    rows = [pair(number, number % 2, gold=number >= 30) for number in range(60)]
    return asked(world, "tested", rows, "gold_share: 0.5, repeat_share: 0.2")


class Sitting(Visit):
    """Somebody at the real page, who knows what their browser shows."""

    def __init__(self, browser: Any, world: World, job: str, size: str, name: str) -> None:
        super().__init__(browser, None, world.processes.web, size)  # type: ignore[arg-type]  # nobody is played
        self.world = world
        stage = world.rows("select name from stage where job_id = ?", job)[0][0]
        self.page.goto(f"{self.web}/people#{job}/{stage}")
        self.page.fill("#join [name=name]", name)
        self.page.click("#join button")
        self.page.click(".begin a")

    def lease(self) -> str:
        """Of the item that may be answered now."""
        self.page.wait_for_selector(".item .bar:not([data-early]):not([aria-busy=true])")
        return str(self.page.get_attribute(".item", "data-lease"))

    def shown(self) -> list[str]:
        return [text.strip() for text in self.page.locator(".answer .text").all_inner_texts()]

    def good(self) -> str:
        """The key of the better answer."""
        return "12"[self.shown().index(GOOD)]

    def does(self, act: Callable[[], object]) -> str:
        """One answer; the lease of its item, once the next one is there."""
        lease = self.lease()
        act()
        self.gone(lease)
        return lease

    def gone(self, lease: str) -> None:
        self.page.wait_for_selector(f".item:not([data-lease='{lease}']), .panel")

    def row(self, lease: str) -> dict[str, Any]:
        names = ("state", "phase", "answer_json", "shown", "ms", "price_msat")
        (found,) = self.world.rows(f"select {', '.join(names)} from vote where id = ?", lease)
        row = dict(zip(names, found, strict=True))
        return row | {"answer": json.loads(row["answer_json"]) if row["answer_json"] else None}


def own_order(shown: str, pressed: str) -> str:
    """What was pressed, as the item itself has it."""
    return "ab"[[int(one) for one in shown.split(",")]["ab".index(pressed)]] if pressed in "ab" else pressed


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_every_key_and_gesture_is_its_row(browser: Any, world: World, plain: str, size: str) -> None:
    sitting = Sitting(browser, world, plain, size, f"Mira {size}")
    press = sitting.page.keyboard.press
    acts: list[tuple[str, Callable[[], object]]] = [
        ("a", lambda: press("1")),
        ("b", lambda: press("2")),
        ("tie", lambda: press("0")),
        ("both_bad", lambda: press("b")),
    ]
    if size == "phone":
        acts += [("a", lambda: sitting.draws("left")), ("b", lambda: sitting.draws("right"))]
    else:
        acts += [("a", lambda: sitting.page.click("[data-winner=a]"))]
        acts += [("b", lambda: sitting.page.dblclick("[data-winner=b]"))]
    for wanted, act in acts:
        row = sitting.row(sitting.does(act))
        assert row["answer"] == {"answer": {"winner": own_order(row["shown"], wanted)}}
        assert row["state"] in ("cast", "held", "paid")
        assert row["price_msat"] == 3_000
        assert row["ms"] > 0
    skipped = sitting.does(lambda: press("s"))
    assert sitting.row(skipped)["state"] == "skipped"
    undone = sitting.does(lambda: press("1"))
    next_one = sitting.lease()
    press("u")
    sitting.page.wait_for_selector(f".item[data-lease='{undone}']")
    assert sitting.row(undone)["state"] == "given"
    assert sitting.row(undone)["answer"] is None
    sitting.page.check(".tag:nth-of-type(1) input")
    for at in (0, 1):
        sitting.page.check(f".points >> nth={at} >> input[value='{at + 3}']")
    sitting.does(lambda: press("0"))
    row = sitting.row(undone)
    scores = [3, 4] if row["shown"] == "0,1" else [4, 3]
    assert row["answer"] == {"answer": {"winner": "tie"}, "reasons": ["clear"], "scores": {"helpful": scores}}
    # the item that was put aside meanwhile was given once only
    assert sitting.lease() == next_one
    sitting.keeps_quiet()
    sitting.context.close()


def test_somebody_careful_practises_is_held_and_then_paid(browser: Any, world: World, tested: str) -> None:
    sitting = Sitting(browser, world, tested, "phone", "Careful")
    for left in (3, 2, 1):
        lease = sitting.lease()
        assert "Practice, unpaid" in sitting.page.inner_text(".item"), left
        sitting.page.keyboard.press(sitting.good())
        assert "That is right" in sitting.panel()
        assert sitting.row(lease)["state"] == "practice"
        sitting.page.keyboard.press("Enter")
        sitting.gone(lease)
    header = sitting.page.inner_text("header")
    assert "Held until 20 judged: 20 to go." in header
    assert "0 sat paid 0 sat held" in " ".join(header.split())
    done = 0
    while "Every answer is paid at once." not in sitting.page.inner_text("#standing"):
        sitting.does(lambda: sitting.page.keyboard.press(sitting.good()))
        sitting.lease()
        done += 1
    assert 6 <= done <= 40
    paid = "select count(*), sum(price_msat) from vote where job_id = ? and state = 'paid'"
    world.until(lambda: world.rows(paid, tested)[0][0] >= done - 1, "what was held to be paid")
    sitting.page.goto(f"{sitting.web}/people#money")
    sitting.page.wait_for_selector("#payout")
    sitting.page.fill("#payout input", "careful@simulated")
    sitting.page.click("#payout button")
    sitting.page.click("#withdraw button:enabled")
    said = "document.querySelector('main .said').innerText"
    sitting.seen.wait_for(f"{said}.includes('on their way to careful@simulated')")
    assert world.rows("select count(*) from payout where address = 'careful@simulated'") == [(1,)]
    sitting.page.goto(f"{sitting.web}/people#history")
    sitting.page.wait_for_selector(".vote")
    assert "paid" in sitting.page.inner_text("main")
    sitting.keeps_quiet()
    sitting.context.close()


def test_somebody_careless_is_stopped_unpaid_and_reads_why(browser: Any, world: World, tested: str) -> None:
    sitting = Sitting(browser, world, tested, "desktop", "Careless")
    leases: list[str] = []
    heading = "document.querySelector('main h1').innerText"
    while sitting.page.evaluate(heading) != "You were stopped in this task":
        assert len(leases) < 30
        # practice and refusals wait until they are read
        if sitting.page.locator(".panel").count():
            sitting.page.keyboard.press("Enter")
            sitting.seen.wait_for(f"!document.querySelector('.panel') || {heading}.startsWith('You were')")
            continue
        leases.append(sitting.lease())
        sitting.page.keyboard.press("21"["12".index(sitting.good())])
        sitting.gone(leases[-1])
    assert "somebody who does not look" in sitting.panel()
    states = {sitting.row(lease)["state"] for lease in leases}
    assert states <= {"practice", "rejected", "expired"}, states
    assert "rejected" in states
    sitting.page.goto(f"{sitting.web}/people#money")
    sitting.page.wait_for_selector("#withdraw")
    assert "There is nothing to take out yet." in sitting.page.inner_text("main")
    sitting.context.close()


def test_a_coordinator_that_dies_gets_the_answer_when_it_is_back(browser: Any, world: World, plain: str) -> None:
    sitting = Sitting(browser, world, plain, "phone", "Patient")
    lease = sitting.lease()
    world.kill_coordinator()
    sitting.page.keyboard.press("1")
    assert "Your answer is kept" in sitting.panel()
    assert "1 answer is kept on this device" in sitting.page.inner_text("#connection")
    world.start_coordinator()
    sitting.page.wait_for_selector(f".item:not([data-lease='{lease}'])", timeout=60_000)
    row = sitting.row(lease)
    assert row["answer"] == {"answer": {"winner": own_order(row["shown"], "a")}}
    books = world.books()
    assert books["balanced"] and books["violations"] == []
    sitting.context.close()
