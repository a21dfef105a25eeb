"""`shardwork-coordinator user`: people are let in and out from the coordinator's machine, and it is written down."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shardwork.errors import Conflict, InvalidInput, NotFound
from shardwork_coordinator.accounts import codes, passwords, users
from shardwork_coordinator.cli import app
from shardwork_coordinator.records import AuditEntry, WebUser
from shardwork_coordinator.store import SqlStore
from shardwork_coordinator.store.base import Transaction

PASSWORD = "four words of no sense"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A coordinator's data folder, with its database."""
    monkeypatch.setenv("SHARDWORK_HOME", str(tmp_path / "home"))
    store = SqlStore(f"sqlite:///{tmp_path / 'data' / 'coordinator.db'}")
    store.start()
    store.close()
    return tmp_path / "data"


def run(folder: Path, *arguments: str, said: str = PASSWORD) -> str:
    done = CliRunner().invoke(app, ["user", *arguments, "--data-dir", str(folder)], input=said)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def kept(folder: Path) -> tuple[dict[str, WebUser], list[AuditEntry]]:
    async def look() -> tuple[list[WebUser], list[AuditEntry]]:
        store = SqlStore(f"sqlite:///{folder / 'coordinator.db'}")
        store.start()
        try:
            found = await store.read(lambda tx: (tx.find(WebUser), tx.find(AuditEntry, order="id")))
        finally:
            store.close()
        return found

    people, entries = asyncio.run(look())
    return {one.name: one for one in people}, entries


def test_people_are_let_in_and_out_and_every_change_is_written_down(folder: Path) -> None:
    assert "ada may sign in as operator." in run(folder, "add", "ada", "--password-file", "-")
    file = folder / "password"
    file.write_text(f"{PASSWORD} too\nnot this\n", encoding="utf-8")
    run(folder, "add", "tim", "--role", "viewer", "--password-file", str(file))
    run(folder, "disable", "tim")
    run(folder, "password", "ada", "--password-file", "-", said=PASSWORD + "!")
    shown = json.loads(run(folder, "list", "--json"))
    assert shown == [
        {"name": "ada", "role": "operator", "disabled": False, "codes": False},
        {"name": "tim", "role": "viewer", "disabled": True, "codes": False},
    ]
    assert "tim  viewer  disabled" in run(folder, "list")
    run(folder, "enable", "tim")
    people, entries = kept(folder)
    assert asyncio.run(passwords.matches(f"{PASSWORD} too", people["tim"].password_hash))
    assert asyncio.run(passwords.matches(PASSWORD + "!", people["ada"].password_hash))
    assert [(one.actor, one.action, one.subject) for one in entries] == [
        ("command line", f"user.{action}", name)
        for action, name in (
            ("add", "ada"),
            ("add", "tim"),
            ("disable", "tim"),
            ("password", "ada"),
            ("enable", "tim"),
        )
    ]


def test_somebody_who_lost_the_app_signs_in_without_codes(folder: Path) -> None:
    run(folder, "add", "ada", "--password-file", "-")

    async def turn_on() -> None:
        store = SqlStore(f"sqlite:///{folder / 'coordinator.db'}")
        store.start()

        def work(tx: Transaction) -> None:
            users.set_totp(tx, "ada", codes.new_secret())

        await store.write(work)
        store.close()

    asyncio.run(turn_on())
    assert "ada  operator  codes" in run(folder, "list")
    run(folder, "codes-off", "ada")
    assert kept(folder)[0]["ada"].totp_secret == ""


def test_what_can_not_be_is_refused_and_changes_nothing(folder: Path) -> None:
    run(folder, "add", "ada", "--password-file", "-")
    for arguments, error in (
        (("add", "ada", "--password-file", "-"), Conflict),
        (("add", "Ada!", "--password-file", "-"), InvalidInput),
        (("add", "eve", "--role", "king", "--password-file", "-"), InvalidInput),
        (("add", "eve"), InvalidInput),
        (("password", "eve", "--password-file", "-"), NotFound),
        (("disable", "ada"), Conflict),
    ):
        with pytest.raises(error):
            run(folder, *arguments)
    with pytest.raises(InvalidInput, match="A password has"):
        run(folder, "add", "eve", "--password-file", "-", said="short")
    with pytest.raises(NotFound):
        run(folder / "elsewhere", "list")
    people, entries = kept(folder)
    assert list(people) == ["ada"] and len(entries) == 1
