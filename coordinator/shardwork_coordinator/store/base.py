"""The store's Protocol: transactions over records, one writer thread, answers after commit.

Two implementations follow it and pass one contract suite (`tests/coordinator/store`): `memory` and `sql` (SQLite now,
PostgreSQL later). Owns no rules: the machine and the ledger decide, the store keeps. Called by handlers and sweepers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

from ..records import Record

R = TypeVar("R", bound=Record)
T = TypeVar("T")

#: a column must equal the value, or be one of the collection's values
Match = str | int | float | bytes | bool | None | Collection[str]


class Transaction(Protocol):
    """What one unit of work may do. Everything it wrote becomes durable together, or not at all."""

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """The record with this primary key."""
        ...

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
        """Records whose columns match; `after` needs `order`: strictly beyond that value in that direction."""
        ...

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
        """Only these columns of what `find` would give: for thousands of rows whose large texts nobody looks at."""
        ...

    def count(self, kind: type[Record], by: str, /, **equals: Match) -> dict[str, int]:
        """Number of matching records per value of the column `by`."""
        ...

    def insert(self, record: R) -> R:
        """Adds it. Raises `Conflict` (code "store.duplicate") when its key or a unique set exists. Event.sequence 0 is
        replaced by the next number, and the record as stored is returned."""
        ...

    def put(self, record: Record) -> None:
        """Inserts or replaces by key. Transfers, events and ended leases can't be replaced ("store.append_only")."""
        ...


class Store(Protocol):
    def start(self) -> None:
        """Opens, migrates and starts the writer thread."""
        ...

    def write(self, work: Callable[[Transaction], T]) -> Awaitable[T]:
        """Runs `work` on the writer thread, perhaps in one commit with others. Resolves after the commit is durable; an
        exception of `work` leaves nothing behind and is raised to its caller only. `work` must have no side effects
        outside the transaction: a failing group is rolled back and each member is run again on its own."""
        ...

    def read(self, work: Callable[[Transaction], T]) -> Awaitable[T]:
        """Runs `work` on a consistent snapshot on a reader thread; its writes are refused ("store.read_only")."""
        ...

    def close(self) -> None:
        """Finishes queued work and stops. Idempotent."""
        ...
