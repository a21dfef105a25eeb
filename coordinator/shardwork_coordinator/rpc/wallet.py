"""WalletService: a party's deposits, withdrawals, balance and transfers.

Handlers are functions of (request, caller, what they need); the servicer at the end only knows gRPC. A key may be
requester and worker at once: the role of the call's token decides which balance is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardwork.clock import Clock
from shardwork.identity.role import Role
from shardwork.v1 import wallet_pb2, wallet_pb2_grpc
from shardwork.why import Why
from shardwork.wire import why_to_proto

from ..money import deposits, ledger, withdrawals
from ..money.movements import escrow_account, round_account, user_account, worker_account
from ..payments.base import Payments
from ..records import Account, DepositRow, Job, JobState, Party, Payout, Round, Transfer, TransferKind
from ..store.base import Store, Transaction
from .auth import Caller, Context, Gate

LIVE_JOBS = (JobState.DRAFT, JobState.FUNDED, JobState.RUNNING, JobState.PAUSED)
PAGE_DEFAULT = 50
PAGE_MAX = 500
#: the database's integers have a sign, the message's do not
SEQUENCE_MAX = 2**63 - 1

_STATES = {TransferKind.POST: "posted", TransferKind.VOID: "voided"}


@dataclass(slots=True)
class Wallet:
    """What the handlers need."""

    store: Store
    payments: Payments
    clock: Clock
    #: from here on earnings are paid out
    threshold_msat: int = 0


async def create_deposit(
    request: wallet_pb2.CreateDepositRequest, caller: Caller, wallet: Wallet
) -> wallet_pb2.CreateDepositResponse:
    row = await deposits.create(
        wallet.store,
        wallet.payments,
        wallet.clock,
        owner=caller.party_id,
        msat=request.msat,
        idempotency_key=request.idempotency_key,
    )
    return wallet_pb2.CreateDepositResponse(deposit=_deposit(row, wallet.payments))


async def get_deposit(
    request: wallet_pb2.GetDepositRequest, caller: Caller, wallet: Wallet
) -> wallet_pb2.GetDepositResponse:
    row = await deposits.get(wallet.store, wallet.payments, wallet.clock, owner=caller.party_id, deposit_id=request.id)
    return wallet_pb2.GetDepositResponse(deposit=_deposit(row, wallet.payments))


async def get_balance(
    request: wallet_pb2.GetBalanceRequest, caller: Caller, wallet: Wallet
) -> wallet_pb2.GetBalanceResponse:
    """A worker sees what it earned; anybody else what it can spend, with the escrow of its live jobs as held."""
    return await wallet.store.read(lambda tx: _balance(tx, caller, wallet))


async def list_transfers(
    request: wallet_pb2.ListTransfersRequest, caller: Caller, wallet: Wallet
) -> wallet_pb2.ListTransfersResponse:
    """Newest first. A hold is one line: pending, then posted with what was really moved, or voided."""
    limit = min(request.limit or PAGE_DEFAULT, PAGE_MAX)
    accounts = (user_account(caller.party_id), worker_account(caller.party_id))
    before = min(request.before_sequence, SEQUENCE_MAX)
    views = await wallet.store.read(lambda tx: _views(tx, accounts, limit, before))
    return wallet_pb2.ListTransfersResponse(transfers=views)


async def create_withdrawal(
    request: wallet_pb2.CreateWithdrawalRequest, caller: Caller, wallet: Wallet
) -> wallet_pb2.CreateWithdrawalResponse:
    wish = withdrawals.Wish(
        owner=caller.party_id,
        msat=request.msat,
        address=request.address,
        idempotency_key=request.idempotency_key,
    )
    row = await withdrawals.create(wallet.store, wallet.payments, wallet.clock, wish)
    return wallet_pb2.CreateWithdrawalResponse(withdrawal=_withdrawal(row, wallet.payments))


async def get_withdrawal(
    request: wallet_pb2.GetWithdrawalRequest, caller: Caller, wallet: Wallet
) -> wallet_pb2.GetWithdrawalResponse:
    row = await withdrawals.get(wallet.store, caller.party_id, request.id)
    return wallet_pb2.GetWithdrawalResponse(withdrawal=_withdrawal(row, wallet.payments))


async def cancel_withdrawal(
    request: wallet_pb2.CancelWithdrawalRequest, caller: Caller, wallet: Wallet
) -> wallet_pb2.CancelWithdrawalResponse:
    row = await withdrawals.cancel(wallet.store, wallet.clock, caller.party_id, request.id)
    return wallet_pb2.CancelWithdrawalResponse(withdrawal=_withdrawal(row, wallet.payments))


def _withdrawal(row: Payout, payments: Payments) -> wallet_pb2.Withdrawal:
    return wallet_pb2.Withdrawal(
        id=row.id,
        msat=row.msat,
        fee_limit_msat=row.fee_limit_msat,
        address=row.address,
        state=row.state,
        why=why_to_proto(Why.from_json(row.why_json)) if row.why_json else None,
        payment_hash=row.payment_hash or "",
        preimage=row.preimage,
        simulated=payments.asset == "simulated",
        created_unix_ms=row.created_ms,
    )


def _deposit(row: DepositRow, payments: Payments) -> wallet_pb2.Deposit:
    return wallet_pb2.Deposit(
        id=row.id,
        msat=row.msat,
        invoice=row.invoice,
        payment_hash=row.payment_hash,
        state=row.state,
        expires_unix_ms=row.expires_ms,
        simulated=payments.asset == "simulated",
    )


def _balance(tx: Transaction, caller: Caller, wallet: Wallet) -> wallet_pb2.GetBalanceResponse:
    party = tx.get(Party, caller.party_id)
    worker = tx.get(Account, worker_account(caller.party_id)) or Account(id="")
    spends = caller.role is not Role.WORKER
    own = user_account(caller.party_id) if spends else worker_account(caller.party_id)
    escrowed = _escrowed(tx, caller.party_id) if spends else 0
    return wallet_pb2.GetBalanceResponse(
        available_msat=ledger.available(tx, own),
        held_msat=ledger.held(tx, own) + escrowed,
        # routing fees included: earned = available + held + paid out
        paid_out_msat=worker.debits_posted,
        earned_msat=worker.credits_posted,
        asset=wallet.payments.asset,
        payout_threshold_msat=wallet.threshold_msat,
        payout_address=party.payout_address if party else "",
    )


def _escrowed(tx: Transaction, owner: str) -> int:
    """What lies in the escrow and in the round reserves of the owner's live jobs."""
    total = 0
    for job in tx.find(Job, owner=owner, state=LIVE_JOBS):
        rounds = tx.find(Round, job_id=job.id)
        accounts = [escrow_account(job.id), *(round_account(job.id, row.stage, row.number) for row in rounds)]
        total += sum(ledger.balance(tx, account) for account in accounts)
    return total


