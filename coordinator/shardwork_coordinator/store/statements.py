"""Statements: the SQL of the store, built with SQLAlchemy, compiled once per shape and run on the driver's own cursor.

Running through SQLAlchemy costs some 50 microseconds a statement, twenty times what SQLite itself needs, and the one
writer thread pays it for everybody. Owns building, compiling and the translation between rows and records; `sql` owns
transactions. Portable between SQLite and PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import (
    ClauseElement,
    Dialect,
    Insert,
    Integer,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    false,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ColumnElement

from ..records import RECORDS, Event, Record
from .base import R
from .columns import Query, columns, is_unique, table_name
from .tables import TABLES

#: shapes of `find` and `count` kept compiled; the program has some dozens, and one for each size of a set
SHAPES_MAX = 1000
#: sets up to here are filled up to a power of two, so that one that grows and shrinks is not compiled each time
LARGEST_FILLED = 8_192


class Statement:
    """One compiled statement; parameters are given by name whatever the driver's style."""

    def __init__(self, built: ClauseElement, dialect: Dialect) -> None:
        compiled = cast(Any, built.compile(dialect=dialect))
        self._sql: str = compiled.string
        #: order of the names for a driver that counts its parameters
        self._order: Sequence[str] | None = compiled.positiontup
        self._constants: dict[str, Any] = dict(compiled.params)

    def run(self, cursor: Any, parameters: Mapping[str, Any]) -> None:
        values = {**self._constants, **parameters}
        order = self._order
        cursor.execute(self._sql, values if order is None else tuple([values[name] for name in order]))


class _OfKind:
    """The fixed statements of one record class; columns are parameters by their name, the key as "key_<name>"."""

    def __init__(self, kind: type[Record], dialect: Dialect) -> None:
        table = TABLES[kind]
        self.get = Statement(select(table).where(_is_key(kind)), dialect)
        self.insert = Statement(_insert_or_nothing(table, dialect), dialect)
        self.update = Statement(_update(kind), dialect)
        self.unique = {names: Statement(_holder_of(kind, names), dialect) for names in kind.UNIQUE}


class Statements:
    """All statements for one database, compiled when first needed."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._kinds: dict[type[Record], _OfKind] = {}
        self._shapes: dict[tuple[object, ...], Statement] = {}
        counted = TABLES[Event].c.sequence
        values = [name for name in columns(Event) if name != "sequence"]
        built = insert(TABLES[Event]).values({name: bindparam(name) for name in values}).returning(counted)
        #: inserts an event and returns the number that the database gave it
        self.insert_event = Statement(built, dialect)

    def of(self, kind: type[Record]) -> _OfKind:
        found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = _OfKind(kind, self._dialect)
        return found

    def find(self, query: Query) -> Statement:
        shape = (*_shape(query), query.order, query.descending, query.limit is None, query.after is None)
        return self._shaped(shape, lambda: _select(query))

    def pick(self, query: Query, names: tuple[str, ...]) -> Statement:
        shape = (*_shape(query), query.order, query.descending, query.limit is None, query.after is None, names)
        return self._shaped(shape, lambda: _select(query, names))

    def count(self, query: Query, by: str) -> Statement:
        return self._shaped((*_shape(query), "count", by), lambda: _count(query, by))

    def _shaped(self, shape: tuple[object, ...], build: Callable[[], ClauseElement]) -> Statement:
        found = self._shapes.get(shape)
        if found is None:
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            found = self._shapes[shape] = Statement(build(), self._dialect)
        return found


def query_parameters(query: Query) -> dict[str, Any]:
    """What a statement from `find`, `pick` or `count` needs to run this query."""
    values: dict[str, Any] = {"_limit": query.limit, "_after": query.after}
    for name, match in query.equals.items():
        if isinstance(match, frozenset):
            members = list(match)
            # one of them again and again changes nothing
            members += members[:1] * (_room(match) - len(members))
            values |= {f"{name}_{place}": member for place, member in enumerate(members)}
        else:
            values[name] = plain(match)
    return values


def key_parameters(kind: type[Record], key: tuple[Any, ...]) -> dict[str, Any]:
    return {f"key_{name}": value for name, value in zip(kind.KEY, key, strict=True)}


def _readers(kind: type[Record]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    found = columns(kind).values()
    return tuple((column.name, column.read) for column in found if column.read is not None)


_NAMES = {kind: tuple(columns(kind)) for kind in RECORDS}
_READERS = {kind: _readers(kind) for kind in RECORDS}
_ENUMS = {kind: tuple(name for name, column in columns(kind).items() if column.choices) for kind in RECORDS}


def record_of(kind: type[R], row: Sequence[Any]) -> R:
    values = dict(zip(_NAMES[kind], row, strict=True))
    for name, read in _READERS[kind]:
        values[name] = read(values[name])
    return kind(**values)


def values_of(record: Record) -> dict[str, Any]:
    kind = type(record)
    values = {name: getattr(record, name) for name in _NAMES[kind]}
    for name in _ENUMS[kind]:
        values[name] = values[name].value
    return values


def plain(value: Any) -> Any:
    """An enum as its text; drivers differ in what they make of one."""
    return str(value) if isinstance(value, str) else value


def _is_key(kind: type[Record]) -> ColumnElement[bool]:
    return and_(*(TABLES[kind].c[name] == bindparam(f"key_{name}") for name in kind.KEY))


def _insert_or_nothing(table: Table, dialect: Dialect) -> Insert:
    """An insert that a duplicate turns into no row instead of an error, which would end PostgreSQL's transaction."""
    values: dict[str, Any] = {column.name: bindparam(column.name) for column in table.columns}
    if dialect.name == "postgresql":
        return postgresql.insert(table).values(values).on_conflict_do_nothing()
    return sqlite.insert(table).values(values).on_conflict_do_nothing()


