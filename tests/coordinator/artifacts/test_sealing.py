"""Encryption at rest: what lies on the disk, ranges, resuming, keys that are wrong or gone, stores from before."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

import pytest

from shardwork import transfer
from shardwork.artifact import LEAF_BYTES, Manifest, describe_folder, verify_folder
from shardwork.errors import Conflict, Corrupt, InvalidInput, NotAllowed
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.artifacts.packs import PACK_BYTES, Packs
from shardwork_coordinator.artifacts.sealing import OVERHEAD_BYTES, PLAIN, Sealer

from .service import NamedSession, fill, serving
from .test_access import OWNER

SECRET = b"nobody reads this " * 200_000


def sealer(folder: Path) -> Sealer:
    return Sealer.load_or_create(folder / "keys" / "storage.key")


def write_secret(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "secret-name.txt").write_bytes(SECRET)
    (folder / "sub" / "empty").write_bytes(b"")
    return folder


def on_disk(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())


@pytest.mark.parametrize("location", ["folder", "memory"])
def test_sealed_content_reads_as_any_other_and_ranges_too(tmp_path: Path, location: str) -> None:
    place = tmp_path / "store" if location == "folder" else "memory://"
    store = ArtifactStore.open(place, spool=tmp_path / "store" / "uploads", sealer=sealer(tmp_path))
    manifest = store.put_folder(write_secret(tmp_path / "in"))
    store.materialise(manifest.id, tmp_path / "out")
    verify_folder(tmp_path / "out", manifest)
    [middle] = store.read_leaves(manifest.id, 1, 1)
    assert middle == SECRET[LEAF_BYTES : 2 * LEAF_BYTES]
    written = on_disk(tmp_path / "store")
    assert b"nobody reads" not in written and b"secret-name" not in written


async def test_an_upload_into_a_sealed_store_is_sealed_from_its_first_leaf_and_resumes(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as service:
        service.contents = service.desk.contents = ArtifactStore.open(tmp_path / "store", sealer=sealer(tmp_path))
        manifest = describe_folder(write_secret(tmp_path / "in"))
        service.contents.begin(manifest, owner=OWNER)
        service.contents.append(manifest.id, SECRET[:LEAF_BYTES], owner=OWNER)
        service.contents.close()
        assert b"nobody reads" not in on_disk(tmp_path / "store")
        # after a crash in the middle of a leaf
        with next((tmp_path / "store" / "uploads").glob("*/0")).open("ab") as torn:
            torn.write(b"half a leaf")
        service.desk.contents = ArtifactStore.open(tmp_path / "store", sealer=sealer(tmp_path))
        assert service.desk.contents.begin(manifest, owner=OWNER) == 1
        session = NamedSession(service.port, OWNER)
        await transfer.upload_folder(session, tmp_path / "in", purpose="input")
        await transfer.download(session, manifest.id, tmp_path / "out")
        assert (tmp_path / "out" / "secret-name.txt").read_bytes() == SECRET


def test_a_store_from_before_is_read_and_what_is_new_is_sealed(tmp_path: Path) -> None:
    old = ArtifactStore.open(tmp_path / "store").put_folder(fill(tmp_path / "old", a=5))
    begun = describe_folder(write_secret(tmp_path / "in"))
    half = ArtifactStore.open(tmp_path / "store")
    half.begin(begun)
    half.append(begun.id, SECRET[:LEAF_BYTES])
    half.close()
    sealed = ArtifactStore.open(tmp_path / "store", sealer=sealer(tmp_path))
    sealed.materialise(old.id, tmp_path / "out")
    assert sealed.begin(begun) == 1, "an upload goes on as it began"
    new = sealed.put_folder(fill(tmp_path / "new", a=5))
    # turned off again: everything is still read, and nothing more is sealed
    plain = ArtifactStore.open(tmp_path / "store", sealer=Sealer.load(tmp_path / "keys" / "storage.key", seals=False))
    plain.materialise(new.id, tmp_path / "out-new")
    later = plain.put_folder(fill(tmp_path / "later", a=7))
    assert (tmp_path / "later" / "a").read_bytes() in on_disk(tmp_path / "store" / "packs" / later.id)


def test_a_wrong_or_missing_key_is_found_at_start(tmp_path: Path) -> None:
    manifest = ArtifactStore.open(tmp_path / "store", sealer=sealer(tmp_path)).put_folder(fill(tmp_path / "in", a=5))
    for wrong in (sealer(tmp_path / "other"), None):
        with pytest.raises(Conflict) as caught:
            ArtifactStore.open(tmp_path / "store", sealer=wrong or PLAIN)
        assert caught.value.code == "storage.wrong_key"
        assert caught.value.why.evidence["needed"] == sealer(tmp_path).current
    # a new key in front of the old one: what is new is sealed with it, what is old still opens
    path = tmp_path / "keys" / "storage.key"
    old = path.read_bytes()
    path.write_bytes(b"5a" * 32 + b"\n" + old)
    both = ArtifactStore.open(tmp_path / "store", sealer=Sealer.load(path))
    both.materialise(manifest.id, tmp_path / "out")
    both.put_folder(fill(tmp_path / "new", a=6))
    path.write_bytes(old)
    with pytest.raises(Conflict):
        ArtifactStore.open(tmp_path / "store", sealer=Sealer.load(path))


@pytest.mark.parametrize("text", [b"", b"5a" * 31, b"zz" * 32, b"\xff\xfe", b"5a" * 32 + b"\nshort\n"])
def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path, text: bytes) -> None:
    sealer(tmp_path)
    path = tmp_path / "keys" / "storage.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(text)
    with pytest.raises(InvalidInput) as caught:
        Sealer.load(path)
    assert caught.value.code == "storage.bad_key_file"
    path.chmod(0o644)
    with pytest.raises(NotAllowed):
        Sealer.load(path)


def test_leaves_in_each_others_place_and_changed_bytes_do_not_open(tmp_path: Path) -> None:
    store = ArtifactStore.open(tmp_path / "store", sealer=sealer(tmp_path))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "same").write_bytes(bytes(2 * LEAF_BYTES))
    manifest = store.put_folder(tmp_path / "in")
    pack = tmp_path / "store" / "packs" / manifest.id / "0"
    sealed, size = pack.read_bytes(), LEAF_BYTES + OVERHEAD_BYTES
    first, second = sealed[:size], sealed[size:]
    assert first != second, "equal leaves look different"
    flipped = bytearray(sealed)
    flipped[100] ^= 1
    for damaged in (second + first, bytes(flipped), sealed[:-1], b""):
        pack.write_bytes(damaged)
        with pytest.raises(Corrupt) as caught:
            list(store.read_leaves(manifest.id))
        assert caught.value.code == "artifact.bad_seal"
    pack.write_bytes(sealed)
    assert b"".join(store.read_leaves(manifest.id)) == bytes(2 * LEAF_BYTES)


def test_a_seal_of_another_artifact_does_not_open(tmp_path: Path) -> None:
    keys = sealer(tmp_path)
    one, other = (keys.new(Manifest(()).id), keys.new(describe_folder(fill(tmp_path / "in", a=1)).id))
    assert one is not None and other is not None
    with pytest.raises(Corrupt):
        other.open(0, one.seal(0, b"leaf"))
    nonces = {one.seal(0, b"leaf")[:12] for _ in range(100)}
    assert len(nonces) == 100


def test_sealed_leaves_lie_in_the_same_packs_as_plain_ones(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, size in enumerate((PACK_BYTES, 1, LEAF_BYTES + 1, 0, PACK_BYTES)):
        with (tmp_path / "in" / str(number)).open("wb") as file:
            os.truncate(file.fileno(), size)
    manifest = describe_folder(tmp_path / "in")
    plain, sealed = Packs(manifest), Packs(manifest, OVERHEAD_BYTES)
    assert [plain.leaves(pack) for pack in range(plain.count)] == [sealed.leaves(pack) for pack in range(sealed.count)]
    for pack in range(sealed.count):
        places = [sealed.place(number) for number in sealed.leaves(pack)]
        assert places[0].offset_bytes == 0
        assert all(one.offset_bytes + one.size_bytes == two.offset_bytes for one, two in itertools.pairwise(places))
        assert sealed.size_bytes(pack) == plain.size_bytes(pack) + OVERHEAD_BYTES * len(places)
