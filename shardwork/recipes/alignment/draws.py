"""Draws: the numbers that decide which tokens an answer is made of, fixed by its shard's seed.

Token t of a row is the first in the order of the vocabulary whose cumulated probability exceeds draw t. So an answer is
a function of seed, model and prompt, and who has the tokens can prove them all by one forward pass: each probability is
known, so is each draw, and both give the token or they do not (`auditing`). Counter-based, so that a row's draws
depend on nothing but its seed and number. Pure, numpy only; called by the worker's generation and its audit.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

PERSON = b"shardwork-draw-1"


def draws(seed: bytes, row: int, count: int) -> npt.NDArray[np.float64]:
    """The first `count` draws of row `row`: uniform in [0, 1), 53 bits each; more of them begin with the same.

    Philox 4x64 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3; SC 2011), whose stream numpy keeps fixed.
    """
    digest = hashlib.blake2b(row.to_bytes(8, "little"), key=seed[:64], digest_size=16, person=PERSON).digest()
    raw = np.random.Philox(key=np.frombuffer(digest, "<u8").astype(np.uint64)).random_raw(count)
    return (np.asarray(raw, np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53
