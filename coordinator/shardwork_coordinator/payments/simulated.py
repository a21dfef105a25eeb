"""SimulatedPayments: a pretend Lightning node, deterministic, with every way in which a real one lets you down.

No sat moves; invoices start with "lnsim1" and the asset is "simulated", so that nothing here can be taken for money.
Everything is derived from keys and kept in an append-only journal, so that a restart forgets nothing. The behaviour of
one payment is scripted by its address or amount, or named by the address: "late@simulated".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from shardwork.clock import Clock
from shardwork.errors import Internal, InvalidInput, Unreachable

from .base import Invoice, InvoiceState, Payment, PaymentState
from .journal import FileJournal, Journal

PREFIX = "lnsim1"
EXPIRY_MS = 3_600_000
#: how often a LATE or UNKNOWN one is asked about before it tells
ASKS_UNTIL_KNOWN = 2


class Behaviour(StrEnum):
    #: at once
    SETTLE = "settle"
    FAIL = "fail"
    #: in flight for ever
    HANG = "hang"
    #: in flight, then settled
    LATE = "late"
    #: in flight, then failed
    LATE_FAIL = "late-fail"
    #: "don't know", then settled
    UNKNOWN = "unknown"
    #: the request is lost: the node never hears of the payment
    LOST = "lost"
    #: the address gives an invoice over twice the amount
    OVERCHARGE = "overcharge"
    #: the address gives the same invoice to everyone
    DUPLICATE = "duplicate"
    #: the address doesn't answer
    DEAF = "deaf"


_FINAL_PAYMENT = {
    Behaviour.LATE: PaymentState.SETTLED,
    Behaviour.LATE_FAIL: PaymentState.FAILED,
    Behaviour.UNKNOWN: PaymentState.SETTLED,
}


@dataclass(frozen=True, slots=True)
class Script:
    """What happens to whom; whoever isn't named behaves as its name says, and otherwise settles at once."""

    addresses: Mapping[str, Behaviour] = field(default_factory=dict[str, Behaviour])
    amounts: Mapping[int, Behaviour] = field(default_factory=dict[int, Behaviour])

    def behaviour(self, address: str, msat: int) -> Behaviour:
        named = self.addresses.get(address) or self.amounts.get(msat)
        if named is not None:
            return named
        user = address.partition("@")[0]
        return Behaviour(user) if user in set(Behaviour) else Behaviour.SETTLE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bill:
    """An invoice as the pretend network knows it."""

    seed: str
    msat: int
    expires_ms: int
    behaviour: Behaviour

    @property
    def preimage(self) -> str:
        return hashlib.sha256(b"shardwork simulated preimage\0" + self.seed.encode()).hexdigest()

    @property
    def payment_hash(self) -> str:
        return hashlib.sha256(bytes.fromhex(self.preimage)).hexdigest()

    def invoice(self) -> Invoice:
        text = f"{PREFIX}{self.msat}m{self.payment_hash}"
        return Invoice(text=text, payment_hash=self.payment_hash, msat=self.msat, expires_ms=self.expires_ms)


