"""Pairs: phase `prepare` of reward and dpo: judged answers become token rows with what each is worth.

An item is a pair (row 2i the chosen answer after the prompt, row 2i + 1 the rejected one) or one answer; its rows stay
together in every order and on one side. Runs in the operator's executor without torch; a pure function of its inputs.
Called by `recipes.prepare`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ....dataset.formats.judged import KINDS, wrong_kind
from ....dataset.lengths import Layout, Overlong, layout
from ....dataset.pairing import Sides as Answers
from ....dataset.pairing import are_equal, encode_sides, fitted_sides, has_answers, longest
from ....dataset.row import Format, Row
from ....dataset.source import staged_files
from ....dataset.tokenise import RowTokenizer
from ....dataset.weights import reads
from ....errors import InvalidInput
from ....problem import Problem
from ....tensors.file import write_tensors
from ...base import Computed, Context
from ...orders import PrepareOrder
from ...reading import Progress, batches, invalid, overlong, refuse_unusable
from ...tokenrows import ROWS_PER_FILE, Facts, TokenRows
from .sides import divided


@dataclass(slots=True)
class Items:
    """Token rows, `rows_per_item` of each item one after the other, and a value an item."""

    rows_per_item: int = 1
    rows: TokenRows = field(default_factory=TokenRows)
    values: array[float] = field(default_factory=lambda: array("f"))
    #: of each item, what it asks (`Row.topic`)
    topics: list[bytes] = field(default_factory=list[bytes])
    #: pairs whose answers are the same as far as they are read
    equal: int = 0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def digests(self) -> list[bytes]:
        return self.rows.digests[:: self.rows_per_item]

    @property
    def times(self) -> list[int]:
        return self.rows.times[:: self.rows_per_item].tolist()

    def add(self, sides: Answers, row: Row, weight: float) -> None:
        digest = row.digest()
        times = reads(digest, weight)
        for number, side in enumerate(sides):
            self.rows.add(side, digest, times, is_head=number == 0)
        self.values.append(row.value)
        self.topics.append(row.topic(digest))

    def select(self, positions: Sequence[int]) -> Items:
        """A copy with only these items, in this order."""
        size = self.rows_per_item
        rows = self.rows.select([size * position + side for position in positions for side in range(size)])
        values = array("f", [self.values[position] for position in positions])
        return Items(size, rows, values, [self.topics[position] for position in positions], self.equal)

    def write(self, path: Path, items: range) -> None:
        """Tensors tokens, mask and offsets of these items' rows, and values float32 [items]."""
        tensors = self.rows.pick(range(items.start * self.rows_per_item, items.stop * self.rows_per_item))
        values = np.frombuffer(self.values, np.float32)[items.start : items.stop]
        write_tensors(path, {**tensors, "values": values.copy()})


def prepare_pairs(order: PrepareOrder, context: Context, tokenizer: RowTokenizer) -> Computed:
    """inputs data, eval_data?, base -> outputs train, eval?; metrics count items, tokens of all their rows."""
    if layout(order.packing, order.recipe) is not Layout.PADDED:
        sentence = f"The recipe {order.recipe} compares whole rows, which can't be packed into sequences."
        raise InvalidInput("pairs.no_packing", sentence, next_step="Leave params.packing out.", key="params.packing")

    found = _read(order, context, tokenizer, "data", lambda fraction: context.progress(0.7 * fraction))
    others = None
    if "eval_data" in context.inputs:
        unweighted = order.model_copy(update={"weights": (), "rows_are": order.rows_are or _data(found)})
        others = _read(unweighted, context, tokenizer, "eval_data", lambda _fraction: None)
    held_out_digests = others.digests if others is not None else None
    sides = divided(order, found.digests, found.times, held_out_digests, found.topics)
    train = found.select(sides.train)
    train.rows.dropped += sides.dropped
    facts, outputs = Facts(order, tokenizer), {"train": context.output("train")}
    _write_train(train, outputs["train"], facts)
    if sides.held_out is not None:
        outputs["eval"] = context.output("eval")
        held_out = (found if others is None else others).select(sides.held_out)
        _write_eval(held_out, outputs["eval"], facts)
    context.progress(1.0)
    metrics = {
        "rows": len(train),
        "sequences": len(train),
        "tokens": train.rows.num_tokens,
        "loss_tokens": train.rows.loss_tokens,
        "truncated_rows": train.rows.truncated,
        "split_rows": 0,
        "dropped_rows": train.rows.dropped,
        "equal_pairs": train.equal,
        "eval_rows": len(sides.held_out or ()),
        "vocab_size": tokenizer.vocab_size,
    }
    return Computed(outputs=outputs, metrics={name: float(value) for name, value in metrics.items()})


