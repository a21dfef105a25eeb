"""What pydantic found wrong in a job file, in plain words with the value as it was written and the way to mend it.

Owns the wording only; places are found by `shardwork.jobs.file`, which alone calls this. Pure.
"""

from __future__ import annotations

import json
import re
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
    "string_pattern_mismatch": "text of another form",
    "string_too_short": "at least {min_length} character long",
    "string_too_long": "at most {max_length} characters long",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
}
#: a mistake that says itself what was meant
_MEANT = re.compile(r"; did you mean '([^']+)'\?$")
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
        text = str(item["msg"]).removeprefix("Value error, ").partition("; did you mean")[0].rstrip(".")
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
    bound = _bound(items[0])
    if bound:
        return f"Write `{key}: {bound[0]}` or {bound[1]}."
    info = model.model_fields.get(key) if model else None
    if item["type"] == "value_error":
        meant = _MEANT.search(str(item["msg"]))
        if meant is not None:
            return f"Did you mean {meant[1]!r}?"
        place = f"`{key}`" if key else "it"  # a whole section has no key of its own
        return _named(item["input"], key) if key == "name" else f"Mend {place} as the sentence says."
    if info is not None and items[0]["type"].startswith("int_") and isinstance(info.default, int):
        return f"Write a whole number, as `{key}: {info.default}`."
    if info is not None and info.description:
        return f"{key}: {info.description}."
    return (
        f"Write `{key}: {{…}}` with keys among: {', '.join(known)}."
        if item["type"] == "model_type"
        else f"Write `{key}:` and below it, indented, lines as `key: value`."
        if item["type"] == "dict_type"
        else "Change it."
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
        # "500 sats" means 500; 2.5 means nothing
        words = str(value).removesuffix(".0").replace(",", "").split()
        is_number = bool(words) and words[0].isdecimal() and not any(word[0].isdecimal() for word in words[1:])
        return str(int(words[0])) if is_number else ""
    if kind.startswith("bool_") and isinstance(value, str):
        return _TRUTH.get(value.lower(), "")
    return ""


def _bound(item: Any) -> tuple[object, str] | None:
    """The nearest value that would be taken, and on which side the others are."""
    bounds: Mapping[str, Any] = item.get("ctx") or {}
    match item["type"]:
        case "greater_than_equal":
            return bounds["ge"], "more"
        case "less_than_equal":
            return bounds["le"], "less"
        case "less_than":
            return f"{float(bounds['lt']) * 0.2:g}", f"anything below {bounds['lt']:g}"
        case "greater_than":
            return None
        case _:
            return None


def _named(value: object, key: str) -> str:
    """A name like the one that was refused, for a value with letters that names may not hold."""
    text = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in str(value).lower())
    plain = "-".join(part for part in text.split("-") if part)[:40]
    return f"Write `{key}: {plain}`." if plain else "Write a short plain name."


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
