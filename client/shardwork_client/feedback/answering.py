"""What is pressed in a terminal as the answer to one task, for every kind of task: the page's keys.

Owns which keys mean what, and nothing of what is sent when. Called by `voting`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import typer

from ..outcome import say
from ..render import clean

Task = Mapping[str, Any]
Key = Callable[[], str]
#: a text, mended; None or the same text: nothing was changed
Edit = Callable[[str], str | None]

WINNERS = {"1": "a", "2": "b", "0": "tie", "b": "both_bad"}
VERDICTS = {"k": "keep", "d": "discard", "e": "edit"}
#: skip, report, undo, leave: in every kind
COMMANDS = ("s", "r", "u", "q")
POINTS = ("1", "2", "3", "4", "5")
#: what terminals send for the key that takes the last one away
BACK = ("\x7f", "\b", "-")
_HELP = {
    "compare": "1 first · 2 second · 0 tie · b both bad",
    "rank": "the answers' numbers, the best first · Backspace the last one again",
    "score": "1 to 5 for each scale in turn · Backspace the last one again",
    "review": "k keep · d throw away · e mend",
}
#: kinds that a terminal can answer
KINDS = frozenset(_HELP)


def help_of(task: Task) -> str:
    return f"{_HELP[task['kind']]} · s skip · r report · u undo · q leave"


def answer(task: Task, key: Key, edit: Edit) -> dict[str, Any] | str:
    """The answer, or the command that was pressed instead."""
    match task["kind"]:
        case "rank":
            places = [str(place) for place in range(1, len(task["answers"]) + 1)]
            told = in_turn(
                key, len(places), lambda taken: [one for one in places if one not in taken], "place {}".format
            )
            return told if isinstance(told, str) else {"ranking": [int(one) - 1 for one in told]}
        case "score":
            names: list[str] = [clean(name) for name in task["scores"]]
            told = in_turn(key, len(names), lambda _: POINTS, lambda at: names[at - 1])
            return told if isinstance(told, str) else {"scores": dict(zip(task["scores"], map(int, told), strict=True))}
        case "review":
            return _reviewed(task, key, edit)
        case _:
            pressed = _known(key, WINNERS)
            return pressed if pressed in COMMANDS else {"winner": WINNERS[pressed]}


def in_turn(
    key: Key, count: int, allowed: Callable[[list[str]], Collection[str]], name: Callable[[int], str]
) -> list[str] | str:
    """So many keys one after the other; or a command, which lets go of those that were pressed."""
    taken: list[str] = []
    while len(taken) < count:
        pressed = key()
        if pressed in COMMANDS:
            return pressed
        if pressed in BACK:
            taken = taken[:-1]
            say(f"  {' '.join(taken) or 'nothing yet'}")
        elif pressed in allowed(taken):
            taken.append(pressed)
            say(f"  {name(len(taken))}: {pressed}")
    return taken


def _reviewed(task: Task, key: Key, edit: Edit) -> dict[str, Any] | str:
    while True:
        pressed = _known(key, VERDICTS)
        if pressed in COMMANDS:
            return pressed
        if pressed != "e":
            return {"verdict": VERDICTS[pressed]}
        before = str(task["answers"][0])
        text = edit(before)
        if text and text.strip() and text.strip() != before.strip():
            return {"verdict": "edit", "text": text}
        say("Nothing was mended: press k to keep it as it is.")


def _known(key: Key, meant: Collection[str]) -> str:
    while True:
        pressed = key()
        if pressed in meant or pressed in COMMANDS:
            return pressed


# ---- the terminal -------------------------------------------------------------------------------------------------


def pressed_key() -> str:
    """A key of the terminal, or a line of a pipe; its end leaves."""
    if sys.stdin.isatty():
        return typer.getchar().lower()
    line = sys.stdin.readline()
    return line.strip().lower() if line else "q"


def mended(text: str) -> str | None:
    """In the person's own editor; of a pipe, the next line."""
    if sys.stdin.isatty():
        return _edited(text)
    return sys.stdin.readline().rstrip("\n")


def _edited(text: str) -> str | None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.txt"
        file.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
            # editors end a file with a line's end, which nobody typed
            return file.read_text(encoding="utf-8", errors="replace").removesuffix("\n")
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            say(f"The editor {editor!r} did not do it ({error}). Set EDITOR to one that is installed.")
            return None
