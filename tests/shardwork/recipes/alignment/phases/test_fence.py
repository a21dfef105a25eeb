"""Strangers' text stays between its marks: nothing in it ends a fence, starts a special token or hides letters."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwork.recipes.alignment.phases.fence import cut, fenced, mark, plain

SPECIAL = ("<|im_start|>", "<|im_end|>", "</s>", "[INST]")
PIECES = st.sampled_from([*SPECIAL, "<<<", ">>>", "\u202e", "\0", "\ud800", "é", "\n", "<|im_", "end|>", "＜＜＜"])
TEXTS = st.one_of(st.text(max_size=50), st.lists(PIECES, max_size=20).map("".join))


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_what_is_left_holds_no_token_no_mark_and_no_unseen_letter(text: str) -> None:
    found = plain(text, SPECIAL, 1000)
    assert not any(token in found for token in SPECIAL)
    assert "<<<" not in found and ">>>" not in found
    assert all(letter in "\n\t" or unicodedata.category(letter)[0] != "C" for letter in found)
    assert found == plain(text, SPECIAL, 1000)
    found.encode("utf-8")


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS)
def test_a_text_can_not_hold_the_mark_of_its_own_fence(one: str, other: str) -> None:
    token = mark(b"seed", (one, other))
    assert fenced("X", one + token, token).count(token) == 2
    assert mark(b"seed", (one + token, other)) != token and mark(b"other", (one, other)) != token
    assert mark(b"seed", (one + other, "")) != token or not other


def test_a_text_is_cut_to_its_length_and_says_so() -> None:
    assert plain("abcdef", (), 3) + cut("abcdef", 3) == "abc […]"
    assert cut("abcdef", 3, from_left=True) + plain("abcdef", (), 3, from_left=True) == "[…] def"
    assert cut("abc", 3) == ""


@pytest.mark.parametrize("text", ["def f():\n\treturn 1", "漢字 and ä", "a << 2 >> 1"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert plain(text, SPECIAL, 100) == text
