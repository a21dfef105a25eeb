"""Alignment as a requester runs it: answers, a judge, a reward model and a better policy in one job; DPO in another.

Models are of random weights, so nothing here says that a policy got better (`bench/` does): what counts is that every
part is there, can be loaded by plain libraries, was checked by somebody else, and was paid.
"""

from __future__ import annotations

import html
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from . import models
from .world import World

ALIGN = """\
name: align
stages:
  - name: answer
    recipe: generate
    base_model: models/policy
    models: {other: models/other}
    data: prompts.jsonl
    params: {answers: 2, max_new_tokens: 8, max_length: 48}
    plan: {shards_per_round: 2}
  - name: judge
    recipe: judge
    base_model: models/judge
    data: answer.rows
    params: {max_length: 640, pairs_per_prompt: 3, length_controlled: false, batch_size: 4}
    plan: {shards_per_round: 2}
  - name: score
    recipe: reward
    base_model: models/policy
    data: judge.rows
    params: {method: full, batch_size: 4, max_length: 64}
    plan: {rounds: 1, shards_per_round: 2, inner_steps: 2}
  - name: improve
    recipe: grpo
    base_model: models/policy
    models: {reward: score.model}
    data: prompts.jsonl
    eval_fraction: 0.25
    params: {method: full, max_length: 48, max_new_tokens: 8, answers: 2, prompts_per_shard: 4, batch_size: 4}
    plan: {rounds: 1, shards_per_round: 2, inner_steps: 2}
trust: {class: public}
budget: {max_sats: 500}
"""
DPO = """\
name: prefer
recipe: dpo
base_model: models/policy
data: preferences.jsonl
eval_fraction: 0.2
params: {method: lora, publish: merged, max_length: 64, batch_size: 4, learning_rate: 0.001}
plan: {rounds: 1, shards_per_round: 2, inner_steps: 4}
trust: {class: public}
budget: {max_sats: 500}
"""
LOADER = Path(__file__).parent / "load_aligned.py"


@pytest.fixture(scope="module")
def files(town: World) -> Path:
    models.write_gpt2(town.folder / "models" / "policy", positions=640)
    models.write_gpt2(town.folder / "models" / "other", seed=8, positions=640)
    models.write_gpt2(town.folder / "models" / "judge", seed=9, positions=640, spread=0.5)
    models.write_prompts(town.folder / "prompts.jsonl")
    models.write_preferences(town.folder / "preferences.jsonl")
    return town.folder


NUMBERS = ("text", "ended", "tokens", "logprob")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def finished(town: World, name: str, text: str) -> str:
    (town.folder / f"{name}.yaml").write_text(text)
    job = town.submit(f"{name}.yaml")
    report = town.finish(job)
    assert report["state"] == "succeeded", report["why"]
    town.succeed("job", "download", job, name)
    return job


@pytest.fixture(scope="module")
def aligned(town: World, files: Path) -> str:
    return finished(town, "align", ALIGN)


@pytest.fixture(scope="module")
def preferred(town: World, files: Path) -> str:
    return finished(town, "prefer", DPO)


