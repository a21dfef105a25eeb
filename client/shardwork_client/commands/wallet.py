"""`shardwork wallet …`: put sats in, take them out, see what is there and what moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..outcome import emit, fail, guard, interrupt, is_terminal, say, usage
from .options import ALL_SATS, JsonOption, YesOption

if TYPE_CHECKING:
    from shardwork.client.asynchronous import AsyncClient
    from shardwork.client.results import Balance, Deposit, Withdrawal

app = typer.Typer(help="Your sats: put in, held, spent.", no_args_is_help=True)

SIMULATED = "SIMULATED SATS: play money of this coordinator. No bitcoin moved, and none can be had for them."


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
            say("→ shardwork wallet balance")


def _show_invoice(made: Deposit) -> None:
    say("Pay this Lightning invoice:\n")
    say(f"{made.invoice}\n")


@app.command()
def withdraw(
    context: typer.Context,
    sats: Annotated[int, typer.Argument(metavar="SATS", min=1, max=ALL_SATS, help="Whole sats to take out.")],
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="A Lightning address, name@example.org.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until they arrived or failed.")] = True,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    """Take sats out to a Lightning address. They are sent at most once, whatever breaks.

    Exit 6 when the wallet cannot cover them with the fee limit, 1 when the payment failed: then they are back.

    Example:  shardwork wallet withdraw 500 me@example.org
    """
    with guard(json_output, interrupted="A withdrawal that was made goes on:  shardwork wallet history"):
        from shardwork.money import sats as to_msat
        from shardwork.money import show

        from .. import access, views

        if not yes:
            _agree(f"Take {show(to_msat(sats))} out to {address}?", f"shardwork wallet withdraw {sats} {address} --yes")
        made = access.run(
            context, lambda client: client.wallet.withdraw(sats, address, wait=wait, on_created=_show_withdrawal)
        )
        if made.is_simulated:
            say(f"! {SIMULATED}")
        if json_output:
            emit(views.withdrawal_json(made))
        _judge(made, json_output)


def _show_withdrawal(made: Withdrawal) -> None:
    from shardwork.money import show

    say(f"{show(made.msat)} and at most {show(made.fee_limit_msat)} of fees are held for {made.id}")


def _agree(question: str, beforehand: str) -> None:
    """Returns when the person agrees. Leaves with 2 where nobody can be asked, 1 when not, 130 on Ctrl-C."""
    if not is_terminal():
        usage("Sats would leave and there is no terminal to ask on.", f"Agree beforehand:  {beforehand}", False)
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        interrupt("Nothing was taken out.")
    if not agreed:
        say("Nothing was taken out.")
        raise typer.Exit(1)


def _judge(made: Withdrawal, json_output: bool) -> None:
    from shardwork.money import show

    if made.state == "failed":
        from shardwork.why import Why

        why = made.why or Why(code="payout.failed", sentence="The payment failed.")
        fail(why, 1, json_output)
    if json_output:
        return
    if made.state == "settled":
        say(f"✓ {show(made.msat)} arrived at {made.address}. Receipt: {made.preimage}")
    else:
        if made.why is not None:
            say(made.why.sentence)
        say(f"The withdrawal is {made.state}.\n→ shardwork wallet history")


@app.command("cancel")
def cancel_withdrawal(
    context: typer.Context,
    withdrawal_id: Annotated[str, typer.Argument(metavar="ID", help="The withdrawal's id, as it was shown.")],
    json_output: JsonOption = False,
) -> None:
    """Call off a withdrawal that was not sent yet; its sats return."""
    with guard(json_output, interrupted="See whether it took effect with:  shardwork wallet history"):
        from .. import access, views

        made = access.run(context, lambda client: client.wallet.cancel_withdrawal(withdrawal_id))
        if json_output:
            emit(views.withdrawal_json(made))
        else:
            say(f"✓ {made.id} does not go out; its sats are in the wallet.")


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
            render.show(render.History(transfers))
        else:
            say("Nothing moved yet.\n→ shardwork wallet deposit 2000")
