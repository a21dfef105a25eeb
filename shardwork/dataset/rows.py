"""Rows: a line of JSON or text as one of the formats that can be trained on, or the problem that it is not.

Owns recognising the format from the row itself, never assuming one, and naming the wrong key with its nearest valid
one. The formats and key names are TRL's, so that a file works in both. Called by `check` and `prepare`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from ..problem import Problem, nearest
from .source import Line

Message = dict[str, Any]


class Format(StrEnum):
    TEXT = "text"
    MESSAGES = "messages"
    PROMPT_COMPLETION = "prompt-completion"


#: format -> the keys that a row must have
KEYS: dict[Format, tuple[str, ...]] = {
    Format.MESSAGES: ("messages",),
    Format.PROMPT_COMPLETION: ("prompt", "completion"),
    Format.TEXT: ("text",),
}
#: no schema of a tool nests deeper; the row itself counts as one
MAX_DEPTH = 64
#: an escape that may be half of a character; the whole row is looked at only then
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_ALL_KEYS = tuple(key for keys in KEYS.values() for key in keys)
ROLES = ("system", "developer", "user", "assistant", "tool")

#: keys of formats that are not read here -> what to do about them
_FOREIGN: tuple[tuple[frozenset[str], str, str], ...] = (
    (
        frozenset({"instruction", "output"}),
        "Alpaca",
        "Write instruction (and input) as `prompt`, output as `completion`.",
    ),
    (
        frozenset({"conversations"}),
        "ShareGPT",
        "Rename conversations to `messages`, from to `role`, value to `content`.",
    ),
    (
        frozenset({"chosen", "rejected"}),
        "preference",
        "This kind of row is for preference tuning, which is not built yet.",
    ),
    (frozenset({"input_ids"}), "token", "Give the text itself; it is tokenised with the model's own tokenizer."),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row. Exactly the fields of its format are set."""

    file: str
    line: int
    format: Format
    text: str = ""
    #: prompt-completion: both strings, or both lists of messages
    prompt: str | list[Message] = ""
    completion: str | list[Message] = ""
    messages: tuple[Message, ...] = ()
    tools: tuple[Any, ...] = ()
    #: keys of the row that nothing reads
    ignored: tuple[str, ...] = ()

    @property
    def is_conversational(self) -> bool:
        return self.format is Format.MESSAGES or isinstance(self.prompt, list)

    def pieces(self) -> list[tuple[str, bool]]:
        """(text, whether it is an answer), before any chat template: what a preview can show without a model."""
        if self.format is Format.TEXT:
            return [(self.text, True)]
        if self.format is Format.MESSAGES:
            said = [_said(message, message.get("role") == "assistant") for message in self.messages]
            return [(text.removeprefix("\n") if at == 0 else text, counts) for at, (text, counts) in enumerate(said)]
        halves: list[tuple[str, bool]] = []
        for half, counts in ((self.prompt, False), (self.completion, True)):
            halves += [(half, counts)] if isinstance(half, str) else [_said(message, counts) for message in half]
        return halves

    def plain(self) -> str:
        """All of the row's text, for sizes where no tokenizer is at hand."""
        if not self.is_conversational:
            return f"{self.text}{self.prompt}{self.completion}"
        parts = [
            *self.messages,
            *(cast("list[Message]", self.prompt or [])),
            *cast("list[Message]", self.completion or []),
        ]
        return "\n".join(str(message.get("content", "")) for message in parts)

    def digest(self) -> bytes:
        """16 bytes that are equal for rows with equal content."""
        if self.format is Format.TEXT:
            content = self.text
        elif isinstance(self.prompt, str) and isinstance(self.completion, str) and self.prompt:
            content = f"{len(self.prompt)}\0{self.prompt}{self.completion}"
        else:
            content = json.dumps([self.messages, self.prompt, self.completion, self.tools], sort_keys=True)
        return hashlib.blake2b(
            content.encode("utf-8", "surrogatepass"), digest_size=16, person=b"shardwork row"
        ).digest()