@pytest.fixture(scope="module")
def loaded(town: World, aligned: str, preferred: str) -> dict[str, Any]:
    """What plain datasets and transformers found in what both jobs made; one process, as loading torch takes time."""
    command = [sys.executable, str(LOADER), str(town.folder / "align"), str(town.folder / "prefer")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_rows_are_read_by_plain_datasets(loaded: dict[str, Any]) -> None:
    answers = loaded["answers"]
    assert len(answers) == 16
    assert {tuple(sorted(one["model"] for one in row["answers"])) for row in answers} == {
        ("other", "other", "policy", "policy")
    }
    assert all(one["tokens"] > 0 and one["logprob"] < 0 for row in answers for one in row["answers"])
    assert {row["prompt"] for row in loaded["preferences"]} <= {row["prompt"] for row in answers}
    assert loaded["preferences"]
    assert all(row["chosen"] != row["rejected"] for row in loaded["preferences"])
    votes = {vote["order"] for vote in loaded["votes"]}
    assert votes == {"ab", "ba"}
    assert {vote["source"] for vote in loaded["votes"]} == {"judge"}


def test_models_are_read_by_plain_transformers(loaded: dict[str, Any]) -> None:
    assert loaded["reward"] == {"labels": 1, "finite": True}
    for name in ("policy", "preferred"):
        assert loaded[name]["finite"]
        assert loaded[name]["is_adapter"] is False


@pytest.mark.usefixtures("loaded")
def test_what_was_preferred_changed_the_model(town: World) -> None:
    """Of a policy that learns from rewards the best checkpoint is published, maybe the one that it began with."""
    began = (town.folder / "models" / "policy" / "model.safetensors").read_bytes()
    assert (town.folder / "prefer" / "dpo.model" / "model.safetensors").read_bytes() != began


def test_what_was_drawn_scored_and_judged_was_checked_by_the_other_worker_and_both_are_paid(
    town: World, aligned: str
) -> None:
    shards = town.rows("select id, phase, audits, state from shard where job_id = ?", aligned)
    audited = {audits.partition("#")[0] for _, _, audits, _ in shards if audits}
    # two parts for each of two models and two of the judge; two rollouts, and the held-out prompts before and after
    checked = Counter(phase for key, phase, _, _ in shards if key in audited)
    assert checked == {"map": 6, "rollout": 4, "score": 4}
    assert all(state == "done" for _, _, _, state in shards)
    report = town.ask("job", "report", aligned)
    payments = {(one["shard"], one["worker"]) for one in report["payments"]}
    for key, _, audits, _ in shards:
        if audits:
            [checker] = [worker for shard, worker in payments if shard == key]
            [maker] = [worker for shard, worker in payments if shard == audits.partition("#")[0]]
            assert checker != maker
    assert not report["self_evaluated"]


def test_samples_show_what_was_downloaded_and_what_the_dashboard_shows(town: World, aligned: str) -> None:
    """The requester's command and the operator's page tell the same of the same rows, whole texts and numbers."""
    made = {row["prompt_id"]: row for row in rows_of(town.folder / "align" / "answer.rows" / "rows.jsonl")}
    listed = town.ask("job", "samples", aligned)
    assert [one["name"] for one in listed["outputs"]] == ["answer.rows", "judge.rows"] and listed["page"] is None
    seen: list[dict[str, Any]] = []
    at: int | None = 0
    while at is not None:
        page = town.ask("job", "samples", aligned, "answer", "--rows", 7, "--at", at)["page"]
        seen, at = seen + page["samples"], page["next_at"]
    assert [one["prompt_id"] for one in seen] == list(made)
    for one in seen:
        told = [{"model": text["label"], **{key: text[key] for key in NUMBERS}} for text in one["texts"]]
        assert told == made[one["prompt_id"]]["answers"]
    with httpx.Client(base_url=town.processes.web, follow_redirects=True) as operator:
        token = town.processes.setup.partition("token=")[2]
        operator.get("/setup", params={"token": token})
        operator.post("/setup", data={"token": token, "name": "ada", "password": "ten letters at least"})
        shown = operator.get(f"/jobs/{aligned}/samples/answer.rows").text
    for one in seen:
        assert one["prompt_id"] in shown
        for text in one["texts"]:
            note = f"{text['tokens']} tokens, log-probability {text['logprob']:.3g}"
            assert f'{html.escape(text["label"])}</bdi> <small class="quiet">{note}' in shown
    beside = town.succeed("job", "samples", aligned, "judge", "--beside", "answer", "--rows", 1).stdout
    assert "✓ chosen · judge.rows" in beside and "policy · answer.rows" in beside


def test_measures_are_told(town: World, aligned: str, preferred: str) -> None:
    stages = {stage["name"]: stage for stage in town.ask("job", "show", aligned)["stages"]}

    def told(stage: str) -> set[str]:
        return {name for one in stages[stage]["rounds"] for name in one["measures"]}

    assert {"length", "ended"} <= told("answer")
    assert {"flipped", "confidence"} <= told("judge")
    assert {"reward", "reward_error", "kl", "entropy", "length"} <= told("improve")
    [preferred_stage] = town.ask("job", "show", preferred)["stages"]
    assert any("accuracy" in one["measures"] for one in preferred_stage["rounds"])


def test_the_books_balance(town: World, aligned: str, preferred: str) -> None:
    for job in (aligned, preferred):
        report = town.ask("job", "report", job)
        assert report["budget_msat"] == report["spent_msat"] + report["refunded_msat"]
        assert report["reserved_msat"] == 0
    books = town.books()
    assert books["balanced"] and books["sum_msat"] == 0 and books["violations"] == []
