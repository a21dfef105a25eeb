"""Encoded files: one safetensors file that holds a set of tensors in an encoding, written and read piece by piece.

Owns the mapping of tensor pieces to stored parts. What is in an update folder is `checkpoint`; what the bits mean is
`encoding`. Memory stays at one piece whatever the model's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ..errors import InvalidInput
from .encoding import F32, Encoding, Quantity, encode_delta, stored_specs
from .file import CHUNK, TensorSpec, TensorWriter, open_tensors

Shapes = Mapping[str, tuple[int, ...]]


def pieces(shapes: Shapes) -> Iterator[tuple[str, int, int]]:
    """(name, first element, one past the last) of every piece, names sorted: the one order of all passes."""
    for name in sorted(shapes):
        numel = math.prod(shapes[name])
        for at in range(0, numel, CHUNK):
            yield name, at, min(at + CHUNK, numel)


def _specs(encoding: Encoding, quantity: Quantity, shapes: Shapes) -> dict[str, TensorSpec]:
    return {
        stored: spec
        for name, shape in shapes.items()
        for stored, spec in stored_specs(encoding, name, math.prod(shape), quantity).items()
    }


class EncodedWriter:
    """Writes every piece of every tensor once; published by leaving the `with` block without an exception."""

    def __init__(self, path: Path, encoding: Encoding, quantity: Quantity, shapes: Shapes) -> None:
        self._encoding = encoding
        self._quantity = quantity
        self._writer = TensorWriter(path, _specs(encoding, quantity, shapes))

    @property
    def is_absolute(self) -> bool:
        return self._encoding.absolute

    def write(self, name: str, at: int, values: F32) -> None:
        """Packs flat values that start at element `at`, a multiple of the block."""
        for part, stored in zip(
            self._encoding.parts(self._quantity), self._encoding.encode(values, self._quantity), strict=True
        ):
            self._writer.write(name + part.suffix, stored, at=at // part.span)

    def write_change(self, name: str, at: int, before: F32, after: F32) -> None:
        """Packs a change of weights, as a difference or absolute as the encoding has it."""
        for part, stored in zip(
            self._encoding.parts(Quantity.DELTA), encode_delta(self._encoding, before, after), strict=True
        ):
            self._writer.write(name + part.suffix, stored, at=at // part.span)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)


class EncodedReader:
    """Reads pieces of a file that must hold exactly the tensors of `shapes` in this encoding.

    Raises InvalidInput "encoded.shapes" when it holds others; values are not checked.
    """

    def __init__(self, path: Path, encoding: Encoding, quantity: Quantity, shapes: Shapes) -> None:
        self._encoding = encoding
        self._quantity = quantity
        self._parts = encoding.parts(quantity)
        self._file = open_tensors(path)
        expected = _specs(encoding, quantity, shapes)
        if self._file.specs != expected:
            wrong = sorted(
                name for name in {*expected, *self._file.specs} if expected.get(name) != self._file.specs.get(name)
            )
            self.close()
            raise InvalidInput(
                "encoded.shapes",
                "An update's tensors are not those of the checkpoint.",
                file=path.name,
                tensor=wrong[0],
                tensors=len(wrong),
            )

    @property
    def is_absolute(self) -> bool:
        return self._encoding.absolute

    def read(self, name: str, start: int, end: int, out: F32) -> F32:
        """Elements [start, end) of a tensor, unpacked into the front of `out`; start is a multiple of the block."""
        stored = [self._file[name + part.suffix][start // part.span : -(-end // part.span)] for part in self._parts]
        return self._encoding.decode(stored, self._quantity, out[: end - start])

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def scratch() -> F32:
    """Room for one piece."""
    return np.empty(CHUNK, np.float32)