def read_rows(lines: Iterable[Line | Problem]) -> Iterator[Row | Problem]:
    """Rows in order. A row whose format differs from the first row's is a problem: one stage, one format."""
    first: Row | None = None
    for line in lines:
        if isinstance(line, Problem):
            yield line
            continue
        row = parse_row(line)
        if isinstance(row, Row):
            if first is None:
                first = row
            elif row.format is not first.format:
                row = _mixed(row, first)
        yield row


def parse_row(line: Line) -> Row | Problem:
    """The row of one line, or its first problem."""
    if line.is_text:
        return Row(line.file, line.number, Format.TEXT, text=line.text)
    value = _parse_json(line)
    if isinstance(value, Problem):
        return value
    formats = [found for found, keys in KEYS.items() if all(value.get(key) is not None for key in keys)]
    if len(formats) == 1:
        return _BUILDERS[formats[0]](line, value)
    if formats:
        sentence = f"The row is {' and '.join(formats)} at once, so what to train on is unclear."
        return _problem(line, KEYS[formats[1]][0], "data.ambiguous", sentence, "Keep the keys of one format.")
    return _unrecognised(line, value)


def _parse_json(line: Line) -> dict[str, Any] | Problem:
    try:
        value: object = json.loads(line.text, object_pairs_hook=_pairs)
    except _Repeated as error:
        return _problem(line, error.key, "data.duplicate_key", f"The key {error.key!r} is given twice.", "Keep one.")
    except json.JSONDecodeError as error:
        sentence = f"This is not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}."
        fix = "Write it as an escape, e.g. \\n or \\t." if "control character" in error.msg else _json_fix(line.text)
        return _problem(line, "", "data.bad_json", sentence, fix)
    except RecursionError:
        return _problem(line, "", "data.bad_json", "This JSON nests too deep to be read.", "Mend or remove the row.")
    except ValueError as error:
        return _problem(line, "", "data.bad_json", f"This JSON cannot be read: {error}.", "Mend the row.")
    if not isinstance(value, dict):
        sentence = f"A row is a JSON object, but this is a {_kind(value)}."
        return _problem(line, "", "data.not_an_object", sentence, "Write one JSON object a line.")
    row = cast("dict[str, Any]", value)
    if line.text.count("[") + line.text.count("{") > MAX_DEPTH and _nests(row, MAX_DEPTH):
        return _problem(line, "", "data.bad_json", "This JSON nests too deep to be read.", "Mend or remove the row.")
    return (_broken_text(line, row) if _SURROGATE.search(line.text) else None) or row


def _nests(value: object, deeper_than: int) -> bool:
    """Whether lists and objects lie deeper in each other; a bound of our own, as Python's depends on who is calling."""
    level: list[object] = [value]
    for _ in range(deeper_than):
        inner: list[object] = []
        for item in level:
            inner += cast("dict[str, object]", item).values() if isinstance(item, dict) else cast("list[object]", item)
        level = [item for item in inner if isinstance(item, (dict, list))]
        if not level:
            return False
    return True


def _json_fix(text: str) -> str:
    """Whole files in another shape than one object a line are common; their first line gives them away."""
    stripped = text.strip()
    if "\r" in stripped:
        return "The lines end in a carriage return alone; save the file with Unix line ends."
    if stripped == "[" or stripped.startswith("[{"):
        return "The file looks like one JSON list; write one object a line:  jq -c '.[]' FILE > NEW.jsonl"
    if stripped == "{":
        return "The file looks like indented JSON; write one object a line:  jq -c . FILE > NEW.jsonl"
    return "Write one JSON object a line."


