"""Weights: how often the rows of a source are read in one pass over the data.

A weight of 2 reads each row twice, 0.5 reads half of them, chosen by their content: the same rows in the plan, on the
coordinator and after a file grew. Pure. Called by `check`, which counts, and by `prepare`, which repeats.
"""

from __future__ import annotations

MOST_WEIGHT = 100.0


def reads(digest: bytes, weight: float) -> int:
    """How often a row of this digest is read. Over many rows the mean is `weight`."""
    whole = int(weight)
    rest = weight - whole
    # the last bytes: a split by content looks at a hash of all of them, so the two choices are independent
    return whole + (int.from_bytes(digest[-8:], "big") < rest * 2**64) if rest else whole
