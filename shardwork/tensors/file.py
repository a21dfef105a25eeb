"""Tensor files: a deterministic safetensors writer and a strict, memory-mapped safetensors reader.

Owns the bytes on disk and nothing about what the numbers mean. Equal arrays give equal bytes, so equal values have
equal artifact ids. The reader trusts nothing: files come from volunteers, and the reference library accepts eight kinds
of hostile file (duplicate keys, absurd shapes, traversing names, NaN …) that are refused here. Called by
`encodedfile`, `checkpoint`, `shardwork.recipes.prepare` and the worker's child. No torch.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, cast

import numpy as np
import numpy.typing as npt

from ..errors import Corrupt, InvalidInput

Array = npt.NDArray[Any]

#: 9,000 tensors fit; the library's 100 MB cap lets a 37 MiB header cost 1.6 GiB of memory
HEADER_CAP_BYTES = 1024 * 1024
MAX_DIMS = 8
MAX_NUMEL = 2**38
#: an empty tensor costs no bytes, so only this bounds its other sides
MAX_EMPTY_SIDE = 2**31
MAX_NAME = 200
NAME = re.compile(r"[A-Za-z0-9_@](?:[A-Za-z0-9_@:+-]|\.(?!\.))*")
#: elements looked at together: the scratch stays in the cache
CHUNK = 1 << 16

#: safetensors tag -> the numpy dtype of a view; BF16 has none in numpy and is seen as its bits
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
TAGS: dict[np.dtype[Any], str] = {dtype: tag for tag, dtype in DTYPES.items() if tag != "BF16"}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor is, without its values."""

    #: safetensors tag, a key of DTYPES
    tag: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: Array) -> TensorSpec:
        """The spec under which this array is written. Raises InvalidInput for a dtype that has no tag."""
        tag = TAGS.get(array.dtype)
        if tag is None:
            raise InvalidInput("tensorfile.dtype", "An array of this type cannot be stored.", dtype=array.dtype)
        return cls(tag, array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.tag]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.numel * self.dtype.itemsize


class TensorWriter:
    """Writes one file tensor by tensor, or piece by piece, holding none: the shapes are fixed first.

    The file appears under its name only when `close` found every element written. Leaving a `with` block by an
    exception removes it.
    """

    def __init__(
        self, path: Path, specs: Mapping[str, TensorSpec], *, metadata: Mapping[str, str] | None = None
    ) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._specs = dict(specs)
        header, self._offsets, end = _layout(self._specs, metadata)
        self._written = dict.fromkeys(self._specs, 0)
        self._file = self._part.open("wb")
        self._file.write(len(header).to_bytes(8, "little") + header)
        self._file.flush()
        os.truncate(self._file.fileno(), end)

    def write(self, name: str, values: Array, *, at: int = 0) -> None:
        """Writes `values` from flat element `at` on. Pieces may come in any order, each element once."""
        spec = self._specs[name]
        if TensorSpec.of(values).tag != spec.tag and not (spec.tag == "BF16" and values.dtype == spec.dtype):
            raise TypeError(f"{name} is {spec.tag}, got {values.dtype}")
        if at < 0 or at + values.size > spec.numel:
            raise ValueError(f"{name} has {spec.numel} elements, got {values.size} at {at}")
        data = memoryview(cast("Any", np.ascontiguousarray(values).reshape(-1).view(np.uint8)))
        offset = self._offsets[name] + at * spec.dtype.itemsize
        while data:
            count = os.pwrite(self._file.fileno(), data, offset)
            data, offset = data[count:], offset + count
        self._written[name] += values.size

    def close(self) -> None:
        """Publishes the file. Raises ValueError when a tensor is incomplete."""
        for name, count in self._written.items():
            if count != self._specs[name].numel:
                self.discard()
                raise ValueError(f"{name}: {count} of {self._specs[name].numel} elements were written")
        self._file.close()
        os.replace(self._part, self._path)

    def discard(self) -> None:
        """Drops what was written."""
        self._file.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def write_tensors(path: Path, arrays: Mapping[str, Array], *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes all arrays; equal names and values give equal bytes whatever the mapping's order."""
    specs = {name: TensorSpec.of(array) for name, array in arrays.items()}
    with TensorWriter(path, specs, metadata=metadata) as writer:
        for name, array in arrays.items():
            writer.write(name, array)


def _layout(specs: Mapping[str, TensorSpec], metadata: Mapping[str, str] | None) -> tuple[bytes, dict[str, int], int]:
    """(header padded to 8 bytes, absolute offset of each tensor, file size). Widest types first aligns every view."""
    for name, spec in specs.items():
        _check_name(name, "a tensor to write")
        _check_shape(name, spec.shape, "a tensor to write")
    order = sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name))
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    begins: dict[str, int] = {}
    position = 0
    for name in order:
        begins[name] = position
        position += specs[name].size_bytes
        entries[name] = {
            "dtype": specs[name].tag,
            "shape": list(specs[name].shape),
            "data_offsets": [begins[name], position],
        }
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=True).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > HEADER_CAP_BYTES:
        raise InvalidInput("tensorfile.header_too_large", "Too many tensors for one file.", tensors=len(specs))
    start = 8 + len(header)
    return header, {name: start + begin for name, begin in begins.items()}, start + position