def _views(
    tx: Transaction, accounts: tuple[str, ...], limit: int, before_sequence: int
) -> list[wallet_pb2.TransferView]:
    views: list[wallet_pb2.TransferView] = []
    while len(views) < limit:
        lines = _lines(tx, accounts, limit, before_sequence)
        # a resolution is told on the line of its hold
        views += [_view(tx, account, transfer) for account, transfer in lines if transfer.resolves is None]
        if len(lines) < limit:
            break
        before_sequence = lines[-1][1].sequence
    return views[:limit]


def _lines(tx: Transaction, accounts: tuple[str, ...], limit: int, before_sequence: int) -> list[tuple[str, Transfer]]:
    """The newest transfers of all the accounts together, each with the account that it belongs to."""
    lines = [(name, item) for name in accounts for item in ledger.statement(tx, name, limit, before_sequence)]
    lines.sort(key=lambda line: line[1].sequence, reverse=True)
    return lines[:limit]


def _view(tx: Transaction, account: str, transfer: Transfer) -> wallet_pb2.TransferView:
    msat, at_ms, state = transfer.msat, transfer.at_ms, "posted"
    if transfer.kind is TransferKind.PENDING:
        state = "pending"
        resolved = ledger.resolution(tx, transfer.id)
        if resolved is not None:
            msat, at_ms, state = resolved.msat, resolved.at_ms, _STATES[resolved.kind]
    payout = tx.get(Payout, transfer.id) if transfer.kind is TransferKind.PENDING else None
    return wallet_pb2.TransferView(
        sequence=transfer.sequence,
        id=transfer.id,
        at_unix_ms=at_ms,
        msat=-msat if transfer.debit == account else msat,
        kind=transfer.reason,
        state=state,
        reference=transfer.reference,
        payment_hash=(payout.payment_hash or "") if payout else "",
        payout_state=payout.state if payout else "",
        why=why_to_proto(Why.from_json(payout.why_json)) if payout and payout.why_json else None,
    )


class WalletServicer(wallet_pb2_grpc.WalletServiceServicer):
    def __init__(self, gate: Gate, wallet: Wallet) -> None:
        self._gate, self._wallet = gate, wallet

    async def CreateDeposit(
        self, request: wallet_pb2.CreateDepositRequest, context: Context
    ) -> wallet_pb2.CreateDepositResponse:
        async with self._gate.admit(context, Role.REQUESTER, Role.OPERATOR) as caller:
            return await create_deposit(request, caller, self._wallet)

    async def GetDeposit(
        self, request: wallet_pb2.GetDepositRequest, context: Context
    ) -> wallet_pb2.GetDepositResponse:
        async with self._gate.admit(context, Role.REQUESTER, Role.OPERATOR) as caller:
            return await get_deposit(request, caller, self._wallet)

    async def GetBalance(
        self, request: wallet_pb2.GetBalanceRequest, context: Context
    ) -> wallet_pb2.GetBalanceResponse:
        async with self._gate.admit(context) as caller:
            return await get_balance(request, caller, self._wallet)

    async def ListTransfers(
        self, request: wallet_pb2.ListTransfersRequest, context: Context
    ) -> wallet_pb2.ListTransfersResponse:
        async with self._gate.admit(context) as caller:
            return await list_transfers(request, caller, self._wallet)

    async def CreateWithdrawal(
        self, request: wallet_pb2.CreateWithdrawalRequest, context: Context
    ) -> wallet_pb2.CreateWithdrawalResponse:
        async with self._gate.admit(context, Role.REQUESTER, Role.OPERATOR) as caller:
            return await create_withdrawal(request, caller, self._wallet)

    async def GetWithdrawal(
        self, request: wallet_pb2.GetWithdrawalRequest, context: Context
    ) -> wallet_pb2.GetWithdrawalResponse:
        async with self._gate.admit(context, Role.REQUESTER, Role.OPERATOR) as caller:
            return await get_withdrawal(request, caller, self._wallet)

    async def CancelWithdrawal(
        self, request: wallet_pb2.CancelWithdrawalRequest, context: Context
    ) -> wallet_pb2.CancelWithdrawalResponse:
        async with self._gate.admit(context, Role.REQUESTER, Role.OPERATOR) as caller:
            return await cancel_withdrawal(request, caller, self._wallet)
