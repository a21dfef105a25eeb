"""Standing: bots are stopped and unpaid, people who look are cleared and stay, checks come at their shares."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwork.feedback.quality import (
    STOP_LATER,
    Cause,
    Key,
    Kind,
    Rules,
    Seen,
    Standing,
    State,
    after,
    last_word,
    next_kind,
)
from shardwork.feedback.votes import Winner

from .simulation import FOUND_EARLY, Habit, Person, Sat, person, sit

RULES = Rules()


def crowd(people: int = 30, items: int = 40) -> dict[str, list[Winner]]:
    """What honest people pressed before."""
    keys: dict[str, list[Winner]] = {}
    for number in range(people):
        who = person(f"before-{number}", Habit.HONEST, seed=5)
        sit(who, items, RULES)
        keys[who.name] = who.pressed
    return keys


BEFORE = crowd()


def sittings(
    make: Callable[[int], Person], people: int, items: int, others: Mapping[str, Sequence[Winner]] | None = None
) -> list[Sat]:
    return [sit(make(number), items, RULES, others) for number in range(people)]


def share(sats: Sequence[Sat], items: int, state: State) -> float:
    return sum(sat.at(items) is state for sat in sats) / len(sats)


@pytest.mark.parametrize("habit", FOUND_EARLY)
def test_a_bot_is_stopped_within_20_items(habit: Habit) -> None:
    copied = list(BEFORE.values())
    sats = sittings(lambda n: person(f"bot-{n}", habit, 1, copied[n % len(copied)]), 400, 20, BEFORE)
    assert share(sats, 20, State.STOPPED) >= 0.99


@pytest.mark.parametrize("broken", [0.0, 0.5])
@pytest.mark.parametrize("habit", FOUND_EARLY)
def test_a_bot_is_stopped_by_items_that_the_stage_made_too(habit: Habit, broken: float) -> None:
    copied = list(BEFORE.values())
    people = [person(f"made-{n}", habit, 1, copied[n % len(copied)]) for n in range(400)]
    sats = [sit(who, 40, RULES, BEFORE, broken=broken) for who in people]
    assert share(sats, 20, State.CLEARED) <= 0.01 and share(sats, 40, State.STOPPED) >= 0.97


@pytest.mark.parametrize("broken", [0.0, 0.3, 0.6, 1.0])
def test_who_says_of_a_broken_answer_that_it_is_bad_is_not_stopped(broken: float) -> None:
    """A demo's five honest people were all stopped: answers that the hidden items were made of were bad themselves."""
    sats = [sit(person(f"looks-{n}", Habit.HONEST, 7), 60, RULES, broken=broken) for n in range(300)]
    assert share(sats, 60, State.STOPPED) <= 0.03
    if broken < 1:
        assert sum(last_word(sat.last) is State.CLEARED for sat in sats) >= 0.97 * len(sats)


def test_who_was_tested_and_never_named_a_side_is_not_paid() -> None:
    mute = Standing()
    for _ in range(5):
        mute = after(mute, Seen(kind=Kind.GOLD, unsaid=(4, 4)))
    assert (mute.state, mute.wrong, mute.unsaid, last_word(mute)) == (State.PROBATION, 0.0, 5, State.STOPPED)
    assert last_word(after(mute, Seen(kind=Kind.GOLD, right=True))) is State.CLEARED


def test_who_tosses_a_coin_is_mostly_stopped_within_20_items() -> None:
    sats = sittings(lambda n: person(f"coin-{n}", Habit.COIN, 1), 400, 20)
    assert share(sats, 20, State.STOPPED) >= 0.95


def test_who_is_just_good_enough_is_cleared_within_20_items_and_stays() -> None:
    sats = sittings(lambda n: Person(name=f"edge-{n}", chance=random.Random(n)), 300, 300)
    assert share(sats, 20, State.CLEARED) >= 0.95
    assert share(sats, 300, State.STOPPED) < 0.02


