"""Gates: every delta is opened, compared with the checkpoint and measured before any rule sees it.

Owns what no rule may forgive: malformed files, other tensors, NaN, impossible moments, norms out of all proportion. A
refused delta is reported and left out; it never stops the round by itself. NaN alone kills four of seven published
rules (reference: ml-stack section 5), so gates come first.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, median_low

import numpy as np

from shardwork.errors import Corrupt, InvalidInput
from shardwork.ids import seed_int
from shardwork.tensors.checkpoint import DELTA_FORMAT, Checkpoint, Update, open_part, read_update
from shardwork.tensors.encodedfile import EncodedReader, Shapes, pieces, scratch
from shardwork.tensors.encoding import BLOCK, F32, Quantity

#: honest shards of one round differ by less than 2; a screen may be stricter
NORM_RANGE = (0.2, 5.0)
MOMENT_RANGE = (0.1, 10.0)
#: with fewer deltas the lower middle is the reference: leaving out the larger one only slows a round down
MEDIAN_FROM = 4
#: |m| / sqrt(v) of honest Adam stays below 23 for any usual pair of betas (Cauchy-Schwarz)
MAX_MOMENT_RATIO = np.float32(64)
#: squared; well below the bound, so that rounding decides nothing
CLEAR_OF_BOUND = (MAX_MOMENT_RATIO - 1) ** 2
#: below this root, v underflowed and m is too small to matter
ROOT_FLOOR = np.float32(1e-20)
SAMPLE_BLOCKS = 512
#: of all deltas together, and the least of each: memory must not grow with the number of deltas
ALL_SAMPLE_BLOCKS, LEAST_SAMPLE_BLOCKS = 64 * SAMPLE_BLOCKS, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDelta:
    """A delta whose files have the checkpoint's tensors."""

    update: Update
    delta: EncodedReader
    m: EncodedReader
    v: EncodedReader

    def change(self, checkpoint: Checkpoint, place: tuple[str, int, int], out: F32) -> F32:
        """before - after of a piece, whatever the encoding."""
        values = self.delta.read(*place, out)
        if self.delta.is_absolute:
            np.subtract(checkpoint.piece(*place), values, out=values)
        return values

    def close(self) -> None:
        for reader in (self.delta, self.m, self.v):
            reader.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Norms:
    """L2 norms over all tensors."""

    delta: float
    m: float
    #: of sqrt(v)
    root: float


def open_delta(folder: Path, checkpoint: Checkpoint, encoding: str) -> OpenDelta:
    """Opens a delta made from this checkpoint. Raises InvalidInput or Corrupt with the reason."""
    update = read_update(folder, DELTA_FORMAT)
    if update.encoding != encoding:
        raise InvalidInput("delta.encoding", "A delta is packed in another encoding.", encoding=update.encoding)
    if update.steps < 1 or update.adam_step != checkpoint.adam_step + update.steps:
        raise InvalidInput(
            "delta.steps", "A delta does not follow this checkpoint.", steps=update.steps, adam_step=update.adam_step
        )
    readers: list[EncodedReader] = []
    try:
        for name, quantity in (("delta", Quantity.DELTA), ("m", Quantity.M), ("v", Quantity.V)):
            readers.append(open_part(folder, name, encoding, quantity, checkpoint.shapes))
    except (InvalidInput, Corrupt, OSError):
        for reader in readers:
            reader.close()
        raise
    return OpenDelta(update=update, delta=readers[0], m=readers[1], v=readers[2])


def measure(delta: OpenDelta, checkpoint: Checkpoint) -> Norms:
    """Reads everything once. Raises InvalidInput "delta.not_finite"."""
    squares = np.zeros(3)
    room = scratch()
    for place in pieces(checkpoint.shapes):
        squares[0] += _square_sum(delta.change(checkpoint, place, room))
        squares[1] += _square_sum(delta.m.read(*place, room))
        v = delta.v.read(*place, room)
        # the square of the root is v itself
        squares[2] += float(v.sum()) if v.min() >= 0 else math.nan
    if not np.isfinite(squares).all():
        raise InvalidInput("delta.not_finite", "A delta holds a NaN, an infinity or a negative second moment.")
    roots = np.sqrt(squares)
    return Norms(delta=float(roots[0]), m=float(roots[1]), root=float(roots[2]))


def _square_sum(values: F32) -> float:
    # not a dot product: that one may start threads
    return float(np.einsum("i,i->", values, values))


