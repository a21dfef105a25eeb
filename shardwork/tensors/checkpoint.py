"""Checkpoints and the updates between them: what lies in which file, and how one becomes the next.

Owns the folders `checkpoint`, `delta`, `step` and `moments` of a learning stage. A checkpoint is trainable weights and
averaged Adam moments in fp32, and what belongs to them and never learns (`carry`); a delta is what one shard made of
it; step + moments lead to the next checkpoint. Equal values give equal bytes. `apply_update` runs in the coordinator's
executor and in workers' children and must give the same bytes in both. Called by the training child, the aggregator
and the executor. No torch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np

from ..errors import InvalidInput
from ..models.checkpoint import CARRIED
from .encodedfile import EncodedReader, EncodedWriter, Shapes, pieces, scratch
from .encoding import F32, Encoding, Quantity, encoding_named, gate_m, weights_after
from .file import TensorFile, TensorSpec, TensorWriter, open_tensors, write_tensors

CHECKPOINT_FORMAT = "shardwork.checkpoint.v1"
DELTA_FORMAT = "shardwork.delta.v1"
STEP_FORMAT = "shardwork.step.v1"
MOMENTS_FORMAT = "shardwork.moments.v1"
#: state.json and update.json hold a few numbers
JSON_CAP_BYTES = 4096

Tensors = Mapping[str, F32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """update.json of a delta, a step or moments."""

    format: str
    #: name in the encoding registry
    encoding: str
    #: inner steps between the two checkpoints
    steps: int
    #: Adam's step count afterwards
    adam_step: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An open checkpoint; tensors are read-only views on the mapped files."""

    folder: Path
    method: str
    #: Adam's step count; 0 before the first round
    adam_step: int
    round: int
    weights: TensorFile
    #: both None before the first round
    m: TensorFile | None
    v: TensorFile | None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.weights.shapes

    def piece(self, name: str, start: int, end: int) -> F32:
        """Flat weights [start, end) of a tensor."""
        return self.weights[name].reshape(-1)[start:end]

    def close(self) -> None:
        for file in (self.weights, self.m, self.v):
            if file is not None:
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def write_checkpoint(
    folder: Path, weights: Tensors, m: Tensors | None, v: Tensors | None, method: str, adam_step: int, round: int
) -> None:
    """Writes a checkpoint folder; m and v are None before the first round. All arrays fp32 with equal names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in (("weights", weights), ("moments_m", m), ("moments_v", v)):
        if tensors is not None:
            write_tensors(folder / f"{name}.safetensors", {key: _fp32(value) for key, value in tensors.items()})
    _write_state(folder, method, adam_step, round)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Opens a checkpoint after checking that its files agree. Raises InvalidInput "checkpoint.*", "tensorfile.*"."""
    state = _read_json(folder / "state.json", {"format": str, "method": str, "adam_step": int, "round": int})
    if state["format"] != CHECKPOINT_FORMAT:
        raise InvalidInput("checkpoint.format", "This is not a checkpoint of a known format.", format=state["format"])
    with ExitStack() as opened:
        weights = opened.enter_context(open_tensors(folder / "weights.safetensors"))
        wrong = [name for name, tag in weights.dtypes.items() if tag != "F32"]
        moments: list[TensorFile | None] = [None, None]
        if (folder / "moments_m.safetensors").exists():
            for index, name in enumerate(("moments_m", "moments_v")):
                file = opened.enter_context(open_tensors(folder / f"{name}.safetensors"))
                wrong += [key for key in {*file, *weights} if file.specs.get(key) != weights.specs.get(key)]
                moments[index] = file
        if wrong:
            raise InvalidInput("checkpoint.tensors", "A checkpoint's tensors do not match.", tensor=sorted(wrong)[0])
        opened.pop_all()
    return Checkpoint(folder, state["method"], state["adam_step"], state["round"], weights, moments[0], moments[1])


