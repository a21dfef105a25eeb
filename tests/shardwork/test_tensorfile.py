# pyright: reportUnknownMemberType=false
"""Tensor files are deterministic, readable by the safetensors library, and refused when hostile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from shardwork.errors import Corrupt, InvalidInput, ShardworkError
from shardwork.tensors.file import TensorSpec, TensorWriter, open_tensors, read_tensors, write_tensors

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "b.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a": np.arange(-3, 4, dtype=np.int8),
    "a@scale": np.array([0.5], np.float32),
    "mask": np.array([0, 1, 1], np.uint8),
    "tokens": np.array([1, 2], np.int32),
    "offsets": np.array([0, 2], np.int64),
    "bits": np.array([16256], np.uint16),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(7, np.float32),
}


def raw(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)
    return path


def entry(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def header(entries: Mapping[str, object]) -> bytes:
    return json.dumps(entries).encode()


def refused(path: Path) -> ShardworkError:
    with pytest.raises((InvalidInput, Corrupt)) as caught:
        read_tensors(path)
    return caught.value


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    write_tensors(tmp_path / "ours", ARRAYS)
    theirs = safetensors.numpy.load_file(tmp_path / "ours")
    assert set(theirs) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert theirs[name].dtype == array.dtype
        np.testing.assert_array_equal(theirs[name], array)


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    safetensors.numpy.save_file(ARRAYS, tmp_path / "theirs", metadata={"format": "pt"})
    ours = read_tensors(tmp_path / "theirs")
    assert list(ours) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        assert ours[name].dtype == array.dtype and ours[name].shape == array.shape
        np.testing.assert_array_equal(ours[name], array)


def test_equal_arrays_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    write_tensors(tmp_path / "one", ARRAYS)
    write_tensors(tmp_path / "two", dict(reversed(ARRAYS.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_every_view_is_aligned_and_read_only(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", ARRAYS)
    with open_tensors(tmp_path / "file") as file:
        assert all(file[name].flags.aligned for name in file)
        with pytest.raises(ValueError, match="read-only"):
            file["b.weight"][0, 0] = 1


def test_a_view_outlives_its_file(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", ARRAYS)
    with open_tensors(tmp_path / "file") as file:
        view = file["b.weight"]
    assert view.sum() == 66


def test_pieces_in_any_order_equal_the_whole(tmp_path: Path) -> None:
    array = np.arange(1000, dtype=np.float32)
    write_tensors(tmp_path / "whole", {"x": array})
    with TensorWriter(tmp_path / "pieces", {"x": TensorSpec("F32", (1000,))}) as writer:
        writer.write("x", array[700:], at=700)
        writer.write("x", array[:700])
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "pieces").read_bytes()


def test_an_incomplete_file_is_never_published(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="3 of 5"),
        TensorWriter(tmp_path / "x", {"x": TensorSpec("F32", (5,))}) as writer,
    ):
        writer.write("x", np.zeros(3, np.float32))
    with pytest.raises(ZeroDivisionError), TensorWriter(tmp_path / "y", {"x": TensorSpec("F32", (5,))}):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_writing_another_type_or_too_much_is_refused(tmp_path: Path) -> None:
    with TensorWriter(tmp_path / "x", {"x": TensorSpec("F32", (2,))}) as writer:
        with pytest.raises(TypeError):
            writer.write("x", np.zeros(2, np.float64))
        with pytest.raises(ValueError, match="has 2 elements"):
            writer.write("x", np.zeros(2, np.float32), at=1)
        writer.write("x", np.zeros(2, np.float32))


def test_bfloat16_is_read_as_bits(tmp_path: Path) -> None:
    raw(tmp_path / "x", header({"x": entry("BF16", [2], [0, 4])}), np.array([0x3F80, 0x4000], np.uint16).tobytes())
    with open_tensors(tmp_path / "x") as file:
        assert file.dtypes == {"x": "BF16"} and file["x"].tolist() == [0x3F80, 0x4000]
        file.check_finite()


ONE = {"x": entry()}
DUPLICATE = b'{"x":%s,"x":%s}' % (header(entry()), header(entry()))
NAN = np.array([np.nan], np.float32).tobytes()


@pytest.mark.parametrize(
    ("code", "head", "data"),
    [
        # the eight that the reference library accepts
        ("tensorfile.bad_header", DUPLICATE, bytes(4)),
        ("tensorfile.bad_shape", header({"x": entry(shape=[0, 2**40], offsets=[0, 0])}), b""),
        ("tensorfile.bad_shape", header({"x": entry(shape=[1] * 1000)}), bytes(4)),
        ("tensorfile.bad_name", header({"../x": entry()}), bytes(4)),
        ("tensorfile.bad_name", header({"x\0y": entry()}), bytes(4)),
        ("tensorfile.bad_header", b"  " + header(ONE), bytes(4)),
        ("tensorfile.not_finite", header(ONE), NAN),
        ("tensorfile.bad_bool", header({"x": entry("BOOL", [1], [0, 1])}), b"\7"),
        # and the usual ones
        ("tensorfile.bad_header", header(ONE) + b"\n", bytes(4)),
        ("tensorfile.bad_header", b"", b""),
        ("tensorfile.bad_header", b"[]", b""),
        ("tensorfile.bad_header", b"{" * 5000 + b"}", b""),
        ("tensorfile.bad_header", b'{"x":' + b"[" * 100_000 + b"}", b""),
        ("tensorfile.bad_header", header({"x": 3}), bytes(4)),
        ("tensorfile.bad_header", header({"x": {**entry(), "more": 1}}), bytes(4)),
        ("tensorfile.bad_header", header({"x": entry(shape=[True])}), bytes(4)),
        ("tensorfile.bad_header", header({"x": entry(shape=[-1])}), bytes(4)),
        ("tensorfile.bad_header", header({"x": entry(shape=[1.0])}), bytes(4)),
        ("tensorfile.bad_header", header({"x": entry(shape="1")}), bytes(4)),
        ("tensorfile.bad_header", header({"x": entry(), "__metadata__": {"a": 1}}), bytes(4)),
        ("tensorfile.bad_header", header({"x": entry(offsets=[0, float("nan")])}), bytes(4)),
        ("tensorfile.dtype", header({"x": entry("F8_E4M3")}), bytes(4)),
        ("tensorfile.bad_name", header({"": entry()}), bytes(4)),
        ("tensorfile.bad_name", header({"a..b": entry()}), bytes(4)),
        ("tensorfile.bad_name", header({"/etc": entry()}), bytes(4)),
        ("tensorfile.bad_layout", header({"x": entry(offsets=[0, 8])}), bytes(8)),
        ("tensorfile.bad_layout", header({"x": entry(offsets=[4, 8])}), bytes(8)),
        ("tensorfile.bad_layout", header({"x": entry(), "y": entry()}), bytes(4)),
        ("tensorfile.bad_layout", header({"x": entry(), "y": entry(offsets=[8, 12])}), bytes(12)),
        ("tensorfile.bad_shape", header({"x": entry(shape=[2**32, 2**32], offsets=[0, 2**66])}), bytes(4)),
        ("tensorfile.truncated", header(ONE), bytes(3)),
        ("tensorfile.truncated", header(ONE), bytes(5)),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, code: str, head: bytes, data: bytes) -> None:
    error = refused(raw(tmp_path / "x", head, data))
    assert error.code == code and error.why.evidence["file"] == "x"


def test_short_and_overlong_headers_are_refused_before_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1234567")
    assert refused(tmp_path / "x").code == "tensorfile.truncated"
    assert refused(raw(tmp_path / "x", b"{}", length=3)).code == "tensorfile.truncated"
    assert refused(raw(tmp_path / "x", b"{}", length=2**63)).code == "tensorfile.header_too_large"
    assert refused(raw(tmp_path / "x", b"{}" + b" " * 2**20)).code == "tensorfile.header_too_large"


@pytest.mark.parametrize(("dtype", "bad"), [("BF16", 0x7F80), ("BF16", 0xFFC1), ("F16", 0x7C00)])
def test_half_precision_infinities_are_found(tmp_path: Path, dtype: str, bad: int) -> None:
    values = np.zeros(100_000, np.uint16)
    values[-1] = bad
    raw(tmp_path / "x", header({"x": entry(dtype, [100_000], [0, 200_000])}), values.tobytes())
    assert refused(tmp_path / "x").code == "tensorfile.not_finite"


@given(st.binary(max_size=200))
def test_noise_never_raises_anything_but_a_refusal(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise"
    for content in (noise, len(noise).to_bytes(8, "little") + noise):
        path.write_bytes(content)
        try:
            found = read_tensors(path)
        except (InvalidInput, Corrupt) as error:
            assert error.why.evidence["file"] == "noise"
        else:
            assert sum(array.nbytes for array in found.values()) < len(content)
