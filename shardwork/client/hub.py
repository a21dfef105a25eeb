"""`hub:` and `offered:` models on the requester's side: pinned and described by the coordinator, never downloaded here.

A plan needs config, tokenizer and shapes; they come as one small artifact and are unfolded into the cache folder, which
keeps a few of them. Used by `plan` and `submit`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import transfer
from ..errors import Corrupt
from ..jobs.spec import JobSpec
from ..models.hub import is_remote, unfold
from ..session import Session
from ..v1 import models_pb2
from .progress import OnProgress, told

#: models kept in the cache folder: their tokenizers take tens of megabytes
KEPT_MAX = 10
POLL_S = 0.5
FETCH_S = 120.0


@dataclass(frozen=True, slots=True)
class HubChoice:
    """A reference as pinned, and a stand-in for the model's folder."""

    pinned: str
    folder: Path


def references(spec: JobSpec) -> list[str]:
    """The models that a job names and the coordinator holds."""
    named = (stage.base_model or "" for stage in spec.stages)
    return list(dict.fromkeys(name for name in named if is_remote(name)))


async def resolve(session: Session, named: Sequence[str], cache_dir: Path) -> dict[str, HubChoice]:
    """Reference -> choice, for every one of `references`. Raises NotAllowed "hub.not_allowed" and what the
    coordinator's hub says."""
    return {each: await _resolve(session, each, cache_dir / "hub") for each in named}


async def mirror(session: Session, pinned: str, *, on_progress: OnProgress | None = None) -> str:
    """Waits until the coordinator holds a copy; its artifact id."""
    progress = told(on_progress, f"{pinned.partition('@')[0]} → coordinator")
    while True:
        answer = await session.call(
            session.models.MirrorModel, models_pb2.MirrorModelRequest(pinned=pinned), timeout_s=FETCH_S
        )
        if progress is not None and answer.total_bytes:
            progress(answer.done_bytes, answer.total_bytes)
        if answer.complete:
            return answer.artifact_id
        await asyncio.sleep(POLL_S)


async def _resolve(session: Session, reference: str, cache: Path) -> HubChoice:
    answer = await session.call(
        session.models.ResolveModel, models_pb2.ResolveModelRequest(reference=reference), timeout_s=FETCH_S
    )
    place = cache / answer.facts_artifact_id
    facts, model = place / "facts", place / "model"
    try:
        await transfer.download(session, answer.facts_artifact_id, facts)
    except Corrupt:
        # somebody changed it here
        shutil.rmtree(place, ignore_errors=True)
        await transfer.download(session, answer.facts_artifact_id, facts)
    await asyncio.to_thread(unfold, facts, model)
    os.utime(place)
    _trim(cache)
    return HubChoice(answer.pinned, model)


def _trim(cache: Path) -> None:
    """Keeps the latest few; whatever is missing is fetched again."""
    newest = sorted(cache.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in newest[KEPT_MAX:]:
        shutil.rmtree(old, ignore_errors=True)
