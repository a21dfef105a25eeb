"""The simulated node: what each behaviour answers, what survives a restart; and deposits on top of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shardwork.clock import ManualClock
from shardwork.errors import Conflict, Internal, InvalidInput, NotFound, ShardworkError, Unreachable
from shardwork_coordinator.money import deposits, ledger
from shardwork_coordinator.money.movements import external_account, user_account
from shardwork_coordinator.payments.base import Invoice, InvoiceState, PaymentState, proves
from shardwork_coordinator.payments.simulated import EXPIRY_MS, Behaviour, Script, SimulatedPayments
from shardwork_coordinator.records import DepositRow, DepositState
from shardwork_coordinator.store import Store


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def paid(node: SimulatedPayments, address: str, *, asks: int = 4) -> list[PaymentState]:
    """Pays 5 sat to the address and asks a few times; every state that was heard, in order."""
    invoice = await node.resolve_address(address, 5000)
    states = [(await node.pay(invoice.text, 2000)).state]
    states += [(await node.payment_status(invoice.payment_hash)).state for _ in range(asks)]
    return list(dict.fromkeys(states))


@pytest.mark.parametrize(
    ("address", "heard"),
    [
        ("rig@simulated", ["settled"]),
        ("fail@simulated", ["failed"]),
        ("hang@simulated", ["pending"]),
        ("late@simulated", ["pending", "settled"]),
        ("late-fail@simulated", ["pending", "failed"]),
        ("unknown@simulated", ["unknown", "settled"]),
        ("lost@simulated", ["unknown", "absent"]),
    ],
)
async def test_an_address_behaves_as_its_name_says(clock: ManualClock, address: str, heard: list[str]) -> None:
    assert await paid(SimulatedPayments(clock), address) == heard


async def test_a_script_overrules_names(clock: ManualClock) -> None:
    script = Script(addresses={"fail@simulated": Behaviour.SETTLE}, amounts={5000: Behaviour.HANG})
    node = SimulatedPayments(clock, script=script)
    assert await paid(node, "fail@simulated") == ["settled"]
    assert await paid(node, "rig@simulated") == ["pending"]


async def test_invoices_look_simulated_and_their_receipts_prove_payment(clock: ManualClock) -> None:
    node = SimulatedPayments(clock)
    invoice = await node.resolve_address("rig@simulated", 5000)
    assert invoice.text.startswith("lnsim1")
    assert (invoice.msat, invoice.expires_ms) == (5000, clock.now_ms() + EXPIRY_MS)
    answer = await node.pay(invoice.text, 300)
    assert proves(answer.preimage, invoice.payment_hash)
    assert answer.fee_msat <= 300


@pytest.mark.parametrize("preimage", ["", "zz", "00" * 32, "00" * 31])
def test_another_preimage_proves_nothing(preimage: str) -> None:
    assert not proves(preimage, "ab" * 32)


async def test_one_hash_is_paid_once_however_often_it_is_sent(clock: ManualClock) -> None:
    node = SimulatedPayments(clock)
    invoice = await node.resolve_address("rig@simulated", 5000)
    answers = await asyncio.gather(*(node.pay(invoice.text, 2000) for _ in range(20)))
    assert {answer.state for answer in answers} == {PaymentState.SETTLED}
    assert node.settled_msat == {invoice.payment_hash: 5000}


async def test_an_expired_or_foreign_invoice_is_not_paid(clock: ManualClock) -> None:
    node = SimulatedPayments(clock)
    invoice = await node.resolve_address("rig@simulated", 5000)
    clock.advance(EXPIRY_MS / 1000 + 1)
    assert (await node.pay(invoice.text, 2000)).state is PaymentState.FAILED
    assert (await node.pay("lnbc1something", 2000)).state is PaymentState.FAILED
    assert (await node.pay("lnsim15000m" + "0" * 64, 2000)).state is PaymentState.FAILED


@pytest.mark.parametrize(
    ("address", "error", "code"),
    [
        ("rig@example.com", InvalidInput, "payments.bad_address"),
        ("@simulated", InvalidInput, "payments.bad_address"),
        ("deaf@simulated", Unreachable, "payments.unreachable"),
    ],
)
async def test_an_address_that_cannot_work_is_named(
    clock: ManualClock, address: str, error: type[ShardworkError], code: str
) -> None:
    with pytest.raises(error) as caught:
        await SimulatedPayments(clock).resolve_address(address, 5000)
    assert caught.value.code == code


async def test_duplicate_and_overcharge_give_the_wrong_invoices(clock: ManualClock) -> None:
    node = SimulatedPayments(clock)
    same = [await node.resolve_address("duplicate@simulated", 5000) for _ in range(2)]
    assert same[0].payment_hash == same[1].payment_hash
    other = [await node.resolve_address("rig@simulated", 5000) for _ in range(2)]
    assert other[0].payment_hash != other[1].payment_hash
    assert (await node.resolve_address("overcharge@simulated", 5000)).msat == 10_000


async def test_a_restart_forgets_neither_invoices_nor_payments(clock: ManualClock, tmp_path: Path) -> None:
    journal = tmp_path / "node.jsonl"
    node = SimulatedPayments(clock, journal)
    deposit = await node.create_invoice(7000, "memo", "key")
    bills = [await node.resolve_address(f"{name}@simulated", 5000) for name in ("rig", "late", "fail")]
    before = [await node.pay(bill.text, 2000) for bill in bills]
    clock.advance(60)
    again = SimulatedPayments(clock, journal)
    assert await again.create_invoice(7000, "memo", "key") == deposit
    assert [await again.payment_status(bill.payment_hash) for bill in bills] == before
    assert await again.resolve_address("rig@simulated", 5000) not in bills
    assert journal.stat().st_mode & 0o777 == 0o600


async def test_a_line_cut_off_by_a_crash_is_dropped_and_does_not_spoil_the_next(
    clock: ManualClock, tmp_path: Path
) -> None:
    journal = tmp_path / "node.jsonl"
    first = await SimulatedPayments(clock, journal).create_invoice(7000, "", "one")
    journal.write_bytes(journal.read_bytes() + b'{"bill": "tw')
    second = await SimulatedPayments(clock, journal).create_invoice(8000, "", "two")
    clock.advance(60)
    node = SimulatedPayments(clock, journal)
    assert [await node.create_invoice(7000, "", "one"), await node.create_invoice(8000, "", "two")] == [first, second]


def test_a_spoiled_journal_is_refused_by_line(clock: ManualClock, tmp_path: Path) -> None:
    journal = tmp_path / "node.jsonl"
    journal.write_text('{"bill": "a"}\n')
    with pytest.raises(Internal) as caught:
        SimulatedPayments(clock, journal)
    assert (caught.value.code, caught.value.why.evidence["line"]) == ("payments.bad_journal", "1")


async def create(
    store: Store, node: SimulatedPayments, clock: ManualClock, *, msat: int = 5000, key: str = "k", owner: str = "a"
) -> DepositRow:
    return await deposits.create(store, node, clock, owner=owner, msat=msat, idempotency_key=key)


async def spendable(store: Store, owner: str = "a") -> int:
    return await store.read(lambda tx: ledger.available(tx, user_account(owner)))


async def test_a_simulated_deposit_settles_at_once_and_once(store: Store, clock: ManualClock) -> None:
    node = SimulatedPayments(clock)
    rows = await asyncio.gather(*(create(store, node, clock) for _ in range(8)))
    assert {row.state for row in rows} == {DepositState.SETTLED}
    assert len({row.id for row in rows}) == 1
    assert await spendable(store) == 5000
    assert await store.read(lambda tx: ledger.balance(tx, external_account("simulated"))) == -5000
    await create(store, node, clock, key="other")
    await create(store, node, clock, owner="b")
    assert (await spendable(store), await spendable(store, "b")) == (10_000, 5000)


@pytest.mark.parametrize(
    ("msat", "key", "code"),
    [
        (999, "k", "deposit.bad_amount"),
        (10**12 + 1, "k", "deposit.bad_amount"),
        (5000, "", "deposit.bad_key"),
        (5000, "k" * 129, "deposit.bad_key"),
        (5000, "a\nb", "deposit.bad_key"),
    ],
)
async def test_an_odd_deposit_is_refused(store: Store, clock: ManualClock, msat: int, key: str, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await create(store, SimulatedPayments(clock), clock, msat=msat, key=key)
    assert caught.value.code == code


async def test_a_key_belongs_to_one_amount(store: Store, clock: ManualClock) -> None:
    node = SimulatedPayments(clock)
    await create(store, node, clock)
    with pytest.raises(Conflict) as caught:
        await create(store, node, clock, msat=6000)
    assert caught.value.code == "deposit.key_reused"


@pytest.mark.parametrize("behaviour", [Behaviour.LATE, Behaviour.UNKNOWN])
async def test_a_late_deposit_is_credited_by_the_sweep_once(
    store: Store, clock: ManualClock, behaviour: Behaviour
) -> None:
    node = SimulatedPayments(clock, script=Script(amounts={5000: behaviour}))
    assert (await create(store, node, clock)).state is DepositState.OPEN
    assert await spendable(store) == 0
    assert sum([await deposits.sweep(store, node, clock) for _ in range(4)]) == 1
    assert await spendable(store) == 5000


async def test_an_expired_deposit_that_is_paid_late_is_still_credited(store: Store, clock: ManualClock) -> None:
    row = await create(store, SimulatedPayments(clock, script=Script(amounts={5000: Behaviour.FAIL})), clock)
    assert row.state is DepositState.EXPIRED

    class Changed(SimulatedPayments):
        async def invoice_status(self, payment_hash: str) -> InvoiceState:
            return InvoiceState.SETTLED

    node = Changed(clock)
    assert await deposits.sweep(store, node, clock) == 0
    row = await deposits.get(store, node, clock, owner="a", deposit_id=row.id)
    assert row.state is DepositState.SETTLED
    assert await spendable(store) == 5000


async def test_a_deposit_is_its_owners_alone(store: Store, clock: ManualClock) -> None:
    node = SimulatedPayments(clock)
    row = await create(store, node, clock)
    with pytest.raises(NotFound):
        await deposits.get(store, node, clock, owner="b", deposit_id=row.id)


async def test_one_deposit_in_trouble_does_not_hold_up_the_sweep(store: Store, clock: ManualClock) -> None:
    class Moody(SimulatedPayments):
        bad = ""

        async def invoice_status(self, payment_hash: str) -> InvoiceState:
            if payment_hash == self.bad:
                raise Unreachable("payments.unreachable", "The node is away.")
            return await super().invoice_status(payment_hash)

    node = Moody(clock, script=Script(amounts={5000: Behaviour.LATE}))
    node.bad = (await create(store, node, clock)).payment_hash
    clock.advance(1)
    await create(store, node, clock, key="second")
    assert sum([await deposits.sweep(store, node, clock) for _ in range(3)]) == 1


async def test_a_crash_between_invoice_and_row_costs_nothing(store: Store, clock: ManualClock) -> None:
    class Crash(BaseException):
        pass

    class Dying(SimulatedPayments):
        dies = True

        async def create_invoice(self, msat: int, memo: str, idempotency_key: str) -> Invoice:
            invoice = await super().create_invoice(msat, memo, idempotency_key)
            if self.dies:
                raise Crash
            return invoice

    node = Dying(clock)
    with pytest.raises(Crash):
        await create(store, node, clock)
    node.dies = False
    row = await create(store, node, clock)
    assert row.state is DepositState.SETTLED
    assert await spendable(store) == 5000
