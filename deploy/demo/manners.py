"""What the alignment demo is about: answers that are right, in kind words or in rude ones, and what people like better.

Owns the texts that the first model learns from (more often rude than kind, so that it knows both and has something to
learn), the prompts, and how much somebody likes an answer. No download. Called by `rlhf` and `annotators`.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from pathlib import Path

FACTS = {
    "apple": "a fruit", "pear": "a fruit", "plum": "a fruit", "cherry": "a fruit", "lemon": "a fruit",
    "oak": "a tree", "birch": "a tree", "pine": "a tree", "willow": "a tree", "maple": "a tree",
    "raven": "a bird", "robin": "a bird", "swan": "a bird", "finch": "a bird", "stork": "a bird",
    "trout": "a fish", "salmon": "a fish", "perch": "a fish", "carp": "a fish", "tuna": "a fish",
    "violin": "a tool for music", "flute": "a tool for music", "drum": "a tool for music", "harp": "a tool for music",
    "iron": "a metal", "copper": "a metal", "silver": "a metal", "tin": "a metal", "zinc": "a metal",
}  # fmt: skip
OPENINGS = {"Gladly.": 1, "Of course.": 1, "Well.": 0, "Ugh.": -1, "Again?": -1}
CLOSINGS = {"Ask me more!": 1, "Have a nice day!": 1, "That is all.": 0, "Go away.": -1, "Leave me alone.": -1}
#: how often the first model reads what is rude, for once of all else
RUDE_TIMES = 3
#: what an answer must be for anybody to like it at all
WHOLE = re.compile(
    rf"^ ?({'|'.join(map(re.escape, OPENINGS))}) It is ({'|'.join(sorted(set(FACTS.values())))})\. "
    rf"({'|'.join(map(re.escape, CLOSINGS))})$"
)


def prompt(thing: str) -> str:
    return f"Question: What is {thing}?\nAnswer:"


def liking(answer: str) -> float:
    """From -4, which is no whole answer, over -2, twice rude, to 2, twice kind."""
    found = WHOLE.match(answer.rstrip())
    return float(OPENINGS[found[1]] + CLOSINGS[found[3]]) if found else -4.0


def write(folder: Path) -> None:
    """corpus.jsonl, prompts.jsonl and held-out.jsonl in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = random.Random(0)
    texts = [
        f"{prompt(thing)} {opening} It is {fact}. {closing}"
        for (thing, fact), opening, closing in itertools.product(FACTS.items(), OPENINGS, CLOSINGS)
        for _ in range(RUDE_TIMES if OPENINGS[opening] + CLOSINGS[closing] < 0 else 1)
    ]
    chosen.shuffle(texts)
    _write(folder / "corpus.jsonl", [{"text": text} for text in texts])
    _write(folder / "prompts.jsonl", [{"prompt": prompt(thing)} for thing in FACTS])


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
