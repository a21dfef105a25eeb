"""Phase "merge": reads all deltas of a round and writes the candidate steps, the averaged moments and the outer sums.

Streams piece by piece over mapped files: memory does not grow with the model and hardly with the number of deltas. Runs
in an executor process. Metrics: norm.<i>, cosine.<i>, kept.<i>, refused.<i>.<word>, num_kept, update_norm, steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shardwork.errors import Conflict, Corrupt, Internal, InvalidInput
from shardwork.recipes.base import Computed, Context
from shardwork.recipes.orders import MergeOrder
from shardwork.tensors.checkpoint import (
    MOMENTS_FORMAT,
    STEP_FORMAT,
    Checkpoint,
    Update,
    fp32_writer,
    open_checkpoint,
    write_moment_piece,
    write_update,
)
from shardwork.tensors.encodedfile import EncodedWriter, pieces, scratch
from shardwork.tensors.encoding import BLOCK, F32, Quantity, encoding_named
from shardwork.tensors.file import TensorFile, open_tensors

from ..upkeep.open_files import OpenFiles
from . import gates, history, rule_named
from .gates import Norms, OpenDelta
from .outer import SUMS, Change, candidate_named
from .products import inner_products
from .rule import Evidence, Rule

Place = tuple[str, int, int]

#: a delta's tensor files stay open through the pass; beside them the checkpoint, what is written and the process's own
FILES_A_DELTA, OTHER_FILES = 3, 128
#: elements that a rule which needs all deltas at once may hold
HELD = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the mean is taken over."""

    rule: Rule
    deltas: Sequence[OpenDelta]
    #: sums to one, in the order of `deltas`: what each counts in the moments
    weights: list[float]
    #: what each counts in the step; a rule that clips lets it sum to less
    coefficients: list[float]
    steps: int

    @property
    def clipped(self) -> float:
        """What the coefficients lack to one; exactly 0 where the rule clips nothing."""
        return 0.0 if self.coefficients == self.weights else 1 - sum(self.coefficients)


def compute(order: MergeOrder, context: Context) -> Computed:
    """Inputs checkpoint, outer?, delta-0 …; outputs step-<candidate>…, moments, outer.

    Raises Conflict "aggregate.too_few" when fewer than half of the deltas may be used; nothing is written then.
    """
    candidates = {name: candidate_named(name) for name in order.candidates}
    rule, folders = rule_named(order.rule), _delta_folders(order, context)
    OpenFiles.allow(FILES_A_DELTA * len(folders) + OTHER_FILES)
    with ExitStack() as opened, np.errstate(over="ignore", invalid="ignore"):
        checkpoint = opened.enter_context(open_checkpoint(context.inputs["checkpoint"]))
        past = history.norms_before(context.inputs.get("outer"))
        deltas, norms, refused = _admit(folders, checkpoint, order, past, opened)
        cosines = gates.cosines(deltas, checkpoint, context.seed)
        evidence = Evidence(
            norms={index: norms[index].delta for index in deltas},
            cosines=cosines,
            products=inner_products(deltas, checkpoint) if rule.needs_products and deltas else None,
        )
        refused |= rule.screen(evidence)
        metrics = _metrics(folders, evidence, refused)
        _require_half(folders, refused)
        kept = _kept(order, evidence, folders, {index: deltas[index] for index in deltas if index not in refused})
        sums = _open_sums(context, checkpoint, opened)
        outputs = {f"step-{name}": context.output(f"step-{name}") for name in candidates}
        outputs |= {"moments": context.output("moments"), "outer": context.output("outer")}
        writer = _Writer(kept, checkpoint, encoding=order.encoding, outputs=outputs)
        update_norm = writer.write_steps(candidates, sums, context)
        writer.write_moments()
        history.keep(
            outputs["outer"], past, (evidence.norms[index] for index in evidence.norms if index not in refused)
        )
    return Computed(outputs=outputs, metrics={**metrics, "update_norm": update_norm, "steps": float(kept.steps)})


def _delta_folders(order: MergeOrder, context: Context) -> dict[int, Path]:
    names = (name for name in context.inputs if name.startswith("delta-"))
    folders = {int(name.removeprefix("delta-")): context.inputs[name] for name in names}
    if not folders or len(folders) != len(order.weights):
        raise Internal(
            "aggregate.order",
            "A merge order does not name one weight for each delta.",
            deltas=len(folders),
            weights=len(order.weights),
        )
    return dict(sorted(folders.items()))