def write_delta(
    folder: Path,
    encoding: str,
    before: Tensors,
    after: Tensors,
    m: Tensors,
    v: Tensors,
    steps: int,
    adam_step: int,
) -> None:
    """Writes what a shard made of a checkpoint: its change, its moments, and the step counts.

    `steps` inner steps were taken and Adam's count is `adam_step` now. Raises InvalidInput "encoding.not_finite".
    """
    write_step(folder, encoding, before, after, steps, adam_step, file="delta", format=DELTA_FORMAT)
    _write_moment_files(folder, encoding_named(encoding), m, v)


def write_step(
    folder: Path,
    encoding: str,
    before: Tensors,
    after: Tensors,
    steps: int,
    adam_step: int,
    *,
    file: str = "step",
    format: str = STEP_FORMAT,
) -> None:
    """Writes a change of weights as `step`."""
    codec, shapes, before, after = encoding_named(encoding), _shapes(before), _flat(before), _flat(after)
    folder.mkdir(parents=True, exist_ok=True)
    with EncodedWriter(folder / f"{file}.safetensors", codec, Quantity.DELTA, shapes) as writer:
        for name, start, end in pieces(shapes):
            writer.write_change(name, start, before[name][start:end], after[name][start:end])
    write_update(folder, Update(format=format, encoding=encoding, steps=steps, adam_step=adam_step))


