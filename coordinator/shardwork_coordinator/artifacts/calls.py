"""Calls: what one party has open on the artifacts service, so that no key alone can take all memory and threads.

Counts calls. In memory, as large as what is open. Used by `rpc.artifacts` and the HTTP API on the event loop only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from shardwork.errors import LimitExceeded


class Calls:
    def __init__(self, *, of_one_max: int) -> None:
        self._of_one_max = of_one_max
        self._open: Counter[str] = Counter()

    @contextmanager
    def one(self, owner: str) -> Generator[None, None, None]:
        """Counts a call while it lasts. Raises LimitExceeded "artifact.too_many_calls"."""
        if self._open[owner] >= self._of_one_max:
            raise LimitExceeded(
                "artifact.too_many_calls",
                "You have too many transfers open at the same time.",
                next_step="Wait until one of them ends.",
                limit=self._of_one_max,
            )
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]
