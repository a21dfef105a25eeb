"""Reach: an object store that does not answer, or lets nobody in, told as one kind of error.

What the store says may name the operator's hosts, buckets and keys: the log gets its status, and callers a sentence.
Used on every call of `objects` and `direct` that reaches the store.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from obstore.exceptions import BaseError

from shardwork.errors import Unreachable

from ..telemetry.logs import Log

P = ParamSpec("P")
R = TypeVar("R")

#: calls of this process that the store failed, by the kind of error; for /metrics
failures: Counter[str] = Counter()

#: of its answer, which may name hosts, buckets and keys, the status and the store's own word for it are told
STATUS, SAID = re.compile(r"\b[45]\d\d\b"), re.compile(r"<Code>(\w{1,60})</Code>")

_log = Log("artifacts.reach")


def reaching(call: Callable[P, R]) -> Callable[P, R]:
    """The call, which raises Unreachable "storage.unreachable" where the store failed after its own retries."""

    @functools.wraps(call)
    def reached(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except BaseError as error:
            failures[type(error).__name__] += 1
            _log.warning("artifacts.store_failed", call=call.__name__, error=error, **_answer(str(error)))
            raise Unreachable(
                "storage.unreachable",
                "The coordinator's artifact store does not answer.",
                next_step="Try again in a minute; the operator's log says what it answered.",
                kind=type(error).__name__,
            ) from None

    return reached


def _answer(text: str) -> dict[str, str]:
    """What is fit for the log of a store's answer."""
    status, said = STATUS.search(text), SAID.search(text)
    return {**({"status": status[0]} if status else {}), **({"said": said[1]} if said else {})}
