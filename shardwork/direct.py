"""Direct: leaves straight from and to an object store by signed addresses, where the coordinator gives some.

Only a shortcut: whatever goes wrong here, `transfer` goes on over gRPC from the last good leaf. Every leaf is checked
as it is over gRPC. An address leads only where the coordinator itself could be: to public hosts over TLS, or into the
same kind of private network; redirects are not followed. Called by `transfer`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .artifact import LEAF_BYTES, Manifest, open_leaf_file, read_leaf
from .errors import Corrupt, NotAllowed, ShardworkError, Unreachable
from .guarded import Address, Guarded, MayReach, is_public
from .pace import Pace, pace_of
from .v1 import storage_pb2 as pb

if TYPE_CHECKING:
    import httpx

#: attempts in a row that bring no leaf further, before gRPC takes over
ATTEMPTS = 3
CALL_TIMEOUT_S = 60.0
#: checking a whole upload reads it back
COMPLETE_TIMEOUT_S = 3600.0
READ_BYTES = 256 << 10

#: takes bytes of the stream of leaves, from the first missing leaf on
Sink = Callable[[bytes], Awaitable[None]]


class DirectDownload:
    """One artifact's. `next_leaf` says where it goes on; `sink` gives a fresh place for bytes from there."""

    def __init__(
        self, session: Any, manifest: Manifest, next_leaf: Callable[[], int], sink: Callable[[], Sink]
    ) -> None:
        self._session, self._manifest = session, manifest
        self._next_leaf, self._sink = next_leaf, sink

    async def run(self) -> None:
        """Gets as far as it can. Raises nothing but cancellation, and what the disk says: LimitExceeded, OSError."""
        stub = getattr(self._session, "storage", None)
        if stub is None:
            return
        failures, http = 0, None
        try:
            while failures < ATTEMPTS and (first := self._next_leaf()) < self._manifest.leaf_count:
                try:
                    request = pb.SignDownloadRequest(artifact_id=self._manifest.id, first_leaf=first)
                    answer = await self._session.call(stub.SignDownload, request, timeout_s=CALL_TIMEOUT_S, retries=0)
                    if not answer.packs:
                        return
                    http = http or Guarded(await neighbourhood(self._session))
                    for pack in answer.packs:
                        await self._pack(http, pack)
                    failures = 0
                except Unreachable:
                    failures = 0 if self._next_leaf() > first else failures + 1
                except (Corrupt, NotAllowed):
                    return
                except ShardworkError as error:
                    if error.code.startswith(("rpc.", "http.")):
                        return
                    raise
        finally:
            if http is not None:
                await http.close()

    async def _pack(self, http: Guarded, pack: pb.SignedPack) -> None:
        """The rest of one pack. Raises Unreachable when it was cut or its address is over."""
        first = self._next_leaf()
        end = pack.first_leaf + pack.leaf_count
        if not pack.first_leaf <= first < end <= self._manifest.leaf_count:
            return
        skipped = sum(self._manifest.leaf(number).size_bytes for number in range(pack.first_leaf, first))
        wanted = sum(self._manifest.leaf(number).size_bytes for number in range(first, end))
        headers = {"Range": f"bytes={skipped}-{skipped + wanted - 1}"}
        sink, got = self._sink(), 0
        async with http.stream("GET", pack.url, headers=headers) as response:
            _check(response, HTTPStatus.PARTIAL_CONTENT)
            async for chunk in response.aiter_raw():
                got += len(chunk)
                if got > wanted:
                    raise Corrupt("direct.too_much_data", "The store sent more than was asked for.")
                await sink(chunk)
        if got < wanted:
            raise Unreachable("direct.cut", "The store sent less than was asked for.")


@dataclass(frozen=True, slots=True)
class _Told:
    """Who hears of bytes that went up."""

    progress: Callable[[int], None]
    pace: Pace

    async def sent(self, count_bytes: int) -> None:
        self.progress(count_bytes)
        await self.pace.went_up(count_bytes)


async def upload(session: Any, folder: Path, manifest: Manifest, told: Callable[[int], None]) -> bool:
    """Puts the packs that are missing and has them accepted; False when gRPC has to do it. `told` hears bytes as they
    go."""
    stub = getattr(session, "storage", None)
    if stub is None:
        return False
    http = None
    try:
        for _ in range(ATTEMPTS):
            try:
                request = pb.SignUploadRequest(artifact_id=manifest.id)
                answer = await session.call(stub.SignUpload, request, timeout_s=CALL_TIMEOUT_S, retries=0)
                if not answer.direct:
                    return False
                if not answer.packs:
                    done = pb.CompleteDirectUploadRequest(artifact_id=manifest.id)
                    await session.call(stub.CompleteDirectUpload, done, timeout_s=COMPLETE_TIMEOUT_S, retries=0)
                    return True
                http = http or Guarded(await neighbourhood(session))
                for pack in answer.packs:
                    await _put(http, pack, folder, manifest, _Told(told, pace_of(session)))
            except Unreachable:
                continue
        return await _accepted(session, stub, manifest)
    except ShardworkError:
        return False
    finally:
        if http is not None:
            await http.close()


async def _accepted(session: Any, stub: Any, manifest: Manifest) -> bool:
    answer = await session.call(
        stub.CompleteDirectUpload,
        pb.CompleteDirectUploadRequest(artifact_id=manifest.id),
        timeout_s=COMPLETE_TIMEOUT_S,
        retries=0,
    )
    return bool(answer.complete)


async def _put(http: Guarded, pack: pb.SignedPack, folder: Path, manifest: Manifest, told: _Told) -> None:
    leaves = range(pack.first_leaf, pack.first_leaf + pack.leaf_count)
    size = sum(manifest.leaf(number).size_bytes for number in leaves)
    body = _leaves(folder, manifest, leaves, told)
    async with http.stream("PUT", pack.url, headers={"Content-Length": str(size)}, content=body) as response:
        await response.aread()
        _check(response, HTTPStatus.OK)


async def _leaves(folder: Path, manifest: Manifest, leaves: range, told: _Told) -> AsyncIterator[bytes]:
    buffer = bytearray(LEAF_BYTES)
    for number in leaves:
        leaf = manifest.leaf(number)

        def read(path: Path = folder / leaf.path, offset: int = leaf.offset_bytes) -> bytes:
            with open_leaf_file(path) as file:
                file.seek(offset)
                return bytes(read_leaf(file, buffer))

        data = await asyncio.to_thread(read)
        leaf.check(data)
        yield data
        await told.sent(len(data))


def _check(response: httpx.Response, wanted: HTTPStatus) -> None:
    if response.status_code == wanted:
        return
    if response.is_redirect:
        raise NotAllowed("direct.redirected", "The store sends elsewhere, where nobody follows.")
    if response.status_code == HTTPStatus.OK:
        # a range was asked for
        raise NotAllowed("direct.no_ranges", "The store knows no ranges.")
    raise Unreachable("direct.refused", "The store refuses the address.", status=response.status_code)


async def neighbourhood(session: Any) -> MayReach:
    """Where signed addresses may lead: public hosts, and the kind of network in which the coordinator is."""
    host = str(getattr(session, "host", ""))
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM) if host else []
    except OSError:
        found = []
    own = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    loopback = any(address.is_loopback for address in own)
    private = any(address.is_private and not address.is_loopback for address in own)

    def may_reach(name: str, address: Address) -> bool:
        if address.is_loopback:
            return loopback
        if address.is_link_local:
            return False
        return is_public(name, address) or (private and address.is_private)

    return may_reach
