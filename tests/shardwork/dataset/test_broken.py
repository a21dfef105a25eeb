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


def test_orders_of_prepare_bound_their_weights() -> None:
    with pytest.raises(ValueError, match="weights"):
        PrepareOrder(recipe="sft", max_length=8, eval_fraction=None, seed="", weights=(0.0,))
