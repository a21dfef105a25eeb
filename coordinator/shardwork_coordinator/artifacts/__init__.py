"""Artifacts: the coordinator's stored content, by artifact id. Bytes only; who may read them is `rpc.artifacts`.

    store     what the rest of the coordinator calls: stage, complete, read, put a folder, materialise one
    intake    frames of a stream, cut into whole leaves
    staging   one upload that is not whole yet, on the local disk, durable leaf by leaf
    packs     where each leaf of a manifest lies
    backend   where whole artifacts are kept: the Protocol, a local folder, an object store by URL
    disk      the few file operations that must survive a power cut

All calls block; the event loop reaches them through threads. Another process opens the same location.
"""

from __future__ import annotations

from .store import ArtifactStore

__all__ = ["ArtifactStore"]
