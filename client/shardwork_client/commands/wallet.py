"""`shardwork wallet …`: put sats in, see what is there and what moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..outcome import emit, guard, say
from .options import ALL_SATS, JsonOption

if TYPE_CHECKING:
    from shardwork.session import Session
    from shardwork.v1 import wallet_pb2

app = typer.Typer(help="Your sats: put in, held, spent.", no_args_is_help=True)

SIMULATED = "SIMULATED SATS: play money of this coordinator. No bitcoin moved and none can be withdrawn."
POLL_S = 1.0


@app.command()
def deposit(
    context: typer.Context,
    sats: Annotated[int, typer.Argument(metavar="SATS", min=1, max=ALL_SATS, help="Whole sats to put in.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the invoice is paid.")] = True,
    json_output: JsonOption = False,
) -> None:
    """Make an invoice, wait until it is paid, and see the new balance.

    Example:  shardwork wallet deposit 2000
    """
    with guard(json_output, interrupted="An invoice that was shown can still be paid:  shardwork wallet balance"):
        from shardwork.money import sats as to_msat
        from shardwork.money import show

        from .. import access, render, views

        made, balance = access.run(access.access(context), lambda session: _deposit(session, int(to_msat(sats)), wait))
        if made.simulated:
            say(f"! {SIMULATED}")
        if json_output:
            emit({**views.deposit_json(made), "balance": views.balance_json(balance)})
            return
        if made.state == "settled":
            render.show(f"✓ {show(made.msat)} arrived.")
            render.show(render.balance_page(balance))
        else:
            render.show(f"The invoice is {made.state}.")


async def _deposit(session: Session, msat: int, wait: bool) -> tuple[wallet_pb2.Deposit, wallet_pb2.GetBalanceResponse]:
    """One invoice; its key is fresh per command, so that only the session's own retries are folded into one."""
    import asyncio
    import uuid

    from shardwork.client import calls
    from shardwork.errors import Conflict

    made = await calls.create_deposit(session, msat, idempotency_key=uuid.uuid4().hex)
    if made.state == "open":
        say("Pay this Lightning invoice:\n")
        say(f"{made.invoice}\n")
    while wait and made.state == "open":
        await asyncio.sleep(POLL_S)
        made = await calls.deposit(session, made.id)
    if made.state == "expired":
        raise Conflict(
            "deposit.expired",
            "The invoice expired before it was paid.",
            next_step="Make a new one with the same command.",
            deposit=made.id,
        )
    return made, await calls.balance(session)


@app.command()
def balance(context: typer.Context, json_output: JsonOption = False) -> None:
    """What is available and what is held in escrow."""
    with guard(json_output):
        from shardwork.client import calls

        from .. import access, render, views

        now = access.run(access.access(context), calls.balance)
        if json_output:
            emit(views.balance_json(now))
            return
        render.show(render.balance_page(now))
        if now.asset == "simulated":
            say(f"! {SIMULATED}")


@app.command()
def history(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="Newest transfers to show.")] = 50,
    json_output: JsonOption = False,
) -> None:
    """Every transfer of your account, newest first."""
    with guard(json_output):
        from shardwork.client import calls

        from .. import access, render, views

        transfers = access.run(access.access(context), lambda session: calls.transfers(session, limit=limit))
        if json_output:
            emit({"transfers": [views.transfer_json(each) for each in transfers]})
        elif transfers:
            render.show(render.history_table(transfers))
        else:
            say("Nothing moved yet.\n→ shardwork wallet deposit 2000")
