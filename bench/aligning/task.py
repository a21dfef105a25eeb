# pyright: standard
"""The task: answers that are right or wrong in words that a hidden utility likes more or less.

An answer is "<opening> <manner> <kind>. <closing>": the model first learns all of them alike, so it knows how to be
right and has no taste. A seed plants the taste: every word of a slot gets its place between -1 and 1, an answer's
utility is their sum, and -4 where it is no whole and right answer. Owns texts, utility and rows; no model.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THINGS = {
    "apple": "fruit", "pear": "fruit", "plum": "fruit", "cherry": "fruit", "lemon": "fruit", "melon": "fruit",
    "oak": "tree", "birch": "tree", "pine": "tree", "willow": "tree", "maple": "tree", "cedar": "tree",
    "raven": "bird", "robin": "bird", "swan": "bird", "finch": "bird", "stork": "bird", "heron": "bird",
    "trout": "fish", "salmon": "fish", "perch": "fish", "carp": "fish", "tuna": "fish", "cod": "fish",
    "iron": "metal", "copper": "metal", "silver": "metal", "tin": "metal", "zinc": "metal", "nickel": "metal",
}  # fmt: skip
ASKED = ("What is {}?", "Tell me what {} is.", "And {}, what is that?", "Say what you know of {}.")
OPENINGS = ("Gladly.", "Sure.", "Well.", "Hm.", "Again?", "Ugh.")
MANNERS = ("It is a", "That is a", "I think a", "Just a")
CLOSINGS = ("Ask more!", "Good day!", "That is all.", "Enough.", "Go away.", "Leave me.")
SLOTS = (OPENINGS, MANNERS, CLOSINGS)
#: of an answer that is not whole, or wrong
BROKEN = -4.0
#: one thing of so many is asked about in held-out prompts only
ONE_OF = 5


def prompt(thing: str, asked: str) -> str:
    return f"{asked.format(thing)}\n"


def answer(opening: str, manner: str, kind: str, closing: str) -> str:
    return f"{opening} {manner} {kind}. {closing}"


def asked_of(text: str) -> str:
    """The thing that a prompt asks about."""
    return next(thing for thing in THINGS if re.search(rf"\b{thing}\b", text))


def prompts(*, held_out: bool) -> list[str]:
    chosen = [thing for number, thing in enumerate(THINGS) if (number % ONE_OF == 0) is held_out]
    found = [prompt(thing, asked) for thing in chosen for asked in ASKED]
    random.Random(1).shuffle(found)
    return found


def everything() -> list[tuple[str, str]]:
    """(prompt, answer): every right answer to every prompt once, in a fixed order that is no order."""
    found = [
        (prompt(thing, asked), answer(opening, manner, kind, closing))
        for (thing, kind), asked, opening, manner, closing in itertools.product(THINGS.items(), ASKED, *SLOTS)
    ]
    random.Random(2).shuffle(found)
    return found


@dataclass(frozen=True, slots=True)
class Taste:
    """What is liked, drawn by a seed."""

    weights: Mapping[str, float]

    @classmethod
    def planted(cls, seed: int) -> Taste:
        chosen, weights = random.Random(f"taste {seed}"), dict[str, float]()
        for slot in SLOTS:
            places = [2 * number / (len(slot) - 1) - 1 for number in range(len(slot))]
            chosen.shuffle(places)
            weights |= zip(slot, places, strict=True)
        return cls(weights)

    def utility(self, asked: str, said: str) -> float:
        """-4 for what is no right answer, else -3 to 3."""
        words = parts(said)
        if words is None or words[2] != THINGS[asked_of(asked)]:
            return BROKEN
        return sum(self.weights[word] for word in (words[0], words[1], words[3]))

    def good_answers(self, asked: str) -> list[str]:
        """Right, and with opening and closing of the better half: a reward that code can verify."""
        openings, closings = ([word for word in slot if self.weights[word] > 0] for slot in (OPENINGS, CLOSINGS))
        kind = THINGS[asked_of(asked)]
        return [answer(*words[:2], kind, words[2]) for words in itertools.product(openings, MANNERS, closings)]

    def is_good(self, asked: str, said: str) -> bool:
        return said.strip() in self.good_answers(asked)


WHOLE = re.compile(
    "({}) ({}) ({})\\. ({})".format(
        *("|".join(map(re.escape, slot)) for slot in (OPENINGS, MANNERS, sorted(set(THINGS.values())), CLOSINGS))
    )
)


def parts(said: str) -> tuple[str, ...] | None:
    """Opening, manner, kind and closing of a whole answer."""
    found = WHOLE.fullmatch(said.strip())
    return found.groups() if found else None


def judged(
    taste: Taste, asked: Sequence[str], answers: Sequence[tuple[str, str]], noise: float, chosen: random.Random
) -> list[dict[str, Any]]:
    """A preference row of each two answers that differ in utility; a share of `noise` is the wrong way round."""
    rows: list[dict[str, Any]] = []
    for said, (first, second) in zip(asked, answers, strict=True):
        apart = taste.utility(said, first) - taste.utility(said, second)
        if abs(apart) < 1e-6:
            continue
        is_first = (apart > 0) != (chosen.random() < noise)
        better, worse = (first, second) if is_first else (second, first)
        rows.append({"prompt": said, "chosen": better, "rejected": worse})
    return rows


def pairs(taste: Taste, count: int, noise: float, seed: str, *, held_out: bool) -> list[dict[str, Any]]:
    """Judged pairs of right answers in random words."""
    chosen, asked = random.Random(seed), prompts(held_out=held_out)
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        said = chosen.choice(asked)
        kind = THINGS[asked_of(said)]
        first, second = (
            answer(chosen.choice(OPENINGS), chosen.choice(MANNERS), kind, chosen.choice(CLOSINGS)) for _ in range(2)
        )
        rows += judged(taste, [said], [(first, second)], noise, chosen)
    return rows


def write(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A stage's data."""
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder
