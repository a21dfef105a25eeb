# pyright: standard
"""Between torch and checkpoint folders: weights and moments into a model, and a shard's result out of it.

The formats belong to `shardwork.tensors.checkpoint`; this file only moves numbers between its arrays and parameters,
and refuses a checkpoint that was made for other parameters.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shardwork.errors import Corrupt, InvalidInput
from shardwork.models.checkpoint import FROZEN, TOKENIZER
from shardwork.recipes.orders import LearnOrder
from shardwork.tensors.checkpoint import open_checkpoint, stepped_weights, write_checkpoint, write_delta
from shardwork.tensors.file import TensorFile, open_tensors, write_tensors

from .heads import is_head
from .loop import Moments
from .model import Built

Arrays = Mapping[str, np.ndarray[Any, Any]]


def load_weights(built: Built, checkpoint: Path) -> None:
    """Overwrites every learning parameter. Raises Corrupt "checkpoint.other_parameters"."""
    with open_checkpoint(checkpoint) as opened, torch.no_grad():
        _check_same(built, opened.shapes)
        opened.weights.check_finite()
        for name, parameter in built.trainable.items():
            parameter.copy_(_tensor(opened.weights, name))
    _load_frozen(built, checkpoint)


def _load_frozen(built: Built, checkpoint: Path) -> None:
    """An adapter's frozen A as the checkpoint carries it. Raises InvalidInput "continue.no_frozen_a".

    Without the file it is the one that the order's seed drew: a checkpoint of the first release.
    """
    path, expected = checkpoint / FROZEN, {name: tuple(one.shape) for name, one in built.frozen.items()}
    if not expected or not (path.is_file() or built.tuning.carried_a):
        return
    if not path.is_file():
        raise InvalidInput(
            "continue.no_frozen_a",
            "The checkpoint does not hold the A that its adapter's B was learned with.",
            next_step="Continue from a checkpoint of a stage with merge: ffa, made since this is kept, or begin anew.",
        )
    with open_tensors(path) as opened, torch.no_grad():
        if opened.shapes != expected or set(opened.dtypes.values()) != {"F32"}:
            sentence = "The checkpoint's frozen A was made for another adapter."
            raise InvalidInput("continue.other_frozen_a", sentence, next_step="Use the earlier stage's settings.")
        opened.check_finite()
        for name, parameter in built.frozen.items():
            parameter.copy_(_tensor(opened, name))


def write_carried(folder: Path, built: Built, base: Path, *, from_scratch: bool) -> None:
    """Beside the first checkpoint: a frozen A as the model has it, and the tokenizer of a model from scratch."""
    if built.frozen:
        write_tensors(folder / FROZEN, _arrays(built.frozen))
    if from_scratch:
        shutil.copyfile(base / TOKENIZER, folder / TOKENIZER)


def load_moments(checkpoint: Path) -> Moments:
    """Averaged Adam moments on the CPU; none before the first round."""
    with open_checkpoint(checkpoint) as opened:
        if opened.m is None or opened.v is None:
            return Moments({}, {}, opened.adam_step)
        m, v = opened.m, opened.v
        return Moments({name: _tensor(m, name) for name in m}, {name: _tensor(v, name) for name in v}, opened.adam_step)


def load_candidate(built: Built, checkpoint: Path, step: Path) -> None:
    """The weights that applying `step` to `checkpoint` gives, decoded as the executor decodes them."""
    with torch.no_grad():
        for name, values in stepped_weights(checkpoint, step):
            built.trainable[name].copy_(torch.from_numpy(values))


def write_first(folder: Path, built: Built) -> None:
    """The checkpoint of round 0: weights, no moments."""
    write_checkpoint(
        folder, _arrays(built.trainable), m=None, v=None, method=built.tuning.method.value, adam_step=0, round=0
    )


def write_continued(folder: Path, built: Built, parent: Path) -> int | None:
    """The checkpoint of round 0 of a stage that continues from `parent`: its weights, and its moments where it learned
    by the same method. A head that the parent lacks begins anew. Returns Adam's step count that goes on; None when only
    the weights do.

    Raises InvalidInput "continue.other_tensors" that names the first tensor which differs, "continue.bad_moments".
    """
    with open_checkpoint(parent) as opened:
        _check_parent(built, opened.shapes)
        _load_frozen(built, parent)
        opened.weights.check_finite()
        names, method = list(built.trainable), built.tuning.method.value
        fresh = _arrays({name: parameter for name, parameter in built.trainable.items() if name not in opened.shapes})
        weights = {name: fresh[name] if name in fresh else opened.weights[name] for name in names}
        m, v = opened.m, opened.v
        if m is None or v is None or opened.method != method:
            write_checkpoint(folder, weights, m=None, v=None, method=method, adam_step=0, round=0)
            return None
        m.check_finite()
        v.check_finite()
        negative = next((name for name in names if name not in fresh and (v[name] < 0).any()), None)
        if negative is not None:
            sentence = "A second moment of the checkpoint is negative."
            raise InvalidInput("continue.bad_moments", sentence, tensor=negative)
        first, second = (
            {name: np.zeros_like(fresh[name]) if name in fresh else file[name] for name in names} for file in (m, v)
        )
        write_checkpoint(folder, weights, m=first, v=second, method=method, adam_step=opened.adam_step, round=0)
        return opened.adam_step


def write_shard_delta(folder: Path, checkpoint: Path, built: Built, moments: Moments, *, order: LearnOrder) -> None:
    """A learn shard's output `delta` in the order's encoding: what became of `checkpoint`."""
    with open_checkpoint(checkpoint) as before:
        write_delta(
            folder,
            order.encoding,
            before=before.weights,
            after=_arrays(built.trainable),
            m=_arrays(moments.m),
            v=_arrays(moments.v),
            steps=order.steps,
            adam_step=moments.step,
        )


def _check_same(built: Built, shapes: Mapping[str, tuple[int, ...]]) -> None:
    expected = {name: tuple(parameter.shape) for name, parameter in built.trainable.items()}
    unlike = sorted(set(expected.items()) ^ set(shapes.items()))
    if unlike:
        raise Corrupt(
            "checkpoint.other_parameters",
            "The checkpoint was made for other parameters than the order's tuning of this base has.",
            first=unlike[0][0],
            unlike=len(unlike),
        )


def _check_parent(built: Built, shapes: Mapping[str, tuple[int, ...]]) -> None:
    expected = {name: tuple(parameter.shape) for name, parameter in built.trainable.items()}
    first = next((name for name in sorted({*expected, *shapes}) if _differs(name, expected, shapes)), None)
    if first is not None:
        raise InvalidInput(
            "continue.other_tensors",
            f"The stage can't continue from this checkpoint: tensor {first} differs.",
            next_step="Use the base_model, method and adapter settings of the stage that made the checkpoint.",
            tensor=first,
            checkpoint_has=str(list(shapes[first])) if first in shapes else "no such tensor",
            stage_wants=str(list(expected[first])) if first in expected else "no such tensor",
        )


def _differs(name: str, wanted: Mapping[str, tuple[int, ...]], there: Mapping[str, tuple[int, ...]]) -> bool:
    """A head may be on one side alone."""
    if is_head(name) and (name in wanted) is not (name in there):
        return False
    return wanted.get(name) != there.get(name)


def _tensor(file: TensorFile, name: str) -> torch.Tensor:
    """A copy: the file's own pages are mapped read-only."""
    return torch.from_numpy(file[name].copy())


def _arrays(tensors: Mapping[str, torch.Tensor]) -> Arrays:
    """fp32 on the CPU; of a model that is there already, views."""
    return {name: tensor.detach().to("cpu", torch.float32).contiguous().numpy() for name, tensor in tensors.items()}
