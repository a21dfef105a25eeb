"""KeyGate: who calls the HTTP API, by `Authorization: Bearer sk-shardwork-…` and nothing else.

A key acts as its owner in the role requester. It is looked up by its digest, so how far a guess was right shows in no
time that an answer takes. Cookies are never read. Revoking a key, or its owner, takes effect within `KNOWN_S`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shardwork import api_key
from shardwork.clock import Clock
from shardwork.errors import LimitExceeded, NotAuthenticated
from shardwork.identity.role import Role

from ..records import ApiKey, Party
from ..rpc.api_keys import is_good
from ..rpc.auth import Caller, revoked
from ..store.base import Store, Transaction
from .limits import Buckets

#: a key that was looked up counts so long
KNOWN_S = 2.0
MOST_KNOWN = 10_000
#: its last use is written down this often
USED_MS = 60_000
#: calls of one key: at once, and a second
BURST, PER_S = 60, 20.0
#: wrong keys from one address
WRONG_BURST, WRONG_PER_S = 20, 0.5


@dataclass(frozen=True, slots=True)
class _Known:
    key: ApiKey
    party: Party
    at_s: float


class KeyGate:
    def __init__(self, store: Store, clock: Clock, *, burst: int = BURST, per_s: float = PER_S) -> None:
        self._store, self._clock = store, clock
        self._known: dict[str, _Known] = {}
        self._calls, self._wrong = Buckets(burst, per_s), Buckets(WRONG_BURST, WRONG_PER_S)

    async def caller(self, authorization: str, address: str) -> Caller:
        """The key's owner. Raises NotAuthenticated "api.no_key", "api.bad_key", NotAllowed "auth.revoked" and
        LimitExceeded "api.too_often"."""
        now_s, secret = self._clock.monotonic(), _secret_of(authorization)
        if not secret:
            raise NotAuthenticated(
                "api.no_key",
                "The call carries no API key.",
                next_step="Send the header Authorization: Bearer sk-shardwork-…; `shardwork api-key create` makes one.",
            )
        known = await self._look_up(secret, now_s)
        if known is None or not is_good(known.key, self._clock.now_ms()):
            # whoever guesses is slowed down, and a good key from the same address is not
            if wait_s := self._wrong.take(address, now_s):
                raise _too_often(wait_s)
            raise NotAuthenticated(
                "api.bad_key",
                "The API key is unknown, revoked or expired.",
                next_step="`shardwork api-key list` shows yours; make a new one with `shardwork api-key create`.",
            )
        if known.party.revoked:
            raise revoked(known.party)
        if wait_s := self._calls.take(known.key.id, now_s):
            raise _too_often(wait_s)
        await self._used(known.key)
        return Caller(known.party.id, known.party.public_key, Role.REQUESTER)

    async def is_still_good(self, authorization: str) -> bool:
        """For what goes on for hours after `caller` let it in."""
        known = await self._look_up(_secret_of(authorization), self._clock.monotonic())
        return known is not None and is_good(known.key, self._clock.now_ms()) and not known.party.revoked

    async def _look_up(self, secret: str, now_s: float) -> _Known | None:
        if not api_key.is_secret(secret):
            return None
        digest = api_key.digest(secret)
        known = self._known.get(digest)
        if known is not None and now_s - known.at_s < KNOWN_S:
            return known

        def read(tx: Transaction) -> _Known | None:
            keys = tx.find(ApiKey, secret_sha256=digest)
            party = tx.get(Party, keys[0].owner) if keys else None
            return _Known(keys[0], party, now_s) if party is not None else None

        found = await self._store.read(read)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        if found is not None:
            self._known[digest] = found
        return found

    async def _used(self, key: ApiKey) -> None:
        now_ms = self._clock.now_ms()
        if now_ms - key.last_used_ms < USED_MS:
            return

        def work(tx: Transaction) -> None:
            # as it is now: it may have been revoked since it was read
            row = tx.get(ApiKey, key.id)
            if row is not None and now_ms - row.last_used_ms >= USED_MS:
                tx.put(replace(row, last_used_ms=now_ms))

        known = self._known.get(key.secret_sha256)
        if known is not None:
            self._known[key.secret_sha256] = replace(known, key=replace(key, last_used_ms=now_ms))
        await self._store.write(work)


def _secret_of(authorization: str) -> str:
    """What the header carries; empty where it is not ours."""
    scheme, _, secret = authorization.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _too_often(wait_s: float) -> LimitExceeded:
    """Whole seconds, for Retry-After."""
    whole_s = max(int(wait_s + 0.999), 1)
    return LimitExceeded(
        "api.too_often", "There are too many calls.", next_step=f"Try again in {whole_s} s.", retry_after_s=whole_s
    )
