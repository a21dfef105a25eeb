"""Hours: the local times of day at which shards are taken, as "22:00-07:00" or "9:00-12:00, 13:30-17:00".

Owns reading and asking; a span may go past midnight, and its end is not in it. Pure. The settings read it, the
guard asks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DAY_MIN = 24 * 60
SPAN = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")


@dataclass(frozen=True, slots=True)
class Hours:
    #: (first minute, minute after the last) of the day, in the order given
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Raises ValueError that says what is wrong; empty text is the whole day."""
        return cls(tuple(_span(part.strip()) for part in text.split(",") if part.strip()))

    def hold(self, minute: int) -> bool:
        """Whether shards are taken at this minute of the day."""
        return not self.spans or any(_is_in(minute, *span) for span in self.spans)

    def begin_after(self, minute: int) -> str:
        """When they are taken next, as "22:00"."""
        starts = [start for start, _ in self.spans]
        return _text(min(starts, key=lambda start: (start - minute) % DAY_MIN))

    def end_after(self, minute: int) -> str:
        """When the span ends in which this minute lies."""
        return _text(next(end for start, end in self.spans if _is_in(minute, start, end)))

    def text(self) -> str:
        return ", ".join(f"{_text(start)}-{_text(end)}" for start, end in self.spans)


def _span(text: str) -> tuple[int, int]:
    found = SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no span of hours; write it as 22:00-07:00")
    start, end = _minute(found[1], found[2], text), _minute(found[3], found[4], text)
    if start == end % DAY_MIN and end != DAY_MIN:
        raise ValueError(f"{text!r} begins where it ends; leave the hours out for the whole day")
    return start % DAY_MIN, end


def _minute(hour: str, minute: str, text: str) -> int:
    count = int(hour) * 60 + int(minute)
    if int(minute) > 59 or count > DAY_MIN:
        raise ValueError(f"{text!r} has a time that no clock shows; hours are from 0:00 to 24:00")
    return count


def _is_in(minute: int, start: int, end: int) -> bool:
    return start <= minute < end if start < end else minute >= start or minute < end


def _text(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
