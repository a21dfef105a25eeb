"""Bulletin: what coordinators on one database call to each other after a commit, by PostgreSQL's LISTEN and NOTIFY.

A notice says that something was committed, that a worker came or went, and what must be pushed to workers that are
attached elsewhere. It is a hint: a lost one costs a second, in which everybody looks for himself (`membership`), or is
made up for when the worker's next heartbeat names a lease that is gone. Notices of one moment share one call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from typing import Any

import psycopg
from psycopg import sql

from shardwork.why import Why

from ..engine import Engine
from ..events import Push
from ..telemetry.logs import Log
from .membership import Membership

CHANNEL = "shardwork"
#: PostgreSQL takes less than 8,000 bytes in a notice
MOST_BYTES = 7_500
AGAIN_S = 0.5
#: commits of so long a moment share one notice
GATHER_S = 0.005

_log = Log("cluster.bulletin")


class Bulletin:
    """Calls and listens, each on a connection of its own."""

    def __init__(self, engine: Engine, membership: Membership, url: str) -> None:
        """`url`: postgresql://…, without a driver's name."""
        self._engine, self._membership, self._url = engine, membership, url
        self._waiting: list[Push] = []
        self._something = asyncio.Event()
        self._moved = False

    def tell(self, pushes: Collection[Push] = (), *, moved: bool = False) -> None:
        """After a commit: what it brought for workers elsewhere. `moved`: a worker came or went."""
        if not self._membership.has_others:
            return
        self._waiting += pushes
        self._moved |= moved
        self._something.set()

    async def call(self) -> None:
        """Sends notices until cancelled."""
        while True:
            try:
                # a lost notice is no loss, so nobody waits for the disk
                async with await self._connect("-c synchronous_commit=off") as connection:
                    while True:
                        await self._something.wait()
                        await asyncio.sleep(GATHER_S)
                        await self._send(connection)
            except psycopg.Error as error:
                _log.warning("cluster.cannot_call", error=error)
                await asyncio.sleep(AGAIN_S)

    async def listen(self) -> None:
        """Acts on the others' notices until cancelled."""
        while True:
            try:
                async with await self._connect() as connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    # what was called while nobody listened
                    self._engine.wake()
                    self._membership.look_soon()
                    async for notice in connection.notifies():
                        self._hear(notice.payload)
            except psycopg.Error as error:
                _log.warning("cluster.cannot_listen", error=error)
                await asyncio.sleep(AGAIN_S)

    async def _connect(self, options: str = "") -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(self._url, autocommit=True, options=options, connect_timeout=5)

    async def _send(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._something.clear()
        pushes, self._waiting = self._waiting, []
        moved, self._moved = self._moved, False
        for payload in payloads(self._membership.id, pushes, moved=moved):
            await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))

    def _hear(self, payload: str) -> None:
        try:
            said: dict[str, Any] = json.loads(payload)
            pushes = [_push(one) for one in said["pushes"]]
        except (ValueError, KeyError, TypeError):
            # another version's, or another program's on the same channel
            _log.warning("cluster.bad_notice", letters=len(payload))
            return
        if said.get("from") == self._membership.id:
            return
        if said.get("moved"):
            self._membership.look_soon()
        self._engine.links.push(pushes)
        self._engine.wake()


def payloads(sender: str, pushes: Sequence[Push], *, moved: bool) -> list[str]:
    """The notices that carry these pushes; one at least, each short enough."""
    found: list[str] = []
    group: list[dict[str, object]] = []

    def text() -> str:
        return json.dumps({"from": sender, "moved": moved, "pushes": group})

    for push in pushes:
        group.append(_plain(push))
        if len(text().encode()) > MOST_BYTES and len(group) > 1:
            last = group.pop()
            found.append(text())
            group = [last]
        if len(text().encode()) > MOST_BYTES:
            # its reason is long; the worker reads it where the job's owner does
            group[-1]["why"] = None
    return [*found, text()]


def _plain(push: Push) -> dict[str, object]:
    return {
        "worker": push.worker_id,
        "lease": push.lease_id,
        "kind": push.kind,
        "msat": push.paid_msat,
        "why": push.why.to_json() if push.why else None,
    }


def _push(said: dict[str, Any]) -> Push:
    return Push(
        worker_id=str(said["worker"]),
        lease_id=str(said["lease"]),
        kind=str(said["kind"]),
        paid_msat=int(said["msat"]),
        why=Why.from_json(said["why"]) if said["why"] else None,
    )
