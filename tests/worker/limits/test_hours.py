"""Hours of the day: spans past midnight, several spans, and what is no span."""

from __future__ import annotations

import pytest

from shardwork_worker.limits.hours import Hours


@pytest.mark.parametrize(
    ("text", "minute", "holds"),
    [
        ("", 0, True),
        ("22:00-07:00", 22 * 60, True),
        ("22:00-07:00", 7 * 60 - 1, True),
        ("22:00-07:00", 7 * 60, False),
        ("22:00-07:00", 12 * 60, False),
        ("9:00-12:00, 13:30-17:00", 12 * 60 + 15, False),
        ("9:00-12:00, 13:30-17:00", 13 * 60 + 30, True),
        ("0:00-24:00", 1439, True),
        ("18:00-24:00", 1439, True),
        ("18:00-24:00", 0, False),
        ("00:00-00:01", 0, True),
    ],
)
def test_a_minute_is_in_the_hours_or_not(text: str, minute: int, holds: bool) -> None:
    assert Hours.parse(text).hold(minute) is holds


def test_the_next_beginning_and_the_end_are_told() -> None:
    hours = Hours.parse("22:00-07:00, 12:00-13:00")
    assert (hours.begin_after(7 * 60), hours.begin_after(13 * 60), hours.begin_after(23 * 60)) == (
        "12:00",
        "22:00",
        "12:00",
    )
    assert hours.end_after(60) == "07:00"
    assert hours.text() == "22:00-07:00, 12:00-13:00"


@pytest.mark.parametrize("text", ["night", "22-7", "22:00", "25:00-26:00", "22:60-23:00", "8:00-8:00", "24:01-3:00"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"span|clock|begins"):
        Hours.parse(text)
