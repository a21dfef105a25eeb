"""Ledger: double entry in integer msat; the only code that writes accounts and transfers.

Each account is four numbers, debits and credits, pending and posted. A hold is pending until it is posted (in full or
in part) or voided; transfers are never edited. The caller names each movement: the same name with the same content
again is a replay and changes nothing, with other content a refusal. Only `external:*` may fall below zero.
Pure over a Transaction: no I/O, no clock, no float, no division. Called by handlers, the engine, deposits and payouts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from shardwork.errors import Conflict, Internal, NotEnoughFunds, NotFound
from shardwork.money import Msat, show
from shardwork.why import Why

from ..records import Account, Transfer, TransferKind
from ..store.base import Transaction
from .movements import FEES, Hold, Move, MoveAll, Movement, PostHold, VoidHold

#: how many transfers `check` holds in memory at once
PAGE = 1000

_RESERVED = ("!post", "!void")


class Outcome(StrEnum):
    APPLIED = "applied"
    #: the same movement was there already; nothing changed
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerReport:
    #: no violation and the balances add up to zero
    balanced: bool
    #: sum of every account's balance; must be 0
    sum_msat: int
    violations: tuple[Why, ...]
    #: how many there are
    transfers: int
    accounts: int


def apply(tx: Transaction, movement: Movement, now_ms: int) -> Outcome:
    """Carries one movement out.

    Raises NotEnoughFunds "ledger.insufficient", Conflict "ledger.id_reused", "ledger.already_resolved",
    "ledger.not_a_hold" or "ledger.exceeds_hold", NotFound "ledger.no_such_hold", Internal "ledger.bad_movement".
    """
    match movement:
        case Move():
            return _place(tx, movement, TransferKind.POSTED, now_ms)
        case Hold():
            return _place(tx, movement, TransferKind.PENDING, now_ms)
        case MoveAll():
            return _move_all(tx, movement, now_ms)
        case PostHold():
            return _resolve(tx, movement.hold_id, TransferKind.POST, movement.msat, now_ms)
        case VoidHold():
            return _resolve(tx, movement.hold_id, TransferKind.VOID, None, now_ms)


def apply_all(tx: Transaction, movements: Sequence[Movement], now_ms: int) -> list[Outcome]:
    """Carries out several in order; the first refusal is raised and the caller's transaction falls with it."""
    return [apply(tx, movement, now_ms) for movement in movements]


def available(tx: Transaction, account: str) -> Msat:
    """What may be spent or held: posted, less what is held. Zero for an account that never moved."""
    return _available(_account(tx, account))


def held(tx: Transaction, account: str) -> Msat:
    """What leaves this account when its holds are posted."""
    return Msat(_account(tx, account).debits_pending)


def balance(tx: Transaction, account: str) -> Msat:
    """Posted credits less posted debits; holds still count as the account's own."""
    return _balance(_account(tx, account))


def statement(tx: Transaction, account: str, limit: int, before_sequence: int = 0) -> list[Transfer]:
    """The account's transfers, newest first; `before_sequence` above 0 continues below that one."""
    after = before_sequence if before_sequence > 0 else None
    debits = tx.find(Transfer, debit=account, order="sequence", descending=True, after=after, limit=limit)
    credits = tx.find(Transfer, credit=account, order="sequence", descending=True, after=after, limit=limit)
    both = sorted([*debits, *credits], key=lambda transfer: transfer.sequence, reverse=True)
    return both[:limit]


def resolution(tx: Transaction, hold_id: str) -> Transfer | None:
    """The POST or VOID that resolved this hold; None while it is pending."""
    found = tx.find(Transfer, resolves=hold_id, limit=1)
    return found[0] if found else None


def _place(tx: Transaction, movement: Move | Hold, kind: TransferKind, now_ms: int) -> Outcome:
    _check_movement(movement)
    old = tx.get(Transfer, movement.id)
    if old is not None:
        same = _names(old) == _names(movement) and (old.kind, old.msat) == (kind, movement.msat)
        return _replayed(old, same=same)
    _transfer(tx, _new_transfer(movement, kind, movement.msat, now_ms))
    return Outcome.APPLIED


def _move_all(tx: Transaction, movement: MoveAll, now_ms: int) -> Outcome:
    _check_movement(movement)
    old = tx.get(Transfer, movement.id)
    if old is not None:
        return _replayed(old, same=_names(old) == _names(movement) and old.kind is TransferKind.POSTED)
    amount = available(tx, movement.debit)
    if amount > 0:
        _transfer(tx, _new_transfer(movement, TransferKind.POSTED, amount, now_ms))
    return Outcome.APPLIED


