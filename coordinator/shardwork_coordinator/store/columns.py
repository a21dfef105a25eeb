"""Columns: what a record class says about its table, and a query checked against it.

Owns the one reading of `records` that both stores and the SQL tables share, so that a query means the same on each:
names and types are checked here, rows come in key order unless told otherwise, and a missing value sorts first.
Owns no storage. Used by `memory`, `sql`, `tables` and `rules`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from types import UnionType
from typing import Any, get_args, get_type_hints

from shardwork.errors import Internal

from ..records import RECORDS, DepositRow, Record
from .base import Match

#: SQL integers are 64 bits; 21 million bitcoin in msat need 62
INT_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    #: str, int, float, bool, bytes or a StrEnum
    type: type
    nullable: bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts an enum column may hold; empty for other columns."""
        return tuple(str(member) for member in self.type) if issubclass(self.type, StrEnum) else ()

    @property
    def read(self) -> Callable[[Any], Any] | None:
        """What makes a value of what a driver gives back plainer: enums as text, SQLite's booleans as numbers."""
        return self.type if self.choices or self.type is bool else None

    def accepts(self, value: object) -> bool:
        """Whether a row may hold this value."""
        if value is None:
            return self.nullable
        if self.type is int:
            return type(value) is int and -INT_MAX <= value <= INT_MAX
        if self.type is float:
            # SQLite keeps NaN as NULL, so that no store may take one
            return isinstance(value, int | float) and not isinstance(value, bool) and value == value
        return isinstance(value, self.type) and can_be(value)


def can_be(value: object) -> bool:
    """Whether any row could hold this: PostgreSQL's text takes no zero byte and no integer beyond 64 bits, so that no
    store may."""
    if isinstance(value, str):
        return "\0" not in value
    return not isinstance(value, int) or -INT_MAX <= value <= INT_MAX


def _read_columns(kind: type[Record]) -> dict[str, Column]:
    hints = get_type_hints(kind)
    return {field.name: _column(field.name, hints[field.name]) for field in fields(kind)}


def _column(name: str, hint: Any) -> Column:
    if isinstance(hint, UnionType):
        (inner,) = (part for part in get_args(hint) if part is not type(None))
        return Column(name, inner, True)
    return Column(name, hint, False)


_COLUMNS = {kind: _read_columns(kind) for kind in RECORDS}


def columns(kind: type[Record]) -> Mapping[str, Column]:
    """The columns of a record class by name, in field order."""
    return _COLUMNS[kind]


def column(kind: type[Record], name: str) -> Column:
    """The named column. Raises Internal "store.unknown_column"."""
    found = columns(kind).get(name)
    if found is None:
        near = difflib.get_close_matches(name, columns(kind), n=1)
        raise Internal("store.unknown_column", f"{kind.__name__} has no column {name}.", nearest="".join(near))
    return found


def table_name(kind: type[Record]) -> str:
    """ "party", "job", …; DepositRow is "deposit"."""
    return "deposit" if kind is DepositRow else kind.__name__.lower()


def key_of(record: Record) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in record.KEY)


def is_unique(kind: type[Record], name: str) -> bool:
    """Whether this column alone tells rows apart."""
    return (name,) == kind.KEY or (name,) in kind.UNIQUE


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What `find` was asked, checked. Rows without a value in `order` never lie beyond `after`."""

    kind: type[Record]
    order: str | None
    descending: bool
    limit: int | None
    after: str | int | None
    equals: Mapping[str, Match]

    @classmethod
    def of(
        cls,
        kind: type[Record],
        equals: Mapping[str, Match],
        *,
        order: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        after: str | int | None = None,
    ) -> Query:
        if after is not None and order is None:
            raise Internal("store.after_without_order", "`after` needs `order`.", kind=kind.__name__)
        if limit is not None and limit < 0:
            raise Internal("store.bad_limit", "`limit` can't be negative.", limit=limit)
        if order is not None:
            _check_value(kind, order, after)
        checked = {name: _checked_match(kind, name, match) for name, match in equals.items()}
        return cls(kind=kind, order=order, descending=descending, limit=limit, after=after, equals=checked)

    @property
    def is_impossible(self) -> bool:
        """Whether it asks for a value that no row can hold."""
        return not all(map(can_be, self.equals.values()))

    def matches(self, record: Record) -> bool:
        """Whether the record passes the filters, without `after`."""
        for name, wanted in self.equals.items():
            value = getattr(record, name)
            if value not in wanted if isinstance(wanted, frozenset) else value != wanted:
                return False
        return True


def _checked_match(kind: type[Record], name: str, match: Match) -> Match:
    if isinstance(match, Collection) and not isinstance(match, str | bytes):
        for member in match:
            _check_value(kind, name, member)
        return frozenset(str(member) for member in match if can_be(member))
    _check_value(kind, name, match)
    return match


def _check_value(kind: type[Record], name: str, value: object) -> None:
    found = column(kind, name)
    wanted = str if found.choices else found.type
    if value is None or isinstance(value, wanted) or (wanted is float and isinstance(value, int)):
        return
    raise Internal(
        "store.bad_match", f"{kind.__name__}.{name} can't be compared with this type.", type=type(value).__name__
    )
