"""Users: who may sign in to the dashboard, and signing in.

Functions of (transaction, …); the password is checked between two transactions, off the event loop. Called by the
dashboard's login page and by `shardwork-coordinator user`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from shardwork.errors import Conflict, InvalidInput, LimitExceeded, NotAuthenticated, NotFound

from ..records import WebRole, WebSession, WebUser
from ..store.base import Store, Transaction
from . import codes, passwords, sessions

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
#: wrong passwords before a user is locked, and for how long: twice as long with each further one
FREE_FAILURES = 5
FIRST_LOCK_MS, LONGEST_LOCK_MS = 60_000, 15 * 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What somebody typed into the login page."""

    name: str
    password: str
    code: str = ""


def add(tx: Transaction, name: str, role: WebRole, password_hash: str, now_ms: int) -> WebUser:
    """Raises InvalidInput "user.bad_name" or Conflict "user.exists"."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            "user.bad_name",
            f"{name[:40]!r} can't be a user's name.",
            next_step="Up to 32 small letters, digits, '.', '_' and '-'; a letter or digit first.",
        )
    if tx.get(WebUser, name) is not None:
        raise Conflict(
            "user.exists",
            f"There is a user {name!r} already.",
            next_step="`shardwork-coordinator user password NAME` sets another password.",
        )
    return tx.insert(WebUser(name=name, role=role, password_hash=password_hash, created_ms=now_ms))


def named(tx: Transaction, name: str) -> WebUser:
    """Raises NotFound "user.not_found"."""
    user = tx.get(WebUser, name)
    if user is None:
        known = ", ".join(one.name for one in tx.find(WebUser, limit=10)) or "none"
        raise NotFound(
            "user.not_found",
            f"There is no user {name[:40]!r}.",
            next_step="`shardwork-coordinator user list` shows everybody.",
            users=known,
        )
    return user


def set_password(tx: Transaction, name: str, password_hash: str) -> None:
    """Also ends what was signed in with the old one, and lifts a lock."""
    tx.put(replace(named(tx, name), password_hash=password_hash, failures=0, locked_until_ms=0))
    sessions.end_all(tx, name)


def set_disabled(tx: Transaction, name: str, *, disabled: bool) -> None:
    """Raises Conflict "user.last_operator": somebody must be able to lift it again."""
    user = named(tx, name)
    if disabled and user.role is WebRole.OPERATOR and len(_operators(tx)) < 2 and not user.disabled:
        raise Conflict(
            "user.last_operator",
            f"{name!r} is the only operator who may sign in.",
            next_step="Add another operator first.",
        )
    tx.put(replace(user, disabled=disabled, failures=0, locked_until_ms=0))
    if disabled:
        sessions.end_all(tx, name)


def set_totp(tx: Transaction, name: str, secret: str) -> None:
    """An empty secret asks for no codes any more."""
    tx.put(replace(named(tx, name), totp_secret=secret, totp_step=0))


def _operators(tx: Transaction) -> list[WebUser]:
    return tx.find(WebUser, role=WebRole.OPERATOR, disabled=False)


async def sign_in(store: Store, attempt: Attempt, now_ms: int) -> tuple[WebUser, sessions.Secret]:
    """The user and a new session. Raises NotAuthenticated "login.wrong" (whatever was wrong), "login.code_needed" or
    LimitExceeded "login.locked"."""
    user = await store.read(lambda tx: tx.get(WebUser, attempt.name) if _NAME.fullmatch(attempt.name) else None)
    _check_unlocked(user, now_ms)
    is_right = await passwords.matches(attempt.password, user.password_hash if user else "")

    def decide(tx: Transaction) -> tuple[WebUser, sessions.Secret] | NotAuthenticated:
        return _decide(tx, attempt, now_ms, is_right=is_right)

    found = await store.write(decide)
    # raised after the commit: the failure that it counted must stay
    if isinstance(found, NotAuthenticated):
        raise found
    return found


def _decide(
    tx: Transaction, attempt: Attempt, now_ms: int, *, is_right: bool
) -> tuple[WebUser, sessions.Secret] | NotAuthenticated:
    user = tx.get(WebUser, attempt.name) if _NAME.fullmatch(attempt.name) else None
    if user is None:
        return _wrong()
    # looked at again: many may have tried at the same time
    _check_unlocked(user, now_ms)
    if not is_right or user.disabled:
        return _failed(tx, user, now_ms)
    if user.totp_secret and not attempt.code:
        return NotAuthenticated(
            "login.code_needed",
            "The code of your authenticator app is needed as well.",
            next_step="Enter it beside your password.",
        )
    if user.totp_secret:
        step = codes.used_step(user.totp_secret, attempt.code, now_ms, user.totp_step)
        if step is None:
            return _failed(tx, user, now_ms)
        user = replace(user, totp_step=step)
    user = replace(user, failures=0, locked_until_ms=0)
    tx.put(user)
    return user, sessions.begin(tx, user.name, now_ms)


def _failed(tx: Transaction, user: WebUser, now_ms: int) -> NotAuthenticated:
    failures = user.failures + 1
    over = failures - FREE_FAILURES
    lock_ms = min(FIRST_LOCK_MS << min(over, 10), LONGEST_LOCK_MS) if over >= 0 else 0
    tx.put(replace(user, failures=failures, locked_until_ms=now_ms + lock_ms if lock_ms else 0))
    return _wrong()


def _wrong() -> NotAuthenticated:
    return NotAuthenticated(
        "login.wrong",
        "Name, password or code is wrong.",
        next_step="`shardwork-coordinator user password NAME`, on the coordinator's machine, sets another password.",
    )


def _check_unlocked(user: WebUser | None, now_ms: int) -> None:
    if user is not None and now_ms < user.locked_until_ms:
        seconds = (user.locked_until_ms - now_ms + 999) // 1000
        raise LimitExceeded(
            "login.locked",
            f"Too many wrong passwords for this user; try again in {seconds} s.",
            next_step="`shardwork-coordinator user password NAME` lifts it at once.",
            seconds=seconds,
        )


def visitor(tx: Transaction, secret: str, now_ms: int) -> tuple[WebUser, WebSession] | None:
    """Who holds this session's secret, while it lives and its user may sign in."""
    session = sessions.find(tx, secret, now_ms)
    user = tx.get(WebUser, session.user) if session else None
    if session is None or user is None or user.disabled:
        return None
    return user, session
