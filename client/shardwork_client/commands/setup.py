"""`shardwork init`: the first run, step by step; asks for the join line, and for nothing that it can know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ..outcome import emit, guard, interrupt, is_terminal, say, usage
from .options import JsonOption, YesOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardwork.client.asynchronous import AsyncClient
    from shardwork.client.results import Balance, Login

T = TypeVar("T")

#: simulated sats that a first run is offered
FIRST_SATS = 2000


def init(
    context: typer.Context,
    join: Annotated[
        str | None, typer.Argument(metavar="[JOIN]", help="The coordinator's join line; asked for when left out.")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="No coordinator at hand: start one with a worker here, in the background.")
    ] = False,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    """Set up this machine: your key, a coordinator, and simulated sats where it deals in them.

    Safe to repeat. What exists is kept.

    Example:  shardwork init 'shardwork://gpu.example.org:7443?ca=5f2c…'
    """
    with guard(json_output, interrupted="What was done so far is kept; the same command goes on from there."):
        from shardwork.client.settings import shown_settings
        from shardwork.config import Home

        from .. import access

        known = join or access.joined(context)
        if demo and join:
            usage("A demo has its own join line.", "Leave out one of the two.", json_output)
        if demo:
            known = _demo_line(json_output)
        remembered = shown_settings(known)[0].value
        if not json_output:
            say(f"Keys and settings lie in {Home.find().config_dir}")
        if not remembered and not is_terminal():
            sentence = "There is no terminal to ask for the join line on."
            usage(sentence, "Give it:  shardwork init 'shardwork://host:port?ca=…', or add --demo", json_output)
        line = remembered or _ask_join() or _demo_line(json_output)
        _revive(line, json_output)

        async def set_up(client: AsyncClient) -> tuple[Login, Balance]:
            return await client.login(line), await client.wallet.balance()

        made, balance = access.run(context, set_up)
        if not json_output:
            say(f"✓ You are enrolled as requester {made.party_id}; remembered in {made.config_file}")
        if balance.is_simulated and not balance.available_msat and not balance.held_msat and _wants_sats(yes):
            access.run(context, lambda client: client.wallet.deposit(FIRST_SATS))
            balance = access.run(context, lambda client: client.wallet.balance())
        _close(made, balance, json_output)


def _ask_join() -> str:
    """The line, or nothing: then a demo is wanted."""
    say("The coordinator's operator gives you its join line: shardwork://host:port?ca=…")
    say("None at hand? Enter alone starts a coordinator and a worker of your own here, in the background.")
    question = "Join line (Enter: a demo on this machine)"
    return _answered(lambda: str(typer.prompt(question, default="", show_default=False, err=True))).strip()


def _demo_line(json_output: bool) -> str:
    """The join line of this machine's demo, started if need be."""
    from .demo import demo, show

    local = demo()
    runs = local.is_running()
    served = local.ensure()
    if not json_output:
        say("✓ The demo runs already." if runs else "✓ Started a coordinator and a worker in the background.")
        show(local, served)
    return served.join


def _revive(line: str, json_output: bool) -> None:
    """A demo that ended is started again: nothing else would answer at its join line."""
    from .demo import demo

    local = demo()
    if local.is_at(line) and not local.is_running():
        _demo_line(json_output)


def _wants_sats(yes: bool) -> bool:
    if yes or not is_terminal():
        return yes
    question = f"This coordinator deals in SIMULATED sats. Put {FIRST_SATS:,} of them into your wallet?"
    return _answered(lambda: typer.confirm(question, default=True, err=True))


def _answered(ask: Callable[[], T]) -> T:
    """What the person answers; Ctrl-C and the end of input leave at once."""
    try:
        return ask()
    except typer.Abort:
        interrupt("Nothing more was done; the same command goes on from here.")


def _close(made: Login, balance: Balance, json_output: bool) -> None:
    from shardwork.money import show

    from .. import views

    if json_output:
        emit({"party_id": made.party_id, "join": made.join, "balance": views.balance_json(balance)})
        return
    kind = "simulated " if balance.is_simulated else ""
    say(f"✓ Your wallet has {kind}{show(balance.available_msat)}.")
    say("→ shardwork job init sft")
    say("  shardwork --install-completion    Tab completes commands, flags and job ids")
