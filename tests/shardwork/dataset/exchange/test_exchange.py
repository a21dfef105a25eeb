"""Judged pairs go to other programs' files and come back the same; their own files are read, or refused by row."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwork.dataset import check_data
from shardwork.dataset.exchange import Ballot, Comparison, Shape, Winner, read, write
from shardwork.errors import InvalidInput

from ..folders import turn, write_jsonl

OTHERS = (Shape.ARGILLA, Shape.LABEL_STUDIO)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
TALK = st.lists(st.builds(turn, st.sampled_from(["system", "user"]), TEXT), min_size=1, max_size=3)
NAMES = st.text("abcdefgh-0123", min_size=1, max_size=8)
BALLOTS = st.lists(st.builds(Ballot, annotator=NAMES, winner=st.sampled_from(list(Winner))), max_size=4).map(tuple)
COMPARISONS = st.builds(
    Comparison,
    prompt_id=NAMES,
    prompt=st.one_of(TEXT, TALK),
    a=TEXT,
    b=TEXT,
    model_a=NAMES,
    model_b=NAMES,
    ballots=BALLOTS,
    winner=st.one_of(st.none(), st.sampled_from(list(Winner))),
)


def written(comparisons: list[Comparison], shape: Shape, folder: Path) -> Path:
    suffix = "jsonl" if shape is Shape.PREFERENCES else "json"
    path = folder / f"{shape}.{suffix}"
    path.write_text("".join(write(comparisons, shape)), "utf-8")
    return path


def turned(each: Comparison) -> Comparison:
    """The same with its answers in a fixed order."""
    if each.a <= each.b:
        return each
    swap = {Winner.A: Winner.B, Winner.B: Winner.A}
    return replace(
        each,
        a=each.b,
        b=each.a,
        model_a=each.model_b,
        model_b=each.model_a,
        winner=swap.get(each.winner, each.winner) if each.winner else None,
        ballots=tuple(replace(one, winner=swap.get(one.winner, one.winner)) for one in each.ballots),
    )


@pytest.mark.parametrize("shape", OTHERS)
@settings(max_examples=60, deadline=None)
@given(comparisons=st.lists(COMPARISONS.filter(lambda each: each.a != each.b), min_size=1, max_size=4))
def test_what_is_exported_comes_back(
    shape: Shape, comparisons: list[Comparison], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(comparisons, shape, tmp_path_factory.mktemp("exchange"))
    assert [turned(each) for each in read(path, shape)] == [turned(each) for each in comparisons]


def test_the_order_that_is_shown_tells_nothing_about_the_winner() -> None:
    pairs = [
        Comparison(prompt_id=str(n), prompt=str(n), a=f"good {n}", b=f"bad {n}", winner=Winner.A) for n in range(200)
    ]
    assert 60 < sum(each.shown[2] for each in pairs) < 140


@pytest.mark.parametrize("shape", OTHERS)
def test_preferences_go_out_and_come_back_as_rows_to_learn_from(shape: Shape, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "Why ä?", "chosen": "a", "rejected": "b", "prompt_id": "p", "confidence": 0.75},
        {"prompt": "What\n漢?", "chosen": "<b>\u2028", "rejected": "", "prompt_id": "q", "confidence": 1.0},
    ]
    plain = write_jsonl(tmp_path / "a.jsonl", rows)
    path = written(list(read(plain, Shape.PREFERENCES)), shape, tmp_path)
    back = written(list(read(path, shape)), Shape.PREFERENCES, tmp_path)
    assert [json.loads(line) for line in back.read_text("utf-8").split("\n") if line] == rows
    assert check_data([back], recipe="dpo").errors == ()


def test_conversations_keep_their_messages(tmp_path: Path) -> None:
    asked = [turn("system", "Be brief."), turn("user", "Why?")]
    row = {"prompt": asked, "chosen": [turn("assistant", "So.")], "rejected": [turn("assistant", "No.")]}
    plain = list(read(write_jsonl(tmp_path / "a.jsonl", [row]), Shape.PREFERENCES))
    for shape in OTHERS:
        (found,) = read(written(plain, shape, tmp_path), shape)
        preference = found.preference()
        assert preference is not None and {key: preference[key] for key in row} == row


def test_ballots_decide_and_become_votes() -> None:
    ballots = tuple(Ballot(annotator=str(n), winner=Winner(each)) for n, each in enumerate("abbb"))
    pair = Comparison(prompt_id="p", prompt="?", a="x", b="y", winner=Winner.A, ballots=ballots)
    row = pair.preference()
    assert row is not None and (row["chosen"], row["confidence"], row["votes"]) == ("y", 0.75, 4)
    votes = list(pair.votes())
    assert [vote["winner"] for vote in votes] == ["a", "b", "b", "b"] and len({vote["item"] for vote in votes}) == 1
    tied = replace(pair, ballots=(Ballot(annotator="1", winner=Winner.TIE),))
    assert tied.preference() is None


ARGILLA: dict[str, Any] = {
    "id": "r1",
    "fields": {"instruction": "Why?", "response1": "x", "response2": "y"},
    "metadata": {},
    "suggestions": {},
    "responses": {"preference": [{"value": ["response2", "response1"], "user_id": "u1"}]},
    "vectors": {},
    "_server_id": "s",
}


@pytest.mark.parametrize(
    ("value", "winner"),
    [
        ("response2", "b"),
        (["response1", "response2"], "a"),
        ([{"value": "response2", "rank": 1}, {"value": "response1", "rank": 2}], "b"),
        ([{"value": "response2", "rank": 1}, {"value": "response1", "rank": 1}], "tie"),
        ("Both bad", "both_bad"),
        ("A", "a"),
        (2, "b"),
    ],
)
def test_argillas_own_ways_to_prefer_are_read(value: Any, winner: str, tmp_path: Path) -> None:
    record = ARGILLA | {"responses": {"preference": [{"value": value, "user_id": "u1"}]}}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([record], indent=2))
    (found,) = read(path, Shape.ARGILLA)
    assert [(one.annotator, str(one.winner)) for one in found.ballots] == [("u1", winner)]
    assert (found.prompt_id, found.prompt, found.model_a) == ("r1", "Why?", "response1")


TASK: dict[str, Any] = {
    "id": 7,
    "data": {"prompt": "Why?", "answer1": "x", "answer2": "y"},
    "annotations": [
        {
            "id": 1,
            "completed_by": {"id": 3, "email": "a@b.c"},
            "lead_time": 1.5,
            "was_cancelled": False,
            "result": [
                {"id": "z", "from_name": "comparison", "to_name": ["answer1", "answer2"], "type": "pairwise",
                 "value": {"selected": "right"}}
            ],
        },
        {"completed_by": 4, "was_cancelled": True, "result": []},
    ],
}  # fmt: skip


def test_label_studios_tasks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([TASK, {"data": TASK["data"] | {"prompt": "And?"}, "annotations": []}]))
    first, second = read(path, Shape.LABEL_STUDIO)
    assert first.ballots == (Ballot(annotator="a@b.c", winner=Winner.B, ms=1500),) and first.prompt_id == "7"
    row = first.preference()
    assert row is not None and row["chosen"] == "y" and second.preference() is None


BROKEN: dict[str, tuple[Shape, Any, str]] = {
    "no fields": (Shape.ARGILLA, {"id": "x"}, "fields"),
    "one answer": (Shape.ARGILLA, ARGILLA | {"fields": {"prompt": "a", "response_a": "b"}}, "fields"),
    "no prompt": (Shape.ARGILLA, ARGILLA | {"fields": {"response_a": "b", "response_b": "c"}}, "fields.prompt"),
    "an answer that is a number": (
        Shape.ARGILLA, ARGILLA | {"fields": {"prompt": "a", "response_a": 1, "response_b": "c"}}, "fields.response_a",
    ),
    "half a character": (
        Shape.ARGILLA,
        ARGILLA | {"fields": {"prompt": "\ud800", "response_a": "a", "response_b": "c"}},
        "fields.prompt",
    ),
    "responses of another shape": (Shape.ARGILLA, ARGILLA | {"responses": {"preference": "a"}}, "responses.preference"),
    "a response without value": (
        Shape.ARGILLA, ARGILLA | {"responses": {"preference": [{}]}}, "responses.preference.0",
    ),
    "a value nobody knows": (
        Shape.ARGILLA, ARGILLA | {"responses": {"preference": [{"value": "perhaps"}]}}, "responses.preference.0",
    ),
    "a ranking of one": (
        Shape.ARGILLA, ARGILLA | {"responses": {"preference": [{"value": ["response1"]}]}}, "responses.preference.0",
    ),
    "no data": (Shape.LABEL_STUDIO, {"id": 1}, "data"),
    "json-min": (Shape.LABEL_STUDIO, {"prompt": "a", "comparison": "left"}, "data"),
    "other answers": (Shape.LABEL_STUDIO, {"data": {"prompt": "a", "x": "b"}}, "data"),
    "annotations of another shape": (Shape.LABEL_STUDIO, TASK | {"annotations": {}}, "annotations"),
    "no pairwise result": (
        Shape.LABEL_STUDIO, TASK | {"annotations": [{"result": [{"type": "rating", "value": {"rating": 3}}]}]},
        "annotations.0.result",
    ),
    "a side nobody knows": (
        Shape.LABEL_STUDIO,
        TASK | {"annotations": [{"result": [{"type": "pairwise", "value": {"selected": ["left"]}}]}]},
        "annotations.0.result",
    ),
    "a list": (Shape.LABEL_STUDIO, [1], ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_can_not_be_read_is_named_by_file_and_row(name: str, tmp_path: Path) -> None:
    shape, value, key = BROKEN[name]
    path = tmp_path / "a.json"
    good = ARGILLA if shape is Shape.ARGILLA else TASK
    path.write_text(json.dumps([good, value]))
    with pytest.raises(InvalidInput) as caught:
        list(read(path, shape))
    error = caught.value
    assert error.code in ("exchange.bad_record", "data.not_an_object", "data.bad_json") and error.why.next_step
    assert str(path) in error.why.evidence["file"] and error.why.evidence["line"] == "1"
    if key:
        assert error.why.evidence["key"] == key and "record 2" in error.why.sentence


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 100_000, '[{"id": ' + "[" * 5000 + "]" * 5000 + "}]", "{", "null", "\0", '{"text": "a"}']
)
def test_hostile_files_are_refused_or_hold_nothing(shape: Shape, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        list(read(path, shape))
    assert caught.value.why.next_step


@pytest.mark.parametrize("shape", Shape)
def test_nothing_is_written_as_an_empty_file(shape: Shape) -> None:
    assert "".join(write([], shape)).strip() in ("", "[]")
