"""MemoryStore: the Store in dictionaries, for unit tests and dry runs. Nothing survives the process.

Follows the same contract suite as `sql`. Works run under one lock, in the caller's thread; a failing work is undone.
"""

from __future__ import annotations

import heapq
import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, cast

from shardwork.errors import Internal

from ..records import RECORDS, Event, Record
from .base import Match, R, T
from .columns import Query, column, columns, is_unique, key_of
from .rules import check_record, check_replace, duplicate

Key = tuple[Any, ...]


class _Table:
    """Rows of one kind by key, with an index per unique set and a sorted list per unique number."""

    def __init__(self, kind: type[Record]) -> None:
        self.kind = kind
        self.rows: dict[Key, Record] = {}
        self.unique: dict[tuple[str, ...], dict[Key, Key]] = {names: {} for names in kind.UNIQUE}
        numbers = [name for name, found in columns(kind).items() if is_unique(kind, name) and found.type is int]
        #: without them the ledger's next sequence would cost a scan per transfer
        self.sorted: dict[str, list[int]] = {name: [] for name in numbers}

    def holder(self, record: Record, names: tuple[str, ...]) -> Key | None:
        """Key of the row that has this unique set; a set with a missing value never clashes."""
        values = tuple(getattr(record, name) for name in names)
        return None if None in values else self.unique[names].get(values)

    def set(self, key: Key, record: Record | None) -> Record | None:
        """Puts or removes the row and returns the one before."""
        old = self.rows.pop(key, None)
        if old is not None:
            self._unindex(old)
        if record is not None:
            self.rows[key] = record
            self._index(key, record)
        return old

    def _index(self, key: Key, record: Record) -> None:
        for names, index in self.unique.items():
            values = tuple(getattr(record, name) for name in names)
            if None not in values:
                index[values] = key
        for name, numbers in self.sorted.items():
            insort(numbers, getattr(record, name))

    def _unindex(self, record: Record) -> None:
        for names, index in self.unique.items():
            index.pop(tuple(getattr(record, name) for name in names), None)
        for name, numbers in self.sorted.items():
            del numbers[bisect_left(numbers, getattr(record, name))]

    def find(self, query: Query) -> list[Record]:
        direct = self._direct(query)
        if direct is not None:
            return _ordered(direct, query)
        if query.order in self.sorted:
            return list(islice(self._walk(query), query.limit))
        return _ordered([row for row in self.rows.values() if query.matches(row)], query)

    def _direct(self, query: Query) -> list[Record] | None:
        """The at most one row of a query that gives a whole key or unique set; None when it gives neither."""
        for names in (self.kind.KEY, *self.kind.UNIQUE):
            values = tuple(query.equals.get(name) for name in names)
            if None in values or any(isinstance(value, frozenset) for value in values):
                continue
            key = values if names == self.kind.KEY else self.unique[names].get(values)
            row = self.rows.get(key) if key is not None else None
            return [row] if row is not None and query.matches(row) else []
        return None

    def _walk(self, query: Query) -> Iterable[Record]:
        """Matching rows along a sorted unique number."""
        name = cast(str, query.order)
        numbers = self.sorted[name]
        first, last = 0, len(numbers)
        if query.after is not None:
            after = cast(int, query.after)
            first, last = (0, bisect_left(numbers, after)) if query.descending else (bisect_right(numbers, after), last)
        span = range(last - 1, first - 1, -1) if query.descending else range(first, last)
        for position in span:
            value = (numbers[position],)
            row = self.rows[value if (name,) == self.kind.KEY else self.unique[(name,)][value]]
            if query.matches(row):
                yield row


def _ordered(rows: list[Record], query: Query) -> list[Record]:
    """The rows beyond `after`, sorted by `order` and then by key, cut at the limit; a missing value sorts first."""
    order, after = query.order, query.after

    def beyond(row: Record) -> bool:
        value = getattr(row, cast(str, order))
        return value is not None and (value < after if query.descending else value > after)

    def rank(row: Record) -> Any:
        if order is None:
            return key_of(row)
        value = getattr(row, order)
        return (value is not None, value, key_of(row)) if value is not None else (False, key_of(row))

    kept = rows if after is None else [row for row in rows if beyond(row)]
    if query.limit is None:
        return sorted(kept, key=rank, reverse=query.descending)
    pick = heapq.nlargest if query.descending else heapq.nsmallest
    return pick(query.limit, kept, key=rank)


