"""Our regular expressions mean what Python's do, and no pattern and no text makes them slow."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwork.errors import InvalidInput
from shardwork.recipes.alignment.rewards import pattern
from shardwork.recipes.alignment.rewards.pattern import Pattern

ATOMS = st.sampled_from(
    ["a", "b", "ä", ".", "\\d", "\\W", "\\s", "[ab]", "[^a]", "[a-c0]", "\\.", "(?:a|)", "^", "$", "漢"]
)


def _wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    marks = st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", ""])
    group = st.builds("({}){}".format, inner, marks)
    return st.one_of(group, st.builds("{}{}".format, inner, inner), st.builds("{}|{}".format, inner, inner))


PATTERNS = st.recursive(ATOMS, _wrapped, max_leaves=6)
TEXTS = st.text(alphabet="abcä0. \n漢", max_size=12)


@settings(max_examples=400, deadline=None)
@given(PATTERNS, TEXTS)
def test_a_pattern_matches_what_pythons_matches(source: str, text: str) -> None:
    found = Pattern(source)
    theirs = re.compile(source.replace("$", "\\Z"))
    assert found.matches(text, whole=True) == (theirs.fullmatch(text) is not None)
    assert found.matches(text) == (theirs.search(text) is not None)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_pattern_or_is_refused_with_a_reason(source: str, text: str) -> None:
    try:
        assert Pattern(source).matches(text) in (True, False)
    except InvalidInput as error:
        assert error.code == "rewards.bad_pattern" and error.why.next_step


@pytest.mark.parametrize(
    "source",
    ["(a*)*$", "(a+)+b", "(a|a)*c", "(.*)(.*)(.*)(.*)x", "(a?){40}a{40}", "([a-z]+)*=", "^(([a-z])+.)+[A-Z]([a-z])+$"],
)
def test_patterns_that_make_pythons_hang_take_few_steps(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pattern, "MOST_STEPS", 3_000_000)  # python's would take 2^16000
    found = Pattern(source)
    assert found.matches("a" * 16_000 + "!") in (True, False)


def test_steps_are_counted_over_all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pattern, "MOST_STEPS", 2000)
    monkeypatch.setattr(pattern, "MOST_KEPT", 1)
    found = Pattern("(a|b|c)*d")
    with pytest.raises(InvalidInput) as caught:
        for _ in range(100):
            found.matches("abc" * 20)
    assert caught.value.code == "rewards.slow_pattern"


def test_a_text_beyond_the_bound_matches_nothing() -> None:
    assert Pattern("a").matches("a" * pattern.MOST_TEXT)
    assert not Pattern("a").matches("a" * (pattern.MOST_TEXT + 1))


@pytest.mark.parametrize(
    ("source", "text", "matches"),
    [("äpfel", "ÄPFEL", True), ("[a-f]+", "BAD", True), ("[^a]", "A", False), ("X", "y", False), ("ß", "ß", True)],
)
def test_case_may_be_ignored(source: str, text: str, matches: bool) -> None:
    assert Pattern(source, ignore_case=True).matches(text, whole=True) == matches


@pytest.mark.parametrize(
    "source",
    [
        "(?=a)", "(?P<n>a)", "\\1", "\\b", "a**", "*a", "(a", "a)", "[a", "[b-a]", "a{2,1}", "a{999}", "a{x}", "a{",
        "a" * 1001, "(a{200}){200}", "(" * 60 + ")" * 60, "\\",
    ],
)  # fmt: skip
def test_what_is_not_built_or_too_large_is_refused(source: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Pattern(source)
    assert caught.value.code == "rewards.bad_pattern" and caught.value.why.sentence.endswith(".")
