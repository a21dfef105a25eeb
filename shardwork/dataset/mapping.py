"""Mapping: a job's `mapping` of our keys to a file's own, applied to a row.

Owns renaming and naming the nearest key where the file has none of that name. Called by `rows` for each row and by
`jobs.spec` for the names on our side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..problem import Problem, suggest
from .line import Line, problem
from .row import KEYS, READ_KEYS

#: keys that a row can do without
_OPTIONAL = frozenset(READ_KEYS) - {key for keys in KEYS.values() for key in keys}


def renamed(line: Line, value: dict[str, Any]) -> dict[str, Any] | Problem:
    """The row under our names; a key that the mapping took away is gone, every other stays.

    A mapped key that the row lacks is a problem, unless a row of its format can do without it.
    """
    mapping = line.origin.mapping
    taken = set(mapping.values())
    found = {key: item for key, item in value.items() if key not in taken and key not in mapping}
    for ours, theirs in mapping.items():
        if theirs in value:
            found[ours] = value[theirs]
        elif ours not in _OPTIONAL:
            sentence = f"The mapping reads {ours!r} from {theirs!r}, which this row does not have."
            return problem(line, theirs, "data.unmapped_key", sentence, suggest(theirs, value))
    return found


def unknown_name(mapping: Mapping[str, str]) -> tuple[str, str] | None:
    """(the first name on our side that no format reads, what to do), or None."""
    wrong = next((name for name in mapping if name not in READ_KEYS), None)
    return None if wrong is None else (wrong, suggest(wrong, READ_KEYS))
