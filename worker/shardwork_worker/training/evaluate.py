# pyright: standard
"""Phase `evaluate`: held-out losses of the checkpoint and of each candidate for the next one.

Every candidate is what the executor would apply: its step decoded on top of the checkpoint's weights. Selection rows
choose the candidate; test rows report it and decide on a roll-back. The error that a roll-back allows for is that of
the rise, row by row over the checkpoint's own losses: rows differ from each other far more than a round changes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from shardwork.errors import InvalidInput
from shardwork.recipes.base import Computed, Context
from shardwork.recipes.orders import EvaluateOrder

from .batches import Row, collate, eval_rows, pad_token, read_index
from .checkpoints import load_candidate, load_weights
from .device import autocast
from .loop import token_losses
from .model import Built, check_length
from .objectives.measured import HeldOutItems

#: what items of an objective may be apart: a model without an opinion has ln 2 of every pair, and once it has one,
#: margins of about 1 either way spread that by half
ITEMS_APART = 0.5
#: reported instead of a loss that is not finite: comparable, JSON-safe and worse than anything real
WORST_LOSS = 1e6


def evaluate(order: EvaluateOrder, context: Context, built: Built) -> Computed:
    """Inputs checkpoint, eval, step-<candidate>… -> metrics only (named in `EvaluateOrder`).

    Where one of the two parts has no row, the other stands in for it.
    Raises InvalidInput "rows.no_eval" when neither has.
    """
    check_length(built, order.max_length)
    checkpoint = context.inputs["checkpoint"]
    passes: _Passes = _rows(order, context, built) if order.objective is None else _Items(order, context, built)
    load_weights(built, checkpoint)
    before, _ = passes.measure("test")
    metrics = {"before.test_loss": before.loss}
    for name in order.candidates:
        load_candidate(built, checkpoint, context.inputs[f"step-{name}"])
        metrics[f"{name}.selection_loss"] = passes.measure("selection")[0].loss
        after, more = passes.measure("test")
        metrics[f"{name}.test_loss"] = after.loss
        metrics[f"{name}.test_se"] = error_of_rise(before, after)
        metrics |= {f"{name}.{key}": value for key, value in more.items()}
    return Computed(outputs={}, metrics=metrics)


class _Passes(Protocol):
    """Passes over held-out rows."""

    def measure(self, part: str) -> tuple[HeldOut, Mapping[str, float]]:
        """Of "selection" or "test": losses, and what else is told of them."""
        ...


def _no_rows() -> InvalidInput:
    return InvalidInput(
        "rows.no_eval",
        "There is no held-out row with a token to predict.",
        next_step="Hold out more rows, or longer ones: `shardwork data check` shows what is learned of each.",
    )


def _rows(order: EvaluateOrder, context: Context, built: Built) -> _Rows:
    folder = context.inputs["eval"]
    selection = eval_rows(folder, "selection", order.max_length, built.vocabulary)
    test = eval_rows(folder, "test", order.max_length, built.vocabulary)
    selection, test = selection or test, test or selection
    if not test:
        raise _no_rows()
    return _Rows(
        order=order,
        context=context,
        built=built,
        pad_token_id=pad_token(read_index(folder), built.vocabulary),
        rows_to_come=len(test) + len(order.candidates) * (len(selection) + len(test)),
        parts={"selection": selection, "test": test},
    )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What was measured on some rows: each row's summed loss in nats and its number of labels."""

    sums: Sequence[float]
    labels: Sequence[int]
    #: how far rows may be apart, at the least, however alike they were before: as a share of the mean
    apart: float = 0.0

    @property
    def loss(self) -> float:
        """Mean over labels; WORST_LOSS when that is not finite."""
        loss = sum(self.sums) / sum(self.labels)
        return min(loss, WORST_LOSS) if math.isfinite(loss) else WORST_LOSS


def error_of_rise(before: HeldOut, after: HeldOut) -> float:
    """Standard error of the rise in mean loss, from the differences row by row.

    Never more than that of the loss before: a step that ruins some rows and spares others has an error that would
    excuse it. Where rows are all alike before anything is learned, never more than that of rows `apart`. Zero where it
    cannot be told.
    """
    rises = HeldOut([late - early for early, late in zip(before.sums, after.sums, strict=True)], after.labels)
    alike = before.apart * abs(before.loss) / math.sqrt(len(before.labels))
    return min(max(standard_error(before), alike), standard_error(rises))


def standard_error(found: HeldOut) -> float:
    """Of the ratio estimate sum(loss) / sum(labels), over rows (Cochran, Sampling Techniques, 6.4)."""
    total, rows = sum(found.labels), len(found.labels)
    ratio = sum(found.sums) / total
    if rows < 2 or not math.isfinite(ratio):
        return 0.0
    spread = sum((value - ratio * count) ** 2 for value, count in zip(found.sums, found.labels, strict=True))
    error = math.sqrt(spread * rows / (rows - 1)) / total
    return error if math.isfinite(error) else 0.0


@dataclass(slots=True, kw_only=True)
class _Rows:
    """Of text, with one progress bar for all passes."""

    order: EvaluateOrder
    context: Context
    built: Built
    pad_token_id: int
    rows_to_come: int
    parts: Mapping[str, Sequence[Row]]
    _rows_done: int = 0

    def measure(self, part: str) -> tuple[HeldOut, Mapping[str, float]]:
        """The model's loss on rows. Sums are taken in float64, row by row, so that batching does not show."""
        rows = self.parts[part]
        sums: list[float] = []
        for start in range(0, len(rows), self.order.batch_size):
            these = rows[start : start + self.order.batch_size]
            batch = collate(these, self.pad_token_id, self.built.device)
            with torch.inference_mode(), autocast(self.built.device, self.order.precision):
                losses = token_losses(self.built.model, batch)
            sums += losses.double().sum(dim=1).tolist()
            self._rows_done += len(these)
            self.context.progress(self._rows_done / self.rows_to_come)
        return HeldOut(sums, [row.label_count for row in rows]), {}


class _Items:
    """Of an objective's items; each counts alike."""

    def __init__(self, order: EvaluateOrder, context: Context, built: Built) -> None:
        self._held = HeldOutItems(order, context, built)
        if not self._held.parts["test"]:
            raise _no_rows()
        self._context, self._passes = context, 1 + 2 * len(order.candidates)
        self._done = 0

    def measure(self, part: str) -> tuple[HeldOut, Mapping[str, float]]:
        found = self._held.measure(part)
        self._done += 1
        self._context.progress(self._done / self._passes)
        return HeldOut(found.losses, [1] * len(found.losses), ITEMS_APART), found.metrics()
