"""Samples: a row of answers or of preferences as what is shown of it: texts side by side, marks, what is said of them.

Rows are strangers': whatever a key holds, something is made of it, bounded and with finite numbers only; who shows it
escapes or cleans it. Pure; the dashboard and `shardwork job samples` use it, and so tell the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, cast

Row = dict[str, Any]

#: of one text, of what a text is called, and answers side by side
MOST_LETTERS, MOST_LABEL, MOST_ANSWERS = 6_000, 200, 8
LONGEST_SEARCH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleText:
    """An answer, or a prompt, under what it is called."""

    label: str
    text: str
    #: letters that are not shown
    more: int = 0
    #: "", "chosen" or "rejected"
    mark: str = ""
    #: of the answer, as its row says; None: it does not
    tokens: int | None = None
    logprob: float | None = None
    ended: bool | None = None

    @property
    def note(self) -> str:
        """ "24 tokens, log-probability -31.2, cut off"."""
        said = [] if self.tokens is None else [f"{self.tokens} tokens"]
        said += [] if self.logprob is None else [f"log-probability {self.logprob:.3g}"]
        said += ["cut off"] if self.ended is False else []
        return ", ".join(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """A prompt and its answers, of one output or of two."""

    prompt_id: str
    prompt: SampleText
    texts: tuple[SampleText, ...]
    #: answers that are not shown
    more: int = 0
    #: of a preference; None: its row does not say
    confidence: float | None = None
    votes: int | None = None

    @property
    def note(self) -> str:
        """ "confidence 75 %, 4 votes"."""
        said = [] if self.confidence is None else [f"confidence {100 * self.confidence:.0f} %"]
        said += [] if self.votes is None else [f"{self.votes} {'vote' if self.votes == 1 else 'votes'}"]
        return ", ".join(said)


def sample(row: Row, other: Row | None = None, names: tuple[str, str] = ("", "")) -> SampleRow:
    """`other`: the row of another output about the same prompt; then `names` tells which text is of which output."""
    own = _texts(row, names[0] if other is not None else "")
    others = [] if other is None else _texts(other, names[1])
    # by turns: neither pushes the other out, and what is side by side is of both
    every = [text for pair in zip_longest(own, others) for text in pair if text is not None]
    shown = every[:MOST_ANSWERS]
    return SampleRow(
        prompt_id=prompt_id(row)[:MOST_LABEL],
        prompt=_cut("Prompt", row.get("prompt", "")),
        texts=tuple(shown),
        more=len(every) - len(shown),
        confidence=_share(row.get("confidence")),
        votes=_count(row.get("votes")),
    )


def prompt_id(row: Row) -> str:
    """By which rows of two outputs meet; empty where the row has none."""
    value = row.get("prompt_id")
    return "" if value is None else _plain(value)


def first_of_each(prompts: Iterable[str]) -> Callable[[Row], bool]:
    """Wants one row of each of these prompts; of an output with several of each, the first."""
    left = set(prompts)

    def wanted(row: Row) -> bool:
        is_wanted = (found := prompt_id(row)) in left
        left.discard(found)
        return is_wanted

    return wanted


def is_about(row: Row, search: str) -> bool:
    """Whether the prompt has these words, in letters of any size."""
    return search.casefold() in words(row.get("prompt", "")).casefold()


def words(value: object) -> str:
    """A text, or a conversation's turns."""
    if not isinstance(value, list):
        return _plain(value)
    turns = [cast("Row", one) if isinstance(one, dict) else {"content": one} for one in cast("list[object]", value)]
    if len(turns) == 1:
        return _plain(turns[0].get("content", ""))
    return "\n\n".join(f"{_plain(turn.get('role', ''))}: {_plain(turn.get('content', ''))}" for turn in turns)


def _texts(row: Row, source: str) -> list[SampleText]:
    """The row's answers. `source`: told with each where there are several."""
    of = f" · {source}" if source else ""
    if "chosen" in row or "rejected" in row:
        return [_cut(f"{name}{of}", row.get(name, ""), mark=name) for name in ("chosen", "rejected")]
    answers: Any = row.get("answers")
    if isinstance(answers, list):
        return [_answer(one, of) for one in cast("list[object]", answers)]
    return [_cut(f"{name}{of}", row[name]) for name in ("completion", "answer", "text") if name in row][:1]


def _answer(value: object, of: str) -> SampleText:
    answer = cast("Row", value) if isinstance(value, dict) else {"text": value}
    ended = answer.get("ended")
    return _cut(
        f"{_plain(answer.get('model') or 'answer')}{of}",
        answer.get("text", ""),
        tokens=_count(answer.get("tokens")),
        logprob=_number(answer.get("logprob")),
        ended=ended if isinstance(ended, bool) else None,
    )


def _cut(label: str, value: object, **said: Any) -> SampleText:
    text = words(value)
    more = max(len(text) - MOST_LETTERS, 0)
    return SampleText(label=label[:MOST_LABEL], text=text[:MOST_LETTERS], more=more, **said)


def _plain(value: object) -> str:
    if isinstance(value, str):
        return _letters(value)
    try:
        return _letters(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        return "(nested too deep to be shown)"


def _letters(text: str) -> str:
    """Half a surrogate pair, which JSON can spell and no page can hold, is shown as '?'."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _number(value: object) -> float | None:
    """One that can be shown: JSON can also spell what is endless, or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _share(value: object) -> float | None:
    found = _number(value)
    return found if found is not None and 0 <= found <= 1 else None


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53
    return cast("int", value) if is_count else None