def norm_gate(norms: Mapping[int, Norms]) -> dict[int, str]:
    """Delta number -> which norm is out of all proportion to the others."""
    refused: dict[int, str] = {}
    for word, limits, values in (
        ("norm", NORM_RANGE, {index: each.delta for index, each in norms.items()}),
        ("norm_m", MOMENT_RANGE, {index: each.m for index, each in norms.items()}),
        ("norm_v", MOMENT_RANGE, {index: each.root for index, each in norms.items()}),
    ):
        if not values:
            continue
        middle = (median if len(values) >= MEDIAN_FROM else median_low)(values.values())
        for index, value in values.items():
            if middle > 0 and not limits[0] * middle <= value <= limits[1] * middle:
                refused.setdefault(index, word)
    return refused


def steps_gate(steps: Mapping[int, int], ordered: int) -> dict[int, str]:
    """Refuses deltas that claim other step counts than were ordered."""
    return {index: "steps" for index, count in steps.items() if count != ordered}


def bound_m(m: F32, v: F32) -> None:
    """Limits m in place to what Adam can reach with this v: a hostile pair would make the next step explode."""
    with np.errstate(over="ignore"):  # too large to square is not clear of the bound
        limit = np.multiply(v, CLEAR_OF_BOUND)
        if (np.square(m) <= limit).all():  # as in honest work; a tenth of the cost of what follows
            return
    np.sqrt(v, out=limit)
    np.maximum(limit, ROOT_FLOOR, out=limit)
    np.multiply(limit, MAX_MOMENT_RATIO, out=limit)
    np.minimum(m, limit, out=m)
    np.maximum(m, np.negative(limit, out=limit), out=m)


def cosines(deltas: Mapping[int, OpenDelta], checkpoint: Checkpoint, seed: bytes) -> dict[int, float]:
    """Cosine of each delta to the coordinate median of all, on blocks drawn after all deltas were committed.

    The draw also depends on the deltas themselves: who knows the seed but not the others' work cannot foresee it.
    """
    if not deltas:
        return {}
    digest = hashlib.sha256(seed)
    for delta in deltas.values():
        for place in _first_blocks(checkpoint.shapes):
            digest.update(delta.change(checkpoint, place, np.empty(BLOCK, np.float32)).tobytes())
    count = min(SAMPLE_BLOCKS, max(LEAST_SAMPLE_BLOCKS, ALL_SAMPLE_BLOCKS // len(deltas)))
    places = sample_blocks(checkpoint.shapes, digest.digest(), count)
    sample = np.zeros((len(deltas), len(places) * BLOCK), np.float32)
    for row, delta in zip(sample, deltas.values(), strict=True):
        for number, place in enumerate(places):
            delta.change(checkpoint, place, row[number * BLOCK : (number + 1) * BLOCK])
    middle = np.median(sample, axis=0).astype(np.float64)
    return {index: _cosine(row.astype(np.float64), middle) for index, row in zip(deltas, sample, strict=True)}


def sample_blocks(shapes: Shapes, seed: bytes, count: int = SAMPLE_BLOCKS) -> Sequence[tuple[str, int, int]]:
    """Up to `count` distinct blocks drawn evenly over all tensors, in order."""
    names = sorted(shapes)
    ends = np.cumsum([-(-math.prod(shapes[name]) // BLOCK) for name in names])
    total = int(ends[-1]) if len(names) else 0
    drawn = np.random.default_rng(seed_int(seed)).choice(total, min(count, total), replace=False)
    places: list[tuple[str, int, int]] = []
    for block in sorted(int(number) for number in drawn):
        tensor = int(np.searchsorted(ends, block, side="right"))
        start = (block - (int(ends[tensor - 1]) if tensor else 0)) * BLOCK
        places.append((names[tensor], start, min(start + BLOCK, math.prod(shapes[names[tensor]]))))
    return places


def _first_blocks(shapes: Shapes) -> Sequence[tuple[str, int, int]]:
    return [(name, 0, min(BLOCK, math.prod(shapes[name]))) for name in sorted(shapes) if math.prod(shapes[name])]


def _cosine(
    left: np.ndarray[tuple[int], np.dtype[np.float64]], right: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> float:
    length = math.sqrt(float(np.einsum("i,i->", left, left)) * float(np.einsum("i,i->", right, right)))
    return float(np.einsum("i,i->", left, right)) / length if length > 0 else 0.0