def test_who_leans_to_one_side_is_no_bot() -> None:
    sats = sittings(lambda n: Person(name=f"lean-{n}", leans=0.95, chance=random.Random(n)), 100, 200)
    assert sum(sat.last.cause is Cause.PATTERN for sat in sats) == 0
    assert share(sats, 200, State.STOPPED) < 0.03


def test_people_who_look_are_not_taken_for_copies_of_many_others() -> None:
    sats = sittings(lambda n: person(f"late-{n}", Habit.HONEST, 2), 150, 60, BEFORE)
    assert Counter(sat.last.cause for sat in sats)[Cause.COPY] == 0


def test_who_turns_bad_later_is_stopped_too() -> None:
    def turning(number: int) -> Person:
        who = person(f"turning-{number}", Habit.TURNED, 3)
        who.turns_at = 60
        return who

    sats = sittings(turning, 100, 160)
    assert share(sats, 60, State.CLEARED) >= 0.97
    assert share(sats, 160, State.STOPPED) >= 0.99
    assert {sat.last.cause for sat in sats if sat.last.items > 70} == {Cause.WRONG}


@pytest.mark.parametrize(
    ("habit", "cause"), [(Habit.HASTY, Cause.HASTE), (Habit.LEFT, Cause.PATTERN), (Habit.COPIER, Cause.COPY)]
)
def test_each_habit_is_found_by_its_own_test_where_the_answers_are_right(habit: Habit, cause: Cause) -> None:
    """Nothing is hidden and nothing repeated here: keys and times alone."""
    rules = Rules(gold_share=0, repeat_share=0)
    copied = list(BEFORE.values())
    sats = [sit(person(f"b-{n}", habit, 4, copied[n % 30]), 40, rules, BEFORE) for n in range(50)]
    assert Counter(sat.last.cause for sat in sats)[cause] >= 49


def test_an_untested_stage_clears_everybody_who_presses_both_keys() -> None:
    standing, rules = Standing(), Rules(gold_share=0, repeat_share=0)
    for key in (Key.LEFT, Key.RIGHT, Key.LEFT):
        standing = after(standing, Seen(kind=Kind.ASK, key=key), rules)
        assert standing.state is State.PROBATION
    assert after(standing, Seen(kind=Kind.ASK, key=Key.RIGHT), rules).state is State.CLEARED


def test_a_stage_without_sides_clears_by_hidden_items_alone() -> None:
    standing = Standing()
    for _ in range(10):
        standing = after(standing, Seen(kind=Kind.GOLD, right=True))
    assert (standing.state, standing.golds, standing.golds_right) == (State.CLEARED, 10, 10)
    assert standing.since == 9


def test_who_is_stopped_stays_stopped() -> None:
    stopped = Standing(state=State.STOPPED, cause=Cause.WRONG, items=9)
    assert after(stopped, Seen(kind=Kind.GOLD, right=True)) is stopped
    assert last_word(stopped) is State.STOPPED


def test_the_last_word_is_the_likelier() -> None:
    right = after(Standing(), Seen(kind=Kind.GOLD, right=True))
    wrong = after(Standing(), Seen(kind=Kind.GOLD, right=False))
    assert (last_word(right), last_word(wrong), last_word(Standing())) == (
        State.CLEARED,
        State.STOPPED,
        State.CLEARED,
    )


def test_a_long_good_past_does_not_excuse_a_bad_present() -> None:
    good = Standing(state=State.CLEARED, items=500)
    for _ in range(100):
        good = after(good, Seen(kind=Kind.GOLD, right=True))
    wrong = 0
    while good.state is State.CLEARED:
        good, wrong = after(good, Seen(kind=Kind.GOLD, right=False)), wrong + 1
    assert wrong <= 5 and good.wrong >= STOP_LATER


seen = st.builds(
    Seen,
    kind=st.sampled_from(Kind),
    right=st.none() | st.booleans(),
    key=st.sampled_from(Key),
    too_fast=st.booleans(),
    others=st.dictionaries(st.sampled_from("xyz"), st.sampled_from(Key)),
)


