"""Verifiable rewards: between 0 and 1 for any answer, right where right can be said, deaf to what answers ask for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwork.errors import InvalidInput
from shardwork.recipes.alignment.rewards import REWARDS, Rewards

ALL: dict[str, dict[str, Any]] = {
    "exact": {"ignore_case": True},
    "numeric": {"within": "answer"},
    "regex": {"pattern": "(a|b)+$"},
    "json_schema": {"schema": {"type": "object"}},
    "length": {"target": 5, "unit": "words"},
    "format": {"tags": ["think", "answer"]},
}
PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "1", "-2.5e3", "{", "}", '"', "```json", "ä", "\0"]
)
ANSWERS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=20).map("".join))
SOLUTIONS = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=5)


def reward(name: str, text: str, answer: Any = None, tokens: int = 0, **more: Any) -> float:
    rewards = Rewards.read([(name, 1.0)], json.dumps({name: more}))
    return rewards.grade({"answer": answer}, text, tokens)


@settings(max_examples=200, deadline=None)
@given(ANSWERS, SOLUTIONS, st.integers(0, 10**6))
def test_every_reward_of_any_answer_lies_between_0_and_1(text: str, solution: Any, tokens: int) -> None:
    assert set(ALL) == set(REWARDS)
    for name, more in ALL.items():
        value = reward(name, text, solution, tokens, **more)
        assert 0 <= value <= 1 and value == reward(name, text, solution, tokens, **more)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_the_solution_itself_is_always_right(text: str) -> None:
    assert reward("exact", f" {text}\n", text) == 1
    assert reward("exact", f"so <answer>{text.replace('<', '')}</answer>", text.replace("<", ""), within="answer") == 1


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e9, 1e9, allow_nan=False))
def test_a_number_is_found_however_it_is_written(value: float) -> None:
    for written in (repr(value), f"It is {value:,.6f}.", f"1 + 1 is no {value:+.9e}"):
        assert reward("numeric", written, value, tolerance=1e-5) == 1
        assert reward("numeric", written, repr(value), tolerance=1e-5) == 1
        assert reward("numeric", written, value + 1 + abs(value) / 1e3) == 0


@pytest.mark.parametrize(
    ("name", "text", "solution", "more", "value"),
    [
        ("exact", "Paris", ["London", "paris"], {"ignore_case": True}, 1),
        ("exact", "e\u0301", "é", {}, 1),
        ("exact", "a  b\nc", "a b c", {}, 1),
        ("exact", "a  b", "a b", {"ignore_spaces": False}, 0),
        ("exact", "7", 7, {}, 1),
        ("exact", "true", True, {}, 1),
        ("exact", "the answer is Paris", "Paris", {}, 0),
        ("exact", "<answer>Rome</answer> <answer>Paris</answer>", "Paris", {"within": "answer"}, 1),
        ("exact", "Paris", "Paris", {"within": "answer"}, 0),
        ("exact", "</answer>Paris<answer>", "Paris", {"within": "answer"}, 0),
        ("numeric", "first 3, then 1,234.50", 1234.5, {}, 1),
        ("numeric", "none", 1, {}, 0),
        ("numeric", "1e999", 1, {}, 0),
        ("numeric", "9" * 100_000, 1, {}, 0),
        ("numeric", "10.05", 10, {"relative": 0.01}, 1),
        ("numeric", "72", "step by step\n#### 72", {}, 1),
        ("numeric", "1", True, {}, 0),
        ("numeric", "٣", 3, {}, 0),
        ("regex", " yes ", None, {"pattern": "yes|no", "whole": True}, 1),
        ("regex", "oh yes", None, {"pattern": "yes|no", "whole": True}, 0),
        ("json_schema", '```json\n{"a": 1}\n```', None, {"schema": {"required": ["a"]}}, 1),
        ("json_schema", '{"a": NaN}', None, {"schema": {}}, 0),
        ("json_schema", "[" * 60_000, None, {"schema": {}}, 0),
        ("json_schema", "[" * 90 + "]" * 90, None, {"schema": {}}, 0),
        ("json_schema", '"' + "a" * 70_000 + '"', None, {"schema": {}}, 0),
        ("json_schema", "1" * 5_000, None, {"schema": {}}, 0),
        ("json_schema", 'x <json>{"a": 1}</json>', None, {"schema": {"type": "object"}, "within": "json"}, 1),
        ("format", "<think>a</think>\n<answer>b</answer>", None, {}, 1),
        ("format", "<think>a</think><answer>b</answer> and more", None, {}, 0.5),
        ("format", "<think>a</think>", None, {}, 0.5),
        ("format", "<answer>b</answer><think>a</think>", None, {}, 0.25),
        ("format", "<think>a<think></think><answer></answer>", None, {}, 0),
        ("format", "<think></think><answer></answer>", None, {}, 0),
    ],
)
def test_what_answers_are_worth(name: str, text: str, solution: Any, more: dict[str, Any], value: float) -> None:
    assert reward(name, text, solution, **more) == value


def test_length_falls_in_a_line_from_its_target_and_from_its_bound() -> None:
    assert [reward("length", "", tokens=n, target=10) for n in (0, 5, 10, 15, 20, 99)] == [0, 0.5, 1, 0.5, 0, 0]
    assert [reward("length", "", tokens=n, most=10) for n in (0, 10, 15, 20, 99)] == [1, 1, 0.5, 0, 0]
    assert reward("length", "a bc d", target=3, unit="words") == reward("length", "äö漢", target=3, unit="letters") == 1


def test_rewards_are_weighed_and_may_cost() -> None:
    rewards = Rewards.read([("exact", 2.0), ("length", -0.5)], '{"length": {"target": 4}, "exact": {"key": "gold"}}')
    assert rewards.needs() == ("gold",)
    assert rewards.grade({"gold": "a"}, "a", 4) == 1.5 and rewards.grade({"gold": "a"}, "b", 0) == 0


@pytest.mark.parametrize(
    ("weights", "text", "code", "told"),
    [
        ([("exactly", 1.0)], "", "rewards.unknown", "numeric"),
        ([("exact", 1.0)], "[]", "rewards.bad_settings", "no JSON object"),
        ([("exact", 1.0)], "{", "rewards.bad_settings", "not valid JSON"),
        ([("exact", 1.0)], "[" * 50_000, "rewards.bad_settings", "not valid JSON"),
        ([("exact", 1.0)], '{"regex": {"pattern": "a"}}', "rewards.bad_settings", "'regex'"),
        ([("exact", 1.0)], '{"exact": {"keys": "a"}}', "rewards.bad_settings", "exact.keys"),
        ([("exact", 1.0)], '{"exact": {"within": "<b>"}}', "rewards.bad_settings", "exact.within"),
        ([("regex", 1.0)], "", "rewards.bad_settings", "regex.pattern"),
        ([("regex", 1.0)], '{"regex": {"pattern": "(?=a)"}}', "rewards.bad_pattern", "looks around"),
        ([("json_schema", 1.0)], '{"json_schema": {"schema": {"$ref": "#"}}}', "rewards.bad_schema", "$ref"),
        ([("length", 1.0)], "", "rewards.bad_settings", "either target or most"),
        ([("format", 1.0)], '{"format": {"tags": []}}', "rewards.bad_settings", "format.tags"),
    ],
)
def test_settings_that_mean_nothing_are_refused(weights: Any, text: str, code: str, told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Rewards.read(weights, text)
    assert caught.value.code == code and told in caught.value.why.sentence and caught.value.why.next_step


def test_a_wrong_setting_is_told_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput) as caught:
        Rewards.read([("json_schema", 1.0)], '{"json_schema": {"type": "object"}}')
    assert "{json_schema: {…}}; it may set schema, within." in caught.value.why.next_step
