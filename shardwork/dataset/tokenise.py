"""Rows to token ids and a loss mask, with the model's own fast tokenizer.

Owns that our ids and masks equal those TRL's SFTTrainer prepares for text and prompt-completion rows (a test compares),
and that in conversations only the assistant's turns count. No transformers: tokenizer.json is the whole tokenizer.
Called by `check` and `prepare`.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from tokenizers import Encoding, Tokenizer

from ..errors import InvalidInput
from ..problem import Problem
from .row import Format, Message, Row
from .template import ChatTemplate, RenderRequest, RowRefused, Span, assistant_spans, find_template, turn_renders

#: rows encoded together: enough to feed every core, small enough to keep memory flat
BATCH_ROWS = 1024
_begin, _end = itemgetter(0), itemgetter(1)
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row as the model reads it. `mask` has one byte a token: 1 = this token is a label."""

    tokens: list[int]
    mask: bytes

    @property
    def loss_tokens(self) -> int:
        """Labels that count: the first token of a row is never predicted."""
        return self.mask.count(1, 1)

    def cut(self, max_length: int) -> Encoded:
        """The first `max_length` tokens."""
        return self if len(self.tokens) <= max_length else Encoded(self.tokens[:max_length], self.mask[:max_length])

    def tail(self, max_length: int) -> Encoded:
        """The last `max_length` tokens."""
        return self if len(self.tokens) <= max_length else Encoded(self.tokens[-max_length:], self.mask[-max_length:])


