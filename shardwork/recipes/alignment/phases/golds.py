"""Golds: items whose answer is known, by which it is told who looks and who guesses.

Owns how a row says its answer, and items that are made where no row does: an answer against its own words in another
order, which anybody who reads tells apart. Whether the answer is any good nobody knows, so that "both bad" and "tie"
are not refuted by such an item; `made` marks it. Pure; called by `people_files`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import Any, cast

OUTCOMES = ("a", "b", "tie", "both_bad")
VERDICTS = ("keep", "discard", "edit")
#: kind -> what its gold may be, as a clause
WANTED = {
    "compare": f"one of {', '.join(OUTCOMES)}",
    "rank": 'as in {"ranking": [1, 0]}, each place once, the best first',
    "score": 'as in {"scores": {"helpful": 4}}, from 1 to 5',
    "review": 'as in {"verdict": "keep"}: ' + ", ".join(VERDICTS),
}
#: of an answer that is shuffled: fewer words may still make sense, and more say no more
LEAST_WORDS, MOST_WORDS = 6, 120
#: made for so many items each, and no more than this
ITEMS_A_GOLD, MOST_MADE = 10, 40
#: as many as it takes to tell a newcomer what is asked and still to hide some
LEAST_MADE = 8


def known(value: object, kind: str, shown: int) -> Mapping[str, Any] | None:
    """A row's `gold`: an outcome's name, or an answer as the page sends it, to a task of this kind that shows so many
    answers. None where nobody could answer that: all who look would be stopped for it."""
    given = {"winner": value} if isinstance(value, str) else value
    if not isinstance(given, dict) or len(cast("dict[str, Any]", given)) != 1:
        return None
    [(name, said)] = cast("dict[str, Any]", given).items()
    match kind, name:
        case "compare", "winner":
            possible = said in OUTCOMES
        case "rank", "ranking":
            places = cast("list[object]", said) if isinstance(said, list) else []
            ints = [one for one in places if type(one) is int]
            possible = sorted(ints) == list(range(shown)) and len(places) == shown
        case "score", "scores":
            scales = cast("dict[str, object]", said) if isinstance(said, dict) else {}
            possible = bool(scales) and all(map(_is_score, scales.values()))
        case "review", "verdict":
            possible = said in VERDICTS
        case _:
            possible = False
    return cast("Mapping[str, Any]", given) if possible else None


def _is_score(value: object) -> bool:
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    return bool(values) and all(type(one) is int and 1 <= one <= 5 for one in values)


def made(items: Sequence[Mapping[str, Any]], chosen: random.Random) -> list[dict[str, Any]]:
    """Items of two answers that were not asked for, marked `made`; from answers with enough words, each used once, and
    of a usual length: those of a young model that run on are broken."""
    wanted = min(max(len(items) // ITEMS_A_GOLD, LEAST_MADE), MOST_MADE)
    lengths = [length for item in items for one in item["answers"] if (length := len(one.split())) >= LEAST_WORDS]
    usual = median_low(lengths) if lengths else 0
    found: list[dict[str, Any]] = []
    for item in chosen.sample(list(items), len(items)):
        if len(found) == wanted:
            break
        pairs = zip(item["answers"], item["models"], strict=True)
        text, model = min(pairs, key=lambda pair: abs(len(pair[0].split()) - usual))
        spoilt = _shuffled(text, chosen)
        if spoilt is None:
            continue
        is_first = chosen.random() < 0.5
        answers, models = [text, spoilt], [model, f"{model} (shuffled)"]
        found.append(
            {
                "prompt_id": item["prompt_id"],
                "prompt": item["prompt"],
                "models": models if is_first else models[::-1],
                "answers": answers if is_first else answers[::-1],
                "gold": {"winner": "a" if is_first else "b"},
                "made": True,
            }
        )
    return found


def _shuffled(text: str, chosen: random.Random) -> str | None:
    """The words in an order in which hardly any is where it was; None where that can't be."""
    words = text.split()
    if len(words) < LEAST_WORDS or len(set(words)) < LEAST_WORDS:
        return None
    head, tail = words[:MOST_WORDS], words[MOST_WORDS:]
    for _ in range(10):
        mixed = chosen.sample(head, len(head))
        if sum(one != other for one, other in zip(mixed, head, strict=True)) * 2 > len(head):
            return " ".join([*mixed, *tail])
    return None
