"""Checkpoints and updates read back, and lead to the same bytes everywhere."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from shardwork.artifact import describe_folder
from shardwork.errors import InvalidInput
from shardwork.tensors.checkpoint import (
    DELTA_FORMAT,
    Tensors,
    apply_update,
    open_checkpoint,
    open_part,
    read_update,
    stepped_weights,
    write_checkpoint,
    write_delta,
    write_moments,
    write_step,
)
from shardwork.tensors.encoding import ENCODINGS, Quantity
from shardwork.tensors.file import write_tensors

every = pytest.mark.parametrize("encoding", ENCODINGS)
SHAPES = {"model.layers.0.weight": (300, 257), "model.norm.weight": (17,), "scalar": ()}


def tensors(seed: int, scale: float = 1.0) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    random = np.random.default_rng(seed)
    return {name: np.asarray(random.standard_normal(shape) * scale, np.float32) for name, shape in SHAPES.items()}


def squares(values: Tensors) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {name: np.asarray(np.square(value)) for name, value in values.items()}


def plus(left: Tensors, right: Tensors) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {name: np.asarray(left[name] + right[name]) for name in left}


def make_round(folder: Path, encoding: str) -> tuple[Path, Path, Path]:
    before, after = tensors(1), plus(tensors(1), tensors(2, 0.01))
    write_checkpoint(folder / "checkpoint", before, None, None, "full", 0, 0)
    write_step(folder / "step", encoding, before, after, 5, 5)
    write_moments(folder / "moments", encoding, tensors(3, 1e-3), squares(tensors(3, 1e-3)), 5, 5)
    return folder / "checkpoint", folder / "step", folder / "moments"


def test_a_checkpoint_reads_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tensors(1), tensors(2), squares(tensors(3)), "lora", 40, 4)
    with open_checkpoint(tmp_path) as found:
        assert (found.method, found.adam_step, found.round) == ("lora", 40, 4)
        assert found.m is not None and found.v is not None
        for name in SHAPES:
            np.testing.assert_array_equal(found.weights[name], tensors(1)[name])
            np.testing.assert_array_equal(found.m[name], tensors(2)[name])
            np.testing.assert_array_equal(found.v[name], squares(tensors(3))[name])


def test_before_the_first_round_there_are_no_moments(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tensors(1), None, None, method="full", adam_step=0, round=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "weights.safetensors"]
    with open_checkpoint(tmp_path) as found:
        assert found.m is None and found.v is None


def test_equal_values_have_equal_artifact_ids(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", tensors(1), tensors(2), tensors(3), "full", 1, 1)
    write_checkpoint(tmp_path / "b", dict(reversed(tensors(1).items())), tensors(2), tensors(3), "full", 1, 1)
    assert describe_folder(tmp_path / "a").id == describe_folder(tmp_path / "b").id


@every
def test_an_update_gives_the_bytes_that_it_decodes_to(tmp_path: Path, encoding: str) -> None:
    checkpoint, step, moments = make_round(tmp_path, encoding)
    apply_update(checkpoint, step, moments, tmp_path / "next")
    tolerance = 0 if encoding == "fp32" else 3e-4
    with open_checkpoint(tmp_path / "next") as found:
        assert (found.method, found.adam_step, found.round) == ("full", 5, 1)
        expected = plus(tensors(1), tensors(2, 0.01))
        for name, values in stepped_weights(checkpoint, step):
            np.testing.assert_array_equal(found.weights[name], values)
            np.testing.assert_allclose(values, expected[name], atol=tolerance)
        assert found.m is not None and found.v is not None
        for name, values in tensors(3, 1e-3).items():
            np.testing.assert_allclose(found.m[name], values, atol=tolerance * 0.1)
            np.testing.assert_allclose(np.sqrt(found.v[name]), np.abs(values), atol=tolerance * 0.1)


@every
def test_another_process_applies_the_same_bytes(tmp_path: Path, encoding: str) -> None:
    checkpoint, step, moments = make_round(tmp_path, encoding)
    apply_update(checkpoint, step, moments, tmp_path / "here")
    process = multiprocessing.get_context("spawn").Process(
        target=apply_update, args=(checkpoint, step, moments, tmp_path / "there")
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert describe_folder(tmp_path / "here").id == describe_folder(tmp_path / "there").id


def test_fp32_keeps_even_odd_moments_to_the_bit(tmp_path: Path) -> None:
    """Underflow leaves v at zero beside a non-zero m; exactness must not depend on it."""
    m = {"x": np.array([1e-25, -0.0, 3], np.float32)}
    v = {"x": np.array([0, 1e-45, 9], np.float32)}
    weights = {"x": np.ones(3, np.float32)}
    write_checkpoint(tmp_path / "checkpoint", weights, None, None, "full", 0, 0)
    write_step(tmp_path / "step", "fp32", weights, weights, 1, 1)
    write_moments(tmp_path / "moments", "fp32", m, v, 1, 1)
    apply_update(tmp_path / "checkpoint", tmp_path / "step", tmp_path / "moments", tmp_path / "next")
    with open_checkpoint(tmp_path / "next") as found:
        assert found.m is not None and found.v is not None
        assert found.m["x"].tobytes() == m["x"].tobytes() and found.v["x"].tobytes() == v["x"].tobytes()


@pytest.mark.parametrize("encoding", ["int8", "bf16"])
def test_lossy_moments_drop_m_where_v_is_zero(tmp_path: Path, encoding: str) -> None:
    weights = {"x": np.ones(2, np.float32)}
    m, v = {"x": np.array([1, 1], np.float32)}, {"x": np.array([0, 1e-40], np.float32)}
    write_delta(tmp_path, encoding, weights, weights, m, v, steps=1, adam_step=1)
    read = {
        name: open_part(tmp_path, name, encoding, quantity, {"x": (2,)}).read("x", 0, 2, np.empty(2, np.float32))
        for name, quantity in (("m", Quantity.M), ("v", Quantity.V))
    }
    assert read["m"].tolist() == [0, 1]
    assert read["v"][0] == 0 and read["v"][1] > 0


def test_a_delta_says_what_it_is(tmp_path: Path) -> None:
    write_delta(tmp_path, "int8", tensors(1), tensors(2), tensors(3), squares(tensors(3)), steps=7, adam_step=21)
    update = read_update(tmp_path, DELTA_FORMAT)
    assert (update.encoding, update.steps, update.adam_step) == ("int8", 7, 21)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "delta.safetensors", "m.safetensors", "update.json", "v.safetensors",
    ]  # fmt: skip


def test_arrays_that_are_not_contiguous_are_written_right(tmp_path: Path) -> None:
    weights = {"x": np.arange(12, dtype=np.float32).reshape(3, 4).T}
    write_checkpoint(tmp_path, weights, None, None, "full", 0, 0)
    with open_checkpoint(tmp_path) as found:
        np.testing.assert_array_equal(found.weights["x"], weights["x"])


def test_updates_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    checkpoint, step, moments = make_round(tmp_path, "int8")
    write_checkpoint(tmp_path / "later", tensors(1), None, None, "full", 5, 1)
    with pytest.raises(InvalidInput) as caught:
        apply_update(tmp_path / "later", step, moments, tmp_path / "next")
    assert caught.value.code == "checkpoint.update"
    write_checkpoint(tmp_path / "other", {"x": np.ones(3, np.float32)}, None, None, "full", 0, 0)
    with pytest.raises(InvalidInput) as caught:
        apply_update(tmp_path / "other", step, moments, tmp_path / "next")
    assert caught.value.code == "encoded.shapes"
    assert checkpoint.exists()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"format": "shardwork.tensors.checkpoint.v9"}, "checkpoint.format"),
        ({"adam_step": -1}, "checkpoint.json"),
        ({"adam_step": True}, "checkpoint.json"),
        ({"more": 1}, "checkpoint.json"),
        ({"method": "x" * 9000}, "checkpoint.json"),
    ],
)
def test_malformed_state_is_refused(tmp_path: Path, change: dict[str, object], code: str) -> None:
    write_checkpoint(tmp_path, tensors(1), None, None, "full", 0, 0)
    state = tmp_path / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), **change}))
    with pytest.raises(InvalidInput) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.code == code


def test_moments_of_other_shapes_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tensors(1), tensors(2), tensors(3), "full", 1, 1)
    write_tensors(tmp_path / "moments_v.safetensors", {"x": np.ones(3, np.float32)})
    with pytest.raises(InvalidInput) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.code == "checkpoint.tensors"


def test_doubles_are_never_rounded_silently(tmp_path: Path) -> None:
    doubles = {"x": np.ones(3)}
    with pytest.raises(TypeError):
        write_checkpoint(tmp_path, doubles, None, None, "full", 0, 0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
