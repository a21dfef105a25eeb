# pyright: standard
"""Parquet through pyarrow, a batch at a time and only the columns that some format reads.

Owns what pyarrow refuses, and that pyarrow is an extra: a client that reads no Parquet never loads it, and a
coordinator never reads Parquet at all. Called by `source`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...problem import Problem
from ..line import Heard, Line, SourceFile, file_problem
from ..row import KEEPS_KEYS, READ_KEYS, reads

BATCH_ROWS = 1024


def parquet_rows(source: SourceFile, heard: Heard) -> Iterator[Line | Problem]:
    """Each row as an object, numbered from 1; columns that nothing reads are left in the file."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as pq
    except ImportError:
        fix = "Install the extra that holds it:  pip install 'shardwork[data]'"
        yield file_problem(source, "data.needs_extra", "Reading Parquet needs pyarrow, which is not installed.", fix)
        return
    number = 0
    try:
        with pq.ParquetFile(source.path) as file:
            names = list(file.schema_arrow.names)
            wanted = _wanted(source, file.schema_arrow)
            wrong = _column_problem(source, file.schema_arrow, wanted)
            if wrong is not None:
                yield wrong
                return
            # a column that nobody reads is told as any key is, but its values stay in the file
            unread = dict.fromkeys(name for name in names if name not in wanted)
            size = source.path.stat().st_size
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                for value in batch.to_pylist():
                    number += 1
                    yield Line(source, number, "", value={**value, **unread})
                heard(size * batch.num_rows // max(file.metadata.num_rows, 1))
    except (arrow.ArrowException, OSError, ValueError) as error:
        yield _broken(source, number, error)


def _wanted(source: SourceFile, schema: Any) -> list[str]:
    """Columns that a format or the mapping reads; all of them where there is none, so that the row can be named.

    Beside prompts every column stays with its row that JSON has a form for.
    """
    names: list[str] = list(schema.names)
    known = {*READ_KEYS, *source.mapping.values(), "input_ids", "history"}
    alone = not source.recipe and not (set(names) - {"prompt"}) & set(READ_KEYS)
    if ("prompt" in names or "text" in names) and (alone or any(reads(source.recipe, kind) for kind in KEEPS_KEYS)):
        known |= {name for name in names if names.count(name) == 1 and not _unwritable(schema.field(name).type)}
    return [name for name in names if name in known] or names


def _column_problem(source: SourceFile, schema: Any, wanted: list[str]) -> Problem | None:
    """A name that stands for two columns, of which one would be lost; or values that no row of text can hold."""
    twice = next((name for name in wanted if schema.names.count(name) > 1), None)
    if twice is not None:
        sentence = f"Two columns of the file are called {twice!r}."
        return file_problem(source, "data.bad_header", sentence, "Give every column a name of its own.", key=twice)
    for name in wanted if set(wanted) & set(READ_KEYS) or source.mapping else []:
        held = _unwritable(schema.field(name).type)
        if held:
            sentence = f"Column {name!r} holds values of type {held}, which are not text."
            fix = "Write the column as strings, or leave out the part that is none."
            return file_problem(source, "data.column_type", sentence, fix, key=name)
    return None


def _unwritable(kind: Any) -> str:
    """The type in it, however deep, that JSON has no form for; empty where there is none."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return _unwritable(kind.value_type)
    if types.is_nested(kind):
        inner = (_unwritable(kind.field(number).type) for number in range(kind.num_fields))
        return next((held for held in inner if held), "")
    plain = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_floating)
    is_plain = types.is_null(kind) or types.is_boolean(kind) or any(each(kind) for each in plain)
    return "" if is_plain else str(kind)


def _broken(source: SourceFile, number: int, error: Exception) -> Problem:
    if isinstance(error, FileNotFoundError):
        raise error
    reason: Any = str(error).strip().splitlines() or [type(error).__name__]
    where = f" after row {number:,}" if number else ""
    sentence = f"The Parquet file cannot be read{where}: {str(reason[0])[:160].rstrip('.')}."
    return file_problem(source, "data.bad_parquet", sentence, "Write the file again, and check that it is whole.")
