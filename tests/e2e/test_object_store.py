"""A job whose bytes lie in an S3-compatible bucket: client, workers and executor reach it, the first two by addresses
that the coordinator signs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..s3_stand import BUCKET, KEY, REGION, S3, SECRET, s3_server
from . import models
from .world import CALM, WORKERS, World

#: large enough to go past the coordinator, as a million parameters with their moments in fp32 are
TEXT_BYTES = 5 << 20
JOB = """\
name: bucket
stages:
  - name: words
    recipe: count
    data: text.txt
    plan: {shards_per_round: 2}
  - name: ground
    recipe: pretrain
    data: text.jsonl
    eval_fraction: 0.2
    params: {preset: tiny-1m, vocab_size: 288, max_length: 32, batch_size: 2, encoding: fp32}
    plan: {rounds: 1, shards_per_round: 2, inner_steps: 2}
trust: {class: public}
budget: {max_sats: 500}
"""


@pytest.fixture
def s3() -> Iterator[S3]:
    with s3_server() as served:
        yield served


@pytest.fixture
def bucket(s3: S3, tmp_path: Path) -> Iterator[World]:
    """A coordinator that keeps everything below a prefix of the bucket, with two workers."""
    settings = {
        **CALM,
        "SHARDWORK_STORAGE": f"s3://{BUCKET}/somewhere",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3.port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        # where uploads over gRPC wait until they are whole
        "TMPDIR": str(tmp_path),
    }
    world = World(tmp_path / "bucket", settings)
    try:
        world.start(*WORKERS, sats=1_000)
        yield world
    finally:
        world.stop()


@pytest.mark.nightly
def test_a_bucket_that_is_away_for_a_while_costs_time_and_no_attempt(bucket: World, s3: S3) -> None:
    """Longer than the store's own retries last, while the executor prepares and while workers fetch and hand in."""
    (bucket.folder / "text.txt").write_text("one two\n" * 1_000)
    models.write_text(bucket.folder / "text.jsonl")
    (bucket.folder / "bucket.yaml").write_text(JOB.replace("rounds: 1", "rounds: 3"))
    job = bucket.submit("bucket.yaml")
    for _ in range(3):
        time.sleep(2)
        s3.away = True
        time.sleep(12)
        s3.away = False
    report = bucket.finish(job)
    assert report["state"] == "succeeded", report["why"]
    logs = bucket.run("job", "logs", job, "--json").stdout
    assert "accepted" in logs and "expired" not in logs and "released" not in logs and "again" not in logs


def test_a_jobs_bytes_go_straight_between_the_bucket_and_everybody_who_works(bucket: World, s3: S3) -> None:
    line = "one two two three three three\n"
    (bucket.folder / "text.txt").write_text(line * (TEXT_BYTES // len(line) + 1))
    models.write_text(bucket.folder / "text.jsonl")
    (bucket.folder / "bucket.yaml").write_text(JOB)
    job = bucket.submit("bucket.yaml")
    assert s3.served["PUT", "signed"] == 1, "the text went from the client to the bucket"
    report = bucket.finish(job)
    assert report["state"] == "succeeded", report["why"]
    assert s3.served["PUT", "signed"] == 1 + 2, "and so did what each worker learned"
    asked = s3.served["GET", "signed"]
    assert asked > 0, "the checkpoint came from the bucket to whoever published it"
    bucket.succeed("job", "download", job, "made")
    assert s3.served["GET", "signed"] > asked, "and to the client"
    assert not s3.refused
    assert {name.partition("/")[0] for name in s3.objects} == {"somewhere"}
    assert not [name for name in s3.objects if "incoming" in name or "checking" in name], "nothing is left on the way"
    counted = json.loads((bucket.folder / "made" / "words.report" / "counts.json").read_text())
    lines = TEXT_BYTES // len(line) + 1
    assert counted["counts"] == {"one": lines, "two": 2 * lines, "three": 3 * lines}
    assert not (bucket.folder / "coordinator" / "artifacts").exists()
