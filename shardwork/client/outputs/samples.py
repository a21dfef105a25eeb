"""Samples of what a job's stages published, fetched as the small outputs that they are and read with care.

They are what whoever published the model says that it wrote, so nothing in them is trusted: not their size, their form
or their text. A report without them is still a report, so what can't be had is left out. Used by `job`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

from ... import transfer
from ...errors import ShardworkError
from ...session import Session
from ..results import JobStatus, Output, Sample

KIND = "samples"
FILE = "samples.json"
#: as the coordinator's own check of them
MOST_BYTES = 256 * 1024
MOST_SAMPLES = 16
MOST_LETTERS = 4000
#: a report does not wait longer for them than this
GIVE_UP_S = 15.0


async def fetch(session: Session, job: JobStatus, cache_dir: Path) -> tuple[Sample, ...]:
    """The samples of every stage, in the order of its outputs; kept below `cache_dir` for the next report."""
    found: list[Sample] = []
    for output in job.outputs:
        if output.kind == KIND and output.bytes <= MOST_BYTES:
            found += read(await _file(session, output, cache_dir / "samples"), output.name.partition(".")[0])
    return tuple(found)


async def _file(session: Session, output: Output, cache: Path) -> Path:
    into = cache / output.artifact_id
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        await transfer.download(session, output.artifact_id, into, give_up_s=GIVE_UP_S)
    except (ShardworkError, OSError):
        # changed by somebody, deleted on the other side, or a full disk: the next report may have them again
        shutil.rmtree(into, ignore_errors=True)
    return into / FILE


def read(file: Path, stage: str) -> list[Sample]:
    """What a samples file holds; what is no sample in it is left out."""
    try:
        entries: object = json.loads(file.read_text(encoding="utf-8"))["samples"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    if not isinstance(entries, list):
        return []
    chosen = cast("list[object]", entries)[:MOST_SAMPLES]
    return [made for each in chosen if (made := _sample(each, stage)) is not None]


def _sample(entry: object, stage: str) -> Sample | None:
    if not isinstance(entry, dict):
        return None
    known = cast("dict[str, object]", entry)
    texts = {key: value[:MOST_LETTERS] for key, value in known.items() if isinstance(value, str)}
    if "prompt" not in texts or "completion" not in texts:
        return None
    side = texts.get("side", "order")
    return Sample(
        stage=stage,
        prompt=texts["prompt"],
        completion=texts["completion"],
        base=texts.get("base"),
        expected=texts.get("expected", ""),
        side=side if side in ("held_out", "train") else "order",
    )
