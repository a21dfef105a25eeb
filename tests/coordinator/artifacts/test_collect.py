"""Deleting bytes: kill -9 in the middle, an upload of the same content at the same moment, a second coordinator."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore, MemoryStore

from shardwork.artifact import Manifest, describe_folder, verify_folder
from shardwork.errors import Unreachable
from shardwork_coordinator.artifacts import ArtifactStore, backend, objects
from shardwork_coordinator.artifacts.backend import FolderBackend
from shardwork_coordinator.artifacts.objects import DYING, ObjectBackend, key
from shardwork_coordinator.artifacts.store import UNUSED_S

from .service import fill

#: deletes one artifact that nobody used for long, and dies where it is told to
SCRIPT = """
import sys
from pathlib import Path
from obstore.store import LocalStore
from shardwork_coordinator.artifacts.backend import FolderBackend
from shardwork_coordinator.artifacts.objects import ObjectBackend
kind, root, artifact = sys.argv[1:]
made = FolderBackend(Path(root)) if kind == "folder" else ObjectBackend(LocalStore(root))
made.delete(artifact, unused_s=0.0)
"""


def open_store(kind: str, root: Path, spool: Path) -> ArtifactStore:
    root.mkdir(exist_ok=True)
    made = FolderBackend(root) if kind == "folder" else ObjectBackend(LocalStore(str(root)))
    return ArtifactStore(made, spool)


def holds(store: ArtifactStore, manifest: Manifest, into: Path) -> bool:
    store.materialise(manifest.id, into)
    verify_folder(into, manifest)
    return True


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("folder", "effect:set_aside:after"),
        ("objects", "effect:mark_dying:after"),
        ("objects", "effect:remove_objects:before"),
        ("objects", "effect:remove_objects:after"),
    ],
)
def test_a_kill_in_the_middle_of_a_deletion_loses_nothing_that_is_sent_again(
    tmp_path: Path, kind: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(kind, tmp_path / "store", tmp_path / "spool")
    dying, other = store.put_folder(fill(tmp_path / "a", a=3)), store.put_folder(fill(tmp_path / "b", b=5))
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, str(tmp_path / "store"), dying.id],
        env={**os.environ, "SHARDWORK_FAILPOINT": place},
        check=False,
        timeout=60,
        capture_output=True,
    )
    assert found.returncode == -9, found.stderr
    # the coordinator that comes next ends what is old, and leaves alone what another may be about
    store.discard_stale(60.0)
    left = [path for path in (tmp_path / "store" / "packs").glob("*/*") if path.name not in ("0", "manifest", DYING)]
    assert left == []
    monkeypatch.setattr(objects, "DEAD_S", -1.0)
    monkeypatch.setattr(backend, "DEAD_S", -1.0)
    store.discard_stale(60.0)
    assert not store.has(dying.id) and store.ids() in ([other.id], sorted([other.id, dying.id]))
    assert store.put_folder(tmp_path / "a") == dying
    assert holds(store, dying, tmp_path / "out") and holds(store, other, tmp_path / "other")


def test_what_was_kept_just_before_a_killed_deletion_set_it_aside_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload was told "it is here" and wrote its row; the deletion did not live to look again."""
    store = open_store("folder", tmp_path / "store", tmp_path / "spool")
    kept = store.put_folder(fill(tmp_path / "a", a=3))
    packs = tmp_path / "store" / "packs"
    now_s = int((packs / kept.id / "manifest").stat().st_mtime)
    (packs / kept.id).rename(packs / f".{kept.id}.{now_s}.3600.00aa")
    store.discard_stale(60.0)
    assert not store.has(kept.id), "somebody may be about it"
    monkeypatch.setattr(backend, "DEAD_S", -1.0)
    store.discard_stale(60.0)
    assert holds(store, kept, tmp_path / "out")


def at_mark(made: ObjectBackend, monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]) -> None:
    """Runs `work` when a deletion has left its mark and has not looked again."""

    def hit(name: str, _: str) -> None:
        if name == "effect:mark_dying":
            work()

    monkeypatch.setattr(objects, "hit", hit)


def test_an_upload_that_meets_a_deletion_in_an_object_store_wins_or_sends_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two coordinators on one bucket: what `keep` promised is there afterwards, whoever came first."""
    made = ObjectBackend(MemoryStore())
    store = ArtifactStore(made, tmp_path / "spool")
    manifest = store.put_folder(fill(tmp_path / "a", a=3))
    promised: list[bool] = []
    at_mark(made, monkeypatch, lambda: promised.append(made.keep(manifest.id)))
    # nothing is young: the deletion goes on, so the other must not have been told that it is there
    assert made.delete(manifest.id, unused_s=0.0) and promised == [False] and not made.has(manifest.id)
    store.put_folder(tmp_path / "a")
    # it was old when the deletion looked first, and is young when it looks again: the deletion gives up
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + 2 * UNUSED_S)
    at_mark(made, monkeypatch, lambda: monkeypatch.setattr("time.time", real))
    assert not made.delete(manifest.id, unused_s=UNUSED_S) and holds(store, manifest, tmp_path / "out")


def test_a_publication_waits_until_a_deletion_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ObjectBackend(MemoryStore())
    store = ArtifactStore(made, tmp_path / "spool")
    manifest = store.put_folder(fill(tmp_path / "a", a=3))
    marked, looked = threading.Event(), threading.Event()

    def meet() -> None:
        marked.set()
        looked.wait(10)

    at_mark(made, monkeypatch, meet)
    deleting = threading.Thread(target=lambda: made.delete(manifest.id, unused_s=0.0))
    deleting.start()
    assert marked.wait(10)
    publishing = threading.Thread(target=lambda: store.put_folder(tmp_path / "a"))
    publishing.start()
    looked.set()
    deleting.join(10)
    publishing.join(10)
    assert holds(store, manifest, tmp_path / "out")
    # one that never ends is not waited for without end
    obstore.put(made.store, key(manifest.id, DYING), b"")
    monkeypatch.setattr(objects, "WAIT_S", 0.0)
    with pytest.raises(Unreachable) as caught:
        store.put_folder(tmp_path / "a")
    assert caught.value.code == "artifact.being_deleted"


@pytest.mark.parametrize("kind", ["folder", "objects"])
def test_packs_without_a_manifest_are_listed_and_collected_when_old(tmp_path: Path, kind: str) -> None:
    """What a crash in the middle of a publication leaves in an object store."""
    store = open_store(kind, tmp_path / "store", tmp_path / "spool")
    half = describe_folder(fill(tmp_path / "a", a=3))
    (tmp_path / "store" / "packs" / half.id).mkdir(parents=True)
    (tmp_path / "store" / "packs" / half.id / "0").write_bytes(b"abc")
    assert store.ids() == [half.id] and not store.has(half.id)
    assert not store.delete(half.id), "it is young"
    store.put_folder(tmp_path / "a")
    assert holds(store, half, tmp_path / "out")
