"""Payouts against a node with every failing, killed between any two steps: no double payment, nothing stuck."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from shardwork.clock import ManualClock
from shardwork.errors import InvalidInput, NotEnoughFunds, ShardworkError
from shardwork.identity.role import Role
from shardwork.money import sats
from shardwork.v1 import wallet_pb2
from shardwork.why import Why
from shardwork_coordinator.money import ledger, payouts
from shardwork_coordinator.money.movements import Move, external_account, worker_account
from shardwork_coordinator.money.payouts import IN_FLIGHT, LIVE, PayoutRules
from shardwork_coordinator.payments.base import Invoice, InvoiceState, Payment, PaymentState
from shardwork_coordinator.payments.journal import StoreJournal
from shardwork_coordinator.payments.simulated import Behaviour, Script, SimulatedPayments
from shardwork_coordinator.records import Party, Payout, PayoutState
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.rpc.wallet import Wallet, get_balance, list_transfers
from shardwork_coordinator.store import MemoryStore, SqlStore, Store, Transaction

T = TypeVar("T")
#: no second payout to the same worker in these tests, so that each one's end can be looked at
RULES = PayoutRules(rest_ms=10**12)
#: which of them end in payment
PAYS = {Behaviour.SETTLE: True, Behaviour.LATE: True, Behaviour.UNKNOWN: True, Behaviour.DUPLICATE: True}


class Crash(BaseException):
    """The coordinator dies here; no handler may catch it."""


class Fuse:
    """Counts the moments at which the process could die, and dies at one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.passed = 0

    def step(self) -> None:
        self.passed += 1
        if self.at is not None and self.passed == self.at:
            raise Crash