def _broken_text(line: Line, value: dict[str, Any]) -> Problem | None:
    """Half a surrogate pair is no character: no tokenizer reads it and no file holds it."""
    for key, item in value.items():
        try:
            json.dumps([key, item], ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            sentence = f"The text holds {half}, half of a character that was cut in two."
            return _problem(line, key, "data.bad_text", sentence, "Remove the escape, or restore the whole character.")
    return None


class _Repeated(Exception):
    def __init__(self, key: str) -> None:
        self.key = key


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        seen: set[str] = set()
        raise _Repeated(next(key for key, _ in items if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return found


def _unrecognised(line: Line, value: dict[str, Any]) -> Problem:
    """Why no format fits: another known format, half a format, a mistyped key, or nothing we know."""
    for keys, name, fix in _FOREIGN:
        if keys <= set(value):
            return _problem(line, sorted(keys)[0], "data.format_not_built", f"This is a row in {name} form.", fix)
    for key in _ALL_KEYS:
        if key in value and value[key] is None:
            return _problem(line, key, "data.null_value", f"{key!r} is null.", "Fill it or remove the row.")
    for key in value:
        near = nearest(key, _ALL_KEYS)
        if near is not None and near not in value:
            return _problem(line, key, "data.unknown_key", f"There is no key {key!r}.", f"Did you mean {near!r}?")
    for key, other in (("prompt", "completion"), ("completion", "prompt")):
        if key in value:
            sentence = f"The row has {key!r} but no {other!r}."
            return _problem(line, other, "data.missing_key", sentence, f"Add {other!r}.")
    have = ", ".join(sorted(value)[:6]) or "none"
    fix = "Use `text`, `messages`, or `prompt` and `completion`."
    key = next(iter(value), "")
    return _problem(line, key, "data.unknown_format", f"The row fits no format; its keys are: {have}.", fix)


# ---- one builder per format ---------------------------------------------------------------------------------------


def _text(line: Line, value: dict[str, Any]) -> Row | Problem:
    text = value["text"]
    if not isinstance(text, str):
        return _wrong_type(line, "text", "a string", text)
    if not text.strip():
        return _empty(line, "text")
    return Row(line.file, line.number, Format.TEXT, text=text, ignored=_ignored(value, ("text",)))


def _messages(line: Line, value: dict[str, Any]) -> Row | Problem:
    messages, tools = _conversation(line, "messages", value["messages"]), _tools(line, value)
    if isinstance(messages, Problem):
        return messages
    if isinstance(tools, Problem):
        return tools
    if not any(message["role"] == "assistant" for message in messages):
        fix = "Add the answer as a message with role assistant."
        return _problem(line, "messages", "data.no_answer", "No message is by the assistant.", fix)
    known = ("messages", "tools")
    return Row(
        line.file, line.number, Format.MESSAGES, messages=tuple(messages), tools=tools, ignored=_ignored(value, known)
    )


def _pair(line: Line, value: dict[str, Any]) -> Row | Problem:
    tools, parts = _tools(line, value), _parts(line, value["prompt"], value["completion"])
    if isinstance(tools, Problem):
        return tools
    if isinstance(parts, Problem):
        return parts
    return Row(
        line.file,
        line.number,
        Format.PROMPT_COMPLETION,
        prompt=parts[0],
        completion=parts[1],
        tools=tools,
        ignored=_ignored(value, ("prompt", "completion", "tools")),
    )


def _parts(line: Line, prompt: Any, completion: Any) -> tuple[str, str] | tuple[list[Message], list[Message]] | Problem:
    """Prompt and completion of one kind: both strings, or both lists of messages."""
    if isinstance(prompt, str) and isinstance(completion, str):
        return (prompt, completion) if completion else _empty(line, "completion")
    kinds = (_kind(prompt), _kind(completion))
    if kinds != ("list", "list"):
        wrong, value = ("prompt", prompt) if kinds[0] not in ("string", "list") else ("completion", completion)
        return _wrong_type(line, wrong, "a string or a list of messages, like the other one", value)
    before, after = _conversation(line, "prompt", prompt), _conversation(line, "completion", completion)
    if isinstance(before, Problem):
        return before
    return after if isinstance(after, Problem) else (before, after)


_BUILDERS = {Format.TEXT: _text, Format.MESSAGES: _messages, Format.PROMPT_COMPLETION: _pair}


def _conversation(line: Line, key: str, value: object) -> list[Message] | Problem:
    if not isinstance(value, list):
        return _wrong_type(line, key, "a list of messages", value)
    if not value:
        return _empty(line, key)
    found: list[Message] = []
    for index, message in enumerate(cast("list[object]", value)):
        checked = _message(line, f"{key}.{index}", message)
        if isinstance(checked, Problem):
            return checked
        found.append(checked)
    return found


def _message(line: Line, key: str, value: object) -> Message | Problem:
    if not isinstance(value, dict):
        return _wrong_type(line, key, "an object with role and content", value)
    message = {name: item for name, item in cast("dict[str, Any]", value).items() if item is not None}
    for wanted in ("role", "content"):
        if wanted not in message and not (wanted == "content" and "tool_calls" in message):
            wrong = next((name for name in message if name not in {"role", "content"}), "")
            near = nearest(wrong, ("role", "content")) if wrong else None
            meant = near == wanted or (wrong, wanted) in {("from", "role"), ("value", "content")}
            fix = f"Rename {wrong!r} to {wanted!r}." if meant else f"Add {wanted!r}."
            return _problem(line, f"{key}.{wanted}", "data.missing_key", f"A message has no {wanted!r}.", fix)
    role, content = message["role"], message.get("content", "")
    if role not in ROLES:
        near = nearest(str(role), ROLES) or {"human": "user", "gpt": "assistant", "bot": "assistant"}.get(str(role))
        fix = f"Did you mean {near!r}?" if near else f"Use one of: {', '.join(ROLES)}."
        return _problem(line, f"{key}.role", "data.unknown_role", f"There is no role {str(role)[:40]!r}.", fix)
    if not isinstance(content, str):
        return _wrong_type(line, f"{key}.content", "a string", content)
    return message


def _tools(line: Line, value: dict[str, Any]) -> tuple[Any, ...] | Problem:
    if value.get("chat_template_kwargs"):
        sentence = "`chat_template_kwargs` would change how the row is rendered and is not built yet."
        return _problem(line, "chat_template_kwargs", "data.not_built", sentence, "Remove the key.")
    tools: object = value.get("tools") or []
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            tools = None
    items = cast("list[object]", tools) if isinstance(tools, list) else [None]
    if not all(isinstance(tool, dict) for tool in items):
        return _wrong_type(line, "tools", "a list of JSON schemas", value["tools"])
    return tuple(items)


# ---- problems -----------------------------------------------------------------------------------------------------


def _ignored(value: dict[str, Any], known: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key for key in value if key not in known) if len(value) > len(known) or set(value) - set(known) else ()


def _mixed(row: Row, first: Row) -> Problem:
    return Problem(
        file=row.file,
        line=row.line,
        key=KEYS[row.format][0],
        code="data.mixed_formats",
        sentence=f"This row is {row.format}, but {first.file}:{first.line} is {first.format}.",
        fix="Bring all rows into one format.",
    )


def _wrong_type(line: Line, key: str, wanted: str, value: object) -> Problem:
    sentence = f"{key!r} must be {wanted}, but is a {_kind(value)}."
    return _problem(line, key, "data.wrong_type", sentence, "Correct the value.")


def _empty(line: Line, key: str) -> Problem:
    return _problem(line, key, "data.empty_value", f"{key!r} is empty.", "Fill it or remove the row.")


def _kind(value: object) -> str:
    names = {"dict": "object", "list": "list", "str": "string", "NoneType": "null", "bool": "truth value"}
    return names.get(type(value).__name__, "number")


def _problem(line: Line, key: str, code: str, sentence: str, fix: str) -> Problem:
    return Problem(file=line.file, line=line.number, key=key, code=code, sentence=sentence, fix=fix)


def _said(message: Message, counts: bool) -> tuple[str, bool]:
    return f"\n{message.get('role', '')}: {message.get('content') or ''}", counts
