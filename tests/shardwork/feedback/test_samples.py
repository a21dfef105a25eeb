"""Samples: whatever a row holds becomes something that can be shown, bounded, with finite numbers, and never raises."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from shardwork.feedback.samples import (
    MOST_ANSWERS,
    MOST_LABEL,
    MOST_LETTERS,
    first_of_each,
    is_about,
    prompt_id,
    sample,
    words,
)

ANSWERED: dict[str, Any] = {
    "prompt_id": "p1",
    "prompt": "Say something.",
    "answers": [
        {"model": "old", "text": "one", "ended": True, "tokens": 3, "logprob": -1.23456},
        {"model": "old", "text": "two", "ended": False, "tokens": 1},
    ],
}
KEYS = ("prompt_id", "prompt", "answers", "chosen", "rejected", "completion", "text", "confidence", "votes")
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**400,
    math.inf,
    math.nan,
    "",
    "\ud800",
    "x" * 9_000,
    [],
    [[], {}, None, 3],
    {},
    {"content": {}},
)
INNER = ("model", "text", "tokens", "logprob", "ended", "role", "content")


def test_answers_have_their_models_and_their_numbers() -> None:
    found = sample(ANSWERED)
    assert [(one.label, one.text) for one in found.texts] == [("old", "one"), ("old", "two")]
    assert [one.note for one in found.texts] == ["3 tokens, log-probability -1.23", "1 tokens, cut off"]
    assert found.texts[0].logprob == -1.23456 and found.texts[1].logprob is None
    assert (found.prompt_id, found.prompt.text, found.more, found.note) == ("p1", "Say something.", 0, "")


def test_preferences_say_what_was_chosen_and_how_sure_that_is() -> None:
    found = sample({"prompt": "p", "chosen": "good", "rejected": "bad", "confidence": 0.75, "votes": 1})
    assert [(one.mark, one.text) for one in found.texts] == [("chosen", "good"), ("rejected", "bad")]
    assert found.note == "confidence 75 %, 1 vote"


def test_two_outputs_stand_by_turns_and_neither_pushes_the_other_out() -> None:
    many = {"answers": [{"model": "new", "text": f"new {number}"} for number in range(20)]}
    found = sample({"answers": many["answers"]}, ANSWERED, ("a.rows", "b.rows"))
    assert [one.text for one in found.texts[:5]] == ["new 0", "one", "new 1", "two", "new 2"]
    assert [one.label for one in found.texts[:2]] == ["new · a.rows", "old · b.rows"]
    assert len(found.texts) == MOST_ANSWERS and found.more == 22 - MOST_ANSWERS


def test_one_output_alone_is_not_named() -> None:
    assert [one.label for one in sample(ANSWERED, None, ("a.rows", "")).texts] == ["old", "old"]


def test_long_texts_and_labels_are_cut_and_what_is_left_out_is_counted() -> None:
    found = sample({"prompt": "x" * (MOST_LETTERS + 5), "answers": [{"model": "m" * 999, "text": "y" * 7_000}]})
    assert (len(found.prompt.text), found.prompt.more) == (MOST_LETTERS, 5)
    assert (len(found.texts[0].text), found.texts[0].more) == (MOST_LETTERS, 1_000)
    assert len(found.texts[0].label) == MOST_LABEL


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "1" + "0" * 400, "true", '"7"', "null", "[]"])
def test_numbers_that_are_none_are_not_told(number: str) -> None:
    """A page that formats an int of 400 digits, or JSON with NaN in it, is an error for whoever reads it."""
    row = json.loads(f'{{"answers": [{{"text": "a", "tokens": {number}, "logprob": {number}}}], "votes": {number}}}')
    found = sample({**row, "confidence": row["votes"]})
    assert (found.texts[0].tokens, found.texts[0].logprob, found.votes, found.confidence) == (None,) * 4
    assert found.note == found.texts[0].note == ""


def test_half_a_surrogate_pair_is_a_question_mark() -> None:
    row = json.loads(
        '{"prompt_id": "\\ud800", "prompt": "a\\ud800b", "answers": [{"model": "\\udfff", "text": "\\udfff"}]}'
    )
    found = sample(row)
    assert (found.prompt_id, found.prompt.text, found.texts[0].label, found.texts[0].text) == ("?", "a?b", "?", "?")


def test_turns_of_a_conversation_are_named_and_one_alone_is_not() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ["x", 1]}]
    assert words(turns) == 'system: Be brief.\n\nuser: ["x", 1]'
    assert words(turns[:1]) == "Be brief."
    assert words(["a", "b"]) == ": a\n\n: b"


def test_words_are_found_in_the_prompt_in_letters_of_any_size() -> None:
    assert is_about({"prompt": [{"role": "user", "content": "Größe"}]}, "GRÖSSE")
    assert not is_about({"prompt": "size", "answers": [{"text": "Größe"}]}, "größe")
    assert is_about({}, "")


def test_of_several_rows_about_a_prompt_the_first_is_wanted() -> None:
    """Preferences have many rows of one prompt: a page filled with those found no row of any other."""
    wanted = first_of_each(["p1", "p2"])
    rows = [{"prompt_id": name} for name in ("p1", "p1", "p3", "p2", "p2")]
    assert [wanted(row) for row in rows] == [True, False, False, True, False]


@pytest.mark.parametrize(("value", "told"), [(0, "0"), (None, ""), ("", ""), ({"a": 1}, '{"a": 1}')])
def test_rows_meet_by_whatever_their_id_is(value: object, told: str) -> None:
    assert prompt_id({"prompt_id": value}) == told
    assert prompt_id({}) == ""


@pytest.mark.parametrize("key", KEYS)
def test_no_row_is_too_odd(key: str) -> None:
    for value in [*ODD, *([{name: odd}] for name in INNER for odd in ODD)]:
        found = sample({**ANSWERED, key: value}, {key: value}, ("a.rows", "b.rows"))
        every = [found.prompt, *found.texts]
        assert len(found.texts) <= MOST_ANSWERS
        assert all(len(one.text) <= MOST_LETTERS and len(one.label) <= MOST_LABEL for one in every)
        for part in (found.note, found.prompt_id, *(part for one in every for part in (one.label, one.text, one.note))):
            part.encode()
        numbers = [found.confidence, found.votes, *(value for one in every for value in (one.tokens, one.logprob))]
        json.dumps(numbers, allow_nan=False)
