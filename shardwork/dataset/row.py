"""Row: one example as training reads it, whatever its file called the parts.

Owns the formats, their keys (TRL's names, so that a file works in both) and what a row can say about itself: its text,
its digest, which pieces are answers. Made by `builders`; read by `tokenise`, `check` and `prepare`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, cast

Message = dict[str, Any]
#: a part of a row: text, or a conversation
Part = str | list[Message]


class Format(StrEnum):
    TEXT = "text"
    MESSAGES = "messages"
    PROMPT_COMPLETION = "prompt-completion"
    PREFERENCE = "preference"
    #: instruction, input, output (Taori et al. 2023); read as prompt and completion
    ALPACA = "alpaca"
    #: conversations of {from, value}; read as messages
    SHAREGPT = "sharegpt"


#: format -> the keys that a row must have
KEYS: dict[Format, tuple[str, ...]] = {
    Format.MESSAGES: ("messages",),
    Format.PROMPT_COMPLETION: ("prompt", "completion"),
    Format.TEXT: ("text",),
    Format.PREFERENCE: ("chosen", "rejected"),
    Format.ALPACA: ("instruction", "output"),
    Format.SHAREGPT: ("conversations",),
}
#: format -> the keys that it may have besides
OPTIONAL_KEYS: dict[Format, tuple[str, ...]] = {
    Format.MESSAGES: ("tools",),
    Format.PROMPT_COMPLETION: ("tools",),
    Format.TEXT: (),
    Format.PREFERENCE: ("prompt", "tools"),
    Format.ALPACA: ("input", "system"),
    Format.SHAREGPT: ("system", "tools"),
}
#: every key that some format reads, the commonest first
READ_KEYS = tuple(dict.fromkeys(key for kind in KEYS for key in (*KEYS[kind], *OPTIONAL_KEYS[kind])))
ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Row:
    """One row. Exactly the fields of its format are set."""

    file: str
    line: int
    #: text, messages, prompt-completion or preference
    format: Format
    text: str = ""
    #: prompt-completion: both strings, or both lists of messages; preference: of chosen's kind, or empty
    prompt: Part = ""
    completion: Part = ""
    messages: tuple[Message, ...] = ()
    tools: tuple[Any, ...] = ()
    #: preference: both strings, or both lists of messages
    chosen: Part = ""
    rejected: Part = ""
    #: keys of the row that nothing reads
    ignored: tuple[str, ...] = ()
    #: the format as it stands in the file, where it has another name for the same thing
    written: Format | None = None
    #: position of its source among the job's
    source: int = 0
    #: alpaca: the same row as a conversation, for models that have a chat template
    asked: tuple[Message, ...] = ()

    @property
    def is_conversational(self) -> bool:
        return self.format is Format.MESSAGES or isinstance(self.prompt, list) or isinstance(self.chosen, list)

    @property
    def shape(self) -> str:
        """What all rows of a stage must share, in words."""
        name = self.written or self.format
        told = self.format in (Format.PROMPT_COMPLETION, Format.PREFERENCE) and self.is_conversational
        return f"{name} (conversations)" if told else str(name)

    def as_conversation(self) -> Row:
        """An Alpaca row as a question and its answer; any other row as it is."""
        if not self.asked:
            return self
        answer = {"role": "assistant", "content": self.completion}
        return replace(self, prompt=list(self.asked), completion=[answer], asked=())

    @property
    def family(self) -> tuple[Format, bool, bool]:
        """What rows must share to be encoded together; files of one family may call their keys differently."""
        return self.format, self.is_conversational, bool(self.asked)

    def answered(self, answer: Part) -> Row:
        """A preference row with one of its answers, as prompt and completion."""
        prompt = self.prompt
        if isinstance(answer, list) and not prompt:
            shared = _shared(cast("list[Message]", self.chosen), cast("list[Message]", self.rejected))
            prompt, answer = answer[:shared], answer[shared:]
        return Row(self.file, self.line, Format.PROMPT_COMPLETION, prompt=prompt, completion=answer, tools=self.tools)

    def pieces(self) -> list[tuple[str, bool]]:
        """(text, whether it is an answer), before any chat template: what a preview can show without a model."""
        if self.format is Format.TEXT:
            return [(self.text, True)]
        if self.format is Format.MESSAGES:
            said = [_said(message, message.get("role") == "assistant") for message in self.messages]
            return [(text.removeprefix("\n") if at == 0 else text, counts) for at, (text, counts) in enumerate(said)]
        if self.format is Format.PREFERENCE:
            chosen, rejected = self.answered(self.chosen), self.answered(self.rejected)
            parts: list[tuple[Part, bool]] = [(chosen.prompt, False), ("\n[chosen] ", False), (chosen.completion, True)]
            return _halves([*parts, ("\n[rejected] ", False), (rejected.completion, False)])
        return _halves([(self.prompt, False), (self.completion, True)])

    def plain(self) -> str:
        """All of the row's text, for sizes where no tokenizer is at hand and for comparing rows."""
        if not self.is_conversational:
            return f"{self.text}{self.prompt}{self.completion}{self.chosen}{self.rejected}"
        parts = [part for part in (self.prompt, self.completion, self.chosen, self.rejected) if isinstance(part, list)]
        said = [*self.messages, *(message for part in parts for message in part)]
        return "\n".join(str(message.get("content", "")) for message in said)

    def digest(self) -> bytes:
        """16 bytes that are equal for rows with equal content."""
        if self.format is Format.TEXT:
            content = self.text
        elif isinstance(self.prompt, str) and isinstance(self.completion, str) and self.prompt and self.completion:
            content = f"{len(self.prompt)}\0{self.prompt}{self.completion}"
        else:
            parts: list[object] = [self.messages, self.prompt, self.completion, self.tools]
            parts += [self.chosen, self.rejected] if self.format is Format.PREFERENCE else []
            content = json.dumps(parts, sort_keys=True)
        return hashlib.blake2b(
            content.encode("utf-8", "surrogatepass"), digest_size=16, person=b"shardwork row"
        ).digest()


def _shared(one: list[Message], other: list[Message]) -> int:
    """How many messages two conversations begin with in common, their last ones apart: the prompt that both imply."""
    most = min(len(one), len(other)) - 1
    return next((at for at in range(most) if one[at] != other[at]), most)


def _halves(parts: Sequence[tuple[Part, bool]]) -> list[tuple[str, bool]]:
    found: list[tuple[str, bool]] = []
    for part, counts in parts:
        found += [(part, counts)] if isinstance(part, str) else [_said(message, counts) for message in part]
    return [piece for piece in found if piece[0]]


def _said(message: Message, counts: bool) -> tuple[str, bool]:
    return f"\n{message.get('role', '')}: {message.get('content') or ''}", counts
