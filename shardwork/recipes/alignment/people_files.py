"""Files of a people stage: rows become items, accepted votes become rows. Run by the executor.

Reads what requesters sent, so every line is bounded and checked; what can't be asked is refused with its line.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ...errors import InvalidInput
from ...feedback.votes import Order, Vote, Winner, ranked
from ..base import Computed, Context
from .guards.wins import wins_in
from .people_orders import ItemsOrder, VotesOrder
from .phases.golds import OUTCOMES, known, made
from .phases.items import item_row, write_items
from .phases.preference import preference_row

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


def join(order: VotesOrder, context: Context) -> Computed:
    """Every accepted vote as a row, and what they say together of each item."""
    items = _read(context.inputs["items"] / "items.jsonl")
    votes = _read(context.inputs["votes"] / "votes.jsonl")
    of_item: dict[int, list[dict[str, Any]]] = defaultdict(list)
    folder = context.output("votes")
    with (folder / "votes.jsonl").open("w", encoding="utf-8") as sink:
        for vote in votes:
            item: int = vote["item"]
            of_item[item].append(vote)
            sink.writelines(_line(row) for row in _vote_rows(items[item], vote))
    write_items(folder, (_item_row(number, items[number]) for number in sorted(of_item)))
    rows = context.output("rows")
    made = 0
    with (rows / "preferences.jsonl").open("w", encoding="utf-8") as sink:
        for number in sorted(of_item):
            for row in _agreed(order, items[number], of_item[number]):
                made += 1
                sink.write(_line(row))
    metrics = {"votes": float(len(votes)), "rows": float(made)}
    if order.kind in ("compare", "rank"):
        metrics |= wins_in(folder / "votes.jsonl")
    return Computed(outputs={"votes": folder, "rows": rows}, metrics=metrics)


# ---- rows to items ------------------------------------------------------------------------------------------------


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
    shared: Item = {"prompt_id": str(row.get("prompt_id", f"{path.stem}:{number}"))[:200], "prompt": prompt}
    if isinstance(row.get("prompt"), list):
        shared["messages"] = row["prompt"]  # what people read is text; what is learned from it stays a conversation
    gold: Item = {}
    if row.get("gold") is not None:
        gold["gold"] = known(row["gold"])
        if gold["gold"] is None:
            sentence = f"A row's gold is none of {', '.join(OUTCOMES)}."
            raise _bad("people.bad_gold", sentence, path, number)
    wanted = order.answers if order.kind in ("compare", "rank") else 1
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


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


# ---- votes to rows ------------------------------------------------------------------------------------------------


def _vote_rows(item: Item, vote: dict[str, Any]) -> list[dict[str, Any]]:
    """One, or of a ranking one for each pair."""
    models = _models(item)
    row = {
        "prompt_id": item["prompt_id"],
        "item": vote["item"],
        "model_a": models[0],
        "model_b": models[-1] if len(models) > 1 else "",
        "order": "ab" if vote["shown"] == sorted(vote["shown"]) else "ba",
        "annotator": vote["annotator"],
        "ms": vote["ms"],
        "job": vote["job"],
        "source": "people",
        **vote["answer"],
    }
    row |= {name: vote[name] for name in ("scores", "reasons", "comment") if vote.get(name)}
    ranking = vote["answer"].get("ranking")
    return [row] if ranking is None else [row | pair for pair in _ranked_pairs(models, ranking, vote["shown"])]


def _ranked_pairs(models: list[str], ranking: list[int], shown: list[int]) -> list[dict[str, Any]]:
    """What of a vote's row is each pair's own."""
    blank = Vote(prompt_id="", item="", model_a="", model_b="", winner=Winner.A, order=Order.AB, annotator="")
    own = ("model_a", "model_b", "answer_a", "answer_b", "winner", "order")
    return [{name: getattr(one, name) for name in own} for one in ranked(blank, models, ranking, shown)]


def _models(item: Item) -> list[str]:
    """Answers of which nobody said whose they are go by their place."""
    return [model or f"answer {place}" for place, model in enumerate(item["models"], 1)]


def _item_row(number: int, item: Item) -> dict[str, Any]:
    answers = zip(_models(item), item["answers"], strict=True)
    return item_row(number, item["prompt_id"], item["messages"] if "messages" in item else item["prompt"], answers)


def _agreed(order: VotesOrder, item: Item, votes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    prompt = item.get("messages", item["prompt"])
    named = {"prompt_id": item["prompt_id"], "votes": len(votes)}
    shared = {"prompt": prompt, **named}
    if order.kind == "compare":
        counts = Counter(vote["answer"]["winner"] for vote in votes)
        a, b = counts["a"], counts["b"]
        if a == b or (order.consensus == "unanimous" and max(a, b) < len(votes)):
            return []
        chosen, rejected = item["answers"] if a > b else item["answers"][::-1]
        # of those who chose: what `confidence` means to who learns from it, a half at least
        return _preferred(prompt, chosen, rejected, **named, confidence=max(a, b) / (a + b))
    if order.kind == "review":
        verdicts = Counter(vote["answer"]["verdict"] for vote in votes)
        verdict, count = min(verdicts.items(), key=lambda one: (-one[1], one[0]))
        edits = [vote["answer"]["text"] for vote in votes if vote["answer"]["verdict"] == "edit"]
        if verdict == "discard":
            return []
        text = edits[0] if verdict == "edit" else item["answers"][0]
        return [{**shared, "completion": text, "confidence": count / len(votes)}]
    if order.kind == "rank":
        ranks = [sum(vote["answer"]["ranking"].index(one) for vote in votes) for one in range(len(item["answers"]))]
        best, worst = ranks.index(min(ranks)), ranks.index(max(ranks))
        if best == worst:
            return []
        return _preferred(prompt, item["answers"][best], item["answers"][worst], **named)
    means = {name: sum(vote["answer"]["scores"][name] for vote in votes) / len(votes) for name in order.scores}
    return [{**shared, "completion": item["answers"][0], "scores": means}]


def _preferred(prompt: Any, chosen: str, rejected: str, **more: Any) -> list[dict[str, Any]]:
    """A row to learn from; none where the better answer says nothing, or both the same."""
    if not chosen.strip() or chosen.strip() == rejected.strip():
        return []
    return [preference_row(prompt, chosen, rejected, **more)]


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