class DyingStore:
    """A store on which the process may die before and after each commit."""

    def __init__(self, inner: Store, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def start(self) -> None: ...

    async def write(self, work: Callable[[Transaction], T]) -> T:
        self._fuse.step()
        result = await self._inner.write(work)
        self._fuse.step()
        return result

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self._inner.read(work)

    def close(self) -> None: ...


class DyingPayments:
    """A node on whose calls the process may die: before the request leaves and before the answer is seen."""

    def __init__(self, inner: SimulatedPayments, fuse: Fuse, sends: Counter[str]) -> None:
        self._inner = inner
        self._fuse = fuse
        self._sends = sends

    @property
    def asset(self) -> str:
        return self._inner.asset

    async def create_invoice(self, msat: int, memo: str, idempotency_key: str) -> Invoice:
        raise NotImplementedError

    async def invoice_status(self, payment_hash: str) -> InvoiceState:
        raise NotImplementedError

    async def pay(self, invoice: str, fee_limit_msat: int) -> Payment:
        self._fuse.step()
        self._sends[invoice] += 1
        answer = await self._inner.pay(invoice, fee_limit_msat)
        self._fuse.step()
        return answer

    async def payment_status(self, payment_hash: str) -> Payment:
        self._fuse.step()
        return await self._inner.payment_status(payment_hash)

    async def resolve_address(self, address: str, msat: int) -> Invoice:
        self._fuse.step()
        invoice = await self._inner.resolve_address(address, msat)
        self._fuse.step()
        return invoice


class World:
    """A store, a node with a journal, and some workers; `restart` is what a new process sees."""

    def __init__(self, folder: Path, store: Store | None = None, script: Script | None = None) -> None:
        self.clock = ManualClock()
        self.store = store or MemoryStore()
        self.store.start()
        self.sends: Counter[str] = Counter()
        self._journal = folder / "node.jsonl"
        self._script = script
        self._earned = 0
        self.restart()

    def restart(self) -> None:
        self.node = SimulatedPayments(self.clock, self._journal, self._script)

    async def earn(self, owner: str, msat: int, address: str | None = None) -> None:
        self._earned += 1
        move = Move(
            id=f"earn{self._earned}",
            debit="external:test",
            credit=worker_account(owner),
            msat=msat,
            reason="shard",
            reference="s",
        )
        party = Party(
            id=owner,
            public_key=owner.encode(),
            roles="worker",
            name=owner,
            payout_address=f"{owner}@simulated" if address is None else address,
            created_ms=0,
            last_seen_ms=0,
        )

        def work(tx: Transaction) -> None:
            tx.put(party)
            ledger.apply(tx, move, 0)

        await self.store.write(work)

    async def sweep(self, fuse: Fuse | None = None, rules: PayoutRules = RULES) -> None:
        fuse = fuse or Fuse()
        await payouts.advance(
            DyingStore(self.store, fuse), DyingPayments(self.node, fuse, self.sends), self.clock, rules
        )

    async def dying_sweep(self, at: int) -> bool:
        """Sweeps until the fuse blows and restarts; False when it was too long to blow."""
        try:
            await self.sweep(Fuse(at))
        except Crash:
            self.restart()
            return True
        return False

    async def settle_down(self, sweeps: int = 8) -> None:
        for _ in range(sweeps):
            self.clock.advance(300)
            await self.sweep()

    async def rows(self) -> list[Payout]:
        return await self.store.read(lambda tx: tx.find(Payout))

    async def funds(self, owner: str) -> tuple[int, int]:
        account = worker_account(owner)
        return await self.store.read(lambda tx: (ledger.available(tx, account), ledger.held(tx, account)))

    async def check(self) -> None:
        """No hash was sent twice, what left is what the rows and the books say, and the books balance."""
        rows = await self.rows()
        assert all(times == 1 for times in self.sends.values()), self.sends
        settled = {row.payment_hash: row.msat for row in rows if row.state is PayoutState.SETTLED}
        assert len(settled) == sum(row.state is PayoutState.SETTLED for row in rows)
        unsure = {row.payment_hash for row in rows if row.state in IN_FLIGHT}
        assert {key: msat for key, msat in self.node.settled_msat.items() if key not in unsure} == settled
        report, out = await self.store.read(
            lambda tx: (ledger.check(tx), ledger.balance(tx, external_account("simulated")))
        )
        assert report.violations == ()
        fees = out - sum(settled.values())
        assert 0 <= fees <= sum(row.fee_limit_msat for row in rows if row.state is PayoutState.SETTLED)


@pytest.fixture
def world(tmp_path: Path, store: Store) -> World:
    return World(tmp_path, store)


async def only(world: World) -> Payout:
    (row,) = await world.rows()
    return row


async def test_earnings_above_the_threshold_are_paid_with_a_receipt(world: World) -> None:
    await world.earn("w", sats(1100))
    await world.sweep()
    row = await only(world)
    assert (row.state, row.msat, row.fee_limit_msat) == (PayoutState.SETTLED, sats(1089), 10_890)
    assert row.preimage
    # 1 sat was the fee; the rest of the fee limit came back
    assert await world.funds("w") == (sats(10), 0)
    await world.check()


async def test_a_worker_sees_its_payout_with_hash_and_state_and_from_when_on_it_is_paid_out(world: World) -> None:
    await world.earn("w", sats(1100))
    wallet = Wallet(world.store, world.node, world.clock, threshold_msat=RULES.threshold_msat)
    caller = Caller("w", b"\x01" * 32, Role.WORKER)
    before = await get_balance(wallet_pb2.GetBalanceRequest(), caller, wallet)
    assert (before.payout_threshold_msat, before.payout_address) == (sats(1000), "w@simulated")
    await world.sweep()
    row = await only(world)
    payout, pay = (await list_transfers(wallet_pb2.ListTransfersRequest(), caller, wallet)).transfers
    assert (payout.id, payout.kind, payout.payout_state) == (row.id, "payout", "settled")
    assert payout.payment_hash == row.payment_hash and len(payout.payment_hash) == 64
    assert (pay.kind, pay.payment_hash, pay.payout_state) == ("shard", "", "")


async def test_earnings_below_the_threshold_wait_and_can_be_asked_for(world: World) -> None:
    await world.earn("w", sats(999))
    await world.sweep()
    assert await world.rows() == []
    asked = await world.store.write(lambda tx: payouts.request(tx, "w", "simulated", RULES, 0))
    again = await world.store.write(lambda tx: payouts.request(tx, "w", "simulated", RULES, 0))
    assert asked == again
    await world.sweep()
    assert (await only(world)).state is PayoutState.SETTLED


@pytest.mark.parametrize(
    ("earned", "address", "error", "code"),
    [
        (sats(100), "", InvalidInput, "payout.no_address"),
        (sats(3) - 1, "w@simulated", NotEnoughFunds, "payout.too_little"),
    ],
)
async def test_a_payout_that_cannot_be_is_refused(
    world: World, earned: int, address: str, error: type[ShardworkError], code: str
) -> None:
    await world.earn("w", earned, address)
    with pytest.raises(error) as caught:
        await world.store.write(lambda tx: payouts.request(tx, "w", "simulated", RULES, 0))
    assert caught.value.code == code


@pytest.mark.parametrize("earned", [0, 1, 2000, 2999, 3000, 202_000, 203_999, 1_000_001, 10**12 + 7])
def test_a_payout_and_its_fee_limit_fit_what_was_earned_and_waste_less_than_a_sat(earned: int) -> None:
    msat = payouts.payable(earned)
    assert msat % 1000 == 0
    if msat > 0:
        assert msat + payouts.fee_limit(msat) <= earned
    more = msat + 1000
    assert more + payouts.fee_limit(more) > earned


async def test_a_revoked_or_addressless_worker_is_not_paid_by_itself(world: World) -> None:
    await world.earn("a", sats(5000), "")
    await world.earn("b", sats(5000))

    def revoke(tx: Transaction) -> None:
        party = tx.get(Party, "b")
        assert party is not None
        tx.put(replace(party, revoked=True))

    await world.store.write(revoke)
    await world.sweep()
    assert await world.rows() == []


@pytest.mark.parametrize(
    ("behaviour", "sent", "ended", "code"),
    [
        (Behaviour.SETTLE, PayoutState.SETTLED, PayoutState.SETTLED, ""),
        (Behaviour.LATE, PayoutState.SENT, PayoutState.SETTLED, ""),
        (Behaviour.UNKNOWN, PayoutState.UNKNOWN, PayoutState.SETTLED, "payout.unknown"),
        (Behaviour.FAIL, PayoutState.FAILED, PayoutState.FAILED, "payout.failed"),
        (Behaviour.LATE_FAIL, PayoutState.SENT, PayoutState.FAILED, "payout.failed"),
        (Behaviour.LOST, PayoutState.UNKNOWN, PayoutState.FAILED, "payout.never_sent"),
        (Behaviour.OVERCHARGE, PayoutState.FAILED, PayoutState.FAILED, "payout.wrong_amount"),
        (Behaviour.DEAF, PayoutState.CREATED, PayoutState.FAILED, "payments.unreachable"),
        (Behaviour.HANG, PayoutState.SENT, PayoutState.SENT, ""),
    ],
)
async def test_each_behaviour_ends_as_it_must(
    world: World, behaviour: Behaviour, sent: PayoutState, ended: PayoutState, code: str
) -> None:
    owner = str(behaviour)
    await world.earn(owner, sats(2000))
    await world.sweep()
    assert (await only(world)).state is sent
    await world.settle_down()
    row = await only(world)
    assert row.state is ended
    if ended is PayoutState.FAILED:
        assert Why.from_json(row.why_json).code == code
        assert await world.funds(owner) == (sats(2000), 0)
    if ended is PayoutState.SENT:
        assert (await world.funds(owner))[1] == row.msat + row.fee_limit_msat
    await world.check()


async def test_an_unknown_payment_keeps_its_hold_and_its_reason_until_it_is_known(world: World) -> None:
    await world.earn("unknown", sats(2000))
    await world.sweep()
    row = await only(world)
    assert (await world.funds("unknown"))[1] == row.msat + row.fee_limit_msat
    assert Why.from_json(row.why_json).code == "payout.unknown"
    await world.sweep()
    await world.sweep()
    assert await only(world) == row
    await world.sweep()
    assert (await only(world)).why_json == ""
    assert sum(world.sends.values()) == 1


async def test_an_invoice_that_belongs_to_another_payout_is_refused(tmp_path: Path) -> None:
    script = Script(addresses={"shared@simulated": Behaviour.DUPLICATE})
    world = World(tmp_path, script=script)
    await world.earn("a", sats(2000), "shared@simulated")
    await world.earn("b", sats(2000), "shared@simulated")
    await world.sweep()
    assert sorted(row.state for row in await world.rows()) == [PayoutState.FAILED, PayoutState.SETTLED]
    (failed,) = [row for row in await world.rows() if row.state is PayoutState.FAILED]
    assert Why.from_json(failed.why_json).code == "payout.invoice_reused"
    await world.check()


async def test_after_a_failure_the_next_payout_rests_and_has_an_invoice_of_its_own(world: World) -> None:
    rules = PayoutRules(rest_ms=60_000)
    await world.earn("fail", sats(2000))
    await world.sweep(rules=rules)
    await world.sweep(rules=rules)
    assert len(await world.rows()) == 1
    world.clock.advance(61)
    await world.sweep(rules=rules)
    first, second = await world.rows()
    assert first.id != second.id
    assert first.payment_hash != second.payment_hash
    assert {first.state, second.state} == {PayoutState.FAILED}


async def test_a_preimage_that_proves_nothing_keeps_the_hold(world: World) -> None:
    class Liar(SimulatedPayments):
        async def pay(self, invoice: str, fee_limit_msat: int) -> Payment:
            return Payment(state=PaymentState.SETTLED, preimage="00" * 32)

        async def payment_status(self, payment_hash: str) -> Payment:
            return Payment(state=PaymentState.SETTLED, preimage="00" * 32)

    world.node = Liar(world.clock)
    await world.earn("w", sats(2000))
    await world.settle_down()
    row = await only(world)
    assert row.state is PayoutState.UNKNOWN
    assert (await world.funds("w"))[1] == row.msat + row.fee_limit_msat


async def test_a_back_end_that_raises_while_paying_has_an_unknown_outcome(world: World) -> None:
    class Dropping(SimulatedPayments):
        async def pay(self, invoice: str, fee_limit_msat: int) -> Payment:
            await super().pay(invoice, fee_limit_msat)
            raise TimeoutError

    world.node = Dropping(world.clock)
    await world.earn("w", sats(2000))
    await world.sweep()
    assert (await only(world)).state is PayoutState.UNKNOWN
    await world.sweep()
    assert (await only(world)).state is PayoutState.SETTLED
    await world.check()


async def test_a_request_that_travels_long_is_neither_given_up_nor_sent_again(world: World) -> None:
    class Slow(SimulatedPayments):
        travelling = ""

        async def pay(self, invoice: str, fee_limit_msat: int) -> Payment:
            self.travelling = invoice
            return Payment(state=PaymentState.UNKNOWN, reason="timeout")

        async def arrive(self) -> None:
            await super().pay(self.travelling, 2000)

    node = Slow(world.clock)
    world.node = node
    await world.earn("w", sats(2000))
    await world.sweep()
    world.clock.advance(500)
    await world.sweep()
    assert (await only(world)).state is PayoutState.UNKNOWN
    await node.arrive()
    await world.sweep()
    assert (await only(world)).state is PayoutState.SETTLED
    await world.check()


async def test_a_fee_above_the_limit_is_the_houses_loss_and_is_seen(world: World) -> None:
    class Wasteful(SimulatedPayments):
        async def pay(self, invoice: str, fee_limit_msat: int) -> Payment:
            return replace(await super().pay(invoice, fee_limit_msat), fee_msat=fee_limit_msat + 1)

    world.node = Wasteful(world.clock)
    await world.earn("w", sats(2000))
    await world.sweep()
    row = await only(world)
    assert row.state is PayoutState.SETTLED
    assert Why.from_json(row.why_json).code == "payout.fee_over_limit"
    await world.check()


async def test_one_payout_in_trouble_does_not_hold_up_the_others(world: World) -> None:
    class Moody(SimulatedPayments):
        async def resolve_address(self, address: str, msat: int) -> Invoice:
            if address == "a@simulated":
                raise ValueError("a reply that nobody foresaw")
            return await super().resolve_address(address, msat)

    world.node = Moody(world.clock)
    await world.earn("a", sats(2000))
    await world.earn("b", sats(2000))
    await world.sweep()
    states = {row.owner: row.state for row in await world.rows()}
    assert states == {"a": PayoutState.CREATED, "b": PayoutState.SETTLED}


@pytest.mark.parametrize("behaviour", [value for value in Behaviour if value is not Behaviour.HANG])
async def test_a_crash_at_any_step_neither_pays_twice_nor_sticks(tmp_path: Path, behaviour: Behaviour) -> None:
    at, died = 0, True
    while died:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        world = World(folder)
        owner = str(behaviour)
        await world.earn(owner, sats(2000))
        died = await world.dying_sweep(at)
        await world.check()
        await world.settle_down()
        await world.check()
        row = await only(world)
        assert row.state not in LIVE, (at, row)
        assert (await world.funds(owner))[1] == 0
        if not died:
            assert (row.state is PayoutState.SETTLED) == PAYS.get(behaviour, False)
    # create, resolve, and more where the address works
    assert at >= 4


async def test_a_crash_at_any_step_on_the_sql_store(tmp_path: Path) -> None:
    at, died = 0, True
    while died:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        world = World(folder, SqlStore(f"sqlite:///{folder}/payouts.db"))
        await world.earn("w", sats(2000))
        died = await world.dying_sweep(at)
        await world.settle_down(4)
        await world.check()
        assert (await only(world)).state in (PayoutState.SETTLED, PayoutState.FAILED)
        world.store.close()
    assert at == 13


async def test_two_sweeps_at_once_send_once(world: World) -> None:
    for owner in ("a", "late", "unknown", "lost"):
        await world.earn(owner, sats(2000))
    await asyncio.gather(*(world.sweep() for _ in range(6)))
    await world.check()
    await world.settle_down()
    await world.check()
    assert all(row.state not in LIVE for row in await world.rows())


async def test_two_coordinators_pay_each_payout_once_and_one_goes_on_where_the_other_died(
    tmp_path: Path, store: Store
) -> None:
    """Each has its own node, which is one: its journal lies in the database."""
    world = World(tmp_path, store)
    nodes = [SimulatedPayments(world.clock, StoreJournal(store, name)) for name in ("a", "b")]
    for owner in ("a", "b", "late", "unknown", "duplicate"):
        await world.earn(owner, sats(2000))

    async def sweep(number: int, fuse: Fuse) -> None:
        with contextlib.suppress(Crash):
            await payouts.advance(
                DyingStore(store, fuse), DyingPayments(nodes[number], fuse, world.sends), world.clock, RULES
            )

    for at in (3, 5, 8, 11, 14, None, None, None, None):
        await asyncio.gather(sweep(0, Fuse(at)), sweep(1, Fuse()))
        # what a new process of the one that died sees
        nodes[0] = SimulatedPayments(world.clock, StoreJournal(store, "a"))
        world.clock.advance(300)
    world.node = SimulatedPayments(world.clock, StoreJournal(store, "c"))
    await world.node.payment_status("")
    await world.check()
    assert {row.state for row in await world.rows()} == {PayoutState.SETTLED}


@pytest.mark.parametrize("block", range(5))
async def test_random_schedules_with_crashes_pay_nobody_twice_and_leave_nothing_stuck(
    tmp_path: Path, block: int
) -> None:
    for seed in range(block * 200, block * 200 + 200):
        folder = tmp_path / str(seed)
        folder.mkdir()
        await one_schedule(World(folder), random.Random(seed))


async def one_schedule(world: World, rng: random.Random) -> None:
    """Three workers with random fates earn while sweeps run, die and overlap; then calm comes."""
    fates = [value for value in Behaviour if value is not Behaviour.HANG]
    owners = [f"{number}" for number in range(3)]
    addresses = {owner: f"{rng.choice(fates)}@simulated" for owner in owners}
    for _ in range(rng.randint(3, 8)):
        owner = rng.choice(owners)
        await world.earn(owner, rng.randint(1, 3_000_000), addresses[owner])
        world.clock.advance(rng.choice([0, 1, 400, 700]))
        if rng.random() < 0.2:
            await asyncio.gather(world.sweep(), world.sweep())
        else:
            await world.dying_sweep(rng.randint(1, 25))
        await world.check()
    await world.settle_down(10)
    await world.check()
    stuck = [row for row in await world.rows() if row.state in LIVE]
    assert stuck == []
    for owner in owners:
        assert (await world.funds(owner))[1] == 0
