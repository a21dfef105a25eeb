"""Prepare: the artifacts that workers read, byte for byte the same each time."""

# pyright: standard

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardwork.errors import InvalidInput
from shardwork.models.presets import preset_params
from shardwork.recipes import prepare
from shardwork.recipes.base import Computed, Trainer
from shardwork.recipes.orders import PrepareOrder
from shardwork.tensors.file import read_tensors
from tests.shardwork.dataset.folders import CHAT, tokenizer_folder, turn, write_jsonl

WORDS = ("river", "stone", "light", "keeper", "bread", "apple", "cloud", "quiet", "seven", "sings", "Fluss", "grün")


class Inputs:
    """A context that only holds folders."""

    def __init__(self, inputs: Mapping[str, Path], out: Path) -> None:
        self.inputs = inputs
        self.seed = b""
        self.fractions: list[float] = []
        self._out = out

    @property
    def trainer(self) -> Trainer:
        raise AssertionError("prepare needs no trainer")

    def output(self, name: str) -> Path:
        folder = self._out / name
        folder.mkdir(parents=True)
        return folder

    def progress(self, fraction: float, *, loss: float | None = None) -> None:
        self.fractions.append(fraction)


def run(inputs: Mapping[str, Path], out: Path, **order: Any) -> Computed:
    given: dict[str, Any] = {"recipe": "sft", "max_length": 32, "eval_fraction": None, "seed": "ab" * 32, **order}
    context = Inputs(inputs, out)
    computed = prepare.compute("prepare", PrepareOrder(**given).canonical_json(), context)
    assert context.fractions[-1] == 1.0 and context.fractions == sorted(context.fractions)
    return computed


def documents(folder: Path, count: int = 200) -> Path:
    chance = random.Random(5)
    write_jsonl(folder / "a.jsonl", [{"text": " ".join(chance.choices(WORDS, k=30))} for _ in range(count)])
    return folder


def pairs(folder: Path, count: int = 100) -> Path:
    write_jsonl(folder / "a.jsonl", [{"prompt": f"Number {n}?", "completion": f" It is {n}."} for n in range(count)])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("model"))


def bytes_of(computed: Computed) -> dict[str, str]:
    return {
        f"{name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for name, folder in computed.outputs.items()
        for path in sorted(folder.iterdir())
    }