def _update(kind: type[Record]) -> Update:
    others: dict[str, Any] = {name: bindparam(name) for name in columns(kind) if name not in kind.KEY}
    return update(TABLES[kind]).where(_is_key(kind)).values(others)


def _holder_of(kind: type[Record], names: tuple[str, ...]) -> Select[Any]:
    """The key of another row that has this unique set."""
    table = TABLES[kind]
    same = [table.c[name] == bindparam(name) for name in names]
    key = [table.c[name] for name in kind.KEY]
    own: list[ColumnElement[Any]] = [bindparam(f"key_{name}") for name in kind.KEY]
    return select(*key).where(*same, tuple_(*key) != tuple_(*own))


def _room(members: frozenset[Any]) -> int:
    """How many parameters a set takes."""
    count = len(members)
    return count if count > LARGEST_FILLED or not count else 1 << (count - 1).bit_length()


def _shape(query: Query) -> tuple[object, ...]:
    """What tells two statements apart, whatever the values."""
    kinds = [_room(match) if isinstance(match, frozenset) else match is None for match in query.equals.values()]
    return (table_name(query.kind), *zip(query.equals, map(str, kinds), strict=True))


def _select(query: Query, names: Sequence[str] = ()) -> Select[Any]:
    """Of these columns; of all when none is named."""
    table = TABLES[query.kind]
    wanted = [table.c[name] for name in names] if names else list(table.c)
    built = select(*wanted).where(*_conditions(query)).order_by(*_ordering(query))
    return built if query.limit is None else built.limit(bindparam("_limit", type_=Integer))


def _count(query: Query, by: str) -> Select[Any, int]:
    column = TABLES[query.kind].c[by]
    return select(column, func.count()).where(*_conditions(query)).group_by(column)


def _conditions(query: Query) -> list[ColumnElement[bool]]:
    table = TABLES[query.kind]
    wanted: list[ColumnElement[bool]] = []
    for name, match in query.equals.items():
        found: ColumnElement[Any] = table.c[name]
        if isinstance(match, frozenset):
            members = [bindparam(f"{name}_{place}", type_=found.type) for place in range(_room(match))]
            wanted.append(found.in_(members) if members else false())
        else:
            wanted.append(found.is_(None) if match is None else found == bindparam(name))
    if query.order is not None and query.after is not None:
        ordered: ColumnElement[Any] = table.c[query.order]
        start = bindparam("_after", type_=ordered.type)
        wanted.append(ordered < start if query.descending else ordered > start)
    return wanted


def _ordering(query: Query) -> list[ColumnElement[Any]]:
    table = TABLES[query.kind]
    names = [] if query.order is None else [query.order]
    if query.order is None or not is_unique(query.kind, query.order):
        names += [name for name in query.kind.KEY if name != query.order]
    return [_direction(table.c[name], query.descending) for name in names]


def _direction(found: ColumnElement[Any], descending: bool) -> ColumnElement[Any]:
    """A missing value sorts first, and last when descending: SQLite's way, said aloud for the others."""
    ordered = found.desc() if descending else found.asc()
    if not cast(Any, found).nullable:
        return ordered
    return ordered.nulls_last() if descending else ordered.nulls_first()
