"""Files that are no feedback: what each is told, with file, line and key, and that nothing half-written stays."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shardwork.client.feedback import exchanging

from .conftest import Run, error_of, json_of
from .test_feedback_files import folder_of, vote

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))
PREFERENCE = {"prompt": "p", "chosen": "a", "rejected": "b"}
RECORD: dict[str, Any] = {"fields": {"prompt": "p", "response_a": "a", "response_b": "b"}, "responses": {}}
TASK: dict[str, Any] = {"id": 1, "data": {"prompt": "p", "answer1": "a", "answer2": "b"}, "annotations": []}
GOOD = {"preferences": PREFERENCE, "argilla": RECORD, "label-studio": TASK}


@dataclass(frozen=True)
class Wrong:
    data: bytes
    code: str
    #: in the sentence or in the next step
    hint: str
    name: str = "rows.jsonl"
    line: str = ""


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


#: what no program has exported
NOTHING: dict[str, Wrong] = {
    "a picture": Wrong(PNG, "data.file_type", ".json or .jsonl", name="rows.png"),
    "a picture called json": Wrong(PNG, "data.file_type", "PNG data, not text", name="rows.json"),
    "a pdf": Wrong(b"%PDF-1.7\n%\xe2\xe3", "data.file_type", ".json or .jsonl", name="rows.pdf"),
    "a pdf called jsonl": Wrong(b"%PDF-1.7\n%\xe2\xe3", "data.file_type", "PDF data"),
    "bytes": Wrong(bytes(range(256)) * 8, "data.file_type", "binary data, not text"),
    "nothing": Wrong(b"", "data.empty_file", "Export it again"),
    "an empty list": Wrong(b"[]", "data.empty_file", "Export it again", name="rows.json"),
    "utf-16": Wrong(json.dumps([PREFERENCE]).encode("utf-16"), "data.not_utf8", "iconv -f UTF-16", name="rows.json"),
}


@pytest.mark.parametrize("program", GOOD)
@pytest.mark.parametrize("name", NOTHING)
def test_what_is_no_data_is_named_and_leaves_nothing(name: str, program: str, run: Run, tmp_path: Path) -> None:
    wrong = NOTHING[name]
    file = tmp_path / wrong.name
    file.write_bytes(wrong.data)
    done = run("feedback", "import", file, tmp_path / "out", "--from", program, "--json")
    error = error_of(done)
    assert (done.exit_code, error["code"], error["evidence"]["file"]) == (3, wrong.code, str(file))
    assert wrong.hint in f"{error['sentence']} {error['next_step']}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("program", GOOD)
def test_one_broken_line_in_the_middle_is_named(program: str, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    cut = json.dumps(GOOD[program]).encode()[:-3] + b"\n"
    file.write_bytes(lines(GOOD[program]) + cut + lines(GOOD[program]))
    done = run("feedback", "import", file, tmp_path / "out", "--from", program, "--json")
    error = error_of(done)
    assert (done.exit_code, error["code"], error["evidence"]["line"]) == (3, "data.bad_json", "2")
    assert error["next_step"] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("program", "row", "key", "step"),
    [
        ("argilla", PREFERENCE, "fields", "--from preferences"),
        ("argilla", TASK, "fields", "--from label-studio"),
        ("argilla", {"records": [RECORD]}, "fields", "jq '.records'"),
        ("argilla", {"foo": 1}, "fields", "dataset.records.to_json"),
        ("argilla", vote(1, "a"), "fields", "feedback ratings"),
        ("label-studio", PREFERENCE, "data", "--from preferences"),
        ("label-studio", RECORD, "data", "--from argilla"),
        ("label-studio", {"foo": 1}, "data", "answer1"),
        ("preferences", RECORD, "chosen", "--from argilla"),
        ("preferences", TASK, "chosen", "--from label-studio"),
        ("preferences", {"data": [TASK]}, "chosen", "jq '.data'"),
        ("preferences", vote(1, "a"), "chosen", "feedback ratings"),
        ("preferences", {"foo": 1}, "foo", '"chosen"'),
    ],
)
def test_another_programs_file_is_told_whose_it_is(
    program: str, row: dict[str, Any], key: str, step: str, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "rows.json"
    file.write_bytes(lines(row))
    done = run("feedback", "import", file, tmp_path / "out", "--from", program, "--json")
    error = error_of(done)
    assert done.exit_code == 3 and step in error["next_step"]
    assert {"line": "1", "key": key}.items() <= error["evidence"].items()
    assert not (tmp_path / "out").exists()


def test_a_folder_without_data_and_a_slip_in_a_name_are_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("feedback", "import", tmp_path / "empty", tmp_path / "out", "--from", "argilla", "--json")
    assert (done.exit_code, error_of(done)["code"]) == (3, "data.no_files")
    assert error_of(done)["evidence"]["file"] == str(tmp_path / "empty")
    (tmp_path / "records.json").write_bytes(lines(RECORD))
    done = run("feedback", "import", tmp_path / "record.json", tmp_path / "out", "--from", "argilla", "--json")
    assert (done.exit_code, error_of(done)["code"]) == (3, "data.missing_file")
    assert "records.json" in error_of(done)["next_step"] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("there", ["votes.jsonl", "items.jsonl", "preferences.jsonl"])
def test_an_import_beside_a_file_that_is_there_writes_none(there: str, run: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "records.json", tmp_path / "out"
    file.write_bytes(lines(RECORD))
    out.mkdir()
    (out / there).write_text("mine")
    done = run("feedback", "import", file, out, "--from", "argilla", "--json")
    assert (done.exit_code, error_of(done)["code"]) == (1, "feedback.exists")
    assert [path.name for path in out.iterdir()] == [there] and (out / there).read_text() == "mine"
    done = run("feedback", "import", file, file, "--from", "argilla", "--json")
    assert (done.exit_code, error_of(done)["code"]) == (1, "feedback.exists") and file.read_bytes() == lines(RECORD)


def test_a_full_disk_leaves_neither_files_nor_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = tmp_path / "records.json", tmp_path / "out"
    file.write_bytes(lines(RECORD))
    whole = exchanging._write  # pyright: ignore[reportPrivateUsage]

    def full(path: Path, pieces: Any) -> None:
        if path.name == "preferences.jsonl":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, pieces)

    monkeypatch.setattr(exchanging, "_write", full)
    done = run("feedback", "import", file, out, "--from", "argilla", "--json")
    assert done.exit_code == 1 and "Free some space" in error_of(done)["next_step"]
    assert not out.exists()


def test_a_name_that_no_file_can_hold_is_refused(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "records.json"
    file.write_bytes(lines(RECORD | {"metadata": {"model_a": "\ud800"}}))
    done = run("feedback", "import", file, tmp_path / "out", "--from", "argilla", "--json")
    assert (done.exit_code, error_of(done)["evidence"]["key"]) == (3, "metadata.model_a")
    assert not (tmp_path / "out").exists()


#: what is no file of votes: (bytes, code, hint)
NO_VOTES: dict[str, Wrong] = {
    "a picture": Wrong(PNG, "data.file_type", "PNG data"),
    "bytes": Wrong(bytes(range(256)) * 8, "data.file_type", "binary"),
    "utf-16": Wrong(json.dumps(vote(1, "a")).encode("utf-16"), "data.not_utf8", "iconv"),
    "preferences": Wrong(lines(PREFERENCE), "votes.other_rows", "--from preferences", line="1"),
    "argilla": Wrong(json.dumps([RECORD]).encode(), "votes.other_rows", "--from argilla", name="a.json", line="1"),
    "tasks": Wrong(json.dumps([TASK]).encode(), "votes.other_rows", "--from label-studio", name="a.json", line="1"),
    "something": Wrong(lines({"foo": 1}), "votes.other_rows", "none of their keys", line="1"),
    "a row cut off": Wrong(
        lines(vote(1, "a")) + lines(vote(2, "a"))[:38] + b"\n", "votes.bad_row", "inside a text", line="2"
    ),
    "a key too few": Wrong(lines({"winner": "a"}), "votes.bad_row", "'prompt_id'", line="1"),
}


@pytest.mark.parametrize("verb", ["ratings", "report", "export"])
@pytest.mark.parametrize("name", NO_VOTES)
def test_what_is_no_votes_is_named(name: str, verb: str, run: Run, tmp_path: Path) -> None:
    wrong = NO_VOTES[name]
    file = tmp_path / wrong.name
    file.write_bytes(wrong.data)
    more = [tmp_path / "out.json", "--to", "argilla"] if verb == "export" else []
    done = run("feedback", verb, file, *more, "--json")
    error = error_of(done)
    assert (done.exit_code, error["code"], error["evidence"]["file"]) == (3, wrong.code, str(file))
    assert error["evidence"].get("line", "") == wrong.line
    assert wrong.hint in f"{error['sentence']} {error['next_step']}"
    assert not (tmp_path / "out.json").exists()


def test_no_vote_at_all_is_nothing_to_export(run: Run, tmp_path: Path) -> None:
    place = folder_of(tmp_path / "votes", [])
    done = run("feedback", "export", place, tmp_path / "out.json", "--to", "argilla", "--json")
    assert (done.exit_code, error_of(done)["code"]) == (4, "feedback.no_votes")
    assert not (tmp_path / "out.json").exists()


def test_a_mark_before_the_text_is_no_part_of_it(run: Run, tmp_path: Path) -> None:
    """As programs of Windows write files."""
    place = folder_of(tmp_path / "votes", [vote(1, "a")])
    for name in ("votes.jsonl", "items.jsonl"):
        (place / name).write_bytes(b"\xef\xbb\xbf" + (place / name).read_bytes())
    done = run("feedback", "export", place, tmp_path / "out.jsonl", "--to", "preferences", "--json")
    assert json_of(done)["preferences"] == 1