class RowTokenizer:
    """A model folder's tokenizer and chat template. A context manager, because templates run in a child."""

    def __init__(self, tokenizer: Tokenizer, special: Mapping[str, str], template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.eos_token = special["eos_token"]
        eos, pad = (tokenizer.token_to_id(special.get(name, self.eos_token)) for name in ("eos_token", "pad_token"))
        if eos is None:
            raise InvalidInput(
                "tokenizer.no_eos",
                f"The end token {self.eos_token!r} is not in the tokenizer.",
                next_step="Set eos_token in tokenizer_config.json to a token of the tokenizer.",
                file="tokenizer_config.json",
            )
        self.eos_token_id: int = eos
        self.pad_token_id: int = eos if pad is None else pad
        self.template = ChatTemplate(template, special) if template is not None else None

    @classmethod
    def load(cls, folder: Path, *, chat_template: str = "model") -> Self:
        """Reads tokenizer.json and its companions. Raises InvalidInput "tokenizer.*" and "template.*"."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise InvalidInput(
                "model.no_tokenizer",
                "The model folder has no tokenizer.json.",
                next_step="Save the tokenizer with transformers: save_pretrained.",
                file=path,
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise InvalidInput(
                "tokenizer.bad", f"tokenizer.json cannot be read: {error}.", next_step="Save it again.", file=path
            ) from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        config = _json(folder / "tokenizer_config.json")
        special = _special_tokens(folder, config, tokenizer)
        return cls(tokenizer, special, find_template(folder, config, chat_template))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        if self.template is not None:
            self.template.close()

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Plain text for pre-training: each document ends with the end token."""
        found = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts))]
        for ids in found:
            if not ids or ids[-1] != self.eos_token_id:
                ids.append(self.eos_token_id)
        return found

    def encode(self, rows: Sequence[Row], *, train_on_prompt: bool = False) -> list[Encoded | Problem]:
        """A batch of rows of one format; of preferences see `pairing`. A row that the template refuses comes back as a
        Problem. A prompt ends where the model is to go on, with nothing to learn."""
        if not rows:
            return []
        if rows[0].format is Format.ANSWERS:
            return self._unlearnt([row.plain() for row in rows])
        if self.template is not None and rows[0].asked:
            rows = [row.as_conversation() for row in rows]
        if rows[0].is_conversational:
            found = self._conversations(rows)
        elif rows[0].format is Format.TEXT:
            found = self._texts(rows)
        elif rows[0].format is Format.PROMPT:
            found = self._unlearnt([cast("str", row.prompt) for row in rows])
        else:
            found = self._pairs(rows)
        if train_on_prompt:
            return [
                Encoded(item.tokens, b"\1" * len(item.tokens)) if isinstance(item, Encoded) else item for item in found
            ]
        return found

    def pieces(self, encoded: Encoded) -> list[tuple[str, bool]]:
        """The row as text, cut where the loss mask changes: what a person checks before paying."""
        found: list[tuple[str, bool]] = []
        start = 0
        for end in range(1, len(encoded.tokens) + 1):
            if end == len(encoded.tokens) or encoded.mask[end] != encoded.mask[start]:
                text = self.tokenizer.decode(encoded.tokens[start:end], skip_special_tokens=False)
                found.append((text, encoded.mask[start] == 1))
                start = end
        return found

    # ---- plain rows ------------------------------------------------------------------------------------------------

    def _with_eos(self, text: str) -> str:
        return text if text.endswith(self.eos_token) else text + self.eos_token

    def _texts(self, rows: Sequence[Row]) -> list[Encoded | Problem]:
        encodings = self.tokenizer.encode_batch_fast([self._with_eos(row.text) for row in rows])
        return [Encoded(ids, b"\1" * len(ids)) for ids in (encoding.ids for encoding in encodings)]

    def _pairs(self, rows: Sequence[Row]) -> list[Encoded | Problem]:
        """Prompt and completion are tokenised together; labels begin where that leaves the prompt's own tokens."""
        prompts = [cast("str", row.prompt) for row in rows]
        wholes = [
            prompt + self._with_eos(cast("str", row.completion)) for prompt, row in zip(prompts, rows, strict=True)
        ]
        encodings = self.tokenizer.encode_batch_fast(prompts + wholes)
        return [_departing(first.ids, second.ids) for first, second in _halves(encodings)]

    def _unlearnt(self, texts: Sequence[str]) -> list[Encoded | Problem]:
        """Text to go on from: an end token that the tokenizer adds by itself would end it before it began."""
        found: list[Encoded | Problem] = []
        for text, encoding in zip(texts, self.tokenizer.encode_batch_fast(list(texts)), strict=True):
            ids = encoding.ids
            if ids and ids[-1] == self.eos_token_id and not text.endswith(self.eos_token):
                ids = ids[:-1]
            found.append(Encoded(ids, bytes(len(ids))))
        return found

    # ---- conversations ---------------------------------------------------------------------------------------------

    def _conversations(self, rows: Sequence[Row]) -> list[Encoded | Problem]:
        if self.template is None:
            raise InvalidInput(
                "template.missing",
                "The rows are conversations, but the model has no chat template.",
                next_step="Set params.chat_template: chatml (--chat-template chatml), use a chat model, or give text.",
                file=rows[0].file,
                line=rows[0].line,
                key="messages" if rows[0].format is Format.MESSAGES else "prompt",
            )
        requests = [_request(row) for row in rows]
        found: list[Encoded | Problem | None] = [None] * len(rows)
        good: list[tuple[int, list[str]]] = []
        for index, answer in enumerate(self.template.render(requests)):
            if isinstance(answer, RowRefused):
                found[index] = _refused(rows[index], answer)
            else:
                good.append((index, answer))
        encoders = {Format.MESSAGES: self._marked, Format.PROMPT: self._asked}
        encode = encoders.get(rows[0].format, self._rendered_pairs)
        for (index, _), item in zip(good, encode(rows, good), strict=True):
            found[index] = item
        return [item for item in found if item is not None]

    def _asked(self, _rows: Sequence[Row], good: Sequence[tuple[int, list[str]]]) -> list[Encoded | Problem]:
        encodings = self.tokenizer.encode_batch_fast([answer[0] for _, answer in good], add_special_tokens=False)
        return [Encoded(encoding.ids, bytes(len(encoding.ids))) for encoding in encodings]

    def _rendered_pairs(self, _rows: Sequence[Row], good: Sequence[tuple[int, list[str]]]) -> list[Encoded | Problem]:
        texts = [answer[0] for _, answer in good] + [answer[1] for _, answer in good]
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [_departing(first.ids, second.ids) for first, second in _halves(encodings)]

    def _marked(self, rows: Sequence[Row], good: Sequence[tuple[int, list[str]]]) -> list[Encoded | Problem]:
        encodings = self.tokenizer.encode_batch([answer[0] for _, answer in good], add_special_tokens=False)
        found: list[Encoded | Problem] = []
        for (index, answer), encoding in zip(good, encodings, strict=True):
            spans = assistant_spans(rows[index].messages, answer)
            if isinstance(spans, RowRefused):
                found.append(_refused(rows[index], spans))
            else:
                found.append(Encoded(encoding.ids, _mask(encoding.offsets, spans)))
        return found


