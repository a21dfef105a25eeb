"""Withdrawals: a requester's balance goes out once or certainly not, beside the same key's earnings."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardwork.errors import Conflict, InvalidInput, NotEnoughFunds, NotFound, ShardworkError
from shardwork.money import sats
from shardwork_coordinator.money import ledger, payouts, withdrawals
from shardwork_coordinator.money.movements import Move, user_account
from shardwork_coordinator.money.withdrawals import Wish
from shardwork_coordinator.records import Payout, PayoutState
from shardwork_coordinator.store import Store

from .test_payouts import RULES, Crash, Fuse, World


@pytest.fixture
def world(tmp_path: Path, store: Store) -> World:
    return World(tmp_path, store)


async def fund(world: World, owner: str = "r", amount: int = 1000) -> None:
    move = Move(
        id=f"fund:{owner}",
        debit="external:test",
        credit=user_account(owner),
        msat=sats(amount),
        reason="deposit",
        reference="d",
    )
    await world.store.write(lambda tx: ledger.apply(tx, move, 0))


async def funds(world: World, owner: str = "r") -> tuple[int, int]:
    account = user_account(owner)
    return await world.store.read(lambda tx: (ledger.available(tx, account), ledger.held(tx, account)))


def wish(address: str = "r@simulated", amount: int = 500, key: str = "k") -> Wish:
    return Wish(owner="r", msat=sats(amount), address=address, idempotency_key=key)


async def take(world: World, asked: Wish) -> Payout:
    return await withdrawals.create(world.store, world.node, world.clock, asked)


async def test_it_is_held_at_once_paid_with_a_receipt_and_what_the_fee_left_returns(world: World) -> None:
    await fund(world)
    made = await take(world, wish())
    assert await funds(world) == (sats(495), sats(505))
    await world.sweep()
    row = await withdrawals.get(world.store, "r", made.id)
    assert row.state is PayoutState.SETTLED and row.preimage
    assert await funds(world) == (sats(499), 0)
    await world.check()


async def test_the_same_key_is_the_same_withdrawal_and_another_amount_under_it_is_refused(world: World) -> None:
    await fund(world)
    first = await take(world, wish())
    assert await take(world, wish()) == first
    with pytest.raises(Conflict) as refused:
        await take(world, wish(amount=400))
    assert refused.value.code == "withdrawal.key_reused"
    assert len(await world.rows()) == 1


@pytest.mark.parametrize(
    ("asked", "error", "code"),
    [
        (wish(amount=996), NotEnoughFunds, "withdrawal.too_much"),
        (wish(amount=0), InvalidInput, "withdrawal.bad_amount"),
        (Wish(owner="r", msat=1500, address="r@simulated", idempotency_key="k"), InvalidInput, "withdrawal.bad_amount"),
        (wish(address="not an address"), InvalidInput, "withdrawal.bad_address"),
        (wish(address="a@b" * 200), InvalidInput, "withdrawal.bad_address"),
        (wish(key=""), InvalidInput, "withdrawal.bad_key"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_held(
    world: World, asked: Wish, error: type[ShardworkError], code: str
) -> None:
    await fund(world)
    with pytest.raises(error) as refused:
        await take(world, asked)
    assert refused.value.code == code
    assert await funds(world) == (sats(1000), 0) and await world.rows() == []


async def test_the_advice_of_a_refusal_is_an_amount_that_works(world: World) -> None:
    await fund(world)
    with pytest.raises(NotEnoughFunds) as refused:
        await take(world, wish(amount=1000))
    assert refused.value.why.next_step == "Ask for at most 990 sat."
    assert (await take(world, wish(amount=990))).state is PayoutState.CREATED


@pytest.mark.parametrize(
    ("address", "state", "left"),
    [
        ("fail@simulated", PayoutState.FAILED, (sats(1000), 0)),
        ("overcharge@simulated", PayoutState.FAILED, (sats(1000), 0)),
        ("somebody@elsewhere.example", PayoutState.FAILED, (sats(1000), 0)),
        ("hang@simulated", PayoutState.SENT, (sats(495), sats(505))),
        ("unknown@simulated", PayoutState.UNKNOWN, (sats(495), sats(505))),
    ],
)
async def test_each_end_leaves_the_money_where_it_belongs(
    world: World, address: str, state: PayoutState, left: tuple[int, int]
) -> None:
    await fund(world)
    await take(world, wish(address))
    await world.sweep()
    (row,) = await world.rows()
    assert row.state is state
    assert await funds(world) == left
    await world.check()


async def test_it_is_called_off_until_it_is_sent_and_never_afterwards(world: World) -> None:
    await fund(world)
    made = await take(world, wish())
    row = await withdrawals.cancel(world.store, world.clock, "r", made.id)
    assert row.state is PayoutState.FAILED and "withdrawal.cancelled" in row.why_json
    assert await withdrawals.cancel(world.store, world.clock, "r", made.id) == row
    assert await funds(world) == (sats(1000), 0)
    await world.sweep()
    assert world.sends == {}
    sent = await take(world, wish("hang@simulated", key="other"))
    await world.sweep()
    with pytest.raises(Conflict) as refused:
        await withdrawals.cancel(world.store, world.clock, "r", sent.id)
    assert refused.value.code == "withdrawal.on_its_way"


async def test_nobody_elses_withdrawal_can_be_seen_or_called_off(world: World) -> None:
    await fund(world)
    made = await take(world, wish())
    await world.earn("w", sats(5000))
    await world.sweep()
    payout = next(row.id for row in await world.rows() if row.id.startswith("payout:"))
    for owner, name in (("other", made.id), ("r", "withdrawal:r/none"), ("w", payout)):
        with pytest.raises(NotFound):
            await withdrawals.get(world.store, owner, name)
        with pytest.raises(NotFound):
            await withdrawals.cancel(world.store, world.clock, owner, name)


async def test_a_key_that_earns_as_well_is_paid_both_and_neither_hides_the_other(world: World) -> None:
    await fund(world)
    await world.earn("r", sats(2000), "hang@simulated")
    await take(world, wish("late@simulated"))
    await world.sweep()
    states = {row.id.partition(":")[0]: row.state for row in await world.rows()}
    assert states == {"withdrawal": PayoutState.SENT, "payout": PayoutState.SENT}
    asked = await world.store.write(lambda tx: payouts.request(tx, "r", "simulated", RULES, 0))
    assert asked.id.startswith("payout:")


async def test_a_crash_at_any_moment_pays_once_or_certainly_not(tmp_path: Path) -> None:
    at = 1
    while True:
        world = World(tmp_path / str(at))
        (tmp_path / str(at)).mkdir()
        await fund(world)
        await take(world, wish())
        try:
            await world.sweep(Fuse(at))
            died = False
        except Crash:
            world.restart()
            died = True
        world.clock.advance(700)
        await world.settle_down()
        (row,) = await world.rows()
        assert row.state in (PayoutState.SETTLED, PayoutState.FAILED)
        available, held = await funds(world)
        assert held == 0 and available == (sats(499) if row.state is PayoutState.SETTLED else sats(1000))
        await world.check()
        if not died:
            break
        at += 1
    assert at > 5
