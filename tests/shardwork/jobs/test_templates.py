"""Templates: each is valid as it stands, says what it is for, and promises no key that does not exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shardwork.errors import Conflict, InvalidInput
from shardwork.jobs.file import load
from shardwork.jobs.spec import JobSpec
from shardwork.jobs.templates import job_template, template_kinds, write_template
from shardwork.recipes import kinds, recipe
from tests.client import tiny_model

KINDS = sorted(template_kinds())
#: a key of `params` that stands behind a comment sign
OFFERED = re.compile(r"^  # (\w+): (\S+)", re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with everything that templates name."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "corpus.txt").write_text("some words\n" * 50)
    (tmp_path / "data" / "train.jsonl").write_text('{"text": "some words"}\n' * 50)
    (tmp_path / "data" / "prompts.jsonl").write_text('{"prompt": "some words"}\n' * 50)
    (tmp_path / "data" / "sums.jsonl").write_text('{"prompt": "1 + 1 =", "answer": "2"}\n' * 50)
    (tmp_path / "data" / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 50)
    answers = [{"model": "one", "text": "b"}, {"model": "two", "text": "c"}]
    (tmp_path / "data" / "answers.jsonl").write_text(json.dumps({"prompt": "a", "answers": answers}) + "\n")
    for name in ("base", "judge", "reward", "before"):
        tiny_model.write_model(tmp_path / "models" / name)
    return tmp_path


def written(kind: str, place: Path) -> JobSpec:
    path = place / "job.yaml"
    write_template(kind, path)
    return load(path).spec


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_is_a_valid_job(kind: str, place: Path) -> None:
    spec = written(kind, place)
    assert spec.budget.max_sats >= 50


def test_every_recipe_has_a_template() -> None:
    assert set(kinds()) <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_template_offers_in_a_comment_is_valid_too(kind: str, place: Path) -> None:
    spec = written(kind, place)
    offered = OFFERED.findall(job_template(kind))
    text = job_template(kind)
    for key, _ in offered:
        text = re.sub(rf"^  # {key}:", f"  {key}:", text, flags=re.MULTILINE)
    path = place / "all.yaml"
    path.write_text(text)
    full = load(path).spec
    assert full.stages[0].recipe == spec.stages[0].recipe
    known = {*recipe(spec.stages[0].recipe).Params.model_fields, "aggregate"}
    assert {key for key, _ in offered} <= known


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_says_what_it_is_for_and_fits_a_terminal(kind: str) -> None:
    assert template_kinds()[kind].endswith(".")
    assert max(len(line) for line in job_template(kind).splitlines()) <= 140


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("mine")
    with pytest.raises(Conflict) as refused:
        write_template("sft", path)
    assert refused.value.code == "jobfile.exists"
    assert path.read_text() == "mine"


def test_a_mistyped_kind_names_the_nearest() -> None:
    with pytest.raises(InvalidInput) as refused:
        job_template("pretain")
    assert (refused.value.code, refused.value.why.next_step) == ("jobfile.no_template", "Did you mean 'pretrain'?")
