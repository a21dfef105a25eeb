"""Mistakes of who aligns a model, as the command says them: exit 3, a place in a file, what to do, and nothing sent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardwork.tensors.file import open_tensors, write_tensors
from tests.e2e import models

from .conftest import Run, error_of, json_of
from .fake_coordinator import Fake

TAIL = "trust: {class: public}\nbudget: {max_sats: 500}\n"
POLICY = "batch_size: 4, max_length: 48, max_new_tokens: 8, answers: 2, prompts_per_shard: 4"
Rows = list[dict[str, Any]]


SHORT = "{max_length: 48, max_new_tokens: 8}"


def job(recipe: str, *, data: str = "prompts.jsonl", params: str = "", more: str = "") -> str:
    base = "" if recipe in ("people", "consensus") else "base_model: policy\n"
    plan = "plan: {rounds: 1, shards_per_round: 2, inner_steps: 2}\n" if recipe in ("grpo", "ppo", "dpo") else ""
    params = params or (SHORT if recipe == "generate" else "{}")
    return f"name: bad\nrecipe: {recipe}\n{base}{more}data: {data}\nparams: {params}\n{plan}{TAIL}"


def policy(params: str, more: str = "", recipe: str = "grpo") -> str:
    return job(recipe, params=f"{{{params}}}", more=more)


REWARD = "models: {reward: reward}\n"
LOOP = """\
name: bad
repeat: {stages: [answer, learn], times: 2, start: {learn.model: policy}%s}
stages:
  - {name: answer, recipe: generate, base_model: %s, data: prompts.jsonl, params: {max_length: 48, max_new_tokens: 8}}
  - {name: learn, recipe: dpo, base_model: learn.model, data: %s}
