"""Grading: each answer is held against its own prompt's row; what strangers wrote is refused where it can't be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from shardwork.errors import Corrupt, InvalidInput
from shardwork.recipes import prepare
from shardwork.recipes.alignment.answers import Answers, flat, read_scores, write_answers
from shardwork.recipes.alignment.orders import GenerateOrder, GradeOrder, Sampling
from shardwork.recipes.alignment.phases.grading import grade
from shardwork.recipes.orders import PrepareOrder
from tests.shardwork.dataset.folders import tokenizer_folder, write_jsonl

from ..contexts import Folders, json_lines

MOST = 40


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[str, Path]:
    """Prompts to learn from and held-out ones, prepared."""
    folder = tmp_path_factory.mktemp("prompts")
    write_jsonl(folder / "data" / "a.jsonl", [{"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(12)])
    order = PrepareOrder(recipe="grpo", max_length=32, eval_fraction=0.2, seed="ab" * 32, row_keys=("answer",))
    context = Folders({"data": folder / "data", "base": model}, folder / "out")
    done = prepare.compute("prepare", order.canonical_json(), context)
    return {"prompts": done.outputs["train"], "eval": done.outputs["eval"]}


def drawn(folder: Path, model: Path, texts: Sequence[str]) -> Path:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokens, offsets = flat([[*tokenizer.encode(text).ids, 0] for text in texts])
    folder.mkdir(parents=True)
    ended = np.ones(len(texts), np.uint8)
    write_answers(
        folder, Answers(tokens=tokens, offsets=offsets, logprobs=np.zeros(len(tokens), np.float32), ended=ended)
    )
    return folder


def asked(prompts: int, answers: int, first: int = 0) -> GenerateOrder:
    return GenerateOrder(
        tuning=None,
        first_prompt=first,
        prompts=prompts,
        answers=answers,
        sampling=Sampling(max_new_tokens=MOST),
        max_length=32,
        batch_size=4,
    )


def order(*of: GenerateOrder, **more: Any) -> GradeOrder:
    given: dict[str, Any] = {"rewards": (("exact", 1.0),), "of": of, "numbers": tuple(range(len(of))), **more}
    return GradeOrder(**given)


def test_answers_are_graded_by_the_row_of_their_prompt(tmp_path: Path, model: Path, sides: dict[str, Path]) -> None:
    rows, held = (json_lines(sides[name] / "rows.jsonl") for name in ("prompts", "eval"))
    right = [str(row["answer"]) for row in rows]
    first = [right[9 % len(rows)], "no", right[10 % len(rows)], right[10 % len(rows)]]  # modulo their number
    inputs = {
        **sides,
        "base": model,
        "answers-0": drawn(tmp_path / "a0", model, first),
        "answers-3": drawn(tmp_path / "a3", model, [held[0]["answer"], "wrong"]),
    }
    done = grade(order(asked(2, 2, 9), asked(2, 1), numbers=(0, 3), trial=3), Folders(inputs, tmp_path / "out"))
    assert read_scores(done.outputs["scores-0"], 4).tolist() == [1, 0, 1, 1]
    assert read_scores(done.outputs["scores-3"], 2).tolist() == [1, 0]
    assert (done.metrics["reward.0"], done.metrics["rows.0"], done.metrics["deviation.0"]) == (0.75, 4, 0.5)
    assert done.metrics["reward.3"] == 0.5


def test_the_end_token_is_no_part_of_an_answer(tmp_path: Path, model: Path, sides: dict[str, Path]) -> None:
    inputs = {**sides, "base": model, "answers-0": drawn(tmp_path / "a", model, ["a b", ""])}
    settings = json.dumps({"length": {"most": 1, "unit": "tokens"}})
    done = grade(order(asked(1, 2), rewards=(("length", 1.0),), settings=settings), Folders(inputs, tmp_path / "out"))
    tokens = len(Tokenizer.from_file(str(model / "tokenizer.json")).encode("a b").ids)
    assert read_scores(done.outputs["scores-0"], 2).tolist() == [max(0.0, 2.0 - tokens), 1.0]


def test_a_row_without_its_solution_is_named(tmp_path: Path, model: Path, sides: dict[str, Path]) -> None:
    inputs = {**sides, "base": model, "answers-0": drawn(tmp_path / "a", model, ["a"])}
    settings = json.dumps({"exact": {"key": "gold"}})
    with pytest.raises(InvalidInput) as caught:
        grade(order(asked(1, 1), settings=settings), Folders(inputs, tmp_path / "out"))
    assert caught.value.code == "rewards.no_solution" and "gold" in caught.value.why.sentence


def test_the_missing_key_is_told_before_anything_is_paid(tmp_path: Path, model: Path) -> None:
    write_jsonl(tmp_path / "data" / "a.jsonl", [{"prompt": "a", "answer": "b"}, {"prompt": "c"}])
    told = PrepareOrder(recipe="grpo", max_length=32, eval_fraction=None, seed="", row_keys=("answer",))
    with pytest.raises(InvalidInput) as caught:
        prepare.compute("prepare", told.canonical_json(), Folders({"data": tmp_path / "data", "base": model}, tmp_path))
    assert (caught.value.code, caught.value.why.evidence["line"]) == ("data.missing_key", "2")


def test_answers_of_another_order_are_refused(tmp_path: Path, model: Path, sides: dict[str, Path]) -> None:
    inputs = {**sides, "base": model, "answers-0": drawn(tmp_path / "a", model, ["a", "b", "c"])}
    with pytest.raises(Corrupt):
        grade(order(asked(2, 1)), Folders(inputs, tmp_path / "out"))