class SimulatedPayments:
    def __init__(self, clock: Clock, journal: Path | Journal | None = None, script: Script | None = None) -> None:
        """`journal` is kept across restarts; without one the node forgets when the process ends."""
        self._clock = clock
        self._journal = FileJournal(journal) if isinstance(journal, Path) else journal
        self._script = script or Script()
        #: by payment hash
        self._bills: dict[str, _Bill] = {}
        #: payments that we sent, by hash
        self._sent: dict[str, Payment] = {}
        self._asks: dict[str, int] = {}
        if self._journal is not None:
            self._replay(self._journal.begin())

    @property
    def asset(self) -> str:
        return "simulated"

    @property
    def settled_msat(self) -> dict[str, int]:
        """What left, by payment hash: what tests count double payments in."""
        return {key: self._bills[key].msat for key, sent in self._sent.items() if sent.state is PaymentState.SETTLED}

    async def create_invoice(self, msat: int, memo: str, idempotency_key: str) -> Invoice:
        await self._catch_up()
        bill = self._bill(f"deposit\0{idempotency_key}", msat, self._script.behaviour("", msat))
        known = self._bills.get(bill.payment_hash)
        if known is None:
            await self._keep_bill(bill)
        return (known or bill).invoice()

    async def invoice_status(self, payment_hash: str) -> InvoiceState:
        await self._catch_up()
        bill = self._bills.get(payment_hash)
        if bill is None:
            return InvoiceState.UNKNOWN
        match bill.behaviour:
            case Behaviour.FAIL | Behaviour.LATE_FAIL:
                return InvoiceState.FAILED
            case Behaviour.HANG | Behaviour.LOST:
                return InvoiceState.OPEN
            case Behaviour.LATE:
                return InvoiceState.SETTLED if self._asked_enough(payment_hash) else InvoiceState.OPEN
            case Behaviour.UNKNOWN:
                return InvoiceState.SETTLED if self._asked_enough(payment_hash) else InvoiceState.UNKNOWN
            case _:
                return InvoiceState.SETTLED

    async def pay(self, invoice: str, fee_limit_msat: int) -> Payment:
        await self._catch_up()
        bill = self._bills.get(_payment_hash(invoice))
        if bill is None:
            return Payment(state=PaymentState.FAILED, reason="no route to this invoice")
        if bill.payment_hash in self._sent:
            # a second send of one hash is refused and changes nothing
            return await self.payment_status(bill.payment_hash)
        if bill.behaviour is Behaviour.LOST:
            return Payment(state=PaymentState.UNKNOWN, reason="the connection dropped")
        sent = self._first_answer(bill, fee_limit_msat)
        self._sent[bill.payment_hash] = sent
        await self._keep({"payment": bill.payment_hash, **_payment_json(sent)})
        return self._visible(bill, sent)

    async def payment_status(self, payment_hash: str) -> Payment:
        await self._catch_up()
        sent = self._sent.get(payment_hash)
        if sent is None:
            return Payment(state=PaymentState.ABSENT)
        bill = self._bills[payment_hash]
        final = _FINAL_PAYMENT.get(bill.behaviour)
        if sent.state is PaymentState.PENDING and final is not None and self._asked_enough(payment_hash):
            sent = _ended(bill, final)
            self._sent[payment_hash] = sent
            await self._keep({"payment": payment_hash, **_payment_json(sent)})
        return self._visible(bill, sent)

    async def resolve_address(self, address: str, msat: int) -> Invoice:
        await self._catch_up()
        behaviour = self._script.behaviour(address, msat)
        if not address.partition("@")[0] or not address.endswith("@simulated"):
            raise InvalidInput(
                "payments.bad_address",
                "Simulated sats can only go to a simulated address.",
                next_step="Use a name like rig@simulated.",
                address=address,
            )
        if behaviour is Behaviour.DEAF:
            raise Unreachable("payments.unreachable", "The address did not answer.", address=address)
        # an address gives another invoice each time; DUPLICATE doesn't
        turn = 0 if behaviour is Behaviour.DUPLICATE else len(self._bills)
        asked = 2 * msat if behaviour is Behaviour.OVERCHARGE else msat
        salt = self._journal.salt if self._journal is not None and behaviour is not Behaviour.DUPLICATE else ""
        bill = self._bill(f"address\0{address}\0{turn}{salt}", asked, behaviour)
        known = self._bills.get(bill.payment_hash)
        if known is None:
            await self._keep_bill(bill)
        return (known or bill).invoice()

    def _bill(self, seed: str, msat: int, behaviour: Behaviour) -> _Bill:
        return _Bill(seed=seed, msat=msat, expires_ms=self._clock.now_ms() + EXPIRY_MS, behaviour=behaviour)

    def _first_answer(self, bill: _Bill, fee_limit_msat: int) -> Payment:
        if bill.behaviour is Behaviour.FAIL or self._clock.now_ms() > bill.expires_ms:
            return Payment(state=PaymentState.FAILED, reason="simulated failure")
        if bill.behaviour in (Behaviour.HANG, *_FINAL_PAYMENT):
            return Payment(state=PaymentState.PENDING)
        ended = _ended(bill, PaymentState.SETTLED)
        return replace(ended, fee_msat=min(ended.fee_msat, fee_limit_msat))

    def _visible(self, bill: _Bill, sent: Payment) -> Payment:
        """What the caller hears: UNKNOWN hides a payment in flight."""
        if sent.state is PaymentState.PENDING and bill.behaviour is Behaviour.UNKNOWN:
            return Payment(state=PaymentState.UNKNOWN, reason="the node did not answer in time")
        return sent

    def _asked_enough(self, payment_hash: str) -> bool:
        self._asks[payment_hash] = self._asks.get(payment_hash, 0) + 1
        return self._asks[payment_hash] > ASKS_UNTIL_KNOWN

    async def _keep_bill(self, bill: _Bill) -> None:
        self._bills[bill.payment_hash] = bill
        await self._keep(
            {"bill": bill.seed, "msat": bill.msat, "expires_ms": bill.expires_ms, "behaviour": bill.behaviour}
        )

    async def _keep(self, entry: Mapping[str, object]) -> None:
        """Adds a line to the journal before anybody is told."""
        if self._journal is not None:
            await self._journal.add(json.dumps(entry, sort_keys=True).encode())

    async def _catch_up(self) -> None:
        """Learns what the other coordinators' nodes did, which are this one."""
        if self._journal is not None:
            self._replay(await self._journal.news())

    def _replay(self, lines: Sequence[bytes]) -> None:
        for number, line in enumerate(lines, start=1):
            try:
                self._replay_line(json.loads(line))
            except (ValueError, KeyError) as error:
                raise Internal(
                    "payments.bad_journal", "The simulated node's journal can't be read.", line=number
                ) from error

    def _replay_line(self, entry: dict[str, str | int]) -> None:
        if "bill" in entry:
            bill = _Bill(
                seed=str(entry["bill"]),
                msat=int(entry["msat"]),
                expires_ms=int(entry["expires_ms"]),
                behaviour=Behaviour(str(entry["behaviour"])),
            )
            self._bills[bill.payment_hash] = bill
            return
        self._sent[str(entry["payment"])] = Payment(
            state=PaymentState(str(entry["state"])),
            preimage=str(entry["preimage"]),
            fee_msat=int(entry["fee_msat"]),
            reason=str(entry["reason"]),
        )


def _ended(bill: _Bill, state: PaymentState) -> Payment:
    if state is PaymentState.SETTLED:
        return Payment(state=state, preimage=bill.preimage, fee_msat=min(1000, bill.msat))
    return Payment(state=state, reason="simulated failure")


def _payment_json(sent: Payment) -> dict[str, object]:
    return {"state": sent.state, "preimage": sent.preimage, "fee_msat": sent.fee_msat, "reason": sent.reason}


def _payment_hash(invoice: str) -> str:
    return invoice.rpartition("m")[2] if invoice.startswith(PREFIX) else ""