def rows_of(folder: Path) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(tokens, mask) of each row, in stored order, as a worker reads them."""
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for file in json.loads((folder / "index.json").read_text())["files"]:
        tensors = read_tensors(folder / file["name"])
        assert [tensors[name].dtype for name in ("tokens", "mask", "offsets")] == [np.int32, np.uint8, np.int64]
        offsets = tensors["offsets"]
        assert len(offsets) == file["rows"] + 1 and offsets[0] == 0 and offsets[-1] == len(tensors["tokens"])
        for begin, end in itertools.pairwise(offsets):
            found.append((tuple(tensors["tokens"][begin:end].tolist()), tuple(tensors["mask"][begin:end].tolist())))
    return found


def test_the_same_input_and_seed_give_the_same_bytes(tmp_path: Path, model: Path) -> None:
    data = pairs(tmp_path / "data")
    inputs = {"data": data, "base": model}
    first = bytes_of(run(inputs, tmp_path / "1", eval_fraction=0.1))
    assert first == bytes_of(run(inputs, tmp_path / "2", eval_fraction=0.1))
    assert first != bytes_of(run(inputs, tmp_path / "3", eval_fraction=0.1, seed="cd" * 32))


def test_pretraining_from_nothing_is_repeatable_and_loads_in_transformers(tmp_path: Path) -> None:
    import transformers

    library: Any = transformers

    data = documents(tmp_path / "data")
    order: dict[str, Any] = {"recipe": "pretrain", "preset": "tiny-1m", "vocab_size": 300, "eval_fraction": 0.1}
    one = run({"data": data}, tmp_path / "1", **order)
    assert bytes_of(one) == bytes_of(run({"data": data}, tmp_path / "2", **order))
    skeleton = one.outputs["skeleton"]
    assert {path.name for path in skeleton.iterdir()} == {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    tokenizer = library.AutoTokenizer.from_pretrained(skeleton)
    network = library.AutoModelForCausalLM.from_config(library.AutoConfig.from_pretrained(skeleton))
    assert sum(parameter.numel() for parameter in network.parameters()) == preset_params("tiny-1m", 300)
    assert tokenizer.decode(tokenizer("Fluss  grün 漢\n").input_ids) == "Fluss  grün 漢\n"
    assert one.metrics["vocab_size"] == len(tokenizer) <= 300
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1)


def test_documents_are_packed_end_to_end_into_full_rows(tmp_path: Path, model: Path) -> None:
    data = documents(tmp_path / "data")
    computed = run({"data": data, "base": model}, tmp_path / "out", recipe="pretrain", eval_fraction=0.1)
    rows = rows_of(computed.outputs["train"])
    assert {len(tokens) for tokens, _ in rows} == {32} and {bit for _, mask in rows for bit in mask} == {1}
    assert any(0 in tokens for tokens, _ in rows)  # the end token between documents
    assert computed.metrics["tokens"] == 32 * len(rows)
    assert computed.metrics["loss_tokens"] == 31 * len(rows)


def test_no_held_out_row_is_learnt(tmp_path: Path, model: Path) -> None:
    data = pairs(tmp_path / "data")
    with (data / "a.jsonl").open("a") as file:
        file.write((data / "a.jsonl").read_text())  # every row twice
    computed = run({"data": data, "base": model}, tmp_path / "out", eval_fraction=0.1)
    train, held = rows_of(computed.outputs["train"]), rows_of(computed.outputs["eval"])
    assert set(train).isdisjoint(held)
    assert len(set(held)) == len(held) == computed.metrics["eval_rows"] == 20
    assert (len(train), computed.metrics["dropped_rows"]) == (160, 20)
    names = [file["rows"] for file in json.loads((computed.outputs["eval"] / "index.json").read_text())["files"]]
    assert names == [10, 10]


def test_eval_files_are_held_out_and_their_rows_leave_training(tmp_path: Path, model: Path) -> None:
    data = pairs(tmp_path / "data", 50)
    held = pairs(tmp_path / "held", 10)
    computed = run({"data": data, "base": model, "eval_data": held}, tmp_path / "out")
    assert (computed.metrics["rows"], computed.metrics["eval_rows"], computed.metrics["dropped_rows"]) == (40, 10, 10)


def test_without_held_out_rows_there_is_no_eval_artifact(tmp_path: Path, model: Path) -> None:
    computed = run({"data": pairs(tmp_path / "data"), "base": model}, tmp_path / "out")
    assert set(computed.outputs) == {"train", "probe"} and computed.metrics["eval_rows"] == 0


def test_rows_are_shuffled_but_all_there(tmp_path: Path, model: Path) -> None:
    data = pairs(tmp_path / "data")
    one = rows_of(run({"data": data, "base": model}, tmp_path / "1").outputs["train"])
    other = rows_of(run({"data": data, "base": model}, tmp_path / "2", seed="00" * 32).outputs["train"])
    assert one != other and sorted(one) == sorted(other) and len(one) == 100


def test_only_answers_are_labels_unless_asked(tmp_path: Path, model: Path) -> None:
    data = pairs(tmp_path / "data")
    masked = run({"data": data, "base": model}, tmp_path / "1")
    whole = run({"data": data, "base": model}, tmp_path / "2", train_on_prompt=True)
    assert masked.metrics["loss_tokens"] < whole.metrics["loss_tokens"] == whole.metrics["tokens"] - 100
    for tokens, mask in rows_of(masked.outputs["train"]):
        assert mask[0] == 0 and mask[-1] == 1 and tokens[-1] == 0
        assert sorted(mask) == list(mask)


def test_long_rows_are_cut_and_unanswered_ones_dropped_and_counted(tmp_path: Path, model: Path) -> None:
    data = pairs(tmp_path / "data", 10)
    long = [
        {"prompt": "x " * 90, "completion": "never"},
        {"prompt": "a", "completion": "y " * 90},
    ]
    write_jsonl(data / "long.jsonl", long)
    computed = run({"data": data, "base": model}, tmp_path / "out")
    assert [computed.metrics[name] for name in ("rows", "truncated_rows", "dropped_rows")] == [11, 1, 1]
    index = json.loads((computed.outputs["train"] / "index.json").read_text())
    assert index["truncated_rows"] == 1 and max(len(tokens) for tokens, _ in rows_of(computed.outputs["train"])) == 32


def test_many_rows_go_into_several_files(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "ROWS_PER_FILE", 40)
    computed = run({"data": pairs(tmp_path / "data"), "base": model}, tmp_path / "out")
    index = json.loads((computed.outputs["train"] / "index.json").read_text())
    assert [file["rows"] for file in index["files"]] == [40, 40, 20]
    assert len(rows_of(computed.outputs["train"])) == 100


def test_conversations_use_the_models_template_or_the_one_asked_for(tmp_path: Path, model: Path) -> None:
    data = tmp_path / "data"
    write_jsonl(data / "a.jsonl", [{"messages": [turn("user", f"q{n}"), turn("assistant", f"a{n}")]} for n in range(9)])
    with pytest.raises(InvalidInput) as caught:
        run({"data": data, "base": model}, tmp_path / "1")
    assert caught.value.code == "template.missing"
    ours = run({"data": data, "base": model}, tmp_path / "2", max_length=64, chat_template="chatml")
    own = run({"data": data, "base": tokenizer_folder(tmp_path / "m", template=CHAT)}, tmp_path / "3", max_length=64)
    assert ours.metrics["rows"] == own.metrics["rows"] == 9
    assert rows_of(ours.outputs["train"]) != rows_of(own.outputs["train"])


def test_one_long_text_is_split_by_rows(tmp_path: Path, model: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    chance = random.Random(3)
    (data / "book.txt").write_text(" ".join(chance.choices(WORDS, k=3000)))
    computed = run({"data": data, "base": model}, tmp_path / "out", recipe="pretrain", eval_fraction=0.1)
    train, held = rows_of(computed.outputs["train"]), rows_of(computed.outputs["eval"])
    assert set(train).isdisjoint(held) and len(held) >= 2 and len(train) > len(held)


@pytest.mark.parametrize(
    ("rows", "order", "code"),
    [
        ([{"text": "a"}], {"recipe": "pretrain"}, "data.too_few"),
        ([{"prompt": "x " * 90, "completion": "b"}], {}, "data.too_few"),
        ([{"prompt": "a", "completion": "b"}] * 9, {"eval_fraction": 0.1}, "data.too_few_to_hold_out"),
        ([{"promt": "a", "completion": "b"}], {}, "data.unknown_key"),
        ([{"prompt": "a", "completion": "b"}], {"recipe": "pretrain"}, "data.wrong_format"),
        ([], {}, "data.empty_file"),
    ],
)
def test_data_that_will_not_do_is_refused_with_its_reason(
    rows: list[dict[str, str]], order: dict[str, Any], code: str, tmp_path: Path, model: Path
) -> None:
    write_jsonl(tmp_path / "data" / "a.jsonl", rows)
    with pytest.raises(InvalidInput) as caught:
        run({"data": tmp_path / "data", "base": model}, tmp_path / "out", **order)
    assert caught.value.code == code and caught.value.why.next_step


def test_a_vocabulary_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="at least 258"):
        run({"data": documents(tmp_path / "d")}, tmp_path / "o", recipe="pretrain", preset="tiny-1m", vocab_size=257)


def test_neither_base_nor_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="neither a base model nor a preset"):
        run({"data": documents(tmp_path / "d")}, tmp_path / "o", recipe="pretrain")


def test_a_source_is_read_as_often_as_its_weight_says_and_never_from_the_held_out_rows(
    tmp_path: Path, model: Path
) -> None:
    pairs(tmp_path / "data" / "source-000", 30)
    others = [{"prompt": f"Other {n}?", "completion": f" Yes, {n}."} for n in range(20)]
    write_jsonl(tmp_path / "data" / "source-001" / "00001-b.jsonl", others)
    inputs = {"data": tmp_path / "data", "base": model}
    once = run(inputs, tmp_path / "1", eval_fraction=0.2)
    thrice = run(inputs, tmp_path / "2", eval_fraction=0.2, weights=(1.0, 3.0))
    assert rows_of(once.outputs["eval"]) == rows_of(thrice.outputs["eval"])
    train, held = rows_of(thrice.outputs["train"]), set(rows_of(thrice.outputs["eval"]))
    counts = {row: train.count(row) for row in train}
    assert set(counts.values()) == {1, 3} and not held & set(counts)
    assert set(counts) == set(rows_of(once.outputs["train"]))


def test_weighted_documents_are_repeated_before_they_are_packed(tmp_path: Path, model: Path) -> None:
    documents(tmp_path / "data" / "source-000", 40)
    inputs = {"data": tmp_path / "data", "base": model}
    once = run(inputs, tmp_path / "1", recipe="pretrain", eval_fraction=0.1)
    twice = run(inputs, tmp_path / "2", recipe="pretrain", eval_fraction=0.1, weights=(2.0,))
    assert 1.9 < twice.metrics["tokens"] / once.metrics["tokens"] < 2.1
    few = documents(tmp_path / "few" / "source-000", 5).parent
    with pytest.raises(InvalidInput) as caught:
        run({"data": few, "base": model}, tmp_path / "3", recipe="pretrain", eval_fraction=0.1, weights=(2.0,))
    assert caught.value.code == "data.weights_need_documents"


def test_documents_may_stay_apart_and_long_text_is_split_or_refused(tmp_path: Path, model: Path) -> None:
    data = documents(tmp_path / "data", 20)
    inputs = {"data": data, "base": model}
    apart = run(inputs, tmp_path / "1", recipe="pretrain", packing=False)
    rows = rows_of(apart.outputs["train"])
    assert apart.metrics["split_rows"] == 20 and apart.metrics["rows"] == len(rows) > 40
    assert sum(tokens[-1] == 0 for tokens, _ in rows) == 20 and len({len(tokens) for tokens, _ in rows}) > 1
    cut = run(inputs, tmp_path / "2", recipe="pretrain", packing=False, overlong="truncate")
    assert (cut.metrics["rows"], cut.metrics["truncated_rows"]) == (20, 20)
    with pytest.raises(InvalidInput) as caught:
        run(inputs, tmp_path / "3", recipe="pretrain", packing=False, overlong="refuse")
    assert caught.value.code == "data.overlong" and caught.value.why.evidence["line"] == "1"


def test_pieces_of_a_held_out_document_are_all_held_out(tmp_path: Path, model: Path) -> None:
    inputs = {"data": documents(tmp_path / "data", 20), "base": model}
    done = run(inputs, tmp_path / "1", recipe="pretrain", packing=False, eval_fraction=0.2)
    held, train = rows_of(done.outputs["eval"]), rows_of(done.outputs["train"])
    assert sum(tokens[-1] == 0 for tokens, _ in held) == 4 and sum(tokens[-1] == 0 for tokens, _ in train) == 16
    assert done.metrics["dropped_rows"] == 0


def test_the_probe_holds_rows_of_both_sides_each_once(tmp_path: Path, model: Path) -> None:
    data = pairs(tmp_path / "data")
    with (data / "a.jsonl").open("a") as file:
        file.write((data / "a.jsonl").read_text())
    done = run({"data": data, "base": model}, tmp_path / "out", eval_fraction=0.2)
    probe = read_tensors(done.outputs["probe"] / "probe.safetensors")
    sides = probe["sides"].tolist()
    assert sides == [1] * 16 + [0] * 16
    offsets, tokens = probe["offsets"].tolist(), probe["tokens"].tolist()
    rows = [tuple(tokens[begin:end]) for begin, end in itertools.pairwise(offsets)]
    train, held = ({row for row, _ in rows_of(done.outputs[side])} for side in ("train", "eval"))
    assert set(rows[:16]) <= train and set(rows[16:]) <= held and len(set(rows)) == 32


def packed_rows(folder: Path) -> list[list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """(tokens, mask) of the rows of each sequence, in stored order."""
    found: list[list[tuple[tuple[int, ...], tuple[int, ...]]]] = []
    for file in json.loads((folder / "index.json").read_text())["files"]:
        tensors = read_tensors(folder / file["name"])
        tokens, mask = tensors["tokens"].tolist(), tensors["mask"].tolist()
        borders = [*tensors["begins"].tolist(), len(tokens)]
        rows = [(begin, end) for begin, end in itertools.pairwise(borders)]
        for first, last in itertools.pairwise(tensors["offsets"].tolist()):
            these = [(begin, end) for begin, end in rows if first <= begin < last]
            assert these[0][0] == first and these[-1][1] == last
            found.append([(tuple(tokens[begin:end]), tuple(mask[begin:end])) for begin, end in these])
        assert len(tensors["offsets"]) == file["rows"] + 1
    return found


def test_packed_rows_are_the_padded_ones_laid_behind_each_other(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "ROWS_PER_FILE", 8)
    inputs = {"data": pairs(tmp_path / "data"), "base": model}
    order: dict[str, Any] = {"max_length": 64, "eval_fraction": 0.1}
    padded = run(inputs, tmp_path / "padded", **order)
    packed = run(inputs, tmp_path / "packed", packing=True, **order)
    sequences = packed_rows(packed.outputs["train"])
    assert sorted(row for rows in sequences for row in rows) == sorted(rows_of(padded.outputs["train"]))
    assert max(sum(len(tokens) for tokens, _ in rows) for rows in sequences) <= 64
    assert len(sequences) == packed.metrics["sequences"] < packed.metrics["rows"] / 2
    index = json.loads((packed.outputs["train"] / "index.json").read_text())
    assert index["rows"] == len(sequences) and len(index["files"]) > 1
    same = {"rows", "tokens", "loss_tokens", "eval_rows", "dropped_rows"}
    assert {name: packed.metrics[name] for name in same} == {name: padded.metrics[name] for name in same}
    # held-out rows are measured one by one, and what is gone on from begins where a row does
    for name in ("eval", "probe"):
        files = {path.name: path.read_bytes() for path in packed.outputs[name].iterdir()}
        assert files == {path.name: path.read_bytes() for path in padded.outputs[name].iterdir()}
    again = run(inputs, tmp_path / "again", packing=True, **order)
    assert bytes_of(packed) == bytes_of(again)
    other = run(inputs, tmp_path / "other", packing=True, seed="cd" * 32, **order)
    assert bytes_of(packed) != bytes_of(other)


def test_a_text_that_is_split_is_packed_by_its_pieces(tmp_path: Path, model: Path) -> None:
    inputs = {"data": documents(tmp_path / "data", 20), "base": model}
    padded, packed = (run(inputs, tmp_path / str(how), packing=how) for how in (False, True))
    rows = [row for rows in packed_rows(packed.outputs["train"]) for row in rows]
    assert packed.metrics["split_rows"] == 20 and sorted(rows) == sorted(rows_of(padded.outputs["train"]))


def test_a_model_from_scratch_that_goes_on_keeps_its_tokenizer(tmp_path: Path) -> None:
    order: dict[str, Any] = {"recipe": "pretrain", "preset": "tiny-1m", "vocab_size": 300}
    one = run({"data": documents(tmp_path / "data")}, tmp_path / "1", **order).outputs["skeleton"]
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / "tokenizer.json").write_bytes((one / "tokenizer.json").read_bytes())
    other = tmp_path / "other"
    write_jsonl(other / "b.jsonl", [{"text": "other words than before " * 20 + str(n)} for n in range(40)])
    kept = run({"data": other, "parent": parent}, tmp_path / "2", **order).outputs["skeleton"]
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {p.name: p.read_bytes() for p in one.iterdir()}
    fresh = run({"data": other}, tmp_path / "3", **order).outputs["skeleton"]
    assert (fresh / "tokenizer.json").read_bytes() != (one / "tokenizer.json").read_bytes()
    tokenizer = json.loads((one / "tokenizer.json").read_text())
    renamed = {**tokenizer["model"]["vocab"], "<|begin|>": 0}
    renamed.pop("<|endoftext|>")
    first = {**tokenizer["added_tokens"][0], "content": "<|begin|>"}
    changed = {**tokenizer, "model": {**tokenizer["model"], "vocab": renamed}}
    changed["added_tokens"] = [first, *tokenizer["added_tokens"][1:]]
    for number, (content, code) in enumerate(
        [(None, "continue.no_tokenizer"), (changed, "continue.other_tokenizer"), ({}, "tokenizer.bad")]
    ):
        (parent / "tokenizer.json").unlink(missing_ok=True)
        if content is not None:
            (parent / "tokenizer.json").write_text(json.dumps(content))
        with pytest.raises(InvalidInput) as caught:
            run({"data": other, "parent": parent}, tmp_path / f"bad-{number}", **order)
        assert caught.value.code == code
