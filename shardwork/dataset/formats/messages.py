"""Conversations: a list of messages checked one by one, in TRL's names or in ShareGPT's.

Owns what a message must have and who may speak. Called by `builders`.
"""

from __future__ import annotations

import json
from typing import Any, cast

from ...problem import Problem, nearest
from ..line import Line, empty, problem, wrong_type
from ..row import ROLES, Message

#: other names for our roles
SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
#: of ShareGPT, to be named where a speaker is unknown
USUAL_SPEAKERS = ("human", "gpt", "system", "tool")


def conversation(line: Line, key: str, value: object) -> list[Message] | Problem:
    """A list of {role, content}."""
    return _each(line, key, value, sharegpt=False)


def sharegpt(line: Line, key: str, value: object) -> list[Message] | Problem:
    """A list of {from, value} as messages; {role, content} is taken too, since such files hold both."""
    return _each(line, key, value, sharegpt=True)


def _each(line: Line, key: str, value: object, *, sharegpt: bool) -> list[Message] | Problem:
    if not isinstance(value, list):
        return wrong_type(line, key, "a list of messages", value)
    if not value:
        return empty(line, key)
    found: list[Message] = []
    for index, message in enumerate(cast("list[object]", value)):
        place = f"{key}.{index}"
        checked = (_turn if sharegpt and _is_turn(message) else _message)(line, place, message)
        if isinstance(checked, Problem):
            return checked
        found.append(checked)
    return found


def _is_turn(message: object) -> bool:
    return isinstance(message, dict) and "role" not in message


def _message(line: Line, key: str, value: object) -> Message | Problem:
    if not isinstance(value, dict):
        return wrong_type(line, key, "an object with role and content", value)
    message = {name: item for name, item in cast("dict[str, Any]", value).items() if item is not None}
    for wanted in ("role", "content"):
        if wanted not in message and not (wanted == "content" and "tool_calls" in message):
            wrong = next((name for name in message if name not in {"role", "content"}), "")
            near = nearest(wrong, ("role", "content")) if wrong else None
            meant = near == wanted or (wrong, wanted) in {("from", "role"), ("value", "content")}
            fix = f"Rename {wrong!r} to {wanted!r}." if meant else f"Add {wanted!r}."
            return problem(line, f"{key}.{wanted}", "data.missing_key", f"A message has no {wanted!r}.", fix)
    role, content = message["role"], message.get("content", "")
    if role not in ROLES:
        near = nearest(str(role), ROLES) or SPEAKERS.get(str(role))
        fix = f"Did you mean {near!r}?" if near else f"Use one of: {', '.join(ROLES)}."
        return problem(line, f"{key}.role", "data.unknown_role", f"There is no role {str(role)[:40]!r}.", fix)
    if not isinstance(content, str):
        return wrong_type(line, f"{key}.content", "a string", content)
    return message


def _turn(line: Line, key: str, value: object) -> Message | Problem:
    turn = {name: item for name, item in cast("dict[str, Any]", value).items() if item is not None}
    for wanted in ("from", "value"):
        if wanted not in turn:
            wrong = next((name for name in turn if nearest(name, (wanted,))), None)
            fix = f"Rename {wrong!r} to {wanted!r}." if wrong else f"Add {wanted!r}."
            return problem(line, f"{key}.{wanted}", "data.missing_key", f"A turn has no {wanted!r}.", fix)
    speaker, said = turn["from"], turn["value"]
    role = SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        near = nearest(str(speaker), USUAL_SPEAKERS)
        fix = f"Did you mean {near!r}?" if near else f"Use one of: {', '.join(USUAL_SPEAKERS)}."
        return problem(line, f"{key}.from", "data.unknown_role", f"There is no speaker {str(speaker)[:40]!r}.", fix)
    if not isinstance(said, str):
        return wrong_type(line, f"{key}.value", "a string", said)
    return {"role": role, "content": said}


def tools(line: Line, value: dict[str, Any]) -> tuple[Any, ...] | Problem:
    """A row's tools as JSON schemas; a string holds their JSON."""
    if value.get("chat_template_kwargs"):
        sentence = "`chat_template_kwargs` would change how the row is rendered and is not built yet."
        return problem(line, "chat_template_kwargs", "data.not_built", sentence, "Remove the key.")
    found: object = value.get("tools") or []
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            found = None
    items = cast("list[object]", found) if isinstance(found, list) else [None]
    if not all(isinstance(tool, dict) for tool in items):
        return wrong_type(line, "tools", "a list of JSON schemas", value["tools"])
    return tuple(items)
