"""Prompts as workers answer them: rendered, cut from the left, with their rows beside them, split without loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from shardwork.dataset import check_data
from shardwork.errors import InvalidInput
from shardwork.recipes import prepare
from shardwork.recipes.alignment.orders import PromptsOrder
from shardwork.recipes.alignment.phases.prompts import end_tokens, split
from shardwork.recipes.base import Computed
from shardwork.recipes.orders import PrepareOrder
from tests.shardwork.dataset.folders import CHAT, tokenizer_folder, turn, write_jsonl

from ..contexts import Folders, index_of, prompts_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("model"), template=CHAT)


def questions(count: int = 40) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {n} + 1?", "answer": str(n + 1), "level": {"of": [n]}} for n in range(count)]


def run(rows: list[dict[str, Any]], model: Path, folder: Path, **order: Any) -> Computed:
    write_jsonl(folder / "data" / "a.jsonl", rows)
    given: dict[str, Any] = {"recipe": "grpo", "max_length": 32, "eval_fraction": None, "seed": "ab" * 32, **order}
    context = Folders({"data": folder / "data", "base": model}, folder / "out")
    return prepare.compute("prepare", PrepareOrder(**given).canonical_json(), context)


def parts_of(rows: list[dict[str, Any]], model: Path, folder: Path, **order: Any) -> Computed:
    write_jsonl(folder / "data" / "a.jsonl", rows)
    context = Folders({"data": folder / "data", "base": model}, folder / "out")
    given: dict[str, Any] = {"parts": 3, "max_length": 32, **order}
    return split(PromptsOrder(**given), context)


def text(model: Path, tokens: list[int]) -> str:
    return Tokenizer.from_file(str(model / "tokenizer.json")).decode(tokens, skip_special_tokens=False)


def test_a_prompt_is_its_text_with_the_rows_other_keys_beside_it(tmp_path: Path, model: Path) -> None:
    done = run(questions(), model, tmp_path, recipe="ppo")
    found = prompts_of(done.outputs["train"])
    assert set(done.outputs) == {"train"} and len(found) == done.metrics["rows"] == 40
    for tokens, row in found:
        assert text(model, tokens) == row["prompt"]
        number = int(row["answer"])
        assert row["level"] == {"of": [number - 1]} and set(row) == {"id", "prompt", "answer", "level"}
    assert len({row["id"] for _, row in found}) == 40
    assert [row["answer"] for _, row in found] != sorted((row["answer"] for _, row in found), key=int)
    assert index_of(done.outputs["train"]) == {"prompts": 40, "pad_token_id": 1, "eos_token_ids": [0]}


def test_conversations_end_where_the_assistant_speaks(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": [turn("system", "Be brief."), turn("user", f"{n}, grün?")], "answer": "漢"} for n in range(5)]
    done = run(rows, model, tmp_path, max_length=99)
    for tokens, row in prompts_of(done.outputs["train"]):
        number = row["prompt"][1]["content"].partition(",")[0]
        assert text(model, tokens) == f"[system]\nBe brief.\n[user]\n{number}, grün?\n[assistant]\n"
        assert row["answer"] == "漢"


def test_text_rows_and_text_files_serve_as_prompts(tmp_path: Path, model: Path) -> None:
    write_jsonl(tmp_path / "data" / "source-000" / "a.jsonl", [{"text": "Go on:", "answer": "x"}])
    (tmp_path / "data" / "source-001").mkdir()
    (tmp_path / "data" / "source-001" / "b.txt").write_text("First one\n\nSecond\none\n")
    order = PrepareOrder(recipe="grpo", max_length=32, eval_fraction=None, seed="", weights=(1.0, 2.0))
    context = Folders({"data": tmp_path / "data", "base": model}, tmp_path / "out")
    done = prepare.compute("prepare", order.canonical_json(), context)
    found = prompts_of(done.outputs["train"])
    assert sorted(row["prompt"] for _, row in found) == [
        "First one",
        "First one",
        "Go on:",
        "Second\none",
        "Second\none",
    ]
    assert [row.get("answer") for _, row in found if row["prompt"] == "Go on:"] == ["x"]


def test_a_long_prompt_loses_its_beginning(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": "far away " * 40 + "What now?"}, {"prompt": "short"}]
    done = run(rows, model, tmp_path, max_length=16)
    long = max(prompts_of(done.outputs["train"]), key=lambda item: len(item[0]))
    assert len(long[0]) == 16 and text(model, long[0]).endswith("What now?")
    assert long[1]["prompt"] == rows[0]["prompt"] and done.metrics["truncated_rows"] == 1
    dropped = run(rows, model, tmp_path / "2", max_length=16, overlong="drop")
    assert (dropped.metrics["rows"], dropped.metrics["dropped_rows"]) == (1, 1)


def test_held_out_prompts_are_prompts_that_are_never_learnt_from(tmp_path: Path, model: Path) -> None:
    rows = questions()
    again = [row | {"answer": "other"} for row in rows[:10]]
    done = run([*rows, *again], model, tmp_path, eval_fraction=0.2)
    train = {row["prompt"] for _, row in prompts_of(done.outputs["train"])}
    held = [row["prompt"] for _, row in prompts_of(done.outputs["eval"])]
    assert len(held) == len(set(held)) == done.metrics["eval_rows"] == 10 and not train & set(held)


def test_ids_are_kept_where_they_tell_prompts_apart(tmp_path: Path, model: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "prompt_id": "p1", "id": 7},
        {"prompt": "b", "prompt_id": "p1"},
        {"prompt": "c", "prompt_id": "x" * 500},
        {"prompt": "d", "prompt_id": "two\nlines"},
        {"prompt": "e"},
    ]
    found = {row["prompt"]: row for _, row in prompts_of(run(rows, model, tmp_path).outputs["train"])}
    assert found["a"] == {"id": "p1", "prompt": "a", "row_id": 7}
    assert len({row["id"] for row in found.values()}) == 5
    assert all(len(found[name]["id"]) == 32 and set(found[name]) == {"id", "prompt"} for name in "bcde")


def test_parts_hold_every_prompt_once_in_order(tmp_path: Path, model: Path) -> None:
    done = parts_of(questions(11), model, tmp_path)
    parts = [prompts_of(done.outputs[f"part-{number}"]) for number in range(3)]
    assert [row["answer"] for part in parts for _, row in part] == [str(n + 1) for n in range(11)]
    assert [done.metrics[f"prompts.{number}"] for number in range(3)] == [len(part) for part in parts] == [4, 4, 3]
    assert done.metrics["parts"] == 3 and done.metrics["rows"] == 11


def test_there_are_no_empty_parts_and_none_that_is_too_large_for_a_shard(tmp_path: Path, model: Path) -> None:
    few = parts_of(questions(2), model, tmp_path / "few")
    assert (few.metrics["parts"], len(few.outputs)) == (2, 2)
    many = parts_of(questions(11), model, tmp_path / "many", most_rows=2)
    assert many.metrics["parts"] == 6 and max(many.metrics[f"prompts.{n}"] for n in range(6)) == 2


def test_end_tokens_come_from_the_generation_config_and_only_known_ones(tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path)
    from shardwork.dataset.tokenise import RowTokenizer

    with RowTokenizer.load(folder) as tokenizer:
        assert end_tokens(folder, tokenizer) == (0,)
        (folder / "config.json").write_text('{"eos_token_id": 5}')
        assert end_tokens(folder, tokenizer) == (5,)
        generation = {"eos_token_id": [3, 3, True, "4", -1, 10**9, 4]}
        (folder / "generation_config.json").write_text(json.dumps(generation))
        assert end_tokens(folder, tokenizer) == (3, 4)
        (folder / "generation_config.json").write_text("[" * 50_000)
        assert end_tokens(folder, tokenizer) == (5,)


#: rows after two good ones, and the code that refuses them
BAD: list[tuple[list[dict[str, Any]], str]] = [
    ([{"prompt": ""}], "data.empty_value"),
    ([{"prompt": " \n"}], "data.empty_value"),
    ([{"prompt": []}], "data.empty_value"),
    ([{"prompt": [turn("user", " ")]}], "data.empty_value"),
    ([{"prompt": [turn("user", "a"), turn("assistant", "b")]}], "data.answered_prompt"),
    ([{"prompt": 3}], "data.wrong_type"),
    ([{"prompt": None}], "data.null_value"),
    ([{"promt": "a"}], "data.unknown_key"),
    ([{"chosen": "a", "rejected": "b"}], "data.wrong_format"),
    ([{"prompt": "a"}, {"prompt": [turn("user", "a")]}], "data.mixed_formats"),
]


@pytest.mark.parametrize(("rows", "code"), BAD)
def test_prompts_without_text_are_refused_with_file_line_and_key(
    rows: list[dict[str, Any]], code: str, tmp_path: Path, model: Path
) -> None:
    first: list[dict[str, Any]] = [] if code == "data.mixed_formats" else questions(2)
    with pytest.raises(InvalidInput) as caught:
        run(first + rows, model, tmp_path)
    error = caught.value
    expected = "data.mixed_formats" if code == "data.wrong_format" else code
    assert error.code == expected and error.why.next_step and error.why.evidence["file"] == "a.jsonl"
    report = check_data([tmp_path / "data"], recipe="grpo")
    assert expected in {problem.code for problem in report.errors}


def test_a_deep_row_is_refused_and_a_large_one_is_kept(tmp_path: Path, model: Path) -> None:
    large = {"prompt": "a", "answer": "ä" * 2_000_000}
    done = run([large], model, tmp_path / "large")
    assert prompts_of(done.outputs["train"])[0][1]["answer"] == large["answer"]
    folder = tmp_path / "deep" / "data"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"prompt": "a", "answer": ' + "[" * 3000 + "]" * 3000 + "}\n")
    order = PrepareOrder(recipe="grpo", max_length=32, eval_fraction=None, seed="")
    with pytest.raises(InvalidInput) as caught:
        prepare.compute("prepare", order.canonical_json(), Folders({"data": folder, "base": model}, tmp_path / "o"))
    assert caught.value.code == "data.bad_json"


def test_the_check_keeps_prompts_though_nothing_in_them_is_learnt(tmp_path: Path, model: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", questions(12))
    for recipe in ("ppo", "generate"):
        report = check_data([path], recipe=recipe, model_folder=model)
        assert (report.written, report.rows, report.errors, report.warnings) == ("prompt", 12, (), ())
        assert report.tokens > 12 and report.loss_tokens == 0 and report.sufficiency is None
