"""Which rows share a sequence, what padding would waste, and that the check counts what prepare writes."""

# pyright: standard

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from shardwork.dataset import CheckOptions, check_data
from shardwork.dataset.lengths import Layout, Overlong, RowLengths, layout, longest_of, measured, pack
from shardwork.errors import InvalidInput
from shardwork.models.architectures import CAUSAL_LM, PACKABLE
from shardwork.recipes import measure
from shardwork.recipes.orders import Method, PrepareOrder, Tuning
from tests.client.tiny_model import write_model
from tests.shardwork.recipes.test_prepare import run

from .folders import tokenizer_folder, write_jsonl


def lengths(seed: int, count: int, most: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.randint(1, most) for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_every_row_is_in_one_sequence_that_fits_and_few_are_needed(seed: int) -> None:
    room = random.Random(seed).randint(2, 200)
    rows = lengths(seed, 300, room)
    sequences = pack(rows, room)
    assert sorted(position for sequence in sequences for position in sequence) == list(range(300))
    sizes = [sum(rows[position] for position in sequence) for sequence in sequences]
    assert max(sizes) <= room
    assert len(sequences) <= 11 / 9 * max(-(-sum(rows) // room), sum(2 * row > room for row in rows)) + 1
    assert sequences == pack(rows, room)


def test_the_fullest_sequence_that_has_room_is_taken() -> None:
    assert pack([3, 7, 5, 2, 3], 10) == [[1, 0], [2, 4, 3]]
    assert pack([4, 4, 4], 4) == [[0], [1], [2]]
    assert pack([], 8) == []


@pytest.mark.parametrize(
    ("packing", "recipe", "expected"),
    [
        ("auto", "sft", Layout.PADDED),
        ("auto", "pretrain", Layout.JOINED),
        (True, "sft", Layout.PACKED),
        (True, "pretrain", Layout.JOINED),
        (False, "sft", Layout.PADDED),
        (False, "pretrain", Layout.PADDED),
        ("auto", "", Layout.PADDED),
    ],
)
def test_what_packing_means_for_a_recipe(packing: bool | str, recipe: str, expected: Layout) -> None:
    assert layout(packing, recipe) is expected


def test_the_longest_of_a_batch_is_what_drawing_many_batches_gives() -> None:
    rows, chance = lengths(3, 500, 60), random.Random(4)
    drawn = [max(chance.choices(rows, k=8)) for _ in range(20_000)]
    assert longest_of(rows, 8) == pytest.approx(sum(drawn) / len(drawn), rel=0.01)
    assert longest_of(rows, 1) == pytest.approx(sum(rows) / len(rows))


def test_a_pass_reads_a_row_as_often_as_its_weight_and_the_pieces_of_a_split_one() -> None:
    kept = RowLengths()
    kept.add([3], 1)
    kept.add([8, 8, 2], 2)
    kept.add([5], 0)
    assert kept.read([0, 1, 2]) == [3, 8, 8, 2, 8, 8, 2]
    assert kept.read([0, 2]) == [3]
    assert measured(Layout.PADDED, [], 8, 4) is None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("model"))


def pairs(folder: Path, count: int) -> Path:
    chance = random.Random(7)
    rows = [{"prompt": f"Number {n}?", "completion": " yes" * chance.randint(1, 20)} for n in range(count)]
    return write_jsonl(folder / "a.jsonl", rows)


@pytest.mark.parametrize("changes", [{}, {"eval_fraction": 0.1}, {"overlong": Overlong.DROP}])
def test_the_check_counts_the_sequences_that_prepare_writes(
    changes: dict[str, Any], tmp_path: Path, model: Path
) -> None:
    data = pairs(tmp_path / "data", 120)
    report = check_data(
        [data],
        recipe="sft",
        model_folder=model,
        max_length=32,
        options=CheckOptions(packing=True, **changes),
    )
    assert not report.errors and report.packing is not None
    done = run({"data": data.parent, "base": model}, tmp_path / "out", packing=True, **changes)
    found = report.packing
    assert (found.rows, found.tokens) == (done.metrics["rows"], done.metrics["tokens"])
    assert found.sequences == done.metrics["sequences"] < found.rows
    assert found.padded_tokens > found.tokens and 0 < found.gap < found.padding < 1
    shown = report.to_json()["packing"]
    assert shown == json.loads(json.dumps(shown)) and isinstance(shown, dict) and shown["layout"] == "packed"


def test_padded_rows_are_told_what_packing_would_save_and_joined_ones_nothing(tmp_path: Path, model: Path) -> None:
    data = pairs(tmp_path / "data", 40)
    padded = check_data([data], recipe="sft", model_folder=model, max_length=64)
    assert padded.packing is not None and padded.packing.layout is Layout.PADDED
    assert padded.packing.rows_a_sequence > 1
    assert check_data([data], recipe="sft", max_length=64).packing is None  # tokens are not known yet
    write_jsonl(tmp_path / "texts.jsonl", [{"text": "word " * 30}] * 20)
    joined = check_data([tmp_path / "texts.jsonl"], recipe="pretrain", model_folder=model, max_length=32)
    assert joined.packing is None


def test_too_few_sequences_are_too_few_and_passes_count_them(tmp_path: Path, model: Path) -> None:
    data = pairs(tmp_path / "data", 60)

    def report(**options: Any) -> Any:
        options = {"packing": True, **options}
        return check_data([data], recipe="sft", model_folder=model, max_length=256, options=CheckOptions(**options))

    sequences = report().packing.sequences
    assert report(min_rows=sequences).errors == ()
    (error,) = report(min_rows=sequences + 1).errors
    assert error.code == "data.too_few" and f"{sequences} rows of 256 tokens" in error.sentence
    told = [reason.sentence for reason in report(planned_rows=8 * sequences).sufficiency.reasons]
    assert any("reads the data 8.0 times" in sentence for sentence in told)


def test_a_family_that_was_not_tried_is_refused_before_anything_is_prepared(tmp_path: Path) -> None:
    assert set(CAUSAL_LM) > PACKABLE
    base = write_model(tmp_path / "base")
    order = PrepareOrder(
        recipe="sft", max_length=32, eval_fraction=None, seed="", tuning=Tuning(method=Method.FULL), packing=True
    )
    assert measure.counted(order, base)["run_params"] > 0
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "opt", "architectures": ["OPTForCausalLM"]}))
    with pytest.raises(InvalidInput) as caught:
        measure.counted(order, base)
    assert caught.value.code == "packing.family" and caught.value.why.evidence["key"] == "params.packing"
    assert measure.counted(order.model_copy(update={"packing": False}), base)["run_params"] > 0
