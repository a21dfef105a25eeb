"""Good files in every form: recognised, read the same whatever contains them, rendered, counted, converted."""

from __future__ import annotations

import builtins
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardwork.dataset import CheckOptions, DataReport, Source, check_data
from shardwork.dataset.row import Format, Row
from shardwork.dataset.rows import read_rows
from shardwork.dataset.source import read_lines, source_files, staged_files
from shardwork.dataset.staged import convert, staged_suffix, travels_as_it_is
from shardwork.problem import Problem

from .folders import CHAT, tokenizer_folder, turn, write_jsonl, write_parquet

PAIRS: list[dict[str, Any]] = [{"prompt": f"Say {n}, please", "completion": f'"{n}"\nthen'} for n in range(5)]
TALKS: list[dict[str, Any]] = [
    {"messages": [turn("user", f"Why {n}?"), turn("assistant", f"Because {n}.")]} for n in range(5)
]
SHAREGPT: list[dict[str, Any]] = [
    {"conversations": [{"from": "human", "value": f"Why {n}?"}, {"from": "gpt", "value": f"Because {n}."}]}
    for n in range(5)
]
ALPACA: list[dict[str, Any]] = [
    {"instruction": f"Add one to {n}.", "input": "" if n % 2 else "as a word", "output": str(n + 1)} for n in range(5)
]
CHOICES: list[dict[str, Any]] = [{"prompt": f"{n}?", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("model"), template=CHAT)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("bare"))


def rows_of(*paths: Path, **reading: Any) -> list[Row]:
    sources = [Source(files=(path,), name=path.name, **reading) for path in paths]
    found = list(read_rows(read_lines(source_files(sources))))
    assert not [row for row in found if isinstance(row, Problem)]
    return [row for row in found if isinstance(row, Row)]


def write_table(path: Path, rows: list[dict[str, Any]], delimiter: str) -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path.write_text("\ufeff" + text.getvalue(), "utf-8", newline="")
    return path


def write_list(path: Path, rows: list[dict[str, Any]], indent: int | None) -> Path:
    path.write_text(json.dumps(rows, indent=indent), "utf-8")
    return path


CONTAINERS: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    "jsonl": lambda folder, rows: write_jsonl(folder / "a.jsonl", rows),
    "ndjson": lambda folder, rows: write_jsonl(folder / "a.ndjson", rows),
    "jsonl called json": lambda folder, rows: write_jsonl(folder / "a.json", rows),
    "a list on one line": lambda folder, rows: write_list(folder / "a.json", rows, None),
    "an indented list": lambda folder, rows: write_list(folder / "a.json", rows, 2),
    "commas": lambda folder, rows: write_table(folder / "a.csv", rows, ","),
    "semicolons": lambda folder, rows: write_table(folder / "a.csv", rows, ";"),
    "tabs": lambda folder, rows: write_table(folder / "a.tsv", rows, "\t"),
    "parquet": lambda folder, rows: write_parquet(
        folder / "a.parquet", {key: [row[key] for row in rows] for key in rows[0]}
    ),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_same_rows_are_read_from_every_container(name: str, tmp_path: Path) -> None:
    rows = rows_of(CONTAINERS[name](tmp_path, PAIRS))
    assert [(row.prompt, row.completion) for row in rows] == [(row["prompt"], row["completion"]) for row in PAIRS]
    assert {row.format for row in rows} == {Format.PROMPT_COMPLETION} and rows[0].line <= rows[-1].line


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_is_uploaded_gives_the_rows_that_were_checked(name: str, tmp_path: Path) -> None:
    renamed = [{"question": row["prompt"], "answer": row["completion"], "id": n} for n, row in enumerate(PAIRS)]
    path = CONTAINERS[name](tmp_path, renamed)
    mapping = {"prompt": "question", "completion": "answer"}
    (file,) = source_files([Source(files=(path,), mapping=mapping)])
    staged = tmp_path / "staged"
    staged.mkdir()
    assert not travels_as_it_is(file) and staged_suffix(file) == ".jsonl"
    convert(file, staged / "00000-a.jsonl")
    again = [row for row in read_rows(read_lines(staged_files(staged))) if isinstance(row, Row)]
    assert [row.digest() for row in again] == [row.digest() for row in rows_of(path, mapping=mapping)]
    assert {row.ignored for row in again} == {()}
    report = check_data([Source(files=(path,), name="a", mapping=mapping)], recipe="sft")
    assert report.sources[0].converted_bytes == (staged / "00000-a.jsonl").stat().st_size


