"""Somebody at the dashboard: an HTTP client over the application itself, signed in or not."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator

import httpx

from shardwork_coordinator.accounts import sessions
from shardwork_coordinator.engine import Engine
from shardwork_coordinator.records import WebRole, WebUser
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.web.server import Site, build

COOKIE = "shardwork_0"


@contextlib.asynccontextmanager
async def visitor(
    engine: Engine, role: WebRole | None = WebRole.OPERATOR, *, name: str = "ada", site: Site | None = None
) -> AsyncGenerator[httpx.AsyncClient, None]:
    """`role` None: nobody has signed in."""
    cookies: dict[str, str] = {}
    if role is not None:
        found, now_ms = role, engine.clock.now_ms()

        def begin(tx: Transaction) -> str:
            if tx.get(WebUser, name) is None:
                tx.insert(WebUser(name=name, role=found, password_hash="", created_ms=now_ms))
            return sessions.begin(tx, name, now_ms).text

        cookies[COOKIE] = await engine.store.write(begin)
    transport = httpx.ASGITransport(build(engine, site))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", cookies=cookies) as client:
        yield client


async def token(client: httpx.AsyncClient, path: str = "/account") -> str:
    """What the forms of this session carry."""
    found = re.search(r'name="csrf" value="([^"]+)"', (await client.get(path)).text)
    assert found is not None
    return found[1]


async def act(client: httpx.AsyncClient, path: str, **fields: str) -> httpx.Response:
    """Sends a form of one of our pages."""
    return await client.post(path, data={"csrf": await token(client), **fields})
