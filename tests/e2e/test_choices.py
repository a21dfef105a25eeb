"""What a job decides by itself: `method: auto`, a gate that opens and one that stays shut, and when to stop.

One job shows all of them: an adapter first; all weights because the adapter taught something, until held-out loss no
longer improves; and a third stage that would need more than anything can teach.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from . import models
from .world import World

ROUNDS = 8
JOB = f"""\
name: choices
stages:
  - name: trial
    recipe: sft
    base_model: models/gpt2
    data: chat.jsonl
    eval_fraction: 0.2
    params: {{method: auto, purpose: test, max_length: 64, batch_size: 4, learning_rate: 0.003}}
    plan: {{rounds: 1, shards_per_round: 2, inner_steps: 3}}
  - name: whole
    recipe: sft
    run_if: {{stage: trial, improved_by: 0.0001}}
    base_model: models/gpt2
    data: chat.jsonl
    eval_data: elsewhere.jsonl
    params: {{method: full, patience: 1, max_length: 64, batch_size: 8, learning_rate: 0.01}}
    plan: {{rounds: {ROUNDS}, shards_per_round: 2, inner_steps: 10}}
  - name: never
    recipe: sft
    run_if: {{stage: trial, improved_by: 0.99}}
    base_model: models/gpt2
    data: chat.jsonl
    eval_fraction: 0.2
    params: {{method: full, max_length: 64, batch_size: 4}}
    plan: {{rounds: 1, shards_per_round: 2, inner_steps: 3}}
trust: {{class: public}}
budget: {{max_sats: 2000}}
"""


def write_elsewhere(path: Path, *, rows: int = 40) -> None:
    """Held-out rows of which half look like those learned and half hold letters that those never do: what helps the
    first hurts the second, so that from some round on held-out loss only rises."""
    lines: list[str] = []
    for number in range(rows):
        question, answer = f"Which is longer, Po or Lena ({number})?", "The Po is longer."
        if number % 2:
            question, answer = question.upper(), "ZQXJKWVYBFGZQXJKWVYBFG"
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages}) + "\n")
    path.write_text("".join(lines))


@pytest.fixture(scope="module")
def plan(town: World) -> Any:
    write_elsewhere(town.folder / "elsewhere.jsonl")
    models.write_chat(town.folder / "chat.jsonl")
    (town.folder / "choices.yaml").write_text(JOB)
    return town.ask("job", "plan", "choices.yaml")


@pytest.fixture(scope="module")
def report(town: World, plan: Any) -> Any:
    found = town.finish(town.submit("choices.yaml"))
    assert found["state"] == "succeeded", found["why"]
    return found


def stage_of(report: Any, name: str) -> Any:
    return next(one for one in report["stages"] if one["name"] == name)


def test_the_plan_says_which_method_auto_is_and_why(town: World, plan: Any) -> None:
    method = stage_of(plan, "trial")["method"]
    assert method["chosen"] == "lora"
    assert set(method["factors"]) == {"use", "resources", "accessibility", "testing"}
    assert "undone by leaving a file out" in method["factors"]["use"]
    prices = {each["method"]: each["estimate_msat"] for each in method["options"]}
    assert set(prices) == {"lora", "partial", "full"} and min(prices.values()) > 0
    page = town.run("job", "plan", "choices.yaml").stdout
    assert "chosen by four factors" in page and method["factors"]["use"][:30] in " ".join(page.split())


def test_the_chosen_method_is_what_runs(town: World, report: Any) -> None:
    [(spec,)] = town.rows("select spec_json from stage where job_id = ? and name = 'trial'", report["id"])
    assert json.loads(spec)["params"]["method"] == "lora"
    kinds = {output["name"]: output["kind"] for output in report["outputs"]}
    assert (kinds["trial.model"], kinds["whole.model"]) == ("adapter", "model")


def test_a_gate_opens_when_the_stage_before_it_improved(report: Any) -> None:
    before, after = (one["eval_loss"] for one in stage_of(report, "trial")["rounds"] if one["kind"] != "publish")
    assert (before - after) / before >= 0.0001
    assert stage_of(report, "whole")["state"] == "done"


def test_a_gate_stays_shut_otherwise_says_why_and_costs_nothing(town: World, report: Any) -> None:
    never = stage_of(report, "never")
    assert (never["state"], never["rounds"], never["why"]["code"]) == ("skipped", [], "stage.gate_shut")
    assert "at least 99 % was asked for" in never["why"]["sentence"]
    assert never["why"]["sentence"].split(": ")[1][:30] in " ".join(
        town.run("job", "show", report["id"]).stdout.split()
    )
    assert not [one for one in report["payments"] if "/never/" in one["shard"]]
    assert not [one for one in report["outputs"] if one["name"].startswith("never.")]
    assert report["budget_msat"] == report["spent_msat"] + report["refunded_msat"]


def test_a_stage_ends_with_its_patience_and_publishes_the_best_round(report: Any) -> None:
    whole = stage_of(report, "whole")
    rounds = [one for one in whole["rounds"] if one["kind"] == "learn"]
    assert (whole["why"]["code"], whole["why"]["evidence"]["patience"]) == ("stage.stopped_early", "1")
    assert whole["planned_rounds"] == ROUNDS and 2 <= len(rounds) < ROUNDS
    assert whole["best_round"] == len(rounds) - 1
    kept = {one["number"]: one["eval_loss"] for one in rounds if one["state"] == "merged"}
    assert kept[whole["best_round"]] == min(kept.values())
