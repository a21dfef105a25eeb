# pyright: standard
"""Verdicts: two tokens' probabilities at the last position, in both orders; done again, the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from shardwork.errors import Corrupt
from shardwork.recipes.alignment.answers import Verdicts, read_verdicts, write_pairs, write_verdicts
from shardwork.recipes.alignment.orders import JudgeOrder

from .. import tiny
from .stand import Stand, checked

PAIRS, A, B = 7, 40, 41


def shown() -> list[list[int]]:
    draw = np.random.default_rng(8)
    return [draw.integers(2, 60, length).tolist() for length in draw.integers(3, 20, 2 * PAIRS)]


def some_pairs(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    settings: dict[str, Any] = {"pad_token_id": 0, "first_token": A, "second_token": B, **changes}
    write_pairs(folder, shown(), [{"id": str(number)} for number in range(PAIRS)], **settings)
    return folder


def judge_order(**changes: Any) -> JudgeOrder:
    return JudgeOrder(**{"pairs": PAIRS, "max_length": 32, "batch_size": 32, **changes})


def judge(stand: Stand, of: JudgeOrder, pairs: Path) -> tuple[Path, dict[str, float]]:
    done = stand.trainer.judge(of, tiny.context(stand.folder(), base=stand.base, pairs=pairs))
    return done.outputs["verdicts"], dict(done.metrics)


def test_verdicts_are_the_models_probabilities_for_a_in_both_orders(stand: Stand, tmp_path: Path) -> None:
    pairs = some_pairs(tmp_path / "pairs")
    folder, metrics = judge(stand, judge_order(), pairs)
    _, one_by_one = judge(stand, judge_order(batch_size=1), pairs)
    model = AutoModelForCausalLM.from_pretrained(stand.base)
    rows = shown()
    for pair in range(PAIRS):
        with torch.no_grad():
            shares = [model(torch.tensor([row])).logits[0, -1].double().softmax(-1) for row in rows[2 * pair :][:2]]
        expected = {
            f"first.{pair}": float(shares[0][A] / (shares[0][A] + shares[0][B])),
            f"second.{pair}": float(shares[1][B] / (shares[1][A] + shares[1][B])),
        }
        for found in (metrics, one_by_one):
            assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    read = read_verdicts(folder, PAIRS)
    assert read.second.tolist() == [metrics[f"second.{pair}"] for pair in range(PAIRS)]
    assert metrics.keys() == {"tokens", *(f"{name}.{pair}" for name in ("first", "second") for pair in range(PAIRS))}
    assert metrics["tokens"] == sum(map(len, rows))


def test_verdicts_done_again_are_the_same_and_forged_ones_are_not(stand: Stand, tmp_path: Path) -> None:
    pairs, of, rows = some_pairs(tmp_path / "pairs"), judge_order(), (0, 3, 6)
    verdicts, claimed = judge(stand, of, pairs)
    assert stand.verdict(of, claimed, rows, pairs=pairs) == ""
    read, forged = read_verdicts(verdicts, PAIRS), tmp_path / "forged"
    forged.mkdir()
    write_verdicts(forged, Verdicts(first=1 - read.first, second=read.second))
    assert checked(of, "verdicts", verdicts, claimed) == ""
    assert checked(of, "verdicts", forged, claimed) == "check.other_numbers"
    turned = {name: 1 - value if name.startswith("first.") else value for name, value in claimed.items()}
    assert stand.verdict(of, turned, rows, pairs=pairs) == "audit.numbers_differ"


def test_hostile_pairs_are_refused(stand: Stand, tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="two tokens"):
        judge(stand, judge_order(), some_pairs(tmp_path / "foreign", second_token=10**6))
    with pytest.raises(Corrupt, match="longer"):
        judge(stand, judge_order(max_length=4), some_pairs(tmp_path / "long"))
    with pytest.raises(Corrupt, match="rows"):
        judge(stand, judge_order(pairs=6), some_pairs(tmp_path / "more"))
