# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Scores: the reward model's number at the last token, whatever lies beside it; done again, the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from shardwork.errors import Corrupt, InvalidInput
from shardwork.recipes.alignment.answers import read_scores, write_scores
from shardwork.recipes.alignment.orders import ScoreOrder

from .. import tiny
from .stand import Stand, checked, order

OF = order()


def reward_base(folder: Path, kind: str, labels: int = 1) -> Path:
    """As recipe reward publishes it."""
    tiny.write_skeleton(folder, kind, initializer_range=0.3, num_labels=labels)
    torch.manual_seed(11)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    model.save_pretrained(folder)
    return folder


def score_order(**changes: Any) -> ScoreOrder:
    return ScoreOrder(**{"of": OF, "max_length": 40, "batch_size": 32, **changes})


def score(stand: Stand, base: Path, of: ScoreOrder, answers: Path) -> tuple[Path, dict[str, float]]:
    context = tiny.context(stand.folder(), base=base, prompts=stand.prompts, answers=answers)
    done = stand.trainer.score(of, context)
    return done.outputs["scores"], dict(done.metrics)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_a_score_is_the_models_number_at_the_last_token(kind: str, stand: Stand, tmp_path: Path) -> None:
    base = reward_base(tmp_path / "reward", kind)
    answers, _ = stand.generate(OF)
    read, asked = stand.read(OF, answers), stand.asked()
    folder, metrics = score(stand, base, score_order(), answers)
    _, one_by_one = score(stand, base, score_order(batch_size=1), answers)
    model: Any = AutoModelForSequenceClassification.from_pretrained(base)
    for row in range(OF.rows):
        ids = torch.from_numpy(np.concatenate([asked.of_row(OF, row), read.answer(row)]).astype(np.int64))
        with torch.no_grad():
            hidden = getattr(model, model.base_model_prefix)(input_ids=ids.unsqueeze(0)).last_hidden_state
            expected = float(model.score(hidden)[0, -1, 0])
        assert metrics[f"score.{row}"] == pytest.approx(expected, abs=1e-4)
        assert one_by_one[f"score.{row}"] == pytest.approx(expected, abs=1e-4)
    assert [metrics[f"score.{row}"] for row in range(OF.rows)] == read_scores(folder, OF.rows).tolist()
    assert metrics.keys() == {f"score.{row}" for row in range(OF.rows)}


def test_scores_done_again_are_the_same_and_forged_ones_are_not(stand: Stand, tmp_path: Path) -> None:
    base = reward_base(tmp_path / "reward", "llama")
    answers, _ = stand.generate(OF)
    of, rows = score_order(), (1, 4, 17)
    scores, claimed = score(stand, base, of, answers)
    inputs = {"base": base, "answers": answers}
    assert stand.audit(of, rows, **inputs) == pytest.approx(
        {f"score.{row}": claimed[f"score.{row}"] for row in rows}, abs=1e-5
    )
    assert stand.verdict(of, claimed, rows, **inputs) == ""
    # told high: the numbers that are told, which only the file of the same numbers goes with
    high = {name: value + 1 for name, value in claimed.items()}
    assert stand.verdict(of, high, rows, **inputs) == "audit.numbers_differ"
    forged = stand.folder()
    forged.mkdir()
    write_scores(forged, read_scores(scores, OF.rows) + np.float32(1))
    assert checked(of, "scores", scores, claimed) == checked(of, "scores", forged, high) == ""
    assert checked(of, "scores", forged, claimed) == checked(of, "scores", scores, high) == "check.other_numbers"


def test_a_language_model_and_a_classifier_are_no_reward_models(stand: Stand, tmp_path: Path) -> None:
    answers, _ = stand.generate(OF)
    with pytest.raises(InvalidInput, match="has no score"):
        score(stand, stand.base, score_order(), answers)
    with pytest.raises(InvalidInput, match="not one score"):
        score(stand, reward_base(tmp_path / "three", "llama", labels=3), score_order(), answers)


def test_a_hostile_reward_model_is_refused(stand: Stand, tmp_path: Path) -> None:
    answers, _ = stand.generate(OF)
    base = reward_base(tmp_path / "reward", "llama")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Evil"}}))
    with pytest.raises(InvalidInput):
        score(stand, base, score_order(), answers)


def test_answers_that_are_none_of_the_order_are_not_scored(stand: Stand, tmp_path: Path) -> None:
    base = reward_base(tmp_path / "reward", "llama")
    answers, _ = stand.generate(OF)
    broken = tmp_path / "broken"
    shutil.copytree(answers, broken)
    (broken / "answers.safetensors").write_bytes((answers / "answers.safetensors").read_bytes()[:-4])
    with pytest.raises(Corrupt, match="answers"):
        score(stand, base, score_order(), broken)
