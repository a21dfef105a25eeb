# pyright: reportUnknownMemberType=false
"""Every hostile safetensors file that is known to us, against both of our readers: refused with its code, at once.

The reference library accepts eight of them. The readers are `shardwork.tensors.file`, for volunteers' deltas, and
`shardwork.tensors.header`, for a requester's base model. Memory is measured here, seconds in the nightly run.
"""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from shardwork.errors import Corrupt, InvalidInput
from shardwork.tensors.file import read_tensors
from shardwork.tensors.header import read_header

MOST_SECONDS, MOST_BYTES = 0.05, 64 << 20


def entry(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def head(entries: Mapping[str, object]) -> bytes:
    return json.dumps(entries).encode()


def crowd(count: int) -> bytes:
    """A header of `count` empty tensors: 600,000 of them take 37 MiB, and took the library 6.9 s and 1.6 GiB."""
    one = ',"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return ("{" + ",".join(f'"t{n:06}":{{{one[1:]}' for n in range(count)) + "}").encode()


def nested(depth: int) -> bytes:
    return b'{"x":' + b"[" * depth + b"]" * depth + b"}"


@dataclass(frozen=True, slots=True)
class Hostile:
    name: str
    header: Callable[[], bytes]
    #: codes of the reader of deltas and of the reader of models; None where the header alone is sound
    tensors: str
    model: str | None = "model.bad_tensors"
    data: bytes = bytes(4)
    #: said length of the header, where it lies
    length: int | None = None


ONE = head({"x": entry()})
TWICE = b'{"x":%s,"x":%s}' % (head(entry()), head(entry()))
NAN = np.array([np.nan], np.float32).tobytes()
HEADER, SHAPE, NAME, LAYOUT = (f"tensorfile.bad_{kind}" for kind in ("header", "shape", "name", "layout"))
FILES = [
    # the eight that the reference library takes
    Hostile("a key twice", lambda: TWICE, HEADER),
    Hostile("an empty tensor with a side of 2^40", lambda: head({"x": entry(shape=[0, 2**40], offsets=[0, 0])}), SHAPE),
    Hostile("a thousand dimensions", lambda: head({"x": entry(shape=[1] * 1000)}), SHAPE),
    Hostile("a name that climbs", lambda: head({"../../x": entry()}), NAME),
    Hostile("a name with a NUL", lambda: head({"x\0.weight": entry()}), NAME),
    Hostile("spaces before the header", lambda: b"   " + ONE, HEADER),
    # values of a base model are its owner's business, and learning from a NaN is refused as diverged
    Hostile("a NaN", lambda: ONE, "tensorfile.not_finite", None, NAN),
    Hostile("a truth value of 7", lambda: head({"x": entry("BOOL", [1], [0, 1])}), "tensorfile.bad_bool", None, b"\7"),
    # the fourteen that it refuses too
    Hostile("a crowd of 600,000", lambda: crowd(600_000), "tensorfile.header_too_large", data=b""),
    Hostile("a header longer than the file", lambda: ONE, "tensorfile.truncated", length=10_000),
    Hostile("a header of 2^63 bytes", lambda: ONE, "tensorfile.header_too_large", length=2**63),
    Hostile("no header", lambda: b"", HEADER, data=b""),
    Hostile("no JSON", lambda: b"{" * 500 + b"}", HEADER, data=b""),
    Hostile("JSON in JSON", lambda: nested(100_000), HEADER),
    Hostile("another type of JSON", lambda: b"[1, 2]", HEADER, data=b""),
    Hostile("bytes that are no UTF-8", lambda: b'{"\xff\xfe": 1}', HEADER, data=b""),
    Hostile("an unknown type", lambda: head({"x": entry("F13")}), "tensorfile.dtype"),
    Hostile("a negative side", lambda: head({"x": entry(shape=[-1])}), HEADER),
    Hostile("a side of 2^70", lambda: head({"x": entry(shape=[2**70])}), HEADER),
    Hostile("a side that is true", lambda: head({"x": entry(shape=[True])}), HEADER),
    Hostile("sides whose product overflows", lambda: head({"x": entry(shape=[2**31] * 4)}), SHAPE),
    Hostile("offsets that run backwards", lambda: head({"x": entry(offsets=[4, 0])}), LAYOUT),
    Hostile("offsets beyond the file", lambda: head({"x": entry(shape=[2], offsets=[0, 8])}), "tensorfile.truncated"),
    Hostile("tensors over one another", lambda: head({"x": entry(), "y": entry()}), LAYOUT),
    Hostile("a gap before a tensor", lambda: head({"x": entry(offsets=[4, 8])}), LAYOUT, data=bytes(8)),
    Hostile("bytes after the last tensor", lambda: ONE, "tensorfile.truncated", data=bytes(40)),
    Hostile("a shape of other bytes", lambda: head({"x": entry(shape=[3])}), LAYOUT),
    Hostile("an entry with more in it", lambda: head({"x": {**entry(), "loader": "os.system"}}), HEADER),
    Hostile("a name without end", lambda: head({"x" * 100_000: entry()}), NAME),
    Hostile("metadata that is no text", lambda: head({"__metadata__": {"a": [1]}, "x": entry()}), HEADER, None),
]


def written(one: Hostile, folder: Path) -> Path:
    header = one.header()
    path = folder / "model.safetensors"
    length = len(header) if one.length is None else one.length
    path.write_bytes(length.to_bytes(8, "little") + header + one.data)
    return path


def refusal(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises((InvalidInput, Corrupt)) as caught:
        read(path)
    assert caught.value.why.sentence
    return caught.value.code


@pytest.mark.parametrize("one", FILES, ids=lambda one: str(one.name))
def test_a_hostile_tensor_file_is_refused_with_its_code_and_little_memory(one: Hostile, tmp_path: Path) -> None:
    path = written(one, tmp_path)
    tracemalloc.start()
    try:
        assert refusal(read_tensors, path) == one.tensors
        if one.model is None:
            assert read_header(path)
        else:
            assert refusal(read_header, path) == one.model
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.nightly
@pytest.mark.parametrize("one", FILES, ids=lambda one: str(one.name))
def test_a_hostile_tensor_file_is_refused_at_once(one: Hostile, tmp_path: Path) -> None:
    path = written(one, tmp_path)
    seconds: list[float] = []
    for read in (read_tensors, read_header):
        if read is read_header and one.model is None:
            continue
        for _ in range(3):
            began = time.process_time()
            refusal(read, path)
            seconds.append(time.process_time() - began)
    assert min(seconds) < MOST_SECONDS


@pytest.mark.parametrize(("read", "count"), [(read_tensors, 14_000), (read_header, 65_000)])
def test_the_largest_header_that_is_read_costs_little(
    read: Callable[[Path], Sized], count: int, tmp_path: Path
) -> None:
    """Just below each reader's limit, and sound."""
    path = written(Hostile("sound", lambda: crowd(count), "", data=b""), tmp_path)
    tracemalloc.start()
    try:
        assert len(read(path)) == count
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
