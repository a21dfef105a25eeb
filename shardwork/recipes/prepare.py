"""Phase `prepare`: the submitter's rows become fixed token shards, held-out rows, and a skeleton.

Owns the artifacts that every learn and evaluate shard reads: tokens, loss mask and row offsets, shuffled once. Reading,
rendering and tokenising are `shardwork.dataset`. Runs in the operator's executor, without torch; a pure function of
inputs and order, so equal inputs give equal artifacts.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..dataset.rows import Format, Row, read_rows
from ..dataset.source import SourceFile, read_lines, source_files
from ..dataset.split import MIN_EVAL_ROWS, hold_out, shuffled, without
from ..dataset.tokenise import BATCH_ROWS, RowTokenizer
from ..dataset.vocabulary import EOS, PAD, SPECIAL, train_vocabulary, write_tokenizer
from ..errors import InvalidInput
from ..models.presets import preset_config
from ..problem import Problem
from ..tensors.file import write_tensors
from .base import Computed, Context
from .orders import PrepareOrder

ROWS_PER_FILE = 4096
#: fewer documents than this are split by rows, or a single book could not be held out from
MIN_DOCUMENTS = 16

Progress = Callable[[float], None]


def compute(phase: str, order_json: str, context: Context) -> Computed:
    """inputs data, eval_data?, base? -> outputs train, eval?, skeleton?; metrics are counts.

    Raises InvalidInput "data.*", "tokenizer.*" or "template.*" naming file, line and key.
    """
    if phase != "prepare":
        raise InvalidInput("recipe.unknown_phase", f"Preparing has no phase {phase!r}.")
    order = PrepareOrder.model_validate_json(order_json)
    outputs: dict[str, Path] = {}
    folder = context.inputs.get("base")
    if folder is None:
        folder = outputs["skeleton"] = context.output("skeleton")
        _write_skeleton(order, context.inputs["data"], folder)
        context.progress(0.2)
    with RowTokenizer.load(folder, chat_template=order.chat_template) as tokenizer:
        train, held_out = _prepare(order, context, tokenizer)
        facts = _Facts(order, tokenizer)
        outputs["train"] = context.output("train")
        _write_train(train, outputs["train"], facts)
        if held_out is not None:
            outputs["eval"] = context.output("eval")
            _write_eval(held_out, outputs["eval"], facts)
        context.progress(1.0)
        metrics = {
            "rows": train.rows,
            "tokens": train.num_tokens,
            "loss_tokens": train.loss_tokens,
            "truncated_rows": train.truncated,
            "dropped_rows": train.dropped,
            "eval_rows": held_out.rows if held_out is not None else 0,
            "vocab_size": tokenizer.vocab_size,
        }
    return Computed(outputs=outputs, metrics={name: float(value) for name, value in metrics.items()})


@dataclass(slots=True)
class TokenRows:
    """Rows of tokens in flat arrays: a row costs its tokens and a few bytes, however many rows there are."""

    tokens: array[int] = field(default_factory=lambda: array("i"))
    mask: bytearray = field(default_factory=bytearray)
    offsets: array[int] = field(default_factory=lambda: array("q", [0]))
    #: 16 bytes a row, equal for equal rows
    digests: list[bytes] = field(default_factory=list[bytes])
    format: str = ""
    truncated: int = 0
    #: rows without a label, and rows equal to a held-out one
    dropped: int = 0

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def loss_tokens(self) -> int:
        """Labels that count: the first token of a row is never predicted."""
        mask = np.frombuffer(self.mask, np.uint8)
        firsts = np.frombuffer(self.offsets, np.int64)[:-1]
        return int(mask.sum()) - int(mask[firsts].sum()) if self.rows else 0

    def add(self, tokens: Sequence[int], mask: bytes | bytearray, digest: bytes) -> None:
        self.tokens.extend(tokens)
        self.mask += mask
        self.offsets.append(len(self.tokens))
        self.digests.append(digest)

    def pick(self, positions: Sequence[int]) -> dict[str, npt.NDArray[np.generic]]:
        """Tensors of these rows in this order: tokens int32 [n], mask uint8 [n], offsets int64 [rows + 1]."""
        tokens, mask = np.frombuffer(self.tokens, np.int32), np.frombuffer(self.mask, np.uint8)
        spans = [(self.offsets[position], self.offsets[position + 1]) for position in positions]
        lengths = np.array([end - begin for begin, end in spans], np.int64)
        return {
            "tokens": np.concatenate([tokens[begin:end] for begin, end in spans]),
            "mask": np.concatenate([mask[begin:end] for begin, end in spans]),
            "offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        }

    def select(self, positions: Sequence[int]) -> TokenRows:
        """A copy with only these rows, in this order."""
        chosen = TokenRows(format=self.format, truncated=self.truncated, dropped=self.dropped)
        for position in positions:
            begin, end = self.offsets[position], self.offsets[position + 1]
            chosen.add(self.tokens[begin:end], self.mask[begin:end], self.digests[position])
        return chosen


# ---- reading ------------------------------------------------------------------------------------------------------


def _rows(files: Sequence[SourceFile]) -> Iterator[Row]:
    for row in read_rows(read_lines(files)):
        if isinstance(row, Problem):
            raise _invalid(row)
        yield row


def _invalid(problem: Problem) -> InvalidInput:
    return InvalidInput(
        problem.code,
        problem.sentence,
        next_step=problem.fix,
        file=problem.file,
        line=problem.line or "",
        key=problem.key,
    )


def _batches(files: Sequence[SourceFile], progress: Progress) -> Iterator[list[Row]]:
    total = sum(source.path.stat().st_size for source in files) or 1
    batch: list[Row] = []
    seen = 0
    for row in _rows(files):
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            seen += sum(len(item.text) + len(str(item.prompt)) for item in batch)
            progress(min(seen / total, 1.0))
            batch = []
    if batch:
        yield batch


def _read_sft(
    files: Sequence[SourceFile], order: PrepareOrder, tokenizer: RowTokenizer, progress: Progress
) -> TokenRows:
    """One row each, cut to max_length; rows left without a label are dropped and counted."""
    found = TokenRows()
    for batch in _batches(files, progress):
        found.format = batch[0].format
        for row, item in zip(batch, tokenizer.encode(batch, train_on_prompt=order.train_on_prompt), strict=True):
            if isinstance(item, Problem):
                raise _invalid(item)
            kept = item.cut(order.max_length)
            if kept.loss_tokens == 0:
                found.dropped += 1
                continue
            found.truncated += len(kept.tokens) < len(item.tokens)
            found.add(kept.tokens, kept.mask, row.digest())
    return found


def _read_documents(files: Sequence[SourceFile], tokenizer: RowTokenizer, progress: Progress) -> TokenRows:
    """Whole documents, each ending with the end token; the mask is made when they are packed."""
    found = TokenRows(format=Format.TEXT)
    for batch in _batches(files, progress):
        if batch[0].format is not Format.TEXT:
            row = batch[0]
            raise InvalidInput(
                "data.wrong_format",
                f"Pre-training reads text, but the rows are {row.format}.",
                next_step="Use the recipe sft, or write the rows as `text`.",
                file=row.file,
                line=row.line,
                key="recipe",
            )
        for row, tokens in zip(batch, tokenizer.encode_documents([row.text for row in batch]), strict=True):
            found.add(tokens, b"", row.digest())
    return found


# ---- splitting and packing ----------------------------------------------------------------------------------------


def _prepare(order: PrepareOrder, context: Context, tokenizer: RowTokenizer) -> tuple[TokenRows, TokenRows | None]:
    """(rows to learn from, rows held out or None), both in their final order."""
    files = source_files([context.inputs["data"]])
    eval_files = source_files([context.inputs["eval_data"]]) if "eval_data" in context.inputs else []

    def progress(fraction: float) -> None:
        context.progress(0.2 + 0.7 * fraction)

    if order.recipe == "pretrain":
        found = _split_documents(order, tokenizer, files, eval_files, progress)
    else:
        found = _split_rows(order, tokenizer, files, eval_files, progress)
    train, held_out = found
    _check_size(order, train, held_out)
    seed = bytes.fromhex(order.seed)
    train = train.select(shuffled(train.rows, seed, "train order"))
    return train, held_out


def _split_rows(
    order: PrepareOrder,
    tokenizer: RowTokenizer,
    files: Sequence[SourceFile],
    eval_files: Sequence[SourceFile],
    progress: Progress,
) -> tuple[TokenRows, TokenRows | None]:
    found = _read_sft(files, order, tokenizer, progress)
    others = _read_sft(eval_files, order, tokenizer, progress) if eval_files else None
    return _divide(order, found, others)


def _split_documents(
    order: PrepareOrder,
    tokenizer: RowTokenizer,
    files: Sequence[SourceFile],
    eval_files: Sequence[SourceFile],
    progress: Progress,
) -> tuple[TokenRows, TokenRows | None]:
    """Whole documents are held out, so that no block of training text is half of an evaluated one."""
    found = _read_documents(files, tokenizer, progress)
    seed = bytes.fromhex(order.seed)
    if eval_files or order.eval_fraction is None or len(set(found.digests)) >= MIN_DOCUMENTS:
        others = _read_documents(eval_files, tokenizer, progress) if eval_files else None
        train, held_out = _divide(order, found, others)
        del found  # each copy of a large corpus is let go as soon as the next one stands
        train = train.select(shuffled(train.rows, seed, "documents"))
        packed = _pack(train, order.max_length)
        if held_out is None:
            return packed, None
        blocks = _pack(held_out, order.max_length)
        return packed, blocks.select(range(min(blocks.rows, order.eval_rows_max)))
    return _divide(order, _pack(found, order.max_length), None)


def _divide(order: PrepareOrder, found: TokenRows, others: TokenRows | None) -> tuple[TokenRows, TokenRows | None]:
    """Held-out rows come from their own files or from a fraction; equal rows never stand on both sides."""
    seed = bytes.fromhex(order.seed)
    if others is not None:
        chosen = others.select(shuffled(others.rows, seed, "held out")[: order.eval_rows_max])
        split = without(found.digests, set(others.digests))
    elif order.eval_fraction is not None:
        split = hold_out(found.digests, fraction=order.eval_fraction, most=order.eval_rows_max, seed=seed)
        chosen = found.select(split.held_out)
    else:
        return found, None
    train = found.select(split.train)
    train.dropped += split.dropped
    return train, chosen


def _pack(documents: TokenRows, max_length: int) -> TokenRows:
    """Documents joined end to end and cut into rows of exactly max_length; the rest at the end is left out."""
    packed = TokenRows(format=documents.format, dropped=documents.dropped)
    rows = documents.num_tokens // max_length
    packed.tokens = documents.tokens[: rows * max_length]
    packed.mask = bytearray(b"\1") * (rows * max_length)
    packed.offsets = array("q", range(0, (rows + 1) * max_length, max_length))
    flat = memoryview(packed.tokens)
    packed.digests = [_block_digest(flat[begin : begin + max_length]) for begin in packed.offsets[:-1]]
    return packed


def _block_digest(tokens: memoryview) -> bytes:
    return hashlib.blake2b(tokens, digest_size=16, person=b"shardwork block").digest()


def _check_size(order: PrepareOrder, train: TokenRows, held_out: TokenRows | None) -> None:
    if train.rows == 0:
        sentence = (
            f"The text gives no single row of {order.max_length} tokens."
            if order.recipe == "pretrain"
            else f"No row has an answer left within {order.max_length} tokens; {train.dropped} were dropped."
        )
        raise InvalidInput(
            "data.too_few",
            sentence,
            next_step="Give more data, or set a smaller (pretrain) or larger (sft) params.max_length.",
            key="params.max_length",
        )
    if held_out is not None and held_out.rows < MIN_EVAL_ROWS:
        raise InvalidInput(
            "data.too_few_held_out",
            f"The held-out data gives {held_out.rows} rows; at least {MIN_EVAL_ROWS} are needed.",
            next_step="Give more held-out rows, or leave eval_data and eval_fraction out.",
            key="eval_data",
        )


# ---- writing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Facts:
    """What index.json says beside the counts."""

    order: PrepareOrder
    tokenizer: RowTokenizer

    def index(self, rows: TokenRows, files: Sequence[tuple[str, int]]) -> str:
        value = {
            "rows": rows.rows,
            "rows_per_file": ROWS_PER_FILE,
            "tokens": rows.num_tokens,
            "loss_tokens": rows.loss_tokens,
            "max_length": self.order.max_length,
            "format": str(rows.format),
            "truncated_rows": rows.truncated,
            "files": [{"name": name, "rows": count} for name, count in files],
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _write_train(rows: TokenRows, folder: Path, facts: _Facts) -> None:
    files: list[tuple[str, int]] = []
    for begin in range(0, rows.rows, ROWS_PER_FILE):
        positions = range(begin, min(begin + ROWS_PER_FILE, rows.rows))
        name = f"rows-{len(files):05d}.safetensors"
        write_tensors(folder / name, rows.pick(positions))
        files.append((name, len(positions)))
    (folder / "index.json").write_text(facts.index(rows, files), "utf-8")


def _write_eval(rows: TokenRows, folder: Path, facts: _Facts) -> None:
    """The first half chooses between candidates, the second half is what is reported."""
    middle = rows.rows // 2
    files = [("selection.safetensors", range(middle)), ("test.safetensors", range(middle, rows.rows))]
    for name, positions in files:
        write_tensors(folder / name, rows.pick(positions))
    (folder / "index.json").write_text(
        facts.index(rows, [(name, len(positions)) for name, positions in files]), "utf-8"
    )


def _write_skeleton(order: PrepareOrder, data: Path, folder: Path) -> None:
    """A tokenizer learnt from the data and the preset's config: what `init` builds the first weights from."""
    if order.preset is None or order.vocab_size is None:
        raise InvalidInput(
            "prepare.no_base",
            "There is neither a base model nor a preset to prepare for.",
            next_step="Set base_model, or params.preset and params.vocab_size.",
        )
    files = source_files([data])
    total = sum(source.path.stat().st_size for source in files)
    tokenizer = train_vocabulary((row.text for row in _rows(files)), order.vocab_size, total_bytes=total)
    config = preset_config(
        order.preset,
        vocab_size=order.vocab_size,
        context=order.max_length,
        eos_token_id=SPECIAL.index(EOS),
        pad_token_id=SPECIAL.index(PAD),
    )
    write_tokenizer(tokenizer, folder, context=int(str(config["max_position_embeddings"])))
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    generation = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2, sort_keys=True) + "\n", "utf-8")