class TensorFile(Mapping[str, Array]):
    """An open tensor file: `[name]` is a read-only view on the mapped bytes (BF16 as uint16).

    Pages come from the file and can be dropped by the kernel at any time, so a large file costs no anonymous memory.
    """

    def __init__(self, path: Path, mapped: mmap.mmap | bytes, specs: dict[str, TensorSpec], offsets: dict[str, int]):
        self.path = path
        self.specs = specs
        self._mapped = mapped
        self._offsets = offsets

    @property
    def names(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(self.specs)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: spec.shape for name, spec in self.specs.items()}

    @property
    def dtypes(self) -> dict[str, str]:
        """Safetensors tags: "F32", "BF16", "I8" …"""
        return {name: spec.tag for name, spec in self.specs.items()}

    def __getitem__(self, name: str) -> Array:
        spec = self.specs[name]
        flat = np.frombuffer(self._mapped, spec.dtype, spec.numel, self._offsets[name])
        if spec.tag == "BOOL" and flat.size and int(flat.view(np.uint8).max()) > 1:
            _refuse("tensorfile.bad_bool", "A truth value is neither 0 nor 1.", file=self.path.name, tensor=name)
        return flat.reshape(spec.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def check_finite(self) -> None:
        """Raises InvalidInput "tensorfile.not_finite" naming the first tensor with a NaN or an infinity."""
        for name, spec in self.specs.items():
            if not _is_finite(self[name].reshape(-1), spec.tag):
                _refuse(
                    "tensorfile.not_finite", "A tensor holds a NaN or an infinity.", file=self.path.name, tensor=name
                )

    def close(self) -> None:
        """Unmaps the file, or leaves that to the last view that is still in use."""
        if isinstance(self._mapped, mmap.mmap):
            try:
                self._mapped.close()
            except BufferError:
                pass  # a view is alive; the mapping goes with it
        self._mapped = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def open_tensors(path: Path, *, header_cap_bytes: int = HEADER_CAP_BYTES) -> TensorFile:
    """Maps a file after checking its whole structure; values are not read.

    Raises InvalidInput "tensorfile.*" for a malformed or hostile header and Corrupt "tensorfile.truncated" when the
    sizes do not add up. Non-finite values: `TensorFile.check_finite`.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise Corrupt("tensorfile.truncated", "A tensor file ends inside its header.", file=path.name, bytes=size)
        length = int.from_bytes(file.read(8), "little")
        if length > header_cap_bytes:
            _refuse("tensorfile.header_too_large", "A tensor file's header is too large.", file=path.name, bytes=length)
        if 8 + length > size:
            raise Corrupt("tensorfile.truncated", "A tensor file ends inside its header.", file=path.name, bytes=size)
        header = file.read(length)
        specs, offsets = _read_header(header, path.name, size - 8 - length)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return TensorFile(path, mapped, specs, {name: 8 + length + begin for name, begin in offsets.items()})


def read_tensors(path: Path) -> dict[str, Array]:
    """All tensors as arrays of their own, finite; for small files."""
    with open_tensors(path) as file:
        file.check_finite()
        return {name: file[name].copy() for name in file}


def _read_header(header: bytes, file: str, data_bytes: int) -> tuple[dict[str, TensorSpec], dict[str, int]]:
    entries = _parse_json(header, file)
    metadata = entries.pop("__metadata__", {})
    texts = cast("dict[str, object]", metadata).values() if isinstance(metadata, dict) else [None]
    if not all(isinstance(text, str) for text in texts):
        _refuse("tensorfile.bad_header", "The header's metadata is not a map of texts.", file=file)
    specs: dict[str, TensorSpec] = {}
    spans: list[tuple[int, int, str]] = []
    for name in sorted(entries):
        _check_name(name, file)
        specs[name], begin, end = _entry(name, entries[name], file)
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            _refuse("tensorfile.bad_layout", "Tensors overlap or leave a gap.", file=file, tensor=name, at=begin)
        position = end
    if position != data_bytes:
        raise Corrupt(
            "tensorfile.truncated",
            "The tensors and the file differ in size.",
            file=file,
            tensor_bytes=position,
            data_bytes=data_bytes,
        )
    return specs, {name: begin for begin, _, name in spans}


def _parse_json(header: bytes, file: str) -> dict[str, object]:
    """A JSON object that starts at once, repeats no key and is followed by spaces only."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(items)
        if len(found) != len(items):
            raise ValueError("a key appears twice")
        return found

    def constant(text: str) -> NoReturn:
        raise ValueError(f"{text} is not a number")

    try:
        if not header.startswith(b"{") or not header.rstrip(b" ").endswith(b"}"):
            raise ValueError("it is not exactly one object")
        return cast("dict[str, object]", json.loads(header, object_pairs_hook=pairs, parse_constant=constant))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            "tensorfile.bad_header", "The header of a tensor file is malformed.", file=file, reason=error
        ) from None


