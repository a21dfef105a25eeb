"""Broken files: each is named by file, line, key and code, with advice that mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardwork.dataset import Source, Verdict, check_data, raise_errors
from shardwork.errors import InvalidInput
from shardwork.recipes.orders import PrepareOrder

from .broken import BROKEN


def test_there_are_at_least_sixty_of_them() -> None:
    assert len(BROKEN) >= 60
    assert len({one.code for one in BROKEN.values()}) >= 15


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_by_file_line_key_and_code(name: str, tmp_path: Path) -> None:
    one = BROKEN[name]
    path = one.write(tmp_path)
    source = Source(files=(path,), name=str(path), mapping=one.mapping, format=one.format)
    report = check_data([source], recipe="sft")
    problem = report.errors[0]
    assert (problem.code, problem.line, problem.key) == (one.code, one.line, one.key)
    assert problem.file == str(path) and problem.fix and problem.sentence.endswith(".")
    assert one.advice in problem.fix
    assert report.verdict is Verdict.ERRORS and report.sufficiency is None
    with pytest.raises(InvalidInput) as caught:
        raise_errors(report)
    assert caught.value.code == one.code


def test_a_row_of_a_list_that_stands_on_one_line_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, told in (
        ('[{"text": "a"}, {"txt": "b"}, {"text": 3}]', ("(row 2 of the list).", "(row 3 of the list).")),
        ('[\n{"text": 3},\n{"txt": "b"}\n]', ("number.", "'txt'.")),
    ):
        path.write_text(text)
        first, second = check_data([path], recipe=None).errors
        found = sorted((first, second), key=lambda problem: problem.key, reverse=text.startswith("[{"))
        assert found[0].sentence.endswith(told[0]) and found[1].sentence.endswith(told[1])


def test_orders_of_prepare_bound_their_weights() -> None:
    with pytest.raises(ValueError, match="weights"):
        PrepareOrder(recipe="sft", max_length=8, eval_fraction=None, seed="", weights=(0.0,))
