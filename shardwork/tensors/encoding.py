"""Encodings: how deltas and Adam moments are packed for the wire, and exactly what they decode to.

Owns the registry (`int8`, `bf16`, `fp32`) and nothing about files (`encodedfile`) or rounds. Three quantities
are packed: a delta (or, for an absolute encoding, the new weights), Adam's m, and Adam's v. Only element-wise fp32
operations in a fixed order: coordinator and worker decode the same bits on every CPU. Called by the training child, the
coordinator's executor and `apply_update`. Block-wise int8 after Dettmers et al., arXiv 2110.02861, section 2.1; figures
for moments in int8 are our own (design: training).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput
from .file import CHUNK, Array, TensorSpec

F32 = npt.NDArray[np.float32]

BLOCK = 256
SCALE_SUFFIX = "@scale"

_F32_MAX = np.finfo(np.float32).max
_TINY = np.finfo(np.float32).tiny
#: a root in [_ROOT_MIN, _ROOT_MAX] has a normal, finite fp32 square, also after rounding
_ROOT_MIN = np.float32(1.1e-19)
_ROOT_MAX = np.float32(1.84e19)
_BF16_MAX = np.float32(3.3895e38)


class Quantity(StrEnum):
    """What numbers are, which decides how they may be rounded."""

    #: before - after, or the values after when the encoding is absolute
    DELTA = "delta"
    #: Adam's first moment
    M = "m"
    #: Adam's second moment; packed as its root, and a non-zero value never becomes zero
    V = "v"


@dataclass(frozen=True, slots=True)
class Part:
    """One stored tensor of an encoded tensor."""

    #: appended to the tensor's name
    suffix: str
    #: safetensors tag
    tag: str
    #: values that one stored element stands for
    span: int


class Encoding(Protocol):
    """One way to pack flat fp32 values. Pieces start at a multiple of BLOCK; only a tensor's last piece may be odd."""

    name: ClassVar[str]
    #: the delta file holds the values after the shard and not a difference
    absolute: ClassVar[bool]

    def parts(self, quantity: Quantity) -> tuple[Part, ...]:
        """The tensors stored for each tensor, in the order of `encode`."""
        ...

    def encode(self, values: F32, quantity: Quantity) -> tuple[Array, ...]:
        """Packs flat values. Raises InvalidInput "encoding.not_finite" on NaN, infinity or a negative v."""
        ...

    def decode(self, stored: Sequence[Array], quantity: Quantity, out: F32) -> F32:
        """Unpacks into `out` (flat, as long as the piece) and returns it. Trusts the stored values."""
        ...


