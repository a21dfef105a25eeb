"""Answers: the folders that generation, scoring and judging read and write, and what may lie in them.

Owns the files' names, types and bounds; what the numbers mean is said in `orders`. Answers, scores and verdicts come
from volunteers: whatever does not fit the order that asked for it is refused before anybody learns from it. numpy only;
called by the worker (`training/generation`, learning from answers) and the executor (splitting, joining, grading).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeGuard, cast

import numpy as np
import numpy.typing as npt

from ...errors import Corrupt, InvalidInput
from ...tensors.file import open_tensors, write_tensors
from .orders import GenerateOrder, JudgeOrder

Ints = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.uint8]
Arrays = Mapping[str, npt.NDArray[Any]]

PROMPTS, ANSWERS, SCORES = "prompts.safetensors", "answers.safetensors", "scores.safetensors"
PAIRS, VERDICTS = "pairs.safetensors", "verdicts.safetensors"
ROWS, INDEX = "rows.jsonl", "index.json"
#: an index is a handful of numbers
INDEX_CAP_BYTES = 64 * 1024
MOST_END_TOKENS = 64
#: ids that any tokenizer has, where a reader does not know the model
ANY_TOKEN = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Prompts as tokens, and which tokens end an answer."""

    tokens: Ints
    offsets: Offsets
    pad_token_id: int
    end_tokens: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def prompt(self, number: int) -> Ints:
        """Counted modulo their number, as orders do."""
        number %= len(self)
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]

    def of_row(self, order: GenerateOrder, row: int) -> Ints:
        """What row `row` of this order's answers answers."""
        return self.prompt(order.first_prompt + row // order.answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Drawn answers: the end token is included where it came."""

    tokens: Ints
    offsets: Offsets
    #: log softmax of logits / temperature (1 where that is 0) at each token, before top-p
    logprobs: Floats
    #: 1: ended by itself; 0: max_new_tokens are full
    ended: Flags

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def answer(self, row: int) -> Ints:
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    def logprobs_of(self, row: int) -> Floats:
        return self.logprobs[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """What a judge reads: row 2i shows answer A of pair i first, row 2i + 1 answer B."""

    tokens: Ints
    offsets: Offsets
    pad_token_id: int
    #: the tokens that say "the first is better" and "the second is better"
    first_token: int
    second_token: int

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // 2

    def row(self, number: int) -> Ints:
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Probability that answer A of each pair is better, with A shown first and with B shown first."""

    first: Floats
    second: Floats


# ---- prompts ----------------------------------------------------------------------------------------------------


def write_prompts(
    folder: Path,
    prompts: Iterable[Sequence[int]],
    rows: Iterable[Mapping[str, Any]],
    *,
    pad_token_id: int,
    end_tokens: Sequence[int],
) -> None:
    """Tokens of each prompt, and beside them its row: {"id", "prompt", …}."""
    tokens, offsets = flat(prompts)
    write_tensors(folder / PROMPTS, {"tokens": tokens, "offsets": offsets})
    _write_rows(folder, rows)
    index = {"prompts": len(offsets) - 1, "pad_token_id": pad_token_id, "eos_token_ids": list(end_tokens)}
    _write_index(folder, index)


def read_prompts(folder: Path, *, max_length: int, vocabulary: int = ANY_TOKEN) -> Prompts:
    """Raises Corrupt "answers.unreadable" when there is none, or one is empty, too long or no text of this model."""
    found = _read(folder / PROMPTS, {"tokens": "I32", "offsets": "I64"}, "prompts")
    _check_spans(found, None, max_length, vocabulary, "prompts")
    index = _read_index(folder, "prompts")
    if index.get("prompts") != len(found["offsets"]) - 1:
        _refuse("prompts", "the index counts other prompts")
    ends = index.get("eos_token_ids")
    ids = cast("list[object]", ends) if isinstance(ends, list) else [None]
    if len(ids) > MOST_END_TOKENS or not all(_is_count(one) for one in ids):
        _refuse("prompts", "the end tokens are no list of ids")
    return Prompts(
        tokens=found["tokens"],
        offsets=found["offsets"],
        pad_token_id=_pad(index, vocabulary),
        end_tokens=tuple(sorted(set(cast("list[int]", ids)))),
    )


# ---- answers and scores -----------------------------------------------------------------------------------------


def write_answers(folder: Path, answers: Answers) -> None:
    arrays = {name: getattr(answers, name) for name in ("tokens", "offsets", "logprobs", "ended")}
    write_tensors(folder / ANSWERS, arrays)


def read_answers(folder: Path, order: GenerateOrder, prompts: Prompts, *, vocabulary: int = ANY_TOKEN) -> Answers:
    """What a worker made of `order`. Raises Corrupt "answers.unreadable".

    An answer goes on to its end token or to the last token that it may have: a cut one is refused here.
    """
    found = _read(folder / ANSWERS, {"tokens": "I32", "offsets": "I64", "logprobs": "F32", "ended": "U8"}, "answers")
    longest = order.sampling.max_new_tokens
    _check_spans(found, order.rows, longest, vocabulary, "answers")
    logprobs, ended, offsets = found["logprobs"], found["ended"], found["offsets"]
    if len(logprobs) != len(found["tokens"]) or len(ended) != order.rows:
        _refuse("answers", "the tensors have other lengths")
    if not np.isfinite(logprobs).all() or (logprobs > 0).any():
        _refuse("answers", "a log-probability cannot be")
    ends = np.isin(found["tokens"], np.array(prompts.end_tokens, np.int32))
    lasts = offsets[1:] - 1
    if not np.array_equal(ended, ends[lasts].astype(np.uint8)) or ends.sum() != ended.sum():
        _refuse("answers", "an answer goes on after its end, or says it ended where it did not")
    if ((np.diff(offsets) < longest) & (ended == 0)).any():
        _refuse("answers", "an answer stops before its end")
    return Answers(tokens=found["tokens"], offsets=offsets, logprobs=logprobs, ended=ended)


def write_scores(folder: Path, scores: Floats) -> None:
    write_tensors(folder / SCORES, {"scores": scores})


def read_scores(folder: Path, rows: int) -> Floats:
    """One number for each of `rows`. Raises Corrupt "answers.unreadable"."""
    return _numbers(_read(folder / SCORES, {"scores": "F32"}, "scores"), "scores", rows, "scores")


# ---- pairs and verdicts -----------------------------------------------------------------------------------------


def write_pairs(
    folder: Path,
    shown: Iterable[Sequence[int]],
    rows: Iterable[Mapping[str, Any]],
    *,
    pad_token_id: int,
    first_token: int,
    second_token: int,
) -> None:
    """`shown`: two rows of tokens a pair, A first and then B first. `rows`: a row a pair."""
    tokens, offsets = flat(shown)
    write_tensors(folder / PAIRS, {"tokens": tokens, "offsets": offsets})
    _write_rows(folder, rows)
    pairs = (len(offsets) - 1) // 2
    _write_index(folder, {"pairs": pairs, "a": first_token, "b": second_token, "pad_token_id": pad_token_id})


def read_pairs(folder: Path, order: JudgeOrder, *, vocabulary: int = ANY_TOKEN) -> Pairs:
    """Raises Corrupt "answers.unreadable"."""
    found = _read(folder / PAIRS, {"tokens": "I32", "offsets": "I64"}, "pairs")
    _check_spans(found, 2 * order.pairs, order.max_length, vocabulary, "pairs")
    index = _read_index(folder, "pairs")
    first, second = index.get("a"), index.get("b")
    if not (_is_count(first) and _is_count(second)) or first == second or max(first, second) >= vocabulary:
        _refuse("pairs", "the index does not name two tokens of the judge")
    return Pairs(
        tokens=found["tokens"],
        offsets=found["offsets"],
        pad_token_id=_pad(index, vocabulary),
        first_token=first,
        second_token=second,
    )


def write_verdicts(folder: Path, verdicts: Verdicts) -> None:
    write_tensors(folder / VERDICTS, {"first": verdicts.first, "second": verdicts.second})


def read_verdicts(folder: Path, pairs: int) -> Verdicts:
    """Raises Corrupt "answers.unreadable"."""
    found = _read(folder / VERDICTS, {"first": "F32", "second": "F32"}, "verdicts")
    first, second = (_numbers(found, name, pairs, "verdicts") for name in ("first", "second"))
    if min(first.min(), second.min()) < 0 or max(first.max(), second.max()) > 1:
        _refuse("verdicts", "a probability lies outside of 0 to 1")
    return Verdicts(first=first, second=second)


# ---- what they share --------------------------------------------------------------------------------------------


def flat(rows: Iterable[Sequence[int] | Ints]) -> tuple[Ints, Offsets]:
    """Rows of tokens one after the other, and where each begins and the last ends."""
    parts = [np.asarray(row, np.int32) for row in rows]
    lengths = np.array([0, *(len(part) for part in parts)], np.int64)
    return np.concatenate([np.zeros(0, np.int32), *parts]), np.cumsum(lengths, dtype=np.int64)


def _read(path: Path, wanted: Mapping[str, str], what: str) -> dict[str, npt.NDArray[Any]]:
    """Copies of exactly these tensors, each of one dimension."""
    try:
        with open_tensors(path) as opened:
            if opened.dtypes != dict(wanted) or any(len(shape) != 1 for shape in opened.shapes.values()):
                _refuse(what, "the file holds other tensors")
            return {name: opened[name].copy() for name in wanted}
    except (OSError, InvalidInput) as error:
        raise Corrupt("answers.unreadable", f"The {what} cannot be read.", file=path.name, reason=error) from error


def _check_spans(found: Arrays, rows: int | None, longest: int, vocabulary: int, what: str) -> None:
    """Offsets that rise from 0 to the last token, 1 to `longest` tokens each, every token below `vocabulary`."""
    tokens, offsets = found["tokens"], found["offsets"]
    if len(offsets) < 2 or (rows is not None and len(offsets) != rows + 1):
        _refuse(what, "there are fewer or more rows than were asked for")
    if offsets[0] != 0 or offsets[-1] != len(tokens):
        _refuse(what, "the offsets do not cover the tokens")
    # compared, not subtracted: the difference of two hostile numbers can wrap round
    if (offsets[1:] <= offsets[:-1]).any() or np.diff(offsets).max() > longest:
        _refuse(what, "a row is empty or longer than allowed")
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        _refuse(what, "a token lies outside of the vocabulary")


def _numbers(found: Arrays, name: str, rows: int, what: str) -> Floats:
    values: Floats = found[name]
    if not 1 <= rows == len(values) or not np.isfinite(values).all():
        _refuse(what, "there are not as many finite numbers as were asked for")
    return values


def _write_rows(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with (folder / ROWS).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_index(folder: Path, index: Mapping[str, Any]) -> None:
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _read_index(folder: Path, what: str) -> dict[str, Any]:
    path = folder / INDEX
    try:
        if path.stat().st_size > INDEX_CAP_BYTES:
            _refuse(what, "its index is too large")
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise Corrupt("answers.unreadable", f"The {what} have no readable index.json.") from error


def _pad(index: Mapping[str, Any], vocabulary: int) -> int:
    """What rows are filled up with. Any token serves."""
    named = index.get("pad_token_id")
    return named if _is_count(named) and named < vocabulary else 0


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < ANY_TOKEN


def _refuse(what: str, reason: str) -> NoReturn:
    raise Corrupt("answers.unreadable", f"The {what} are not what the order asked for: {reason}.")
