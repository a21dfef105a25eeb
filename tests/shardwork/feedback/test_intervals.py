"""Intervals of shares: known values, coverage, and the ends."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwork.feedback.intervals import clustered, quantile, wilson


def test_wilson_of_a_textbook_example() -> None:
    """Newcombe 1998, table I: 81 of 263 is 0.2553 to 0.3662; 0 of 20 is 0 to 0.1611; 15 of 148 is 0.0624 to 0.1605."""
    for hits, of, low, high in ((81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (15, 148, 0.0624, 0.1605)):
        found = wilson(hits, of)
        assert [found.low, found.high] == pytest.approx([low, high], abs=5e-5)


@given(st.integers(0, 50), st.integers(0, 50))
def test_wilson_holds_its_share_and_stays_between_0_and_1(hits: int, misses: int) -> None:
    found = wilson(hits, hits + misses)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_of_nothing_anything_is_possible() -> None:
    for found in (wilson(0, 0), clustered([])):
        assert (found.value, found.low, found.high, found.is_clear) == (0.5, 0.0, 1.0, False)


def test_values_apart_are_plain_wilson() -> None:
    found = clustered((at, float(at < 30)) for at in range(40))
    assert (found.low, found.high) == pytest.approx((wilson(30, 40).low, wilson(30, 40).high))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_alike_are_worth_one_a_cluster(value: float) -> None:
    found = clustered((at % 4, value) for at in range(40))
    assert (found.value, found.of) == (value, 4)


def test_one_cluster_is_worth_one_value() -> None:
    assert clustered([("p", 1.0), ("p", 0.0), ("p", 1.0)]).of == 1


def test_intervals_of_values_that_hang_together_cover() -> None:
    hits = 0
    for seed in range(400):
        chance = random.Random(seed)
        shares = [chance.betavariate(1.2, 0.8) for _ in range(60)]
        found = clustered((at, float(chance.random() < share)) for at, share in enumerate(shares) for _ in range(4))
        hits += found.low <= 0.6 <= found.high
    assert 0.92 <= hits / 400 <= 0.99


@pytest.mark.parametrize(("groups", "value"), [(6, 2.571), (11, 2.228), (31, 2.042), (10**6, 1.960)])
def test_few_clusters_get_the_quantile_of_t(groups: int, value: float) -> None:
    assert quantile(groups) == pytest.approx(value, rel=0.02)