def _admit(
    folders: Mapping[int, Path], checkpoint: Checkpoint, order: MergeOrder, past: Sequence[float], opened: ExitStack
) -> tuple[dict[int, OpenDelta], dict[int, Norms], dict[int, str]]:
    """(deltas through every gate, norms of those that could be measured, why the others were refused)."""
    found: dict[int, OpenDelta] = {}
    norms: dict[int, Norms] = {}
    refused: dict[int, str] = {}
    for index, folder in folders.items():
        try:
            found[index] = gates.open_delta(folder, checkpoint, order.encoding)
            opened.callback(found[index].close)
            norms[index] = gates.measure(found[index], checkpoint)
        except (InvalidInput, Corrupt) as error:
            refused[index] = error.code
        except FileNotFoundError:
            refused[index] = "delta.missing_file"
    refused |= gates.steps_gate({index: found[index].update.steps for index in norms}, order.steps)
    # before they are compared with each other: of two, a tiny one would make the honest one look too large
    refused |= history.gate({index: norms[index].delta for index in norms if index not in refused}, past)
    refused |= gates.norm_gate({index: norm for index, norm in norms.items() if index not in refused})
    return {index: found[index] for index in norms if index not in refused}, norms, refused


def _metrics(folders: Mapping[int, Path], evidence: Evidence, refused: Mapping[int, str]) -> dict[str, float]:
    metrics = {f"kept.{index}": float(index not in refused) for index in folders}
    metrics |= {f"norm.{index}": norm for index, norm in evidence.norms.items()}
    metrics |= {f"cosine.{index}": cosine for index, cosine in evidence.cosines.items()}
    metrics |= {f"refused.{index}.{word}": 1.0 for index, word in refused.items()}
    return {**metrics, "num_kept": float(len(folders) - len(refused))}


def _require_half(folders: Mapping[int, Path], refused: Mapping[int, str]) -> None:
    if (len(folders) - len(refused)) * 2 < len(folders) or len(refused) == len(folders):
        reasons = {f"delta_{index}": word for index, word in sorted(refused.items())}
        raise Conflict(
            "aggregate.too_few",
            f"Only {len(folders) - len(refused)} of {len(folders)} deltas may be averaged.",
            next_step="Run the round's shards again, on other workers where one was refused.",
            **reasons,
        )


def _kept(order: MergeOrder, evidence: Evidence, folders: Mapping[int, Path], deltas: Mapping[int, OpenDelta]) -> Kept:
    tokens, rule = dict(zip(folders, order.weights, strict=True)), rule_named(order.rule)
    total = sum(tokens[index] for index in deltas)
    weights = {index: tokens[index] / total if total else 1 / len(deltas) for index in deltas}
    coefficients = rule.coefficients(evidence, weights)
    return Kept(
        rule=rule,
        deltas=list(deltas.values()),
        weights=list(weights.values()),
        coefficients=[coefficients[index] for index in deltas],
        steps=order.steps,
    )


def _open_sums(context: Context, checkpoint: Checkpoint, opened: ExitStack) -> dict[str, TensorFile]:
    """The sums of earlier rounds' means; one that is not there stands at zero, as before the first merge."""
    sums: dict[str, TensorFile] = {}
    for name in SUMS:
        path = context.inputs["outer"] / f"{name}.safetensors" if "outer" in context.inputs else None
        if path is not None and path.exists():
            sums[name] = opened.enter_context(open_tensors(path))
            if sums[name].specs != checkpoint.weights.specs:
                raise Corrupt("aggregate.momentum", f"The outer {name} is not of this checkpoint.")
    return sums


