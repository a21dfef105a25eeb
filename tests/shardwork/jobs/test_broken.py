"""Broken job files, kept in `broken/`: each names its file, line, key, code and what to write instead.

`broken.json` holds what must be said of each; it was written by reading every file, and is changed in the same way.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shardwork.client.plan import read
from shardwork.jobs.file import JobFileInvalid
from shardwork_client.cli import app
from tests.client import tiny_model

HERE = Path(__file__).parent
EXPECTED: dict[str, list[dict[str, Any]]] = json.loads((HERE / "broken.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The broken files beside everything that a right one would find."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "data").mkdir()
    (folder / "data" / "train.jsonl").write_text('{"text": "some words"}\n' * 50)
    (folder / "data" / "valid.jsonl").write_text('{"text": "words"}\n' * 5)
    (folder / "data" / "corpus.txt").write_text("some words\n" * 50)
    (folder / "data" / "cat.png").write_bytes(b"\x89PNG")
    tiny_model.write_model(folder / "models" / "base")
    for path in (HERE / "broken").iterdir():
        shutil.copy(path, folder / path.name)
    return folder


def test_every_broken_file_has_an_expectation_and_there_are_at_least_60() -> None:
    assert {path.name for path in (HERE / "broken").iterdir()} == set(EXPECTED)
    assert len(EXPECTED) >= 60
    assert all(found["fix"] and found["fix"] != "Change it." for many in EXPECTED.values() for found in many)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_broken_file_is_told_by_place_and_advice(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(JobFileInvalid) as refused:
        read(name)
    found = refused.value.problems
    assert {problem.file for problem in found} == {name}
    assert [
        {"code": problem.code, "line": problem.line, "key": problem.key, "fix": problem.fix} for problem in found
    ] == EXPECTED[name]
    assert all(problem.sentence.endswith(".") for problem in found)


def test_the_command_says_the_same_and_leaves_with_3(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for name, expected in EXPECTED.items():
        said = CliRunner().invoke(app, ["job", "validate", name, "--json"])
        assert said.exit_code == 3, name
        told = json.loads(said.stderr.splitlines()[-1])["error"]["errors"]
        assert [(each["code"], each["line"], each["key"], each["fix"]) for each in told] == [
            (each["code"], each["line"], each["key"], each["fix"]) for each in expected
        ]