"""
BLEND = """\
name: bad
stages:
  - {name: ask, recipe: people, data: bad.jsonl, params: {title: Which is better, pay_sats: 1}}
  - {name: agree, recipe: consensus, data: ask.votes, params: {weights: {people: 0, judge: 0}}}
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One mistake, and what must be said about it."""

    text: str
    code: str
    #: all of these stand in the error: the place, and the way out
    words: tuple[str, ...]
    #: rows of bad.jsonl
    rows: Rows | None = None


GOOD = {"prompt": "a", "chosen": "x", "rejected": "y"}
TWO: dict[str, Any] = {"prompt": "a", "answers": ["x", "y"]}
TALK: dict[str, Any] = {"prompt": [{"role": "user", "content": "q"}]}
VOTE = {"prompt_id": "p", "item": 0, "model_a": "a", "model_b": "b", "winner": "a", "order": "ab", "annotator": "x"}


def people(params: str = "") -> str:
    return job("people", data="bad.jsonl", params=f"{{title: Which is better, pay_sats: 1{params}}}")


CASES = {
    "a prompt is missing": Case(
        job("generate", data="bad.jsonl"),
        "data.unknown_format",
        ("bad.jsonl", "2", "prompt"),
        [{"prompt": "a"}, {"a": "x"}],
    ),
    "a prompt is empty": Case(
        job("generate", data="bad.jsonl"),
        "data.empty_value",
        ("bad.jsonl", "2", "Fill it"),
        [{"prompt": "a"}, {"prompt": " "}],
    ),
    "equal answers": Case(
        job("dpo", data="bad.jsonl"),
        "data.no_preference",
        ("bad.jsonl", "2", "rejected", "Remove the row"),
        [GOOD, {**GOOD, "rejected": "x"}],
    ),
    "no chosen": Case(
        job("dpo", data="bad.jsonl"),
        "data.missing_key",
        ("bad.jsonl", "1", "Add 'chosen'"),
        [{"prompt": "a", "rejected": "y"}],
    ),
    "no rejected": Case(
        job("reward", data="bad.jsonl"),
        "data.missing_key",
        ("bad.jsonl", "1", "Add 'rejected'"),
        [{"prompt": "a", "chosen": "y"}],
    ),
    "no answer to compare with": Case(
        policy(f"{POLICY}, rewards: {{exact: 1.0}}").replace("prompts.jsonl", "bad.jsonl"),
        "data.missing_key",
        ("bad.jsonl", "1", "Add 'answer'"),
        [{"prompt": "a"}],
    ),
    "a reward model of another tokenizer": Case(
        policy(POLICY, "models: {reward: foreign-reward}\n"),
        "model.other_tokenizer",
        ("job.yaml", "models.reward", "policy", "foreign-reward", "tokenizer.json"),
    ),
    "a language model as reward model": Case(
        policy(POLICY, "models: {reward: policy}\n", "ppo"),
        "model.no_reward_model",
        ("job.yaml", "models.reward", "STAGE.model"),
    ),
    "answers of two tokenizers": Case(
        job("generate", more="models: {other: foreign}\n"),
        "model.other_tokenizer",
        ("job.yaml", "models.other", "policy", "foreign"),
    ),
    "a model that has no part": Case(
        policy(f"{POLICY}, rewards: {{exact: 1.0}}", "models: {judge: policy}\n"),
        "policy.unknown_model",
        ("job.yaml:4", "models.judge", "remove the others"),
    ),
    "two rewards": Case(
        policy(f"{POLICY}, rewards: {{exact: 1.0}}", REWARD),
        "policy.one_reward",
        ("job.yaml:6", "params.rewards", "not both"),
    ),
    "no reward": Case(policy(POLICY), "policy.one_reward", ("job.yaml:5", "either a reward model")),
    "more a step than there is": Case(
        policy(POLICY.replace("batch_size: 4", "batch_size: 40") + ", rewards: {exact: 1.0}"),
        "policy.batch",
        ("job.yaml:5", "40 to 512"),
    ),
    "more rows than a shard has": Case(
        policy(POLICY.replace("per_shard: 4", "per_shard: 400") + ", rewards: {exact: 1.0}"),
        "policy.batch",
        ("job.yaml:5", "4 to 512"),
    ),
    "answers that do not fit": Case(
        job("generate", params="{max_length: 120, max_new_tokens: 60}"),
        "model.answers_too_long",
        ("job.yaml", "5", "params.max_new_tokens", "128 together"),
    ),
    "pairs that do not fit the judge": Case(
        job("judge", data="bad.jsonl", params="{max_length: 200}"),
        "model.max_length",
        ("job.yaml", "params.max_length", "128 or less"),
        [{"prompt": "Q", "answers": [{"model": "a", "text": "x"}, {"model": "b", "text": "y"}]}],
    ),
    "answers that do not fit another model": Case(
        job("generate", params="{max_length: 60, max_new_tokens: 60}", more="models: {other: short}\n"),
        "model.answers_too_long",
        ("job.yaml", "params.max_new_tokens", "64 together"),
    ),
    "a pattern that is none": Case(
        policy(f'{POLICY}, rewards: {{regex: 1.0}}, reward_settings: \'{{"regex": {{"pattern": "(a+"}}}}\''),
        "rewards.bad_pattern",
        ("job.yaml:5", "params.reward_settings", "never closed"),
    ),
    "a schema that reads others": Case(
        policy(
            f"{POLICY}, rewards: {{json_schema: 1.0}}, reward_settings: "
            '\'{"json_schema": {"schema": {"$ref": "file:///etc/passwd"}}}\''
        ),
        "rewards.bad_schema",
        ("job.yaml:5", "$ref", "Use type"),
    ),
    "one answer to compare": Case(
        people(),
        "people.few_answers",
        ("bad.jsonl", "2", "1 answer", "kind: score or review"),
        [TWO, {"prompt": "a", "answers": ["x"]}],
    ),
    "two answers to rank as four": Case(
        people(", kind: rank, answers: 4"),
        "people.few_answers",
        ("bad.jsonl", "1", "2 answers", "shows 4"),
        [TWO],
    ),
    "one answer for a judge": Case(
        job("judge", data="bad.jsonl"),
        "data.few_answers",
        ("bad.jsonl", "2", "1 answer", "params.answers"),
        [TWO, {"prompt": "a", "answers": ["x"]}],
    ),
    "a known answer that nobody can give": Case(
        people(),
        "people.bad_gold",
        ("bad.jsonl", "2", "gold", "both_bad", "honestly"),
        [TWO, {**TWO, "gold": {"winner": "c"}}],
    ),
    "a known ranking of a comparison": Case(
        people(),
        "people.bad_gold",
        ("bad.jsonl", "1", "gold", "both_bad"),
        [{**TWO, "gold": {"ranking": [1, 0]}}],
    ),
    "conversations for a model without a template": Case(
        job("generate", data="bad.jsonl").replace("base_model: policy", "base_model: bare"),
        "template.missing",
        ("bad.jsonl", "1", "params.chat_template: chatml"),
        [TALK, TALK],
    ),
    "a file of votes for a blend": Case(
        job("consensus", data="bad.jsonl"), "consensus.no_votes", ("job.yaml:3", "bad.jsonl", "stage.votes"), [VOTE]
    ),
    "a file of votes to learn from": Case(
        job("dpo", data="bad.jsonl"), "data.unknown_key", ("bad.jsonl", "1", "prompt_id"), [VOTE]
    ),
    "a weight below nothing": Case(
        BLEND.replace("people: 0", "people: -1") + TAIL, "", ("job.yaml", "weights.people", "at least 0"), [TWO]
    ),
    "people first without weight": Case(
        BLEND.replace("judge: 0", "judge: 1") + TAIL,
        "blend.people_without_weight",
        ("job.yaml", "params.weights", "above 0"),
        [TWO],
    ),
    "a side that is none": Case(
        BLEND.replace("people: 0, judge: 0", "people: 1, judges: 1") + TAIL,
        "jobfile.unknown_key",
        ("params.weights.judges", "Did you mean 'judge'?"),
        [TWO],
    ),
    "an output but for a slip": Case(
        BLEND.replace("data: ask.votes", "data: ask.vote") + TAIL,
        "jobfile.missing_file",
        ("job.yaml:4", "Did you mean 'ask.votes'?"),
        [TWO],
    ),
    "a reward model that is nowhere": Case(
        policy(POLICY, "models: {reward: rewards}\n"),
        "jobfile.missing_file",
        ("job.yaml:4", "models.reward", "Did you mean 'reward'?"),
    ),
    "a reward model of a stage that is not there": Case(
        policy(POLICY, "models: {reward: score.model}\n"),
        "jobfile.unknown_stage",
        ("job.yaml:4", "put the stage that makes it before this one"),
    ),
    "rows that a judge has no use for": Case(
        job("judge", data="bad.jsonl"),
        "data.unknown_format",
        ("bad.jsonl", "1", "`prompt` and `answers`", "`chosen` and `rejected`"),
        [{"question": "a", "said": "b"}],
    ),
    "one answer to learn from in groups": Case(
        policy(POLICY.replace("answers: 2", "answers: 1") + ", rewards: {exact: 1.0}"),
        "",
        ("job.yaml:5", "params.answers", "at least 2"),
    ),
    "a score that is no number": Case(
        job("reward", data="bad.jsonl", params="{learns_from: scores}"),
        "data.bad_value",
        ("bad.jsonl", "1", "score", "finite"),
        [{"prompt": "a", "completion": "x", "score": float("nan")}],
    ),
    "pairs where scores are asked for": Case(
        job("reward", data="bad.jsonl", params="{learns_from: scores}"),
        "data.wrong_format",
        ("bad.jsonl", "1", "params.learns_from"),
        [GOOD],
    ),
    "a target beyond the budget": Case(
        policy(POLICY + ", rewards: {exact: 1.0}, kl_target: 9, kl_budget: 1"),
        "policy.kl_contradiction",
        ("job.yaml:5", "params.kl_target", "below params.kl_budget"),
    ),
    "a title that drives a terminal": Case(
        people().replace("Which is better", '"\\e[31mred"'), "", ("job.yaml", "control characters", "Mend it"), [TWO]
    ),
    "a loop over what it does not make": Case(
        LOOP % ("", "learn.modle", "answer.rows") + TAIL, "", ("job.yaml", "learn.modle")
    ),
    "a blend of nobody": Case(
        BLEND + TAIL, "", ("job.yaml", "params.weights"), [{"prompt": "a", "chosen": "x", "rejected": "y"}]
    ),
    "a loop until a stage that holds nothing out": Case(
        LOOP % (", until: {stage: learn, improved_by: 0.1}", "learn.model", "answer.rows") + TAIL,
        "jobfile.gate_without_eval",
        ("job.yaml:2", "repeat.until.stage", "eval_fraction"),
    ),
    "a loop until a stage that is none": Case(
        LOOP % (", until: {stage: nobody, improved_by: 0.1}", "learn.model", "answer.rows") + TAIL,
        "",
        ("job.yaml", "nobody"),
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    base = models.write_gpt2(folder / "policy")
    foreign = shutil.copytree(base, folder / "foreign")
    words = json.loads((foreign / "tokenizer.json").read_text())
    first, second = list(words["model"]["vocab"])[-2:]
    vocabulary = words["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (foreign / "tokenizer.json").write_text(json.dumps(words))
    bare = shutil.copytree(base, folder / "bare")
    said = json.loads((bare / "tokenizer_config.json").read_text())
    (bare / "tokenizer_config.json").write_text(json.dumps({**said, "chat_template": None}))
    as_reward(base, folder / "reward")
    as_reward(foreign, folder / "foreign-reward")
    models.write_gpt2(folder / "short", positions=64)
    models.write_prompts(folder / "prompts.jsonl")
    return folder


def as_reward(base: Path, folder: Path) -> None:
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    score = {"architectures": ["GPT2ForSequenceClassification"], "num_labels": 1, "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps({**config, **score, "id2label": {"0": "S"}, "label2id": {"S": 0}}))
    with open_tensors(base / "model.safetensors") as opened:
        arrays = {name: opened[name].copy() for name in opened}
    arrays["score.weight"] = np.ones((1, models.WIDTH), np.float32)
    # a tokenizer saved by another program says the same in other bytes
    words = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**words, "padding": None}, indent=1))
    write_tensors(folder / "model.safetensors", arrays, metadata={"format": "pt"})


def spoilt(good: Path, text: str, rows: Rows | None = None) -> Path:
    if rows is not None:
        (good / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = good / "job.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("command", ["plan", "submit"])
@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_with_its_place_and_the_way_out(
    name: str, command: str, good: Path, logged_in: Run, fake: Fake
) -> None:
    case = CASES[name]
    said = logged_in(
        "job", command, spoilt(good, case.text, case.rows), "--json", *(["--yes"] if command == "submit" else [])
    )
    assert said.exit_code == 3, (said.stdout, said.stderr)
    assert said.stdout == ""
    error = error_of(said)
    told = error.get("errors", [error])[0]
    assert told.get("fix") or told.get("next_step"), told
    assert [word for word in case.words if word not in json.dumps(error, ensure_ascii=False)] == [], error
    if case.code:
        assert told["code"] == case.code
    assert not fake.submitted


GOODS: dict[str, Callable[[], str]] = {
    "a reward model on this machine": lambda: policy(POLICY, REWARD),
    "two models of one tokenizer": lambda: job("generate", more="models: {other: policy}\n"),
    "settings written as a mapping": lambda: policy(
        f"{POLICY}, rewards: {{length: 1.0, regex: 1.0}}, "
        "reward_settings: {regex: {pattern: 'a|b'}, length: {most: 3, unit: words}}"
    ),
    "a pattern of exponential time elsewhere": lambda: policy(
        f'{POLICY}, rewards: {{regex: 1.0}}, reward_settings: \'{{"regex": {{"pattern": "((a*)*)*b"}}}}\''
    ),
}


@pytest.mark.parametrize(("positions", "most"), [(320, 320), (1200, 1024)])
def test_a_judge_reads_no_more_of_a_pair_than_it_has_positions(
    positions: int, most: int, good: Path, tmp_path: Path, logged_in: Run, fake: Fake
) -> None:
    models.write_gpt2(tmp_path / "judge", positions=positions)
    rows: Rows = [{"prompt": "Q", "answers": [{"model": "a", "text": "x"}, {"model": "b", "text": "y"}]}]
    text = job("judge", data="bad.jsonl").replace("base_model: policy", f"base_model: {tmp_path / 'judge'}")
    assert logged_in("job", "submit", spoilt(good, text, rows), "--yes").exit_code == 0
    assert json.loads(fake.submitted[-1].spec_json)["stages"][0]["params"].get("max_length", 1024) == most


@pytest.mark.parametrize("name", GOODS)
def test_what_is_right_is_planned(name: str, good: Path, logged_in: Run) -> None:
    assert json_of(logged_in("job", "plan", spoilt(good, GOODS[name]()), "--json"))["shards"] >= 0
