"""What a plan says of stages that align a model: how they learn, and whose time they take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e import models

from .conftest import Run
from .fake_coordinator import Fake
from .test_plan import priced as priced

TAIL = "trust: {class: public}\nbudget: {max_sats: 2000}\n"
PLAN = "plan: {rounds: 1, shards_per_round: 2, inner_steps: 2}\n"
GRPO = "{rewards: {exact: 1.0}, batch_size: 4, max_length: 48, max_new_tokens: 8, answers: 2, prompts_per_shard: 4}"


@pytest.mark.parametrize(
    ("written", "method"),
    [
        (f"recipe: grpo\ndata: prompts.jsonl\nparams: {GRPO}", "lora"),
        (f"recipe: grpo\ndata: prompts.jsonl\nparams: {GRPO.replace('{rewards', '{method: full, rewards')}", "full"),
        ("recipe: reward\ndata: pairs.jsonl", "lora"),
        ("recipe: dpo\ndata: pairs.jsonl", "lora"),
    ],
)
def test_the_page_names_the_method_that_is_priced(
    written: str, method: str, logged_in: Run, priced: Fake, tmp_path: Path
) -> None:
    models.write_gpt2(tmp_path / "policy")
    models.write_prompts(tmp_path / "prompts.jsonl")
    models.write_preferences(tmp_path / "pairs.jsonl")
    job = tmp_path / "job.yaml"
    job.write_text(f"name: a\n{written}\nbase_model: policy\neval_fraction: 0.2\n{PLAN}{TAIL}")
    done = logged_in("job", "plan", job)
    assert done.exit_code == 0, done.stderr
    assert f"learn ({method})" in done.stdout and f"for {method} learning" in done.stdout
    assert "people take" not in done.stdout


def test_answers_that_a_judge_compares_are_shown_apart(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    models.write_gpt2(tmp_path / "judge", positions=1024)
    row = {"prompt": "Which?", "answers": [{"model": "new", "text": "this"}, {"model": "old", "text": "that"}]}
    (tmp_path / "answers.jsonl").write_text(json.dumps(row) + "\n")
    job = tmp_path / "job.yaml"
    job.write_text(f"name: a\nrecipe: judge\nbase_model: judge\ndata: answers.jsonl\n{TAIL}")
    done = logged_in("job", "plan", job)
    assert done.exit_code == 0, done.stderr
    assert all(line in done.stdout for line in ("│ Which?\n", "│ [new] this\n", "│ [old] that\n"))


def test_the_time_of_people_is_not_ours_to_foresee(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    row = {"prompt": "Which?", "answers": [{"model": "a", "text": "this"}, {"model": "b", "text": "that"}]}
    (tmp_path / "answers.jsonl").write_text(json.dumps(row) + "\n")
    job = tmp_path / "job.yaml"
    job.write_text(f"name: a\nrecipe: people\ndata: answers.jsonl\nparams: {{title: Which, pay_sats: 1}}\n{TAIL}")
    done = logged_in("job", "plan", job)
    assert done.exit_code == 0, done.stderr
    assert "4 min 20 s; and the time that people take" in done.stdout
    assert "first rows as they are read:" in done.stdout and "is learned" not in done.stdout