def _entry(name: str, entry: object, file: str) -> tuple[TensorSpec, int, int]:
    """(spec, begin, end) of one header entry, each value checked."""
    if not isinstance(entry, dict):
        _refuse("tensorfile.bad_header", "A tensor's entry is not an object.", file=file, tensor=name)
    fields = cast("dict[str, object]", entry)
    if set(fields) != {"dtype", "shape", "data_offsets"}:
        _refuse(
            "tensorfile.bad_header", "A tensor's entry has other keys.", file=file, tensor=name, keys=sorted(fields)
        )
    tag = fields["dtype"]
    if not isinstance(tag, str) or tag not in DTYPES:
        _refuse("tensorfile.dtype", "A tensor has a type that is not read here.", file=file, tensor=name, dtype=tag)
    shape = _numbers(fields["shape"], name, file)
    _check_shape(name, shape, file)
    offsets = _numbers(fields["data_offsets"], name, file)
    spec = TensorSpec(tag, shape)
    if len(offsets) != 2 or offsets[1] - offsets[0] != spec.size_bytes:
        _refuse("tensorfile.bad_layout", "A tensor's shape and bytes differ in size.", file=file, tensor=name)
    return spec, offsets[0], offsets[1]


def _numbers(value: object, name: str, file: str) -> tuple[int, ...]:
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(type(item) is int and 0 <= item < 2**63 for item in items):
        _refuse("tensorfile.bad_header", "A shape or offset is not a list of counts.", file=file, tensor=name)
    return tuple(cast("list[int]", items))


def _check_name(name: str, file: str) -> None:
    if len(name) > MAX_NAME or not NAME.fullmatch(name):
        _refuse("tensorfile.bad_name", "A tensor's name is not plain.", file=file, tensor=ascii(name)[:MAX_NAME])


def _check_shape(name: str, shape: tuple[int, ...], file: str) -> None:
    filled = math.prod(max(side, 1) for side in shape[:MAX_DIMS])
    if len(shape) > MAX_DIMS or filled > (MAX_EMPTY_SIDE if 0 in shape else MAX_NUMEL):
        _refuse("tensorfile.bad_shape", "A tensor has an absurd shape.", file=file, tensor=name, dims=len(shape))


def _is_finite(flat: Array, tag: str) -> bool:
    """Whether every element is finite; integers always are. Walks in pieces to stay in the cache."""
    if not tag.startswith(("F", "BF")):
        return True
    for at in range(0, flat.size, CHUNK):
        piece = flat[at : at + CHUNK]
        # bf16: all exponent bits set is a NaN or an infinity
        good = (piece & 0x7F80) != 0x7F80 if tag == "BF16" else np.isfinite(piece)
        if not good.all():
            return False
    return True


def _refuse(code: str, sentence: str, **evidence: object) -> NoReturn:
    raise InvalidInput(code, sentence, next_step="", **evidence)
