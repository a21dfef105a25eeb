"""`feedback vote`: a prompt and its answers on the terminal, answered by keys; for people who live in one.

Shows strangers' text cleaned; owns what is drawn and sent when. Keys are `answering`'s; money, order and tests the
coordinator's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.panel import Panel
from rich.text import Text

from shardwork.client.feedback.annotator import Annotator
from shardwork.errors import Conflict, InvalidInput
from shardwork.money import show as sats

from ..outcome import say
from ..render import clean, console, prose
from .answering import KINDS, Edit, Key, answer, help_of, mended

Task = dict[str, Any]
REPORTED = "unsuitable"


@dataclass(slots=True)
class Sat:
    """What somebody did in one sitting."""

    votes: int = 0
    skipped: int = 0
    undone: int = 0
    state: str = ""
    paid_msat: int = 0
    held_msat: int = 0


def sit(annotator: Annotator, key: Key, edit: Edit = mended) -> Sat:
    """Until there is nothing left, or they leave."""
    done, last = Sat(), ""
    task: Task | None = None
    while True:
        given = {"task": task} if task is not None else annotator.next()
        task = given["task"]
        if task is None:
            why = given.get("why") or {}
            say(f"{clean(str(why.get('sentence', 'Nothing is left to judge.')))}")
            return done
        if task["kind"] not in KINDS:
            raise InvalidInput(
                "feedback.kind_needs_page",
                f"Tasks of kind {task['kind']!r} are answered on the page.",
                next_step=f"Open {annotator.place.web}/people",
            )
        _show(task)
        begun = annotator.clock.monotonic()
        pressed = answer(task, key, edit)
        match pressed:
            case "q":
                return done
            case "s" | "r":
                name, body = ("skip", {}) if pressed == "s" else ("report", {"reason": REPORTED})
                annotator.call(name, {"lease": task["lease"], **body})
                done.skipped += 1
                task = None
            case "u":
                again = _undone(annotator, last, task, done)
                last, task = ("" if again is not task else last), again
            case _:
                seconds = annotator.clock.monotonic() - begun
                _tell(_voted(annotator, task, pressed, seconds), done)
                last, task = task["lease"], None


def introduce(annotator: Annotator) -> None:
    """What is asked, by which guideline and for how much, before anybody begins; nothing where it is not listed."""
    told = annotator.told()
    if told is None:
        return
    head = f"{clean(str(told['title']))} · {sats(told['pay_msat'])} an answer · {told['left']:,} items left"
    guideline = prose(str(told["guideline"])) or "No guideline is given."
    console(stderr=True).print(Panel(Text(guideline), title=Text(head), title_align="left"))


def _voted(annotator: Annotator, task: Task, given: object, seconds: float) -> Task:
    body = {"lease": task["lease"], "answer": given, "ms": round(seconds * 1000)}
    return annotator.call("vote", body)


def _undone(annotator: Annotator, last: str, task: Task, done: Sat) -> Task:
    """The task before again; the one on the screen stays theirs and comes after it."""
    if not last:
        say("There is nothing to take back.")
        return task
    try:
        again: Task = annotator.call("undo", {"lease": last})["task"]
    except Conflict as error:
        say(error.why.sentence)
        return task
    done.undone += 1
    done.votes -= 1
    return again


def _tell(told: Mapping[str, Any], done: Sat) -> None:
    me, mine, practice = told.get("me", {}), told.get("mine", {}), told.get("practice")
    done.votes += 1
    done.state = str(mine.get("state", ""))
    done.paid_msat, done.held_msat = int(me.get("paid_msat", 0)), int(me.get("held_msat", 0))
    if practice:
        say(f"{'✓' if practice.get('right') else '✗'} {clean(str(practice.get('sentence', '')))}")
    say(f"  {clean(str(told.get('state', '')))} · paid {sats(done.paid_msat)} · held {sats(done.held_msat)}")


def _show(task: Task) -> None:
    # data is the summary at the end; what is looked at meanwhile is for the person
    out = console(stderr=True)
    title = f"{task['number']}{' · practice' if task['practice'] else ''} · {sats(task['pay_msat'])}"
    out.print(Panel(Text(prose(task["prompt"])), title=title, title_align="left"))
    for place, text in enumerate(task["answers"], 1):
        out.print(Panel(Text(prose(text)), title=str(place), title_align="left"))
    say(help_of(task))
