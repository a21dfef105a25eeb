"""The artifact store over a folder and over an object store: staging, resuming, publishing, reading."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shardwork.artifact import LEAF_BYTES, FileEntry, Manifest, describe_folder, leaves_of, verify_folder
from shardwork.errors import Conflict, Corrupt, InvalidInput, LimitExceeded, NotFound
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.artifacts import staging as staging_module
from shardwork_coordinator.artifacts import store as store_module
from shardwork_coordinator.artifacts.intake import Intake
from shardwork_coordinator.artifacts.packs import PACK_BYTES, Packs

from .service import fill

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStore]:
    location = tmp_path / "store" if request.param == "folder" else "memory://"
    opened = ArtifactStore.open(location, spool=tmp_path / "spool")
    yield opened
    opened.close()


def content(folder: Path, manifest: Manifest) -> bytes:
    return b"".join((folder / entry.path).read_bytes() for entry in manifest.files)


def fake(*sizes: int) -> Manifest:
    return Manifest(
        tuple(FileEntry(f"{at:05d}", size, (b"\0" * 32,) * leaves_of(size)) for at, size in enumerate(sizes))
    )


def test_a_folder_comes_back_whole(store: ArtifactStore, tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=66 * LEAF_BYTES + 1, empty=0, sub__b=3 * LEAF_BYTES)
    manifest = store.put_folder(folder)
    assert manifest == describe_folder(folder) == store.manifest(manifest.id)
    assert store.has(manifest.id) and store.put_folder(folder) == manifest
    assert b"".join(store.read_leaves(manifest.id)) == content(folder, manifest)
    assert b"".join(store.read_leaves(manifest.id, 60, 5)) == content(folder, manifest)[60 << 20 : 65 << 20]
    store.materialise(manifest.id, tmp_path / "out")
    verify_folder(tmp_path / "out", manifest)
    assert list((tmp_path / "spool").iterdir()) == []
    with pytest.raises(Conflict):
        store.materialise(manifest.id, tmp_path / "out")


def test_an_unknown_or_malformed_id_is_not_found(store: ArtifactStore, tmp_path: Path) -> None:
    for artifact_id in ("0" * 64, "", "../../etc", "A" * 64):
        assert not store.has(artifact_id)
        with pytest.raises(NotFound):
            store.manifest(artifact_id)
        with pytest.raises(NotFound):
            store.append(artifact_id, b"x")
        with pytest.raises(NotFound):
            store.materialise(artifact_id, tmp_path / "out")
    with pytest.raises(InvalidInput):
        store.begin(fake(5), owner="../x")


def test_a_bad_leaf_is_refused_and_the_good_ones_stay(store: ArtifactStore, tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=LEAF_BYTES, b=2 * LEAF_BYTES)
    manifest = describe_folder(folder)
    whole = content(folder, manifest)
    assert store.begin(manifest) == 0
    bad = whole[: 2 * LEAF_BYTES] + bytes([whole[2 * LEAF_BYTES] ^ 1]) + whole[2 * LEAF_BYTES + 1 :]
    with pytest.raises(Corrupt) as caught:
        store.append(manifest.id, bad)
    assert caught.value.why.evidence == {"file": "b", "leaf": "1"}
    with pytest.raises(Conflict) as early:
        store.complete(manifest.id)
    assert early.value.code == "artifact.incomplete"
    assert store.durable_leaves(manifest.id) == 2 and not store.has(manifest.id)
    store.append(manifest.id, whole[2 * LEAF_BYTES :])
    store.complete(manifest.id)
    assert b"".join(store.read_leaves(manifest.id)) == whole


def test_a_torn_leaf_and_data_beyond_the_end_are_refused(store: ArtifactStore, tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=LEAF_BYTES + 5)
    manifest = describe_folder(folder)
    whole = content(folder, manifest)
    store.begin(manifest)
    with pytest.raises(InvalidInput) as caught:
        store.append(manifest.id, whole[:-1])
    assert caught.value.code == "artifact.torn_leaf"
    with pytest.raises(InvalidInput):
        store.append(manifest.id, whole[LEAF_BYTES:] + b"x")


def test_a_restart_keeps_whole_leaves_and_drops_the_torn_tail(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=70 * LEAF_BYTES)
    manifest = describe_folder(folder)
    whole = content(folder, manifest)
    store = ArtifactStore.open(tmp_path / "store")
    store.begin(manifest, owner="aa")
    store.append(manifest.id, whole[: 67 * LEAF_BYTES], owner="aa")
    store.sync(manifest.id, owner="aa")
    pack = tmp_path / "store" / "uploads" / f"{manifest.id}.aa" / "1"
    with pack.open("ab") as file:
        file.write(whole[67 * LEAF_BYTES : 68 * LEAF_BYTES - 1])
    again = ArtifactStore.open(tmp_path / "store")
    assert again.begin(manifest, owner="aa") == 67
    assert pack.stat().st_size == 3 * LEAF_BYTES
    again.append(manifest.id, whole[67 * LEAF_BYTES :], owner="aa")
    again.complete(manifest.id, owner="aa")
    assert b"".join(again.read_leaves(manifest.id)) == whole


def test_a_tail_of_zeros_after_a_power_cut_does_not_count(tmp_path: Path) -> None:
    """A file system may bring back the length of a file without its content."""
    folder = fill(tmp_path / "in", a=5 * LEAF_BYTES)
    manifest = describe_folder(folder)
    store = ArtifactStore.open(tmp_path / "store")
    store.begin(manifest)
    store.append(manifest.id, content(folder, manifest)[: 4 * LEAF_BYTES])
    pack = tmp_path / "store" / "uploads" / f"{manifest.id}." / "0"
    os.truncate(pack, 2 * LEAF_BYTES)
    os.truncate(pack, 4 * LEAF_BYTES)
    assert ArtifactStore.open(tmp_path / "store").begin(manifest) == 2
    store.close()


def test_a_lost_pack_in_the_middle_drops_what_follows(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=130 * LEAF_BYTES)
    manifest = describe_folder(folder)
    store = ArtifactStore.open(tmp_path / "store")
    store.begin(manifest)
    store.append(manifest.id, content(folder, manifest)[: 129 * LEAF_BYTES])
    store.release(manifest.id)
    upload = tmp_path / "store" / "uploads" / f"{manifest.id}."
    (upload / "1").unlink()
    assert store.begin(manifest) == 64
    assert sorted(path.name for path in upload.iterdir()) == ["0", "manifest"]


def test_another_process_reads_by_location(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=10)
    manifest = ArtifactStore.open(tmp_path / "store").put_folder(folder)
    ArtifactStore.open(str(tmp_path / "store")).materialise(manifest.id, tmp_path / "out")
    verify_folder(tmp_path / "out", manifest)


@pytest.mark.parametrize("offset", [0, LEAF_BYTES, 2 * LEAF_BYTES + 9])
def test_a_flipped_bit_in_a_pack_is_found_on_read(tmp_path: Path, offset: int) -> None:
    store = ArtifactStore.open(tmp_path / "store")
    manifest = store.put_folder(fill(tmp_path / "in", a=2 * LEAF_BYTES, b=10))
    pack = tmp_path / "store" / "packs" / manifest.id / "0"
    data = bytearray(pack.read_bytes())
    data[offset] ^= 0x10
    pack.write_bytes(data)
    with pytest.raises(Corrupt) as caught:
        list(store.read_leaves(manifest.id))
    assert caught.value.code == "artifact.bad_leaf"
    with pytest.raises(Corrupt):
        store.materialise(manifest.id, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


@pytest.mark.parametrize("damage", ["short", "lost"])
def test_a_short_or_lost_pack_is_found_on_read(tmp_path: Path, damage: str) -> None:
    store = ArtifactStore.open(tmp_path / "store")
    manifest = store.put_folder(fill(tmp_path / "in", a=2 * LEAF_BYTES))
    pack = tmp_path / "store" / "packs" / manifest.id / "0"
    if damage == "short":
        os.truncate(pack, 5)
    else:
        pack.unlink()
    with pytest.raises(Corrupt):
        list(store.read_leaves(manifest.id))


def test_two_owners_of_one_content_share_it_and_not_their_uploads(store: ArtifactStore, tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=3 * LEAF_BYTES)
    manifest = describe_folder(folder)
    whole = content(folder, manifest)
    store.begin(manifest, owner="aa")
    store.append(manifest.id, whole[: 2 * LEAF_BYTES], owner="aa")
    assert store.begin(manifest, owner="bb") == 0
    store.append(manifest.id, whole, owner="bb")
    store.complete(manifest.id, owner="bb")
    assert store.begin(manifest, owner="aa") == 2
    store.append(manifest.id, whole[2 * LEAF_BYTES :], owner="aa")
    store.complete(manifest.id, owner="aa")
    assert b"".join(store.read_leaves(manifest.id)) == whole
    assert list((tmp_path / "spool").iterdir()) == []


def test_stale_uploads_are_swept_and_live_ones_stay(store: ArtifactStore, tmp_path: Path) -> None:
    stale, live = fake(5), fake(6)
    store.begin(stale, owner="aa")
    store.release(stale.id, owner="aa")
    store.begin(live, owner="aa")
    old = tmp_path / "spool" / f"{stale.id}.aa"
    for path in (*old.iterdir(), old):
        os.utime(path, (0, 0))
    assert store.discard_stale(3600) == 1
    assert [path.name for path in (tmp_path / "spool").iterdir()] == [f"{live.id}.aa"]


def test_a_full_disk_is_told_and_what_was_durable_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "in", a=3 * LEAF_BYTES)
    manifest = describe_folder(folder)
    whole = content(folder, manifest)
    store = ArtifactStore.open(tmp_path / "store")
    store.begin(manifest)
    store.append(manifest.id, whole[:LEAF_BYTES])
    full = [True]

    class Full(FileIO):
        def write(self, data: ReadableBuffer, /) -> int:
            if full[0]:
                super().write(bytes(100))
                raise OSError(28, "No space left on device")
            return super().write(data)

    store.sync(manifest.id)
    monkeypatch.setattr(staging_module, "FileIO", Full)
    with pytest.raises(LimitExceeded) as caught:
        store.append(manifest.id, whole[LEAF_BYTES:])
    assert caught.value.code == "artifact.no_space"
    full[0] = False
    store.append(manifest.id, whole[LEAF_BYTES:])
    store.complete(manifest.id)
    assert b"".join(store.read_leaves(manifest.id)) == whole


def test_packs_cover_every_leaf_once_and_never_split_one() -> None:
    manifest = fake(*[700] * 300, 63 * LEAF_BYTES, 5, 200 * LEAF_BYTES + 1, 0, 1)
    packs = Packs(manifest)
    assert [number for pack in range(packs.count) for number in packs.leaves(pack)] == list(range(manifest.leaf_count))
    assert sum(packs.size_bytes(pack) for pack in range(packs.count)) == manifest.total_bytes
    for pack in range(packs.count):
        end = 0
        for number in packs.leaves(pack):
            place = packs.place(number)
            assert (place.pack, place.offset_bytes) == (pack, end)
            assert place.size_bytes == manifest.leaf(number).size_bytes
            end += place.size_bytes
        assert end == packs.size_bytes(pack) <= PACK_BYTES
    assert packs.count == 5


@pytest.mark.parametrize("frame", [1000, LEAF_BYTES // 4, LEAF_BYTES, 3 * LEAF_BYTES])
def test_frames_of_any_cut_become_whole_leaves(frame: int) -> None:
    manifest = fake(10, 0, LEAF_BYTES + 7, 2 * LEAF_BYTES, 300)
    data = os.urandom(manifest.total_bytes)
    intake = Intake(manifest, 0)
    ends = {0}
    for leaf in manifest.each_leaf():
        ends.add(max(ends) + leaf.size_bytes)
    got = b""
    for start in range(0, len(data), frame):
        intake.add(data[start : start + frame])
        got += intake.take()
        assert len(got) in ends
    assert got == data
    with pytest.raises(InvalidInput):
        intake.add(b"x")


def test_what_a_failed_sync_may_have_lost_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux reports a lost write once, and the sync after it succeeds."""
    store = ArtifactStore.open(tmp_path / "store")
    folder = fill(tmp_path / "in", a=66 * LEAF_BYTES)
    manifest, data = describe_folder(folder), (folder / "a").read_bytes()
    store.begin(manifest)
    store.append(manifest.id, data[: 2 * LEAF_BYTES])
    assert store.sync(manifest.id) == 2
    sync, failures = os.fsync, [OSError(errno.EIO, "lost")]

    def failing(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        sync(descriptor)

    store.append(manifest.id, data[2 * LEAF_BYTES : 5 * LEAF_BYTES])
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="lost"):
        store.sync(manifest.id)
    assert store.sync(manifest.id) == store.durable_leaves(manifest.id) == 2
    # and also when it was the sync of a full pack, in the middle of a batch
    failures.append(OSError(errno.EIO, "lost"))
    with pytest.raises(OSError, match="lost"):
        store.append(manifest.id, data[2 * LEAF_BYTES :])
    assert store.sync(manifest.id) == 2
    assert store.append(manifest.id, data[2 * LEAF_BYTES :]) == 66
    store.complete(manifest.id)
    assert b"".join(store.read_leaves(manifest.id)) == data


def test_an_upload_that_begins_while_its_leftovers_are_deleted_is_not_deleted_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest = ArtifactStore.open(tmp_path / "store"), fake(5)
    store.begin(manifest)
    store.release(manifest.id)
    delete = staging_module.delete_folder
    beginning = threading.Thread(target=store.begin, args=(manifest,))

    def slow(folder: Path) -> None:
        beginning.start()
        # as far as it gets while the folder is not deleted yet
        beginning.join(0.05)
        delete(folder)

    monkeypatch.setattr(store_module, "delete_folder", slow)
    assert store.discard_stale(-1.0) == 1
    beginning.join(20)
    assert store.durable_leaves(manifest.id) == 0 and store.upload_manifest(manifest.id) == manifest
    assert (tmp_path / "store" / "uploads" / f"{manifest.id}." / "manifest").exists()
