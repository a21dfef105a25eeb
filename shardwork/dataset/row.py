"""Row: one example as a recipe reads it, whatever its file called the parts.

Owns the formats, their keys (TRL's names, so that a file works in both), which recipe reads which, and what a row can
say about itself: its text, its digest, which pieces are answers. Made by `builders`; read by `tokenise`, `check` and
`prepare`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    #: a question without an answer; every other key stays with it, for whoever grades answers
    PROMPT = "prompt"
    #: one answer, and whether it is a good one (TRL's unpaired preferences)
    LABELLED = "labelled"
    #: one answer, and a number that says how good
    SCORED = "scored"
    #: several answers to one question, as `generate` writes them
    ANSWERS = "answers"


#: format -> the keys that a row must have
KEYS: dict[Format, tuple[str, ...]] = {
    Format.MESSAGES: ("messages",),
    Format.PROMPT_COMPLETION: ("prompt", "completion"),
    Format.TEXT: ("text",),
    Format.PREFERENCE: ("chosen", "rejected"),
    Format.ALPACA: ("instruction", "output"),
    Format.SHAREGPT: ("conversations",),
    Format.PROMPT: ("prompt",),
    Format.LABELLED: ("prompt", "completion", "label"),
    Format.SCORED: ("prompt", "completion", "score"),
    Format.ANSWERS: ("prompt", "answers"),
}
#: format -> the keys that it may have besides
OPTIONAL_KEYS: dict[Format, tuple[str, ...]] = {
    Format.MESSAGES: ("tools",),
    Format.PROMPT_COMPLETION: ("tools",),
    Format.TEXT: (),
    Format.PREFERENCE: ("prompt", "tools", "confidence", "prompt_id", "votes"),
    Format.ALPACA: ("input", "system"),
    Format.SHAREGPT: ("system", "tools"),
    Format.PROMPT: ("tools", "prompt_id"),
    Format.LABELLED: ("tools",),
    Format.SCORED: ("tools",),
    Format.ANSWERS: ("tools", "prompt_id"),
}
#: every key that some format reads, the commonest first
READ_KEYS = tuple(dict.fromkeys(key for kind in KEYS for key in (*KEYS[kind], *OPTIONAL_KEYS[kind])))
ROLES = ("system", "developer", "user", "assistant", "tool")
#: read only where a recipe asks for them, so a slip in another key is never taken for one of theirs
_RARE = frozenset({Format.PROMPT, Format.LABELLED, Format.SCORED, Format.ANSWERS})
#: formats of which every key stays with the row
KEEPS_KEYS = frozenset({Format.PROMPT, Format.ANSWERS})
#: formats in which somebody said how good answers are
_JUDGED = frozenset({Format.PREFERENCE, Format.LABELLED, Format.SCORED})
_PROMPTS, _SEVERAL = frozenset({Format.PROMPT}), frozenset({Format.ANSWERS, Format.PREFERENCE})
#: recipe -> the formats whose rows it reads; a recipe that is not here reads any
LEARNS_FROM: dict[str, frozenset[Format]] = {
    "pretrain": frozenset({Format.TEXT}),
    "count": frozenset({Format.TEXT}),
    "sft": frozenset({Format.TEXT, Format.MESSAGES, Format.PROMPT_COMPLETION}),
    "reward": frozenset({Format.PREFERENCE, Format.SCORED}),
    "dpo": frozenset({Format.PREFERENCE, Format.LABELLED}),
    "ppo": _PROMPTS,
    "grpo": _PROMPTS,
    "generate": _PROMPTS,
    "judge": _SEVERAL,
    "people": _SEVERAL | {Format.PROMPT_COMPLETION, Format.TEXT},
}
#: formats under another name
_WRITTEN = {Format.ALPACA: Format.PROMPT_COMPLETION, Format.SHAREGPT: Format.MESSAGES}


def reads(recipe: str, found: Format) -> bool:
    """Whether the recipe says that it reads rows of this format. Text may serve where prompts are asked for."""
    known = LEARNS_FROM.get(recipe, frozenset[Format]())
    return _WRITTEN.get(found, found) in known or (found is Format.TEXT and Format.PROMPT in known)


def usual_keys(recipe: str) -> tuple[str, ...]:
    """Keys that a slip in a row's key may have meant."""
    usual = [kind for kind in KEYS if kind not in _RARE or reads(recipe, kind)]
    return tuple(dict.fromkeys(key for kind in usual for key in (*KEYS[kind], "tools", *_ASIDE.get(kind, ()))))


