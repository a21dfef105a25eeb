"""Bytes of artifacts over HTTP: one file with ranges, or all of them as a tar whose bytes never differ.

Whole leaves are read and checked in threads, one ahead of what is sent. A download counts among what its party has open
on the artifacts service, and ends when nobody takes its data. Who may read what is `rpc.artifacts`.
"""

from __future__ import annotations

import asyncio
import re
import tarfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from shardwork.artifact import LEAF_BYTES, Manifest

from ..artifacts import ArtifactStore
from .routes import Call

_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")
_BLOCK = 512
#: what is sent at once: so much stays in memory of a reader who stopped reading
SENT_BYTES = 64 << 10
#: at the end of a tar
_END = b"\0" * (2 * _BLOCK)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a whole: a file of an artifact, or bytes that are known."""

    size: int
    #: number of the file's first leaf, where `data` does not hold it
    leaf: int = 0
    data: bytes = b""


def of_file(manifest: Manifest, path: str) -> list[Piece]:
    """Raises NotFound "artifact.no_such_file"."""
    start, _ = manifest.leaf_span(path)
    entry = next(entry for entry in manifest.files if entry.path == path)
    return [Piece(entry.size, start)]


async def of_tar(call: Call, manifest: Manifest, folder: str) -> list[Piece]:
    """Every file below `folder`, with the same bytes whenever and wherever it is made."""
    # as reading a manifest: one of 40,000 files takes more than a second, in which nobody else would be answered
    async with call.desk.artifacts.parsing:
        return await asyncio.to_thread(_of_tar, manifest, folder)


def _of_tar(manifest: Manifest, folder: str) -> list[Piece]:
    found: list[Piece] = []
    leaf = 0
    for entry in manifest.files:
        header = tarfile.TarInfo(f"{folder}/{entry.path}")
        header.size, header.mode = entry.size, 0o644
        data = header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        found += [Piece(len(data), data=data), Piece(entry.size, leaf)]
        leaf += len(entry.leaves)
        if rest := -entry.size % _BLOCK:
            found.append(Piece(rest, data=b"\0" * rest))
    return [*found, Piece(len(_END), data=_END)]


def size_of(pieces: list[Piece]) -> int:
    return sum(piece.size for piece in pieces)


class Download(StreamingResponse):
    """Counted while it is sent, and cut off when its reader takes nothing for too long."""

    def __init__(self, body: AsyncGenerator[bytes, None], status: int, headers: dict[str, str], call: Call) -> None:
        super().__init__(body, status, headers, "application/octet-stream")
        self._body, self._desk, self._party = body, call.desk.artifacts, call.caller.party_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def within_idle(message: Message) -> None:
            async with asyncio.timeout(self._desk.limits.idle_s):
                await send(message)

        # what ends short of its length is noticed by every client
        with self._desk.calls.one(self._party), suppress(TimeoutError, ClientDisconnect):
            async with aclosing(self._body):
                await super().__call__(scope, receive, within_idle)


def answer(call: Call, manifest: Manifest, pieces: list[Piece], name: str) -> Response:
    """The whole, or the range that was asked for. Raises LimitExceeded "artifact.too_many_calls"."""
    request, desk, size = call.request, call.desk.artifacts, size_of(pieces)
    with desk.calls.one(call.caller.party_id):
        pass  # refused with a status, before an answer has begun
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{manifest.id[:32]}-{size}"',
        # the name may hold letters that a header can't
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(PurePosixPath(name).name, safe='')}",
    }
    first, last, status = 0, size - 1, 200
    asked = request.headers.get("range", "")
    if asked and request.headers.get("if-range", headers["ETag"]) == headers["ETag"]:
        found = _range(asked, size)
        if found == (0, -1):
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
        if found is not None:
            first, last = found
            status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last - first + 1)
    body = _sent(desk.contents, manifest, pieces, range(first, last + 1))
    return Download(body, status, headers, call)


def _range(asked: str, size: int) -> tuple[int, int] | None:
    """(first, last); (0, -1) for one that can't be; None for several or none that we know, which is all of it."""
    found = _RANGE.fullmatch(asked.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        count = min(int(found[2]), size)
        return (size - count, size - 1) if count else (0, -1)
    first, last = int(found[1]), min(int(found[2]) if found[2] else size - 1, size - 1)
    return (first, last) if first <= last else (0, -1)


async def _sent(
    store: ArtifactStore, manifest: Manifest, pieces: list[Piece], wanted: range
) -> AsyncGenerator[bytes, None]:
    """A leaf that does not match ends the answer short of its length, which every client notices."""
    parts = _joined(_parts(store, manifest, pieces, wanted))
    ahead = asyncio.create_task(asyncio.to_thread(next, parts, b""))
    try:
        while data := await ahead:
            ahead = asyncio.create_task(asyncio.to_thread(next, parts, b""))
            for start in range(0, len(data), SENT_BYTES):
                yield data[start : start + SENT_BYTES]
    finally:
        await asyncio.wait({ahead})
        ahead.exception()


def _joined(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Small parts together: a tar of many small files would cost a thread's turn for each of them."""
    held = bytearray()
    for part in parts:
        held += part
        if len(held) >= SENT_BYTES:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _parts(store: ArtifactStore, manifest: Manifest, pieces: list[Piece], wanted: range) -> Iterator[bytes]:
    """What is wanted lies together, so its leaves are one run."""
    at = 0
    leaves: Iterator[bytes] | None = None
    for piece in pieces:
        first, last = max(wanted.start - at, 0), min(wanted.stop - at, piece.size)
        at += piece.size
        if first >= last:
            continue
        if piece.data:
            yield piece.data[first:last]
            continue
        numbers = range(first // LEAF_BYTES, (last - 1) // LEAF_BYTES + 1)
        if leaves is None:
            begin = piece.leaf + numbers.start
            leaves = store.read_leaves(manifest.id, begin, manifest.leaf_count - begin)
        offset = numbers.start * LEAF_BYTES
        for leaf in islice(leaves, len(numbers)):
            data = leaf[max(first - offset, 0) : last - offset]
            offset += len(leaf)
            if data:
                yield data
