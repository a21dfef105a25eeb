"""One key sends the same content twice at once: whoever comes second finds it done, and nothing is taken back."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from shardwork import transfer
from shardwork.artifact import LEAF_BYTES, describe_folder
from shardwork_coordinator.records import ArtifactState

from .service import NamedSession, fill, frames_of, serving
from .test_access import OWNER, begin, owns, send


async def test_a_stream_whose_upload_was_completed_by_another_one_is_complete(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=2 * LEAF_BYTES)
    manifest, data = describe_folder(folder), (folder / "a").read_bytes()
    async with serving(tmp_path / "store") as service:
        first, second = NamedSession(service.port, OWNER), NamedSession(service.port, OWNER)
        assert (await begin(second, manifest)).durable_leaves == 0
        await transfer.upload_folder(first, folder, purpose="input")
        answer = await send(second, frames_of(manifest.id, 0, data))
        assert answer.complete and answer.durable_leaves == 2
        assert list((tmp_path / "store" / "uploads").iterdir()) == []


async def test_uploads_of_the_same_content_at_once_all_end_well(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=LEAF_BYTES + 1, b=3)
    async with serving(tmp_path / "store") as service:
        sessions = [NamedSession(service.port, OWNER) for _ in range(6)]
        found = await asyncio.gather(*(transfer.upload_folder(one, folder, purpose="input") for one in sessions))
        row = await owns(service, found[0].id, OWNER)
        assert row is not None and row.state is ArtifactState.STORED
        assert list((tmp_path / "store" / "uploads").iterdir()) == []
        await transfer.download(sessions[0], found[0].id, tmp_path / "out")


async def test_an_upload_that_begins_while_another_one_completes_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second looked before the first was stored; its row must not go back to staging afterwards."""
    folder = fill(tmp_path / "in", a=5)
    manifest = describe_folder(folder)
    async with serving(tmp_path / "store") as service:
        session = NamedSession(service.port, OWNER)
        publishing, go_on = threading.Event(), threading.Event()
        complete = service.contents.complete

        def slow(artifact_id: str, *, owner: str = "") -> None:
            publishing.set()
            assert go_on.wait(20)
            complete(artifact_id, owner=owner)

        monkeypatch.setattr(service.contents, "complete", slow)
        first = asyncio.create_task(transfer.upload_folder(session, folder, purpose="input"))
        assert await asyncio.to_thread(publishing.wait, 20)
        second = asyncio.create_task(begin(NamedSession(service.port, OWNER), manifest))
        # far enough to look whether it may read the content already
        await asyncio.wait([second], timeout=0.05)
        go_on.set()
        assert (await second).complete
        await first
        row = await owns(service, manifest.id, OWNER)
        assert row is not None and row.state is ArtifactState.STORED
