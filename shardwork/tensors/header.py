"""What a safetensors file says it holds, read strictly and without numpy.

Owns checking the header of a requester's model files before anything is planned or sent: the client has no numpy.
Values are read elsewhere (`shardwork.tensors.file`, which trusts volunteers' files even less). Called by
`shardwork.models.folder`.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

from ..errors import InvalidInput

#: 30,000 tensors in one file, which even mixtures of experts stay below; the reference library would take 100 MB
MAX_HEADER_BYTES = 4 << 20
MAX_DIMS = 8
MAX_SIDE = 2**31
MAX_NUMEL = 2**38
NAME = re.compile(r"[A-Za-z0-9_@](?:[A-Za-z0-9_@:+-]|\.(?!\.)){0,199}")

#: dtypes that weights and buffers of a trainable model have -> bytes an element
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    name: str
    #: safetensors tag, a key of DTYPE_BYTES
    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> list[TensorInfo]:
    """The tensors of a file, sorted by name. Raises InvalidInput "model.bad_tensors" naming the file and the reason."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or 8 + length > size:
            _refuse(path, "it ends inside its header")
        if length > MAX_HEADER_BYTES:
            _refuse(path, f"its header of {length} bytes is larger than {MAX_HEADER_BYTES}")
        header = file.read(length)
    entries = _parse(path, header)
    entries.pop("__metadata__", None)
    found: list[TensorInfo] = []
    spans: list[tuple[int, int, str]] = []
    for name, entry in sorted(entries.items()):
        info, begin, end = _entry(path, name, entry)
        found.append(info)
        spans.append((begin, end, name))
    _check_spans(path, spans, size - 8 - length)
    return found


def _parse(path: Path, header: bytes) -> dict[str, object]:
    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(items)
        if len(found) != len(items):
            raise ValueError("a key appears twice")
        return found

    try:
        if not header.startswith(b"{") or not header.rstrip(b" ").endswith(b"}"):
            raise ValueError("the header is not exactly one object")
        return cast("dict[str, object]", json.loads(header, object_pairs_hook=pairs))
    except (ValueError, RecursionError) as error:
        _refuse(path, str(error).rstrip("."))


def _entry(path: Path, name: str, entry: object) -> tuple[TensorInfo, int, int]:
    if not NAME.fullmatch(name):
        _refuse(path, f"the tensor name {ascii(name)[:80]} is not plain")
    fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
    if set(fields) != {"dtype", "shape", "data_offsets"}:
        _refuse(path, f"the entry of {name} has other keys than dtype, shape and data_offsets")
    dtype = fields["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        _refuse(path, f"{name} has the type {dtype}, which cannot be trained here")
    shape, offsets = _counts(path, name, fields["shape"]), _counts(path, name, fields["data_offsets"])
    absurd = len(shape) > MAX_DIMS or any(side > MAX_SIDE for side in shape) or math.prod(shape) > MAX_NUMEL
    if absurd:
        _refuse(path, f"{name} has an absurd shape")
    info = TensorInfo(name, dtype, shape)
    if len(offsets) != 2 or offsets[1] - offsets[0] != info.numel * DTYPE_BYTES[dtype]:
        _refuse(path, f"shape and bytes of {name} differ in size")
    return info, offsets[0], offsets[1]


def _counts(path: Path, name: str, value: object) -> tuple[int, ...]:
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(type(item) is int and 0 <= item < 2**63 for item in items):
        _refuse(path, f"shape or offsets of {name} are not counts")
    return tuple(cast("list[int]", items))


def _check_spans(path: Path, spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            _refuse(path, f"tensors overlap or leave a gap before {name}")
        position = end
    if position != data_bytes:
        _refuse(path, f"its tensors take {position} bytes but the file holds {data_bytes}; it may be cut short")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InvalidInput(
        "model.bad_tensors",
        f"{path.name} is not a sound safetensors file: {reason}.",
        next_step="Download or save the model again.",
        file=path,
    )
