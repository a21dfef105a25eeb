"""The manifest: canonical, strict, and hostile paths refused; folders hashed and checked."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwork.artifact import (
    FILES_MAX,
    LEAF_BYTES,
    MANIFEST_MAX_BYTES,
    FileEntry,
    Manifest,
    check_path,
    describe_folder,
    leaf_digest,
    leaves_of,
    verify_folder,
)
from shardwork.errors import Corrupt, InvalidInput, LimitExceeded, NotFound, ShardworkError

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "manifest.json").read_text())["vectors"]
HOSTILE = [
    "",
    "/etc/passwd",
    "../up",
    "a/../b",
    "a/..",
    "./a",
    "a//b",
    "a/",
    ".",
    "..",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "a\x85b",
    "a\\b",
    "C:\\x",
    "x" * 513,
    "é" * 257,
    "a\ud800",
    "photo\u202egpj.exe",
    "a\u2066b",
    "a\u2028b",
    "d/" * 32 + "a",
]

#: control characters, halves of surrogates, and marks of direction
REFUSED = "/\\" + "".join(map(chr, (*range(0x2028, 0x202F), *range(0x2066, 0x206A))))
names = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=REFUSED), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))


# a file's parent folders end in "~", which no file does: a path is never a file and a folder
def joined(folders: list[str], name: str) -> str:
    return "/".join([*(folder + "~" for folder in folders), name.rstrip("~") or "x"])


def is_allowed(path: str) -> bool:
    return len(path.encode()) <= 512 and path.rsplit("/", 1)[-1] not in (".", "..")


paths = st.builds(joined, st.lists(names, max_size=3), names).filter(is_allowed)


@st.composite
def entries(draw: st.DrawFn, path: str) -> FileEntry:
    size = draw(st.one_of(st.just(0), st.integers(1, 5 * LEAF_BYTES), st.sampled_from([LEAF_BYTES, 2 * LEAF_BYTES])))
    leaves = tuple(draw(st.binary(min_size=32, max_size=32)) for _ in range(leaves_of(size)))
    return FileEntry(path, size, leaves)


manifests = st.lists(paths, unique=True, max_size=6).flatmap(
    lambda found: st.tuples(*(entries(path) for path in found)).map(Manifest)
)


@given(manifests)
def test_a_manifest_comes_back_from_its_bytes(manifest: Manifest) -> None:
    again = Manifest.parse(manifest.to_bytes())
    assert again == manifest and again.id == manifest.id
    assert [leaf.number for leaf in again.each_leaf()] == list(range(again.leaf_count))
    assert [leaf.size_bytes for leaf in again.each_leaf()] == list(again.leaf_sizes())
    assert sum(again.leaf_sizes()) == again.total_bytes


@given(manifests, st.data())
def test_a_changed_manifest_is_refused_or_another_artifact(manifest: Manifest, data: st.DataObject) -> None:
    raw = bytearray(manifest.to_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = Manifest.parse(bytes(raw))
    except ShardworkError:
        return
    assert other.id != manifest.id and other.to_bytes() == raw


@given(manifests, st.binary(min_size=1, max_size=40))
def test_a_cut_or_lengthened_manifest_is_refused(manifest: Manifest, tail: bytes) -> None:
    raw = manifest.to_bytes()
    with pytest.raises(InvalidInput):
        Manifest.parse(raw + tail)
    for end in {0, 5, len(raw) // 2, len(raw) - 1}:
        with pytest.raises(InvalidInput):
            Manifest.parse(raw[:end])


@given(st.binary(max_size=200))
def test_noise_is_refused_with_a_typed_error(noise: bytes) -> None:
    for raw in (noise, b"shardwork.manifest.v1\n" + noise):
        try:
            assert Manifest.parse(raw).to_bytes() == raw
        except ShardworkError:
            pass


@given(manifests)
def test_leaves_are_found_by_number_and_by_path(manifest: Manifest) -> None:
    for entry in manifest.files:
        first, count = manifest.leaf_span(entry.path)
        found = [manifest.leaf(first + index) for index in range(count)]
        assert [(leaf.path, leaf.index, leaf.digest) for leaf in found] == [
            (entry.path, index, digest) for index, digest in enumerate(entry.leaves)
        ]
    with pytest.raises(InvalidInput):
        manifest.leaf(manifest.leaf_count)
    with pytest.raises(NotFound):
        manifest.leaf_span("there is no such file")


@pytest.mark.parametrize("path", HOSTILE)
def test_a_hostile_path_is_refused_in_code_and_in_bytes(path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_path(path)
    assert caught.value.code == "artifact.bad_path"
    encoded = path.encode("utf-8", "surrogatepass")
    raw = b"shardwork.manifest.v1\n" + struct.pack(">IH", 1, len(encoded)) + encoded + struct.pack(">Q", 0)
    with pytest.raises(InvalidInput):
        Manifest.parse(raw)


def test_what_a_manifest_claims_is_refused_before_it_is_read() -> None:
    """Half a million empty files cost half a second of a coordinator's time for each call."""
    files = b"".join(struct.pack(">H1sQ", 1, b"a", 0) for _ in range(20_000))
    for count in (10_001, 20_000, 2**32 - 1):
        with pytest.raises(LimitExceeded) as caught:
            Manifest.parse(b"shardwork.manifest.v1\n" + struct.pack(">I", count) + files)
        assert caught.value.code == "artifact.too_many_files" and caught.value.why.evidence == {"files": str(count)}


