"""Samples that come with a report: fetched, kept, and believed in nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardwork import Client
from shardwork.artifact import FileEntry, Manifest, leaf_digest
from shardwork.client.outputs.samples import MOST_BYTES, MOST_LETTERS, MOST_SAMPLES, read
from shardwork.v1 import jobs_pb2
from tests.client.fake_coordinator import Fake
from tests.client.sample_jobs import JOB_ID, report, succeeded_job

ONE = {"prompt": "Who?", "completion": "Me.", "base": "…", "expected": "You.", "side": "held_out"}


def offer(fake: Fake, text: bytes, *, told_bytes: int | None = None) -> str:
    """A job whose report comes with a samples output of this content; its artifact's id."""
    entry = FileEntry(path="samples.json", size=len(text), leaves=(leaf_digest(text),))
    artifact_id = fake.store_artifact(Manifest((entry,)), text)
    output = jobs_pb2.OutputView(name="sft.samples", kind="samples", artifact_id=artifact_id)
    output.bytes = len(text) if told_bytes is None else told_bytes
    answer = report()
    answer.job.outputs.append(output)
    fake.jobs[JOB_ID], fake.reports[JOB_ID] = succeeded_job(), answer
    return artifact_id


def test_a_report_brings_the_samples_and_keeps_them(client: Client, fake: Fake) -> None:
    offer(fake, json.dumps({"samples": [ONE]}).encode())
    (sample,) = client.job(JOB_ID).report().samples
    assert (sample.stage, sample.prompt, sample.completion, sample.base) == ("sft", "Who?", "Me.", "…")
    assert (sample.expected, sample.side) == ("You.", "held_out")
    fetched = len(fake.downloads)
    assert client.job(JOB_ID).report().samples == (sample,)
    assert len(fake.downloads) == fetched


def test_samples_that_cannot_be_had_leave_the_report_as_it_is(client: Client, fake: Fake) -> None:
    artifact_id = offer(fake, json.dumps({"samples": [ONE]}).encode())
    fake.stored[artifact_id][5] ^= 1
    found = client.job(JOB_ID).report()
    assert found.samples == () and len(found.workers) == 2


def test_samples_larger_than_samples_are_not_fetched(client: Client, fake: Fake) -> None:
    offer(fake, json.dumps({"samples": [ONE]}).encode(), told_bytes=MOST_BYTES + 1)
    assert client.job(JOB_ID).report().samples == ()
    assert fake.downloads == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"samples": 3}',
        '{"samples": [1, {"prompt": "x"}, {"prompt": 1, "completion": "y"}]}',
        "[" * 9999,
    ],
)
def test_what_is_no_sample_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "samples.json").write_text(text)
    assert read(tmp_path / "samples.json", "sft") == []


def test_long_texts_and_many_samples_are_cut(tmp_path: Path) -> None:
    many = [{"prompt": "x" * 9999, "completion": "y", "side": "nonsense"}] * 99
    (tmp_path / "samples.json").write_text(json.dumps({"samples": many}))
    found = read(tmp_path / "samples.json", "sft")
    assert len(found) == MOST_SAMPLES
    assert (len(found[0].prompt), found[0].side, found[0].base) == (MOST_LETTERS, "order", None)