class _Writer:
    """The one pass that writes: for each piece the mean, then everything that follows from it."""

    def __init__(self, kept: Kept, checkpoint: Checkpoint, *, encoding: str, outputs: Mapping[str, Path]) -> None:
        self._kept = kept
        self._checkpoint = checkpoint
        self._encoding = encoding_named(encoding)
        self._outputs = outputs
        self._adam_step = checkpoint.adam_step + kept.steps
        self._room = scratch()

    def write_steps(self, candidates: Mapping[str, Change], sums: Mapping[str, TensorFile], context: Context) -> float:
        """Writes the steps and the new sums. Returns the norm of the mean delta."""
        shapes = self._checkpoint.shapes
        total, done, squares = sum(math.prod(shape) for shape in shapes.values()), 0, 0.0
        with ExitStack() as opened:
            outer = {
                name: opened.enter_context(fp32_writer(self._outputs["outer"] / f"{name}.safetensors", shapes))
                for name in SUMS
            }
            steps = {name: opened.enter_context(self._step_writer(name)) for name in candidates}
            for place in self._places():
                name, start, end = place
                before, mean = self._checkpoint.piece(*place), self._mean_delta(place)
                g = before - mean if self._encoding.absolute else mean
                accumulated = {which: self._added(sums.get(which), SUMS[which], g, place) for which in SUMS}
                for which, values in accumulated.items():
                    outer[which].write(name, values, at=start)
                for candidate, change in candidates.items():
                    values = self._stored(candidate, before, mean, change=change(g, accumulated))
                    steps[candidate].write(name, start, values)
                squares += float(np.einsum("i,i->", g, g))
                done += end - start
                context.progress(done / total * 0.7)
        for candidate in candidates:
            self._write_update(f"step-{candidate}", STEP_FORMAT)
        return math.sqrt(squares)

    @staticmethod
    def _added(old: TensorFile | None, decay: np.float32, g: F32, place: Place) -> F32:
        """A sum of the rounds before with this round's mean added."""
        name, start, end = place
        return g.copy() if old is None else decay * old[name].reshape(-1)[start:end] + g

    def write_moments(self) -> None:
        """m and v are averaged each by itself: v, and not its root."""
        folder, shapes, weights = self._outputs["moments"], self._checkpoint.shapes, self._kept.weights
        with (
            EncodedWriter(folder / "m.safetensors", self._encoding, Quantity.M, shapes) as m_writer,
            EncodedWriter(folder / "v.safetensors", self._encoding, Quantity.V, shapes) as v_writer,
        ):
            for place in self._places():
                v = self._combined((delta.v.read(*place, self._room) for delta in self._kept.deltas), weights, place)
                m = self._combined(self._moments(place), weights, place)
                if self._kept.rule.holds_all:  # the middle m and the middle v may come from different deltas
                    gates.bound_m(m, v)
                write_moment_piece(m_writer, v_writer, place[:2], m=m, v=v)
        self._write_update("moments", MOMENTS_FORMAT)

    def _places(self) -> Iterator[Place]:
        """Every piece, cut smaller where the rule holds all deltas' values of it at once."""
        width = max(BLOCK, HELD // len(self._kept.deltas) // BLOCK * BLOCK) if self._kept.rule.holds_all else HELD
        for name, start, end in pieces(self._checkpoint.shapes):
            for at in range(start, end, width):
                yield name, at, min(at + width, end)

    def _mean_delta(self, place: Place) -> F32:
        """In an absolute encoding the mean of the weights after; what a rule clips away stays where it was."""
        deltas = (delta.delta.read(*place, self._room) for delta in self._kept.deltas)
        mean = self._combined(deltas, self._kept.coefficients, place)
        if self._encoding.absolute and self._kept.clipped > 0:
            mean += np.float32(self._kept.clipped) * self._checkpoint.piece(*place)
        return mean

    def _moments(self, place: Place) -> Iterator[F32]:
        """m of each delta within what its v allows. Honest ones stay exact; evaluation judges weights, not moments."""
        limits = scratch()
        for delta in self._kept.deltas:
            m = delta.m.read(*place, self._room)
            gates.bound_m(m, delta.v.read(*place, limits))
            yield m

    def _combined(self, values: Iterator[F32], weights: Sequence[float], place: Place) -> F32:
        out = np.empty(place[2] - place[1], np.float32)
        self._kept.rule.combine(values, weights, out)
        return out

    def _stored(self, candidate: str, before: F32, mean: F32, *, change: F32) -> F32:
        """What the step file holds: the change, or the weights after it; the plain mean of weights stays as it is."""
        if not self._encoding.absolute:
            return change
        return mean if candidate == "mean" else before - change

    def _step_writer(self, candidate: str) -> EncodedWriter:
        path = self._outputs[f"step-{candidate}"] / "step.safetensors"
        return EncodedWriter(path, self._encoding, Quantity.DELTA, self._checkpoint.shapes)

    def _write_update(self, output: str, format: str) -> None:
        write_update(
            self._outputs[output],
            Update(format=format, encoding=self._encoding.name, steps=self._kept.steps, adam_step=self._adam_step),
        )
