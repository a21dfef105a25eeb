"""Direct: signed addresses of an object store, so that bytes go straight between it and a worker or a client.

A pack holds one artifact's leaves, so an address opens nothing but what its holder may read or send. What was put is
believed no more than what comes over gRPC: it lies under a key of its owner's, is copied to where no address leads,
and that copy is checked leaf by leaf before it becomes the artifact. An address cannot limit what is put: a pack of
another length is deleted. Nothing is signed for sealed content. Blocking; called by `rpc.storage` through threads.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import obstore
from obstore.store import AzureStore, GCSStore, S3Store

from shardwork.artifact import Manifest
from shardwork.errors import Conflict, Corrupt
from shardwork.ids import ArtifactId

from .objects import ObjectBackend, key
from .packs import Packs
from .reach import reaching

INCOMING = "incoming"
CHECKING = "checking"
#: how long an address is good for
LIFETIME_S = 600
#: packs in one answer: an address has about a kilobyte
PACKS_MAX = 512
#: what was put and never completed is removed after this time
KEEP_S = 24 * 3600.0
#: read back at once
WINDOW_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Signed:
    """A pack's address and its leaves."""

    url: str
    leaves: range
    size_bytes: int


class Direct:
    def __init__(self, backend: ObjectBackend, *, least_bytes: int = 4 << 20) -> None:
        """`least_bytes`: smaller artifacts go over gRPC, where they need no more round trips."""
        self._backend = backend
        self.least_bytes = least_bytes

    @reaching
    def download(self, manifest: Manifest, first_leaf: int) -> list[Signed]:
        packs = Packs(manifest)
        first = packs.place(first_leaf).pack if first_leaf else 0
        return self._sign("GET", packs, {pack: key(manifest.id, str(pack)) for pack in range(first, packs.count)})

    @reaching
    def upload(self, manifest: Manifest, owner: str) -> list[Signed]:
        """Of the packs that do not lie there in their full length."""
        packs = Packs(manifest)
        missing = {
            pack: _incoming(manifest.id, owner, pack)
            for pack in range(packs.count)
            if self._size(_incoming(manifest.id, owner, pack)) != packs.size_bytes(pack)
        }
        return self._sign("PUT", packs, missing)

    @reaching
    def complete(self, manifest: Manifest, owner: str) -> None:
        """Makes what was put the artifact. Raises Conflict "artifact.incomplete", Corrupt "artifact.wrong_length" and
        "artifact.bad_leaf"; a pack that is wrong is gone afterwards."""
        packs, nonce = Packs(manifest), secrets.token_hex(16)
        copies = [f"{CHECKING}/{nonce}/{pack}" for pack in range(packs.count)]
        try:
            for pack, copy in enumerate(copies):
                self._take(manifest, packs, pack, _incoming(manifest.id, owner, pack), copy)
            self._backend.adopt(manifest.id, copies, manifest.to_bytes())
        except BaseException:
            self._remove(f"{CHECKING}/{nonce}")
            raise
        self._remove(f"{INCOMING}/{manifest.id}.{owner}")

    @reaching
    def clean(self) -> None:
        """Removes what was put and never completed."""
        before = time.time() - KEEP_S
        for prefix in (INCOMING, CHECKING):
            for batch in self._listed(prefix):
                old = [path for path, changed in batch if changed < before]
                if old:
                    obstore.delete(self._backend.store, old)

    def _take(self, manifest: Manifest, packs: Packs, pack: int, source: str, copy: str) -> None:
        wanted, found = packs.size_bytes(pack), self._size(source)
        if found is None:
            raise Conflict(
                "artifact.incomplete", "The upload is not whole yet.", next_step="Put the missing packs.", pack=pack
            )
        if found != wanted:
            obstore.delete(self._backend.store, source)
            raise Corrupt(
                "artifact.wrong_length",
                "A pack that was put has another length than its leaves.",
                next_step="Put it again, whole.",
                pack=pack,
                bytes=found,
                expected_bytes=wanted,
            )
        # its address may still be good: what is checked must be what is kept
        obstore.copy(self._backend.store, source, copy)
        try:
            self._check(manifest, packs, pack, copy)
        except Corrupt:
            obstore.delete(self._backend.store, source)
            raise

    def _check(self, manifest: Manifest, packs: Packs, pack: int, path: str) -> None:
        leaves = packs.leaves(pack)
        data, start = memoryview(b""), 0
        for number in leaves:
            place = packs.place(number)
            if place.offset_bytes + place.size_bytes > start + len(data):
                start = place.offset_bytes
                length = min(WINDOW_BYTES, packs.size_bytes(pack) - start)
                data = memoryview(bytes(obstore.get_range(self._backend.store, path, start=start, length=length)))
            manifest.leaf(number).check(data[place.offset_bytes - start :][: place.size_bytes])

    def _sign(self, method: Literal["GET", "PUT"], packs: Packs, paths: dict[int, str]) -> list[Signed]:
        store = self._backend.store
        assert isinstance(store, S3Store | GCSStore | AzureStore)
        chosen = list(paths)[:PACKS_MAX]
        if not chosen:
            return []
        urls = obstore.sign(store, method, [paths[pack] for pack in chosen], timedelta(seconds=LIFETIME_S))
        return [Signed(url, packs.leaves(pack), packs.size_bytes(pack)) for pack, url in zip(chosen, urls, strict=True)]

    def _size(self, path: str) -> int | None:
        try:
            return obstore.head(self._backend.store, path)["size"]
        except FileNotFoundError:
            return None

    def _remove(self, prefix: str) -> None:
        for batch in self._listed(prefix):
            obstore.delete(self._backend.store, [path for path, _ in batch])

    def _listed(self, prefix: str) -> Iterator[list[tuple[str, float]]]:
        listed = obstore.list(self._backend.store, prefix=prefix)  # pyright: ignore[reportUnknownMemberType]
        for batch in listed:
            yield [(found["path"], found["last_modified"].timestamp()) for found in batch]


def can_sign(backend: object) -> bool:
    """Whether addresses can be made at all: not for folders, memory, or a file system behind an object store's face."""
    return isinstance(backend, ObjectBackend) and isinstance(backend.store, S3Store | GCSStore | AzureStore)


def _incoming(artifact_id: ArtifactId, owner: str, pack: int) -> str:
    return f"{INCOMING}/{artifact_id}.{owner}/{pack}"
