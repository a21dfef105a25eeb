"""Who gets what, and why something waits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwork.recipes.abilities import Ability
from shardwork_coordinator.scheduler import ReadyReplica, Worker, match, refusal, why_waiting

REPLICA = ReadyReplica(
    shard_id="j/t/r1/learn/s0",
    number=0,
    recipe="sft",
    rank=(0, 0, 0),
    memory_bytes=1_000,
    price_msat=1_000,
    reference_only=False,
    needs_training=True,
)
WORKER = Worker(
    id="w1", memory_bytes=2_000, minimum_msat=0, reference=False, can_train=True, recipes=frozenset({"sft"})
)
OTHER = replace(WORKER, id="w2")


def pairs(ready: list[ReadyReplica], idle: list[Worker], everyone: list[Worker] | None = None) -> list[tuple[str, str]]:
    return [(one.replica.shard_id, one.worker.id) for one in match(ready, idle, idle if everyone is None else everyone)]


@pytest.mark.parametrize(
    ("replica", "worker", "word"),
    [
        (replace(REPLICA, excluded=frozenset({"w1"})), WORKER, "already"),
        (replace(REPLICA, reference_only=True), WORKER, "reference"),
        (REPLICA, replace(WORKER, can_train=False), "torch"),
        (REPLICA, replace(WORKER, recipes=frozenset({"count"})), "recipe"),
        (REPLICA, replace(WORKER, memory_bytes=999), "memory"),
        (REPLICA, replace(WORKER, minimum_msat=1_001), "at least"),
    ],
)
def test_a_worker_that_can_not_take_a_shard_is_told_why(replica: ReadyReplica, worker: Worker, word: str) -> None:
    assert word in (refusal(replica, worker) or "")
    assert match([replica], [worker], [worker]) == []


@pytest.mark.parametrize(
    ("replica", "worker"),
    [
        (REPLICA, WORKER),
        (replace(REPLICA, excluded=frozenset({"w2"})), WORKER),
        (replace(REPLICA, reference_only=True), replace(WORKER, reference=True)),
        (replace(REPLICA, needs_training=False), replace(WORKER, can_train=False)),
        (REPLICA, replace(WORKER, memory_bytes=0)),
        (REPLICA, replace(WORKER, memory_bytes=1_000, minimum_msat=1_000)),
    ],
)
def test_a_worker_that_just_fits_gets_the_shard(replica: ReadyReplica, worker: Worker) -> None:
    assert refusal(replica, worker) is None
    assert pairs([replica], [worker]) == [(REPLICA.shard_id, "w1")]


def test_older_work_goes_first_and_a_worker_gets_one_shard_at_a_time() -> None:
    late = replace(REPLICA, shard_id="late", rank=(9, 0, 0))
    early = replace(REPLICA, shard_id="early", rank=(1, 5, 0))
    assert pairs([late, early], [WORKER]) == [("early", "w1")]
    assert pairs([late, early], [WORKER, OTHER]) == [("early", "w1"), ("late", "w2")]


def test_a_worker_that_failed_at_a_shard_waits_for_another_to_take_it() -> None:
    failed = replace(REPLICA, shunned=frozenset({"w1"}))
    assert pairs([failed], [WORKER, OTHER]) == [(REPLICA.shard_id, "w2")]
    assert pairs([failed], [WORKER], [WORKER, OTHER]) == []
    assert pairs([failed], [WORKER]) == [(REPLICA.shard_id, "w1")]
    unfit = replace(OTHER, memory_bytes=1)
    assert pairs([failed], [WORKER], [WORKER, unfit]) == [(REPLICA.shard_id, "w1")]


def test_a_shard_that_nobody_fits_keeps_nobody_from_other_work() -> None:
    huge = replace(REPLICA, shard_id="huge", memory_bytes=10**12)
    small = replace(REPLICA, shard_id="small", rank=(1, 0, 0))
    assert pairs([huge, small], [WORKER]) == [("small", "w1")]


def test_two_copies_of_a_shard_never_go_to_one_worker_in_one_round() -> None:
    copies = [REPLICA, replace(REPLICA, number=1, rank=(0, 0, 1))]
    assert pairs(copies, [WORKER]) == [(REPLICA.shard_id, "w1")]
    assert pairs(copies, [WORKER, OTHER]) == [(REPLICA.shard_id, "w1"), (REPLICA.shard_id, "w2")]


def test_what_waits_says_for_whom() -> None:
    assert why_waiting(REPLICA, []).code == "shard.no_workers"
    assert why_waiting(REPLICA, [WORKER]).code == "shard.workers_busy"
    poor = replace(WORKER, memory_bytes=1)
    why = why_waiting(REPLICA, [poor])
    assert why.code == "shard.too_large" and "memory" in why.evidence["w1"]
    assert (why.evidence["needed_bytes"], why.evidence["largest_bytes"]) == (f"{REPLICA.memory_bytes:,}", "1")
    assert "smaller model" in why.next_step
    elsewhere = why_waiting(replace(REPLICA, device="gpu"), [WORKER, OTHER])
    assert elsewhere.evidence["attached"] == "2" and "without schedule.device" in elsewhere.next_step


PROVEN = replace(WORKER, id="w3", proven=True)
FAILED_ONCE = replace(REPLICA, shunned=frozenset({"w1"}))


def test_a_shard_that_somebody_failed_at_goes_to_those_who_have_earned_something_here() -> None:
    assert pairs([FAILED_ONCE], [OTHER, PROVEN]) == [(REPLICA.shard_id, "w3")]
    # it waits for one who is busy rather than be used up by fresh keys
    assert pairs([FAILED_ONCE], [OTHER], [OTHER, PROVEN]) == []
    # but not for one who may not take it, or failed at it as well
    asking = replace(PROVEN, minimum_msat=2_000)
    assert pairs([FAILED_ONCE], [OTHER], [OTHER, asking]) == [(REPLICA.shard_id, "w2")]
    twice = replace(REPLICA, shunned=frozenset({"w1", "w3"}))
    assert pairs([twice], [OTHER, WORKER, PROVEN]) == [(REPLICA.shard_id, "w2")]


def test_with_nobody_else_there_even_one_that_failed_gets_it_again() -> None:
    assert pairs([FAILED_ONCE], [WORKER]) == [(REPLICA.shard_id, "w1")]
    assert pairs([FAILED_ONCE], [WORKER], [WORKER, OTHER]) == []


def test_a_shard_that_nobody_failed_at_goes_to_newcomers_too() -> None:
    assert pairs([REPLICA], [OTHER, PROVEN]) == [(REPLICA.shard_id, "w2")]


def test_keys_that_must_agree_are_first_asked_among_those_who_have_earned_but_nobody_waits_for_them() -> None:
    agreed = replace(REPLICA, agreed=True)
    assert pairs([agreed], [OTHER, PROVEN]) == [(REPLICA.shard_id, "w3")]
    assert pairs([agreed], [OTHER], [OTHER, PROVEN]) == [(REPLICA.shard_id, "w2")]


def test_a_paused_worker_takes_nothing_and_that_is_said() -> None:
    paused = replace(WORKER, paused=True)
    assert match([REPLICA], [paused], [paused]) == []
    assert why_waiting(REPLICA, [paused]).code == "shard.workers_paused"
    mixed = why_waiting(REPLICA, [paused, replace(OTHER, can_train=False)])
    assert mixed.code == "shard.no_fitting_worker" and mixed.evidence["w1"] == "is paused"


BF16, FOUR, EIGHT = Ability.BF16, Ability.BASE_4BIT, Ability.BASE_8BIT
PRICED = replace(REPLICA, price_msat=10_000, work_units=10**15)


@pytest.mark.parametrize(
    ("replica", "worker", "word"),
    [
        (PRICED, replace(WORKER, minimum_msat_per_tera=11), "10^12 work units (the price is 10)"),
        (PRICED, replace(WORKER, minimum_msat_per_tera=10), None),
        (PRICED, replace(WORKER, minimum_msat=10**9, minimum_msat_per_tera=10**9, donates=True), None),
        (replace(REPLICA, device="gpu"), replace(WORKER, device="cpu"), "asks for gpu"),
        (replace(REPLICA, device="gpu"), WORKER, "an unknown device"),
        (replace(REPLICA, device="gpu"), replace(WORKER, device="cuda:0"), None),
        (replace(REPLICA, device="cpu"), replace(WORKER, device="mps"), "asks for cpu"),
        (replace(REPLICA, device="cpu"), replace(WORKER, device="cpu"), None),
        (REPLICA, replace(WORKER, rests="rests for 60 s more"), "rests"),
        (replace(REPLICA, needs=frozenset({BF16})), WORKER, "can't compute in bf16"),
        (replace(REPLICA, needs=frozenset({BF16})), replace(WORKER, abilities=frozenset({BF16, FOUR})), None),
        (replace(REPLICA, needs=frozenset({FOUR})), replace(WORKER, device="cuda:0"), "bitsandbytes"),
        (replace(REPLICA, needs=frozenset({FOUR})), replace(WORKER, abilities=frozenset({EIGHT})), "4 bits"),
        (replace(REPLICA, needs=frozenset({FOUR})), replace(WORKER, abilities=frozenset({FOUR})), None),
    ],
)
def test_price_for_work_device_and_rest_decide(replica: ReadyReplica, worker: Worker, word: str | None) -> None:
    found = refusal(replica, worker)
    assert (found is None) if word is None else (found is not None and word in found)


def test_what_nobody_can_is_said_in_words_with_the_way_round_it() -> None:
    both = replace(REPLICA, needs=frozenset({BF16, FOUR}))
    why = why_waiting(both, [WORKER, replace(OTHER, abilities=frozenset({BF16}))])
    assert (why.code, why.evidence["w1"][:6]) == ("shard.no_able_worker", "can't ")
    assert why.sentence == "No attached worker can read a base in 4 bits (that takes CUDA and bitsandbytes)."
    assert "submit the job again with no params.base_bits." in why.next_step
    able = replace(OTHER, abilities=frozenset({BF16, FOUR}))
    assert why_waiting(both, [WORKER, able]).code == "shard.workers_busy"
    assert why_waiting(both, [WORKER, replace(able, memory_bytes=1)]).code == "shard.too_large"
    assert why_waiting(both, [replace(WORKER, paused=True), replace(able, paused=True)]).code == "shard.workers_paused"


def test_between_equals_the_one_that_holds_the_weights_goes_first_then_who_waited_longest() -> None:
    reading = replace(REPLICA, inputs=frozenset({"base", "checkpoint"}))
    holder = replace(OTHER, holds=frozenset({"base"}), idle_since_ms=9)
    assert pairs([reading], [WORKER, holder]) == [(REPLICA.shard_id, "w2")]
    both = replace(WORKER, holds=frozenset({"base", "checkpoint", "other"}))
    assert pairs([reading], [holder, both]) == [(REPLICA.shard_id, "w1")]
    patient = replace(WORKER, idle_since_ms=1)
    assert pairs([REPLICA], [replace(OTHER, idle_since_ms=2), patient]) == [(REPLICA.shard_id, "w1")]


def test_a_reference_worker_is_kept_for_what_only_it_may_compute() -> None:
    reference = replace(WORKER, reference=True, proven=True, holds=frozenset({"base"}))
    reading = replace(REPLICA, inputs=frozenset({"base"}))
    assert pairs([reading], [reference, OTHER]) == [(REPLICA.shard_id, "w2")]
    assert pairs([reading], [reference]) == [(REPLICA.shard_id, "w1")], "it never stands idle beside work"
    kept = replace(REPLICA, shard_id="evaluate", rank=(0, 1, 0), reference_only=True)
    assert sorted(pairs([reading, kept], [reference, OTHER])) == [("evaluate", "w1"), (REPLICA.shard_id, "w2")]


def test_saying_that_it_holds_everything_gains_no_work_that_a_worker_could_not_take() -> None:
    everything = frozenset(f"artifact{number}" for number in range(64))
    reading = replace(REPLICA, inputs=everything)
    liar = replace(WORKER, holds=everything, memory_bytes=1)
    assert pairs([reading], [liar, OTHER]) == [(REPLICA.shard_id, "w2")]
    failed = replace(reading, shunned=frozenset({"w1"}))
    assert pairs([failed], [replace(WORKER, holds=everything), OTHER]) == [(REPLICA.shard_id, "w2")]


def test_shards_of_a_round_go_to_as_many_workers_as_are_idle() -> None:
    round_ = [replace(REPLICA, shard_id=f"s{number}", rank=(0, number, 0)) for number in range(4)]
    workers = [replace(WORKER, id=f"w{number}", holds=frozenset({"base"} if number else ())) for number in range(4)]
    assert len({worker for _, worker in pairs(round_, workers)}) == 4


def test_a_price_that_nobody_takes_is_said_as_such() -> None:
    why = why_waiting(PRICED, [replace(WORKER, minimum_msat_per_tera=11), replace(OTHER, can_train=False)])
    assert why.code == "shard.price_too_low" and "10^12" in why.evidence["w1"]
    for told in (why, why_waiting(REPLICA, []), why_waiting(REPLICA, [WORKER])):
        assert told.next_step


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.builds(replace, st.just(REPLICA), shard_id=st.text("ab", min_size=1), memory_bytes=st.integers(0, 9))),
    st.lists(st.builds(replace, st.just(WORKER), id=st.text("wxyz", min_size=1), memory_bytes=st.integers(1, 9))),
)
def test_no_match_is_one_that_would_be_refused_and_no_fitting_pair_is_left(
    ready: list[ReadyReplica], workers: list[Worker]
) -> None:
    idle = list({worker.id: worker for worker in workers}.values())
    found = match(ready, idle, idle)
    assert all(refusal(one.replica, one.worker) is None for one in found)
    assert len({one.worker.id for one in found}) == len(found)
    left = [one for one in ready if all(one is not pair.replica for pair in found)]
    free = [one for one in idle if all(one.id != pair.worker.id for pair in found)]
    assert len(found) == min(len(ready), len(idle)) or all(refusal(r, w) for r in left for w in free)
