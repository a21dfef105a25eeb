# pyright: standard
"""Reading prepared rows and laying them side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shardwork.errors import Corrupt, InvalidInput
from shardwork.tensors.file import write_tensors
from shardwork_worker.training.batches import IGNORE, RowFile, TrainRows, collate, eval_rows

from . import tiny

CPU = torch.device("cpu")


def test_every_row_is_found_in_its_file(train: Path) -> None:
    rows = TrainRows(train, 64, tiny.VOCABULARY)
    expected = tiny.rows(45)
    assert len(rows) == 45
    for number in (0, 7, 8, 44, 45, 90 + 3):
        assert rows.row(number).tokens.tolist() == expected[number % 45].tokens


def test_only_files_with_asked_for_rows_are_opened(tmp_path: Path) -> None:
    folder = tiny.write_train(tmp_path / "train", tiny.rows(10), rows_per_file=4)
    (folder / "rows-00000.safetensors").unlink()
    rows = TrainRows(folder, 64, tiny.VOCABULARY)
    assert len(rows.row(9).tokens) > 0
    with pytest.raises(Corrupt) as caught:
        rows.row(3)
    assert caught.value.code == "rows.unreadable"


def test_labels_are_the_masked_tokens_and_never_the_first(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "rows.safetensors", [tiny.PreparedRow([5, 6, 7, 8], [1, 1, 0, 1])])
    row = RowFile(tmp_path / "rows.safetensors", 64, 300).row(0)
    assert row.labels.tolist() == [IGNORE, 6, IGNORE, 8]
    assert row.label_count == 2


def test_a_row_is_cut_at_max_length(train: Path) -> None:
    assert max(len(TrainRows(train, 9, tiny.VOCABULARY).row(number).tokens) for number in range(45)) == 9


def test_padding_is_on_the_right_neither_seen_nor_predicted(tmp_path: Path) -> None:
    these = [tiny.PreparedRow([5, 6, 7], [1, 1, 1]), tiny.PreparedRow([8], [1])]
    tiny.write_rows(tmp_path / "rows.safetensors", these)
    file = RowFile(tmp_path / "rows.safetensors", 64, 300)
    batch = collate([file.row(0), file.row(1)], 2, CPU)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 2, 2]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [[IGNORE, 6, 7], [IGNORE, IGNORE, IGNORE]]


@pytest.mark.parametrize("token", [-1, 300])
def test_a_token_outside_the_vocabulary_is_refused(token: int, tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "rows.safetensors", [tiny.PreparedRow([5, token], [1, 1])])
    with pytest.raises(Corrupt) as caught:
        RowFile(tmp_path / "rows.safetensors", 64, 300).row(0)
    assert caught.value.code == "rows.token_out_of_range"


@pytest.mark.parametrize("offsets", [[], [0, 9], [0, 3, 2], [-1, 2]])
def test_offsets_that_do_not_fit_are_refused(offsets: list[int], tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "tokens": np.ones(3, np.int32),
        "mask": np.ones(3, np.uint8),
        "offsets": np.array(offsets, dtype=np.int64),
    }
    write_tensors(tmp_path / "rows.safetensors", tensors)
    with pytest.raises(Corrupt) as caught:
        RowFile(tmp_path / "rows.safetensors", 64, 300)
    assert caught.value.code == "rows.unreadable"


def test_an_index_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    folder = tiny.write_train(tmp_path / "train", tiny.rows(2), rows_per_file=4)
    (folder / "rows-00000.safetensors").rename(tmp_path / "rows-00000.safetensors")
    index = json.loads((folder / "index.json").read_text())
    index["files"][0]["name"] = "../rows-00000.safetensors"
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(Corrupt):
        TrainRows(folder, 64, tiny.VOCABULARY).row(0)


def test_training_on_no_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        TrainRows(tiny.write_train(tmp_path / "train", [], rows_per_file=4), 64, tiny.VOCABULARY)
    assert caught.value.code == "rows.none"


def test_held_out_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    rows = [tiny.PreparedRow([5, 6], [0, 0]), tiny.PreparedRow([5, 6], [0, 1])]
    folder = tiny.write_eval(tmp_path / "eval", [], rows)
    assert len(eval_rows(folder, "test", 64, 300)) == 1


@pytest.mark.parametrize(
    ("index", "code"),
    [
        ("[]", "rows.no_index"),
        ("[1]", "rows.no_index"),
        ("{}", "rows.no_index"),
        ('{"files": [{"name": "rows-00000.safetensors"}]}', "rows.no_index"),
        ('{"files": [{"name": "rows-00000.safetensors", "rows": 50}]}', "rows.unreadable"),
        ('{"files": [{"name": "rows-00000.safetensors", "rows": 2}]}', "rows.unreadable"),
    ],
)
def test_an_index_that_does_not_fit_its_files_is_refused(index: str, code: str, tmp_path: Path) -> None:
    folder = tiny.write_train(tmp_path / "train", tiny.rows(3), rows_per_file=8)
    (folder / "index.json").write_text(index)
    with pytest.raises(Corrupt) as caught:
        TrainRows(folder, 64, tiny.VOCABULARY).row(1)
    assert caught.value.code == code


@pytest.mark.parametrize("named", [-1, tiny.VOCABULARY, 10**9, "x"])
def test_a_padding_token_that_the_model_lacks_is_replaced(named: object, tmp_path: Path) -> None:
    """A tokenizer may have been given one without the model growing a row for it."""
    folder = tiny.write_train(tmp_path / "train", tiny.rows(3), rows_per_file=8)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "pad_token_id": named}))
    assert TrainRows(folder, 64, tiny.VOCABULARY).pad_token_id == 0