@given(st.lists(seen, max_size=40))
def test_a_standing_goes_on_from_its_json(answers: list[Seen]) -> None:
    kept = carried = Standing()
    for answer in answers:
        kept, carried = after(kept, answer), after(Standing.of(carried.to_json()), answer)
    assert Standing.of(carried.to_json()) == kept
    assert Standing.of("{}") == Standing()


@given(st.lists(seen, max_size=40))
def test_left_and_right_are_treated_alike(answers: list[Seen]) -> None:
    swap = {Key.LEFT: Key.RIGHT, Key.RIGHT: Key.LEFT, Key.OTHER: Key.OTHER}
    one = other = Standing()
    for answer in answers:
        turned = {name: swap[key] for name, key in answer.others.items()}
        one, other = after(one, answer), after(other, replace(answer, key=swap[answer.key], others=turned))
    assert (one.state, one.cause, one.wrong, one.pattern) == (other.state, other.cause, other.wrong, other.pattern)


@given(st.binary(max_size=8), st.integers(1, 40))
def test_checks_hold_their_share_exactly_in_every_20_items(secret: bytes, block: int) -> None:
    cleared = Standing(state=State.CLEARED)
    kinds = Counter(next_kind(secret, block * 20 + at, cleared) for at in range(20))
    assert kinds == {Kind.GOLD: 2, Kind.REPEAT: 2, Kind.ASK: 16}


def test_a_share_that_is_no_whole_number_holds_in_the_mean() -> None:
    rules, cleared = Rules(gold_share=0.03, repeat_share=0.0), Standing(state=State.CLEARED)
    kinds = Counter(next_kind(b"s", at, cleared, rules) for at in range(20_000))
    assert kinds[Kind.REPEAT] == 0
    assert 0.025 < kinds[Kind.GOLD] / 20_000 < 0.035


def test_more_is_checked_in_probation_and_while_somebody_is_suspected() -> None:
    suspected = Standing(state=State.CLEARED, wrong=4.0)
    for standing in (Standing(), suspected):
        kinds = Counter(next_kind(b"s", at, standing) for at in range(20))
        assert kinds == {Kind.GOLD: 15, Kind.REPEAT: 3, Kind.ASK: 2}


def test_nothing_is_repeated_before_there_is_something_to_repeat() -> None:
    for secret in range(200):
        kinds = [next_kind(str(secret).encode(), at, Standing()) for at in range(20)]
        checks = [kind for kind in kinds if kind is not Kind.GOLD]
        assert checks == sorted(checks, key=lambda kind: kind is Kind.REPEAT)


def test_what_is_not_to_be_had_is_made_up_for() -> None:
    cleared = Standing(state=State.CLEARED)
    wishes = [next_kind(b"s", at, Standing()) for at in range(20)]
    no_gold = [next_kind(b"s", at, Standing(), can={Kind.ASK, Kind.REPEAT}) for at in range(20)]
    assert [Kind.REPEAT if wish is Kind.GOLD else wish for wish in wishes] == no_gold
    assert {next_kind(b"s", at, cleared, can={Kind.ASK}) for at in range(40)} == {Kind.ASK}
    assert {next_kind(b"s", at, cleared, can={Kind.GOLD}) for at in range(40)} == {Kind.GOLD}


def test_a_stage_without_hidden_items_tests_by_repeats_and_one_without_repeats_by_hidden_items() -> None:
    no_gold = Counter(next_kind(b"s", at, Standing(), Rules(gold_share=0)) for at in range(2000))
    assert no_gold[Kind.GOLD] == 0 and no_gold[Kind.REPEAT] == 900
    no_repeat = Counter(next_kind(b"s", at, Standing(), Rules(repeat_share=0)) for at in range(2000))
    assert no_repeat[Kind.REPEAT] == 0 and no_repeat[Kind.GOLD] == 1800
    assert {next_kind(b"s", at, Standing(), Rules(gold_share=0, repeat_share=0)) for at in range(40)} == {Kind.ASK}


def test_the_same_secret_lays_out_the_same_kinds_and_another_one_others() -> None:
    def plan(secret: bytes) -> list[Kind]:
        return [next_kind(secret, at, Standing()) for at in range(20)]

    assert plan(b"one") == plan(b"one") != plan(b"two")
