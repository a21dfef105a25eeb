"""Reach: an object store that does not answer, or lets nobody in, told as one kind of error.

What the store says may name the operator's hosts and buckets: it goes to the log, and callers get a sentence. Used on
every call of `objects` and `direct` that reaches the store.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from obstore.exceptions import BaseError

from shardwork.errors import Unreachable

P = ParamSpec("P")
R = TypeVar("R")

#: calls of this process that the store failed, by the kind of error; for /metrics
failures: Counter[str] = Counter()

_log = logging.getLogger(__name__)


def reaching(call: Callable[P, R]) -> Callable[P, R]:
    """The call, which raises Unreachable "storage.unreachable" where the store failed after its own retries."""

    @functools.wraps(call)
    def reached(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except BaseError as error:
            failures[type(error).__name__] += 1
            _log.warning("the object store failed at %s: %s", call.__name__, str(error).partition("\n")[0][:1_000])
            raise Unreachable(
                "storage.unreachable",
                "The coordinator's artifact store does not answer.",
                next_step="Try again in a minute; the operator's log says what it answered.",
                kind=type(error).__name__,
            ) from None

    return reached
