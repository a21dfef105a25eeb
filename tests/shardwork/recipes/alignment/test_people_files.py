"""Rows become items that people can be asked, some with a known answer; votes become rows that can be learnt from."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from shardwork.dataset import check_data
from shardwork.errors import InvalidInput
from shardwork.recipes.alignment.consensus_orders import ConsensusOrder
from shardwork.recipes.alignment.people_files import split
from shardwork.recipes.alignment.people_orders import ItemsOrder, VotesOrder
from shardwork.recipes.alignment.phases.agreeing import join as agree
from shardwork.recipes.alignment.phases.judgements import join
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


BAD_SCORES: list[Any] = [{}, [4], {"a": 6}, {"a": "5"}, {"a": []}, {"a": True}]
BAD_GOLDS: dict[str, list[Any]] = {
    "compare": [
        *("c", 1, [], {}, True, {"winner": "c"}, {"winner": ["a"]}, {"ranking": [0, 1]}),
        {"winner": "a", "verdict": "keep"},
    ],
    "rank": ["a", *({"ranking": one} for one in ("10", [0], [0, 0], [1, 2], [True, False], {"0": 1}))],
    "score": [{"scores": one} for one in BAD_SCORES],
    "review": [{"verdict": one} for one in ("drop", None, ["keep"])],
}


@pytest.mark.parametrize(("kind", "at"), [(kind, at) for kind, golds in BAD_GOLDS.items() for at in range(len(golds))])
def test_a_gold_that_is_no_answer_is_refused(kind: str, at: int, tmp_path: Path) -> None:
    """Whoever looks would be wrong at it, and be stopped, unpaid."""
    rows = [answered("a", "b", "c"), answered("a", "b", "c", gold=BAD_GOLDS[kind][at])]
    with pytest.raises(InvalidInput) as caught:
        items_of(rows, tmp_path, kind=kind)
    assert caught.value.code == "people.bad_gold" and caught.value.why.evidence["line"] == "2"


@pytest.mark.parametrize(
    ("kind", "gold"),
    [
        ("compare", "tie"),
        ("compare", {"winner": "b"}),
        ("rank", {"ranking": [1, 0]}),
        ("score", {"scores": {"clear": 4, "kind": [5]}}),
        ("review", {"verdict": "edit"}),
    ],
)
def test_a_gold_that_the_page_could_send_is_kept(kind: str, gold: Any, tmp_path: Path) -> None:
    _, items = items_of([answered("a", "b", "c"), answered("a", "b", "c", gold=gold)], tmp_path, kind=kind)
    assert items[-1]["gold"] == ({"winner": gold} if isinstance(gold, str) else gold)


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
    votes = [
        (talk, "a"),
        (talk, "b"),
        (talk, "a"),
        (talk, "tie"),
        (talk, "a"),
        (silent, blank),
        (tied, "a"),
        (tied, "b"),
    ]
    found = voted(done.outputs["items"], [(at, {"winner": winner}) for at, winner in votes], tmp_path)
    (row,) = found
    assert row["prompt"] == asked and row["confidence"] == pytest.approx(3 / 5) and row["votes"] == 5
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


#: how often each says which of two answers is better; else they say the other
CAREFUL, CARELESS = (0.95, 0.95, 0.95), (0.5, 0.5, 0.5, 0.5)


def planted(folder: Path, consensus: str, accuracy: tuple[float, ...] = CAREFUL + CARELESS) -> list[dict[str, Any]]:
    """Rows of 150 comparisons of a right answer with a wrong one, that each annotator judged."""
    done, items = items_of([answered(f"{n}?", f"right {n}", f"wrong {n}") for n in range(150)], folder)
    chance = random.Random(7)
    votes: list[dict[str, Any]] = []
    for at, item in enumerate(items):
        better = "ab"["wrong" in item["answers"][0]]
        for who, often in enumerate(accuracy):
            winner = better if chance.random() < often else "ba"["ab".index(better)]
            votes.append({"item": at, "annotator": f"p{who}", "answer": {"winner": winner}, **SAID})
    write_jsonl(folder / "votes" / "votes.jsonl", votes)
    folders = Folders({"items": done.outputs["items"], "votes": folder / "votes"}, folder / "joined")
    order = VotesOrder.model_validate({"kind": "compare", "consensus": consensus, "job_id": "j"})
    return json_lines(join(order, folders).outputs["rows"] / "preferences.jsonl")


SAID: dict[str, Any] = {"shown": [0, 1], "ms": 9, "job": "j"}


def test_the_rule_that_the_job_chose_makes_the_rows(tmp_path: Path) -> None:
    """Three who look and four who toss coins: a majority believes the coins as much."""
    wrong: dict[str, int] = {}
    chosen: dict[str, dict[str, str]] = {}
    for rule in ("majority", "dawid_skene", "unanimous"):
        rows = planted(tmp_path / rule, rule)
        chosen[rule] = {row["prompt"]: row["chosen"] for row in rows}
        wrong[rule] = sum("wrong" in row["chosen"] for row in rows)
        assert all(0.5 <= row["confidence"] <= 1 and row["votes"] == 7 for row in rows)
    assert len(chosen["majority"]) == 150 and len(chosen["dawid_skene"]) >= 148
    assert wrong["dawid_skene"] <= 3 < 12 <= wrong["majority"]
    assert 0 < len(chosen["unanimous"]) < 30 and wrong["unanimous"] == 0


def test_the_rows_are_those_of_a_stage_of_consensus_after_it(tmp_path: Path) -> None:
    rows = planted(tmp_path, "dawid_skene")
    joined = tmp_path / "joined"
    order = ConsensusOrder.model_validate(
        {"sources": 1, "rule": "dawid_skene", "people": 1.0, "judge": 0.0, "conflict": "weighted",
         "least_confidence": 0.5, "spent_msat": [0], "took_ms": [0]},
    )  # fmt: skip
    done = agree(order, Folders({"data": joined / "votes"}, tmp_path / "agreed"))
    after = json_lines(done.outputs["rows"] / "preferences.jsonl")
    assert {(row["prompt"], row["chosen"]) for row in rows} == {(row["prompt"], row["chosen"]) for row in after}


def judged(folder: Path, rows: list[dict[str, Any]], votes: list[tuple[int, str, dict[str, Any]]], **order: Any) -> Any:
    """votes: (item by its answer's number, annotator, answer)."""
    asked = {"kind": order["kind"], "answers": order.pop("answers", 2)}
    done, items = items_of(rows, folder, **asked)
    place = {item["prompt"]: at for at, item in enumerate(items)}
    said = [{"item": place[f"{n}?"], "annotator": who, "answer": answer, **SAID} for n, who, answer in votes]
    write_jsonl(folder / "votes" / "votes.jsonl", [row | {"shown": list(range(asked["answers"]))} for row in said])
    folders = Folders({"items": done.outputs["items"], "votes": folder / "votes"}, folder / "joined")
    return json_lines(join(VotesOrder(job_id="j", **order), folders).outputs["rows"] / "preferences.jsonl")


def test_a_ranking_makes_a_row_of_its_ends_by_the_rule(tmp_path: Path) -> None:
    rows = [answered(f"{n}?", f"{n} good", f"{n} fair", f"{n} poor") for n in range(2)]
    votes = [(n, who, {"ranking": [0, 1, 2]}) for n in range(2) for who in ("anna", "bert")]
    votes.append((1, "carl", {"ranking": [2, 1, 0]}))
    found = {
        rule: judged(tmp_path / rule, rows, votes, kind="rank", answers=3, consensus=rule)
        for rule in ("majority", "unanimous", "dawid_skene", "bradley_terry")
    }
    for rule, made in found.items():
        assert [(row["chosen"], row["rejected"]) for row in made] == [
            (f"{row['prompt'][0]} good", f"{row['prompt'][0]} poor") for row in made
        ]
        assert len(made) == (1 if rule == "unanimous" else 2), rule
    sure = {row["prompt"]: row["confidence"] for row in found["majority"]}
    assert sure == {"0?": 1.0, "1?": pytest.approx(2 / 3)} and found["majority"][0]["votes"] in (2, 3)


def test_what_is_said_of_rows_goes_by_the_rule(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "completion": f"text {n}"} for n in range(4)]
    keep, discard = {"verdict": "keep"}, {"verdict": "discard"}
    edit = {"verdict": "edit", "text": "mended"}
    votes = [
        *((0, who, keep) for who in "abc"),
        *((1, who, answer) for who, answer in zip("abc", (keep, edit, edit), strict=True)),
        *((2, who, answer) for who, answer in zip("abc", (discard, discard, keep), strict=True)),
        *((3, who, answer) for who, answer in zip("abc", (keep, discard, edit), strict=True)),
    ]
    for rule, kept in {"majority": ["text 0", "mended"], "unanimous": ["text 0"]}.items():
        found = judged(tmp_path / rule, rows, votes, kind="review", consensus=rule)
        assert sorted(row["completion"] for row in found) == sorted(kept), rule
    (whole,) = judged(tmp_path / "whole", rows, votes, kind="review", consensus="unanimous")
    assert whole == {"prompt": "0?", "prompt_id": "rows:1", "votes": 3, "completion": "text 0", "confidence": 1.0}


def test_two_equally_likely_verdicts_on_a_row_are_none(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "completion": f"text {n}"} for n in range(2)]
    votes = [(n, who, {"verdict": said}) for n in range(2) for who, said in (("a", "keep"), ("b", "discard"))]
    for rule in ("majority", "dawid_skene"):
        assert judged(tmp_path / rule, rows, votes, kind="review", consensus=rule) == []


def test_a_prompt_without_a_name_gets_one(tmp_path: Path) -> None:
    rows = [answered(f"{n}?", "x", "y", prompt_id="") for n in range(2)]
    found = judged(tmp_path, rows, [(n, "a", {"winner": "a"}) for n in range(2)], kind="compare", consensus="majority")
    assert {row["prompt_id"] for row in found} == {"rows:1", "rows:2"}
