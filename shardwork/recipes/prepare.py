"""Phase `prepare`: the submitter's rows become fixed token shards, held-out rows, and a skeleton.

Owns the artifacts that every learn and evaluate shard reads: tokens, loss mask and row offsets, shuffled once. Reading,
rendering and tokenising are `shardwork.dataset`. Runs in the operator's executor, without torch; a pure function of
inputs and order, so equal inputs give equal artifacts.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ..dataset.lengths import Layout, Overlong, fitted, layout, pack
from ..dataset.rows import Row
from ..dataset.source import SourceFile, staged_files
from ..dataset.split import MIN_DOCUMENTS, MIN_EVAL_ROWS, hold_out, shuffled, without
from ..dataset.tokenise import Encoded, RowTokenizer
from ..dataset.vocabulary import EOS, PAD, SPECIAL, train_vocabulary, write_tokenizer
from ..dataset.weights import reads
from ..errors import InvalidInput
from ..models.checkpoint import TOKENIZER
from ..models.folder import check_vocabulary
from ..models.presets import preset_config
from ..problem import Problem
from ..tensors.file import write_tensors
from .base import Computed, Context
from .orders import PrepareOrder
from .reading import Progress, batches, invalid, overlong, refuse_unusable, rows_of
from .tokenrows import ROWS_PER_FILE, Facts, TokenRows

#: rows of either side that publishing goes on from, to see what was learnt by heart
PROBE_ROWS = 16
#: a row with fewer tokens has too little to go on from, and of a longer one this much is enough
PROBE_LEAST, PROBE_MOST = 16, 256


def compute(phase: str, order_json: str, context: Context) -> Computed:
    """inputs data, eval_data?, base?, parent? -> outputs train, eval?, skeleton?; metrics are counts.

    Raises InvalidInput "data.*", "tokenizer.*" or "template.*" naming file, line and key.
    """
    if phase != "prepare":
        raise InvalidInput("recipe.unknown_phase", f"Preparing has no phase {phase!r}.")
    order = PrepareOrder.model_validate_json(order_json)
    outputs: dict[str, Path] = {}
    folder = context.inputs.get("base")
    if folder is None:
        folder = outputs["skeleton"] = context.output("skeleton")
        _write_skeleton(order, context, folder)
        context.progress(0.2)
    with RowTokenizer.load(folder, chat_template=order.chat_template) as tokenizer:
        aligned = _aligned(order)
        if aligned is not None:
            return aligned(order, context, tokenizer)
        train, held_out = _prepare(order, context, tokenizer)
        facts = Facts(order, tokenizer)
        outputs["train"] = context.output("train")
        sequences = _sequences(order, train)
        _write_train(train, sequences, outputs["train"], facts)
        if held_out is not None:
            outputs["eval"] = context.output("eval")
            _write_eval(held_out, outputs["eval"], facts)
        probe = _probe(train, held_out)
        if probe is not None:
            outputs["probe"] = context.output("probe")
            write_tensors(outputs["probe"] / "probe.safetensors", probe)
        context.progress(1.0)
        metrics = {
            "rows": train.rows,
            "sequences": len(sequences) if sequences is not None else train.rows,
            "tokens": train.num_tokens,
            "loss_tokens": train.loss_tokens,
            "truncated_rows": train.truncated,
            "split_rows": train.split,
            "dropped_rows": train.dropped,
            "eval_rows": held_out.rows if held_out is not None else 0,
            "vocab_size": tokenizer.vocab_size,
        }
    return Computed(outputs=outputs, metrics={name: float(value) for name, value in metrics.items()})


def _aligned(order: PrepareOrder) -> Callable[[PrepareOrder, Context, RowTokenizer], Computed] | None:
    """How rows of feedback are prepared, which are no rows of text; None for text."""
    if order.recipe in ("reward", "dpo"):
        from .alignment.phases.pairs import prepare_pairs

        return prepare_pairs
    if order.recipe in ("ppo", "grpo"):
        from .alignment.phases.prompts import prepare_prompts

        return prepare_prompts
    return None


# ---- reading ------------------------------------------------------------------------------------------------------


def _read(files: Sequence[SourceFile], order: PrepareOrder, tokenizer: RowTokenizer, progress: Progress) -> TokenRows:
    """Rows cut, split or dropped to max_length; packed pre-training: whole documents, each with its end token.

    Rows left without a label are dropped and counted.
    """
    found = TokenRows()
    for batch in batches(files, progress):
        if not found.format:
            refuse_unusable(batch[0], order.recipe, order.overlong)
            found.format = batch[0].format
        if order.recipe == "pretrain":
            texts = tokenizer.encode_documents([row.text for row in batch])
            encoded: list[Encoded | Problem] = [Encoded(tokens, b"\1" * len(tokens)) for tokens in texts]
        else:
            encoded = tokenizer.encode(batch, train_on_prompt=order.train_on_prompt)
        for row, item in zip(batch, encoded, strict=True):
            if isinstance(item, Problem):
                raise invalid(item)
            _add(found, row, item, order)
    return found


def _add(found: TokenRows, row: Row, item: Encoded, order: PrepareOrder) -> None:
    """The row's pieces, with how often its source's weight reads it."""
    how = Overlong(order.overlong).of(row.format)
    is_long = len(item.tokens) > order.max_length
    if is_long and how is Overlong.REFUSE:
        raise overlong(row, len(item.tokens), order.max_length)
    whole = _is_joined(order) and how is Overlong.SPLIT  # cut where the sequences end, not here
    pieces = [item] if whole else [piece for piece in fitted(item, order.max_length, how) if piece.loss_tokens]
    if not pieces:
        found.dropped += 1
        return
    if is_long and not whole:
        found.split += how is Overlong.SPLIT
        found.truncated += how is Overlong.TRUNCATE
    digest = row.digest()
    times = reads(digest, order.weights[row.source] if row.source < len(order.weights) else 1.0)
    for number, piece in enumerate(pieces):
        found.add(piece, digest, times, is_head=number == 0)


def _is_joined(order: PrepareOrder) -> bool:
    return layout(order.packing, order.recipe) is Layout.JOINED


# ---- splitting and packing ----------------------------------------------------------------------------------------


def _prepare(order: PrepareOrder, context: Context, tokenizer: RowTokenizer) -> tuple[TokenRows, TokenRows | None]:
    """(rows to learn from, rows held out or None), both in their final order."""

    def progress(fraction: float) -> None:
        context.progress(0.2 + 0.7 * fraction)

    found = _read(staged_files(context.inputs["data"], order.recipe), order, tokenizer, progress)
    others = None
    if "eval_data" in context.inputs:
        unweighted = order.model_copy(update={"weights": ()})
        others = _read(staged_files(context.inputs["eval_data"], order.recipe), unweighted, tokenizer, progress)
    train, held_out = (_joined if _is_joined(order) else _apart)(order, found, others)
    _check_size(order, train, held_out)
    train = train.select(shuffled(train.rows, bytes.fromhex(order.seed), "train order"))
    return train, held_out


def _apart(order: PrepareOrder, found: TokenRows, others: TokenRows | None) -> tuple[TokenRows, TokenRows | None]:
    """Every row for itself."""
    train, held_out = _divide(order, found, others)
    return (train if set(train.times) <= {1} else train.select(train.positions())), held_out


def _joined(order: PrepareOrder, found: TokenRows, others: TokenRows | None) -> tuple[TokenRows, TokenRows | None]:
    """Whole documents are held out, so that no block of training text is half of an evaluated one."""
    seed = bytes.fromhex(order.seed)
    if others is not None or order.eval_fraction is None or len(set(found.digests)) >= MIN_DOCUMENTS:
        train, held_out = _divide(order, found, others)
        del found  # each copy of a large corpus is let go as soon as the next one stands
        positions = train.positions()
        train = train.select([positions[number] for number in shuffled(len(positions), seed, "documents")])
        joined = _join(train, order.max_length)
        if held_out is None:
            return joined, None
        blocks = _join(held_out, order.max_length)
        return joined, blocks.select(range(min(blocks.rows, order.eval_rows_max)))
    if set(found.times) != {1}:
        raise InvalidInput(
            "data.weights_need_documents",
            f"Weights need at least {MIN_DOCUMENTS} documents to hold some out of, but there are fewer.",
            next_step="Give eval_data instead of eval_fraction, or leave the weights out.",
            key="eval_fraction",
        )
    return _divide(order, _join(found, order.max_length), None)


def _divide(order: PrepareOrder, found: TokenRows, others: TokenRows | None) -> tuple[TokenRows, TokenRows | None]:
    """Held-out rows come from their own files or from a fraction; equal rows never stand on both sides."""
    documents = found.documents()
    digests = [found.digests[rows.start] for rows in documents]
    if others is not None:
        seed = bytes.fromhex(order.seed)
        chosen = others.select(shuffled(others.rows, seed, "held out")[: order.eval_rows_max])
        split = without(digests, set(others.digests))
    elif order.eval_fraction is not None:
        split = hold_out(digests, fraction=order.eval_fraction, most=order.eval_rows_max)
        chosen = found.select(_rows_of(documents, split.held_out)[: order.eval_rows_max])
    else:
        return found, None
    train = found.select(_rows_of(documents, split.train))
    train.dropped += split.dropped
    return train, chosen


def _rows_of(documents: Sequence[range], positions: Sequence[int]) -> list[int]:
    return [row for position in positions for row in documents[position]]


def _join(documents: TokenRows, max_length: int) -> TokenRows:
    """Documents joined end to end and cut into rows of exactly max_length; the rest at the end is left out."""
    joined = TokenRows(format=documents.format, dropped=documents.dropped, truncated=documents.truncated)
    rows = documents.num_tokens // max_length
    joined.tokens = documents.tokens[: rows * max_length]
    joined.mask = bytearray(b"\1") * (rows * max_length)
    joined.offsets = array("q", range(0, (rows + 1) * max_length, max_length))
    joined.times = array("H", [1]) * rows
    joined.heads = bytearray(b"\1") * rows
    flat = memoryview(joined.tokens)
    joined.digests = [_block_digest(flat[begin : begin + max_length]) for begin in joined.offsets[:-1]]
    return joined


def _block_digest(tokens: memoryview) -> bytes:
    return hashlib.blake2b(tokens, digest_size=16, person=b"shardwork block").digest()


def _sequences(order: PrepareOrder, train: TokenRows) -> list[list[int]] | None:
    """The rows of each sequence, shuffled, or sequences of one row would come first; None where rows stay apart."""
    if layout(order.packing, order.recipe) is not Layout.PACKED:
        return None
    sequences = pack(np.diff(train.offsets).tolist(), order.max_length)
    return [sequences[number] for number in shuffled(len(sequences), bytes.fromhex(order.seed), "sequences")]


def _check_size(order: PrepareOrder, train: TokenRows, held_out: TokenRows | None) -> None:
    if train.rows == 0:
        sentence = (
            f"The text gives no single row of {order.max_length} tokens."
            if _is_joined(order)
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


def _probe(train: TokenRows, held_out: TokenRows | None) -> dict[str, npt.NDArray[np.generic]] | None:
    """Rows of both sides to go on from, and `sides` uint8 [rows]: 1 = learnt, 0 = held out. None when all are short.

    The first of the shuffled rows are a fair sample; a row that is read several times is taken once.
    """
    chosen = TokenRows()
    sides = bytearray()
    for side, rows in ((1, train), (0, held_out)):
        seen: set[bytes] = set()
        for position in range(rows.rows if rows is not None else 0):
            assert rows is not None
            begin, end = rows.offsets[position], min(rows.offsets[position + 1], rows.offsets[position] + PROBE_MOST)
            if end - begin < PROBE_LEAST or rows.digests[position] in seen:
                continue
            seen.add(rows.digests[position])
            chosen.add(Encoded(rows.tokens[begin:end].tolist(), bytes(rows.mask[begin:end])), rows.digests[position])
            sides.append(side)
            if len(seen) == PROBE_ROWS:
                break
    if not sides:
        return None
    return {**chosen.pick(range(chosen.rows)), "sides": np.frombuffer(sides, np.uint8)}


# ---- writing ------------------------------------------------------------------------------------------------------


def _write_train(rows: TokenRows, sequences: list[list[int]] | None, folder: Path, facts: Facts) -> None:
    """What a worker calls a row is a sequence, where rows are packed."""
    files: list[tuple[str, int]] = []
    count = rows.rows if sequences is None else len(sequences)
    for begin in range(0, count, ROWS_PER_FILE):
        positions = range(begin, min(begin + ROWS_PER_FILE, count))
        name = f"rows-{len(files):05d}.safetensors"
        these = rows.pick(positions) if sequences is None else rows.packed(sequences[begin : positions.stop])
        write_tensors(folder / name, these)
        files.append((name, len(positions)))
    (folder / "index.json").write_text(facts.index(rows, files), "utf-8")


def _write_eval(rows: TokenRows, folder: Path, facts: Facts) -> None:
    """The first half chooses between candidates, the second half is what is reported."""
    middle = rows.rows // 2
    files = [("selection.safetensors", range(middle)), ("test.safetensors", range(middle, rows.rows))]
    for name, positions in files:
        write_tensors(folder / name, rows.pick(positions))
    (folder / "index.json").write_text(
        facts.index(rows, [(name, len(positions)) for name, positions in files]), "utf-8"
    )


def _write_skeleton(order: PrepareOrder, context: Context, folder: Path) -> None:
    """The preset's config and a tokenizer, learnt from the data or kept from the checkpoint that goes on: what `init`
    builds the first weights from. Raises InvalidInput "continue.no_tokenizer"."""
    if order.preset is None or order.vocab_size is None:
        raise InvalidInput(
            "prepare.no_base",
            "There is neither a base model nor a preset to prepare for.",
            next_step="Set base_model, or params.preset and params.vocab_size.",
        )
    if "parent" in context.inputs:
        tokenizer = _kept_tokenizer(context.inputs["parent"], order.vocab_size)
    else:
        files = staged_files(context.inputs["data"], order.recipe)
        total = sum(source.path.stat().st_size for source in files)
        tokenizer = train_vocabulary((row.text for row in rows_of(files)), order.vocab_size, total_bytes=total)
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


def _kept_tokenizer(checkpoint: Path, vocab_size: int) -> Tokenizer:
    """The checkpoint's own. It may be a requester's upload, so it is looked at before it is run."""
    path = checkpoint / TOKENIZER
    if not path.is_file():
        raise InvalidInput(
            "continue.no_tokenizer",
            "The checkpoint holds no tokenizer, so its weights can't be told what the tokens of these rows are.",
            next_step="Set base_model to the model that the earlier stage published, and leave params.preset out.",
            key="continue_from",
        )
    check_vocabulary(checkpoint, vocab_size)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        sentence = f"The checkpoint's tokenizer cannot be read: {error}."
        raise InvalidInput("tokenizer.bad", sentence, next_step="Download the checkpoint again.") from error
    if [tokenizer.id_to_token(number) for number in range(len(SPECIAL))] != list(SPECIAL):
        sentence = "The checkpoint's tokenizer is not one that a stage from scratch made."
        raise InvalidInput("continue.other_tokenizer", sentence, next_step="Name the earlier stage's own checkpoint.")
    return tokenizer
