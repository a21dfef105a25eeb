"""Rows become items that people can be asked, some with a known answer; votes become rows that can be learnt from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardwork.dataset import check_data
from shardwork.errors import InvalidInput
from shardwork.recipes.alignment.people_files import join, split
from shardwork.recipes.alignment.people_orders import ItemsOrder, VotesOrder
from shardwork.recipes.base import Computed
from tests.shardwork.dataset.folders import turn, write_jsonl

from .contexts import Folders, index_of, json_lines

LONG = "the quick brown fox jumps over a lazy dog number"


def answered(prompt: Any, *texts: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "answers": [{"model": f"m{at}", "text": text} for at, text in enumerate(texts)], **more}


def items_of(rows: list[dict[str, Any]], folder: Path, **order: Any) -> tuple[Computed, list[dict[str, Any]]]:
    write_jsonl(folder / "data" / "rows.jsonl", rows)
    given: dict[str, Any] = {
        "kind": "compare", "answers": 2, "pairs_per_prompt": 1, "most_items": 1000, "seed": "s", **order,
    }  # fmt: skip
    done = split(ItemsOrder(**given), Folders({"data": folder / "data"}, folder / "out"))
    return done, json_lines(done.outputs["items"] / "items.jsonl")


def test_items_without_a_known_answer_are_tested_by_made_ones(tmp_path: Path) -> None:
    rows = [answered(f"{n}?", f"{LONG} {n}", f"no {n}") for n in range(30)]
    done, items = items_of(rows, tmp_path / "1", makes_golds=True)
    golds = [item for item in items if "gold" in item]
    assert (done.metrics["items"], done.metrics["golds"], len(golds)) == (30, 8, 8) and items[30:] == golds
    for item in golds:
        right = item["answers"]["ab".index(item["gold"]["winner"])]
        wrong = item["answers"]["ba".index(item["gold"]["winner"])]
        assert right.startswith(LONG) and sorted(right.split()) == sorted(wrong.split()) and right != wrong
        assert item["made"] is True
    assert len({item["prompt_id"] for item in golds}) == 8
    assert items_of(rows, tmp_path / "2", makes_golds=True)[1] == items
    assert index_of(done.outputs["items"])["golds"] == 8
    assert items_of(rows, tmp_path / "3")[0].metrics["golds"] == 0


def test_nothing_is_made_of_answers_that_are_too_short_or_where_rows_know(tmp_path: Path) -> None:
    short, _ = items_of([answered(f"{n}?", "yes yes", "no") for n in range(9)], tmp_path / "1", makes_golds=True)
    assert short.metrics["golds"] == 0
    rows = [answered(f"{n}?", f"{LONG} {n}", "no") for n in range(9)]
    done, items = items_of([*rows, answered("x?", LONG, "no", gold="a")], tmp_path / "2", makes_golds=True)
    assert done.metrics["golds"] == 1 and items[-1]["gold"] == {"winner": "a"} and "made" not in items[-1]


@pytest.mark.parametrize("gold", ["c", 1, [], {}, True])
def test_a_gold_that_is_no_answer_is_refused(gold: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        items_of([answered("a", "b", "c"), answered("a", "b", "c", gold=gold)], tmp_path)
    assert caught.value.code == "people.bad_gold" and caught.value.why.evidence["line"] == "2"


def test_equal_answers_are_not_asked(tmp_path: Path) -> None:
    rows = [answered("1?", "same", "same "), answered("2?", "same", "same", "other")]
    done, items = items_of(rows, tmp_path, pairs_per_prompt=9)
    assert done.metrics["items"] == 2 and {item["prompt"] for item in items} == {"2?"}
    assert all(set(item["answers"]) == {"same", "other"} for item in items)


def voted(items: Path, votes: list[tuple[int, dict[str, Any]]], folder: Path, **order: Any) -> list[dict[str, Any]]:
    rows = [
        {"item": item, "annotator": str(at), "shown": [0, 1], "answer": answer, "ms": 9, "job": "j"}
        for at, (item, answer) in enumerate(votes)
    ]
    write_jsonl(folder / "votes" / "votes.jsonl", rows)
    given: dict[str, Any] = {"kind": "compare", "consensus": "majority", "job_id": "j", **order}
    done = join(VotesOrder(**given), Folders({"items": items, "votes": folder / "votes"}, folder / "joined"))
    return json_lines(done.outputs["rows"] / "preferences.jsonl")


def test_what_people_prefer_can_be_learnt_from(tmp_path: Path) -> None:
    asked = [turn("system", "Be brief."), turn("user", "Why?")]
    done, items = items_of([answered(asked, "So.", "No."), answered("2?", "x", ""), answered("3?", "y", "z")], tmp_path)
    place = {json.dumps(item.get("messages", item["prompt"])): at for at, item in enumerate(items)}
    talk, silent, tied = place[json.dumps(asked)], place['"2?"'], place['"3?"']
    blank = "ab"[items[silent]["answers"].index("")]
    votes = [(talk, "a"), (talk, "b"), (talk, "a"), (talk, "tie"), (silent, blank), (tied, "a"), (tied, "b")]
    found = voted(done.outputs["items"], [(at, {"winner": winner}) for at, winner in votes], tmp_path)
    (row,) = found
    assert row["prompt"] == asked and row["confidence"] == pytest.approx(2 / 3) and row["votes"] == 4
    assert row["chosen"] == [turn("assistant", items[talk]["answers"][0])]
    path = write_jsonl(tmp_path / "rows.jsonl", found)
    assert check_data([path], recipe="dpo").errors == ()
    (vote, *_) = json_lines(tmp_path / "joined" / "votes" / "votes.jsonl")
    assert (vote["model_a"], vote["source"], vote["winner"]) == (items[talk]["models"][0], "people", "a")


@pytest.mark.parametrize(("models", "told"), [(("new", "old"), 0.75), (("", ""), None), ((None, None), None)])
def test_who_beat_whom_is_told_where_answers_name_their_models(
    models: tuple[str | None, str | None], told: float | None, tmp_path: Path
) -> None:
    answers = [
        {"text": text} | ({"model": name} if name is not None else {}) for name, text in zip(models, "xy", strict=True)
    ]
    done, items = items_of([{"prompt": f"{n}?", "answers": answers} for n in range(4)], tmp_path)
    new = ["ab"[item["answers"].index("x")] for item in items]
    rows = [
        {"item": at, "annotator": "p", "shown": [0, 1], "ms": 9, "job": "j", "answer": {"winner": winner}}
        for at, winner in enumerate([*new[:3], "b" if new[3] == "a" else "a"])
    ]
    write_jsonl(tmp_path / "votes" / "votes.jsonl", rows)
    folders = Folders({"items": done.outputs["items"], "votes": tmp_path / "votes"}, tmp_path / "joined")
    found = join(VotesOrder(kind="compare", consensus="majority", job_id="j"), folders)
    assert found.metrics["votes"] == 4
    assert found.metrics.get("win.new.old") == told
