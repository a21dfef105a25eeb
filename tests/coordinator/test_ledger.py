"""The ledger against a simple model, on every store; its refusals by name; and what `check` finds."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shardwork.errors import ShardworkError
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.ledger import Outcome
from shardwork_coordinator.money.movements import FEES, Hold, Move, MoveAll, Movement, PostHold, VoidHold
from shardwork_coordinator.records import Account, Transfer, TransferKind
from shardwork_coordinator.store import Store, Transaction

from .stores import OPEN

T = TypeVar("T")
OUTSIDE = "external:simulated"


def move(name: str, msat: int, *, debit: str = OUTSIDE, credit: str = "user:a") -> Move:
    return Move(id=name, debit=debit, credit=credit, msat=msat, reason="deposit", reference="r")


def hold(name: str, msat: int, *, debit: str = "user:a", credit: str = "worker:w") -> Hold:
    return Hold(id=name, debit=debit, credit=credit, msat=msat, reason="shard", reference="r")


def move_all(name: str, *, debit: str = "user:a", credit: str = "user:b") -> MoveAll:
    return MoveAll(id=name, debit=debit, credit=credit, reason="refund", reference="r")


async def do(store: Store, *movements: Movement) -> list[Outcome]:
    return await store.write(lambda tx: ledger.apply_all(tx, movements, 1))


async def refusal(store: Store, movement: Movement) -> str:
    before = await store.read(lambda tx: (tx.find(Account), tx.find(Transfer)))
    with pytest.raises(ShardworkError) as caught:
        await do(store, movement)
    assert await store.read(lambda tx: (tx.find(Account), tx.find(Transfer))) == before
    return caught.value.code


async def funds(store: Store, account: str) -> tuple[int, int, int]:
    """(available, held, balance)"""
    return await store.read(
        lambda tx: (ledger.available(tx, account), ledger.held(tx, account), ledger.balance(tx, account))
    )


async def test_a_hold_takes_from_what_is_available_and_a_smaller_post_gives_the_rest_back(store: Store) -> None:
    await do(store, move("fund", 100), hold("h", 60))
    assert await funds(store, "user:a") == (40, 60, 100)
    assert await funds(store, "worker:w") == (0, 0, 0)
    await do(store, PostHold(hold_id="h", msat=25))
    assert await funds(store, "user:a") == (75, 0, 75)
    assert await funds(store, "worker:w") == (25, 0, 25)
    assert await funds(store, OUTSIDE) == (-100, 0, -100)


async def test_a_void_gives_everything_back(store: Store) -> None:
    await do(store, move("fund", 100), hold("h", 100), VoidHold(hold_id="h"))
    assert await funds(store, "user:a") == (100, 0, 100)
    stored = await store.read(lambda tx: tx.get(Account, "worker:w"))
    assert stored == Account(id="worker:w")


async def test_no_account_but_an_external_one_falls_below_zero(store: Store) -> None:
    await do(store, move("fund", 100), hold("h", 60))
    assert await refusal(store, hold("i", 41)) == "ledger.insufficient"
    assert await refusal(store, move("m", 41, debit="user:a", credit="user:b")) == "ledger.insufficient"
    assert await refusal(store, move("m", 1, debit="worker:w")) == "ledger.insufficient"
    assert await do(store, hold("i", 40)) == [Outcome.APPLIED]


async def test_the_same_movement_again_changes_nothing(store: Store) -> None:
    script: list[Movement] = [
        move("fund", 100),
        hold("h", 60),
        PostHold(hold_id="h", msat=20),
        hold("i", 10),
        VoidHold(hold_id="i"),
        move_all("all"),
    ]
    assert await do(store, *script) == [Outcome.APPLIED] * 6
    before = await store.read(lambda tx: (tx.find(Account), tx.find(Transfer)))
    assert await do(store, *script) == [Outcome.REPLAYED] * 6
    assert await store.read(lambda tx: (tx.find(Account), tx.find(Transfer))) == before


@pytest.mark.parametrize(
    ("movement", "code"),
    [
        (move("fund", 101), "ledger.id_reused"),
        (hold("fund", 100, debit=OUTSIDE, credit="user:a"), "ledger.id_reused"),
        (replace(move("fund", 100), reference="other"), "ledger.id_reused"),
        (replace(move("fund", 100), credit="user:b"), "ledger.id_reused"),
        (move_all("fund", debit=OUTSIDE, credit="user:b"), "ledger.id_reused"),
        (PostHold(hold_id="posted", msat=9), "ledger.id_reused"),
        (VoidHold(hold_id="posted"), "ledger.already_resolved"),
        (PostHold(hold_id="voided", msat=10), "ledger.already_resolved"),
        (PostHold(hold_id="open", msat=11), "ledger.exceeds_hold"),
        (PostHold(hold_id="open", msat=0), "ledger.exceeds_hold"),
        (PostHold(hold_id="nothing", msat=1), "ledger.no_such_hold"),
        (VoidHold(hold_id="fund"), "ledger.not_a_hold"),
        (VoidHold(hold_id="posted!post"), "ledger.not_a_hold"),
        (move("x!post", 1), "ledger.bad_movement"),
        (move("", 1), "ledger.bad_movement"),
        (move("x", 0), "ledger.bad_movement"),
        (hold("x", -1), "ledger.bad_movement"),
        (move("x", 1, debit="user:a", credit="user:a"), "ledger.bad_movement"),
        (move("x", 1, debit=FEES), "ledger.bad_movement"),
        (move_all("x", debit="user:a", credit=""), "ledger.bad_movement"),
    ],
)
async def test_what_contradicts_the_books_is_refused_by_name(store: Store, movement: Movement, code: str) -> None:
    await do(store, move("fund", 100), hold("posted", 10), PostHold(hold_id="posted", msat=10))
    await do(store, hold("voided", 10), VoidHold(hold_id="voided"), hold("open", 10))
    assert await refusal(store, movement) == code


async def test_move_all_takes_what_is_not_held_and_nothing_from_nothing(store: Store) -> None:
    await do(store, move("fund", 100), hold("h", 30), move_all("one"))
    assert await funds(store, "user:a") == (0, 30, 30)
    assert await funds(store, "user:b") == (70, 0, 70)
    await do(store, move_all("two"))
    assert await store.read(lambda tx: tx.get(Transfer, "two")) is None


async def test_a_failing_movement_takes_its_whole_transaction_with_it(store: Store) -> None:
    with pytest.raises(ShardworkError):
        await do(store, move("fund", 10), hold("h", 11))
    assert await store.read(lambda tx: (tx.find(Account), tx.find(Transfer))) == ([], [])


async def test_a_statement_is_newest_first_and_goes_on_where_it_stopped(store: Store) -> None:
    await do(store, *(move(f"m{number}", number) for number in range(1, 8)), hold("h", 5, credit="user:b"))

    async def names(limit: int, before: int = 0) -> list[str]:
        return [item.id for item in await store.read(lambda tx: ledger.statement(tx, "user:a", limit, before))]

    assert await names(3) == ["h", "m7", "m6"]
    assert await names(3, 6) == ["m5", "m4", "m3"]
    assert await store.read(lambda tx: len(ledger.statement(tx, "user:b", 9))) == 1


async def test_check_balances_sound_books_over_several_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PAGE", 3)
    await do(store, *(move(f"m{number}", number) for number in range(1, 8)), hold("h", 5))
    await do(store, PostHold(hold_id="h", msat=4))
    report = await store.read(ledger.check)
    assert ledger.ledger_report_json(report) == {
        "balanced": True,
        "sum_msat": 0,
        "violations": [],
        "transfers": 9,
        "accounts": 3,
    }


def _forged(name: str, sequence: int, **changes: Any) -> Transfer:
    plain = Transfer(
        id=name,
        sequence=sequence,
        kind=TransferKind.POSTED,
        debit=OUTSIDE,
        credit="user:a",
        msat=1,
        reason="",
        reference="",
        at_ms=0,
    )
    return replace(plain, **changes)


FORGERIES: list[tuple[Callable[[Transaction], object], set[str]]] = [
    (lambda tx: tx.put(Account(id="user:a", credits_posted=11)), {"ledger.drift", "ledger.unbalanced"}),
    (lambda tx: tx.put(Account(id="user:z", credits_pending=1)), {"ledger.drift"}),
    (lambda tx: tx.insert(_forged("x", 3)), {"ledger.drift"}),
    (lambda tx: tx.insert(_forged("x", 4)), {"ledger.gap", "ledger.drift"}),
    (lambda tx: tx.insert(_forged("x", 3, debit="user:q", credit=OUTSIDE)), {"ledger.negative", "ledger.drift"}),
    (
        lambda tx: tx.insert(_forged("x", 3, kind=TransferKind.POST, resolves="fund")),
        {"ledger.bad_resolution", "ledger.drift"},
    ),
    (
        lambda tx: tx.insert(
            _forged("x", 3, kind=TransferKind.POST, resolves="h", debit="user:a", credit="worker:w", msat=6)
        ),
        {"ledger.bad_resolution", "ledger.drift"},
    ),
]


@pytest.mark.parametrize(("forge", "codes"), FORGERIES)
async def test_check_finds_each_kind_of_forgery(
    store: Store, forge: Callable[[Transaction], object], codes: set[str]
) -> None:
    await do(store, move("fund", 10), hold("h", 5))
    await store.write(forge)
    report = await store.read(ledger.check)
    assert not report.balanced
    assert {why.code for why in report.violations} == codes


async def test_check_finds_a_hold_resolved_twice() -> None:
    # the stores refuse such a row, so that the recount is fed by hand
    first = _forged("h", 1, kind=TransferKind.PENDING)
    rows = [first] + [
        replace(first, id=f"h{n}", sequence=n, kind=TransferKind.VOID, resolves="h", msat=1) for n in (2, 3)
    ]

    class Rows:
        def find(self, kind: type[Any], *, after: int = 0, **_: object) -> list[Any]:
            return [row for row in rows if row.sequence > after] if kind is Transfer else []

    report = ledger.check(Rows())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert "A hold was resolved twice." in {why.sentence for why in report.violations}


async def test_sixty_four_writers_lose_and_double_nothing(store: Store, request: pytest.FixtureRequest) -> None:
    # each statement to a server is a round trip
    writers, each = 64, 4 if "postgresql" in request.node.name else 40
    await do(store, *(move(f"fund{writer}", 1000, credit=f"user:{writer}") for writer in range(writers)))

    async def one(writer: int) -> Counter[Outcome]:
        seen: Counter[Outcome] = Counter()
        for number in range(each):
            target = f"user:{(writer * 7 + number + 1) % writers}"
            name, debit = f"t{writer}.{number}", f"user:{writer}"
            if target == debit:
                target = "user:other"
            step: list[Movement] = [hold(name, 10, debit=debit, credit=target), PostHold(hold_id=name, msat=7)]
            # every second one is sent twice at once, as a client that lost its answer does
            tries = 1 + number % 2
            for outcomes in await asyncio.gather(*(do(store, *step) for _ in range(tries))):
                seen.update(outcomes)
        return seen

    total: Counter[Outcome] = Counter()
    for seen in await asyncio.gather(*(one(writer) for writer in range(writers))):
        total.update(seen)
    assert total == {Outcome.APPLIED: 2 * writers * each, Outcome.REPLAYED: writers * each}
    report = await store.read(ledger.check)
    assert (report.balanced, report.sum_msat) == (True, 0)
    assert report.transfers == writers + 2 * writers * each


class LedgerLife(RuleBasedStateMachine):
    """Fund, hold, post, void, replay and contradict, compared after each step with a model of plain dictionaries."""

    kind, url = "memory", ""
    names = st.sampled_from([f"t{number}" for number in range(12)])
    accounts = st.sampled_from(["user:a", "user:b", "escrow:j", "worker:w", FEES, OUTSIDE])

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.store = OPEN[self.kind](Path(self.folder.name), self.url)
        self.store.start()
        self.done: dict[str, Move | Hold] = {}
        #: hold id -> what was posted, or None when voided
        self.resolved: dict[str, int | None] = {}

    def teardown(self) -> None:
        self.store.close()
        self.loop.close()
        self.folder.cleanup()

    def run(self, work: Callable[[Transaction], T]) -> T:
        async def write() -> T:
            return await self.store.write(work)

        return self.loop.run_until_complete(write())

    def outcome(self, movement: Movement) -> str:
        try:
            return self.run(lambda tx: ledger.apply(tx, movement, 1))
        except ShardworkError as error:
            return error.code

    def available(self, account: str) -> int:
        total = 0
        for name, item in self.done.items():
            waits = isinstance(item, Hold) and name not in self.resolved
            moved = self.resolved.get(name, item.msat) or 0
            if item.credit == account and not waits:
                total += moved
            if item.debit == account:
                total -= moved
        return total

    @initialize(msat=st.integers(1, 1000))
    def fund(self, msat: int) -> None:
        self.place(Move(id="fund", debit=OUTSIDE, credit="user:a", msat=msat, reason="deposit", reference="d"))

    @rule(name=names, debit=accounts, credit=accounts, msat=st.integers(1, 400), pending=st.booleans())
    def transfer(self, name: str, debit: str, credit: str, msat: int, pending: bool) -> None:
        kind = Hold if pending else Move
        self.place(kind(id=name, debit=debit, credit=credit, msat=msat, reason="x", reference="y"))

    def place(self, item: Move | Hold) -> None:
        if item.debit in (item.credit, FEES):
            expected = "ledger.bad_movement"
        elif item.id in self.done:
            expected = "replayed" if self.done[item.id] == item else "ledger.id_reused"
        elif item.debit != OUTSIDE and self.available(item.debit) < item.msat:
            expected = "ledger.insufficient"
        else:
            expected = "applied"
        assert self.outcome(item) == expected
        if expected == "applied":
            self.done[item.id] = item

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        assert self.outcome(data.draw(st.sampled_from(list(self.done.values())))) == "replayed"

    @rule(data=st.data(), change=st.integers(1, 5))
    def contradict(self, data: st.DataObject, change: int) -> None:
        old = data.draw(st.sampled_from(list(self.done.values())))
        assert self.outcome(replace(old, msat=old.msat + change)) == "ledger.id_reused"

    @rule(name=names, msat=st.one_of(st.none(), st.integers(1, 500)))
    def resolve(self, name: str, msat: int | None) -> None:
        """Posts, or voids when `msat` is None."""
        item = self.done.get(name)
        if item is None:
            expected = "ledger.no_such_hold"
        elif isinstance(item, Move):
            expected = "ledger.not_a_hold"
        elif name in self.resolved:
            kept = self.resolved[name]
            expected = "replayed" if kept == msat else "ledger.id_reused"
            if (kept is None) != (msat is None):
                expected = "ledger.already_resolved"
        else:
            expected = "applied" if msat is None or msat <= item.msat else "ledger.exceeds_hold"
        movement = VoidHold(hold_id=name) if msat is None else PostHold(hold_id=name, msat=msat)
        assert self.outcome(movement) == expected
        if expected == "applied":
            self.resolved[name] = msat

    @rule(name=names, debit=st.sampled_from(["user:a", "escrow:j"]))
    def refund(self, name: str, debit: str) -> None:
        amount = self.available(debit)
        fresh = name not in self.done
        outcome = self.outcome(MoveAll(id=name, debit=debit, credit="user:b", reason="x", reference="y"))
        if not fresh:
            assert outcome in ("replayed", "ledger.id_reused")
            return
        assert outcome == "applied"
        if amount > 0:
            self.done[name] = Move(id=name, debit=debit, credit="user:b", msat=amount, reason="x", reference="y")

    @invariant()
    def books_agree_with_the_model(self) -> None:
        names = ["user:a", "user:b", "escrow:j", "worker:w", FEES, OUTSIDE]
        report, found = self.run(lambda tx: (ledger.check(tx), {name: ledger.available(tx, name) for name in names}))
        assert report.violations == ()
        assert report.transfers == len(self.done) + len(self.resolved)
        assert found == {name: self.available(name) for name in names}


class LedgerLifeInSql(LedgerLife):
    kind = "sqlite"


class LedgerLifeOnServer(LedgerLife):
    kind = "postgresql"


@pytest.fixture
def ledger_server(postgresql: str) -> None:
    LedgerLifeOnServer.url = postgresql


TestLedgerInMemory = LedgerLife.TestCase
TestLedgerInMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedgerInSql = LedgerLifeInSql.TestCase
TestLedgerInSql.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)
if "postgresql" in OPEN:
    TestLedgerOnServer = pytest.mark.usefixtures("ledger_server")(LedgerLifeOnServer.TestCase)
    TestLedgerOnServer.settings = settings(max_examples=6, stateful_step_count=30, deadline=None)