def _resolve(tx: Transaction, hold_id: str, kind: TransferKind, msat: int | None, now_ms: int) -> Outcome:
    hold = tx.get(Transfer, hold_id)
    if hold is None:
        raise NotFound("ledger.no_such_hold", "There is no such hold.", hold=hold_id)
    if hold.kind is not TransferKind.PENDING:
        raise Conflict("ledger.not_a_hold", "Only a hold can be posted or voided.", transfer=hold_id, kind=hold.kind)
    amount = hold.msat if msat is None else msat
    old = resolution(tx, hold_id)
    if old is not None:
        if old.kind is not kind:
            raise Conflict("ledger.already_resolved", "This hold was resolved otherwise.", hold=hold_id, by=old.kind)
        return _replayed(old, same=old.msat == amount)
    if not 0 < amount <= hold.msat:
        raise Conflict(
            "ledger.exceeds_hold", "A hold posts more than nothing and at most itself.", hold=hold_id, msat=amount
        )
    resolving = replace(hold, id=f"{hold_id}!{kind}", kind=kind, msat=amount, resolves=hold_id, at_ms=now_ms)
    _record(tx, resolving)
    for account in _moved(tx, resolving, hold.msat):
        tx.put(account)
    return Outcome.APPLIED


def _transfer(tx: Transaction, transfer: Transfer) -> None:
    """Records a posted or pending transfer and changes its two accounts, unless the debited one can't cover it."""
    debit, credit = _moved(tx, transfer, 0)
    if not _may_owe(debit.id) and _available(debit) < 0:
        short = -_available(debit)
        raise NotEnoughFunds(
            "ledger.insufficient",
            f"{debit.id} can't cover {show(transfer.msat)}.",
            next_step="Fund the account or lower the amount.",
            account=debit.id,
            needed=show(transfer.msat),
            missing=show(short),
        )
    _record(tx, transfer)
    tx.put(debit)
    tx.put(credit)


def _moved(tx: Transaction, transfer: Transfer, held_msat: int) -> tuple[Account, Account]:
    debit, credit = _account(tx, transfer.debit), _account(tx, transfer.credit)
    return _debited(debit, transfer, held_msat), _credited(credit, transfer, held_msat)


def _debited(account: Account, transfer: Transfer, held_msat: int) -> Account:
    """The debit side after the transfer; `held_msat` is what the hold behind a POST or VOID had taken."""
    pending, posted = _change(transfer, held_msat)
    return replace(
        account, debits_pending=account.debits_pending + pending, debits_posted=account.debits_posted + posted
    )


def _credited(account: Account, transfer: Transfer, held_msat: int) -> Account:
    pending, posted = _change(transfer, held_msat)
    return replace(
        account, credits_pending=account.credits_pending + pending, credits_posted=account.credits_posted + posted
    )


def _change(transfer: Transfer, held_msat: int) -> tuple[int, int]:
    """What one transfer adds to the pending and to the posted number of each side."""
    match transfer.kind:
        case TransferKind.POSTED:
            return 0, transfer.msat
        case TransferKind.PENDING:
            return transfer.msat, 0
        case TransferKind.POST:
            return -held_msat, transfer.msat
        case TransferKind.VOID:
            return -held_msat, 0


def _record(tx: Transaction, transfer: Transfer) -> None:
    last = tx.find(Transfer, order="sequence", descending=True, limit=1)
    tx.insert(replace(transfer, sequence=last[0].sequence + 1 if last else 1))


def _new_transfer(movement: Move | Hold | MoveAll, kind: TransferKind, msat: int, now_ms: int) -> Transfer:
    return Transfer(
        id=movement.id,
        sequence=0,
        kind=kind,
        debit=movement.debit,
        credit=movement.credit,
        msat=msat,
        reason=movement.reason,
        reference=movement.reference,
        at_ms=now_ms,
    )


def _check_movement(movement: Move | Hold | MoveAll) -> None:
    if not movement.id or movement.id.endswith(_RESERVED):
        raise _bad(movement, "A movement needs a name that the ledger doesn't use itself.")
    if not movement.debit or not movement.credit or movement.debit == movement.credit:
        raise _bad(movement, "A movement goes from one account to another.")
    if movement.debit == FEES:
        raise _bad(movement, "The fee account only receives.")
    if not isinstance(movement, MoveAll) and movement.msat <= 0:
        raise _bad(movement, "An amount is at least 1 msat.")


def _bad(movement: Move | Hold | MoveAll, sentence: str) -> Internal:
    return Internal("ledger.bad_movement", sentence, movement=repr(movement))


