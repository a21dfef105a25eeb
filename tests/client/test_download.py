"""Fetching outputs: into DIR/<output>, resumed, chosen by name, and with the lines that load them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardwork.artifact import describe_folder
from shardwork.v1 import jobs_pb2

from .conftest import Run, error_of, json_of
from .fake_coordinator import Fake
from .sample_jobs import JOB_ID, succeeded_job


@pytest.fixture
def adapter(fake: Fake, tmp_path: Path) -> dict[str, bytes]:
    """A finished job whose one output is an adapter of two files."""
    files = {
        "adapter_config.json": json.dumps({"base_model_name_or_path": "tiny"}).encode(),
        "adapter_model.safetensors": bytes(range(256)) * 9000,
    }
    folder = tmp_path / "made"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = describe_folder(folder)
    artifact_id = fake.store_artifact(manifest, b"".join(files[entry.path] for entry in manifest.files))
    job = succeeded_job()
    job.outputs[0].artifact_id = artifact_id
    fake.jobs[JOB_ID] = job
    return files


def test_it_lands_in_dir_slash_output_and_tells_how_to_load_it(
    logged_in: Run, adapter: dict[str, bytes], tmp_path: Path
) -> None:
    result = logged_in("job", "download", JOB_ID, tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    got = tmp_path / "out" / "sft.model"
    assert {path.name: path.read_bytes() for path in got.iterdir()} == adapter
    assert "sft.model" in result.stdout
    assert f"PeftModel.from_pretrained(base, '{got}')" in result.stderr
    assert "CausalLM.from_pretrained('path/to/tiny')" in result.stderr, "a bare name would be fetched from a hub"
    # an adapter's folder has no tokenizer: what was printed alone must be enough to ask it something
    assert "tokenizer = AutoTokenizer.from_pretrained('path/to/tiny')" in result.stderr


def test_json_lists_what_was_fetched_and_where(logged_in: Run, adapter: dict[str, bytes], tmp_path: Path) -> None:
    told = json_of(logged_in("job", "download", JOB_ID, tmp_path, "--json", "--output", "model"))
    assert told["id"] == JOB_ID
    assert [each["name"] for each in told["outputs"]] == ["sft.model"]
    assert told["outputs"][0]["path"] == str(tmp_path / "sft.model")


def test_a_repeat_fetches_nothing_again(logged_in: Run, fake: Fake, adapter: dict[str, bytes], tmp_path: Path) -> None:
    assert logged_in("job", "download", JOB_ID, tmp_path).exit_code == 0
    fetched = len(fake.downloads)
    assert logged_in("job", "download", JOB_ID, tmp_path).exit_code == 0
    assert len(fake.downloads) == fetched


def test_a_folder_that_was_changed_since_is_named_and_left_alone(
    logged_in: Run, adapter: dict[str, bytes], tmp_path: Path
) -> None:
    assert logged_in("job", "download", JOB_ID, tmp_path).exit_code == 0
    changed = tmp_path / "sft.model" / "adapter_config.json"
    changed.write_text("mine")
    result = logged_in("job", "download", JOB_ID, tmp_path, "--json")
    assert result.exit_code == 1
    error = error_of(result)
    assert error["code"] == "download.folder_differs" and "another DIR" in error["next_step"]
    assert error["evidence"] == {"folder": str(changed.parent), "file": "adapter_config.json"}
    assert changed.read_text() == "mine"


def test_an_unknown_output_is_exit_4_and_names_the_nearest(
    logged_in: Run, adapter: dict[str, bytes], tmp_path: Path
) -> None:
    result = logged_in("job", "download", JOB_ID, tmp_path, "-o", "sft.modle")
    assert result.exit_code == 4
    assert "Did you mean sft.model?" in result.stderr


def test_a_job_without_outputs_is_exit_1(logged_in: Run, fake: Fake, tmp_path: Path) -> None:
    job = succeeded_job()
    del job.outputs[:]
    fake.jobs[JOB_ID] = job
    result = logged_in("job", "download", JOB_ID, tmp_path, "--json")
    assert result.exit_code == 1
    assert error_of(result)["code"] == "job.no_outputs"


def test_a_deleted_output_does_not_keep_the_others_from_being_fetched(
    logged_in: Run, fake: Fake, adapter: dict[str, bytes], tmp_path: Path
) -> None:
    gone = jobs_pb2.OutputView(name="old.model", kind="model", artifact_id="cd" * 32, bytes=5, deleted=True)
    fake.jobs[JOB_ID].outputs.insert(0, gone)
    assert logged_in("job", "download", JOB_ID, tmp_path / "out").exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sft.model"]
    result = logged_in("job", "download", JOB_ID, tmp_path / "out", "-o", "old.model", "--json")
    assert result.exit_code == 4 and error_of(result)["code"] == "job.output_deleted"
    assert "deleted" in logged_in("job", "show", JOB_ID).stdout
    del fake.jobs[JOB_ID].outputs[1:]
    result = logged_in("job", "download", JOB_ID, tmp_path / "out", "--json")
    assert result.exit_code == 4 and error_of(result)["code"] == "job.output_deleted"


@pytest.mark.parametrize("name", ["../escape", "..", "a/b", ""])
def test_an_output_s_name_cannot_leave_the_folder(
    logged_in: Run, fake: Fake, adapter: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    fake.jobs[JOB_ID].outputs[0].name = name
    result = logged_in("job", "download", JOB_ID, tmp_path / "out")
    assert result.exit_code == 4
    assert not (tmp_path / "escape").exists()


def test_a_tampered_leaf_is_refused_and_no_folder_appears(
    logged_in: Run, fake: Fake, adapter: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardwork.transfer.BACKOFF_S", 0.001)
    artifact_id = fake.jobs[JOB_ID].outputs[0].artifact_id
    fake.stored[artifact_id][100] ^= 1
    result = logged_in("job", "download", JOB_ID, tmp_path / "out")
    assert result.exit_code == 1
    assert not (tmp_path / "out" / "sft.model").exists()


@pytest.mark.parametrize(
    ("kind", "line"), [("model", "AutoModelForCausalLM"), ("rows", "load_dataset"), ("report", "")]
)
def test_each_kind_has_its_own_way_of_loading(
    logged_in: Run, fake: Fake, adapter: dict[str, bytes], tmp_path: Path, kind: str, line: str
) -> None:
    view: jobs_pb2.OutputView = fake.jobs[JOB_ID].outputs[0]
    view.kind = kind
    result = logged_in("job", "download", JOB_ID, tmp_path / "out")
    assert result.exit_code == 0
    assert line in result.stderr
