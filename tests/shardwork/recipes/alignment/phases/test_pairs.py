"""Judged answers for reward and dpo: pairs stay together, are cut alike, and keep what they are worth."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from shardwork.dataset import CheckOptions, check_data
from shardwork.errors import InvalidInput
from shardwork.recipes import prepare
from shardwork.recipes.base import Computed
from shardwork.recipes.orders import PrepareOrder
from tests.shardwork.dataset.folders import CHAT, tokenizer_folder, turn, write_jsonl

from ..contexts import Folders, Row, index_of, items_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("model"), template=CHAT)


def choices(count: int = 40, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"Number {n}?", "chosen": f" It is {n}.", "rejected": f" No {n}!", **more} for n in range(count)]


def run(rows: list[dict[str, Any]], model: Path, folder: Path, **order: Any) -> Computed:
    write_jsonl(folder / "data" / "a.jsonl", rows)
    inputs = {"data": folder / "data", "base": model}
    if "held" in order:
        write_jsonl(folder / "held" / "a.jsonl", order.pop("held"))
        inputs["eval_data"] = folder / "held"
    given: dict[str, Any] = {"recipe": "reward", "max_length": 48, "eval_fraction": None, "seed": "ab" * 32, **order}
    context = Folders(inputs, folder / "out")
    computed = prepare.compute("prepare", PrepareOrder(**given).canonical_json(), context)
    assert context.fractions[-1] == 1.0 and context.fractions == sorted(context.fractions)
    return computed


def text(model: Path, row: Row, side: int) -> str:
    """What the model reads (side 0: the prompt, 1: the labels)."""
    tokens = [token for token, counts in zip(*row, strict=True) if counts == side]
    return Tokenizer.from_file(str(model / "tokenizer.json")).decode(tokens, skip_special_tokens=False)


def refused(rows: list[dict[str, Any]], model: Path, folder: Path, **order: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        run(rows, model, folder, **order)
    assert caught.value.why.next_step
    return caught.value


def test_a_pair_is_the_prompt_with_each_answer_and_only_the_answers_count(tmp_path: Path, model: Path) -> None:
    done = run(choices(), model, tmp_path, recipe="dpo")
    items = items_of(done.outputs["train"])
    assert set(done.outputs) == {"train"} and len(items) == done.metrics["rows"] == 40
    seen: set[str] = set()
    for (chosen, rejected), value in items:
        prompt = text(model, chosen, 0)
        number = prompt.removeprefix("Number ").removesuffix("?")
        assert prompt == text(model, rejected, 0) and value == 1.0
        assert text(model, chosen, 1) == f" It is {number}.<|endoftext|>"
        assert text(model, rejected, 1) == f" No {number}!<|endoftext|>"
        seen.add(number)
    assert seen == {str(n) for n in range(40)}
    index = index_of(done.outputs["train"])
    assert (index["rows_per_item"], index["rows"], index["format"]) == (2, 80, "pairs")
    assert done.metrics["tokens"] == sum(len(row[0]) for rows, _ in items for row in rows)


def test_no_pair_is_torn_apart_or_learnt_while_it_is_held_out(tmp_path: Path, model: Path) -> None:
    rows = choices()
    done = run([*rows, *rows[:7]], model, tmp_path, eval_fraction=0.2)
    train, held = items_of(done.outputs["train"]), items_of(done.outputs["eval"])
    for (chosen, rejected), _ in [*train, *held]:
        assert text(model, chosen, 0) == text(model, rejected, 0) and "It is" in text(model, chosen, 1)
    learnt, kept = ({tuple(rows[0][0]) for rows, _ in side} for side in (train, held))
    assert not learnt & kept
    assert len(held) == done.metrics["eval_rows"] == 9
    assert len(train) + len(held) + done.metrics["dropped_rows"] == 47
    names = index_of(done.outputs["eval"])["files"]
    assert [(file["name"], file["rows"]) for file in names] == [("selection.safetensors", 8), ("test.safetensors", 10)]


@pytest.mark.parametrize("recipe, rows_are", [("reward", ""), ("dpo", ""), ("dpo", "labelled")])
def test_no_prompt_is_learnt_from_while_it_is_held_out(recipe: str, rows_are: str, tmp_path: Path, model: Path) -> None:
    rows = [
        {"prompt": f"Number {n}?", "chosen": f" It is {n}, {each}.", "rejected": f" No {n}, {each}!"}
        for n in range(20)
        for each in "abcd"
    ]
    done = run(rows, model, tmp_path, recipe=recipe, rows_are=rows_are, eval_fraction=0.1)
    learnt, held = ({text(model, rows[0], 0) for rows, _ in items_of(done.outputs[side])} for side in ("train", "eval"))
    assert learnt.isdisjoint(held) and len(held) == 2 and len(learnt) == 18
    report = check_data(
        [tmp_path / "data"],
        recipe=recipe,
        model_folder=model,
        max_length=48,
        options=CheckOptions(eval_fraction=0.1),
    )
    assert report.eval_rows * (2 if rows_are else 1) == done.metrics["eval_rows"]


def test_pairs_on_a_single_prompt_are_held_out_all_the_same(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": "Number?", "chosen": f" It is {n}.", "rejected": f" No {n}!"} for n in range(40)]
    done = run(rows, model, tmp_path, eval_fraction=0.1)
    assert (done.metrics["eval_rows"], done.metrics["rows"]) == (4, 36)


def test_conversations_without_a_prompt_go_by_what_both_begin_with(tmp_path: Path, model: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "chosen": [turn("user", f"Number {n}?"), turn("assistant", f"It is {n}, {each}.")],
            "rejected": [turn("user", f"Number {n}?"), turn("assistant", f"No {n}, {each}!")],
        }
        for n in range(12)
        for each in "abc"
    ]
    done = run(rows, model, tmp_path, eval_fraction=0.1)
    learnt, held = ({text(model, rows[0], 0) for rows, _ in items_of(done.outputs[side])} for side in ("train", "eval"))
    assert learnt.isdisjoint(held) and len(held) == 1


def test_the_same_pairs_and_seed_give_the_same_bytes_in_another_order(tmp_path: Path, model: Path) -> None:
    def bytes_of(name: str, **order: Any) -> list[str]:
        done = run(choices(), model, tmp_path / name, eval_fraction=0.1, **order)
        files = sorted(path for folder in done.outputs.values() for path in folder.iterdir())
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]

    assert bytes_of("1") == bytes_of("2") != bytes_of("3", seed="cd" * 32)
    order = [text(model, rows[0], 0) for rows, _ in items_of(tmp_path / "1" / "out" / "train")]
    assert order != sorted(order)


def test_a_long_pair_loses_the_start_of_its_prompt_and_both_answers_follow_the_same_one(
    tmp_path: Path, model: Path
) -> None:
    long_prompt = {"prompt": "far away " * 30 + "What is near?", "chosen": " a", "rejected": " b"}
    long_answer = {"prompt": "far away " * 30 + "Say it.", "chosen": " river" * 60, "rejected": " b"}
    done = run([long_prompt, long_answer], model, tmp_path, max_length=32)
    assert (done.metrics["rows"], done.metrics["truncated_rows"], done.metrics["dropped_rows"]) == (2, 2, 0)
    for (chosen, rejected), _ in items_of(done.outputs["train"]):
        assert max(len(chosen[0]), len(rejected[0])) == 32
        assert text(model, chosen, 0) == text(model, rejected, 0)
        if "near?" in text(model, chosen, 0):
            assert text(model, chosen, 1) == " a<|endoftext|>"
        else:
            assert text(model, chosen, 0).endswith("Say it.") and sum(chosen[1]) == 16  # half of the room each


def test_a_pair_that_becomes_equal_by_cutting_is_left_out_and_counted(tmp_path: Path, model: Path) -> None:
    same = {"prompt": "p", "chosen": " word" * 90 + " yes", "rejected": " word" * 90 + " no"}
    done = run([*choices(5), same], model, tmp_path)
    assert (done.metrics["rows"], done.metrics["equal_pairs"], done.metrics["dropped_rows"]) == (5, 1, 1)
    dropped = run([*choices(5), same], model, tmp_path / "drop", overlong="drop")
    assert (dropped.metrics["rows"], dropped.metrics["equal_pairs"], dropped.metrics["dropped_rows"]) == (5, 0, 1)
    error = refused([*choices(5), same], model, tmp_path / "refuse", overlong="refuse")
    assert error.code == "data.overlong" and error.why.evidence["line"] == "6"


def test_conversations_are_rendered_and_confidence_is_the_value(tmp_path: Path, model: Path) -> None:
    asked = [turn("user", "Why, grün?")]
    told = [
        {"prompt": asked, "chosen": [turn("assistant", "Because.")], "rejected": [turn("assistant", "漢")]},
        {"chosen": [*asked, turn("assistant", "So.")], "rejected": [*asked, turn("assistant", "No.")]},
    ]
    done = run([told[0] | {"confidence": 0.75, "votes": 3, "prompt_id": "p"}, told[1]], model, tmp_path)
    items = items_of(done.outputs["train"])
    assert sorted(value for _, value in items) == [0.75, 1.0]
    for rows, _ in items:
        assert {text(model, row, 0) for row in rows} == {"[user]\nWhy, grün?\n[assistant]\n"}
    assert sorted(text(model, rows[0], 1) for rows, _ in items) == ["Because.<|endoftext|>\n", "So.<|endoftext|>\n"]


def test_labelled_and_scored_answers_are_single_rows_with_their_value(tmp_path: Path, model: Path) -> None:
    labelled = [{"prompt": f"{n}?", "completion": f" {n}", "label": n % 2 == 0} for n in range(10)]
    done = run(labelled, model, tmp_path / "1", recipe="dpo", rows_are="labelled", eval_fraction=0.2)
    items = [*items_of(done.outputs["train"]), *items_of(done.outputs["eval"])]
    assert {(int(text(model, rows[0], 0)[:-1]) % 2 == 0, value) for rows, value in items} == {(True, 1.0), (False, 0.0)}
    scored = [{"prompt": f"{n}?", "completion": f" {n}", "score": n / 4} for n in range(10)]
    done = run(scored, model, tmp_path / "2", rows_are="scored")
    assert {(text(model, rows[0], 0), value) for rows, value in items_of(done.outputs["train"])} == {
        (f"{n}?", n / 4) for n in range(10)
    }
    assert index_of(done.outputs["train"])["rows_per_item"] == 1


def test_pairs_may_be_read_as_labelled_answers(tmp_path: Path, model: Path) -> None:
    done = run(choices(10), model, tmp_path, recipe="dpo", rows_are="labelled")
    items = items_of(done.outputs["train"])
    assert len(items) == done.metrics["rows"] == 20
    assert {("It is" in text(model, rows[0], 1), value) for rows, value in items} == {(True, 1.0), (False, 0.0)}


def test_a_weight_repeats_whole_pairs(tmp_path: Path, model: Path) -> None:
    write_jsonl(tmp_path / "data" / "source-000" / "a.jsonl", choices(6))
    other = [row | {"prompt": "Other?"} for row in choices(4)]
    write_jsonl(tmp_path / "data" / "source-001" / "b.jsonl", other)
    order = PrepareOrder(recipe="reward", max_length=48, eval_fraction=None, seed="ab" * 32, weights=(1.0, 3.0))
    context = Folders({"data": tmp_path / "data", "base": model}, tmp_path / "out")
    done = prepare.compute("prepare", order.canonical_json(), context)
    prompts = [text(model, rows[0], 0) for rows, _ in items_of(done.outputs["train"])]
    assert len(prompts) == 18 and prompts.count("Other?") == 12
    assert all(text(model, rows[1], 1).startswith(" No") for rows, _ in items_of(done.outputs["train"]))


@pytest.mark.parametrize(
    ("rows", "order", "code"),
    [
        ([{"prompt": "a", "completion": "b"}], {}, "data.wrong_format"),
        ([{"prompt": "a", "chosen": "b"}], {}, "data.missing_key"),
        ([{"prompt": "a"}], {"recipe": "dpo"}, "data.missing_key"),
        ([{"prompt": "a", "chosen": "b", "rejected": "b"}], {}, "data.no_preference"),
        ([{"prompt": "a", "completion": "b", "label": 1}], {"recipe": "dpo"}, "data.wrong_type"),
        ([{"prompt": "a", "completion": "b", "score": "high"}], {}, "data.wrong_type"),
        ([{"prompt": "a", "completion": "b", "score": float("nan")}], {}, "data.bad_value"),
        ([{"prompt": "a", "completion": "b", "score": 10**400}], {}, "data.bad_value"),
        (choices(3, confidence=0.2), {}, "data.bad_value"),
        (choices(3), {"rows_are": "scored"}, "data.wrong_format"),
        (choices(3), {"packing": True}, "pairs.no_packing"),
        (choices(3), {"overlong": "split"}, "data.cannot_split"),
        (choices(3), {"eval_fraction": 0.1}, "data.too_few_to_hold_out"),
        (choices(3), {"held": choices(1)}, "data.too_few"),
        (choices(9), {"held": choices(1)}, "data.too_few_held_out"),
        ([], {}, "data.empty_file"),
    ],
)
def test_rows_that_will_not_do_are_refused(
    rows: list[dict[str, Any]], order: dict[str, Any], code: str, tmp_path: Path, model: Path
) -> None:
    if "held" in order and code == "data.too_few":
        order = order | {"held": rows}
    assert refused(rows, model, tmp_path, **order).code == code


def test_the_check_counts_what_is_prepared(tmp_path: Path, model: Path) -> None:
    long = {"prompt": "far away " * 30, "chosen": " river" * 60, "rejected": " b"}
    same = {"prompt": "p", "chosen": " word" * 90 + " yes", "rejected": " word" * 90 + " no"}
    rows = [*choices(30), long, same]
    done = run(rows, model, tmp_path, eval_fraction=0.1)
    report = check_data(
        [tmp_path / "data"],
        recipe="reward",
        model_folder=model,
        max_length=48,
        options=CheckOptions(eval_fraction=0.1),
    )
    assert report.errors == () and report.eval_rows == done.metrics["eval_rows"] == 3
    held = sum(len(row[0]) for rows, _ in items_of(done.outputs["eval"]) for row in rows)
    assert report.tokens == done.metrics["tokens"] + held
    assert (report.truncated_rows, report.all_masked_rows) == (2, 1)
