"""A checkpoint folder on a requester's machine, as `job download` writes it: what it holds and which files travel.

Owns reading state.json and the tensors' headers without numpy, before anything is planned or sent. Values are read by
workers (`shardwork.tensors.checkpoint`, whose layout this is). Called by the client.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import InvalidInput
from ..tensors.header import TensorInfo, read_header

FORMAT = "shardwork.checkpoint.v1"
STATE, WEIGHTS = "state.json", "weights.safetensors"
MOMENTS = ("moments_m.safetensors", "moments_v.safetensors")
#: what belongs to the weights and never learns, so that every checkpoint of a stage has the same: an adapter's frozen
#: A, and the tokenizer of a model from scratch. A stage that continues takes them from there
FROZEN, TOKENIZER = "frozen.safetensors", "tokenizer.json"
CARRIED = (FROZEN, TOKENIZER)
MOST_STATE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    folder: Path
    #: "lora", "full" or "partial"
    method: str
    #: Adam's step count
    adam_step: int
    params: int
    has_moments: bool
    #: names of the files that travel
    files: tuple[str, ...]


def inspect_checkpoint(folder: Path) -> CheckpointFacts:
    """Raises InvalidInput "continue.bad_folder" and "model.bad_tensors"."""
    state = _state(folder)
    if not (folder / WEIGHTS).is_file():
        raise _refused(folder, f"it has no {WEIGHTS}")
    weights = read_header(folder / WEIGHTS)
    there = [name for name in MOMENTS if (folder / name).is_file()]
    if len(there) == 1:
        raise _refused(folder, f"of Adam's two moments it has only {there[0]}")
    for name in there:
        _check_same(folder, name, weights, read_header(folder / name))
    odd = next((info for info in weights if info.dtype != "F32"), None)
    if odd is not None:
        raise _refused(folder, f"{odd.name} is {odd.dtype}, and checkpoints are F32")
    return CheckpointFacts(
        folder=folder,
        method=str(state["method"]),
        adam_step=int(state["adam_step"]),
        params=sum(info.numel for info in weights),
        has_moments=bool(there),
        files=(STATE, WEIGHTS, *there, *(name for name in CARRIED if (folder / name).is_file())),
    )


def _state(folder: Path) -> dict[str, Any]:
    try:
        with (folder / STATE).open("rb") as file:
            raw: object = json.loads(file.read(MOST_STATE_BYTES))
    except (OSError, ValueError, RecursionError):
        raise _refused(folder, f"it has no readable {STATE}") from None
    state = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
    if state.get("format") != FORMAT:
        raise _refused(folder, f"{STATE} names the format {str(state.get('format'))[:60]!r} and not {FORMAT!r}")
    numbers = [state.get("adam_step"), state.get("round")]
    if not isinstance(state.get("method"), str) or not all(type(one) is int and 0 <= one < 2**53 for one in numbers):
        raise _refused(folder, f"{STATE} lacks its method or its counts")
    return state


def _check_same(folder: Path, name: str, weights: list[TensorInfo], moments: list[TensorInfo]) -> None:
    unlike = sorted(
        {(one.name, one.dtype, one.shape) for one in weights} ^ {(m.name, m.dtype, m.shape) for m in moments}
    )
    if unlike:
        raise _refused(folder, f"{name} and {WEIGHTS} differ at {unlike[0][0]}")


def _refused(folder: Path, why: str) -> InvalidInput:
    return InvalidInput(
        "continue.bad_folder",
        f"{folder} is no checkpoint: {why}.",
        next_step="Name the folder `<stage>.checkpoint` that `shardwork job download` wrote.",
        file=str(folder),
        key="continue_from",
    )
