"""From a command to the coordinator: which one the flags and the home name, and one bridge into asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

from shardwork.client import settings
from shardwork.client.settings import Access
from shardwork.identity.role import Role
from shardwork.session import Session

T = TypeVar("T")


def access(context: typer.Context) -> Access:
    """The coordinator this command talks to. Raises NotAuthenticated "login.missing" before any login."""
    return settings.access(context.find_root().params.get("join"))


def run(access: Access, work: Callable[[Session], Awaitable[T]], *, name: str = "") -> T:
    """Opens a session as requester, does `work` in it, closes it. Raises the ShardworkError classes."""

    async def inside() -> T:
        session = await Session.open(access.join, access.key(), Role.REQUESTER, name=name)
        try:
            return await work(session)
        finally:
            await session.close()

    return asyncio.run(inside())
