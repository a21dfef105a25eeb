"""Chat templates: found in the model folder, rendered by a jailed child, and cut into the assistant's turns.

A template is a program that came with somebody's model. It runs in jinja's immutable sandbox inside child processes
with bounded memory, time and output (`render_child`), and what breaks a bound refuses the template, not the machine.
Called by `tokenise`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, cast

from ..errors import InvalidInput
from .row import Message

#: strftime_now answers this day: rendering is a pure function of the rows. Llama's own templates default to it.
FROZEN_DATE = "2024-07-26T12:00:00"
ROW_SECONDS = 2.0
ROW_CHARS = 8 << 20
BATCH_SECONDS = 20.0
MAX_TEMPLATE_CHARS = 1 << 18
#: children of one template at most, and how many rows are worth starting one more
MAX_CHILDREN = 4
ROWS_PER_CHILD = 256

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
#: templates of our own for models that have none; eos_token ends each turn so that answers end where models stop
NAMED: Mapping[str, str] = {"chatml": CHATML}

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderRequest:
    """One conversation and which of its beginnings to render: (number of messages, with generation prompt)."""

    messages: Sequence[Message]
    tools: Sequence[Any] = ()
    renders: Sequence[tuple[int, bool]]


@dataclass(frozen=True, slots=True)
class RowRefused:
    """The template refused this row; the sentence says why."""

    sentence: str


@dataclass(slots=True)
class ChatTemplate:
    """A template and the children that render it. A context manager; they start when rows come."""

    source: str
    #: bos_token, eos_token … as the template sees them
    variables: Mapping[str, str]
    _children: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]], repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the children."""
        children, self._children = self._children, []
        for child in children:
            child.kill()
            child.communicate()

    @property
    def uses_date(self) -> bool:
        return "strftime_now" in self.source

    def render(self, requests: Sequence[RenderRequest]) -> list[list[str] | RowRefused]:
        """Renders a batch. Raises InvalidInput "template.refused" when the template is broken, unsafe or unbounded."""
        if not requests:
            return []
        count = min(MAX_CHILDREN, os.cpu_count() or 1, -(-len(requests) // ROWS_PER_CHILD))
        self._start(count)
        size = -(-len(requests) // count)
        parts = [requests[begin : begin + size] for begin in range(0, len(requests), size)]
        answers = self._exchange([[_asked(request) for request in part] for part in parts])
        found: list[list[str] | RowRefused] = []
        for part, answer in zip(parts, answers, strict=True):
            if not isinstance(answer, list) or len(cast("list[object]", answer)) != len(part):
                self._refuse("its answer is not what was asked for")
            pairs = zip(part, cast("list[object]", answer), strict=True)
            found += [self._result(item, request.renders) for request, item in pairs]
        return found

    def _result(self, answer: object, renders: Sequence[tuple[int, bool]]) -> list[str] | RowRefused:
        if isinstance(answer, dict):
            kind, text = cast("dict[str, tuple[str, str]]", answer)["error"]
            if kind != "row":
                self._refuse(text)
            return RowRefused(str(text))
        wanted = dict.fromkeys(renders)
        texts = cast("list[object]", answer)
        if len(texts) != len(wanted) or not all(isinstance(text, str) for text in texts):
            self._refuse("its answer is not text")
        by_render = dict(zip(wanted, cast("list[str]", texts), strict=True))
        return [by_render[item] for item in renders]

    def _start(self, count: int) -> None:
        """Makes sure that `count` children run and know the template."""
        missing = count - len(self._children)
        if missing <= 0:
            return
        if len(self.source) > MAX_TEMPLATE_CHARS:
            self._refuse("it is longer than any template needs to be")
        fresh = [_child() for _ in range(missing)]
        self._children += fresh
        setup = {
            "template": self.source,
            "variables": dict(self.variables),
            "date": FROZEN_DATE,
            "row_seconds": ROW_SECONDS,
            "row_chars": ROW_CHARS,
        }
        for answer in cast("list[Any]", self._exchange([setup] * missing, fresh)):
            if "error" in answer:
                self._refuse(str(answer["error"][1]))

    def _exchange(self, requests: Sequence[object], children: Sequence[subprocess.Popen[str]] = ()) -> list[object]:
        """One line out to each child, then one line back from each, within the deadline.

        A child reads its whole line before it writes, so no two ends wait for each other.
        """
        chosen = (children or self._children)[: len(requests)]
        deadline = threading.Timer(BATCH_SECONDS, _kill, (chosen,))
        deadline.start()
        try:
            for child, request in zip(chosen, requests, strict=True):
                assert child.stdin is not None
                child.stdin.write(json.dumps(request) + "\n")
                child.stdin.flush()
            lines = [child.stdout.readline() if child.stdout else "" for child in chosen]
        except BrokenPipeError:
            lines = [""]
        finally:
            deadline.cancel()
        if not all(lines):
            self._refuse("it takes more time or memory than it may")
        return [cast("object", json.loads(line)) for line in lines]

    def _refuse(self, reason: str) -> NoReturn:
        self.close()
        raise InvalidInput(
            "template.refused",
            f"The model's chat template cannot be used: {reason.rstrip('.')}.",
            next_step="Mend the template in the model folder, or set params.chat_template: chatml.",
            key="chat_template",
        )


def _asked(request: RenderRequest) -> dict[str, object]:
    """What travels to a child; a beginning that is wanted twice is rendered once."""
    renders = list(dict.fromkeys(request.renders))
    return {"messages": list(request.messages), "tools": list(request.tools), "renders": renders}


def _child() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("render_child.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONUTF8": "1"},
        encoding="utf-8",
        start_new_session=True,
    )


def _kill(children: Sequence[subprocess.Popen[str]]) -> None:
    for child in children:
        child.kill()


def find_template(folder: Path, tokenizer_config: Mapping[str, Any], name: str = "model") -> str | None:
    """The template's source: one of ours by name, or "model": the folder's own; None when it has none.

    chat_template.jinja wins over tokenizer_config.json, as in transformers. Raises InvalidInput "template.unknown".
    """
    if name != "model":
        if name not in NAMED:
            raise InvalidInput(
                "template.unknown",
                f"There is no chat template {name!r}.",
                next_step=f"Use 'model' or one of: {', '.join(NAMED)}.",
                key="params.chat_template",
            )
        return NAMED[name]
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(
                "template.refused", "The chat template is not UTF-8 text.", next_step="Save it as UTF-8.", file=path
            ) from error
    found: Any = tokenizer_config.get("chat_template")
    if isinstance(found, list):
        items = cast("list[object]", found)
        named = [cast("dict[str, object]", item) for item in items if isinstance(item, dict)]
        found = next((item.get("template") for item in named if item.get("name") == "default"), None)
    return found if isinstance(found, str) and found else None


# ---- where the assistant speaks ---------------------------------------------------------------------------------


def turn_renders(messages: Sequence[Message]) -> list[tuple[int, bool]]:
    """What to render to find the assistant's turns: the whole, then for each turn the text before it and up to it."""
    renders: list[tuple[int, bool]] = [(len(messages), False)]
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            renders += [(index, True), (index + 1, False)]
    return renders


def assistant_spans(messages: Sequence[Message], texts: Sequence[str]) -> list[Span] | RowRefused:
    """Character spans of the assistant's turns in the whole text, from the renders of `turn_renders`.

    A turn begins where the text before it (with generation prompt) ends. Templates that render a turn differently once
    it lies in the past (they drop its reasoning) are matched by the turn's content and what follows it.
    """
    whole, spans, end = texts[0], list[Span](), 0
    turns = [message for message in messages if message["role"] == "assistant"]
    for message, before, upto in zip(turns, texts[1::2], texts[2::2], strict=True):
        begin = max(_shared(before, whole), end)
        span: Span | None = (begin, len(upto)) if whole.startswith(upto) else _past_turn(message, whole, upto, begin)
        if span is None:
            return RowRefused(
                "the template rewrites earlier answers, so they cannot be found in the whole conversation"
            )
        spans.append(span)
        end = span[1]
    return spans


def _shared(one: str, other: str) -> int:
    """How many characters both begin with; by halving, because most texts agree to the end."""
    if other.startswith(one):
        return len(one)
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def _past_turn(message: Message, whole: str, upto: str, begin: int) -> Span | None:
    content = str(message.get("content", "")).strip()
    at = upto.rfind(content) if content else -1
    if at < 0:
        return None
    tail = upto[at:]
    found = whole.find(tail, begin)
    return None if found < 0 else (begin, found + len(tail))
