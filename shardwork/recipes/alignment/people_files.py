"""Files of a people stage: phase `split`: rows become items. What becomes of votes is `judgements`.

Reads what requesters sent, so every line is bounded and checked; what can't be asked is refused with its line.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ...errors import InvalidInput
from ..base import Computed, Context
from .people_orders import ItemsOrder
from .phases.golds import WANTED, known, made

#: of one line, and of one text that is shown
MOST_LINE_LETTERS, MOST_TEXT_LETTERS = 4 << 20, 40_000
#: items whose answer is known
MOST_GOLDS = 2_000
#: what an item of a kind shows when it is one answer
_ONE = ("completion", "answer", "response", "text")

Item = dict[str, Any]


def split(order: ItemsOrder, context: Context) -> Computed:
    """Items in an order that is a function of the seed; those with a `gold` come after all others. Where no row has
    one, comparisons are tested by some that are made (`golds`)."""
    chosen = random.Random(order.seed)
    items: list[Item] = []
    golds: list[Item] = []
    rows = 0
    for path, number, row in _rows(context.inputs["data"]):
        rows += 1
        for item in _items_of(row, order, chosen, path, number):
            (golds if "gold" in item else items).append(item)
    chosen.shuffle(items)
    items, golds = items[: order.most_items], golds[:MOST_GOLDS]
    if order.makes_golds and not golds:
        golds = made(items, chosen)
    if not items:
        raise InvalidInput(
            "people.no_items",
            "No row of the data can be asked.",
            next_step="Rows need a prompt and answers; those with `gold` only test people.",
        )
    folder = context.output("items")
    letters = _write_items(folder, items, golds)
    metrics = {"rows": float(rows), "items": float(len(items)), "golds": float(len(golds)), "letters": letters}
    return Computed(outputs={"items": folder}, metrics=metrics)


# ---- inside -------------------------------------------------------------------------------------------------------


def _rows(folder: Path) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix not in (".jsonl", ".json"):
            continue
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number in itertools.count(1):
                line = lines.readline(MOST_LINE_LETTERS)
                if not line:
                    break
                if line.strip():
                    yield path, number, _object(line, path, number)


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise _bad("people.bad_row", "A row is not a JSON object.", path, number)
    return cast("dict[str, Any]", row)


def _items_of(row: dict[str, Any], order: ItemsOrder, chosen: random.Random, path: Path, number: int) -> list[Item]:
    prompt = _prompt(row, path, number)
    answers = _answers(row, order, path, number)
    shared: Item = {"prompt_id": str(_given(row, "prompt_id", f"{path.stem}:{number}"))[:200], "prompt": prompt}
    if isinstance(row.get("prompt"), list):
        shared["messages"] = row["prompt"]  # what people read is text; what is learned from it stays a conversation
    wanted = order.answers if order.kind in ("compare", "rank") else 1
    gold: Item = {}
    if row.get("gold") is not None:
        gold["gold"] = known(row["gold"], order.kind, wanted)
        if gold["gold"] is None:
            sentence = f"A row's gold is no answer that people could give: it is {WANTED[order.kind]}."
            raise _bad("people.bad_gold", sentence, path, number)
    if len(answers) < wanted:
        sentence = f"A row has {len(answers)} answers, and kind {order.kind!r} needs {wanted}."
        raise _bad("people.few_answers", sentence, path, number)
    groups = list(itertools.combinations(range(len(answers)), wanted))
    if gold:
        groups = groups[:1]
    elif order.kind == "compare":
        # equal answers leave nothing to choose
        groups = [group for group in groups if len({answers[one][1].strip() for one in group}) > 1]
        groups = chosen.sample(groups, min(order.pairs_per_prompt, len(groups)))
    else:
        groups = groups[:1]
    return [
        {
            **shared,
            "models": [answers[one][0] for one in group],
            "answers": [answers[one][1] for one in group],
            **gold,
        }
        for group in groups
    ]


def _given(row: dict[str, Any], key: str, default: str) -> object:
    """A name that is empty names nothing."""
    return default if row.get(key) in (None, "") else row[key]


def _prompt(row: dict[str, Any], path: Path, number: int) -> str:
    prompt = row.get("prompt", "")
    if isinstance(prompt, list):
        turns = [cast("dict[str, Any]", one) for one in cast("list[object]", prompt) if isinstance(one, dict)]
        prompt = "\n\n".join(f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in turns)
    if not isinstance(prompt, str):
        raise _bad("people.bad_row", 'A row has a "prompt" that is no text.', path, number)
    return _text(prompt, path, number)


def _answers(row: dict[str, Any], order: ItemsOrder, path: Path, number: int) -> list[tuple[str, str]]:
    """(model, text) of each answer that the row has."""
    given = row.get("answers")
    if given is None and "chosen" in row and "rejected" in row:
        given = [{"model": name, "text": row[name]} for name in ("chosen", "rejected")]
    if given is None:
        given = [row[name] for name in _ONE if name in row][:1]
    if not isinstance(given, list):
        raise _bad("people.bad_row", 'A row has "answers" that are no list.', path, number)
    found: list[tuple[str, str]] = []
    for one in cast("list[object]", given):
        answer = cast("dict[str, Any]", one) if isinstance(one, dict) else {"text": one}
        text = answer.get("text", answer.get("content"))
        if not isinstance(text, str):
            raise _bad("people.bad_row", "A row has an answer that is no text.", path, number)
        found.append((str(answer.get("model", ""))[:200], _text(text, path, number)))
    return found


def _text(text: str, path: Path, number: int) -> str:
    if len(text) > MOST_TEXT_LETTERS:
        raise _bad("people.long_text", f"A text has more than {MOST_TEXT_LETTERS:,} letters.", path, number)
    # halves of a pair can't be written, and NUL can't be shown
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def _write_items(folder: Path, items: list[Item], golds: list[Item]) -> float:
    """The lines, where each begins, and the mean number of letters."""
    offsets, letters, longer = [0], 0, list[int]()
    with (folder / "items.jsonl").open("wb") as sink:
        for item in [*items, *golds]:
            letters += len(item["prompt"]) + sum(len(one) for one in item["answers"])
            longer.append(_longer(item["answers"]))
            offsets.append(offsets[-1] + sink.write(_line(item).encode()))
    index = {"items": len(items), "golds": len(golds), "offsets": offsets, "longer": longer}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return letters / max(len(items) + len(golds), 1)


def _longer(answers: list[str]) -> int:
    """Which of two has more letters; -1: neither, or they are not two."""
    if len(answers) != 2 or len(answers[0]) == len(answers[1]):
        return -1
    return int(len(answers[1]) > len(answers[0]))


def _bad(code: str, sentence: str, path: Path, number: int) -> InvalidInput:
    return InvalidInput(code, sentence, next_step="Mend the file and submit it again.", file=path.name, line=number)


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
