"""Votes as rows: what is written is read again, and a bad row is named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwork.errors import InvalidInput
from shardwork.feedback.votes import Order, Origin, Vote, Winner, ranked, read, write

VOTE = Vote(
    prompt_id="p1", item="7", model_a="old", model_b="new", winner=Winner.B, order=Order.BA, annotator="ann", ms=4200
)

names = st.text(min_size=1, max_size=8)
numbers = st.floats(-1e6, 1e6)


@given(
    st.builds(
        Vote,
        prompt_id=names,
        item=names,
        model_a=names,
        model_b=names,
        winner=st.sampled_from(Winner),
        order=st.sampled_from(Order),
        annotator=names,
        ms=st.integers(0, 10**9),
        source=st.sampled_from(Origin),
        job=st.text(max_size=4),
        answer_a=st.integers(0, 5),
        answer_b=st.integers(0, 5),
        ranking=st.permutations(range(3)).map(tuple),
        scores=st.dictionaries(names, st.lists(numbers, min_size=1, max_size=3).map(tuple), max_size=2),
        reasons=st.lists(names, max_size=3).map(tuple),
        confidence=st.none() | st.floats(0, 1),
        text=st.text(max_size=20),
    )
)
def test_a_vote_that_is_written_is_read_as_it_was(vote: Vote) -> None:
    lines = list(write([vote, VOTE]))
    assert list(read(lines, "votes.jsonl")) == [vote, VOTE]
    assert all(line.endswith("\n") and "\n" not in line[:-1] for line in lines)


def test_a_row_holds_the_keys_of_the_contract_and_none_that_says_nothing() -> None:
    assert VOTE.to_json() == {
        "prompt_id": "p1",
        "item": "7",
        "model_a": "old",
        "model_b": "new",
        "winner": "b",
        "order": "ba",
        "annotator": "ann",
        "ms": 4200,
        "job": "",
        "source": "people",
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prompt_id", None),
        ("item", True),
        ("model_a", ""),
        ("winner", "c"),
        ("order", ["ab"]),
        ("annotator", 1.5),
        ("ms", -1),
        ("ms", True),
        ("source", "robot"),
        ("ranking", [0, 2]),
        ("ranking", "01"),
        ("scores", [1]),
        ("reasons", [1]),
        ("confidence", 1.5),
        ("text", 3),
        ("job", None),
    ],
)
def test_a_bad_value_is_refused_with_its_file_line_and_key(key: str, value: object) -> None:
    row = VOTE.to_json() | {key: value}
    lines = [next(write([VOTE])), "\n", json.dumps(row)]
    with pytest.raises(InvalidInput) as refused:
        list(read(lines, "votes.jsonl"))
    assert refused.value.why.evidence == {"file": "votes.jsonl", "line": "3", "key": key}
    assert refused.value.why.sentence.startswith(f"{key!r}: ")


@pytest.mark.parametrize("value", ["1" + "0" * 400, "NaN", "Infinity", "true", '"5"'])
def test_a_score_that_is_no_finite_number_is_refused(value: str) -> None:
    line = json.dumps(VOTE.to_json())[:-1] + ', "scores": {"help": [1, ' + value + "]}}"
    with pytest.raises(InvalidInput) as refused:
        list(read([line], "v"))
    assert refused.value.why.evidence["key"] == "scores.help"


@pytest.mark.parametrize("line", ["{", "[1]", "7", "[" * 100_000])
def test_a_line_that_is_no_object_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        list(read([line], "v"))
    assert refused.value.why.evidence == {"file": "v", "line": "1", "key": ""}


def test_an_item_may_be_counted_by_other_programs() -> None:
    row: dict[str, Any] = VOTE.to_json() | {"item": 7}
    assert list(read([json.dumps(row)], "v")) == [VOTE]


def test_a_ranking_is_its_pairs() -> None:
    votes = ranked(VOTE, ("x", "y", "z"), ranking=(2, 0, 1), shown=(1, 0, 2))
    assert [(vote.model_a, vote.model_b, vote.winner, vote.order) for vote in votes] == [
        ("x", "y", Winner.A, Order.BA),
        ("x", "z", Winner.B, Order.AB),
        ("y", "z", Winner.B, Order.AB),
    ]
    assert {vote.pair for vote in votes} == {("7", 0, 1), ("7", 0, 2), ("7", 1, 2)}
    assert {vote.ranking for vote in votes} == {(2, 0, 1)}


@given(st.integers(2, 6).flatmap(lambda k: st.permutations(range(k))))
def test_a_ranking_of_k_has_every_pair_once_and_its_best_wins_all(ranking: list[int]) -> None:
    k = len(ranking)
    votes = ranked(VOTE, [f"m{at}" for at in range(k)], ranking, range(k))
    assert len({vote.pair for vote in votes}) == len(votes) == k * (k - 1) // 2
    won = [vote.model_a if vote.winner is Winner.A else vote.model_b for vote in votes]
    assert [won.count(f"m{place}") for place in ranking] == list(range(k - 1, -1, -1))


@pytest.mark.parametrize("ranking", [(0,), (0, 0), (0, 1, 2), (1, 2)])
def test_a_ranking_that_does_not_name_each_answer_once_is_refused(ranking: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="each of the answers once"):
        ranked(VOTE, ("x", "y"), ranking, (0, 1))


@pytest.mark.parametrize(
    ("winner", "order", "first"),
    [
        (Winner.A, Order.AB, True),
        (Winner.A, Order.BA, False),
        (Winner.B, Order.BA, True),
        (Winner.TIE, Order.AB, None),
        (Winner.BOTH_BAD, Order.BA, None),
    ],
)
def test_whether_the_first_shown_answer_won(winner: Winner, order: Order, first: bool | None) -> None:
    assert replace(VOTE, winner=winner, order=order).first_won is first
