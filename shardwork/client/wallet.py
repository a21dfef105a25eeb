"""AsyncWallet: a requester's sats, in and out."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from ..errors import Conflict
from ..money import whole_sats
from ..session import Session
from . import calls, received
from .results import Balance, Deposit, Transfer, Withdrawal
from .settings import Access
from .submission import pending_for

POLL_S = 1.0


class AsyncWallet:
    """Made by `AsyncClient.wallet`."""

    def __init__(self, session: Callable[[], Awaitable[Session]], access: Callable[[], Access]) -> None:
        self._session = session
        self._access = access

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
        msat, session = whole_sats(sats), await self._session()
        made = await calls.create_deposit(session, msat, idempotency_key=uuid.uuid4().hex)
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

    async def withdraw(
        self, sats: int, address: str, *, wait: bool = True, on_created: Callable[[Withdrawal], None] | None = None
    ) -> Withdrawal:
        """Takes whole sats out to a Lightning address; with `wait`, returns once they arrived, failed or are in doubt.

        Safe to repeat after an error or a break: until this returned (or `on_created` was told), the same amount to the
        same address is the same withdrawal, and it is sent at most once. A failed one has its sats back in the wallet
        and a `why`; an "unknown" one keeps them held until the coordinator knows. Raises NotEnoughFunds
        "withdrawal.too_much", InvalidInput "withdrawal.bad_address".
        """
        msat, session, access = whole_sats(sats), await self._session(), self._access()
        wish = f"withdraw\0{access.join.ca_sha256}\0{session.party_id}\0{sats}\0{address}".encode()
        kept = pending_for(access.home.state_dir, wish)
        made = await calls.create_withdrawal(session, msat, address, idempotency_key=kept.submission_id)
        if on_created is not None:
            on_created(received.withdrawal(made))
            kept.answered()
        while wait and made.state in ("created", "bound", "sent"):
            await asyncio.sleep(POLL_S)
            made = await calls.withdrawal(session, made.id)
        kept.answered()
        return received.withdrawal(made)

    async def withdrawal(self, withdrawal_id: str) -> Withdrawal:
        """One withdrawal as it is now. Raises NotFound "withdrawal.unknown"."""
        return received.withdrawal(await calls.withdrawal(await self._session(), withdrawal_id))

    async def cancel_withdrawal(self, withdrawal_id: str) -> Withdrawal:
        """Calls off one that was not sent yet. Raises Conflict "withdrawal.on_its_way"."""
        return received.withdrawal(await calls.cancel_withdrawal(await self._session(), withdrawal_id))

    async def history(self, *, limit: int = 50) -> list[Transfer]:
        """The newest transfers of this account, newest first."""
        return [received.transfer(view) for view in await calls.transfers(await self._session(), limit=limit)]
