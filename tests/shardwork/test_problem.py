"""What a typing slip most likely meant."""

from __future__ import annotations

import pytest

from shardwork.problem import nearest_file

FOLDER = ("bin.jsonl", "job.yaml", "train.jsonl", "valid.csv")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("trian.jsonl", "train.jsonl"),
        ("train.csv", "train.jsonl"),
        ("Train.jsonl", "train.jsonl"),
        ("vaild.csv", "valid.csv"),
        ("job.yml", "job.yaml"),
        # the ending alone is no likeness
        ("nope.jsonl", None),
        ("rows.jsonl", None),
    ],
)
def test_a_file_name_is_like_another_by_its_stem(typed: str, meant: str | None) -> None:
    assert nearest_file(typed, FOLDER) == meant
    assert nearest_file(typed, ()) is None
