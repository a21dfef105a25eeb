"""How often somebody may call: a bucket of calls that fills again at a steady rate. In memory, of one coordinator.

Called by `keys`, for good keys and for addresses that send wrong ones.
"""

from __future__ import annotations

from dataclasses import dataclass

#: buckets that are remembered; a full one is like none
MOST_BUCKETS = 10_000


@dataclass(slots=True)
class _Bucket:
    calls: float
    at_s: float


class Buckets:
    """One for each name: `burst` calls at once, and `per_s` more each second."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst, self._per_s = burst, per_s
        self._buckets: dict[str, _Bucket] = {}

    def take(self, name: str, now_s: float) -> float:
        """0 for a call that may go on; else the seconds after which one may."""
        bucket = self._filled(name, now_s)
        if bucket.calls < 1:
            return (1 - bucket.calls) / self._per_s
        bucket.calls -= 1
        return 0.0

    def _filled(self, name: str, now_s: float) -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= MOST_BUCKETS:
                self._forget(now_s)
            bucket = self._buckets[name] = _Bucket(float(self._burst), now_s)
        bucket.calls = min(bucket.calls + (now_s - bucket.at_s) * self._per_s, self._burst)
        bucket.at_s = now_s
        return bucket

    def _forget(self, now_s: float) -> None:
        """The full ones; all of them when that is not enough, so that strangers can't fill the memory."""
        full_after_s = self._burst / self._per_s
        self._buckets = {name: one for name, one in self._buckets.items() if now_s - one.at_s < full_after_s}
        if len(self._buckets) >= MOST_BUCKETS:
            self._buckets.clear()
