"""Items of `data`: paths and sections, what a section may say, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardwork.dataset import Format
from shardwork.dataset.source import SUFFIXES
from shardwork.jobs.file import JobFileInvalid, LoadedJob, load
from shardwork.jobs.paths import DATA_SUFFIXES
from shardwork.jobs.spec import DataSource, JobSpec

JOB = """name: tutor
recipe: pretrain
params: {preset: tiny-1m}
data:
  - a.jsonl
  - {path: more, weight: 0.5, mapping: {text: body}}
trust: {class: public}
budget: {max_sats: 10}
"""

#: name -> (old, new, code, line, key, part of the fix)
BROKEN: dict[str, tuple[str, str, str, int, str, str]] = {
    "a mistyped key": ("weight:", "wieght:", "jobfile.unknown_key", 6, "data.1.wieght", "'weight'"),
    "a weight of nothing": ("0.5", "0", "jobfile.wrong_value", 6, "data.1.weight", ""),
    "a weight in words": ("0.5", "twice", "jobfile.wrong_type", 6, "data.1.weight", ""),
    "no path": ("path: more, ", "", "jobfile.missing_key", 6, "data.1.path", "Add `path:`"),
    "a name no format has": ("{text: body}", "{txet: body}", "jobfile.wrong_value", 6, "data.1.mapping", ""),
    "a format nobody knows": (
        "weight: 0.5", "format: alpacca", "jobfile.wrong_value", 6, "data.1.format", "'alpaca'",
    ),
    "a number for a path": ("- a.jsonl", "- 3", "jobfile.wrong_type", 5, "data.0", ""),
    "a folder that is not there": ("path: more", "path: moer", "jobfile.missing_file", 4, "data", "'more'"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.csv").write_text("body\ntwo\n")
    (tmp_path / "more" / "dataset_info.json").write_text("{}")
    return tmp_path


def read(folder: Path, text: str) -> LoadedJob:
    (folder / "job.yaml").write_text(text)
    return load(folder / "job.yaml")


def test_an_item_is_a_path_or_a_section_and_travels_as_written(folder: Path) -> None:
    loaded = read(folder, JOB)
    stage = loaded.spec.stages[0]
    assert stage.data_paths == ["a.jsonl", "more"] and stage.weights == (1.0, 0.5)
    assert isinstance(stage.data[1], DataSource) and stage.data[1].mapping == {"text": "body"}
    assert JobSpec.model_validate_json(loaded.spec.canonical_json()) == loaded.spec
    sources = loaded.files["pretrain"].sources
    assert [[path.name for path in source.files] for source in sources] == [["a.jsonl"], ["b.csv"]]
    assert [(source.weight, dict(source.mapping)) for source in sources] == [(1.0, {}), (0.5, {"text": "body"})]


def test_one_section_needs_no_list_and_plain_paths_have_no_weights(folder: Path) -> None:
    text = JOB.replace("data:\n  - a.jsonl\n  - {path: more,", "data: {path: more,")
    assert read(folder, text).spec.stages[0].weights == (0.5,)
    stage = read(folder, JOB.replace("weight: 0.5, ", "")).spec.stages[0]
    assert stage.weights == ()


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_item_is_named_by_line_key_and_code(name: str, folder: Path) -> None:
    old, new, code, line, key, advice = BROKEN[name]
    assert old in JOB
    with pytest.raises(JobFileInvalid) as caught:
        read(folder, JOB.replace(old, new, 1))
    problem = caught.value.problems[0]
    assert (problem.code, problem.line, problem.key) == (code, line, key)
    assert advice in problem.fix and problem.fix


def test_a_name_no_format_has_is_told_with_the_nearest(folder: Path) -> None:
    with pytest.raises(JobFileInvalid) as caught:
        read(folder, JOB.replace("{text: body}", "{txet: body}"))
    assert "Did you mean 'text'" in caught.value.problems[0].sentence


def test_held_out_rows_have_no_weight(folder: Path) -> None:
    with pytest.raises(JobFileInvalid) as caught:
        read(folder, JOB + "eval_data: {path: a.jsonl, weight: 2}\n")
    assert "no weight" in caught.value.problems[0].sentence


def test_job_files_and_the_row_reader_know_the_same_endings_and_formats() -> None:
    assert set(DATA_SUFFIXES) == set(SUFFIXES)
    named = DataSource.model_fields["format"].annotation
    assert {str(each) for each in Format} == set(str(named).split("'")[1::2])