def _request(row: Row) -> RenderRequest:
    if row.format is Format.MESSAGES:
        return RenderRequest(messages=row.messages, tools=row.tools, renders=turn_renders(row.messages))
    prompt = cast("list[Message]", row.prompt)
    if row.format is Format.PROMPT:
        return RenderRequest(messages=prompt, tools=row.tools, renders=[(len(prompt), True)])
    completion = cast("list[Message]", row.completion)
    whole = [*prompt, *completion]
    return RenderRequest(messages=whole, tools=row.tools, renders=[(len(prompt), True), (len(whole), False)])


def _halves(encodings: Sequence[Encoding]) -> zip[tuple[Encoding, Encoding]]:
    middle = len(encodings) // 2
    return zip(encodings[:middle], encodings[middle:], strict=True)


def _departing(prompt: list[int], whole: list[int]) -> Encoded:
    """Labels from the first token at which the whole row departs from its prompt tokenised alone (as TRL does)."""
    shared = len(prompt)
    if whole[:shared] != prompt:
        shared = next(
            (at for at, (one, other) in enumerate(zip(prompt, whole, strict=False)) if one != other),
            min(len(prompt), len(whole)),
        )
    return Encoded(whole, bytes(shared) + b"\1" * (len(whole) - shared))


def _mask(offsets: Sequence[Span], spans: Sequence[Span]) -> bytes:
    """1 for each token that overlaps a span; tokens and spans both run forward, so each span's tokens are one run."""
    mask = bytearray(len(offsets))
    first = 0
    for begin, end in spans:
        first = bisect_right(offsets, begin, first, key=_end)
        last = bisect_left(offsets, end, first, key=_begin)
        mask[first:last] = b"\1" * (last - first)
    return bytes(mask)


def _refused(row: Row, reason: RowRefused) -> Problem:
    return Problem(
        file=row.file,
        line=row.line,
        key="messages" if row.format is Format.MESSAGES else "prompt",
        code="data.template_refused",
        sentence=f"The chat template refuses this conversation: {reason.sentence.rstrip('.')}.",
        fix="Mend the order or roles of its messages, or remove the row.",
    )


# ---- the tokenizer's companions -----------------------------------------------------------------------------------


def _json(path: Path) -> dict[str, Any]:
    value: object = {}
    try:
        if path.is_file():
            value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InvalidInput(
            "model.bad_json", f"{path.name} is not valid JSON: {error}.", next_step="Save it again.", file=path
        ) from error
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _special_tokens(folder: Path, config: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, str]:
    """Names and texts of the special tokens as templates see them; the end token is a must."""
    older = _json(folder / "special_tokens_map.json")
    named = ((name, _token_text(config.get(name) or older.get(name))) for name in _SPECIAL)
    found = {name: text for name, text in named if text is not None}
    if "eos_token" not in found:
        ids = _json(folder / "generation_config.json").get("eos_token_id")
        ids = _json(folder / "config.json").get("eos_token_id") if ids is None else ids
        if isinstance(ids, list) and ids:  # several end tokens; the first is written
            ids = ids[0]  # pyright: ignore[reportUnknownVariableType]
        text = tokenizer.id_to_token(ids) if isinstance(ids, int) and ids >= 0 else None
        if text is None:
            raise InvalidInput(
                "tokenizer.no_eos",
                "Neither tokenizer nor config name an end token.",
                next_step="Set eos_token in tokenizer_config.json.",
                file=folder / "tokenizer_config.json",
            )
        found["eos_token"] = text
    return found


def _token_text(value: Any) -> str | None:
    """A special token is written as its text, or as an object with its text and properties."""
    if isinstance(value, Mapping):
        value = cast("Mapping[str, Any]", value).get("content")
    return value if isinstance(value, str) else None
