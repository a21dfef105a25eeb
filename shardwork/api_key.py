"""An API key: how its secret is drawn, the digest by which a coordinator knows it, and a requester's calls about keys.

The client draws it, so that it crosses the wire in HTTP calls only and is stored nowhere but with its owner. Who it
belongs to is the coordinator's `api.keys`. The calls are used by `shardwork api-key`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from .session import Session
from .v1 import api_keys_pb2 as pb

PREFIX = "sk-shardwork-"
#: bytes that are drawn: nobody guesses them, so one round of SHA-256 is enough
SECRET_BYTES = 32
_FORM = re.compile(r"sk-shardwork-[A-Za-z0-9_-]{43}")


def draw() -> str:
    """A new secret."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def is_secret(text: str) -> bool:
    """Whether it has the form of one; what has not is looked up nowhere."""
    return _FORM.fullmatch(text) is not None


def digest(secret: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyStatus:
    id: str
    name: str
    created_unix_ms: int
    #: to the minute; 0: never
    last_used_unix_ms: int
    #: 0: never
    expires_unix_ms: int
    revoked: bool


async def create(session: Session, name: str = "", *, expires_days: int = 0) -> tuple[str, ApiKeyStatus]:
    """(the secret, the key). Nobody can tell the secret again."""
    secret = draw()
    request = pb.CreateApiKeyRequest(name=name, secret_sha256=digest(secret), expires_days=expires_days)
    return secret, _status((await session.call(session.api_keys.CreateApiKey, request)).key)


async def every(session: Session) -> list[ApiKeyStatus]:
    """The newest first, also those that ended."""
    answer = await session.call(session.api_keys.ListApiKeys, pb.ListApiKeysRequest())
    return [_status(each) for each in answer.keys]


async def revoke(session: Session, key: str) -> ApiKeyStatus:
    """By id or the beginning of it. Raises NotFound "api_key.not_found"."""
    return _status((await session.call(session.api_keys.RevokeApiKey, pb.RevokeApiKeyRequest(id=key))).key)


def _status(view: pb.ApiKeyView) -> ApiKeyStatus:
    return ApiKeyStatus(
        id=view.id,
        name=view.name,
        created_unix_ms=view.created_unix_ms,
        last_used_unix_ms=view.last_used_unix_ms,
        expires_unix_ms=view.expires_unix_ms,
        revoked=view.revoked,
    )
