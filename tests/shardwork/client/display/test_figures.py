"""Figures as people read them."""

from __future__ import annotations

import pytest

from shardwork.client.display import figures


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (999_999, "1.0 MB"), (250_000_000, "250 MB")],
)
def test_sizes(num_bytes: int, text: str) -> None:
    assert figures.size(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (2.34, "2.3 s"), (12.5, "12 s"), (59.7, "1 min"), (75, "1 min 15 s")),
        *((3600, "1 h"), (7500, "2 h 5 min"), (180_000, "2 d 2 h")),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text


def test_a_range_with_equal_ends_is_one_value() -> None:
    assert figures.span("1 s", "1 s") == "1 s"
    assert figures.span("1 s", "2 s") == "1 s – 2 s"


def test_sparklines_span_low_to_high_and_skip_what_is_not_finite() -> None:
    assert figures.sparkline([3.0, 2.0, float("nan"), 1.0]) == "█▅▁"
    assert figures.sparkline([]) == ""
    assert figures.sparkline([1.0, 1.0]) == "▄▄"
    assert len(figures.sparkline([float(number) for number in range(100)], width=10)) == 10


@pytest.mark.parametrize("fraction", [-1.0, 0.0, 0.001, 0.5, 1.0, 7.0])
def test_bars_are_always_as_wide_as_asked(fraction: float) -> None:
    full, empty = figures.bar(fraction, 20)
    assert len(full + empty) == 20
    assert bool(full) == (fraction > 0)


def test_parameters_and_changes() -> None:
    assert figures.parameters(976_000) == "976.0k"
    assert figures.parameters(1_100_000_000) == "1.1B"
    assert figures.change(4.0, 3.0) == "−25.0 %"
    assert figures.change(4.0, float("inf")) == ""
    assert figures.loss(None) == "–"
    assert figures.loss(float("nan")) == "nan"


def test_shares_have_two_digits_and_no_exponent() -> None:
    assert [figures.share(each) for each in (1.0, 0.187, 0.0012, 0.096)] == ["100 %", "19 %", "0.12 %", "9.6 %"]