@pytest.mark.parametrize(("first", "second"), [("a", "a"), ("a", "a/b"), ("a/b", "a/b/c/d")])
def test_a_path_is_not_two_things(first: str, second: str) -> None:
    with pytest.raises(InvalidInput):
        Manifest((FileEntry(first, 0, ()), FileEntry(second, 0, ())))


def test_files_are_sorted_by_their_bytes_and_unsorted_bytes_are_refused() -> None:
    manifest = Manifest(tuple(FileEntry(path, 0, ()) for path in ("b", "é", "a-b", "a/b", "Z")))
    assert [entry.path for entry in manifest.files] == ["Z", "a-b", "a/b", "b", "é"]
    swapped = b"shardwork.manifest.v1\n" + struct.pack(">I", 2)
    for name in (b"b", b"a"):
        swapped += struct.pack(">H", 1) + name + struct.pack(">Q", 0)
    with pytest.raises(InvalidInput, match="canonical"):
        Manifest.parse(swapped)


@pytest.mark.parametrize("size", [1, LEAF_BYTES + 1, -1, 1 << 63])
def test_size_and_leaves_must_agree(size: int) -> None:
    with pytest.raises(InvalidInput):
        Manifest((FileEntry("a", size, (b"\0" * 32,) * 3),))
    with pytest.raises(InvalidInput):
        Manifest((FileEntry("a", 5, (b"\0" * 31,)),))


def test_a_claimed_size_does_not_make_the_parser_work() -> None:
    raw = b"shardwork.manifest.v1\n" + struct.pack(">IH", 1, 1) + b"a" + struct.pack(">Q", (1 << 63) - 1)
    with pytest.raises(InvalidInput):
        Manifest.parse(raw)


def test_too_many_files_and_too_large_manifests_are_refused() -> None:
    with pytest.raises(LimitExceeded):
        Manifest(tuple(FileEntry(str(number), 0, ()) for number in range(FILES_MAX + 1)))
    leaves = (MANIFEST_MAX_BYTES // 32) + 1
    with pytest.raises(LimitExceeded):
        Manifest((FileEntry("a", leaves * LEAF_BYTES, (b"\0" * 32,) * leaves),))
    with pytest.raises(LimitExceeded):
        Manifest.parse(b"\0" * (MANIFEST_MAX_BYTES + 1))


def test_a_64_gib_artifact_fits_one_message() -> None:
    leaves = 64 << 10
    manifest = Manifest((FileEntry("weights.safetensors", leaves * LEAF_BYTES, (b"\1" * 32,) * leaves),))
    assert len(manifest.to_bytes()) < MANIFEST_MAX_BYTES
    assert Manifest.parse(manifest.to_bytes()) == manifest


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_committed_vectors_hold(vector: dict[str, Any], tmp_path: Path) -> None:
    """Each file's content is a byte repeated so many times; another implementation can follow."""
    for file in vector["files"]:
        path = tmp_path / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([file["byte"]]) * file["size"])
    manifest = describe_folder(tmp_path)
    assert manifest.to_bytes().hex() == vector["manifest_hex"]
    assert manifest.id == vector["id"]
    assert Manifest.parse(bytes.fromhex(vector["manifest_hex"])) == manifest


def test_a_folder_is_described_and_checked(tmp_path: Path) -> None:
    content = os.urandom(2 * LEAF_BYTES + 3)
    (tmp_path / "sub").mkdir()
    (tmp_path / "none").mkdir()
    (tmp_path / "sub" / "a").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    manifest = describe_folder(tmp_path)
    starts = range(0, len(content), LEAF_BYTES)
    assert manifest.files == (
        FileEntry("empty", 0, ()),
        FileEntry("sub/a", len(content), tuple(leaf_digest(content[at : at + LEAF_BYTES]) for at in starts)),
    )
    verify_folder(tmp_path, manifest)


def test_a_changed_folder_names_file_and_leaf(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\0" * (2 * LEAF_BYTES))
    manifest = describe_folder(tmp_path)
    path.write_bytes(b"\0" * (LEAF_BYTES + 9) + b"\1" + b"\0" * (LEAF_BYTES - 10))
    with pytest.raises(Corrupt) as caught:
        verify_folder(tmp_path, manifest)
    assert caught.value.why.evidence == {"file": "a", "leaf": "1"}
    path.write_bytes(b"\0")
    assert _refusal(tmp_path, manifest) == "artifact.wrong_size"
    path.unlink()
    assert _refusal(tmp_path, manifest) == "artifact.missing_file"
    path.write_bytes(b"\0" * (2 * LEAF_BYTES))
    (tmp_path / "b").write_bytes(b"")
    assert _refusal(tmp_path, manifest) == "artifact.unexpected_file"


def test_links_and_special_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput) as caught:
        describe_folder(tmp_path)
    assert caught.value.code == "artifact.symlink"
    (tmp_path / "link").unlink()
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(InvalidInput):
        describe_folder(tmp_path)
    (tmp_path / "loop").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput) as caught:
        describe_folder(tmp_path)
    assert caught.value.code == "artifact.not_regular"
    with pytest.raises(NotFound):
        describe_folder(tmp_path / "nowhere")


def _refusal(folder: Path, manifest: Manifest) -> str:
    with pytest.raises(Corrupt) as caught:
        verify_folder(folder, manifest)
    return caught.value.code