def write_moments(folder: Path, encoding: str, m: Tensors, v: Tensors, steps: int, adam_step: int) -> None:
    """Writes averaged moments as `moments`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_moment_files(folder, encoding_named(encoding), m, v)
    write_update(folder, Update(format=MOMENTS_FORMAT, encoding=encoding, steps=steps, adam_step=adam_step))


def _write_moment_files(folder: Path, encoding: Encoding, m: Tensors, v: Tensors) -> None:
    shapes, m, v = _shapes(v), _flat(m), _flat(v)
    with (
        EncodedWriter(folder / "m.safetensors", encoding, Quantity.M, shapes) as m_writer,
        EncodedWriter(folder / "v.safetensors", encoding, Quantity.V, shapes) as v_writer,
    ):
        for name, start, end in pieces(shapes):
            write_moment_piece(m_writer, v_writer, (name, start), m=m[name][start:end], v=v[name][start:end])


def write_moment_piece(
    m_writer: EncodedWriter, v_writer: EncodedWriter, place: tuple[str, int], *, m: F32, v: F32
) -> None:
    """Writes a piece of both moments; where a lossy encoding meets a zero v, m becomes zero."""
    m_writer.write(*place, m if m_writer.is_absolute else gate_m(m, v))
    v_writer.write(*place, v)


def write_update(folder: Path, update: Update) -> None:
    """Writes update.json."""
    _write_json(
        folder / "update.json",
        {
            "format": update.format,
            "encoding": update.encoding,
            "steps": update.steps,
            "adam_step": update.adam_step,
        },
    )


def read_update(folder: Path, format: str) -> Update:
    """Reads update.json. Raises InvalidInput "checkpoint.format", "checkpoint.json" or "encoding.unknown"."""
    raw = _read_json(folder / "update.json", {"format": str, "encoding": str, "steps": int, "adam_step": int})
    if raw["format"] != format:
        raise InvalidInput("checkpoint.format", "An update has another format.", format=raw["format"], expected=format)
    encoding_named(raw["encoding"])
    return Update(**raw)


def open_part(folder: Path, name: str, encoding: str, quantity: Quantity, shapes: Shapes) -> EncodedReader:
    """Opens `<name>.safetensors` of an update folder; its tensors must be those of `shapes`."""
    return EncodedReader(folder / f"{name}.safetensors", encoding_named(encoding), quantity, shapes)


def stepped_weights(checkpoint: Path, step: Path) -> Iterator[tuple[str, F32]]:
    """The weights that a step leads to, one tensor after the other, in their shapes. For evaluating a candidate."""
    update = read_update(step, STEP_FORMAT)
    with (
        open_checkpoint(checkpoint) as before,
        open_part(step, "step", update.encoding, Quantity.DELTA, before.shapes) as reader,
    ):
        for name, shape in before.shapes.items():
            after = np.empty(shape, np.float32)
            for _, start, end in pieces({name: shape}):
                decoded = reader.read(name, start, end, after.reshape(-1)[start:end])
                weights_after(encoding_named(update.encoding), before.piece(name, start, end), decoded)
            yield name, after


def apply_update(checkpoint: Path, step: Path, moments: Path, into: Path) -> None:
    """Writes the next checkpoint to `into`, exactly as step and moments decode. Equal inputs give equal bytes anywhere.

    Raises InvalidInput when the folders do not belong together ("checkpoint.update", "encoded.shapes").
    """
    stepped, averaged = read_update(step, STEP_FORMAT), read_update(moments, MOMENTS_FORMAT)
    with open_checkpoint(checkpoint) as before:
        if stepped.adam_step != averaged.adam_step or averaged.adam_step != before.adam_step + averaged.steps:
            raise InvalidInput(
                "checkpoint.update",
                "This step and these moments do not follow this checkpoint.",
                checkpoint_adam_step=before.adam_step,
                steps=averaged.steps,
                step_adam_step=stepped.adam_step,
                moments_adam_step=averaged.adam_step,
            )
        into.mkdir(parents=True, exist_ok=True)
        with open_part(step, "step", stepped.encoding, Quantity.DELTA, before.shapes) as reader:
            _write_weights(into, before, encoding_named(stepped.encoding), reader)
        for name, quantity in (("m", Quantity.M), ("v", Quantity.V)):
            with open_part(moments, name, averaged.encoding, quantity, before.shapes) as reader:
                _write_decoded(into / f"moments_{name}.safetensors", reader, before.shapes)
        _write_state(into, before.method, averaged.adam_step, before.round + 1)
    carry(checkpoint, into)


def carry(checkpoint: Path, into: Path) -> None:
    """Copies what never learns from one checkpoint to the next, byte by byte."""
    for name in CARRIED:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, into / name)


def _write_weights(into: Path, before: Checkpoint, encoding: Encoding, reader: EncodedReader) -> None:
    room = scratch()
    with fp32_writer(into / "weights.safetensors", before.shapes) as writer:
        for name, start, end in pieces(before.shapes):
            decoded = reader.read(name, start, end, room)
            writer.write(name, weights_after(encoding, before.piece(name, start, end), decoded), at=start)


def _write_decoded(path: Path, reader: EncodedReader, shapes: Shapes) -> None:
    room = scratch()
    with fp32_writer(path, shapes) as writer:
        for name, start, end in pieces(shapes):
            writer.write(name, reader.read(name, start, end, room), at=start)


def fp32_writer(path: Path, shapes: Shapes) -> TensorWriter:
    """A writer of plain fp32 tensors of these shapes."""
    return TensorWriter(path, {name: TensorSpec("F32", shape) for name, shape in shapes.items()})


def _write_state(folder: Path, method: str, adam_step: int, round: int) -> None:
    state = {"format": CHECKPOINT_FORMAT, "method": method, "adam_step": adam_step, "round": round}
    _write_json(folder / "state.json", state)


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")))


def _read_json(path: Path, keys: Mapping[str, type]) -> dict[str, Any]:
    """A small JSON object with exactly these keys and types, counts not negative."""
    try:
        with path.open("rb") as file:
            raw = json.loads(file.read(JSON_CAP_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput("checkpoint.json", "A state file is missing or malformed.", file=path.name) from error
    value = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
    good = set(value) == set(keys) and all(type(value[key]) is kind for key, kind in keys.items())
    if not good or any(kind is int and not 0 <= value[key] < 2**53 for key, kind in keys.items()):
        raise InvalidInput(
            "checkpoint.json", "A state file has other keys or types.", file=path.name, expected=", ".join(sorted(keys))
        )
    return value


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in tensors.items()}


def _flat(tensors: Tensors) -> Tensors:
    """Flat views; copies only what is not contiguous."""
    return {name: _fp32(value).reshape(-1) for name, value in tensors.items()}


def _fp32(value: F32) -> F32:
    """Refuses other types: a silent cast would hide a rounding."""
    if value.dtype != np.float32:
        raise TypeError(f"checkpoints hold float32, got {value.dtype}")
    return value
