"""Who calls: each call carries its key, its time and the key's signature over method, path, time and body.

No cookies and no sessions: a stolen answer opens nothing, and a page of another site can sign nothing. A call counts
for five minutes; made again within them it is the same call, because every handler answers a repeated call as the
first. Owns how often a key and an address may call.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from shardwork.errors import InvalidInput, LimitExceeded, NotAllowed, NotAuthenticated
from shardwork.identity.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, is_signed
from shardwork.identity.role import Role
from shardwork.ids import party_id

from ..queueing import standing
from ..records import Party
from ..store.base import Transaction
from .desk import PeopleDesk

DOMAIN = b"shardwork-people-v1"
WINDOW_MS = 5 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call whose signature held."""

    party: str
    public_key: bytes
    address: str
    #: of the signature: the same call again has the same one
    id: str
    body: dict[str, Any]


def message(method: str, path: str, time: str, body: bytes) -> bytes:
    """What is signed. `path` with its query, as it is sent."""
    parts = (DOMAIN, method.encode(), path.encode(), time.encode(), hashlib.sha256(body).hexdigest().encode())
    return b"\n".join(parts)


def check(request: Request, body: bytes, desk: PeopleDesk) -> tuple[bytes, str]:
    """The caller's public key, and the call's id. Raises NotAuthenticated "people.unsigned", "people.bad_signature" and
    "people.bad_time", LimitExceeded "people.too_often"."""
    now_s, address = desk.engine.clock.monotonic(), address_of(request)
    try:
        key, signature, time = _headers(request)
        if not is_signed(key, message(request.method, _path(request), str(time), body), signature):
            raise _unsigned("people.bad_signature", "The signature is not this key's over this call.")
    except (NotAuthenticated, InvalidInput) as error:
        if wait_s := desk.wrong.take(address, now_s):
            raise too_often(wait_s) from None
        raise NotAuthenticated.from_why(error.why) from None
    if abs(time - desk.now_ms) > WINDOW_MS:
        raise NotAuthenticated(
            "people.bad_time",
            "The call is older than five minutes, or this device's clock is wrong.",
            next_step="Set the device's clock; the page does it by itself and tries again.",
            now_unix_ms=desk.now_ms,
        )
    if wait_s := desk.calls.take(key.hex(), now_s):
        raise too_often(wait_s)
    return key, hashlib.sha256(signature + key).hexdigest()


def annotator(tx: Transaction, call: Call) -> Party:
    """Raises NotAllowed "people.not_joined" and "people.barred"."""
    party = tx.get(Party, call.party)
    if party is None or Role.ANNOTATOR not in party.roles.split(","):
        raise NotAllowed("people.not_joined", "This key has not joined yet.", next_step="Join first, with a name.")
    if party.revoked or party.standing in standing.DISTRUSTED:
        raise NotAllowed(
            "people.barred",
            "The operator has shut this key out; what it has earned stays in its account.",
            next_step="Ask the operator.",
        )
    return party


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""


def too_often(wait_s: float) -> LimitExceeded:
    whole_s = max(int(wait_s + 0.999), 1)
    return LimitExceeded(
        "people.too_often", "There are too many calls.", next_step=f"Try again in {whole_s} s.", retry_after_s=whole_s
    )


def _headers(request: Request) -> tuple[bytes, bytes, int]:
    key = _decoded(request.headers.get("shardwork-key", ""), PUBLIC_KEY_BYTES)
    signature = _decoded(request.headers.get("shardwork-signature", ""), SIGNATURE_BYTES)
    time = request.headers.get("shardwork-time", "")
    if not (time.isascii() and time.isdecimal() and len(time) <= 15 and str(int(time)) == time):
        raise _unsigned("people.unsigned", "The call carries no time in milliseconds.")
    return key, signature, int(time)


def _decoded(text: str, size: int) -> bytes:
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != size:
        raise _unsigned("people.unsigned", "The call carries no key and signature.")
    return found


def _path(request: Request) -> str:
    """As it was sent: what a proxy or the framework decoded is not what was signed."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope.get("query_string", b"")
    return (raw.partition(b"?")[0] + (b"?" + query if query else b"")).decode("latin-1")


def _unsigned(code: str, sentence: str) -> NotAuthenticated:
    return NotAuthenticated(code, sentence, next_step="Open the page again; it signs each call with its key.")


def called(key: bytes, call_id: str, body: dict[str, Any], request: Request) -> Call:
    return Call(party=party_id(key), public_key=key, address=address_of(request), id=call_id, body=body)