@pytest.mark.parametrize("rows", [TALKS, SHAREGPT], ids=["messages", "sharegpt"])
def test_nested_rows_are_read_from_parquet_and_tables_too(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    (key,) = rows[0]
    nested = write_parquet(tmp_path / "a.parquet", {key: [row[key] for row in rows]})
    table = write_table(tmp_path / "b.csv", [{key: json.dumps(row[key])} for row in rows], ",")
    plain = write_jsonl(tmp_path / "c.jsonl", rows)
    wanted = [row.digest() for row in rows_of(plain)]
    assert [row.digest() for row in rows_of(nested)] == wanted == [row.digest() for row in rows_of(table)]
    for path in (nested, table):
        (file,) = source_files([path])
        convert(file, path.with_suffix(".jsonl"))
        assert [row.digest() for row in rows_of(path.with_suffix(".jsonl"))] == wanted


def test_sharegpt_is_the_same_conversation_as_messages_and_may_stand_beside_it(tmp_path: Path, model: Path) -> None:
    talks, shared = write_jsonl(tmp_path / "a.jsonl", TALKS), write_jsonl(tmp_path / "b.jsonl", SHAREGPT)
    assert [row.digest() for row in rows_of(talks)] == [row.digest() for row in rows_of(shared)]
    report = check_data([talks, shared], recipe="sft", model_folder=model)
    assert report.errors == () and report.written == "messages" and report.duplicate_rows == 5
    assert [source.shape for source in report.sources] == ["messages", "sharegpt"]
    both = write_jsonl(tmp_path / "c.jsonl", [*TALKS, *SHAREGPT])
    (error,) = check_data([both], recipe="sft", model_folder=model).errors
    assert "5 messages" in error.sentence and "5 sharegpt (first: " in error.sentence and error.line == 6


def shown(report: DataReport) -> tuple[str, str]:
    pieces = report.preview[0].pieces
    return "".join(text for text, counts in pieces if not counts), "".join(text for text, counts in pieces if counts)


def test_alpaca_is_a_chat_for_models_with_a_template_and_headed_text_for_others(
    tmp_path: Path, model: Path, bare: Path
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ALPACA)
    chat = check_data([path], recipe="sft", model_folder=model, max_length=120)
    assert chat.written == "alpaca" and chat.errors == ()
    assert shown(chat)[0] == "[user]\nAdd one to 0.\n\nas a word\n[assistant]\n" and shown(chat)[1].startswith("1")
    plain = check_data([path], recipe="sft", model_folder=bare, max_length=120)
    read, learnt = shown(plain)
    assert read == "### Instruction:\nAdd one to 0.\n\n### Input:\nas a word\n\n### Response:\n"
    assert learnt == "1<|endoftext|>"


def test_preferences_are_reported_and_refused_by_recipes_that_cannot_use_them(tmp_path: Path, model: Path) -> None:
    plain = write_jsonl(tmp_path / "a.jsonl", CHOICES)
    report = check_data([plain], recipe=None, model_folder=model)
    assert (report.written, report.rows, report.errors) == ("preference", 5, ()) and report.tokens
    told = [
        {
            "chosen": [turn("user", f"{n}?"), turn("assistant", "a long good answer")],
            "rejected": [turn("user", f"{n}?"), turn("assistant", "bad")],
        }
        for n in range(5)
    ]
    report = check_data([write_jsonl(tmp_path / "b.jsonl", told)], recipe=None, model_folder=model)
    assert report.written == "preference (conversations)" and report.errors == ()
    read, learnt = shown(report)
    assert "0?" in read and "long good answer" in learnt
    # also where the worse answer is the longer one, which is what counting looks at
    worse = [{"prompt": f"{n}?", "chosen": "yes", "rejected": "no, never at all"} for n in range(5)]
    read, learnt = shown(check_data([write_jsonl(tmp_path / "c.jsonl", worse)], recipe=None, model_folder=model))
    assert learnt.startswith("yes") and "never" not in learnt
    assert read.startswith("0?") and "[rejected] no, never at all" in read
    for recipe in ("sft", "pretrain"):
        (error,) = check_data([plain], recipe=recipe).errors
        assert error.code == "data.wrong_format" and "preference" in error.sentence


def test_a_named_format_or_a_mapping_settles_what_is_ambiguous(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b", "text": "all of it"}] * 3
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    (error,) = check_data([path], recipe="sft").errors
    assert error.code == "data.ambiguous" and "3 rows are text and alpaca" in error.sentence
    assert rows_of(path, format="alpaca")[0].written is Format.ALPACA
    assert rows_of(path, format="text")[0].text == "all of it"
    assert rows_of(path, mapping={"text": "output"})[0].text == "b"


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": ["a"]})
    real: Any = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    (error,) = check_data([path], recipe="sft").errors
    assert error.code == "data.needs_extra" and "shardwork[data]" in error.fix


def test_a_coordinator_reads_nothing_but_jsonl_and_text(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "source-001" / "00001-b.jsonl", PAIRS)
    (tmp_path / "source-000").mkdir()
    (tmp_path / "source-000" / "00000-a.txt").write_text("words")
    write_parquet(tmp_path / "hostile.parquet", {"text": ["a"]})
    (tmp_path / "table.csv").write_text("text\na\n")
    (tmp_path / "list.json").write_text("[]")
    assert [(file.path.name, file.source) for file in staged_files(tmp_path)] == [
        ("00000-a.txt", 0),
        ("00001-b.jsonl", 1),
    ]


def test_a_long_list_is_read_a_piece_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shardwork.dataset.containers import jsonarray

    monkeypatch.setattr(jsonarray, "CHUNK_BYTES", 7)
    rows = [{"text": f"ä{n} " * (n + 1)} for n in range(40)]
    read = rows_of(write_list(tmp_path / "a.json", rows, 1))
    assert [row.text for row in read] == [row["text"] for row in rows]
    assert [row.line for row in read] == [2 + 3 * n for n in range(40)]


def test_weights_are_counted_as_a_pass_reads_them(tmp_path: Path) -> None:
    many = write_jsonl(tmp_path / "a.jsonl", [{"text": f"text number {n}"} for n in range(400)])
    few = write_jsonl(tmp_path / "b.jsonl", [{"text": f"other {n}"} for n in range(10)])
    sources = [Source(files=(many,), name="a", weight=0.25), Source(files=(few,), name="b", weight=3)]
    report = check_data(sources, recipe="pretrain", max_length=8, options=CheckOptions())
    assert (report.rows, report.sources[1].reads) == (410, 30)
    assert 70 < report.sources[0].reads < 130
    again = check_data(sources, recipe="pretrain", max_length=8)
    assert again.sources[0].reads == report.sources[0].reads


def test_what_both_answers_of_a_preference_row_begin_with_is_shown_as_its_prompt(tmp_path: Path) -> None:
    asked = turn("user", "Why?")
    row = {"chosen": [asked, turn("assistant", "Because.")], "rejected": [asked, turn("assistant", "No.")]}
    (sample,) = check_data([write_jsonl(tmp_path / "a.jsonl", [row])], recipe=None).preview
    assert "".join(text for text, _ in sample.pieces).count("Why?") == 1
    assert [text.strip() for text, counts in sample.pieces if counts] == ["assistant: Because."]