class Int8:
    """A scale for each 256 values: deltas and m at 127 levels a side, roots of v at 255 levels (uint8)."""

    name: ClassVar[str] = "int8"
    absolute: ClassVar[bool] = False

    def parts(self, quantity: Quantity) -> tuple[Part, ...]:
        return Part("", "U8" if quantity is Quantity.V else "I8", 1), Part(SCALE_SUFFIX, "F32", BLOCK)

    def encode(self, values: F32, quantity: Quantity) -> tuple[Array, ...]:
        pack = _pack_roots if quantity is Quantity.V else _pack_signed
        payload = np.empty(values.size, np.uint8 if quantity is Quantity.V else np.int8)
        scale = np.empty(-(-values.size // BLOCK), np.float32)
        for at in range(0, values.size, CHUNK):
            levels, scales = pack(_blocks(values[at : at + CHUNK]))
            payload[at : at + CHUNK] = levels.reshape(-1)[: values.size - at]
            scale[at // BLOCK : at // BLOCK + scales.size] = scales
        return payload, scale

    def decode(self, stored: Sequence[Array], quantity: Quantity, out: F32) -> F32:
        payload, scale = stored
        whole = out.size - out.size % BLOCK
        out[...] = payload
        out[:whole].reshape(-1, BLOCK)[...] *= scale[: whole // BLOCK, None]
        out[whole:] *= scale[whole // BLOCK :]
        if quantity is Quantity.V:
            np.square(out, out=out)
        return out


class Bf16:
    """Upper halves of fp32, rounded to nearest even."""

    name: ClassVar[str] = "bf16"
    absolute: ClassVar[bool] = False

    def parts(self, quantity: Quantity) -> tuple[Part, ...]:
        return (Part("", "U16", 1),)

    def encode(self, values: F32, quantity: Quantity) -> tuple[Array, ...]:
        payload = np.empty(values.size, np.uint16)
        for at in range(0, values.size, CHUNK):
            piece = _checked(values[at : at + CHUNK], quantity)
            if quantity is Quantity.V:
                root = np.sqrt(piece)
                piece = np.clip(root, _ROOT_MIN, _ROOT_MAX, out=np.zeros_like(root), where=root > 0)
            bits = np.clip(piece, -_BF16_MAX, _BF16_MAX).view(np.uint32)
            payload[at : at + CHUNK] = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16
        return (payload,)

    def decode(self, stored: Sequence[Array], quantity: Quantity, out: F32) -> F32:
        bits = out.view(np.uint32)
        bits[...] = stored[0]
        bits <<= 16
        if quantity is Quantity.V:
            np.square(out, out=out)
        return out


class Fp32:
    """Values after the shard, exactly: one shard a round is bitwise uninterrupted training."""

    name: ClassVar[str] = "fp32"
    absolute: ClassVar[bool] = True

    def parts(self, quantity: Quantity) -> tuple[Part, ...]:
        return (Part("", "F32", 1),)

    def encode(self, values: F32, quantity: Quantity) -> tuple[Array, ...]:
        for at in range(0, values.size, CHUNK):
            _checked(values[at : at + CHUNK], quantity)
        return (values,)

    def decode(self, stored: Sequence[Array], quantity: Quantity, out: F32) -> F32:
        out[...] = stored[0]
        return out


ENCODINGS: dict[str, Encoding] = {encoding.name: encoding for encoding in (Int8(), Bf16(), Fp32())}


def encoding_named(name: str) -> Encoding:
    """Raises InvalidInput "encoding.unknown" naming the nearest one."""
    if name in ENCODINGS:
        return ENCODINGS[name]
    nearest = difflib.get_close_matches(name, ENCODINGS, n=1)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Known encodings: {', '.join(sorted(ENCODINGS))}."
    raise InvalidInput("encoding.unknown", f"There is no encoding called {name!r}.", next_step=hint)


def stored_specs(encoding: Encoding, name: str, numel: int, quantity: Quantity) -> dict[str, TensorSpec]:
    """The flat tensors that an encoded tensor is stored as."""
    return {name + part.suffix: TensorSpec(part.tag, (-(-numel // part.span),)) for part in encoding.parts(quantity)}


def encode_delta(encoding: Encoding, before: F32, after: F32) -> tuple[Array, ...]:
    """Packs a flat change of weights: the difference before - after, or `after` itself when absolute."""
    with np.errstate(over="ignore", invalid="ignore"):  # a change that overflows is refused by name
        return encoding.encode(after if encoding.absolute else before - after, Quantity.DELTA)


def weights_after(encoding: Encoding, before: F32, decoded: F32) -> F32:
    """What a decoded delta makes of the weights, in place in `decoded`."""
    if encoding.absolute:
        return decoded
    return np.subtract(before, decoded, out=decoded)


def gate_m(m: F32, v: F32) -> F32:
    """m with zeros where v is zero: there |m| / sqrt(v) has no bound, and the next Adam step would explode."""
    return np.where(v == 0, np.float32(0), m)


def _blocks(values: F32) -> F32:
    """[blocks, BLOCK], the last one filled up with zeros."""
    if values.size % BLOCK:
        values = np.concatenate([values, np.zeros(-values.size % BLOCK, np.float32)])
    return values.reshape(-1, BLOCK)


def _pack_signed(blocks: F32) -> tuple[Array, F32]:
    peak = np.maximum(blocks.max(axis=1), -blocks.min(axis=1))
    _refuse_unless(np.isfinite(peak).all())
    scale = np.minimum(peak, np.float32(_F32_MAX * 0.999999)) / np.float32(127)
    scale[scale < _TINY] = 0  # its inverse would overflow; what is lost is below 1.5e-36
    levels = blocks * _inverse(scale)[:, None]
    np.rint(levels, out=levels)
    return levels.astype(np.int8), scale


def _pack_roots(blocks: F32) -> tuple[Array, F32]:
    # min first: the root of a negative number would only warn; NaN fails both comparisons
    _refuse_unless(blocks.min() >= 0 and blocks.max() <= _F32_MAX)
    roots = np.sqrt(blocks)
    peak = roots.max(axis=1)
    scale = np.clip(peak, _ROOT_MIN * 255, _ROOT_MAX) / np.float32(255)
    scale[peak == 0] = 0
    levels = roots * _inverse(scale)[:, None]
    np.rint(levels, out=levels)
    np.clip(levels, roots > 0, np.float32(255), out=levels)
    return levels.astype(np.uint8), scale


def _inverse(scale: F32) -> F32:
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)


def _checked(values: F32, quantity: Quantity) -> F32:
    _refuse_unless(np.isfinite(values).all() and not (quantity is Quantity.V and values.size and values.min() < 0))
    return values


def _refuse_unless(good: Any) -> None:
    if not good:
        raise InvalidInput(
            "encoding.not_finite",
            "The values hold a NaN, an infinity or a negative second moment.",
            next_step="The training diverged: lower the learning rate.",
        )