class MemoryTransaction:
    """One unit of work over the tables; remembers what it replaced so that it can be undone."""

    def __init__(self, tables: dict[type[Record], _Table], *, read_only: bool) -> None:
        self._tables = tables
        self._read_only = read_only
        self._undo: list[tuple[_Table, Key, Record | None]] = []

    def get(self, kind: type[R], *key: str | int) -> R | None:
        return cast("R | None", self._tables[kind].rows.get(key))

    def find(
        self,
        kind: type[R],
        /,
        *,
        order: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        after: str | int | None = None,
        **equals: Match,
    ) -> list[R]:
        query = Query.of(kind, equals, order=order, descending=descending, limit=limit, after=after)
        return cast("list[R]", self._tables[kind].find(query))

    def pick(
        self,
        kind: type[Record],
        names: Sequence[str],
        /,
        *,
        order: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        after: str | int | None = None,
        **equals: Match,
    ) -> list[tuple[Any, ...]]:
        for name in names:
            column(kind, name)
        query = Query.of(kind, equals, order=order, descending=descending, limit=limit, after=after)
        return [tuple([getattr(row, name) for name in names]) for row in self._tables[kind].find(query)]

    def count(self, kind: type[Record], by: str, /, **equals: Match) -> dict[str, int]:
        column(kind, by)
        totals: dict[str, int] = {}
        for row in self._tables[kind].find(Query.of(kind, equals)):
            value = getattr(row, by)
            text = "" if value is None else str(value)
            totals[text] = totals.get(text, 0) + 1
        return totals

    def insert(self, record: R) -> R:
        self._check_write(record)
        table = self._tables[type(record)]
        stored: Record = record
        if isinstance(record, Event) and record.sequence == 0:
            numbers = table.sorted["sequence"]
            stored = replace(record, sequence=numbers[-1] + 1 if numbers else 1)
        if key_of(stored) in table.rows:
            raise duplicate(stored)
        self._check_unique(table, stored)
        self._set(table, stored)
        return cast("R", stored)

    def put(self, record: Record) -> None:
        self._check_write(record)
        table = self._tables[type(record)]
        old = table.rows.get(key_of(record))
        if old is None:
            self.insert(record)
            return
        check_replace(old)
        self._check_unique(table, record)
        self._set(table, record)

    def undo(self) -> None:
        for table, key, old in reversed(self._undo):
            table.set(key, old)

    def _check_write(self, record: Record) -> None:
        if self._read_only:
            raise Internal("store.read_only", "A reading transaction can't write.", kind=type(record).__name__)
        check_record(record)

    def _check_unique(self, table: _Table, record: Record) -> None:
        for names in table.unique:
            if table.holder(record, names) not in (None, key_of(record)):
                raise duplicate(record, names)

    def _set(self, table: _Table, record: Record) -> None:
        key = key_of(record)
        self._undo.append((table, key, table.set(key, record)))


class MemoryStore:
    """The Store in this process's memory."""

    def __init__(self) -> None:
        self._tables = {kind: _Table(kind) for kind in RECORDS}
        # works may come from loops in several threads
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        self._closed = False

    async def write(self, work: Callable[[MemoryTransaction], T]) -> T:
        with self._lock:
            self._check_open()
            transaction = MemoryTransaction(self._tables, read_only=False)
            try:
                return work(transaction)
            except BaseException:
                transaction.undo()
                raise

    async def read(self, work: Callable[[MemoryTransaction], T]) -> T:
        with self._lock:
            self._check_open()
            return work(MemoryTransaction(self._tables, read_only=True))

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise Internal("store.closed", "The store is closed.")
