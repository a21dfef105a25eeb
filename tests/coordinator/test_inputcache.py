"""The input cache saves reads, keeps its limit and never takes files from a task."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardwork.errors import NotFound
from shardwork_coordinator import inputcache
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.inputcache import InputCache


class Counting(ArtifactStore):
    """Counts how often content left the store."""

    reads = 0

    def materialise(self, artifact_id: str, into: Path):  # type: ignore[no-untyped-def]
        self.reads += 1
        return super().materialise(artifact_id, into)


def stored(store: ArtifactStore, root: Path, content: str) -> str:
    folder = root / f"source-{content[:8]}"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text(content)
    return store.put_folder(folder).id


def open_store(root: Path) -> Counting:
    store = Counting.open(str(root / "artifacts"))
    assert isinstance(store, Counting)
    return store


def test_an_artifact_is_read_once(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    cache = InputCache(tmp_path / "cache", store, limit_bytes=10**6)
    artifact = stored(store, tmp_path, "hello")
    for number in range(3):
        folder = cache.link(artifact, tmp_path / f"task-{number}" / "in")
        assert (folder / "sub" / "file").read_text() == "hello"
    assert store.reads == 1


def test_kept_outputs_are_not_read_at_all(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    cache = InputCache(tmp_path / "cache", store, limit_bytes=10**6)
    artifact = stored(store, tmp_path, "made here")
    cache.keep(artifact, tmp_path / "source-made her")
    cache.link(artifact, tmp_path / "in")
    assert store.reads == 0


def test_what_was_unused_for_longest_goes_first_and_tasks_keep_their_files(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    cache = InputCache(tmp_path / "cache", store, limit_bytes=2500)
    first, second, third = (stored(store, tmp_path, name * 1000) for name in "abc")
    cache.link(first, tmp_path / "in-first")
    cache.link(second, tmp_path / "in-second")
    os.utime(tmp_path / "cache" / first, (1, 1))
    os.utime(tmp_path / "cache" / second, (2, 2))
    cache.link(first, tmp_path / "again")  # now the second is the older one
    cache.link(third, tmp_path / "in-third")
    kept = {path.name for path in (tmp_path / "cache").iterdir()}
    assert second not in kept
    assert (tmp_path / "in-second" / "sub" / "file").read_text() == "b" * 1000


def test_a_missing_artifact_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = InputCache(tmp_path / "cache", open_store(tmp_path), limit_bytes=100)
    with pytest.raises(NotFound):
        cache.link("0" * 64, tmp_path / "in")
    assert not (tmp_path / "in").exists() and list((tmp_path / "cache").iterdir()) == []


def test_many_tiny_artifacts_are_bounded_by_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputcache, "MOST_ENTRIES", 2)
    store = open_store(tmp_path)
    cache = InputCache(tmp_path / "cache", store, limit_bytes=10**6)
    ids = [stored(store, tmp_path, name) for name in "abc"]
    for age, artifact_id in enumerate(ids):
        cache.link(artifact_id, tmp_path / f"in-{age}")
        os.utime(tmp_path / "cache" / artifact_id, (age, age))
    cache.link(ids[2], tmp_path / "again")
    cache.keep(ids[2], tmp_path / "again")
    assert {path.name for path in (tmp_path / "cache").iterdir()} == set(ids[1:])


def test_on_a_full_disk_everything_goes_and_tasks_keep_their_files(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    cache = InputCache(tmp_path / "cache", store, limit_bytes=10**6)
    artifact = stored(store, tmp_path, "hello")
    folder = cache.link(artifact, tmp_path / "in")
    cache.make_room()
    assert list((tmp_path / "cache").iterdir()) == [] and (folder / "sub" / "file").read_text() == "hello"
    cache.link(artifact, tmp_path / "again")
    assert store.reads == 2
