"""The wallet: what a requester, a worker and a key that is both see of their money; and the service on a wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import pytest

from shardwork.clock import ManualClock
from shardwork.errors import InvalidInput, NotFound
from shardwork.identity.role import Role
from shardwork.v1 import wallet_pb2, wallet_pb2_grpc
from shardwork.wire import error_from_rpc
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import (
    FEES,
    Hold,
    Move,
    Movement,
    PostHold,
    VoidHold,
    escrow_account,
    round_account,
    user_account,
    worker_account,
)
from shardwork_coordinator.payments.simulated import Behaviour, Script, SimulatedPayments
from shardwork_coordinator.records import Job, JobState, Round, RoundState
from shardwork_coordinator.rpc.auth import Caller, FixedGate
from shardwork_coordinator.rpc.wallet import (
    Wallet,
    WalletServicer,
    create_deposit,
    get_balance,
    get_deposit,
    list_transfers,
)
from shardwork_coordinator.store import Store, Transaction

KEY = b"\x01" * 32
REQUESTER = Caller("p", KEY, Role.REQUESTER)
WORKER = Caller("p", KEY, Role.WORKER)
USER, WORK, ESCROW, RESERVE = (
    user_account("p"),
    worker_account("p"),
    escrow_account("j"),
    round_account("j", "tune", 1),
)


@pytest.fixture
def wallet(store: Store) -> Wallet:
    clock = ManualClock()
    return Wallet(store, SimulatedPayments(clock, script=Script(amounts={7000: Behaviour.LATE})), clock)


def job(name: str, state: JobState, owner: str = "p") -> Job:
    return Job(
        id=name,
        owner=owner,
        submission_id=name,
        name=name,
        state=state,
        spec_json="{}",
        facts_json="{}",
        inputs_json="{}",
        quote_json="{}",
        rates_json="{}",
        budget_msat=0,
        created_ms=0,
    )


def opened_round(job_id: str, number: int) -> Round:
    return Round(
        job_id=job_id, stage="tune", number=number, kind="learn", state=RoundState.OPEN, phase="learn", started_ms=0
    )


def move(name: str, debit: str, credit: str, msat: int, reason: str = "x") -> Move:
    return Move(id=name, debit=debit, credit=credit, msat=msat, reason=reason, reference="j")


def hold(name: str, debit: str, credit: str, msat: int, reason: str = "x") -> Hold:
    return Hold(id=name, debit=debit, credit=credit, msat=msat, reason=reason, reference="j")


async def book(wallet: Wallet, *movements: Movement) -> None:
    await wallet.store.write(lambda tx: ledger.apply_all(tx, movements, 5))


async def balance(wallet: Wallet, caller: Caller) -> dict[str, int | str]:
    reply = await get_balance(wallet_pb2.GetBalanceRequest(), caller, wallet)
    return {field.name: value for field, value in reply.ListFields()}


async def deposit(wallet: Wallet, msat: int, key: str = "k", caller: Caller = REQUESTER) -> wallet_pb2.Deposit:
    request = wallet_pb2.CreateDepositRequest(msat=msat, idempotency_key=key)
    return (await create_deposit(request, caller, wallet)).deposit


async def test_a_deposit_is_shown_as_simulated_and_settled(wallet: Wallet) -> None:
    made = await deposit(wallet, 5000)
    assert made.invoice.startswith("lnsim1")
    assert (made.state, made.simulated, made.msat) == ("settled", True, 5000)
    assert await deposit(wallet, 5000) == made
    assert await balance(wallet, REQUESTER) == {"available_msat": 5000, "asset": "simulated"}


async def test_asking_for_a_deposit_settles_it_once_it_is_paid(wallet: Wallet) -> None:
    made = await deposit(wallet, 7000)
    assert made.state == "open"
    states = [
        (await get_deposit(wallet_pb2.GetDepositRequest(id=made.id), REQUESTER, wallet)).deposit.state for _ in range(3)
    ]
    assert states == ["open", "settled", "settled"]
    with pytest.raises(NotFound):
        await get_deposit(wallet_pb2.GetDepositRequest(id=made.id), Caller("q", KEY, Role.REQUESTER), wallet)


async def test_a_requester_sees_escrow_and_reserves_of_live_jobs_as_held(wallet: Wallet) -> None:
    def rows(tx: Transaction) -> None:
        tx.insert(job("j", JobState.RUNNING))
        tx.insert(job("done", JobState.SUCCEEDED))
        tx.insert(job("theirs", JobState.RUNNING, owner="q"))
        tx.insert(opened_round("j", 1))

    await wallet.store.write(rows)
    await deposit(wallet, 100_000)
    await book(
        wallet,
        move("escrow", USER, ESCROW, 60_000),
        move("other", USER, escrow_account("theirs"), 1_000),
        move("reserve", ESCROW, RESERVE, 50_000),
        hold("shard", RESERVE, WORK, 9_000),
        hold("fee", RESERVE, FEES, 900),
    )
    assert await balance(wallet, REQUESTER) == {"available_msat": 39_000, "held_msat": 60_000, "asset": "simulated"}
    await book(wallet, PostHold(hold_id="shard", msat=9_000), PostHold(hold_id="fee", msat=900))
    seen = await balance(wallet, REQUESTER)
    assert (seen["held_msat"], seen["earned_msat"]) == (50_100, 9_000)


async def test_a_workers_numbers_add_up(wallet: Wallet) -> None:
    await book(
        wallet,
        move("earn", "external:simulated", WORK, 10_000),
        hold("one", WORK, "external:simulated", 4_000),
        PostHold(hold_id="one", msat=3_000),
        hold("two", WORK, "external:simulated", 2_000),
    )
    assert await balance(wallet, WORKER) == {
        "available_msat": 5_000,
        "held_msat": 2_000,
        "paid_out_msat": 3_000,
        "earned_msat": 10_000,
        "asset": "simulated",
    }


async def test_a_stranger_has_nothing(wallet: Wallet) -> None:
    assert await balance(wallet, Caller("nobody", KEY, Role.WORKER)) == {"asset": "simulated"}


async def lines(wallet: Wallet, limit: int = 0, before: int = 0) -> list[tuple[str, int, str, str]]:
    request = wallet_pb2.ListTransfersRequest(limit=limit, before_sequence=before)
    reply = await list_transfers(request, REQUESTER, wallet)
    return [(view.id, view.msat, view.kind, view.state) for view in reply.transfers]


async def test_transfers_are_signed_and_a_hold_is_one_line(wallet: Wallet) -> None:
    made = await deposit(wallet, 100_000)
    await book(
        wallet,
        move("escrow", USER, ESCROW, 60_000, "escrow"),
        hold("paid", ESCROW, WORK, 9_000, "shard"),
        PostHold(hold_id="paid", msat=8_000),
        hold("void", ESCROW, WORK, 7_000, "shard"),
        VoidHold(hold_id="void"),
        hold("open", ESCROW, WORK, 6_000, "shard"),
        move("refund", ESCROW, USER, 1_000, "refund"),
        hold("out", WORK, "external:simulated", 5_000, "payout"),
    )
    expected = [
        ("out", -5_000, "payout", "pending"),
        ("refund", 1_000, "refund", "posted"),
        ("open", 6_000, "shard", "pending"),
        ("void", 7_000, "shard", "voided"),
        ("paid", 8_000, "shard", "posted"),
        ("escrow", -60_000, "escrow", "posted"),
        (f"deposit:{made.id}", 100_000, "deposit", "posted"),
    ]
    assert await lines(wallet) == expected


async def test_pages_join_without_gap_or_repeat(wallet: Wallet) -> None:
    await deposit(wallet, 100_000)
    for number in range(6):
        steps: list[Movement] = [hold(f"h{number}", USER, ESCROW, 100), PostHold(hold_id=f"h{number}", msat=50)]
        await book(wallet, *steps, move(f"m{number}", "external:simulated", WORK, 10))
    whole = await lines(wallet)
    assert len(whole) == 13
    joined: list[tuple[str, int, str, str]] = []
    before = 0
    while True:
        request = wallet_pb2.ListTransfersRequest(limit=2, before_sequence=before)
        page = (await list_transfers(request, REQUESTER, wallet)).transfers
        if not page:
            break
        joined += [(view.id, view.msat, view.kind, view.state) for view in page]
        before = page[-1].sequence
    assert joined == whole


@pytest.fixture
async def stub(wallet: Wallet) -> AsyncIterator[wallet_pb2_grpc.WalletServiceAsyncStub]:
    server = grpc.aio.server()
    servicer = WalletServicer(FixedGate(REQUESTER), wallet)
    wallet_pb2_grpc.add_WalletServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield wallet_pb2_grpc.WalletServiceStub(channel)
    await server.stop(None)


async def test_the_service_answers_and_refuses_on_the_wire(stub: wallet_pb2_grpc.WalletServiceAsyncStub) -> None:
    made = await stub.CreateDeposit(wallet_pb2.CreateDepositRequest(msat=5000, idempotency_key="k"))
    again = await stub.GetDeposit(wallet_pb2.GetDepositRequest(id=made.deposit.id))
    assert again.deposit == made.deposit
    assert (await stub.GetBalance(wallet_pb2.GetBalanceRequest())).available_msat == 5000
    assert len((await stub.ListTransfers(wallet_pb2.ListTransfersRequest())).transfers) == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateDeposit(wallet_pb2.CreateDepositRequest(msat=5, idempotency_key="k"))
    error = error_from_rpc(caught.value)
    assert isinstance(error, InvalidInput)
    assert error.code == "deposit.bad_amount"
