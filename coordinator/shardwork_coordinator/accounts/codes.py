"""Codes: time-based one-time codes of an authenticator app (RFC 6238: SHA-1, 6 digits, 30 s). Used by `users`."""

from __future__ import annotations

import hmac
import re

from pyotp import random_base32
from pyotp.totp import TOTP

STEP_MS = 30_000
#: a clock may be one step off, either way
SLACK_STEPS = 1
_SECRET = re.compile(r"[A-Z2-7]{32}")


def new_secret() -> str:
    """160 random bits in base32."""
    return random_base32()


def is_secret(text: str) -> bool:
    """Whether it is one of ours, and not a short or unreadable one that a form was given."""
    return _SECRET.fullmatch(text) is not None


def address(secret: str, name: str, house: str) -> str:
    """What an authenticator app reads: otpauth://…"""
    return TOTP(secret).provisioning_uri(name=name, issuer_name=house)


def used_step(secret: str, code: str, now_ms: int, last_step: int) -> int | None:
    """The time step whose code this is, later than `last_step` so that no code counts twice; None for a wrong one."""
    text = code.replace(" ", "")
    if not (text.isascii() and text.isdecimal() and len(text) == 6):
        return None
    now = now_ms // STEP_MS
    maker = TOTP(secret)
    for step in range(now - SLACK_STEPS, now + SLACK_STEPS + 1):
        if step > last_step and hmac.compare_digest(maker.at(step * STEP_MS // 1000), text):
            return step
    return None
