"""Rules: which settings are rules of the house, what each may be, and a value read from somebody's text.

Owns no value: types, bounds, meanings and defaults are those of `settings`. Used by `changes`, the dashboard and the
operator's commands.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import annotated_types
from pydantic import TypeAdapter, ValidationError

from shardwork.errors import InvalidInput, NotFound

from ..settings import Settings

Value = bool | int | float | str

#: as they are shown
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Who may come": ("intake", "public_page"),
    "Prices": ("msat_per_tera_unit", "minimum_shard_msat", "fee_basis_points"),
    "Fair shares": ("max_open_jobs", "max_running_shards"),
    "Payouts": ("payout_threshold_sats",),
    "Models": ("hub_allow",),
    "Storage": ("keep_days", "keep_outputs_days", "owner_quota_gib", "upload_quota_gib"),
}
#: when a change reaches what is there already
EFFECTS: Mapping[str, str] = {
    "Who may come": "At once.",
    "Prices": "For jobs submitted from then on. Those that run keep the rates of their plan.",
    "Fair shares": "For the next job, and for the next shard that is given out.",
    "Payouts": "With the next sweep, within a second.",
    "Models": "For the next model that is asked for. What was copied stays until it is out of use.",
    "Storage": "With the next sweep, within ten minutes; quotas at the next upload.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    name: str
    group: str
    meaning: str
    #: of a coordinator that was told nothing
    default: Value
    #: "a whole number from 1 to 1,000,000"
    bounds: str
    #: the values of a rule that has only a few
    choices: tuple[str, ...] = ()
    is_number: bool = False


def rules() -> tuple[Rule, ...]:
    return tuple(rule(name) for names in GROUPS.values() for name in names)


@cache
def rule(name: str) -> Rule:
    """Raises NotFound "policy.unknown_rule"."""
    group = next((title for title, names in GROUPS.items() if name in names), None)
    if group is None:
        names = [one for names in GROUPS.values() for one in names]
        near = difflib.get_close_matches(name, names, n=1)
        raise NotFound(
            "policy.unknown_rule",
            f"There is no rule {name[:40]!r}.",
            next_step=f"Did you mean {near[0]}?" if near else f"One of {', '.join(names)}.",
        )
    field = Settings.model_fields[name]
    return Rule(
        name=name,
        group=group,
        meaning=field.description or "",
        default=field.default,
        bounds=_bounds(name),
        choices=_choices(field.annotation),
        is_number=_type(name) in (int, float),
    )


def parsed(name: str, given: object) -> Value:
    """The value of a rule, from text or JSON. Raises InvalidInput "policy.bad_value", which names the bounds."""
    found = rule(name)
    try:
        value: Value = _adapter(name).validate_python(given.strip() if isinstance(given, str) else given)
    except ValidationError:
        raise _bad(found, given) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _bad(found, given)
    return " ".join(value.split()) if isinstance(value, str) else value


def shown(value: Value) -> str:
    """As people write it, and as `parsed` reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _bad(found: Rule, given: object) -> InvalidInput:
    return InvalidInput(
        "policy.bad_value",
        f"{found.name} is {found.bounds}; {str(given)[:60]!r} is not.",
        next_step="Give another value; nothing was changed.",
        rule=found.name,
    )


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    metadata = Settings.model_fields[name].metadata
    return TypeAdapter(cast(Any, Annotated)[(_type(name), *metadata)] if metadata else _type(name))


def _type(name: str) -> Any:
    return Settings.model_fields[name].annotation


def _choices(annotation: Any) -> tuple[str, ...]:
    if annotation is bool:
        return ("true", "false")
    return tuple(str(one) for one in get_args(annotation)) if get_origin(annotation) is Literal else ()


def _bounds(name: str) -> str:
    field = Settings.model_fields[name]
    if choices := _choices(field.annotation):
        return " or ".join(choices)
    if field.annotation is str:
        return "patterns of ORG/NAME with spaces between, of letters, digits and ._-*?[]!"
    what, words = "a whole number" if field.annotation is int else "a number", list[str]()
    for one in field.metadata:
        match one:
            case annotated_types.Ge(ge=least):
                words.append(f"from {least:,}")
            case annotated_types.Gt(gt=below):
                words.append(f"above {below:,} and up")
            case annotated_types.Le(le=most):
                words.append(f"to {most:,}")
            case _:
                pass
    return " ".join([what, *words])
