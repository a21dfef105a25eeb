"""ApiKeysService: a requester's keys of the HTTP API. Functions of (transaction, request, caller), a thin servicer.

Owns the rows of keys; who calls by one is `api.keys`. Only digests are stored.
"""

from __future__ import annotations

import re
from dataclasses import replace

from shardwork.clock import Clock
from shardwork.errors import Conflict, InvalidInput, LimitExceeded, NotFound
from shardwork.identity.role import Role
from shardwork.v1 import api_keys_pb2 as pb
from shardwork.v1 import api_keys_pb2_grpc

from ..records import ApiKey
from ..store.base import Store, Transaction
from .auth import Caller, Context, Gate

DAY_MS = 24 * 3600 * 1000
#: keys of one requester that are neither revoked nor expired
MOST_KEYS = 50
LONGEST_NAME = 80
MOST_DAYS = 3_660
#: letters of the digest that are the key's id
ID_LETTERS = 16
_DIGEST = re.compile(r"[0-9a-f]{64}")


def create_api_key(
    tx: Transaction, request: pb.CreateApiKeyRequest, caller: Caller, now_ms: int
) -> pb.CreateApiKeyResponse:
    """Raises InvalidInput "api_key.*", LimitExceeded "api_key.too_many"."""
    _check(request)
    known = tx.find(ApiKey, secret_sha256=request.secret_sha256)
    if known:
        if known[0].owner != caller.party_id:
            raise Conflict("api_key.taken", "This secret is another requester's.", next_step="Draw another one.")
        return pb.CreateApiKeyResponse(key=view(known[0]))
    living = [key for key in tx.find(ApiKey, owner=caller.party_id) if is_good(key, now_ms)]
    if len(living) >= MOST_KEYS:
        raise LimitExceeded(
            "api_key.too_many",
            f"You have {MOST_KEYS} API keys already.",
            next_step="Revoke one that is no longer used: `shardwork api-key list`.",
        )
    key = ApiKey(
        id=request.secret_sha256[:ID_LETTERS],
        owner=caller.party_id,
        name=request.name,
        secret_sha256=request.secret_sha256,
        created_ms=now_ms,
        expires_ms=now_ms + request.expires_days * DAY_MS if request.expires_days else 0,
    )
    tx.insert(key)
    return pb.CreateApiKeyResponse(key=view(key))


def list_api_keys(tx: Transaction, caller: Caller) -> pb.ListApiKeysResponse:
    keys = tx.find(ApiKey, owner=caller.party_id, order="created_ms", descending=True)
    return pb.ListApiKeysResponse(keys=[view(key) for key in keys])


def revoke_api_key(tx: Transaction, request: pb.RevokeApiKeyRequest, caller: Caller) -> pb.RevokeApiKeyResponse:
    """Raises NotFound "api_key.not_found", also for another's key; InvalidInput "api_key.ambiguous"."""
    mine = tx.find(ApiKey, owner=caller.party_id)
    found = [key for key in mine if request.id and key.id.startswith(request.id)]
    if not found:
        raise NotFound(
            "api_key.not_found",
            f"You have no API key {request.id[:40]!r}.",
            next_step="`shardwork api-key list` shows yours.",
        )
    if len(found) > 1:
        raise InvalidInput("api_key.ambiguous", "Several of your keys begin like this.", next_step="Give more of it.")
    gone = replace(found[0], revoked=True)
    tx.put(gone)
    return pb.RevokeApiKeyResponse(key=view(gone))


def is_good(key: ApiKey, now_ms: int) -> bool:
    """Neither revoked nor expired."""
    return not key.revoked and not (key.expires_ms and key.expires_ms <= now_ms)


def view(key: ApiKey) -> pb.ApiKeyView:
    return pb.ApiKeyView(
        id=key.id,
        name=key.name,
        created_unix_ms=key.created_ms,
        last_used_unix_ms=key.last_used_ms,
        expires_unix_ms=key.expires_ms,
        revoked=key.revoked,
    )


def _check(request: pb.CreateApiKeyRequest) -> None:
    if not _DIGEST.fullmatch(request.secret_sha256):
        raise InvalidInput(
            "api_key.bad_digest", "A key is made from the SHA-256 of its secret, in 64 small hex digits."
        )
    if len(request.name) > LONGEST_NAME or not request.name.isprintable():
        raise InvalidInput(
            "api_key.bad_name",
            f"A key's name has at most {LONGEST_NAME} printable letters.",
            next_step="Give it a shorter name.",
        )
    if request.expires_days > MOST_DAYS:
        raise InvalidInput(
            "api_key.bad_expiry", f"A key lasts {MOST_DAYS} days at most, or for ever.", next_step="Give fewer days."
        )


class ApiKeysServicer(api_keys_pb2_grpc.ApiKeysServiceServicer):
    def __init__(self, gate: Gate, store: Store, clock: Clock) -> None:
        self._gate, self._store, self._clock = gate, store, clock

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.CreateApiKeyResponse:
        async with self._gate.admit(context, Role.REQUESTER) as caller:
            now_ms = self._clock.now_ms()
            return await self._store.write(lambda tx: create_api_key(tx, request, caller, now_ms))

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        async with self._gate.admit(context, Role.REQUESTER) as caller:
            return await self._store.read(lambda tx: list_api_keys(tx, caller))

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> pb.RevokeApiKeyResponse:
        async with self._gate.admit(context, Role.REQUESTER) as caller:
            return await self._store.write(lambda tx: revoke_api_key(tx, request, caller))
