"""From a command to the library: one bridge into asyncio, with the coordinator that the flags and the home name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

from shardwork.client.asynchronous import AsyncClient
from shardwork.client.progress import OnProgress

T = TypeVar("T")


def run(
    context: typer.Context,
    work: Callable[[AsyncClient], Awaitable[T]],
    *,
    name: str = "",
    on_progress: OnProgress | None = None,
) -> T:
    """Does `work` with a client of the coordinator that this command talks to. Raises the ShardworkError classes."""

    async def inside() -> T:
        async with AsyncClient(joined(context), name=name, on_progress=on_progress) as client:
            return await work(client)

    return asyncio.run(inside())


def joined(context: typer.Context) -> str | None:
    """The join line of --join, which stands before the command's name."""
    found: object = context.find_root().params.get("join")
    return found if isinstance(found, str) else None
