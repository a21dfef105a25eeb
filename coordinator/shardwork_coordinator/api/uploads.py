"""Files of a form, streamed to disk as they come, and from there into the artifact store by the handlers of uploads.

Nothing of a file is held in memory, and no name that somebody sends names a file here. Used by both faces.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from shardwork.artifact import LEAF_BYTES, describe_folder
from shardwork.client.staging import travelling_name
from shardwork.errors import InvalidInput, LimitExceeded
from shardwork.v1 import artifacts_pb2 as pb

from ..artifacts.quota import INPUT
from ..rpc.artifacts import FRAME_BYTES, begin_upload, upload_leaves
from ..rpc.auth import Caller
from .bodies import pieces
from .desk import ApiDesk, Turn

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

#: of a form: fields beside the file, and letters of one
MOST_FIELDS, LONGEST_FIELD = 16, 4_096
#: of a form around its file
FORM_BYTES = 256 << 10
#: files of one owner that are received or wait for it
MOST_WAITING = 4


@dataclass(slots=True)
class Form:
    """What came: the fields, and a file whose bytes lie at `path`."""

    path: Path
    fields: dict[str, str] = field(default_factory=dict[str, str])
    #: as its sender named it
    filename: str | None = None
    bytes: int = 0


@contextlib.asynccontextmanager
async def received(request: Request, caller: Caller, desk: ApiDesk) -> AsyncGenerator[Form, None]:
    """The form with its one file, which is gone afterwards. Raises InvalidInput "api.bad_form", LimitExceeded."""
    turn = desk.receiving.setdefault(caller.party_id, Turn())
    if turn.files >= MOST_WAITING:
        raise LimitExceeded(
            "api.busy_receiving",
            "Other files of yours are on their way.",
            next_step="Send one file after the other.",
            retry_after_s=5,
        )
    turn.files += 1
    try:
        async with turn.lock:
            with _place(desk.scratch) as folder:
                yield await _receive(request, folder, desk)
    finally:
        turn.files -= 1
        if not turn.files:
            del desk.receiving[caller.party_id]


async def store_file(path: Path, caller: Caller, desk: ApiDesk) -> str:
    """The artifact id of a folder that holds this file, stored as an upload over gRPC is: same quota, same checks."""
    manifest = await asyncio.to_thread(describe_folder, path.parent)
    request = pb.BeginUploadRequest(manifest=manifest.to_bytes(), purpose=INPUT)
    with desk.artifacts.calls.one(caller.party_id):
        begun = await begin_upload(request, caller, desk.artifacts)
        if not begun.complete:
            await upload_leaves(_frames(path, manifest.id, begun.durable_leaves), caller, desk.artifacts)
    return str(manifest.id)


async def store_named(form: Form, name: str, caller: Caller, desk: ApiDesk) -> str:
    """As `store_file`, under this plain name alone in its folder."""

    def place() -> Path:
        folder = form.path.parent / "artifact"
        folder.mkdir()
        return form.path.rename(folder / name)

    return await store_file(await asyncio.to_thread(place), caller, desk)


def plain_name(named: str) -> str:
    """The last part of whatever path was sent, as far as a disk and a terminal bear it. Raises InvalidInput."""
    last = PurePosixPath(named.replace("\\", "/")).name
    if last in ("", ".", ".."):
        raise InvalidInput("api.bad_filename", "The file has no name.", next_step="Name it.", param="file")
    return travelling_name(Path(last))


@contextlib.contextmanager
def _place(scratch: Path) -> Generator[Path, None, None]:
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="form-") as folder:
        yield Path(folder)


async def _receive(request: Request, folder: Path, desk: ApiDesk) -> Form:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:
        raise _bad_form("Send the file as multipart/form-data.")
    form = Form(folder / "file")
    with form.path.open("wb") as file:
        reading = _Reading(form, desk.file_max_bytes)
        parser = MultipartParser(boundary, reading.callbacks())
        try:
            async for piece in pieces(request, desk.file_max_bytes + FORM_BYTES):
                parser.write(piece)
                if reading.pending:
                    await asyncio.to_thread(_write, file, reading, desk)
            parser.finalize()
        except FormParserError:
            raise _bad_form("It is no form that ends as it should.") from None
        await asyncio.to_thread(_write, file, reading, desk)
    if not reading.ended:
        raise _bad_form("The form was cut short.")
    if form.filename is None or not form.bytes:
        raise _bad_form("Send a file with something in it, in the field `file`.")
    return form


def _write(file: IO[bytes], reading: _Reading, desk: ApiDesk) -> None:
    if shutil.disk_usage(desk.scratch).free - len(reading.pending) < desk.artifacts.limits.reserve_bytes:
        raise LimitExceeded(
            "artifact.no_space", "The coordinator's disk has no room.", next_step="Ask the operator to free space."
        )
    file.write(reading.pending)
    reading.pending.clear()


class _Reading:
    """What the parser tells, in order."""

    def __init__(self, form: Form, file_max_bytes: int) -> None:
        self.form, self._file_max_bytes = form, file_max_bytes
        #: bytes of the file that are not written yet
        self.pending = bytearray()
        self.ended = False
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._name: str | None = None
        self._text: bytearray | None = None

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._begin_header,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._headers,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._disposition, self._name, self._text = b"", None, None

    def _begin_header(self) -> None:
        self._header.clear()
        self._value.clear()

    def _end_header(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)

    def _headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        if filename is None:
            if self._name in self.form.fields or len(self.form.fields) >= MOST_FIELDS:
                raise _bad_form("It has a field twice, or too many.")
            self._text = bytearray()
            return
        if self._name != "file" or self.form.filename is not None:
            raise _bad_form("It has one file, in its field `file`.")
        self.form.filename = filename.decode("utf-8", "replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._text is None:
            self.form.bytes += end - start
            self.pending += data[start:end]
            return
        self._text += data[start:end]
        if len(self._text) > LONGEST_FIELD:
            raise _bad_form(f"A field has at most {LONGEST_FIELD} bytes.")

    def _end(self) -> None:
        if self._text is not None and self._name is not None:
            self.form.fields[self._name] = self._text.decode("utf-8", "replace")

    def _finish(self) -> None:
        self.ended = True


async def _frames(path: Path, artifact_id: str, first_leaf: int) -> AsyncGenerator[pb.UploadLeavesRequest, None]:
    with path.open("rb") as file:
        file.seek(first_leaf * LEAF_BYTES)
        yield pb.UploadLeavesRequest(artifact_id=artifact_id, first_leaf=first_leaf)
        while data := await asyncio.to_thread(file.read, FRAME_BYTES):
            yield pb.UploadLeavesRequest(data=data)


def _bad_form(next_step: str) -> InvalidInput:
    return InvalidInput("api.bad_form", "The form can't be read.", next_step=next_step, param="file")
