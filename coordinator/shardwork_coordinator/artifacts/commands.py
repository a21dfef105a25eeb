"""`storage show` and `storage sweep`: the operator's look at artifacts, without a server. Called by `cli`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardwork.clock import SystemClock

from ..policy.changes import in_force
from ..records import Artifact, ArtifactState
from ..settings import Settings
from ..store.base import Store
from .expiry import Expiry
from .figures import KINDS, StorageFigures
from .opening import artifact_limits, open_contents


async def show(settings: Settings, open_store: Callable[[Settings], Store]) -> dict[str, Any]:
    """Figures by kind, and what is in force."""
    store, figures = open_store(settings), StorageFigures()
    try:
        figures.count(await store.read(lambda tx: tx.find(Artifact, state=ArtifactState.STORED)))
        limits = artifact_limits(await store.read(lambda tx: in_force(tx, settings)))
    finally:
        store.close()
    return {
        **{f"{kind}_bytes": figures.bytes[kind] for kind in KINDS},
        "artifacts": figures.artifacts.total(),
        "bytes": figures.bytes.total(),
        "owner_max_bytes": limits.owner_max_bytes,
        "loose_max_bytes": limits.loose_max_bytes,
        "loose_hours": limits.keep_s / 3600,
        "keep_days": limits.ages.keep_days,
        "keep_outputs_days": limits.ages.keep_outputs_days,
    }


async def sweep(settings: Settings, open_store: Callable[[Settings], Store], *, dry_run: bool) -> dict[str, Any]:
    """One sweep, with what it deleted or would delete."""
    store, contents = open_store(settings), open_contents(settings)
    try:
        limits = artifact_limits(await store.read(lambda tx: in_force(tx, settings)))
        expiry = Expiry(store, contents, SystemClock(), limits)
        swept = await expiry.sweep(dry_run=dry_run)
    finally:
        contents.close()
        store.close()
    return {"uploads": swept.uploads, "rows": swept.rows, "artifacts": swept.artifacts, "bytes": swept.bytes}
