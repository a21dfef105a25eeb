"""`shardwork-coordinator user`: who may sign in to the dashboard, from the coordinator's own machine. Part of `cli`.

Whoever can write the database needs no password to change one; every change stands in the audit log.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardwork.errors import InvalidInput

from .existing_store import DataDir, read, settings_of, write

if TYPE_CHECKING:
    from .store.base import Transaction

user_app = typer.Typer(help="Say who may sign in to the dashboard.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The user's name.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(help="File whose first line is the password; `-` reads stdin. Asked for otherwise."),
]


@user_app.command("add")
def add(
    name: Name,
    role: Annotated[str, typer.Option(help="operator or viewer, who changes nothing.")] = "operator",
    password_file: PasswordFile = None,
    data_dir: DataDir = None,
) -> None:
    """Let somebody sign in to the dashboard."""
    from .accounts import passwords, users
    from .records import WebRole

    if role not in list(WebRole):
        raise InvalidInput("user.bad_role", f"There is no role {role!r}.", next_step=f"One of {', '.join(WebRole)}.")
    settings = settings_of(data_dir, {})
    password = _password(password_file)
    passwords.check_strength(password, name)
    kept = passwords.digest(password)
    sentence = f"{name} may sign in as {role}."
    _do(settings, "user.add", name, sentence, lambda tx, now_ms: users.add(tx, name, WebRole(role), kept, now_ms))
    print(sentence)


@user_app.command("password")
def password(name: Name, password_file: PasswordFile = None, data_dir: DataDir = None) -> None:
    """Set another password, end every session of the old one, and lift a lock."""
    from .accounts import passwords, users

    settings = settings_of(data_dir, {})
    read_now = _password(password_file)
    passwords.check_strength(read_now, name)
    kept = passwords.digest(read_now)
    sentence = f"{name} has another password."
    _do(settings, "user.password", name, sentence, lambda tx, _: users.set_password(tx, name, kept))
    print(sentence)


@user_app.command("disable")
def disable(name: Name, data_dir: DataDir = None) -> None:
    """Let somebody sign in no more."""
    _set_disabled(name, data_dir, disabled=True)


@user_app.command("enable")
def enable(name: Name, data_dir: DataDir = None) -> None:
    """Let somebody sign in again, and lift a lock."""
    _set_disabled(name, data_dir, disabled=False)


@user_app.command("codes-off")
def codes_off(name: Name, data_dir: DataDir = None) -> None:
    """Ask for no one-time codes any more, for somebody who lost the app."""
    from .accounts import users

    sentence = f"No codes are asked of {name} any more."
    _do(settings_of(data_dir, {}), "user.codes_off", name, sentence, lambda tx, _: users.set_totp(tx, name, ""))
    print(sentence)


@user_app.command("list")
def list_users(
    data_dir: DataDir = None, as_json: Annotated[bool, typer.Option("--json", help="One JSON list on stdout.")] = False
) -> None:
    """Everybody who may sign in or might before."""
    from .records import WebUser

    def everybody(tx: Transaction) -> list[WebUser]:
        return tx.find(WebUser, order="name")

    found: list[WebUser] = asyncio.run(read(settings_of(data_dir, {}), everybody))
    rows = [
        {"name": one.name, "role": one.role, "disabled": one.disabled, "codes": bool(one.totp_secret)} for one in found
    ]
    if as_json:
        print(json.dumps(rows))
        return
    if not rows:
        print("Nobody may sign in yet: shardwork-coordinator user add NAME", file=sys.stderr)
    for row in rows:
        marks = [word for word, holds in (("disabled", row["disabled"]), ("codes", row["codes"])) if holds]
        print(f"{row['name']}  {row['role']}  {' '.join(marks)}".rstrip())


def _set_disabled(name: str, data_dir: Path | None, *, disabled: bool) -> None:
    from .accounts import users

    action = "user.disable" if disabled else "user.enable"
    sentence = f"{name} may not sign in any more." if disabled else f"{name} may sign in again."
    settings = settings_of(data_dir, {})
    _do(settings, action, name, sentence, lambda tx, _: users.set_disabled(tx, name, disabled=disabled))
    print(sentence)


def _do(settings: object, action: str, name: str, sentence: str, work: Callable[[Transaction, int], object]) -> None:
    """Does it and notes it, in one transaction."""
    from .accounts import audit

    now_ms = time.time_ns() // 1_000_000

    def both(tx: Transaction) -> None:
        work(tx, now_ms)
        audit.enter(tx, audit.Deed(action=action, subject=name, sentence=sentence), audit.COMMAND_LINE, now_ms)

    asyncio.run(write(settings, both))


def _password(file: Path | None) -> str:
    """From a file, a pipe or a person. Raises InvalidInput "user.no_password" or "user.different_passwords"."""
    import getpass

    if file is not None:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        return text.split("\n", 1)[0].rstrip("\r")
    if not sys.stdin.isatty():
        raise InvalidInput(
            "user.no_password",
            "There is nobody to ask for a password.",
            next_step="Give --password-file, or --password-file - and the password on stdin.",
        )
    first = getpass.getpass("Password: ")
    if first != getpass.getpass("Again: "):
        raise InvalidInput("user.different_passwords", "The two passwords differ.", next_step="Try again.")
    return first
