"""Fair order: shares come out equal, priority stays inside a requester, and nobody starves, whatever the lengths."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from shardwork_coordinator.queueing.fairness import HEAVIEST, MOST, WEIGHTS, Place, cost, first, served, start

COSTS = st.integers(min_value=1, max_value=10**6)


class Level:
    """One level of the order with everybody always waiting."""

    def __init__(self, places: list[Place]) -> None:
        self.places, self.clock = {place.name: place for place in places}, 0
        self.taken: Counter[str] = Counter()

    def serve(self, taken: int, among: set[str] | None = None) -> str:
        waiting = [place for name, place in self.places.items() if among is None or name in among]
        place = first(waiting, self.clock)
        assert place is not None
        virtual, self.clock = served(place, self.clock, taken)
        self.places[place.name] = replace(place, virtual=virtual)
        self.taken[place.name] += taken
        return place.name


def requesters(count: int) -> list[Place]:
    return [Place(name=f"r{number}") for number in range(count)]


@settings(deadline=None, max_examples=40)
@given(st.lists(COSTS, min_size=1, max_size=60), st.integers(2, 8))
def test_shares_differ_by_at_most_one_shard_each(costs: list[int], count: int) -> None:
    line = Level(requesters(count))
    for taken in costs:
        line.serve(taken)
    shares = [line.taken[place] for place in line.places]
    assert max(shares) - min(shares) <= 2 * max(costs)


@settings(deadline=None, max_examples=40)
@given(st.lists(COSTS, min_size=1, max_size=60), st.integers(2, 8))
def test_who_waits_is_served_after_at_most_as_many_others_as_wait_or_their_work(costs: list[int], count: int) -> None:
    line = Level(requesters(count))
    waited = dict.fromkeys(line.places, 0)
    for taken in costs:
        name = line.serve(taken)
        waited = {one: 0 if one == name else work + taken for one, work in waited.items()}
        # the others' work while somebody waits is bounded by the longest shard each of them can be ahead
        assert max(waited.values()) <= 2 * count * max(costs)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 10**6), st.lists(COSTS, min_size=1, max_size=60), st.integers(2, 6))
def test_a_newcomer_is_served_next_and_saves_up_nothing(away: int, costs: list[int], count: int) -> None:
    line = Level(requesters(count))
    for taken in costs:
        line.serve(taken, among={"r1"})
    assert line.serve(away) != "r1" or count == 1
    for taken in costs:
        line.serve(taken)
    newcomers = [line.taken[f"r{number}"] for number in range(count) if number != 1]
    # what r1 had alone is not held against it
    assert max(newcomers) <= sum(costs) + away


@settings(deadline=None, max_examples=40)
@given(st.lists(COSTS, min_size=20, max_size=30), st.sampled_from(["low", "normal", "high"]))
def test_no_priority_keeps_a_job_from_being_served(costs: list[int], priority: str) -> None:
    jobs = [Place(name=name, weight=WEIGHTS[name]) for name in WEIGHTS]
    line = Level(jobs)
    # the longest shard of `high` is worth a thousand turns of `low`
    for _ in range(60):
        for taken in costs:
            line.serve(taken)
    assert line.taken[priority] > 0


def test_a_higher_priority_gets_nearly_everything() -> None:
    line = Level([Place(name="high", weight=WEIGHTS["high"]), Place(name="normal", weight=WEIGHTS["normal"])])
    for _ in range(3_300):
        line.serve(1_000)
    assert line.taken["normal"] == line.taken["high"] // 32


def test_a_shard_costs_its_work_and_the_time_it_keeps_its_worker() -> None:
    assert cost(10**15, 10**12) == 10**9 + 2 * 10**6
    assert cost(0, 10**12) == 2 * 10**6
    # of a worker that is not known, a laptop's time
    assert cost(0, 0) == 2 * 10**4


def test_equals_go_by_age_then_by_name() -> None:
    young, old = Place(name="a", since_ms=2), Place(name="b", since_ms=1)
    assert first([young, old], 0) == old
    assert first([replace(old, name="c"), old], 0) == old
    assert first([], 0) is None


@settings(deadline=None, max_examples=40)
@given(st.integers(0, MOST), st.integers(0, MOST), st.integers(1, 10**14), st.sampled_from(sorted(WEIGHTS.values())))
def test_numbers_stay_inside_the_columns_and_never_go_back(virtual: int, clock: int, taken: int, weight: int) -> None:
    place = Place(name="a", virtual=virtual, weight=weight)
    after, then = served(place, clock, taken)
    assert virtual <= after <= MOST and clock <= then == start(place, clock) <= MOST
    assert after > then or after == MOST
    assert weight <= HEAVIEST
