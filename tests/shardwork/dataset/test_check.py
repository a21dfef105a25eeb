"""What the data report says: of good files, of broken ones, and how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shardwork.dataset import CheckOptions, DataReport, Format, Source, Verdict, check_data
from shardwork.dataset import line as line_module
from shardwork.dataset.lengths import Overlong
from shardwork.dataset.source import read_lines, staged_files
from shardwork.problem import Problem

from .folders import CHAT, SENTENCES, tokenizer_folder, turn, write_jsonl

GOOD = '{"prompt": "a", "completion": "b"}'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("model"), template=CHAT)


def check_rows(tmp_path: Path, rows: list[dict[str, Any]], model: Path | None, **options: Any) -> DataReport:
    recipe, max_length = options.pop("recipe", "sft"), options.pop("max_length", 64)
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    return check_data([data], recipe=recipe, model_folder=model, max_length=max_length, options=CheckOptions(**options))


def test_a_row_nests_as_deep_as_a_schema_may(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    wide = json.dumps({"text": "[" * 500, "x": [[]] * 500})
    path.write_text('{"text": "a", "x": ' + "[" * 63 + "]" * 63 + "}\n" + wide + "\n")
    assert check_data([path], recipe="sft").errors == ()


def test_a_whole_character_written_as_escapes_is_welcome(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "\\ud83d\\ude00"}\n')
    report = check_data([path], recipe="sft", model_folder=model)
    assert report.errors == () and report.rows == 1


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ('{"text": "a"}'.encode("utf-16"), "iconv -f UTF-16 -t UTF-8 rows.jsonl"),
        (b'{"text": "\xe4"}\n', "iconv -f WINDOWS-1252"),
        (b'{\n "text": "a"\n}\n', "jq -c . "),
        (b'[\n{"text": "a"}\n]\n', "give it the ending .json"),
        (b'{"text": "a"}\r{"text": "b"}\r', "Unix line ends"),
        (b'{"text": "a\tb"}\n', "\\t"),
    ],
)
def test_a_file_in_another_shape_is_told_how_to_become_jsonl(content: bytes, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert hint in check_data([path], recipe="sft").errors[0].fix


def test_other_names_are_told_what_to_do(tmp_path: Path) -> None:
    for name, hint in (
        ("a.jsonl.gz", "gunzip -k a.jsonl.gz"),
        ("b c.zip", "'b c.zip'"),
        ("d.docx", "Save its text"),
        ("e", "Give it the ending"),
    ):
        (tmp_path / name).write_bytes(b"x")
        assert hint in check_data([tmp_path / name], recipe="sft").errors[0].fix
    (tmp_path / "train.jsonl").write_text(GOOD)
    assert (
        check_data([tmp_path / "trian.jsonl"], recipe="sft").errors[0].fix
        == f"Did you mean '{tmp_path / 'train.jsonl'}'?"
    )


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    (found,) = check_data([tmp_path / "rows.jsonl"], recipe="sft").errors
    assert found.code == "data.file_type" and "pipe" in found.sentence


def test_progress_counts_every_byte_of_every_file(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    for name in ("train.jsonl", "valid.jsonl"):
        (tmp_path / name).write_text(f"{GOOD}\r\n\n" * 50)
    files = [tmp_path / "train.jsonl"]
    options = CheckOptions(progress=lambda done, total: told.append((done, total)))
    check_data(files, recipe="sft", eval_files=[tmp_path / "valid.jsonl"], options=options)
    total = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert {each for _, each in told} == {total}
    assert [done for done, _ in told] == sorted(done for done, _ in told) and told[-1][0] > total * 0.95


def test_hints_name_the_nearest_key(tmp_path: Path) -> None:
    report = check_rows(tmp_path, [{"promt": "a", "completion": "b"}], None)
    assert report.errors[0].fix == "Did you mean 'prompt'?"
    report = check_rows(tmp_path, [{"messages": [turn("asistant", "a")]}], None)
    assert report.errors[0].fix == "Did you mean 'assistant'?"


def test_a_line_without_end_costs_no_memory_and_the_next_row_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "' + "x" * 5000 + '"}\n{"text": 3}\n')
    codes = [(problem.code, problem.line) for problem in check_data([path], recipe="sft").errors]
    assert codes == [("data.line_too_long", 1), ("data.wrong_type", 2)]


def test_rows_that_an_earlier_stage_did_not_leave_are_called_that(tmp_path: Path) -> None:
    """A coordinator meets no other file without rows, and its reader cannot fill that one."""
    (tmp_path / "preferences.jsonl").write_text("")
    (wrong,) = read_lines(staged_files(tmp_path, "dpo"))
    assert isinstance(wrong, Problem) and wrong.code == "data.empty_file" and wrong.file == "preferences.jsonl"
    assert "earlier stage" in wrong.sentence and "job show" in wrong.fix
    assert check_data([tmp_path], recipe="dpo").errors[0].fix == "Remove it or fill it."


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "rows.xml").write_text("<a/>")
    report = check_data([tmp_path / "none.jsonl", tmp_path / "rows.xml"], recipe="sft")
    assert [problem.code for problem in report.errors] == ["data.missing_file", "data.file_type"]
    assert check_data([], recipe="sft").errors[0].code == "data.no_files"


def test_every_error_is_counted_but_only_the_first_are_listed(tmp_path: Path) -> None:
    report = check_rows(tmp_path, [{"text": 3}] * 250, None)
    assert (report.num_errors, len(report.errors)) == (250, 100)


def test_good_rows_are_counted_and_shown_with_their_mask(tmp_path: Path, model: Path) -> None:
    rows = [{"messages": [turn("user", f"Question {n}?"), turn("assistant", f"Answer {n}.")]} for n in range(20)]
    report = check_rows(tmp_path, rows, model)
    assert (report.format, report.rows, report.verdict) == (Format.MESSAGES, 20, Verdict.OK)
    assert 0 < report.loss_tokens < report.tokens
    learnt = "".join(text for text, counts in report.preview[0].pieces if counts)
    read = "".join(text for text, counts in report.preview[0].pieces if not counts)
    assert "Answer 0." in learnt and "Question" not in learnt and "Question 0?" in read
    shown = json.loads(json.dumps(report.to_json()))
    assert shown["format"] == "messages" and shown["errors"] == [] and shown["verdict"] == "ok"
    assert sum(bucket["rows"] for bucket in shown["histogram"]) == 20


def test_only_answers_count_unless_asked(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": "A question", "completion": " and its answer"}] * 3
    masked = check_rows(tmp_path, rows, model)
    whole = check_rows(tmp_path, rows, model, train_on_prompt=True)
    assert masked.tokens == whole.tokens == whole.loss_tokens + 3
    assert masked.loss_tokens < whole.loss_tokens


def test_rows_without_an_answer_left_are_warned_about_and_all_of_them_is_an_error(tmp_path: Path, model: Path) -> None:
    long, short = {"prompt": SENTENCES[0] * 9, "completion": "x"}, {"prompt": "a", "completion": "b"}
    some = check_rows(tmp_path, [long, short, {"prompt": "c", "completion": "d"}], model)
    assert (some.all_masked_rows, some.truncated_rows, some.verdict) == (1, 1, Verdict.WARNINGS)
    assert {"data.masked_rows", "data.truncated_rows"} <= {problem.code for problem in some.warnings}
    every = check_rows(tmp_path, [long] * 3, model)
    assert [problem.code for problem in every.errors] == ["data.all_masked"]


def test_held_out_rows_among_the_training_rows_are_reported(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": str(n), "completion": "b"} for n in range(6)]
    train = write_jsonl(tmp_path / "train.jsonl", [*rows, rows[0]])
    held = write_jsonl(tmp_path / "held.jsonl", [*rows[4:], {"prompt": "new", "completion": "b"}])
    report = check_data([train], recipe="sft", model_folder=model, eval_files=[held])
    assert (report.eval_rows, report.eval_duplicates, report.duplicate_rows) == (3, 2, 1)
    leak = next(problem for problem in report.warnings if problem.code == "data.eval_leak")
    assert leak.line == 5


def test_too_little_data_has_its_own_verdict(tmp_path: Path, model: Path) -> None:
    report = check_rows(tmp_path, [{"prompt": "a", "completion": "b"}], model, min_rows=8)
    assert (report.verdict, report.errors[0].code) == (Verdict.TOO_SMALL, "data.too_few")
    report = check_rows(tmp_path, [{"text": "a few words"}], model, recipe="pretrain")
    assert report.verdict is Verdict.TOO_SMALL


def test_conversations_need_a_template_and_no_other_is_taken_silently(tmp_path: Path) -> None:
    bare = tokenizer_folder(tmp_path / "bare")
    rows = [{"messages": [turn("user", "a"), turn("assistant", "b")]}] * 3
    report = check_rows(tmp_path, rows, bare)
    assert [problem.code for problem in report.errors] == ["template.missing"]
    assert "chatml" in report.errors[0].fix
    assert check_rows(tmp_path, rows, bare, chat_template="chatml").errors == ()


def test_pretraining_reads_text_only(tmp_path: Path, model: Path) -> None:
    report = check_rows(tmp_path, [{"prompt": "a", "completion": "b"}], model, recipe="pretrain")
    assert [problem.code for problem in report.errors] == ["data.wrong_format"]


def test_unread_keys_are_a_warning_that_names_them(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": str(n), "completion": "b", "source": "web"} for n in range(4)]
    (warning,) = check_rows(tmp_path, rows, model).warnings
    assert (warning.code, warning.key) == ("data.ignored_key", "source")


def test_text_files_give_a_document_a_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\n\r\nthree\n")
    report = check_data([path], recipe="count")
    assert (report.format, report.rows, report.is_estimated) == (Format.TEXT, 2, True)
    assert [(sample.line, sample.pieces[0][0]) for sample in report.preview] == [(1, "one\ntwo"), (5, "three")]


def test_a_folder_is_read_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b", "a", "sub/c"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}])
    (tmp_path / "notes.md").write_text("not data")
    report = check_data([tmp_path], recipe="count", options=CheckOptions(preview_rows=9))
    assert [sample.pieces[0][0] for sample in report.preview] == ["a", "b", "sub/c"]


def test_short_rows_are_checked_quickly(tmp_path: Path, model: Path) -> None:
    """20,000 rows a second is the aim; a loaded machine gets a wide margin."""
    rows = [{"prompt": f"What is {n}?", "completion": f"It is number {n}."} for n in range(20_000)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    started = time.process_time()
    report = check_data([path], recipe="sft", model_folder=model)
    assert report.rows == 20_000
    assert time.process_time() - started < 8


def test_the_clients_side_needs_neither_numpy_nor_torch() -> None:
    modules = "shardwork.dataset, shardwork.jobs.file, shardwork.models.folder, shardwork.models.presets"
    code = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"numpy", "torch", "transformers"}.isdisjoint(loaded)


def test_weights_that_choose_nothing_at_all_are_an_error_and_not_only_a_warning(tmp_path: Path) -> None:
    """The coordinator would find out after the upload."""
    rows = write_jsonl(tmp_path / "a.jsonl", [{"text": f"row {number}"} for number in range(20)])
    (problem,) = check_data([Source(files=(rows,), name="a", weight=0.0001)], recipe="sft").errors
    assert (problem.code, problem.key) == ("data.weight_chooses_none", "data")


def test_rows_that_were_all_too_long_are_the_reason_and_not_that_there_are_few(tmp_path: Path, model: Path) -> None:
    rows = [{"text": f"many words {number} " * 50} for number in range(20)]
    (problem,) = check_rows(tmp_path, rows, model, max_length=8, overlong=Overlong.DROP).errors
    assert (problem.code, problem.key) == ("data.too_few", "params.overlong")
    assert "longer than 8 tokens" in problem.sentence and "max_length" in problem.fix
