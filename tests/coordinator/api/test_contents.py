"""An artifact's bytes over HTTP: many files read as one run, and whole whatever range is asked for."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator

import httpx
import pytest

from shardwork.artifact import LEAF_BYTES
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.records import Artifact, ArtifactState

from .stand import ANNA, Stand


async def folder(stand: Stand) -> tuple[str, dict[str, bytes]]:
    """The id of an artifact of Anna's, and its files: empty, small and of several leaves."""
    chance = random.Random(7)
    sizes = [0, 1, 511, 512, LEAF_BYTES, 2 * LEAF_BYTES + 3, 0, *(chance.randrange(2_000) for _ in range(40))]
    files = {f"part-{number:03d}.bin": chance.randbytes(size) for number, size in enumerate(sizes)}
    place = stand.folder / "many"
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    manifest = stand.desk.artifacts.contents.put_folder(place)
    row = Artifact(
        id=manifest.id,
        owner=ANNA,
        purpose="input",
        state=ArtifactState.STORED,
        bytes=manifest.total_bytes,
        leaves=manifest.leaf_count,
        created_ms=stand.clock.now_ms(),
    )
    await stand.store.write(lambda tx: tx.insert(row))
    return manifest.id, files


async def test_a_tar_of_many_files_is_read_as_one_run_and_whole_in_every_range(
    stand: Stand, anna: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, files = await folder(stand)
    runs: list[int] = []
    read = ArtifactStore.read_leaves

    def counted(store: ArtifactStore, artifact_id: str, first: int = 0, count: int | None = None) -> Iterator[bytes]:
        runs.append(first)
        return read(store, artifact_id, first, count)

    monkeypatch.setattr(ArtifactStore, "read_leaves", counted)
    path = f"/api/v1/artifacts/{artifact}/tar"
    whole = (await anna.get(path)).content
    assert len(runs) == 1
    unpacked: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(whole)) as found:
        for member in found.getmembers():
            content = found.extractfile(member)
            assert content is not None
            unpacked[member.name.partition("/")[2]] = content.read()
    assert unpacked == files
    chance = random.Random(8)
    for _ in range(12):
        first, last = sorted(chance.sample(range(len(whole)), 2))
        part = await anna.get(path, headers={"Range": f"bytes={first}-{last}"})
        assert part.status_code == 206 and part.content == whole[first : last + 1]
