"""Artifacts: the coordinator's stored content, by artifact id. Who may read and send it is `rpc.artifacts`.

    store     what the rest of the coordinator calls: stage, complete, read, put a folder, materialise one
    intake    frames of a stream, cut into whole leaves
    staging   one upload that is not whole yet, on the local disk, durable leaf by leaf
    packs     where each leaf of a manifest lies
    backend   where whole artifacts are kept: the Protocol, a local folder, an object store by URL
    disk      the few file operations that must survive a power cut
    quota     how much one party may fill with what nothing needs
    expiry    deletes what nobody finished or needs
    calls, turns, streams, writing    what is open right now or waits, and its way to a thread

The store's calls block; the event loop reaches them through threads. Another process opens the same location.
"""

from __future__ import annotations

from .store import ArtifactStore

__all__ = ["ArtifactStore"]
