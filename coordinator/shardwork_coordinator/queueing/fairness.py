"""Whose turn it is: fair shares between requesters, and between the jobs of each by priority.

Start-time fair queueing (Goyal, Vin & Cheng, SIGCOMM 1996) on two levels. Everybody carries a virtual time: the work
they were given over their weight. The one that is behind goes first. Who comes back after a pause starts at the clock,
so that nobody saves up turns; who waits keeps the place, so that nobody starves: with n requesters waiting, each is
served again after at most n - 1 others. Pure; read and written by `line`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: work of a shard is counted in this many units, so that sums fit into 64 bits for as long as anybody trains
GRAIN = 10**6
#: a shard occupies its worker at least this long whatever its size: fetching, starting, handing in
OVERHEAD_S = 2
#: work units a second of a worker whose speed is not known: a laptop's cores
UNKNOWN_SPEED = 10**10
#: a job's share beside the others of its requester: nearly everything, but never all of it
WEIGHTS = {"low": 1, "normal": 32, "high": 32**2}
HEAVIEST = max(WEIGHTS.values())
MOST = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Somebody's place in a line: a requester's, or a job's among those of its requester."""

    name: str
    virtual: int = 0
    #: HEAVIEST for requesters, WEIGHTS for jobs
    weight: int = HEAVIEST
    #: earlier ones go first among equals
    since_ms: int = 0


def cost(work_units: int, units_per_s: int) -> int:
    """What a shard takes from the machines, in grains: its work, and the time for which it keeps a worker anyway."""
    return max((work_units + OVERHEAD_S * (units_per_s or UNKNOWN_SPEED)) // GRAIN, 1)


def start(place: Place, clock: int) -> int:
    """Where somebody's next shard begins: behind what they had, and not before the clock."""
    return max(place.virtual, clock)


def first(places: Iterable[Place], clock: int) -> Place | None:
    """Whose turn it is."""
    return min(places, key=lambda one: (start(one, clock), one.virtual, one.since_ms, one.name), default=None)


def served(place: Place, clock: int, taken: int) -> tuple[int, int]:
    """(virtual time, clock) after somebody was given a shard of this cost."""
    begun = start(place, clock)
    return min(begun + max(taken * HEAVIEST // place.weight, 1), MOST), begun
