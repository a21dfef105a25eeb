"""Folders of answers: what is written is read, and what a hostile worker could write is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardwork.errors import Corrupt
from shardwork.recipes.alignment import answers as folders
from shardwork.recipes.alignment.orders import GenerateOrder, JudgeOrder, Sampling
from shardwork.tensors.file import write_tensors

END, VOCABULARY, MOST = 9, 20, 4
ORDER = GenerateOrder(
    tuning=None,
    first_prompt=1,
    prompts=2,
    answers=2,
    sampling=Sampling(max_new_tokens=MOST),
    max_length=8,
    batch_size=4,
)
JUDGE = JudgeOrder(pairs=2, max_length=8, batch_size=4)
ROWS = [[1, END], [1, 2, 3, 4], [END], [5, 6, END]]


def write_prompts(folder: Path) -> None:
    rows = [{"id": "a", "prompt": "é"}, {"id": "b", "prompt": "two"}, {"id": "c", "prompt": "three"}]
    folders.write_prompts(folder, [[1], [2, 3], [4, 5, 6]], rows, pad_token_id=0, end_tokens=[END])


def prompts(folder: Path) -> folders.Prompts:
    write_prompts(folder)
    return folders.read_prompts(folder, max_length=8, vocabulary=VOCABULARY)


def good() -> dict[str, Any]:
    tokens, offsets = folders.flat(ROWS)
    return {
        "tokens": tokens,
        "offsets": offsets,
        "logprobs": np.full(len(tokens), -0.5, np.float32),
        "ended": np.array([1, 0, 1, 1], np.uint8),
    }


def refused(read: Callable[[], object]) -> None:
    with pytest.raises(Corrupt) as caught:
        read()
    assert caught.value.code == "answers.unreadable"


def test_prompts_are_read_as_written(tmp_path: Path) -> None:
    read = prompts(tmp_path)
    assert [read.prompt(number).tolist() for number in range(4)] == [[1], [2, 3], [4, 5, 6], [1]]
    assert (len(read), read.pad_token_id, read.end_tokens) == (3, 0, (END,))
    assert [read.of_row(ORDER, row).tolist() for row in range(4)] == [[2, 3], [2, 3], [4, 5, 6], [4, 5, 6]]
    assert [json.loads(line)["id"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == ["a", "b", "c"]


def test_answers_are_read_as_written(tmp_path: Path) -> None:
    folders.write_answers(tmp_path, folders.Answers(**good()))
    read = folders.read_answers(tmp_path, ORDER, prompts(tmp_path), vocabulary=VOCABULARY)
    assert [read.answer(row).tolist() for row in range(len(read))] == ROWS
    assert read.logprobs_of(3).tolist() == [-0.5] * 3


def changed(**arrays: Any) -> dict[str, Any]:
    return {**good(), **{name: np.asarray(values, good()[name].dtype) for name, values in arrays.items()}}


HOSTILE: dict[str, dict[str, Any]] = {
    "a row too few": changed(offsets=[0, 2, 6, 10], ended=[1, 0, 1]),
    "offsets that fall": changed(offsets=[0, 2, 1, 7, 10]),
    "an empty row": changed(offsets=[0, 2, 2, 7, 10]),
    "offsets beyond the end": changed(offsets=[0, 2, 6, 7, 99]),
    "offsets that wrap round": changed(offsets=[0, 2**63 - 1, -(2**63), 7, 10]),
    "offsets that begin later": changed(offsets=[1, 2, 6, 7, 10]),
    "a row too long": changed(offsets=[0, 1, 6, 7, 10]),
    "a token beyond the vocabulary": changed(tokens=[1, END, 1, 2, VOCABULARY, 4, END, 5, 6, END]),
    "a negative token": changed(tokens=[1, END, 1, 2, -1, 4, END, 5, 6, END]),
    "a cut answer": changed(tokens=[1, 8, 1, 2, 3, 4, END, 5, 6, END], ended=[0, 0, 1, 1]),
    "a claimed end": changed(tokens=[1, 8, 1, 2, 3, 4, END, 5, 6, END]),
    "an unclaimed end": changed(ended=[1, 0, 1, 0]),
    "words after the end": changed(tokens=[1, END, 1, END, 3, 4, END, 5, 6, END]),
    "an end of two": changed(ended=[2, 0, 1, 1]),
    "NaN": changed(logprobs=[np.nan] * 10),
    "an infinity": changed(logprobs=[-np.inf] * 10),
    "a probability over 1": changed(logprobs=[0.5] * 10),
    "fewer log-probabilities": changed(logprobs=[-0.5] * 9),
    "another type": {**good(), "logprobs": np.full(10, -0.5, np.float64)},
    "another shape": {**good(), "logprobs": np.full((2, 5), -0.5, np.float32)},
    "a tensor more": {**good(), "extra": np.zeros(1, np.float32)},
    "a tensor less": {name: array for name, array in good().items() if name != "ended"},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_answers_are_refused(what: str, tmp_path: Path) -> None:
    asked = prompts(tmp_path)
    write_tensors(tmp_path / folders.ANSWERS, HOSTILE[what])
    refused(lambda: folders.read_answers(tmp_path, ORDER, asked, vocabulary=VOCABULARY))


def test_no_file_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    asked = prompts(tmp_path)
    refused(lambda: folders.read_answers(tmp_path, ORDER, asked))
    (tmp_path / folders.ANSWERS).write_bytes(b"\xff" * 64)
    refused(lambda: folders.read_answers(tmp_path, ORDER, asked))


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": 4},
        {"eos_token_ids": [True]},
        {"eos_token_ids": ["9"]},
        {"eos_token_ids": 9},
        {"eos_token_ids": [-1]},
        {"eos_token_ids": list(range(65))},
    ],
    ids=str,
)
def test_a_hostile_index_of_prompts_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    write_prompts(tmp_path)
    path = tmp_path / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refused(lambda: folders.read_prompts(tmp_path, max_length=8))


@pytest.mark.parametrize("text", ["[" * 5000, "null", "{", " " * 70_000, '{"prompts": 3}'])
def test_an_index_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    write_prompts(tmp_path)
    (tmp_path / "index.json").write_text(text)
    refused(lambda: folders.read_prompts(tmp_path, max_length=8))


def test_prompts_that_are_too_long_or_foreign_are_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path)
    refused(lambda: folders.read_prompts(tmp_path, max_length=2))
    refused(lambda: folders.read_prompts(tmp_path, max_length=8, vocabulary=6))


def test_scores_are_read_as_written_and_must_be_numbers(tmp_path: Path) -> None:
    folders.write_scores(tmp_path, np.array([1, -2, 3.5, 0], np.float32))
    assert folders.read_scores(tmp_path, 4).tolist() == [1, -2, 3.5, 0]
    refused(lambda: folders.read_scores(tmp_path, 5))
    folders.write_scores(tmp_path, np.array([1, np.inf, 3.5, 0], np.float32))
    refused(lambda: folders.read_scores(tmp_path, 4))


def test_verdicts_are_read_as_written_and_must_be_probabilities(tmp_path: Path) -> None:
    first, second = np.array([0.25, 1], np.float32), np.array([0, 0.5], np.float32)
    folders.write_verdicts(tmp_path, folders.Verdicts(first=first, second=second))
    read = folders.read_verdicts(tmp_path, 2)
    assert (read.first.tolist(), read.second.tolist()) == ([0.25, 1], [0, 0.5])
    refused(lambda: folders.read_verdicts(tmp_path, 3))
    folders.write_verdicts(tmp_path, folders.Verdicts(first=first * 2, second=second))
    refused(lambda: folders.read_verdicts(tmp_path, 2))


def test_pairs_are_read_as_written_and_name_two_tokens(tmp_path: Path) -> None:
    shown = [[1, 2], [2, 1], [3], [4]]
    folders.write_pairs(tmp_path, shown, [{"id": 1}, {"id": 2}], pad_token_id=0, first_token=5, second_token=6)
    read = folders.read_pairs(tmp_path, JUDGE, vocabulary=VOCABULARY)
    assert [read.row(number).tolist() for number in range(4)] == shown
    assert (len(read), read.first_token, read.second_token) == (2, 5, 6)
    refused(lambda: folders.read_pairs(tmp_path, JUDGE.model_copy(update={"pairs": 3})))
    refused(lambda: folders.read_pairs(tmp_path, JUDGE, vocabulary=6))
    folders.write_pairs(tmp_path, shown, [], pad_token_id=0, first_token=5, second_token=5)
    refused(lambda: folders.read_pairs(tmp_path, JUDGE))
