"""What pydantic found wrong in a job file, in plain words with the value as it was written and the way to mend it.

Owns the wording only; places are found by `shardwork.jobs.file`, which alone calls this. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from ..problem import nearest, suggest

#: pydantic's kinds of error -> what the value must be; {…} are the error's own bounds
_NEEDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_too_short": "at least {min_length} character long",
    "string_too_long": "at most {max_length} characters long",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
}
#: words that older YAML reads as truth values; here they are text, so that `name: on` is a name
_TRUTH = {**dict.fromkeys(("on", "yes", "y"), "true"), **dict.fromkeys(("off", "no", "n"), "false")}


def code_of(kind: str) -> str:
    if kind == "extra_forbidden":
        return "jobfile.unknown_key"
    if kind == "missing":
        return "jobfile.missing_key"
    if kind.endswith("_type") or kind in {"int_from_float", "int_parsing", "float_parsing"}:
        return "jobfile.wrong_type"
    return "jobfile.wrong_value"


def sentence_of(items: Sequence[Any], key: str) -> str:
    """One sentence about one value; several items are the branches of a union, e.g. a number or 'auto'."""
    item = items[0]
    if item["type"] == "extra_forbidden":
        return f"There is no key {key!r} here."
    if item["type"] == "missing":
        return "A required key is missing."
    if item["type"] == "value_error":
        text = str(item["msg"]).removeprefix("Value error, ").rstrip(".")
        return f"{text[:1].upper()}{text[1:]}."
    needs = " or ".join(dict.fromkeys(_need(each) for each in items))
    return f"{key!r} must be {needs}, but is {_shown(item['input'])}."


def fix_of(items: Sequence[Any], key: str, known: Sequence[str], model: type[BaseModel] | None = None) -> str:
    """What to write instead. `model` describes the parameters of a recipe."""
    item = items[-1]
    if item["type"] == "extra_forbidden":
        return suggest(key, known)
    if item["type"] == "missing":
        return f"Add `{key}:`."
    if item["type"] == "literal_error" and len(items) == 1:
        expected = str(item["ctx"]["expected"])
        near = nearest(str(item["input"]), [part.strip("' ") for part in expected.replace(" or ", ",").split(",")])
        return f"Did you mean {near!r}?" if near else f"Use {expected}."
    instead = _instead(items[0]["type"], items[0]["input"])
    if instead:
        return f"Write `{key}: {instead}`."
    info = model.model_fields.get(key) if model else None
    if info is not None and info.description:
        return f"{key}: {info.description}."
    return (
        f"Write `{key}: {{…}}` with keys among: {', '.join(known)}." if item["type"] == "model_type" else "Change it."
    )


def _need(item: Any) -> str:
    words = _NEEDS.get(item["type"])
    if words is None:
        return str(item["msg"]).removeprefix("Input should be ").rstrip(".")
    bounds: Mapping[str, Any] = item.get("ctx") or {}
    return words.format(**{name: _number(value) for name, value in bounds.items()})


def _number(value: object) -> object:
    return f"{value:,}" if isinstance(value, int) else value


def _instead(kind: str, value: object) -> str:
    """The value as it should have been written, where its meaning is plain."""
    if kind == "string_type" and isinstance(value, (int, float)):
        return json.dumps(json.dumps(value))
    if kind.startswith("int_") and isinstance(value, (str, float)):
        text = str(value).removesuffix(".0")
        return str(int(text)) if text.isdecimal() else ""
    if kind.startswith("bool_") and isinstance(value, str):
        return _TRUTH.get(value.lower(), "")
    return ""


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
