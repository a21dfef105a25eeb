"""AsyncWallet: a requester's sats, in and out."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from ..errors import Conflict
from ..money import sats as to_msat
from ..session import Session
from . import calls, received
from .results import Balance, Deposit, Transfer

POLL_S = 1.0


class AsyncWallet:
    """Made by `AsyncClient.wallet`."""

    def __init__(self, session: Callable[[], Awaitable[Session]]) -> None:
        self._session = session

    async def balance(self) -> Balance:
        """What is available, held and earned."""
        return received.balance(await calls.balance(await self._session()))

    async def deposit(
        self, sats: int, *, wait: bool = True, on_invoice: Callable[[Deposit], None] | None = None
    ) -> Deposit:
        """Makes an invoice over whole sats; with `wait`, returns once it is paid.

        `on_invoice` is told the invoice that has to be paid by somebody; simulated ones settle at once. Raises Conflict
        "deposit.expired".
        """
        session = await self._session()
        made = await calls.create_deposit(session, to_msat(sats), idempotency_key=uuid.uuid4().hex)
        if made.state == "open" and on_invoice is not None:
            on_invoice(received.deposit(made))
        while wait and made.state == "open":
            await asyncio.sleep(POLL_S)
            made = await calls.deposit(session, made.id)
        if made.state == "expired":
            raise Conflict(
                "deposit.expired",
                "The invoice expired before it was paid.",
                next_step="Make a new one in the same way.",
                deposit=made.id,
            )
        return received.deposit(made)

    async def history(self, *, limit: int = 50) -> list[Transfer]:
        """The newest transfers of this account, newest first."""
        return [received.transfer(view) for view in await calls.transfers(await self._session(), limit=limit)]
