"""What a refused call leaves behind: nothing, however large it was and however many there are."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from shardwork.artifact import FileEntry, Manifest
from shardwork.errors import LimitExceeded
from shardwork.v1 import artifacts_pb2 as pb
from shardwork_coordinator.artifacts.quota import ArtifactLimits

from .service import NamedSession, serving
from .test_access import OWNER

LEAVES = 3


async def test_a_refused_call_keeps_no_memory_until_a_collection(tmp_path: Path) -> None:
    """grpc holds the error, the error its frames, and those what the caller sent: 20 MB each, 2 GB in seconds."""
    raw = Manifest((FileEntry("a", LEAVES << 20, (bytes(32),) * LEAVES),)).to_bytes()
    request = pb.BeginUploadRequest(manifest=raw, purpose="input")
    async with serving(tmp_path / "store", ArtifactLimits(artifact_max_bytes=1)) as service:
        session = NamedSession(service.port, OWNER)
        gc.collect()
        before = held()
        gc.disable()
        try:
            for _ in range(5):
                with pytest.raises(LimitExceeded):
                    await session.call(session.artifacts.BeginUpload, request)
            # the server's side of the last call ends after its answer
            async with asyncio.timeout(20):
                while held() > before:
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()
        assert held() == before


def held() -> int:
    """Manifests of this size that something still holds."""
    # by type: `isinstance` asks every object of the process for its class, and some libraries' answer with a warning
    return sum(1 for one in gc.get_objects() if type(one) is Manifest and one.leaf_count == LEAVES)
