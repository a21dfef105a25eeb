"""Settings: who beats whom, and every wrong key or value named with its place and cure."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from shardwork.config import Home, load_settings
from shardwork.errors import InvalidInput


class Limits(BaseModel):
    memory_gib: int = 4


class Settings(BaseModel):
    listen: str = "127.0.0.1:7700"
    threads: int = Field(default=1, ge=1, description="processes that work side by side")
    quiet: bool = False
    recipes: list[str] = []
    limits: Limits = Limits()


def write(folder: Path, text: str) -> Path:
    path = folder / "worker.toml"
    path.write_text(text)
    return path


def refusal(file: Path | None, env: dict[str, str], flags: dict[str, object]) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        load_settings(Settings, file, env, flags)
    return caught.value


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = write(tmp_path, 'threads = 2\nlisten = "file:1"\n')
    assert load_settings(Settings, None, {}, {}).threads == 1
    assert load_settings(Settings, file, {}, {}).threads == 2
    env = {"SHARDWORK_THREADS": "3", "PATH": "/bin"}
    assert load_settings(Settings, file, env, {"threads": None}).threads == 3
    merged = load_settings(Settings, file, env, {"threads": 4})
    assert (merged.threads, merged.listen) == (4, "file:1")


def test_a_missing_file_sets_nothing(tmp_path: Path) -> None:
    assert load_settings(Settings, tmp_path / "none.toml", {}, {}) == Settings()


def test_lists_and_switches_come_from_the_environment() -> None:
    env = {"SHARDWORK_RECIPES": '["sft", "count"]', "SHARDWORK_QUIET": "true"}
    found = load_settings(Settings, None, env, {})
    assert (found.recipes, found.quiet) == (["sft", "count"], True)


def test_an_unknown_key_in_the_file_names_file_line_and_nearest_key(tmp_path: Path) -> None:
    file = write(tmp_path, "# mine\nquiet = true\nthread = 2\n")
    error = refusal(file, {}, {})
    assert error.code == "config.unknown_key"
    assert dict(error.why.evidence) == {"file": str(file), "line": "3", "key": "thread"}
    assert error.why.next_step == "Did you mean threads?"


def test_an_unknown_key_in_a_table_is_found_in_that_table(tmp_path: Path) -> None:
    file = write(tmp_path, "threads = 2\n[limits]\nmemory_gb = 3\n")
    error = refusal(file, {}, {})
    assert dict(error.why.evidence) == {"file": str(file), "line": "3", "key": "limits.memory_gb"}
    assert error.why.next_step == "Did you mean memory_gib?"


def test_an_unknown_table_is_named_by_its_header(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "\n[limit]\nmemory_gib = 3\n"), {}, {})
    assert (error.why.evidence["line"], error.why.next_step) == ("2", "Did you mean limits?")


def test_an_unknown_variable_names_the_nearest_one() -> None:
    error = refusal(None, {"SHARDWORK_THREAD": "2"}, {})
    assert error.why.evidence["variable"] == "SHARDWORK_THREAD"
    assert error.why.next_step == "Did you mean SHARDWORK_THREADS?"
    assert refusal(None, {"SHARDWORK_ZZZ": "2"}, {}).why.next_step.startswith("Valid: SHARDWORK_LIMITS, ")


def test_variables_of_others_are_left_alone() -> None:
    env = {"SHARDWORK_HOME": "/x", "SHARDWORK_DATABASE": "y"}
    assert load_settings(Settings, None, env, {}, other_variables=["SHARDWORK_DATABASE"]) == Settings()


def test_a_key_near_nothing_gets_the_list(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "zzz = 1\n"), {}, {})
    assert error.why.next_step == "Valid: limits, listen, quiet, recipes, threads."


def test_a_bad_value_is_blamed_on_the_place_that_won(tmp_path: Path) -> None:
    file = write(tmp_path, "quiet = false\nthreads = 0\n")
    assert dict(refusal(file, {}, {}).why.evidence) == {"file": str(file), "line": "2", "key": "threads"}
    from_env = refusal(file, {"SHARDWORK_THREADS": "many"}, {})
    assert (from_env.code, dict(from_env.why.evidence)) == ("config.bad_value", {"variable": "SHARDWORK_THREADS"})
    from_flag = refusal(file, {"SHARDWORK_THREADS": "many"}, {"threads": -1})
    assert dict(from_flag.why.evidence) == {"flag": "--threads"}


def test_a_bad_value_is_told_what_belongs_there() -> None:
    assert refusal(None, {"SHARDWORK_THREADS": "many"}, {}).why.next_step == "It is: processes that work side by side."


def test_a_bad_value_in_a_table_names_its_line(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, 'threads = 1\n[limits]\nmemory_gib = "much"\n'), {}, {})
    assert (error.why.evidence["line"], error.why.evidence["key"]) == ("3", "limits.memory_gib")


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "threads = \n"), {}, {})
    assert error.code == "config.bad_toml"
    assert error.why.evidence["line"] == "1" and error.why.next_step


def test_everything_lies_under_shardwork_home(tmp_path: Path) -> None:
    home = Home.find({"SHARDWORK_HOME": str(tmp_path)})
    assert home == Home(tmp_path / "config", tmp_path / "data", tmp_path / "state", tmp_path / "cache")
    assert home.key_path("worker") == tmp_path / "config" / "keys" / "worker.key"


def test_without_it_the_platforms_folders_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    home = Home.find({})
    assert (home.config_dir, home.state_dir) == (tmp_path / "c" / "shardwork", tmp_path / "s" / "shardwork")
