"""A coordinator that encrypts what it stores: jobs run, no word of theirs lies on its disk, their outputs come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import models
from .world import CALM, WORKERS, World

JOB = """\
name: sealed
stages:
  - name: words
    recipe: count
    data: text.txt
    plan: {shards_per_round: 2}
  - name: ground
    recipe: pretrain
    data: text.jsonl
    eval_fraction: 0.2
    params: {preset: tiny-1m, vocab_size: 288, max_length: 32, batch_size: 2}
    plan: {rounds: 1, shards_per_round: 2, inner_steps: 2}
trust: {class: public}
budget: {max_sats: 500}
"""
WORD = "unmistakable"


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "sealed", {**CALM, "SHARDWORK_ENCRYPT_AT_REST": "true"})
    try:
        world.start(*WORKERS, sats=1_000)
        yield world
    finally:
        world.stop()


def test_jobs_run_on_encrypted_artifacts(sealed: World) -> None:
    (sealed.folder / "text.txt").write_text(f"{WORD} words\n" * 1_000)
    models.write_text(sealed.folder / "text.jsonl")
    (sealed.folder / "sealed.yaml").write_text(JOB)
    job = sealed.submit("sealed.yaml")
    report = sealed.finish(job)
    assert report["state"] == "succeeded", report["why"]
    packs = [path for path in (sealed.folder / "coordinator" / "artifacts").rglob("*") if path.is_file()]
    assert packs and not [path for path in packs if WORD.encode() in path.read_bytes()]
    assert sealed.run("job", "download", job, "made").exit_code == 0
    assert WORD in (sealed.folder / "made" / "words.report" / "counts.json").read_text()
