"""A loop in a job file: its stages unrolled, references to this time and the last, and every way to get it wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shardwork.jobs.file import JobFileInvalid, load, load_values
from shardwork.jobs.spec import JobSpec


def values(folder: Path, **repeat: Any) -> dict[str, Any]:
    for name in ("tuned", "other"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "prompts.jsonl").write_text('{"prompt": "Hello"}\n')
    improve = {"recipe": "dpo", "base_model": "improve.model", "data": "answer.rows", "params": {"method": "full"}}
    return {
        "name": "loop",
        "trust": {"class": "public"},
        "budget": {"max_sats": 1000},
        "stages": [
            {"name": "answer", "recipe": "generate", "base_model": "improve.model", "data": "prompts.jsonl"},
            {"name": "improve", "eval_fraction": 0.1, **improve},
            {"name": "last", "recipe": "generate", "base_model": "improve.model", "data": "prompts.jsonl"},
        ],
        "repeat": {
            "stages": ["answer", "improve"],
            "times": 3,
            "start": {"improve.model": "./tuned"},
            **repeat,
        },
    }


def spec_of(folder: Path, **repeat: Any) -> JobSpec:
    return load_values(values(folder, **repeat), folder).spec


def codes(folder: Path, given: dict[str, Any]) -> list[str]:
    with pytest.raises(JobFileInvalid) as refused:
        load_values(given, folder)
    return [problem.code for problem in refused.value.problems]


def test_each_time_reads_what_the_last_time_made(tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in spec_of(tmp_path).stages}
    assert list(stages) == ["answer-1", "improve-1", "answer-2", "improve-2", "answer-3", "improve-3", "last"]
    assert [stages[f"answer-{time}"].base_model for time in (1, 2, 3)] == [
        "./tuned",
        "improve-1.model",
        "improve-2.model",
    ]
    assert [stages[f"improve-{time}"].data for time in (1, 2, 3)] == [[f"answer-{time}.rows"] for time in (1, 2, 3)]


def test_behind_the_loop_a_plain_name_is_the_latest(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    assert spec.stages[-1].base_model == "improve.model"
    assert spec.names_of("improve-3") == ("improve-3", "improve")
    assert spec.names_of("last") == ("last",)


def test_a_loop_goes_on_while_it_gains(tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in spec_of(tmp_path, until={"stage": "improve", "improved_by": 0.05}).stages}
    gates = {name: stage.run_if.stage for name, stage in stages.items() if stage.run_if}
    assert gates == {"answer-2": "improve-1", "answer-3": "improve-2"}


def test_files_of_the_first_time_are_found_and_the_others_need_none(tmp_path: Path) -> None:
    loaded = load_values(values(tmp_path), tmp_path)
    assert loaded.files["answer-1"].base_model == tmp_path / "tuned"
    assert loaded.files["answer-2"].base_model is None
    assert all(loaded.files[f"answer-{time}"].data for time in (1, 2, 3))


def test_the_spec_survives_its_journey(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, until={"stage": "improve", "improved_by": 0.0})
    assert JobSpec.model_validate_json(spec.canonical_json()) == spec


@pytest.mark.parametrize(
    ("repeat", "code"),
    [
        ({"start": {}}, "jobfile.loop_start"),
        ({"stages": ["improve", "answer"]}, "jobfile.loop_stages"),
        ({"stages": ["nobody"]}, "jobfile.loop_stages"),
        ({"until": {"stage": "last", "improved_by": 0.0}}, "jobfile.loop_until"),
        ({"times": 0}, "jobfile.wrong_value"),
        ({"tims": 2}, "jobfile.unknown_key"),
    ],
)
def test_a_wrong_loop_is_named(tmp_path: Path, repeat: dict[str, Any], code: str) -> None:
    assert code in codes(tmp_path, values(tmp_path, **repeat))


def test_a_mistake_inside_the_loop_is_told_once_and_with_its_line(tmp_path: Path) -> None:
    values(tmp_path)
    file = tmp_path / "job.yaml"
    file.write_text(
        "name: loop\n"
        "trust: {class: public}\n"
        "budget: {max_sats: 10}\n"
        "repeat:\n"
        "  stages: [answer]\n"
        "  times: 4\n"
        "stages:\n"
        "  - name: answer\n"
        "    recipe: generate\n"
        "    base_model: ./tunde\n"
        "    data: prompts.jsonl\n"
    )
    with pytest.raises(JobFileInvalid) as refused:
        load(file)
    [problem] = refused.value.problems
    assert (problem.line, problem.key) == (10, "stages.0.base_model")
    assert "tuned" in problem.fix
