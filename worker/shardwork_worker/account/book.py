"""The book: every shard this worker had in hand and how it ended, and the bytes it moved each day, on its own disk.

Owns one small SQLite file. The agent is its only writer; commands read it, also while no worker runs. It decides
nothing and pays nothing: what is paid is in the coordinator's ledger. A disk that refuses the book costs a line in it,
never a shard.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from shardwork.why import Why

from ..log import say

FILE_NAME = "book.db"
#: lines that are kept; the oldest go first, never one that waits for its verdict
MOST_LINES = 20_000
WAIT_S = 5.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS shard (
    lease_id TEXT PRIMARY KEY, coordinator TEXT NOT NULL, recipe TEXT NOT NULL, phase TEXT NOT NULL,
    price_msat INTEGER NOT NULL CHECK (price_msat >= 0), work_units INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'paid', 'rejected', 'failed', 'given_back', 'lost')),
    paid_msat INTEGER NOT NULL CHECK (paid_msat >= 0), took_ms INTEGER NOT NULL, why TEXT NOT NULL, request BLOB
);
CREATE INDEX IF NOT EXISTS shard_at ON shard (at_ms);
CREATE TABLE IF NOT EXISTS traffic (day TEXT PRIMARY KEY, bytes INTEGER NOT NULL);
"""
COLUMNS = "lease_id, coordinator, recipe, phase, price_msat, work_units, at_ms, state, paid_msat, took_ms, why"

FORGET = (
    "DELETE FROM shard WHERE state <> 'pending' AND at_ms <"
    " (SELECT at_ms FROM shard ORDER BY at_ms DESC LIMIT 1 OFFSET ?)"
)
ADD_TRAFFIC = "INSERT INTO traffic VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET bytes = bytes + excluded.bytes"


class Fate(StrEnum):
    #: handed in, its verdict is not known
    PENDING = "pending"
    PAID = "paid"
    REJECTED = "rejected"
    #: this worker could not finish it
    FAILED = "failed"
    #: not taken, or given back before its end
    GIVEN_BACK = "given_back"
    #: the coordinator no longer counted on this worker
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One shard in the book."""

    lease_id: str
    #: SHA-256 of the authority of the coordinator that it came from
    coordinator: str
    recipe: str
    phase: str
    price_msat: int
    work_units: int
    #: of its last change
    at_ms: int
    state: Fate
    paid_msat: int = 0
    #: from taking it to its end here; 0: it was not taken
    took_ms: int = 0
    why: Why | None = None


class Book:
    """The file. Every method is quick and raises nothing for a disk that refuses."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._refused = False

    def note(self, line: Line, request: bytes = b"") -> None:
        """Keeps a line, or the newer state of one. `request` hands a pending one in again."""
        why = line.why.to_json() if line.why else ""
        values = (
            *(line.lease_id, line.coordinator, line.recipe, line.phase, line.price_msat, line.work_units, line.at_ms),
            *(line.state.value, line.paid_msat, line.took_ms, why, request or None),
        )
        self._write(
            (f"INSERT OR REPLACE INTO shard ({COLUMNS}, request) VALUES ({', '.join('?' * 12)})", values),
            (FORGET, (MOST_LINES - 1,)),
        )

    def find(self, lease_id: str) -> Line | None:
        found = self._lines("WHERE lease_id = ?", lease_id)
        return found[0] if found else None

    def since(self, at_ms: int) -> list[Line]:
        """Lines that changed from then on, newest first."""
        return self._lines("WHERE at_ms >= ? ORDER BY at_ms DESC, lease_id", at_ms)

    def newest(self, most: int) -> list[Line]:
        """The lines that changed last, newest first."""
        return self._lines("ORDER BY at_ms DESC, lease_id LIMIT ?", most)

    def pending(self, coordinator: str | None = None) -> list[Line]:
        """What waits for its verdict, oldest first; of one coordinator, or of all."""
        if coordinator is None:
            return self._lines("WHERE state = 'pending' ORDER BY at_ms")
        return self._lines("WHERE state = 'pending' AND coordinator = ? ORDER BY at_ms", coordinator)

    def request_of(self, lease_id: str) -> bytes:
        """What handed a pending lease in; empty when that is not kept."""
        rows = self._rows("SELECT request FROM shard WHERE lease_id = ?", lease_id)
        return rows[0][0] or b"" if rows else b""

    def paid_since(self, at_ms: int) -> int:
        """Msat of the shards that were paid from then on."""
        rows = self._rows("SELECT COALESCE(SUM(paid_msat), 0) FROM shard WHERE at_ms >= ?", at_ms)
        return int(rows[0][0]) if rows else 0

    def moved(self, day: str, count_bytes: int) -> None:
        """Adds to the bytes of a day, as "2026-11-27"."""
        self._write((ADD_TRAFFIC, (day, count_bytes)))

    def moved_on(self, day: str) -> int:
        rows = self._rows("SELECT bytes FROM traffic WHERE day = ?", day)
        return int(rows[0][0]) if rows else 0

    def _lines(self, rest: str, *values: object) -> list[Line]:
        return [
            Line(
                lease_id=row[0],
                coordinator=row[1],
                recipe=row[2],
                phase=row[3],
                price_msat=row[4],
                work_units=row[5],
                at_ms=row[6],
                state=Fate(row[7]),
                paid_msat=row[8],
                took_ms=row[9],
                why=Why.from_json(row[10]) if row[10] else None,
            )
            for row in self._rows(f"SELECT {COLUMNS} FROM shard {rest}", *values)
        ]

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Nothing, where there is no book yet or it can't be read."""
        if not self._path.exists():
            return []
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=WAIT_S)) as db:
                return db.execute(statement, values).fetchall()
        except sqlite3.Error:
            return []

    def _write(self, *statements: tuple[str, tuple[object, ...]]) -> None:
        """All of them or none."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self._path, timeout=WAIT_S)) as db, db:
                db.executescript(SCHEMA)
                self._path.chmod(0o600)
                for statement, values in statements:
                    db.execute(statement, values)
            self._refused = False
        except (sqlite3.Error, OSError) as error:
            if not self._refused:
                say(f"the book of shards can't be written, so `earnings` and `why` will miss some: {error}")
            self._refused = True
