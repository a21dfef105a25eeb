"""Bad input is refused before anything is spent: the documented exit code, the place, the fix, and no sat moved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import models
from .jobfile import write_sft
from .world import World


@dataclass(frozen=True, slots=True)
class Case:
    """One mistake, and what must be said about it."""

    mistake: Callable[[Path], None]
    code: str
    #: all of these stand in what is said: the file, the line or key, and the fix
    words: tuple[str, ...]
    exit_code: int = 3


def rows(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    """A mistake in the data."""

    def make(folder: Path) -> None:
        path = folder / "chat.jsonl"
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    return make


def line(number: int, text: bytes) -> Callable[[Path], None]:
    """A mistake in one row, counted from 1."""
    return rows(lambda lines: [*lines[: number - 1], text + b"\n", *lines[number:]])


def key(good: str, bad: str) -> Callable[[Path], None]:
    """A mistake in the job file."""

    def make(folder: Path) -> None:
        path = folder / "job.yaml"
        assert good in path.read_text()
        path.write_text(path.read_text().replace(good, bad))

    return make


def pickled(folder: Path) -> None:
    (folder / "models" / "gpt2" / "model.safetensors").unlink()
    (folder / "models" / "gpt2" / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


def foreign_code(folder: Path) -> None:
    path = folder / "models" / "gpt2" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoModelForCausalLM": "own.Model"}}))


def beyond_the_wallet(folder: Path) -> None:
    key("shards_per_round: 2", "shards_per_round: 900")(folder)
    key("max_sats: 500", "max_sats: 500000")(folder)


CASES = {
    "broken JSON": Case(line(7, b'{"messages": [}'), "data.bad_json", ("chat.jsonl", ":7", "one JSON object a line")),
    "wrong key in a row": Case(
        line(5, b'{"mesages": []}'), "data.unknown_key", ("chat.jsonl", ":5", "mesages", "Did you mean 'messages'?")
    ),
    "empty file": Case(rows(lambda _: []), "data.empty_file", ("chat.jsonl", "no rows", "fill it")),
    "nothing to learn": Case(
        key("max_length: 64", "max_length: 8"), "data.all_masked", ("chat.jsonl", "Raise params.max_length")
    ),
    "not UTF-8": Case(
        line(121, b'{"messages": "\xff\xfe"}'), "data.not_utf8", ("chat.jsonl", ":121", "Save the file as UTF-8")
    ),
    "misspelt job key": Case(
        key("eval_fraction", "eval_fractoin"), "jobfile.unknown_key", ("job.yaml:5", "Did you mean 'eval_fraction'?")
    ),
    "misspelt parameter": Case(
        key("max_length", "max_lenght"),
        "jobfile.unknown_key",
        ("job.yaml:6", "params.max_lenght", "Did you mean 'max_length'?"),
    ),
    "misspelt plan key": Case(
        key("inner_steps", "iner_steps"),
        "jobfile.unknown_key",
        ("job.yaml:7", "plan.iner_steps", "Did you mean 'inner_steps'?"),
    ),
    "missing model folder": Case(
        key("models/gpt2", "models/gtp2"),
        "jobfile.missing_file",
        ("job.yaml:3", "base_model", "Did you mean 'models/gpt2'?"),
    ),
    "missing data": Case(
        key("chat.jsonl", "chat.jsnol"), "jobfile.missing_file", ("job.yaml:4", "Did you mean 'chat.jsonl'?")
    ),
    "pickled weights": Case(pickled, "model.pickle", ("pytorch_model.bin", "safe_serialization=True")),
    "code in the model": Case(foreign_code, "model.code", ("config.json", "auto_map", "Remove 'auto_map'")),
    "budget below the plan": Case(
        key("max_sats: 500", "max_sats: 3"),
        "budget.below_plan",
        ("job.yaml: budget.max_sats", "Set budget.max_sats or --max-sats to"),
    ),
    "not enough funds": Case(beyond_the_wallet, "wallet.below_plan", ("shardwork wallet deposit",), exit_code=6),
    "unknown recipe": Case(
        key("recipe: sft", "recipe: stf"), "jobfile.unknown_recipe", ("job.yaml:2", "Did you mean 'sft'?")
    ),
    "no trust class": Case(
        key("trust: {class: public}\n", ""), "jobfile.trust_class_missing", ("trust.class", "trust: {class: public}")
    ),
    "aggregate that is not built": Case(
        key("class: public", "class: public, aggregate: trimmed"),
        "jobfile.wrong_value",
        ("job.yaml:8", "trust.aggregate", "trimmed_mean"),
    ),
    "a key twice": Case(
        key("name: rivers", "name: rivers\nname: again"), "jobfile.duplicate_key", ("job.yaml:2", "Keep one")
    ),
}


@pytest.fixture(scope="module")
def inputs(quiet: World) -> Iterator[Path]:
    """Good inputs to spoil. Whatever the tests of this module did, the wallet is as it was."""
    good = quiet.folder / "good"
    models.write_gpt2(good / "models" / "gpt2")
    models.write_chat(good / "chat.jsonl")
    write_sft(good)
    before = quiet.balance()
    yield good
    assert quiet.balance() == before


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_costs_nothing_and_names_its_place_and_fix(quiet: World, inputs: Path, name: str) -> None:
    case = CASES[name]
    shutil.rmtree(quiet.folder / "job", ignore_errors=True)
    shutil.copytree(inputs, quiet.folder / "job")
    case.mistake(quiet.folder / "job")
    moved = quiet.rows("select max(sequence), count(*) from transfer")
    said = quiet.run("job", "submit", "job/job.yaml", "--yes")
    assert said.exit_code == case.exit_code, said.stderr
    assert said.stdout == ""
    # a long path is broken over lines
    shown = said.stderr.replace("\n", "")
    assert [word for word in case.words if word not in shown] == [], said.stderr
    assert "Traceback" not in said.stderr
    assert quiet.rows("select max(sequence), count(*) from transfer") == moved
    assert quiet.rows("select count(*) from job where state = 'running'") == [(0,)]


@pytest.mark.parametrize("name", ["broken JSON", "misspelt parameter", "budget below the plan", "not enough funds"])
def test_with_json_the_error_is_one_object_with_code_and_place(quiet: World, inputs: Path, name: str) -> None:
    case = CASES[name]
    shutil.rmtree(quiet.folder / "job", ignore_errors=True)
    shutil.copytree(inputs, quiet.folder / "job")
    case.mistake(quiet.folder / "job")
    said = quiet.run("job", "submit", "job/job.yaml", "--yes", "--json")
    assert said.exit_code == said.error["exit_code"] == case.exit_code
    problem = said.error.get("errors", [said.error])[0]
    assert problem["code"] == case.code
    assert problem.get("fix") or problem["next_step"]


def test_a_wrong_fingerprint_is_refused_before_the_key_is_shown(quiet: World, inputs: Path) -> None:
    wrong = quiet.processes.join[:-4] + ("0000" if not quiet.processes.join.endswith("0000") else "1111")
    before = quiet.rows("select count(*) from party")
    for said in (quiet.run("login", wrong, "--json"), quiet.run("wallet", "balance", "--json", join=wrong)):
        assert said.exit_code == 5
        assert said.error["code"] == "authority.wrong_fingerprint"
        assert "current join line" in said.error["next_step"]
    assert quiet.rows("select count(*) from party") == before
    assert quiet.run("wallet", "balance").exit_code == 0, "the remembered join line is still the good one"


def test_an_unreachable_coordinator_is_exit_7(quiet: World, inputs: Path) -> None:
    nobody = "shardwork://127.0.0.1:9?ca=" + "ab" * 32
    said = quiet.run("job", "submit", "good/job.yaml", "--yes", "--json", join=nobody)
    assert said.exit_code == 7
    assert said.error["code"] == "coordinator.unreachable"
    assert said.error["evidence"]["address"] == "127.0.0.1:9"


@pytest.mark.parametrize("command", [("show",), ("why",), ("cancel",), ("watch",), ("report",), ("download",)])
def test_an_unknown_job_is_exit_4(quiet: World, inputs: Path, command: tuple[str, ...]) -> None:
    folder = ["nowhere"] if command == ("download",) else []
    said = quiet.run("job", *command, "ffffffffffff", *folder, "--json")
    assert said.exit_code == 4
    assert said.error["code"] == "job.not_found"
    assert "shardwork job list" in said.error["next_step"]
