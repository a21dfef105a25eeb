"""Shape: whose file an object comes from, told by its keys, and what is to be done with it.

So that who names another program's file, or none, reads what it is and which command reads it. Pure. Called by the
readers of `exchange` and by whoever reads votes (`shardwork.client.feedback`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast


class Shape(StrEnum):
    PREFERENCES = "preferences"
    ARGILLA = "argilla"
    LABEL_STUDIO = "labelstudio"


#: what a row of each looks like, for who has none of them
EXPECTED = {
    Shape.PREFERENCES: 'Give rows as {"prompt": …, "chosen": …, "rejected": …}.',
    Shape.ARGILLA: (
        'Give records of Argilla 2 as dataset.records.to_json writes them: {"fields": {"prompt": …, "response_a": …, '
        '"response_b": …}, "responses": …}.'
    ),
    Shape.LABEL_STUDIO: (
        'Give tasks as Label Studio exports them as JSON, not as JSON-MIN or CSV: {"data": {"prompt": …, "answer1": …, '
        '"answer2": …}, "annotations": […]}.'
    ),
}


@dataclass(frozen=True, slots=True)
class Known:
    """What an object is, and what reads it."""

    what: str
    fix: str
    shape: Shape | None = None


def known(value: Mapping[str, Any]) -> Known | None:
    """None: nothing that Shardwork reads."""
    keys = set(value)
    if isinstance(value.get("fields"), dict):
        return Known("Argilla's records", _import("argilla"), Shape.ARGILLA)
    if isinstance(value.get("data"), dict):
        return Known("Label Studio's tasks", _import("label-studio"), Shape.LABEL_STUDIO)
    if {"chosen", "rejected"} <= keys:
        return Known("preference rows", _import("preferences"), Shape.PREFERENCES)
    if {"winner", "annotator", "model_a"} <= keys:
        return Known("votes", "They are read as they lie:  shardwork feedback ratings FILE")
    if {"prompt", "answers"} <= keys:
        return Known("answers without a judgement", "Ask people or a judge about them; recipes people and judge do.")
    return _wrapped(value)


def _import(program: str) -> str:
    return f"Bring them in:  shardwork feedback import FILE OUT --from {program}"


def _wrapped(value: Mapping[str, Any]) -> Known | None:
    """A list of objects under one key, as some exports have their records."""
    for key, held in value.items():
        each = cast("list[object]", held) if isinstance(held, list) else []
        if each and isinstance(each[0], dict) and known(cast("dict[str, Any]", each[0])) is not None:
            return Known(f"one object with a list at {key!r}", f"Write the list alone:  jq '.{key}' FILE > NEW.json")
    return None
