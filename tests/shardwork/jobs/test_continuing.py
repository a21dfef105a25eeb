"""`continue_from`: the three ways to name a checkpoint, what is near a wrong one, and that it is absent when unset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardwork.errors import InvalidInput
from shardwork.jobs.file import JobFileInvalid, LoadedJob, load
from shardwork.jobs.spec import JobSpec, references
from shardwork.recipes import recipe
from shardwork.recipes.base import StageFacts
from shardwork.recipes.continuing import parent_name, told

GOOD = """\
name: tutor
base_model: ./models/tiny
data: ./data/train.jsonl
continue_from: {continue_from}
recipe: sft
trust: {{class: public}}
budget: {{max_sats: 2000}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("models/tiny", "data", "made/sft.checkpoint"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data" / "train.jsonl").write_text('{"text": "x"}\n')
    return tmp_path


def loaded(folder: Path, continue_from: str) -> LoadedJob:
    path = folder / "job.yaml"
    path.write_text(GOOD.format(continue_from=continue_from))
    return load(path)


def test_an_earlier_job_s_checkpoint_is_no_file(folder: Path) -> None:
    job = loaded(folder, "3f2a6c0de111.sft.checkpoint")
    (stage,) = job.spec.stages
    assert stage.continue_from == "3f2a6c0de111.sft.checkpoint"
    assert job.files["sft"].continue_from is None and references(stage) == []
    assert json.loads(job.spec.canonical_json())["stages"][0]["continue_from"] == stage.continue_from
    assert JobSpec.model_validate_json(job.spec.canonical_json()) == job.spec


def test_a_folder_is_read_from_beside_the_job_file(folder: Path) -> None:
    job = loaded(folder, "made/sft.checkpoint")
    assert job.files["sft"].continue_from == folder / "made" / "sft.checkpoint"


def test_a_stage_of_the_same_job_is_a_reference(folder: Path) -> None:
    spec = loaded(folder, "made/sft.checkpoint").spec
    later = spec.stages[0].model_copy(update={"name": "again", "continue_from": "sft.checkpoint"})
    assert references(later) == ["sft.checkpoint"]
    assert parent_name(later) == "sft.checkpoint"


def test_a_job_that_begins_anew_does_not_name_the_key(folder: Path) -> None:
    spec = loaded(folder, "").spec
    assert "continue_from" not in spec.canonical_json()
    assert "continue_from" not in spec.stages[0].model_dump_json(by_alias=True)


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("3f2a6c0de111.sft.model", "from a checkpoint. Did you mean '3f2a6c0de111.sft.checkpoint'?"),
        ("3f2a6c0de111.sft.chekpoint", "Did you mean '3f2a6c0de111.sft.checkpoint'?"),
        ("made/sft.checkpoin", "Did you mean 'made/sft.checkpoint'?"),
        ("nowhere", "`JOB.stage.checkpoint`"),
    ],
)
def test_the_nearest_checkpoint_is_offered(written: str, hint: str, folder: Path) -> None:
    with pytest.raises(JobFileInvalid) as caught:
        loaded(folder, written)
    (problem,) = caught.value.problems
    assert (problem.key, problem.line) == ("continue_from", 4)
    assert hint in f"{problem.sentence} {problem.fix}"


def test_a_stage_that_could_not_use_the_checkpoint_is_refused(folder: Path) -> None:
    changes = {"recipe": "count", "base_model": None}
    stage = loaded(folder, "3f2a6c0de111.sft.checkpoint").spec.stages[0].model_copy(update=changes)
    with pytest.raises(InvalidInput) as caught:
        recipe(stage.recipe).freeze(stage, StageFacts())
    assert caught.value.code == "count.not_learning"


@pytest.mark.parametrize(
    "changes",
    [
        {"params": {"merge": "ffa"}},
        {"recipe": "pretrain", "base_model": None, "params": {"preset": "tiny-1m"}},
    ],
)
def test_a_frozen_a_and_a_model_from_scratch_can_go_on(changes: dict[str, object], folder: Path) -> None:
    stage = loaded(folder, "3f2a6c0de111.sft.checkpoint").spec.stages[0].model_copy(update=changes)
    assert recipe(stage.recipe).freeze(stage, StageFacts()).continue_from == "3f2a6c0de111.sft.checkpoint"


def test_what_goes_on_is_told_without_the_folders_of_a_machine(folder: Path) -> None:
    stage = loaded(folder, "made/sft.checkpoint").spec.stages[0]
    assert told(stage, {}) == "sft.checkpoint"
    assert told(stage, {"continued_moments": 0.0}) == "sft.checkpoint (weights only)"
    numbers = {"continued_moments": 1.0, "continued_step": 1200.0}
    assert told(stage, numbers) == "sft.checkpoint (weights and Adam's moments after 1,200 steps)"
    assert told(stage.model_copy(update={"continue_from": None}), numbers) == ""
