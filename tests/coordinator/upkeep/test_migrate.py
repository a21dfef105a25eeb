"""Migrations as a step of their own: what would run is told and changes nothing, on both databases; keys made ahead."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import database
import pytest

from shardwork.errors import Conflict, InvalidInput
from shardwork_coordinator.cli import app
from shardwork_coordinator.keyring import Keys
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store import SqlStore
from shardwork_coordinator.telemetry import logs
from shardwork_coordinator.upkeep import keys

from .stand import older


def dump(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_a_dry_run_tells_the_sql_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    file = tmp_path / "coordinator.db"
    older(file, "r0004")
    before = dump(file)
    store = SqlStore(f"sqlite:///{file}")
    told = store.migrate(dry_run=True)
    assert (told.before, [step.revision for step in told.steps][:2]) == ("r0004", ["r0005", "r0006"])
    assert any("ADD COLUMN parts_told" in statement for statement in told.statements)
    assert not any(statement.upper().startswith("SELECT") for statement in told.statements)
    assert dump(file) == before
    done = store.migrate()
    assert done.statements == told.statements and done.after == told.after
    assert store.migrate().steps == ()
    assert all(step.what.endswith(".") for step in done.steps)


def test_a_dry_run_of_a_new_database_makes_no_file(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "coordinator.db"
    told = SqlStore(f"sqlite:///{file}").migrate(dry_run=True)
    assert told.before == "" and told.steps[0].revision == "r0001"
    assert not file.parent.exists()


@pytest.mark.parametrize("command", [["ledger", "check"], ["storage", "show"], ["user", "list"], ["policy", "list"]])
def test_a_command_that_is_no_migration_leaves_an_older_database_alone(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", _leave_logging_alone)
    file = tmp_path / "coordinator.db"
    older(file, "r0006")
    before = dump(file)
    with pytest.raises(Conflict) as caught:
        app([*command, "--data-dir", str(tmp_path)], standalone_mode=False)
    assert (caught.value.code, caught.value.why.evidence["has"]) == ("store.older_database", "r0006")
    assert dump(file) == before
    SqlStore(f"sqlite:///{file}").migrate()
    app([*command, "--data-dir", str(tmp_path)], standalone_mode=False)


@pytest.mark.nightly
def test_a_servers_database_is_migrated_the_same_way(server: database.Server) -> None:
    url = server.new_database()
    told = SqlStore(url).migrate(dry_run=True)
    assert told.steps and any("CREATE TABLE" in statement for statement in told.statements)
    assert SqlStore(url).migrate(dry_run=True).before == ""
    assert SqlStore(url).migrate().after == told.after
    assert SqlStore(url).migrate().steps == ()


def _leave_logging_alone(form: str, level: str) -> None:
    """The test's own is not to be replaced."""


@pytest.mark.parametrize("address", ["sqlite:///{folder}/garbage.db", "postgresql://127.0.0.1:1/nothing"])
def test_a_database_that_can_not_be_used_is_told_in_a_sentence(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", _leave_logging_alone)
    (tmp_path / "garbage.db").write_text("this is no database\n" * 100)
    arguments = ["migrate", "--data-dir", str(tmp_path), "--database", address.format(folder=tmp_path)]
    with pytest.raises(InvalidInput) as caught:
        app(arguments, standalone_mode=False)
    assert caught.value.code == "store.unusable"


def test_keys_are_made_ahead_as_a_coordinator_would_make_them(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    digest = keys.create(folder, encrypts=True)
    opened = Keys.open(Settings(data_dir=tmp_path / "data", keys_dir=folder))
    assert opened.authority.ca_sha256 == digest
    assert (folder / "ca.pem").read_bytes() == opened.authority.ca_pem
    assert b"PRIVATE" not in (folder / "ca.pem").read_bytes()
    for name in ("authority.pem", "coordinator.key", "operator.key", "storage.key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    with pytest.raises(Conflict) as caught:
        keys.create(folder)
    assert caught.value.code == "keys.exist"