def _names(item: Transfer | Move | Hold | MoveAll) -> tuple[str, str, str, str]:
    return item.debit, item.credit, item.reason, item.reference


def _replayed(old: Transfer, *, same: bool) -> Outcome:
    if same:
        return Outcome.REPLAYED
    raise Conflict("ledger.id_reused", "This name was used for another movement.", id=old.id, sequence=old.sequence)


def _account(tx: Transaction, name: str) -> Account:
    return tx.get(Account, name) or Account(id=name)


def _available(account: Account) -> Msat:
    return Msat(account.credits_posted - account.debits_posted - account.debits_pending)


def _balance(account: Account) -> Msat:
    return Msat(account.credits_posted - account.debits_posted)


def _may_owe(account: str) -> bool:
    return account.startswith("external:")


class _Recount:
    """Accounts computed again from nothing but the transfers."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.transfers = 0
        self.violations: list[Why] = []
        #: holds that nothing has resolved yet
        self._open: dict[str, Transfer] = {}
        self._resolved: set[str] = set()

    def take(self, transfer: Transfer) -> None:
        self.transfers += 1
        if transfer.sequence != self.transfers:
            self.blame("ledger.gap", "Transfer numbers rise by one.", id=transfer.id, expected=self.transfers)
        held_msat = self._take_hold(transfer)
        debit = self.accounts.get(transfer.debit) or Account(id=transfer.debit)
        credit = self.accounts.get(transfer.credit) or Account(id=transfer.credit)
        self.accounts[debit.id] = _debited(debit, transfer, held_msat)
        self.accounts[credit.id] = _credited(credit, transfer, held_msat)
        if not _may_owe(debit.id) and _available(self.accounts[debit.id]) < 0:
            self.blame("ledger.negative", "An account fell below zero.", account=debit.id, transfer=transfer.id)

    def _take_hold(self, transfer: Transfer) -> int:
        """Follows holds; returns the amount that a POST or VOID frees."""
        if transfer.kind is TransferKind.PENDING:
            self._open[transfer.id] = transfer
        if transfer.resolves is None:
            return 0
        hold = self._open.pop(transfer.resolves, None)
        if hold is None:
            again = transfer.resolves in self._resolved
            sentence = "A hold was resolved twice." if again else "A hold was resolved that isn't there."
            self.blame("ledger.bad_resolution", sentence, transfer=transfer.id, hold=transfer.resolves)
            return 0
        self._resolved.add(hold.id)
        if transfer.msat > hold.msat or (transfer.debit, transfer.credit) != (hold.debit, hold.credit):
            self.blame("ledger.bad_resolution", "A hold was resolved as something else.", transfer=transfer.id)
        return hold.msat

    def compare(self, stored: Sequence[Account]) -> None:
        by_id = {account.id: account for account in stored}
        for name in sorted(by_id.keys() | self.accounts.keys()):
            here, there = by_id.get(name, Account(id=name)), self.accounts.get(name, Account(id=name))
            if here != there:
                self.blame("ledger.drift", "An account differs from its transfers.", stored=here, recounted=there)

    def blame(self, code: str, sentence: str, **evidence: object) -> None:
        self.violations.append(
            Why(code=code, sentence=sentence, evidence={name: str(value) for name, value in evidence.items()})
        )


def check(tx: Transaction) -> LedgerReport:
    """Recounts everything from the transfers and compares it with what the accounts say."""
    recount = _Recount()
    for transfer in _all_transfers(tx):
        recount.take(transfer)
    accounts = tx.find(Account)
    recount.compare(accounts)
    total = sum(_balance(account) for account in accounts)
    if total != 0:
        recount.blame("ledger.unbalanced", "The balances don't add up to zero.", sum_msat=total)
    return LedgerReport(
        balanced=not recount.violations,
        sum_msat=total,
        violations=tuple(recount.violations),
        transfers=recount.transfers,
        accounts=len(accounts),
    )


def _all_transfers(tx: Transaction) -> Iterator[Transfer]:
    last = 0
    while page := tx.find(Transfer, order="sequence", after=last, limit=PAGE):
        yield from page
        last = page[-1].sequence


def ledger_report_json(report: LedgerReport) -> dict[str, object]:
    """What `ledger check --json` prints."""
    return {
        "balanced": report.balanced,
        "sum_msat": report.sum_msat,
        "violations": [
            {"code": why.code, "sentence": why.sentence, "evidence": dict(why.evidence)} for why in report.violations
        ],
        "transfers": report.transfers,
        "accounts": report.accounts,
    }
