# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Packed rows teach what padded ones teach: the same loss and gradients, and no row sees another, in every family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from shardwork.dataset.lengths import pack
from shardwork.errors import Corrupt, InvalidInput
from shardwork.models import architectures
from shardwork.models.architectures import PACKABLE
from shardwork.tensors.file import read_tensors, write_tensors
from shardwork_worker.training.batches import IGNORE, Batch, Row, TrainRows, collate, eval_rows, places
from shardwork_worker.training.loop import batch_loss
from shardwork_worker.training.model import Built
from shardwork_worker.training.packed import check_packed
from shardwork_worker.training.trainer import TorchTrainer

from . import tiny

BaseOf = Callable[[str], Path]
CPU = torch.device("cpu")
ROOM = 40


def model_of(kind: str, attention: str = "sdpa") -> Built:
    """A tiny model of a family with weights so wide that attention matters."""
    sizes = tiny.SIZES.get(kind, tiny.SIZES["llama"])
    config = AutoConfig.for_model(
        kind, vocab_size=tiny.VOCABULARY, pad_token_id=0, eos_token_id=1, bos_token_id=1, **sizes
    )
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    return Built(model, dict(model.named_parameters()), CPU, tiny.tuning("full"))


def rows_of(prepared: Sequence[tiny.PreparedRow]) -> list[Row]:
    rows: list[Row] = []
    for one in prepared:
        tokens = torch.tensor(one.tokens)
        labels = tokens.masked_fill(torch.tensor(one.mask) == 0, IGNORE)
        labels[0] = IGNORE
        rows.append(Row(tokens, labels))
    return rows


def packed_of(rows: Sequence[Row]) -> list[Row]:
    made: list[Row] = []
    for these in pack([len(row.tokens) for row in rows], ROOM):
        lengths = [len(rows[each].tokens) for each in these]
        firsts = torch.tensor([0, *np.cumsum(lengths)[:-1].tolist()])
        tokens, labels = (torch.cat([getattr(rows[each], name) for each in these]) for name in ("tokens", "labels"))
        made.append(Row(tokens, labels, places(firsts, len(tokens))))
    return made


def learnt(built: Built, batch: Batch, labels: int) -> tuple[float, torch.Tensor]:
    """Loss and the whole gradient."""
    built.model.zero_grad()
    loss = batch_loss(built.model, batch, labels)
    loss.backward()
    gradients = [p.grad.flatten() for p in built.trainable.values() if p.grad is not None]
    return float(loss.detach()), torch.cat(gradients)


#: Gemma 2 caps its logits, which only eager attention can
CASES = [
    *((kind, "sdpa") for kind in sorted(PACKABLE - {"gemma2"})),
    *((kind, "eager") for kind in ("gemma2", "gpt2", "llama")),
]


@pytest.mark.parametrize(("kind", "attention"), CASES)
def test_packed_loss_and_gradients_are_the_padded_ones(kind: str, attention: str) -> None:
    built = model_of(kind, attention)
    rows = rows_of([*tiny.rows(9), *tiny.packed(1, length=ROOM)])
    sequences = packed_of(rows)
    assert len(sequences) < len(rows) and {len(each.tokens) for each in sequences} != {ROOM}  # with padding as well
    labels = sum(row.label_count for row in rows)
    assert labels == sum(row.label_count for row in sequences)
    loss, gradients = learnt(built, collate(rows, 0, CPU), labels)
    packed_loss, packed_gradients = learnt(built, collate(sequences, 0, CPU), labels)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert float((packed_gradients - gradients).norm() / gradients.norm()) < 1e-5


