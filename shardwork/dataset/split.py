"""Which rows are held out: a function of content alone; and in what order the rest is learnt: of number and seed.

Owns the shuffle and the split. Uses SHA-256 and not a random generator, whose streams may change between versions: the
same rows and seed must give the same artifacts on every machine. Called by `check` and `prepare`, which
must agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import InvalidInput

#: a selection half and a test half need a row each
MIN_EVAL_ROWS = 2
#: more would cost every evaluation more than they tell
MOST_EVAL_ROWS = 512
#: fewer documents than this are split by rows, or a single book could not be held out from
MIN_DOCUMENTS = 16
_HELD_OUT = b"shardwork held out\0"


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of rows. No row of `train` equals a row of `held_out`."""

    train: list[int]
    held_out: list[int]
    #: rows that are neither, because an equal row is held out
    dropped: int


def shuffled(count: int, seed: bytes, purpose: str) -> list[int]:
    """0 … count-1 in the order of SHA-256(seed, purpose, number)."""
    prefix = hashlib.sha256(seed + b"\0" + purpose.encode() + b"\0")

    def key(number: int) -> bytes:
        digest = prefix.copy()
        digest.update(number.to_bytes(8, "big"))
        return digest.digest()

    return sorted(range(count), key=key)


def hold_out(
    digests: Sequence[bytes], *, fraction: float, most: int = MOST_EVAL_ROWS, topics: Sequence[bytes] | None = None
) -> Split:
    """Holds out about `fraction` of the rows, at most `most`; equal rows stay together on one side, and so do rows of
    one topic (`Row.topic`, one for each row), unless there are too few topics.

    Chosen by content alone: a row that is held out in one job is held out in every job with about as many rows, and
    rows that are added displace few others, so results can be compared and nothing held out is learnt later.

    Raises InvalidInput "data.too_few_to_hold_out" when fewer than two distinct rows could stay and two be held out.
    """
    distinct = len(set(digests))
    wanted = min(max(MIN_EVAL_ROWS, round(len(digests) * fraction)), most)
    if distinct < 2 * MIN_EVAL_ROWS or wanted < MIN_EVAL_ROWS:
        raise InvalidInput(
            "data.too_few_to_hold_out",
            f"{distinct} distinct rows are too few to hold some out.",
            next_step="Give more rows, give eval_data, or leave out eval_fraction.",
            key="eval_fraction",
            rows=len(digests),
        )
    first: dict[bytes, int] = {}
    for position, digest in enumerate(digests):
        first.setdefault(digest, position)
    wanted = min(wanted, distinct - MIN_EVAL_ROWS)
    whole = _whole_topics(first, topics, wanted, most) if topics is not None else None
    chosen = {digest: first[digest] for digest in whole or _ranked(first)[:wanted]}
    train = [position for position, digest in enumerate(digests) if digest not in chosen]
    held_out = list(chosen.values())
    return Split(train, held_out, len(digests) - len(train) - len(held_out))


def _ranked(digests: Iterable[bytes]) -> list[bytes]:
    """In an order that nobody chose and everybody finds again."""
    return sorted(digests, key=lambda digest: hashlib.sha256(_HELD_OUT + digest).digest())


def _whole_topics(first: dict[bytes, int], topics: Sequence[bytes], wanted: int, most: int) -> list[bytes]:
    """Distinct rows of whole topics, about `wanted`; none where too few topics could stay or be held out."""
    rows_of: dict[bytes, list[bytes]] = {}
    for digest, position in first.items():
        rows_of.setdefault(topics[position], []).append(digest)
    if len(rows_of) < 2 * MIN_EVAL_ROWS:
        return []
    chosen: list[bytes] = []
    larger: list[list[bytes]] = []
    for topic in _ranked(rows_of):
        rows = rows_of[topic]
        if len(chosen) + len(rows) <= wanted:
            chosen += rows
        else:
            larger.append(rows)
    for rows in sorted(larger, key=len):  # every topic has more rows than are wanted: the smallest is the nearest
        if len(chosen) >= MIN_EVAL_ROWS:
            break
        chosen += rows
    return chosen if len(chosen) <= max(wanted, min(most, len(first) // 2)) else []


def without(digests: Sequence[bytes], held_out: set[bytes]) -> Split:
    """All rows but those that equal a held-out one from another file."""
    train = [position for position, digest in enumerate(digests) if digest not in held_out]
    return Split(train, [], len(digests) - len(train))
