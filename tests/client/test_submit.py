"""job submit: it asks, uploads exactly the inputs, pays once however often it is repeated, and can be interrupted."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

from shardwork.artifact import describe_folder
from shardwork.jobs.spec import JobSpec
from shardwork.v1 import jobs_pb2

from . import tiny_model
from .conftest import Run, error_of, json_of
from .fake_coordinator import Fake, Running
from .sample_jobs import JOB_ID, answer, event, succeeded_job
from .terminal import Terminal


@pytest.fixture(autouse=True)
def rich_wallet(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardwork.session.BACKOFF_S", 0.001)
    fake.available_msat = 5_000_000
    fake.quote = jobs_pb2.Quote(shards=9, rounds=2, reserve_msat=1_500_000, estimate_high_msat=1_400_000)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tiny_model.write_job(tmp_path)


def test_it_prints_the_id_alone_on_stdout_and_the_next_commands(logged_in: Run, fake: Fake, job: Path) -> None:
    result = logged_in("job", "submit", job, "--yes")
    assert result.exit_code == 0, result.stderr
    (job_id,) = fake.jobs
    assert result.stdout == f"{job_id}\n"
    assert f"shardwork job watch {job_id}" in result.stderr
    assert "1,500 sat" in result.stderr


def test_json_is_one_object_with_the_id(logged_in: Run, fake: Fake, job: Path) -> None:
    told = json_of(logged_in("job", "submit", job, "--yes", "--json"))
    assert told == {"id": next(iter(fake.jobs))}


def test_inputs_are_uploaded_whole_named_by_stage_and_nothing_else_travels(
    logged_in: Run, fake: Fake, job: Path
) -> None:
    assert logged_in("job", "submit", job, "--yes").exit_code == 0
    (request,) = fake.submitted
    inputs = {each.name: fake.manifests[each.artifact_id] for each in request.inputs}
    assert {name: [file.path for file in manifest.files] for name, manifest in inputs.items()} == {
        "sft.base_model": ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"],
        "sft.data": ["00000-train.jsonl"],
        "sft.eval_data": ["00000-valid.jsonl"],
    }
    for each in request.inputs:
        manifest = fake.manifests[each.artifact_id]
        assert len(fake.stored[each.artifact_id]) == manifest.total_bytes
    assert request.max_msat == 2_000_000
    assert request.facts[0].rows == 40


def test_a_local_checkpoint_travels_with_its_files_only(logged_in: Run, fake: Fake, job: Path) -> None:
    tiny_model.write_checkpoint(job.parent / "made" / "sft.checkpoint")
    (job.parent / "made" / "sft.checkpoint" / "notes.txt").write_text("mine")
    job.write_text(f"{job.read_text()}continue_from: made/sft.checkpoint\n")
    assert logged_in("job", "submit", job, "--yes").exit_code == 0
    inputs = {each.name: fake.manifests[each.artifact_id] for each in fake.submitted[0].inputs}
    names = ["moments_m.safetensors", "moments_v.safetensors", "state.json", "weights.safetensors"]
    assert [file.path for file in inputs["sft.continue_from"].files] == names
    assert fake.submitted[0].facts[0].input_bytes == sum(one.total_bytes for one in inputs.values())


def test_an_earlier_job_s_checkpoint_is_named_and_not_sent(logged_in: Run, fake: Fake, job: Path) -> None:
    job.write_text(f"{job.read_text()}continue_from: 3f2a6c0de111.sft.checkpoint\n")
    assert logged_in("job", "submit", job, "--yes").exit_code == 0
    (request,) = fake.submitted
    assert "sft.continue_from" not in {each.name for each in request.inputs}
    assert "3f2a6c0de111.sft.checkpoint" in request.spec_json


def test_data_files_keep_the_job_file_s_order(logged_in: Run, fake: Fake, job: Path) -> None:
    (job.parent / "data" / "also.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    job.write_text(job.read_text().replace("data: ./data/train.jsonl", "data: [data/train.jsonl, data/also.jsonl]"))
    assert logged_in("job", "submit", job, "--yes").exit_code == 0
    paths = [
        file.path
        for each in fake.submitted[0].inputs
        if each.name == "sft.data"
        for file in fake.manifests[each.artifact_id].files
    ]
    assert paths == ["source-000/00000-train.jsonl", "source-001/00001-also.jsonl"]


@pytest.mark.parametrize("name", [b"two\nlines.jsonl", b"back\\slash.jsonl", b"bad\xff.jsonl", b"x" * 249 + b".jsonl"])
def test_any_file_name_that_the_disk_has_travels(name: bytes, logged_in: Run, fake: Fake, job: Path) -> None:
    rows = job.parent / "rows"
    rows.mkdir()
    (job.parent / "data" / "train.jsonl").rename(rows / os.fsdecode(name))
    job.write_text(job.read_text().replace("./data/train.jsonl", "rows"))
    result = logged_in("job", "submit", job, "--yes")
    assert result.exit_code == 0, result.stderr
    (data,) = (item for item in fake.submitted[0].inputs if item.name == "sft.data")
    (entry,) = fake.manifests[data.artifact_id].files
    assert entry.path.startswith("00000-") and entry.path.endswith(".jsonl")


def test_nothing_is_left_staged(logged_in: Run, home: Path, job: Path) -> None:
    assert logged_in("job", "submit", job, "--yes").exit_code == 0
    assert list((home / "cache").iterdir()) == []
    assert list((home / "state" / "submissions").iterdir()) == []


def test_max_sats_replaces_the_budget(logged_in: Run, fake: Fake, job: Path) -> None:
    assert logged_in("job", "submit", job, "--yes", "--max-sats", 1600).exit_code == 0
    assert fake.submitted[0].max_msat == 1_600_000
    assert JobSpec.model_validate_json(fake.submitted[0].spec_json).budget.max_sats == 1600
    result = logged_in("job", "submit", job, "--yes", "--max-sats", 1000, "--json")
    assert result.exit_code == 3
    assert error_of(result)["code"] == "budget.below_plan"
    assert len(fake.submitted) == 1


def test_a_wallet_below_the_plan_is_exit_6_and_nothing_is_uploaded(logged_in: Run, fake: Fake, job: Path) -> None:
    fake.available_msat = 0
    result = logged_in("job", "submit", job, "--yes", "--json")
    assert result.exit_code == 6
    assert fake.uploads == [] and fake.submitted == []


def test_without_a_terminal_it_never_asks_but_is_exit_2_with_the_hint(logged_in: Run, fake: Fake, job: Path) -> None:
    result = logged_in("job", "submit", job)
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert fake.quoted == []


def test_a_lost_answer_is_asked_for_again_and_paid_once(logged_in: Run, fake: Fake, job: Path) -> None:
    fake.lose_answers = 2
    assert logged_in("job", "submit", job, "--yes").exit_code == 0
    assert len(fake.submitted) == 3
    assert len(fake.jobs) == 1
    assert fake.available_msat == 3_500_000


def test_a_repeat_after_giving_up_is_the_same_submission(logged_in: Run, fake: Fake, job: Path, home: Path) -> None:
    fake.lose_answers = 6
    assert logged_in("job", "submit", job, "--yes").exit_code == 7
    (kept,) = (home / "state" / "submissions").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    uploads = len(fake.uploads)
    result = logged_in("job", "submit", job, "--yes")
    assert result.exit_code == 0, result.stderr
    assert len({request.submission_id for request in fake.submitted}) == 1
    assert list(fake.jobs) == [result.stdout.strip()]
    assert fake.held_msat == 1_500_000
    assert len(fake.uploads) == uploads, "what is stored is not sent again"


def test_after_an_answer_the_same_file_is_a_new_job(logged_in: Run, fake: Fake, job: Path) -> None:
    first = logged_in("job", "submit", job, "--yes").stdout
    second = logged_in("job", "submit", job, "--yes").stdout
    assert first != second
    assert len(fake.jobs) == 2


def test_a_second_job_of_a_name_that_has_not_ended_is_told_before_it_is_paid_for(
    logged_in: Run, fake: Fake, job: Path
) -> None:
    first = logged_in("job", "submit", job, "--yes")
    assert "same name" not in first.stderr
    (job_id,) = fake.jobs
    fake.jobs[job_id].state = "running"
    second = logged_in("job", "submit", job, "--yes")
    assert second.exit_code == 0 and len(fake.jobs) == 2
    assert f"Your job {job_id} has the same name, 'tutor'" in second.stderr
    assert f"shardwork job watch {job_id}" in second.stderr
    for each in fake.jobs.values():
        each.state = "succeeded"
    assert "same name" not in logged_in("job", "submit", job, "--yes").stderr


def test_other_data_is_another_submission_even_after_a_lost_answer(logged_in: Run, fake: Fake, job: Path) -> None:
    fake.lose_answers = 6
    assert logged_in("job", "submit", job, "--yes").exit_code == 7
    with (job.parent / "data" / "train.jsonl").open("a") as file:
        file.write('{"prompt": "new", "completion": "row"}\n')
    assert logged_in("job", "submit", job, "--yes").exit_code == 0
    assert len({request.submission_id for request in fake.submitted}) == 2


def test_a_submission_file_that_a_crash_left_empty_was_never_sent(
    logged_in: Run, fake: Fake, job: Path, home: Path
) -> None:
    fake.lose_answers = 6
    assert logged_in("job", "submit", job, "--yes").exit_code == 7
    (kept,) = (home / "state" / "submissions").iterdir()
    kept.write_text("")
    assert logged_in("job", "submit", job, "--yes").exit_code == 0


def test_an_interrupted_upload_goes_on_where_it_stopped(logged_in: Run, fake: Fake, job: Path, tmp_path: Path) -> None:
    big = tmp_path / "data" / "train.jsonl"
    big.write_text("".join(f'{{"prompt": "{number:08d}", "completion": "{"x" * 100}"}}\n' for number in range(20_000)))
    staged = tmp_path / "staged"
    staged.mkdir()
    (staged / "00000-train.jsonl").write_bytes(big.read_bytes())
    manifest = describe_folder(staged)
    assert manifest.leaf_count >= 2
    fake.manifests[manifest.id] = manifest
    fake.stored[manifest.id] = bytearray(big.read_bytes()[: 1 << 20])
    assert logged_in("job", "submit", job, "--yes").exit_code == 0
    assert (manifest.id, 1) in fake.uploads
    assert bytes(fake.stored[manifest.id]) == big.read_bytes()


def test_with_watch_it_follows_and_takes_over_the_job_s_end(logged_in: Run, fake: Fake, job: Path) -> None:
    fake.watch_script = [answer(event(1, "job.succeeded", "Done."), job=succeeded_job())]
    result = logged_in("job", "submit", job, "--yes", "--watch", "--json")
    assert result.exit_code == 0, result.stderr
    first, second, last = result.stdout.splitlines()
    assert '"id"' in first and '"job.succeeded"' in second and '"job.final"' in last and JOB_ID in last


# ---- on a terminal ----------------------------------------------------------------------------------------------


def test_on_a_terminal_it_shows_the_plan_asks_and_goes_on_with_yes(logged_in: Run, fake: Fake, job: Path) -> None:
    terminal = Terminal("job", "submit", job)
    asked = terminal.read_until("[y/N]")
    assert "SIMULATED 1,500 sat" in asked and "What is 0?" in asked
    assert fake.uploads == []
    terminal.type("y\n")
    assert terminal.finish() == 0
    assert next(iter(fake.jobs)) in terminal.text


def test_the_id_stands_on_a_line_of_its_own_and_not_behind_a_bar(logged_in: Run, fake: Fake, job: Path) -> None:
    terminal = Terminal("job", "submit", job, "--yes")
    assert terminal.finish() == 0
    before, found, after = terminal.text.partition(next(iter(fake.jobs)))
    assert "↑" in before, "a bar was drawn"
    last_line = re.split(r"\n|\r|\x1b\[2K", before)[-1]
    assert found and after.startswith("\r\n") and re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last_line) == ""


def test_no_submits_nothing(logged_in: Run, fake: Fake, job: Path) -> None:
    terminal = Terminal("job", "submit", job)
    terminal.read_until("[y/N]")
    terminal.type("n\n")
    assert terminal.finish() == 1
    assert "Nothing was submitted." in terminal.text
    assert fake.uploads == [] and fake.submitted == []


def test_ctrl_c_at_the_question_is_exit_130(logged_in: Run, fake: Fake, job: Path) -> None:
    terminal = Terminal("job", "submit", job)
    terminal.read_until("[y/N]")
    assert terminal.interrupt() == 130
    assert "Traceback" not in terminal.text and "Nothing was submitted." in terminal.text
    assert fake.submitted == []


def test_ctrl_c_while_submitting_can_be_repeated_without_paying_twice(
    logged_in: Run, fake: Fake, running: Running, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    settle = Fake.admit

    def admit(self: Fake, context: object) -> None:
        settle(self, context)
        if self.uploads and not reached.is_set() and len(self.uploads) == 3:
            reached.set()
            go_on.wait(30)

    monkeypatch.setattr(Fake, "admit", admit)
    terminal = Terminal("job", "submit", job, "--yes")
    assert reached.wait(30)
    assert terminal.interrupt() == 130
    assert "Traceback" not in terminal.text
    go_on.set()
    assert logged_in("job", "submit", job, "--yes").exit_code == 0
    assert len({request.submission_id for request in fake.submitted}) == 1
    assert len(fake.jobs) == 1
