"""Holding rows out: the same rows and seed give the same split, and no row stands on both sides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwork.dataset.split import hold_out, shuffled, without
from shardwork.errors import InvalidInput

SEED = bytes(32)


def digest(number: int) -> bytes:
    return number.to_bytes(16, "big")


@given(st.lists(st.integers(0, 40), min_size=30, max_size=200), st.floats(0.01, 0.49))
def test_equal_rows_stay_on_one_side_and_none_is_lost(numbers: list[int], fraction: float) -> None:
    digests = [digest(number) for number in numbers]
    if len(set(digests)) < 4:
        return
    split = hold_out(digests, fraction=fraction, most=50)
    held = {digests[position] for position in split.held_out}
    assert held.isdisjoint({digests[position] for position in split.train})
    assert len(held) == len(split.held_out) >= 2
    assert len(split.train) >= 2
    assert len(split.train) + len(split.held_out) + split.dropped == len(digests)


def test_the_share_and_the_cap_are_kept() -> None:
    digests = [digest(number) for number in range(1000)]
    assert len(hold_out(digests, fraction=0.1, most=512).held_out) == 100
    assert len(hold_out(digests, fraction=0.4, most=50).held_out) == 50


@given(st.lists(st.integers(0, 30), min_size=30, max_size=200), st.integers(1, 12), st.floats(0.01, 0.49))
def test_topics_stay_on_one_side_whole(numbers: list[int], rows_of_one: int, fraction: float) -> None:
    """30 questions at most, of unlike sizes; each row differs from all others."""
    digests = [digest(1000 * number + row) for number in numbers for row in range(1 + number % rows_of_one)]
    topics = [row[:-4] + (int.from_bytes(row, "big") // 1000).to_bytes(4, "big") for row in digests]
    if len(set(topics)) < 8:
        return
    split = hold_out(digests, fraction=fraction, topics=topics)
    held, learnt = ({topics[position] for position in side} for side in (split.held_out, split.train))
    assert len(split.held_out) >= 2 and len(split.train) >= 2 and held.isdisjoint(learnt)
    assert len(split.held_out) <= max(round(len(digests) * fraction), 2 * rows_of_one)
    assert len(split.train) + len(split.held_out) + split.dropped == len(digests)


def test_whole_topics_are_about_as_many_rows_as_were_asked_for() -> None:
    digests = [digest(number) for number in range(1000)]
    topics = [digest(number // 4) for number in range(1000)]
    split = hold_out(digests, fraction=0.1, topics=topics)
    assert len(split.held_out) == 100 and len(split.train) == 900 and split.dropped == 0
    five = hold_out(digests, fraction=0.1, topics=[digest(number // 200) for number in range(1000)])
    assert len(five.held_out) == 200 and five.dropped == 0


def test_rows_of_one_topic_are_held_out_by_themselves() -> None:
    digests = [digest(number) for number in range(50)]
    for topics in ([digest(1)] * 50, [digest(number % 3) for number in range(50)]):
        assert hold_out(digests, fraction=0.1, topics=topics) == hold_out(digests, fraction=0.1)


def test_too_few_distinct_rows_are_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        hold_out([digest(1)] * 50 + [digest(2)], fraction=0.1, most=10)
    assert caught.value.code == "data.too_few_to_hold_out"


def test_rows_held_out_in_other_files_leave_training() -> None:
    split = without([digest(1), digest(2), digest(1)], {digest(1)})
    assert (split.train, split.dropped) == ([1], 2)


def test_shuffles_are_permutations_fixed_by_seed_and_purpose() -> None:
    one = shuffled(100, SEED, "a")
    assert sorted(one) == list(range(100)) and one != list(range(100))
    assert one == shuffled(100, SEED, "a")
    assert one != shuffled(100, SEED, "b") and one != shuffled(100, b"\1" * 32, "a")
    assert shuffled(6, SEED, "golden") == GOLDEN


#: committed, so that a change of the shuffle (which would change every artifact) is noticed
GOLDEN = [4, 2, 0, 1, 3, 5]
