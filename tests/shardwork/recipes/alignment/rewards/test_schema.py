"""Our part of JSON Schema: what fits, what does not, and that no keyword is ignored in silence."""

from __future__ import annotations

from typing import Any

import pytest

from shardwork.errors import InvalidInput
from shardwork.recipes.alignment.rewards.schema import Schema

PERSON: dict[str, Any] = {
    "title": "a person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[A-Z]"},
        "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 200},
        "tags": {"type": "array", "items": {"enum": ["a", 1, None]}, "minItems": 1, "maxItems": 3},
        "more": {"anyOf": [{"type": "null"}, {"const": [1, {"x": 2}]}]},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"name": "Ada"}, True),
        ({"name": "Ada", "age": 36.0, "tags": ["a", 1.0, None], "more": [1.0, {"x": 2}]}, True),
        ({"name": "Ada", "more": None}, True),
        ({}, False),
        ([], False),
        ({"name": "ada"}, False),
        ({"name": ""}, False),
        ({"name": "Augusta"}, False),
        ({"name": "Ada", "age": 36.5}, False),
        ({"name": "Ada", "age": True}, False),
        ({"name": "Ada", "age": 200}, False),
        ({"name": "Ada", "age": -1}, False),
        ({"name": "Ada", "tags": []}, False),
        ({"name": "Ada", "tags": [True]}, False),
        ({"name": "Ada", "tags": ["b"]}, False),
        ({"name": "Ada", "more": [1, {"x": 2}, 3]}, False),
        ({"name": "Ada", "extra": 1}, False),
    ],
)
def test_values_fit_or_do_not(value: Any, fits: bool) -> None:
    assert Schema.of(PERSON).fits(value) is fits


def test_other_keys_may_have_a_schema_of_their_own() -> None:
    schema = Schema.of({"additionalProperties": {"type": "number"}, "minProperties": 1})
    assert schema.fits({"x": 1}) and not schema.fits({"x": "1"}) and not schema.fits({}) and schema.fits("text")


def _deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"items": value}
    return value


REFUSED: list[tuple[Any, str]] = [
    ({"$ref": "#"}, "$ref"),
    ({"properties": {"a": {"oneOf": []}}}, "properties.a.oneOf"),
    ({"type": "text"}, "type"),
    ({"type": []}, "type"),
    ({"minimum": "1"}, "minimum"),
    ({"minimum": True}, "minimum"),
    ({"maximum": float("nan")}, "maximum"),
    ({"required": [1]}, "required"),
    ({"properties": []}, "properties"),
    ({"anyOf": []}, "anyOf"),
    ({"items": [1]}, "items"),
    ([], "root"),
    (_deep(40), "items"),
    ({"properties": {str(n): {} for n in range(1001)}}, "properties"),
]


@pytest.mark.parametrize(("schema", "place"), REFUSED)
def test_a_schema_that_says_more_than_is_known_is_refused(schema: Any, place: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Schema.of(schema)
    assert caught.value.code == "rewards.bad_schema" and place in caught.value.why.sentence
