"""A coordinator with money in it: deposits and payouts made by the real code against a scripted node, and a browser."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import replace

import httpx

from shardwork.money import sats
from shardwork_coordinator.money import deposits, ledger, payouts, withdrawals
from shardwork_coordinator.money.movements import Move, external_account, worker_account
from shardwork_coordinator.payments.simulated import SimulatedPayments
from shardwork_coordinator.records import AuditEntry, Party, WebRole
from shardwork_coordinator.web.server import Site, build

from .scene import COOKIE, OWNER, Scene, signed_in

RULES = payouts.PayoutRules(threshold_msat=sats(10))


class Till:
    """A scene with a payment node; `app` is the web server over both."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.payments = SimulatedPayments(self.scene.clock)
        self.site = Site(payments=self.payments)
        self.app = build(self.scene.engine, self.site)

    async def deposit(self, sat: int, *, key: str = "first") -> str:
        scene = self.scene
        row = await deposits.create(
            scene.store, self.payments, scene.clock, owner=OWNER, msat=sats(sat), idempotency_key=key
        )
        return row.id

    async def earner(self, number: int, name: str, address: str, sat: int) -> str:
        """A worker with earnings; they came from outside, as a shortcut past jobs."""
        worker = await self.scene.worker(number, name, attached=False)
        party = await self.scene.store.read(lambda tx: tx.get(Party, worker))
        assert party is not None
        earning = Move(
            id=f"earned/{worker}",
            debit=external_account("simulated"),
            credit=worker_account(worker),
            msat=sats(sat),
            reason="shard",
            reference="a-shard",
        )
        await self.scene.put(lambda tx: tx.put(replace(party, payout_address=address)))
        await self.scene.put(lambda tx: ledger.apply(tx, earning, self.scene.clock.now_ms()))
        return worker

    async def sweep(self) -> None:
        await payouts.advance(self.scene.store, self.payments, self.scene.clock, RULES)

    async def withdraw(self, sat: int, address: str) -> str:
        wish = withdrawals.Wish(owner=OWNER, msat=sats(sat), address=address, idempotency_key=address)
        return (await withdrawals.create(self.scene.store, self.payments, self.scene.clock, wish)).id

    async def entries(self) -> list[AuditEntry]:
        return await self.scene.store.read(lambda tx: tx.find(AuditEntry, order="id"))


class Browser:
    """Somebody who signed in and sends forms as the pages have them."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def get(self, path: str, status: int = 200) -> str:
        answer = await self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    async def post(self, page: str, action: str, **fields: str) -> httpx.Response:
        """Sends the form with the token that the page carries, and follows where it leads."""
        found = re.search(r'name="csrf" value="([^"]+)"', await self.get(page))
        token = found[1] if found else ""
        return await self.client.post(action, data={"csrf": token, **fields}, follow_redirects=True)


@contextlib.asynccontextmanager
async def browsing(app: object, scene: Scene, role: WebRole = WebRole.OPERATOR) -> AsyncGenerator[Browser, None]:
    cookies = {COOKIE: await signed_in(scene, role, name=f"a-{role}")}
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", cookies=cookies) as client:
            yield Browser(client)
    finally:
        scene.store.close()