def wanted_keys(recipe: str) -> str:
    """What the keys of a row must be, in a sentence."""
    known = LEARNS_FROM.get(recipe)
    if known is None or Format.MESSAGES in known:
        return "Use `text`, `messages`, `prompt` and `completion`, or `chosen` and `rejected`"
    each = [KEYS[kind] for kind in KEYS if kind in known]
    return f"Use {', or '.join(' and '.join(f'`{key}`' for key in keys) for keys in each)}"


_ASIDE = {Format.PREFERENCE: ("prompt",), Format.ALPACA: ("input", "system")}


@dataclass(frozen=True, slots=True)
class Answer:
    """One of a row's answers, and who gave it."""

    model: str
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row. Exactly the fields of its format are set."""

    file: str
    line: int
    #: as it is read: neither alpaca nor sharegpt
    format: Format
    text: str = ""
    #: with a completion: both strings, or both lists of messages; preference: of chosen's kind, or empty
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
    #: labelled: 1 or 0; scored: the score; preference: how likely it is that `chosen` is better
    value: float = 1.0
    answers: tuple[Answer, ...] = ()
    #: prompt and answers: what the file calls the prompt; empty where it does not
    prompt_id: str = ""
    #: prompt and answers: the row's other keys
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def is_conversational(self) -> bool:
        return self.format is Format.MESSAGES or isinstance(self.prompt, list) or isinstance(self.chosen, list)

    @property
    def shape(self) -> str:
        """What all rows of a stage must share, in words."""
        name = self.written or self.format
        told = self.format not in (Format.TEXT, Format.MESSAGES) and self.is_conversational
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

    def answered(self, answer: Part, value: float | None = None) -> Row:
        """A preference row with one of its answers, as prompt and completion, or labelled with this value."""
        prompt = self.prompt
        if isinstance(answer, list) and not prompt:
            shared = _shared(cast("list[Message]", self.chosen), cast("list[Message]", self.rejected))
            prompt, answer = answer[:shared], answer[shared:]
        plain = Row(self.file, self.line, Format.PROMPT_COMPLETION, prompt=prompt, completion=answer, tools=self.tools)
        if value is None:
            return plain
        return replace(plain, format=Format.LABELLED, value=value, source=self.source)

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
        if self.format is Format.ANSWERS:
            given: list[tuple[Part, bool]] = [(f"\n[{answer.model}] {answer.text}", False) for answer in self.answers]
            return _halves([(self.prompt, False), *given])
        return _halves([(self.prompt, False), (self.completion, True)])

    def plain(self) -> str:
        """All of the row's text, for sizes where no tokenizer is at hand and for comparing rows."""
        given = "".join(answer.text for answer in self.answers)
        if not self.is_conversational:
            return f"{self.text}{self.prompt}{self.completion}{self.chosen}{self.rejected}{given}"
        parts = [part for part in (self.prompt, self.completion, self.chosen, self.rejected) if isinstance(part, list)]
        said = [*self.messages, *(message for part in parts for message in part)]
        return "\n".join(str(message.get("content", "")) for message in said) + given

    def digest(self) -> bytes:
        """16 bytes that are equal for rows with equal content. What stays with a prompt is not part of it, so that no
        prompt is asked on both sides."""
        if self.format is Format.TEXT:
            content = self.text
        elif self.format in (Format.LABELLED, Format.SCORED):
            content = json.dumps([self.prompt, self.completion, self.tools, self.value], sort_keys=True)
        elif self.format is Format.ANSWERS:
            content = json.dumps([self.prompt, [[one.model, one.text] for one in self.answers]], sort_keys=True)
        elif isinstance(self.prompt, str) and isinstance(self.completion, str) and self.prompt and self.completion:
            content = f"{len(self.prompt)}\0{self.prompt}{self.completion}"
        else:
            parts: list[object] = [self.messages, self.prompt, self.completion, self.tools]
            parts += [self.chosen, self.rejected] if self.format is Format.PREFERENCE else []
            content = json.dumps(parts, sort_keys=True)
        return _hashed(content, b"shardwork row")

    def topic(self, digest: bytes) -> bytes:
        """16 bytes that are equal for judged rows which ask the same: held out together, or what is measured on them
        was half learnt. Of any other row, and where nothing says what was asked, its own digest."""
        if self.format not in _JUDGED:
            return digest
        asked = self.answered(self.chosen).prompt if self.format is Format.PREFERENCE else self.prompt
        content = asked.strip() if isinstance(asked, str) else json.dumps(asked, sort_keys=True) if asked else ""
        content = content or self.prompt_id
        return _hashed(content, b"shardwork topic") if content else digest


def _hashed(content: str, person: bytes) -> bytes:
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16, person=person).digest()


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
