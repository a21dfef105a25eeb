"""What every Store must do, run against each of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardwork.errors import Conflict, Internal
from shardwork_coordinator.records import (
    Account,
    Answer,
    Artifact,
    Event,
    Party,
    Payout,
    Record,
    Replica,
    ReplicaState,
    Transfer,
)
from shardwork_coordinator.store import Store, Transaction
from shardwork_coordinator.store.columns import Query

from .samples import artifact, event, lease, party, payout, replica, transfer


def put_all(*records: Record) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        for record in records:
            tx.put(record)

    return work


async def code_of(store: Store, work: Callable[[Transaction], object]) -> str:
    with pytest.raises((Conflict, Internal)) as caught:
        await store.write(work)
    return caught.value.code


async def test_a_record_comes_back_as_it_went_in(store: Store) -> None:
    rows: list[Record] = [
        party("ä", key=b"\x00\xff", reference=True),
        replica(3, state=ReplicaState.SUBMITTED, loss=0.1),
        transfer("t", 1, msat=2**62),
        Answer(id="a", request_sha256="0", response=b"", created_ms=-1),
        payout("p"),
    ]
    await store.write(put_all(*rows))
    back = await store.read(
        lambda tx: [
            tx.get(Party, "ä"),
            tx.get(Replica, "shard", 3),
            tx.get(Transfer, "t"),
            tx.get(Answer, "a"),
            tx.get(Payout, "p"),
        ]
    )
    assert back == rows
    assert isinstance(back[1], Replica)
    assert back[1].state is ReplicaState.SUBMITTED


async def test_a_missing_key_is_none(store: Store) -> None:
    assert await store.read(lambda tx: tx.get(Party, "nobody")) is None


async def test_insert_refuses_a_second_row_with_its_key(store: Store) -> None:
    await store.write(lambda tx: tx.insert(party("a")))
    assert await code_of(store, lambda tx: tx.insert(party("a", key=b"other"))) == "store.duplicate"


async def test_insert_and_put_refuse_a_unique_set_of_another_row(store: Store) -> None:
    await store.write(put_all(party("a"), party("b")))
    assert await code_of(store, lambda tx: tx.insert(party("c", key=b"a"))) == "store.duplicate"
    assert await code_of(store, lambda tx: tx.put(party("c", key=b"a"))) == "store.duplicate"
    assert await code_of(store, lambda tx: tx.put(party("b", key=b"a"))) == "store.duplicate"


async def test_a_refused_duplicate_leaves_its_transaction_usable(store: Store) -> None:
    def work(tx: Transaction) -> None:
        tx.insert(party("a"))
        with pytest.raises(Conflict):
            tx.insert(party("a", key=b"x"))
        with pytest.raises(Conflict):
            tx.put(party("b", key=b"a"))
        tx.insert(party("c"))

    await store.write(work)
    assert [row.id for row in await store.read(lambda tx: tx.find(Party))] == ["a", "c"]


async def test_a_unique_set_with_a_missing_value_may_repeat_and_a_changed_one_is_free_again(store: Store) -> None:
    await store.write(put_all(payout("a"), payout("b"), payout("c", payment_hash="h")))
    assert await code_of(store, lambda tx: tx.put(payout("a", payment_hash="h"))) == "store.duplicate"
    await store.write(put_all(payout("c", payment_hash="other"), payout("a", payment_hash="h")))
    hashes = await store.read(lambda tx: [row.payment_hash for row in tx.find(Payout)])
    assert hashes == ["h", None, "other"]


async def test_put_replaces_by_key_and_keeps_its_own_unique_set(store: Store) -> None:
    await store.write(put_all(party("a"), party("a", seen=7)))
    assert await store.read(lambda tx: tx.find(Party)) == [party("a", seen=7)]


async def test_a_two_part_key_tells_rows_apart(store: Store) -> None:
    await store.write(put_all(artifact("x", "a"), artifact("x", "b")))
    assert await store.read(lambda tx: tx.count(Artifact, "owner")) == {"a": 1, "b": 1}


async def test_append_only_rows_cannot_be_replaced(store: Store) -> None:
    await store.write(put_all(transfer("t", 1), lease("open"), lease("ended", ended_ms=9)))
    first = await store.write(lambda tx: tx.insert(event()))
    assert await code_of(store, lambda tx: tx.put(transfer("t", 1, msat=6))) == "store.append_only"
    assert await code_of(store, lambda tx: tx.put(replace(first, kind="other"))) == "store.append_only"
    assert await code_of(store, lambda tx: tx.put(lease("ended", ended_ms=10))) == "store.append_only"
    await store.write(put_all(lease("open", ended_ms=5)))


async def test_events_are_numbered_by_the_store(store: Store) -> None:
    def work(tx: Transaction) -> list[int]:
        tx.put(event("c"))
        return [tx.insert(event("a")).sequence, tx.insert(event("b")).sequence]

    assert await store.write(work) == [2, 3]
    assert (await store.write(lambda tx: tx.insert(event("d")))).sequence == 4
    beyond = await store.read(lambda tx: tx.find(Event, order="sequence", after=2))
    assert [(row.sequence, row.job_id) for row in beyond] == [(3, "b"), (4, "d")]


async def test_details_are_found_or_left_out_and_a_page_may_go_backwards(store: Store) -> None:
    def work(tx: Transaction) -> None:
        for number in range(6):
            tx.insert(replace(event("a"), detail=number % 2 == 1))

    await store.write(work)

    def page(tx: Transaction, **equals: bool) -> list[int]:
        found = tx.find(Event, job_id="a", order="sequence", descending=True, after=6, limit=2, **equals)
        return [row.sequence for row in found]

    assert await store.read(page) == [5, 4]
    assert await store.read(lambda tx: page(tx, detail=False)) == [5, 3]
    assert await store.read(lambda tx: page(tx, detail=True)) == [4, 2]


async def test_event_numbers_rise_across_a_failed_work(store: Store) -> None:
    def failing(tx: Transaction) -> None:
        tx.insert(event("lost"))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.write(failing)
    first = (await store.write(lambda tx: tx.insert(event("kept")))).sequence
    with pytest.raises(ValueError, match="no"):
        await store.write(failing)
    # PostgreSQL leaves a gap, SQLite and memory none
    assert (await store.write(lambda tx: tx.insert(event("next")))).sequence > first > 0


async def test_find_filters_by_value_by_several_and_by_absence(store: Store) -> None:
    await store.write(
        put_all(
            replica(0, loss=1.5),
            replica(1, state=ReplicaState.LEASED),
            replica(2, state=ReplicaState.ACCEPTED, loss=0.5),
        )
    )

    async def numbers(work: Callable[[Transaction], list[Replica]]) -> list[int]:
        return [row.number for row in await store.read(work)]

    assert await numbers(lambda tx: tx.find(Replica, state=ReplicaState.LEASED)) == [1]
    assert await numbers(lambda tx: tx.find(Replica, state={ReplicaState.LEASED, ReplicaState.READY})) == [0, 1]
    assert await numbers(lambda tx: tx.find(Replica, state=())) == []
    assert await numbers(lambda tx: tx.find(Replica, loss=None)) == [1]
    assert await numbers(lambda tx: tx.find(Replica, loss=0.5, stage="tune")) == [2]
    assert await numbers(lambda tx: tx.find(Replica, shard_id="shard", number=2, state="ready")) == []


async def test_find_orders_with_missing_values_first_and_equal_values_by_key(store: Store) -> None:
    rows = [replica(0, loss=2.0), replica(1), replica(2, loss=1.0), replica(3, loss=2.0), replica(4)]
    await store.write(put_all(*reversed(rows)))

    async def numbers(**how: Any) -> list[int]:
        return [row.number for row in await store.read(lambda tx: tx.find(Replica, **how))]

    assert await numbers() == [0, 1, 2, 3, 4]
    assert await numbers(descending=True) == [4, 3, 2, 1, 0]
    assert await numbers(order="loss") == [1, 4, 2, 0, 3]
    assert await numbers(order="loss", descending=True) == [3, 0, 2, 4, 1]
    assert await numbers(order="loss", descending=True, limit=2) == [3, 0]
    assert await numbers(order="loss", after=1) == [0, 3]
    assert await numbers(order="loss", descending=True, after=2) == [2]
    assert await numbers(order="number", limit=0) == []


async def test_count_gives_texts_and_respects_filters(store: Store) -> None:
    await store.write(put_all(party("a"), party("b", reference=True), party("c")))
    assert await store.read(lambda tx: tx.count(Party, "reference")) == {"False": 2, "True": 1}
    assert await store.read(lambda tx: tx.count(Party, "id", reference=True)) == {"b": 1}
    await store.write(put_all(replica(0), replica(1, state=ReplicaState.LEASED)))
    assert await store.read(lambda tx: tx.count(Replica, "state")) == {"ready": 1, "leased": 1}
    assert await store.read(lambda tx: tx.count(Replica, "loss")) == {"": 2}


#: what no annotation allows
ODD: Any = "odd"

REFUSED: list[tuple[Callable[[Transaction], object], str]] = [
    (lambda tx: tx.find(Party, nmae="a"), "store.unknown_column"),
    (lambda tx: tx.find(Party, order="nmae"), "store.unknown_column"),
    (lambda tx: tx.count(Party, "nmae"), "store.unknown_column"),
    (lambda tx: tx.find(Party, name=5), "store.bad_match"),
    (lambda tx: tx.find(Party, created_ms="5"), "store.bad_match"),
    (lambda tx: tx.find(Party, order="created_ms", after="5"), "store.bad_match"),
    (lambda tx: tx.find(Party, after=5), "store.after_without_order"),
    (lambda tx: tx.find(Party, limit=-1), "store.bad_limit"),
    (lambda tx: tx.put(transfer("t", 1, msat=0)), "store.rule_broken"),
    (lambda tx: tx.put(replace(transfer("t", 1), credit="external:simulated")), "store.rule_broken"),
    (lambda tx: tx.put(replace(transfer("t", 1), resolves="x")), "store.rule_broken"),
    (lambda tx: tx.put(Account(id="user:a", debits_posted=1)), "store.rule_broken"),
    (lambda tx: tx.put(Account(id="external:a", credits_pending=-1)), "store.rule_broken"),
    (lambda tx: tx.put(transfer("t", 1, msat=2**63)), "store.bad_value"),
    (lambda tx: tx.put(replica(0, loss=float("nan"))), "store.bad_value"),
    (lambda tx: tx.put(replace(replica(0), state=ODD)), "store.bad_value"),
    (lambda tx: tx.put(replace(party("a"), reference=ODD)), "store.bad_value"),
]


@pytest.mark.parametrize(("work", "code"), REFUSED)
async def test_a_wrong_question_or_row_is_refused_by_name(
    store: Store, work: Callable[[Transaction], object], code: str
) -> None:
    assert await code_of(store, work) == code


async def test_external_accounts_may_fall_below_zero(store: Store) -> None:
    overdrawn = Account(id="external:simulated", debits_posted=1)
    await store.write(put_all(overdrawn))
    assert await store.read(lambda tx: tx.get(Account, "external:simulated")) == overdrawn


async def test_a_failing_work_leaves_nothing_behind(store: Store) -> None:
    await store.write(put_all(party("a", seen=1), payout("p", payment_hash="h")))

    def failing(tx: Transaction) -> None:
        tx.put(party("a", seen=2))
        tx.insert(party("b"))
        tx.put(payout("p", payment_hash="i"))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await store.write(failing)
    assert await store.read(lambda tx: tx.find(Party)) == [party("a", seen=1)]
    assert await code_of(store, lambda tx: tx.insert(payout("q", payment_hash="h"))) == "store.duplicate"


async def test_one_failing_work_costs_no_other_anything(store: Store) -> None:
    def one(number: int) -> Callable[[Transaction], int]:
        def work(tx: Transaction) -> int:
            tx.insert(party(f"p{number:02}"))
            if number % 5 == 2:
                raise ValueError(str(number))
            return number

        return work

    results = await asyncio.gather(*(store.write(one(number)) for number in range(40)), return_exceptions=True)
    for number, result in enumerate(results):
        assert str(result) == str(number)
        assert isinstance(result, ValueError) == (number % 5 == 2)
    kept = await store.read(lambda tx: [row.id for row in tx.find(Party)])
    assert kept == [f"p{number:02}" for number in range(40) if number % 5 != 2]


async def test_reading_refuses_writes(store: Store) -> None:
    works: list[Callable[[Transaction], object]] = [lambda tx: tx.put(party("a")), lambda tx: tx.insert(event())]
    for work in works:
        with pytest.raises(Internal) as caught:
            await store.read(work)
        assert caught.value.code == "store.read_only"
    assert await store.read(lambda tx: tx.find(Party)) == []


async def test_what_was_answered_is_seen_by_the_next_read(store: Store) -> None:
    for number in range(20):
        await store.write(put_all(Account(id="user:a", credits_posted=number)))
        seen = await store.read(lambda tx: tx.get(Account, "user:a"))
        assert seen is not None
        assert seen.credits_posted == number


async def test_loops_in_several_threads_may_write_at_once(store: Store) -> None:
    def add(tx: Transaction) -> None:
        old = tx.get(Account, "external:x") or Account(id="external:x")
        tx.put(replace(old, credits_posted=old.credits_posted + 1))

    async def many() -> None:
        await asyncio.gather(*(store.write(add) for _ in range(25)))

    threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    found = await store.read(lambda tx: tx.get(Account, "external:x"))
    assert found == Account(id="external:x", credits_posted=100)


async def test_a_cancelled_writer_disturbs_nobody(store: Store) -> None:
    task = asyncio.ensure_future(store.write(put_all(party("a"))))
    await asyncio.sleep(0)
    task.cancel()
    await store.write(put_all(party("b")))
    assert party("b") in await store.read(lambda tx: tx.find(Party))


async def test_a_stop_iteration_reaches_its_caller(store: Store) -> None:
    empty: list[int] = []
    with pytest.raises(RuntimeError, match="StopIteration"):
        await store.write(lambda tx: next(iter(empty)))


async def test_a_closed_store_refuses_and_closes_again(store: Store) -> None:
    await store.write(put_all(party("a")))
    store.close()
    store.close()
    assert await code_of(store, put_all(party("b"))) == "store.closed"
    with pytest.raises(Internal):
        await store.read(lambda tx: tx.find(Party))


ROWS = st.lists(
    st.tuples(
        st.integers(0, 9), st.sampled_from(list(ReplicaState)), st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0]))
    ),
    max_size=12,
)
QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "order": st.sampled_from(["loss", "state", "number"]),
        "descending": st.booleans(),
        "limit": st.integers(0, 5),
        "state": st.one_of(st.sampled_from(list(ReplicaState)), st.lists(st.sampled_from(list(ReplicaState)))),
        "loss": st.sampled_from([None, 0.5]),
    },
)


#: hypothesis runs many examples on one store; each has rows of its own
JOBS = (f"job{number}" for number in count())


@given(rows=ROWS, query=QUERIES, start=st.integers(0, 1))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_find_answers_as_a_plain_filter_and_sort_would(
    store: Store, rows: list[tuple[int, ReplicaState, float | None]], query: dict[str, Any], start: int
) -> None:
    job = next(JOBS)
    made = [replace(replica(number, state=state, loss=loss), job_id=job, shard_id=job) for number, state, loss in rows]
    kept = {row.number: row for row in made}
    if query.get("order") in ("loss", "number"):
        query = {**query, "after": start}

    async def found() -> list[Replica]:
        await store.write(put_all(*kept.values()))
        return await store.read(lambda tx: tx.find(Replica, job_id=job, **query))

    assert asyncio.run(found()) == _by_hand(list(kept.values()), **query)


def _by_hand(
    rows: list[Replica],
    *,
    order: str | None = None,
    descending: bool = False,
    limit: int | None = None,
    after: int | None = None,
    **equals: Any,
) -> list[Replica]:
    """The slow, obvious answer."""
    checked = Query.of(Replica, equals)
    rows = sorted((row for row in rows if checked.matches(row)), key=lambda row: row.number, reverse=descending)
    if order is not None:
        rows.sort(key=lambda row: _rank(getattr(row, order)), reverse=descending)
    if order is not None and after is not None:
        values = [(row, getattr(row, order)) for row in rows]
        rows = [row for row, v in values if v is not None and (v < after if descending else v > after)]
    return rows[:limit]


def _rank(value: float | str | None) -> tuple[bool, float | str]:
    return (value is not None, 0.0 if value is None else value)
