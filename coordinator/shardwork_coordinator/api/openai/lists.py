"""Lists as the published clients page through them: a cursor is the id of the last item that came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from shardwork.errors import InvalidInput

from ..mapping import bad_field

#: names of a list's query, with their schemas
QUERY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("after", {"type": "string"}),
    ("limit", {"type": "integer"}),
)


def limit_of(texts: dict[str, str], default: int, most: int) -> int:
    """Raises InvalidInput "api.bad_field"."""
    text = texts.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 6 and 1 <= int(text) <= most):
        raise bad_field("limit", f"Give 1 to {most:,}.")
    return int(text)


def listed(items: Sequence[dict[str, Any]], *, has_more: bool) -> Response:
    body = {
        "object": "list",
        "data": list(items),
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
    return JSONResponse(body)


def behind(items: Sequence[Any], after: str, name_of: Callable[[Any], str]) -> Sequence[Any]:
    """The items behind the one with this id. Raises InvalidInput "api.bad_cursor" when there is none."""
    if not after:
        return items
    for position, item in enumerate(items):
        if name_of(item) == after:
            return items[position + 1 :]
    raise bad_cursor(after)


def bad_cursor(after: str) -> InvalidInput:
    return InvalidInput(
        "api.bad_cursor",
        f"There is nothing called {after[:60]!r} in this list.",
        next_step="Give the id of the last item that came.",
        param="after",
    )