@pytest.mark.parametrize(("kind", "attention"), CASES)
def test_a_row_reads_the_same_whatever_lies_before_and_behind_it(kind: str, attention: str) -> None:
    built = model_of(kind, attention)
    one, other, row, last = (torch.arange(begin, begin + 7) for begin in (10, 50, 90, 130))

    def logits(before: torch.Tensor, behind: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([before, row, behind])
        packed = Row(tokens, tokens, places(torch.tensor([0, 7, 14]), len(tokens)))
        with torch.inference_mode():
            found: torch.Tensor = built.model(**collate([packed], 0, CPU).inputs(), use_cache=False).logits
        return found[0, 7:14]

    with torch.inference_mode():
        alone = built.model(**collate([Row(row, row)], 0, CPU).inputs(), use_cache=False).logits[0]
    assert torch.equal(logits(one, last), logits(other, last))
    assert torch.equal(logits(one, last), logits(one, other))
    assert torch.allclose(logits(one, last), alone, atol=1e-5)
    check_packed(built)


@pytest.mark.parametrize("kind", ["opt", "bloom", "mpt"])
def test_a_family_that_ignores_position_ids_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name; and were that on the list, by what the model does."""
    config = AutoConfig.for_model(kind, vocab_size=300, hidden_size=32, num_hidden_layers=2, ffn_dim=48)
    for heads in ("num_attention_heads", "n_heads"):
        setattr(config, heads, 4)
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    built = Built(model, dict(model.named_parameters()), CPU, tiny.tuning("full"))
    with pytest.raises(InvalidInput) as caught:
        check_packed(built)
    assert caught.value.code == "packing.family" and "qwen3" in caught.value.why.next_step
    monkeypatch.setattr(architectures, "PACKABLE", frozenset({kind}))
    with pytest.raises(InvalidInput) as caught:
        check_packed(built)
    assert caught.value.code == "packing.sees_neighbours"


def write_packed(folder: Path, sequences: Sequence[Sequence[tiny.PreparedRow]]) -> Path:
    """A `train` artifact of packed rows."""
    flat = [row for rows in sequences for row in rows]
    tiny.write_train(folder, flat, rows_per_file=len(flat))
    ends = np.cumsum([0, *(len(row.tokens) for row in flat)], dtype=np.int64)
    firsts = np.cumsum([0, *(len(rows) for rows in sequences)])
    file = folder / "rows-00000.safetensors"
    tokens = np.array([token for row in flat for token in row.tokens], np.int32)
    mask = np.array([bit for row in flat for bit in row.mask], np.uint8)
    write_tensors(file, {"tokens": tokens, "mask": mask, "offsets": ends[firsts], "begins": ends[:-1]})
    index = (folder / "index.json").read_text().replace(f'"rows": {len(flat)}}}', f'"rows": {len(sequences)}}}')
    (folder / "index.json").write_text(index)
    return folder


def test_nothing_is_predicted_across_a_border(tmp_path: Path) -> None:
    sequences = [[tiny.PreparedRow([5, 6, 7], [1, 1, 1]), tiny.PreparedRow([8, 9], [1, 1])], tiny.packed(1, length=4)]
    rows = TrainRows(write_packed(tmp_path / "train", sequences), 64, tiny.VOCABULARY, packed=True)
    assert len(rows) == 2
    first = rows.row(0)
    assert first.tokens.tolist() == [5, 6, 7, 8, 9] and first.labels.tolist() == [IGNORE, 6, 7, IGNORE, 9]
    assert first.positions is not None and first.positions.tolist() == [0, 1, 2, 0, 1]
    batch = collate([first, rows.row(1)], 2, CPU)
    assert batch.position_ids is not None and batch.position_ids.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 0]]
    assert batch.attention_mask.tolist() == [[1] * 5, [1, 1, 1, 1, 0]]
    cut = TrainRows(tmp_path / "train", 4, tiny.VOCABULARY, packed=True).row(0)
    assert cut.positions is not None and cut.positions.tolist() == [0, 1, 2, 0]


def test_rows_that_are_packed_otherwise_than_ordered_are_refused(train: Path, tmp_path: Path) -> None:
    packed = write_packed(tmp_path / "train", [tiny.rows(3)])
    for folder, wanted in ((packed, False), (train, True)):
        with pytest.raises(Corrupt) as caught:
            TrainRows(folder, 64, tiny.VOCABULARY, packed=wanted).row(0)
        assert caught.value.code == "rows.unreadable"
    held_out = tiny.write_eval(tmp_path / "eval", tiny.rows(2), tiny.rows(2))
    assert eval_rows(held_out, "test", 64, tiny.VOCABULARY)[0].positions is None


@pytest.mark.parametrize("begins", [[], [0, 3, 2], [1, 3], [0, 9]])
def test_borders_that_do_not_fit_are_refused(begins: list[int], tmp_path: Path) -> None:
    folder = write_packed(tmp_path / "train", [[tiny.PreparedRow([5, 6, 7, 8, 9], [1] * 5)]])
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "tokens": np.arange(5, dtype=np.int32),
        "mask": np.ones(5, np.uint8),
        "offsets": np.array([0, 5], np.int64),
        "begins": np.array(begins, np.int64),
    }
    write_tensors(folder / "rows-00000.safetensors", tensors)
    with pytest.raises(Corrupt) as caught:
        TrainRows(folder, 64, tiny.VOCABULARY, packed=True).row(0)
    assert caught.value.code == "rows.unreadable"


@pytest.mark.parametrize("method", ["full", "lora", "dropout"])
def test_a_shard_of_packed_rows_learns_and_can_be_repeated_however_its_batch_is_cut(
    method: str, base_of: BaseOf, tmp_path: Path
) -> None:
    rows = tiny.rows(45)
    sequences = [[rows[each] for each in these] for these in pack([len(row.tokens) for row in rows], 64)]
    train = write_packed(tmp_path / "packed", sequences)
    how = tiny.tuning("lora", dropout=0.3) if method == "dropout" else tiny.tuning(method)
    changes = how.model_dump(exclude={"method"})
    trainer = TorchTrainer("cpu")
    first = tiny.first_checkpoint(trainer, base_of("qwen2"), tmp_path / "init", how.method.value, **changes)

    def shard(name: str, **settings: Any) -> tuple[Path, float, float]:
        order = tiny.learn_order(tuning=how, packed=True, **settings)
        context = tiny.context(tmp_path / name, base=base_of("qwen2"), checkpoint=first, train=train)
        done = TorchTrainer("cpu").learn(order, context)
        return done.outputs["delta"], done.metrics["train_loss"], done.metrics["tokens"]

    one, again, cut = shard("one"), shard("again"), shard("cut", micro_batch_size=1, gradient_checkpointing=True)
    assert tiny.same_files(one[0], again[0])
    assert cut[1] == pytest.approx(one[1], rel=1e-5)
    read = [sum(len(row.tokens) for row in sequences[number % len(sequences)]) for number in range(20)]
    assert one[2] == cut[2] == sum(read)


def test_packed_steps_are_the_padded_steps(base_of: BaseOf, tmp_path: Path) -> None:
    """Sequences of one batch hold the rows of the other: the same weights after five steps, to rounding."""
    rows = tiny.rows(40)
    plain = tiny.write_train(tmp_path / "plain", rows, rows_per_file=40)
    packed = write_packed(tmp_path / "packed", [rows[begin : begin + 2] for begin in range(0, 40, 2)])
    base = base_of("llama")
    first = tiny.first_checkpoint(TorchTrainer("cpu"), base, tmp_path / "init")
    deltas: list[np.ndarray[Any, Any]] = []
    losses: list[float] = []
    for train, order in (
        (plain, tiny.learn_order(batch_size=8, micro_batch_size=8)),
        (packed, tiny.learn_order(batch_size=4, packed=True)),
    ):
        context = tiny.context(tmp_path / f"learn-{order.packed}", base=base, checkpoint=first, train=train)
        done = TorchTrainer("cpu").learn(order, context)
        losses.append(done.metrics["train_loss"])
        assert done.metrics["tokens"] == sum(len(row.tokens) for row in rows)
        tensors = read_tensors(done.outputs["delta"] / "delta.safetensors")
        deltas.append(np.concatenate([tensors[name].ravel() for name in sorted(tensors)]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert np.linalg.norm(deltas[0] - deltas[1]) <= 1e-3 * np.linalg.norm(deltas[0])
