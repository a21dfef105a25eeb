"""Sessions: somebody who signed in. The browser holds a random secret in a cookie, the store its digest.

A session ends after twelve hours without use, after a week at the latest, or when its user leaves. Used by `users`.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, replace

from ..records import WebSession
from ..store.base import Transaction

IDLE_MS = 12 * 3_600_000
LONGEST_MS = 7 * 24 * 3_600_000
#: how often a use is written down
TOUCH_MS = 5 * 60_000
SECRET_LETTERS = 43
#: of one user; the oldest give way
MOST_SESSIONS = 20


@dataclass(frozen=True, slots=True)
class Secret:
    """What the cookie holds; kept nowhere else."""

    text: str


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def begin(tx: Transaction, user: str, now_ms: int) -> Secret:
    living = [one for one in tx.find(WebSession, user=user) if lives(one, now_ms)]
    for one in sorted(living, key=lambda one: one.seen_ms)[: max(len(living) - MOST_SESSIONS + 1, 0)]:
        tx.put(replace(one, expires_ms=0))
    text = secrets.token_urlsafe(32)
    tx.insert(
        WebSession(
            id=digest(text),
            user=user,
            csrf=secrets.token_urlsafe(32),
            created_ms=now_ms,
            seen_ms=now_ms,
            expires_ms=now_ms + LONGEST_MS,
        )
    )
    return Secret(text)


def lives(session: WebSession, now_ms: int) -> bool:
    return now_ms < min(session.expires_ms, session.seen_ms + IDLE_MS)


def find(tx: Transaction, secret: str, now_ms: int) -> WebSession | None:
    """The living session of this secret."""
    if len(secret) != SECRET_LETTERS:
        return None
    session = tx.get(WebSession, digest(secret))
    return session if session and lives(session, now_ms) else None


def needs_touch(session: WebSession, now_ms: int) -> bool:
    return now_ms - session.seen_ms > TOUCH_MS


def touch(tx: Transaction, session_id: str, now_ms: int) -> None:
    """Notes a use, so that it does not end for want of one."""
    session = tx.get(WebSession, session_id)
    if session is not None and lives(session, now_ms):
        tx.put(replace(session, seen_ms=now_ms))


def end(tx: Transaction, session_id: str) -> None:
    session = tx.get(WebSession, session_id)
    if session is not None:
        tx.put(replace(session, expires_ms=0))


def end_all(tx: Transaction, user: str) -> None:
    for session in tx.find(WebSession, user=user):
        if session.expires_ms:
            tx.put(replace(session, expires_ms=0))
