"""`shardwork wallet …`: put sats in, see what is there and what moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..outcome import emit, guard, say
from .options import ALL_SATS, JsonOption

if TYPE_CHECKING:
    from shardwork.client.asynchronous import AsyncClient
    from shardwork.client.results import Balance, Deposit

app = typer.Typer(help="Your sats: put in, held, spent.", no_args_is_help=True)

SIMULATED = "SIMULATED SATS: play money of this coordinator. No bitcoin moved and none can be withdrawn."


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
        from shardwork.money import show

        from .. import access, render, views

        async def deposited(client: AsyncClient) -> tuple[Deposit, Balance]:
            made = await client.wallet.deposit(sats, wait=wait, on_invoice=_show_invoice)
            return made, await client.wallet.balance()

        made, balance = access.run(context, deposited)
        if made.is_simulated:
            say(f"! {SIMULATED}")
        if json_output:
            emit({**views.deposit_json(made), "balance": views.balance_json(balance)})
        elif made.state == "settled":
            render.show(f"✓ {show(made.msat)} arrived.")
            render.show(render.balance_page(balance))
        else:
            render.show(f"The invoice is {made.state}.")


def _show_invoice(made: Deposit) -> None:
    say("Pay this Lightning invoice:\n")
    say(f"{made.invoice}\n")


@app.command()
def balance(context: typer.Context, json_output: JsonOption = False) -> None:
    """What is available and what is held in escrow."""
    with guard(json_output):
        from .. import access, render, views

        now = access.run(context, lambda client: client.wallet.balance())
        if json_output:
            emit(views.balance_json(now))
            return
        render.show(render.balance_page(now))
        if now.is_simulated:
            say(f"! {SIMULATED}")


@app.command()
def history(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="Newest transfers to show.")] = 50,
    json_output: JsonOption = False,
) -> None:
    """Every transfer of your account, newest first."""
    with guard(json_output):
        from .. import access, render, views

        transfers = access.run(context, lambda client: client.wallet.history(limit=limit))
        if json_output:
            emit({"transfers": [views.transfer_json(each) for each in transfers]})
        elif transfers:
            render.show(render.history_table(transfers))
        else:
            say("Nothing moved yet.\n→ shardwork wallet deposit 2000")
