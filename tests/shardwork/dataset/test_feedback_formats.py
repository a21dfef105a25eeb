"""Rows of feedback: prompts, labels, scores and several answers are told apart by what their recipe reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardwork.dataset import CheckOptions, Source, check_data
from shardwork.dataset.row import Answer, Format, Row
from shardwork.dataset.rows import read_rows
from shardwork.dataset.source import read_lines, source_files, staged_files
from shardwork.dataset.staged import convert, staged_suffix
from shardwork.problem import Problem

from .folders import turn, write_jsonl, write_parquet

PROMPTS: list[dict[str, Any]] = [{"prompt": f"{n} + 1?", "answer": str(n + 1), "completion": "old"} for n in range(4)]
LABELS: list[dict[str, Any]] = [{"prompt": f"{n}?", "completion": f" {n}", "label": n % 2 == 0} for n in range(4)]
SCORES: list[dict[str, Any]] = [{"prompt": f"{n}?", "completion": f" {n}", "score": n / 4} for n in range(4)]
ANSWERS: list[dict[str, Any]] = [
    {"prompt": f"{n}?", "answers": [{"model": "m", "text": f"a{n}"}, {"model": "o", "text": "ä"}], "prompt_id": f"p{n}"}
    for n in range(4)
]
PREFERENCES: list[dict[str, Any]] = [{"prompt": "a", "chosen": "b", "rejected": "c"}]


def read(path: Path, recipe: str, **reading: Any) -> list[Row | Problem]:
    return list(read_rows(read_lines(source_files([Source(files=(path,), name="f", **reading)], recipe))))


def rows_of(path: Path, recipe: str, **reading: Any) -> list[Row]:
    found = read(path, recipe, **reading)
    assert not [row for row in found if isinstance(row, Problem)]
    return [row for row in found if isinstance(row, Row)]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), "utf-8", newline="")
    return path


CONTAINERS: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    "a.jsonl": write_jsonl,
    "a.csv": write_csv,
    "a.parquet": lambda path, rows: write_parquet(path, {key: [row[key] for row in rows] for key in rows[0]}),
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize(
    ("rows", "recipe", "format_"),
    [
        (PROMPTS, "grpo", Format.PROMPT),
        (LABELS, "dpo", Format.LABELLED),
        (SCORES, "reward", Format.SCORED),
        (PREFERENCES, "reward", Format.PREFERENCE),
        (PREFERENCES, "judge", Format.PREFERENCE),
    ],
)
def test_every_container_gives_the_rows_that_the_recipe_reads_and_they_travel_whole(
    name: str, rows: list[dict[str, Any]], recipe: str, format_: Format, tmp_path: Path
) -> None:
    path = CONTAINERS[name](tmp_path / name, rows)
    found = rows_of(path, recipe)
    assert [row.format for row in found] == [format_] * len(rows)
    assert [row.value for row in found] == [float(row.get("label", row.get("score", 1.0))) for row in rows]
    if format_ is Format.PROMPT:
        assert [row.extra for row in found] == [{"answer": row["answer"], "completion": "old"} for row in rows]
    (file,) = source_files([path], recipe)
    staged = tmp_path / "staged"
    staged.mkdir()
    convert(file, staged / f"0{staged_suffix(file)}")
    again = [row for row in read_rows(read_lines(staged_files(staged, recipe))) if isinstance(row, Row)]
    assert [(row.digest(), row.extra) for row in again] == [(row.digest(), row.extra) for row in found]


def test_the_same_rows_are_what_each_recipe_makes_of_them(tmp_path: Path) -> None:
    labels, scores = write_jsonl(tmp_path / "l.jsonl", LABELS), write_jsonl(tmp_path / "s.jsonl", SCORES)
    assert {row.format for row in rows_of(labels, "ppo")} == {Format.PROMPT}
    assert {row.format for row in rows_of(labels, "")} == {Format.LABELLED}
    assert {row.format for row in rows_of(scores, "sft")} == {Format.PROMPT_COMPLETION}
    assert rows_of(scores, "sft")[0].ignored == ("score",)
    told = read(labels, "sft")
    assert {row.code for row in told if isinstance(row, Problem)} == {"data.wrong_format"}
    language = write_jsonl(tmp_path / "c.jsonl", [{"prompt": "a", "completion": "b", "label": "en"}])
    assert rows_of(language, "")[0].format is Format.PROMPT_COMPLETION


def test_answers_are_read_with_their_models_and_ids(tmp_path: Path) -> None:
    found = rows_of(write_jsonl(tmp_path / "a.jsonl", ANSWERS), "people")
    assert found[1].answers == (Answer("m", "a1"), Answer("o", "ä")) and found[1].prompt_id == "p1"
    assert {row.shape for row in found} == {"answers"}
    bare = write_jsonl(tmp_path / "b.jsonl", [{"prompt": [turn("user", "a")], "answers": ["x", "y"], "level": 1}])
    (row,) = rows_of(bare, "judge")
    assert [answer.model for answer in row.answers] == ["answer-1", "answer-2"] and row.extra["level"] == 1
    assert row.shape == "answers (conversations)" and check_data([bare], recipe="judge").errors == ()


def test_text_may_serve_as_a_prompt_and_stand_beside_prompts(tmp_path: Path) -> None:
    text = write_jsonl(tmp_path / "a.jsonl", [{"text": "Go on", "level": 2}])
    prompts = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "And?"}])
    report = check_data([text, prompts], recipe="ppo")
    assert report.errors == () and [source.shape for source in report.sources] == ["text", "prompt"]
    assert rows_of(text, "ppo")[0].extra == {"level": 2}
    assert rows_of(text, "ppo", format="text")[0].prompt == "Go on"
    both = write_jsonl(tmp_path / "c.jsonl", [{"text": "a", "prompt": "b"}])
    assert rows_of(both, "ppo")[0].prompt == "b" and rows_of(both, "sft")[0].text == "a"


BAD: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a prompt without text": ("ppo", {"prompt": " "}, "data.empty_value", "prompt"),
    "no prompt": ("grpo", {"question": "a"}, "data.unknown_format", "question"),
    "a slip": ("generate", {"promt": "a"}, "data.unknown_key", "promt"),
    "an answered prompt": ("ppo", {"prompt": [turn("assistant", "a")]}, "data.answered_prompt", "prompt"),
    "equal answers": ("dpo", {"prompt": "a", "chosen": "b", "rejected": "b"}, "data.no_preference", "rejected"),
    "no rejected": ("reward", {"prompt": "a", "chosen": "b"}, "data.missing_key", "rejected"),
    "no chosen": ("reward", {"prompt": "a", "rejected": "b"}, "data.missing_key", "chosen"),
    "a prompt alone to learn from": ("dpo", {"prompt": "a"}, "data.missing_key", "chosen"),
    "a label without a completion": ("dpo", {"prompt": "a", "label": True}, "data.missing_key", "chosen"),
    "a label that is a word": ("dpo", {"prompt": "a", "completion": "b", "label": "good"}, "data.wrong_type", "label"),
    "a label that is a number": ("dpo", {"prompt": "a", "completion": "b", "label": 1}, "data.wrong_type", "label"),
    "a score that is true": ("reward", {"prompt": "a", "completion": "b", "score": True}, "data.wrong_type", "score"),
    "an endless score": (
        "reward", {"prompt": "a", "completion": "b", "score": float("inf")}, "data.bad_value", "score",
    ),
    "one answer": ("judge", {"prompt": "a", "answers": ["b"]}, "data.few_answers", "answers"),
    "no answers": ("people", {"prompt": "a", "answers": []}, "data.few_answers", "answers"),
    "too many answers": ("judge", {"prompt": "a", "answers": ["b"] * 257}, "data.few_answers", "answers"),
    "answers that are text": ("judge", {"prompt": "a", "answers": "b"}, "data.wrong_type", "answers"),
    "an answer without text": (
        "judge", {"prompt": "a", "answers": ["b", {"model": "m"}]}, "data.missing_key", "answers.1.text",
    ),
    "an answer that is a number": ("judge", {"prompt": "a", "answers": ["b", 3]}, "data.wrong_type", "answers.1"),
    "a model without name": (
        "judge", {"prompt": "a", "answers": ["b", {"text": "c", "model": " "}]}, "data.wrong_type", "answers.1.model",
    ),
    "unsure of the other one": (
        "dpo", {"prompt": "a", "chosen": "b", "rejected": "c", "confidence": 0.1}, "data.bad_value", "confidence",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_by_file_line_and_key(name: str, tmp_path: Path) -> None:
    recipe, row, code, key = BAD[name]
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    problem = check_data([path], recipe=recipe).errors[0]
    assert (problem.code, problem.line, problem.key) == (code, 1, key)
    assert problem.file == str(path) and problem.fix and problem.sentence.endswith(".")


@pytest.mark.parametrize("recipe", ["reward", "dpo", "ppo", "grpo", "generate", "judge", "people"])
def test_rows_of_another_kind_are_refused_with_what_the_recipe_reads(recipe: str, tmp_path: Path) -> None:
    talk = write_jsonl(tmp_path / "a.jsonl", [{"messages": [turn("user", "a"), turn("assistant", "b")]}])
    (error,) = check_data([talk], recipe=recipe).errors
    assert error.code == "data.wrong_format" and recipe in error.sentence and "messages" in error.sentence
    assert "`" in error.fix


def test_the_objective_says_which_kind_of_judged_rows_it_learns_from(tmp_path: Path) -> None:
    labels, pairs = write_jsonl(tmp_path / "l.jsonl", LABELS), write_jsonl(tmp_path / "p.jsonl", PREFERENCES * 2)
    asked = CheckOptions(rows_are="pairs")
    (error,) = check_data([labels], recipe="dpo", options=asked).errors
    assert error.code == "data.wrong_format" and "params.loss" in error.fix
    assert check_data([pairs], recipe="dpo", options=asked).errors == ()
    assert check_data([pairs], recipe="dpo", options=CheckOptions(rows_are="labelled")).errors == ()


def test_prompts_must_hold_what_answers_are_graded_by(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "a", "answer": "b"}, {"prompt": "c"}])
    (error,) = check_data([path], recipe="grpo", options=CheckOptions(row_keys=("answer",))).errors
    assert (error.code, error.line, error.key) == ("data.missing_key", 2, "answer")