# ---- reading ------------------------------------------------------------------------------------------------------


def _read(order: PrepareOrder, context: Context, tokenizer: RowTokenizer, name: str, progress: Progress) -> Items:
    found: Items | None = None
    for batch in batches(staged_files(context.inputs[name], order.recipe), progress):
        if found is None:
            refuse_unusable(batch[0], order.recipe, order.overlong)
            found = _begun(batch[0], order)
        rows = _labelled(batch) if order.rows_are == "labelled" and batch[0].format is Format.PREFERENCE else batch
        for row, sides in zip(rows, encode_sides(tokenizer, rows), strict=True):
            if isinstance(sides, Problem):
                raise invalid(sides)
            _add(found, row, sides, order)
    return found or Items()


def _begun(row: Row, order: PrepareOrder) -> Items:
    """No items yet. Raises InvalidInput "data.wrong_format" where the objective learns from rows of another kind."""
    wrong = wrong_kind(row, order.rows_are)
    if wrong is not None:
        raise invalid(wrong)
    given = KINDS[row.format]
    is_pairs = given == "pairs" and order.rows_are != "labelled"
    return Items(2 if is_pairs else 1, TokenRows(format=given if order.rows_are == "" else order.rows_are))


def _data(items: Items) -> str:
    return items.rows.format


def _labelled(rows: Sequence[Row]) -> list[Row]:
    """Each pair as a wanted and an unwanted answer, as TRL unpairs them for KTO."""
    found: list[Row] = []
    for row in rows:
        for answer, value in ((row.chosen, 1.0), (row.rejected, 0.0)):
            found.append(row.answered(answer, value))
    return found


def _add(found: Items, row: Row, sides: Answers, order: PrepareOrder) -> None:
    size, how = longest(sides), Overlong(order.overlong).of(row.format)
    if size > order.max_length and how is Overlong.REFUSE:
        raise overlong(row, size, order.max_length)
    fit = fitted_sides(sides, order.max_length, how)
    if are_equal(fit):
        found.equal += 1
    elif has_answers(fit):
        found.rows.truncated += size > order.max_length
        found.add(fit, row, order.weights[row.source] if row.source < len(order.weights) else 1.0)
        return
    found.rows.dropped += 1


# ---- writing ------------------------------------------------------------------------------------------------------


def _write_train(items: Items, folder: Path, facts: Facts) -> None:
    each = ROWS_PER_FILE // items.rows_per_item
    parts = [range(begin, min(begin + each, len(items))) for begin in range(0, len(items), each)]
    _write(items, folder, facts, [(f"rows-{number:05d}.safetensors", part) for number, part in enumerate(parts)])


def _write_eval(items: Items, folder: Path, facts: Facts) -> None:
    """The first half chooses between candidates, the second half is what is reported."""
    middle = len(items) // 2
    parts = [("selection.safetensors", range(middle)), ("test.safetensors", range(middle, len(items)))]
    _write(items, folder, facts, parts)


def _write(items: Items, folder: Path, facts: Facts, parts: Sequence[tuple[str, range]]) -> None:
    size = items.rows_per_item
    for name, part in parts:
        items.write(folder / name, part)
    files = [(name, len(part) * size) for name, part in parts]
    text = facts.index(items.rows, files, rows_per_item=size, items=len(items))
    (folder / "index.json").write_text(text, "utf-8")
