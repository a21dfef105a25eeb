"""What a provider asks before its first shard: how fast the line is, what time it is here, and what work earns.

Owns how many bytes of that anybody gets; keeps nothing beyond a minute. Called by `work`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shardwork.clock import Clock
from shardwork.errors import InvalidInput, LimitExceeded
from shardwork.v1 import work_pb2

from ..money.pricing import RateCard
from .auth import Caller

MOST_BYTES = 1 << 20
#: bytes a minute, of one key and of all together: keys are free, and this line is for shards
MOST_A_KEY, MOST_OF_ALL = 96 << 20, 1 << 30
MINUTE_S = 60.0


@dataclass(slots=True)
class Allowance:
    """Bytes that were measured with in the minute that runs."""

    _since_s: float = float("-inf")
    _all: int = 0
    _by_key: dict[str, int] = field(default_factory=dict[str, int])

    def take(self, party_id: str, count_bytes: int, now_s: float) -> None:
        """Raises LimitExceeded "measure.too_much"."""
        if now_s - self._since_s >= MINUTE_S:
            self._since_s, self._all = now_s, 0
            self._by_key.clear()
        mine = self._by_key.get(party_id, 0) + count_bytes
        if mine > MOST_A_KEY or self._all + count_bytes > MOST_OF_ALL:
            sentence = "So many bytes were measured with in this minute that no more are carried."
            raise LimitExceeded("measure.too_much", sentence, next_step="Try again in a minute.")
        self._by_key[party_id], self._all = mine, self._all + count_bytes


@dataclass(slots=True, kw_only=True)
class MeasureDesk:
    """What the handlers need."""

    clock: Clock
    rates: RateCard
    asset: str
    allowance: Allowance = field(default_factory=Allowance)


def measure(request: work_pb2.MeasureRequest, caller: Caller, desk: MeasureDesk) -> work_pb2.MeasureResponse:
    """Carries the bytes both ways; gRPC compresses nothing here, so zeros will do."""
    if max(len(request.payload), request.answer_bytes) > MOST_BYTES:
        sentence = f"One call carries at most {MOST_BYTES:,} bytes each way."
        raise InvalidInput("measure.too_large", sentence, next_step="Ask for less, and more often.")
    desk.allowance.take(caller.party_id, len(request.payload) + request.answer_bytes, desk.clock.monotonic())
    return work_pb2.MeasureResponse(payload=bytes(request.answer_bytes), now_unix_ms=desk.clock.now_ms())


def get_rates(desk: MeasureDesk) -> work_pb2.GetRatesResponse:
    return work_pb2.GetRatesResponse(
        msat_per_tera_unit=desk.rates.msat_per_tera_unit, minimum_msat=desk.rates.minimum_msat, asset=desk.asset
    )
