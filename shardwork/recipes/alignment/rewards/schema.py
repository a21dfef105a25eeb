"""Schema: the part of JSON Schema that rewards know, checked by our own few rules.

Owns type, enum, const, properties, required, additionalProperties, items, the bounds of numbers and lengths, pattern
and anyOf; any other keyword is refused when the job is planned, so that none is silently ignored. No references, so
that every check ends. Pure. Called by `verifiable`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ....errors import InvalidInput
from .pattern import Pattern

MOST_DEPTH = 32
MOST_PARTS = 1000
#: keywords that say something to people only
_ASIDE = frozenset({"title", "description", "$schema", "examples", "default"})
_TYPES: dict[str, Callable[[object], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: _is_number(value),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or cast("float", value).is_integer()),
}
_BOUNDS: dict[str, Callable[[float, float], bool]] = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
}
_LENGTHS = {
    "minLength": (str, _BOUNDS["minimum"]),
    "maxLength": (str, _BOUNDS["maximum"]),
    "minItems": (list, _BOUNDS["minimum"]),
    "maxItems": (list, _BOUNDS["maximum"]),
    "minProperties": (dict, _BOUNDS["minimum"]),
    "maxProperties": (dict, _BOUNDS["maximum"]),
}


def refuse(place: str, sentence: str) -> InvalidInput:
    return InvalidInput(
        "rewards.bad_schema",
        f"The schema's {place or 'root'} {sentence}.",
        next_step="Use type, enum, const, properties, required, additionalProperties, items, pattern, anyOf, bounds.",
        key="params.reward_settings",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema whose every keyword is known. Raises InvalidInput "rewards.bad_schema" when made."""

    types: tuple[str, ...] = ()
    #: enum or const
    allowed: tuple[object, ...] | None = None
    bounds: tuple[tuple[str, float], ...] = ()
    pattern: Pattern | None = None
    properties: Mapping[str, Schema] = field(default_factory=dict[str, "Schema"])
    required: tuple[str, ...] = ()
    #: of an object's other keys; False: there may be none
    others: Schema | bool = True
    items: Schema | None = None
    any_of: tuple[Schema, ...] = ()

    @classmethod
    def of(cls, value: object) -> Schema:
        return _made(value, "", 0, [0])

    def fits(self, value: Any) -> bool:
        if self.types and not any(_TYPES[name](value) for name in self.types):
            return False
        if self.allowed is not None and not any(_equal(value, one) for one in self.allowed):
            return False
        if not all(_within(value, name, bound) for name, bound in self.bounds):
            return False
        if self.pattern is not None and isinstance(value, str) and not self.pattern.matches(value):
            return False
        if isinstance(value, dict) and not self._fits_object(cast("dict[str, object]", value)):
            return False
        if isinstance(value, list) and self.items is not None:
            items = self.items
            if not all(items.fits(item) for item in cast("list[object]", value)):
                return False
        return not self.any_of or any(one.fits(value) for one in self.any_of)

    def _fits_object(self, value: dict[str, object]) -> bool:
        if any(name not in value for name in self.required):
            return False
        for name, item in value.items():
            known = self.properties.get(name)
            if known is not None:
                if not known.fits(item):
                    return False
            elif isinstance(self.others, bool):
                if not self.others:
                    return False
            elif not self.others.fits(item):
                return False
        return True


def _within(value: object, name: str, bound: float) -> bool:
    if name in _BOUNDS:
        return not _is_number(value) or _BOUNDS[name](cast("float", value), bound)
    kind, holds = _LENGTHS[name]
    return not isinstance(value, kind) or holds(len(cast("str", value)), bound)


def _equal(one: object, other: object) -> bool:
    """As JSON has it: 1 is 1.0, and neither is true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        ones, others = cast("list[object]", one), cast("list[object]", other)
        return len(ones) == len(others) and all(_equal(a, b) for a, b in zip(ones, others, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        first, second = cast("dict[str, object]", one), cast("dict[str, object]", other)
        return first.keys() == second.keys() and all(_equal(first[key], second[key]) for key in first)
    return one == other


# ---- reading a schema ---------------------------------------------------------------------------------------------


def _made(value: Any, place: str, depth: int, count: list[int]) -> Schema:
    count[0] += 1
    if depth > MOST_DEPTH or count[0] > MOST_PARTS:
        raise refuse(place, "nests too deep or has too many parts")
    if not isinstance(value, dict):
        raise refuse(place, "is no object")
    given = cast("dict[str, Any]", value)
    found: dict[str, Any] = {}
    bounds: list[tuple[str, float]] = []
    for key, item in given.items():
        here = f"{place}.{key}" if place else key
        if key in _BOUNDS or key in _LENGTHS:
            bounds.append((key, _bound(item, here)))
        elif key not in _ASIDE:
            name, made = _keyword(key, item, here, depth, count)
            found[name] = made
    return Schema(**found, bounds=tuple(bounds))


def _keyword(key: str, item: Any, place: str, depth: int, count: list[int]) -> tuple[str, Any]:
    match key:
        case "type":
            names = tuple(cast("list[object]", item)) if isinstance(item, list) else (item,)
            if not names or not all(isinstance(name, str) and name in _TYPES for name in names):
                raise refuse(place, f"is none of {', '.join(_TYPES)}")
            return "types", names
        case "enum" if isinstance(item, list):
            return "allowed", tuple(cast("list[object]", item))
        case "const":
            return "allowed", (item,)
        case "pattern" if isinstance(item, str):
            return "pattern", Pattern(item)
        case "required" if isinstance(item, list) and all(isinstance(name, str) for name in cast("list[object]", item)):
            return "required", tuple(cast("list[str]", item))
        case "properties" if isinstance(item, dict):
            named = cast("dict[str, object]", item).items()
            return "properties", {name: _made(one, f"{place}.{name}", depth + 1, count) for name, one in named}
        case "additionalProperties":
            return "others", item if isinstance(item, bool) else _made(item, place, depth + 1, count)
        case "items":
            return "items", _made(item, place, depth + 1, count)
        case "anyOf" if isinstance(item, list) and item:
            listed = enumerate(cast("list[object]", item))
            return "any_of", tuple(_made(one, f"{place}.{at}", depth + 1, count) for at, one in listed)
        case _:
            raise refuse(place, "is not known or has a wrong value")


def _bound(value: object, place: str) -> float:
    if not _is_number(value) or not math.isfinite(cast("float", value)):
        raise refuse(place, "is no number")
    return cast("float", value)
