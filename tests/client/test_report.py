"""`job report`: the same parts in a terminal and in one file; a file is written whole or stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardwork.artifact import FileEntry, Manifest, leaf_digest
from shardwork.v1 import jobs_pb2

from .conftest import Run, error_of, json_of
from .fake_coordinator import Fake
from .sample_jobs import JOB_ID, report, succeeded_job

SAMPLE = {
    "prompt": "Which is longer?",
    "completion": "The Nile.",
    "base": "zzz",
    "expected": "The Po.",
    "side": "train",
}


@pytest.fixture
def reported(fake: Fake) -> Fake:
    """A job with a report, its price, and a sample."""
    text = json.dumps({"samples": [SAMPLE]}).encode()
    entry = FileEntry(path="samples.json", size=len(text), leaves=(leaf_digest(text),))
    artifact_id = fake.store_artifact(Manifest((entry,)), text)
    answer = report()
    answer.job.outputs.add(name="sft.samples", kind="samples", artifact_id=artifact_id, bytes=len(text))
    answer.quote.CopyFrom(
        jobs_pb2.Quote(estimate_low_msat=1_300_000, estimate_high_msat=2_000_000, reserve_msat=2_000_000)
    )
    answer.spent.add(phase="learn", results=18, paid_msat=1_376_000)
    fake.jobs[JOB_ID], fake.reports[JOB_ID] = succeeded_job(), answer
    return fake


def test_the_terminal_shows_samples_and_where_the_sats_went(logged_in: Run, reported: Fake) -> None:
    page = logged_in("job", "report", JOB_ID).stdout
    for text in (
        "Which is longer?",
        "zzz",
        "The Nile.",
        "The Po.",
        "1,300 – 2,000 sat",
        "1,376 sat",
        "28 sat",
        "learn",
    ):
        assert text in page


def test_the_file_holds_the_report_and_json_still_goes_to_stdout(
    logged_in: Run, reported: Fake, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    told = logged_in("job", "report", JOB_ID, "--html", path)
    assert told.exit_code == 0 and told.stdout == "" and f"✓ Wrote {path}" in told.stderr
    text = path.read_text()
    for part in ("tutor", "alice", "The Nile.", "self-evaluated", "<svg"):
        assert part in text
    both = json_of(logged_in("job", "report", JOB_ID, "--html", path, "--json"))
    assert both["fees_msat"] == 28_000 and both["quote"]["estimate_msat"] == {"low": 1_300_000, "high": 2_000_000}
    assert both["samples"] == [{**SAMPLE, "stage": "sft"}]
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_a_folder_that_is_not_there_is_told_and_nothing_is_left(logged_in: Run, reported: Fake, tmp_path: Path) -> None:
    refused = logged_in("job", "report", JOB_ID, "--html", tmp_path / "none" / "report.html", "--json")
    assert (refused.exit_code, error_of(refused)["code"]) == (1, "client.file")
    assert logged_in("job", "report", JOB_ID, "--html", tmp_path).exit_code == 2


def test_each_iteration_of_a_loop_has_a_line(logged_in: Run, reported: Fake) -> None:
    stage = reported.reports[JOB_ID].job.stages[0]
    stage.iteration, stage.spent_msat, stage.reward_start, stage.reward_best = 2, 5_000, 0.25, 0.5
    stage.win_rate.CopyFrom(jobs_pb2.WinRate(value=0.6, low=0.5, high=0.7))
    page = logged_in("job", "report", JOB_ID).stdout
    for text in ("iterations", "0.25 → 0.5", "60% (50% – 70%)", "5 sat"):
        assert text in page
    [line] = json_of(logged_in("job", "report", JOB_ID, "--json"))["iterations"]
    assert line == {
        "iteration": 2,
        "reward_start": 0.25,
        "reward_best": 0.5,
        "loss_start": None,
        "loss_best": None,
        "accuracy": None,
        "kl": None,
        "length": None,
        "win_rate": {"value": 0.6, "low": 0.5, "high": 0.7},
        "cost_msat": 5_000,
        "state": stage.state,
        "why": None,
    }
