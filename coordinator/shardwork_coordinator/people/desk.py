"""PeopleDesk: what the handlers work with, built once by `app`; and the secrets that only this coordinator knows."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from shardwork.identity.keys import SigningKey

from ..api.limits import Buckets
from ..engine import Engine
from ..events import Push
from ..money.payouts import PayoutRules
from ..rpc.enrolment import Newcomers
from ..store.base import T, Transaction
from .items import Items
from .places import Places

#: calls of one key, calls without a good signature and joins of one address: at once, and a second
CALLS, WRONG, JOINS = (60, 10.0), (40, 1.0), (60, 1.0)


@dataclass(slots=True, kw_only=True)
class PeopleDesk:
    engine: Engine
    items: Items
    #: of the cluster: the same at each of its coordinators, and known to nobody else
    secret: bytes
    asset: str = "simulated"
    payout_rules: Callable[[], PayoutRules] = PayoutRules
    places: Places = field(default_factory=Places)
    calls: Buckets = field(default_factory=lambda: Buckets(*CALLS))
    wrong: Buckets = field(default_factory=lambda: Buckets(*WRONG))
    joins: Buckets = field(default_factory=lambda: Buckets(*JOINS))
    newcomers: Newcomers = field(default_factory=Newcomers)

    @property
    def now_ms(self) -> int:
        return self.engine.clock.now_ms()

    async def commit(self, work: Callable[[Transaction, list[Push]], T]) -> T:
        """A call's one transaction; what the machine pushes goes out after it."""

        def collected(tx: Transaction) -> tuple[T, list[Push]]:
            pushes: list[Push] = []
            return work(tx, pushes), pushes

        answer, pushes = await self.engine.store.write(collected)
        self.engine.after_commit(pushes)
        return answer

    def drawn(self, *about: str | int) -> float:
        """A number in [0, 1) that nobody outside can know, and that is always the same."""
        return int.from_bytes(self.hidden(*about)[:6], "big") / (1 << 48)

    def hidden(self, *about: str | int) -> bytes:
        parts = [str(part).encode() for part in about]
        text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self.secret, text, "sha256")


def secret_of(key: SigningKey) -> bytes:
    """Follows from the coordinator's own key, so that all of a cluster have it; such a message is signed nowhere."""
    return hashlib.sha256(key.sign(b"shardwork people: order of answers, hidden items, names of tasks")).digest()
