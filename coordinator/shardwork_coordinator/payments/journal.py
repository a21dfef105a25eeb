"""Journals of the simulated payment node: a file of its own, or the database that coordinators share.

The node is one for all of them: a payout that one coordinator bound and another sends must be known to both, and one
that was sent must not look as if it never was. Lines are JSON; what they mean is `simulated`'s business.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Protocol

from ..records import PaymentLine
from ..store.base import Store, Transaction


class Journal(Protocol):
    #: makes this node's names differ from those of others on the same journal
    salt: str

    def begin(self) -> list[bytes]:
        """Lines that are there when the node starts."""
        ...

    async def news(self) -> list[bytes]:
        """Lines that others wrote since, in order; perhaps own ones again."""
        ...

    async def add(self, line: bytes) -> None:
        """One line, durable when this returns."""
        ...


class FileJournal:
    """A file that nobody else writes."""

    salt = ""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self) -> list[bytes]:
        if not self._path.exists():
            return []
        _cut_torn_line(self._path)
        return self._path.read_bytes().splitlines()

    async def news(self) -> list[bytes]:
        return []

    async def add(self, line: bytes) -> None:
        await asyncio.to_thread(_append, self._path, line + b"\n")


class StoreJournal:
    """Rows in the coordinators' database."""

    def __init__(self, store: Store, salt: str) -> None:
        self.salt = salt
        self._store, self._read = store, 0

    def begin(self) -> list[bytes]:
        return []

    async def news(self) -> list[bytes]:
        since = self._read
        rows = await self._store.read(lambda tx: tx.find(PaymentLine, order="number", after=since))
        if rows and since == self._read:
            self._read = rows[-1].number
        return [row.line.encode() for row in rows]

    async def add(self, line: bytes) -> None:
        def append(tx: Transaction) -> None:
            last = tx.find(PaymentLine, order="number", descending=True, limit=1)
            tx.insert(PaymentLine(number=last[0].number + 1 if last else 1, line=line.decode()))

        await self._store.write(append)


def _append(path: Path, line: bytes) -> None:
    """One durable line."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut_torn_line(path: Path) -> None:
    """Drops what follows the last newline: a crash cut it off, nobody was told of it, and it would spoil the next."""
    with path.open("r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
