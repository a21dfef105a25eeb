"""Rows that are nearly the same: a sketch of each row, compared between what is learnt and what is held out.

Owns how alike two rows are: the Jaccard index of their three-word sequences, estimated from the 16 smallest hashes of
each (bottom-k sketches: Broder 1997; Cohen & Kaplan 2007). A row costs 128 bytes and some 30 microseconds, whatever it
is compared with afterwards. Called by `count`; exact repeats are found by digest and are not its business.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

#: hashes kept of each row; at a true index of 0.8 the estimate strays by 0.1
SKETCH = 16
#: two rows at least this much alike count as near duplicates, as in deduplication of corpora (Lee et al. 2022,
#: arXiv 2107.06499, section 4.2)
THRESHOLD = 0.8
#: shorter rows are alike by chance: a template with one word changed
LEAST_WORDS = 12
#: a row is compared by its first words
MOST_WORDS = 512
#: rows that are sketched, 64 MB of them; later ones are not compared, and the report says so
MOST_ROWS = 500_000
_NONE = (1 << 64) - 1
_WORDS_KEPT = 1 << 20
#: odd factors below 2^31, so that a product with a 32-bit hash stays within 63 bits
_FIRST, _SECOND, _THIRD = 0x4F1BBCDD, 0x2545F491, 0x7FEB352D


@dataclass(frozen=True, slots=True)
class Pair:
    """Positions of two rows that are nearly the same."""

    train: int
    held_out: int
    likeness: float


@dataclass(slots=True)
class Sketches:
    """One sketch a row, in the order in which rows were added."""

    _values: array[int] = field(default_factory=lambda: array("Q"))
    _known: dict[str, int] = field(default_factory=dict[str, int])
    #: rows beyond the limit
    left_out: int = 0

    def __len__(self) -> int:
        return len(self._values) // SKETCH

    def add(self, text: str) -> None:
        if len(self) >= MOST_ROWS:
            self.left_out += 1
            return
        least = sorted(self._sequences(text))[:SKETCH]
        self._values.extend(least)
        self._values.extend([_NONE] * (SKETCH - len(least)))

    def _sequences(self, text: str) -> set[int]:
        words = text[: MOST_WORDS * 16].lower().split()[:MOST_WORDS]
        if len(words) < LEAST_WORDS:
            return set()
        known = self._known
        if len(known) > _WORDS_KEPT:
            known.clear()
        hashes: list[int] = []
        for word in words:
            value = known.get(word)
            if value is None:
                value = known[word] = zlib.crc32(word.encode("utf-8", "surrogatepass")) or 1
            hashes.append(value)
        return {
            one * _FIRST ^ two * _SECOND ^ three * _THIRD
            for one, two, three in zip(hashes, hashes[1:], hashes[2:], strict=False)
        }

    def of(self, position: int) -> set[int]:
        """A row's sketch; empty for a short row."""
        found = set(self._values[position * SKETCH : (position + 1) * SKETCH])
        found.discard(_NONE)
        return found

    def near(self, held_out: Sketches, positions: Sequence[int] | None = None) -> Iterator[Pair]:
        """Rows of this set that are nearly a row of `held_out`, each with the one that is most alike.

        `positions` are those of held-out rows in `held_out`; all by default. Rows of `self` that are among them where
        both are one set are the caller's to leave out.
        """
        chosen = range(len(held_out)) if positions is None else positions
        sketches = {position: held_out.of(position) for position in chosen if position < len(held_out)}
        holders: dict[int, list[int]] = {}
        for position, sketch in sketches.items():
            for value in sketch:
                holders.setdefault(value, []).append(position)
        for row in range(len(self)):
            values = self._values[row * SKETCH : (row + 1) * SKETCH]
            candidates = {position for value in values if value in holders for position in holders[value]}
            if candidates:
                mine = self.of(row)
                likeness, best = max((_likeness(mine, sketches[each]), -each) for each in candidates)
                if likeness >= THRESHOLD:
                    yield Pair(row, -best, likeness)


def _likeness(one: set[int], other: set[int]) -> float:
    """The share of the smallest hashes of both together that both have."""
    least = sorted(one | other)[:SKETCH]
    return sum(value in one and value in other for value in least) / len(least)
