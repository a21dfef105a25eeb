"""Limiter: how often one address may try a password. In memory: a restart forgives. Used by `signing`."""

from __future__ import annotations

from collections import OrderedDict

from shardwork.errors import LimitExceeded

#: tries of one address in a row, and how fast they grow back
BURST, PER_MINUTE = 10, 10
MOST_ADDRESSES = 10_000


class Limiter:
    """A bucket of tries for each address; the least recently seen addresses are forgotten first."""

    def __init__(self) -> None:
        #: address -> (tries left, when that was counted)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str, now_s: float) -> None:
        """Raises LimitExceeded "login.too_often"."""
        left, at = self._buckets.pop(address, (float(BURST), now_s))
        left = min(left + (now_s - at) * PER_MINUTE / 60, BURST)
        self._buckets[address] = (max(left - 1, 0.0), now_s)
        if len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        if left < 1:
            raise LimitExceeded(
                "login.too_often",
                "Too many passwords were tried.",
                next_step="Wait a minute.",
            )
