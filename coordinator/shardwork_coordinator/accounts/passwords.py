"""Passwords: argon2id with the library's parameters, two at a time, off the event loop.

One check takes 64 MiB for a moment, so that guesses cost; more than two at once would cost us more than the guesser.
Used by `users`.
"""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from shardwork.errors import InvalidInput

SHORTEST, LONGEST = 10, 256
MOST_AT_ONCE = 2

_hasher = PasswordHasher()
_turns = asyncio.Semaphore(MOST_AT_ONCE)
#: checked where there is no such user, so that both answers take as long
_nobody = ""


def check_strength(password: str, name: str) -> None:
    """Raises InvalidInput "user.weak_password" for a short one or one that repeats the name or one letter."""
    if SHORTEST <= len(password) <= LONGEST and len(set(password)) > 4 and name.lower() not in password.lower():
        return
    raise InvalidInput(
        "user.weak_password",
        f"A password has {SHORTEST} to {LONGEST} letters, of which five differ, and does not hold the user's name.",
        next_step="Four words that do not belong together make a good one.",
    )


def digest(password: str) -> str:
    """The text to keep. Takes some 50 ms: not on the event loop."""
    return _hasher.hash(password)


async def matches(password: str, kept: str) -> bool:
    """Whether this is the password behind a kept text; an empty text takes as long and never matches."""
    if len(password) > LONGEST:
        return False
    async with _turns:
        return await asyncio.to_thread(_matches, password, kept)


def _matches(password: str, kept: str) -> bool:
    global _nobody
    if not kept:
        _nobody = _nobody or digest("nobody has this password")
    try:
        return _hasher.verify(kept or _nobody, password) and bool(kept)
    except (Argon2Error, InvalidHashError):
        return False
