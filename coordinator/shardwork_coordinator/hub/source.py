"""Source: one hub over HTTP. Resolves a revision to a commit, reads pieces, fetches files that resume and are checked.

The calls and headers are those of the Hugging Face Hub (its HTTP API and `resolve` addresses, with large files behind
a redirect). The token goes to the hub's own host only. Called by `mirror`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx

from shardwork.errors import Corrupt, InvalidInput, LimitExceeded, NotAllowed, NotFound, ShardworkError, Unreachable
from shardwork.guarded import Guarded
from shardwork.models.folder import COMPANIONS, INDEX
from shardwork.models.hub import HubModel, weight_files

from .rules import HubRules

REDIRECTS_MAX = 5
#: attempts in a row that bring nothing further
ATTEMPTS = 5
WAIT_S = 0.5
WAIT_CAP_S = 30.0
ANSWER_MAX_BYTES = 16 << 20
COMPANION_MAX_BYTES = 64 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    name: str
    bytes: int
    #: of the content, where the hub keeps it as a large file
    sha256: str = ""
    #: git's name of the content otherwise: SHA-1 of "blob <size>\0" and the content
    blob_sha1: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A model at one commit: every file of the repository."""

    model: HubModel
    files: Mapping[str, HubFile]


class HubSource:
    def __init__(self, rules: HubRules) -> None:
        self.rules = rules
        self._http = Guarded(rules.may_reach)

    async def close(self) -> None:
        await self._http.close()

    async def resolve(self, model: HubModel) -> Listing:
        """The model at the commit that its revision names now. Raises NotFound "hub.not_found", NotAllowed
        "hub.gated", Unreachable."""
        revision = quote(model.revision, safe="")
        url = f"{self._base}/api/models/{model.repository}/revision/{revision}?blobs=true"
        try:
            answer = json.loads(await self._read(url, model, most_bytes=ANSWER_MAX_BYTES))
            commit = answer["sha"]
            files = [_file(each) for each in answer["siblings"]]
            pinned = model.pinned(commit)
            if not pinned.is_pinned or (model.is_pinned and pinned != model):
                raise ValueError("the commit")
        except (ValueError, KeyError, TypeError) as error:
            raise _odd(model) from error
        return Listing(model=pinned, files={each.name: each for each in files})

    async def chosen(self, listing: Listing) -> list[HubFile]:
        """The files that make the model, from the closed list. Raises InvalidInput "hub.pickle", "hub.no_weights",
        LimitExceeded "hub.too_large"."""
        weights = weight_files(listing.files, await self._index(listing))
        names = [name for name in (*COMPANIONS, INDEX) if name in listing.files]
        chosen = [listing.files[name] for name in sorted({*names, *weights})]
        total = sum(each.bytes for each in chosen)
        if total > self.rules.max_bytes:
            raise LimitExceeded(
                "hub.too_large",
                f"The model's files have {total} bytes, more than this coordinator copies.",
                next_step="Choose a smaller model, or ask the operator for a larger hub_max_gib.",
                bytes=total,
                limit_bytes=self.rules.max_bytes,
            )
        return chosen

    async def piece(self, listing: Listing, file: HubFile, first: int, count: int) -> bytes:
        """A range of a file, exactly. Raises Unreachable "hub.cut_short"."""
        data = await self._read(self._url(listing.model, file), listing.model, first=first, most_bytes=count)
        if len(data) != count:
            raise Unreachable("hub.cut_short", "The hub sent less of a file than it has.", file=file.name)
        return data

    async def fetch(self, listing: Listing, file: HubFile, into: Path, told: Callable[[int], None]) -> None:
        """The file at `into`, checked against what the hub says of it; goes on from "<into>.part". `told` hears bytes
        as they come. Raises Corrupt "hub.changed", Unreachable."""
        part = into.with_name(into.name + ".part")
        attempts, again = 0, True
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                if before < file.bytes or not part.exists():
                    await self._append(listing, file, part, told)
                if await asyncio.to_thread(_is_sound, part, file):
                    part.rename(into)
                    return
                part.unlink(missing_ok=True)
                if not again:
                    raise _changed(listing.model, file)
                again = False
            except Unreachable as error:
                grown = part.exists() and part.stat().st_size > before
                attempts = 1 if grown else attempts + 1
                if attempts >= ATTEMPTS:
                    raise
                await asyncio.sleep(_wait_s(error, attempts))

    async def _append(self, listing: Listing, file: HubFile, part: Path, told: Callable[[int], None]) -> None:
        """What is missing behind the part's end. A body that is longer than declared is cut off at once."""
        have = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        async with self._open(self._url(listing.model, file), listing.model, headers=headers) as response:
            # whoever knows no ranges begins again
            if response.status_code != HTTPStatus.PARTIAL_CONTENT:
                have = 0
            with part.open("r+b" if part.exists() else "wb") as out:
                out.truncate(have)
                out.seek(have)
                async for chunk in response.aiter_raw():
                    have += len(chunk)
                    if have > file.bytes:
                        out.truncate(0)
                        raise _changed(listing.model, file)
                    out.write(chunk)
                    told(len(chunk))
        if have < file.bytes:
            raise Unreachable("hub.cut_short", "The hub sent less of a file than it has.", file=file.name)

    async def _index(self, listing: Listing) -> Mapping[str, object] | None:
        if INDEX not in listing.files:
            return None
        file = listing.files[INDEX]
        data = await self._read(
            self._url(listing.model, file), listing.model, most_bytes=min(file.bytes, COMPANION_MAX_BYTES)
        )
        try:
            found = json.loads(data)["weight_map"]
            if not isinstance(found, dict):
                raise ValueError("no map")
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(
                "hub.bad_index", "The repository's index is no index.", next_step="Choose another revision."
            ) from error
        return cast("dict[str, object]", found)

    async def companion(self, listing: Listing, file: HubFile) -> bytes:
        """A small file, whole. Raises LimitExceeded "hub.too_large"."""
        if file.bytes > COMPANION_MAX_BYTES:
            raise LimitExceeded("hub.too_large", f"{file.name} is too large.", bytes=file.bytes)
        data = await self._read(self._url(listing.model, file), listing.model, most_bytes=file.bytes)
        if not _matches(data, file):
            raise _changed(listing.model, file)
        return data

    async def _read(self, url: str, model: HubModel, *, most_bytes: int, first: int = 0) -> bytes:
        """A small body or so much of one from its byte `first` on, with patience. What is longer is cut off."""
        headers = {"Range": f"bytes={first}-{first + most_bytes - 1}"} if first else {}
        attempts = 0
        while True:
            try:
                data = bytearray()
                async with self._open(url, model, headers=headers) as response:
                    # whoever knows no ranges sends it from its beginning
                    skipped = 0 if response.status_code == HTTPStatus.PARTIAL_CONTENT else first
                    async for chunk in response.aiter_raw():
                        data += chunk
                        if len(data) > skipped + most_bytes:
                            break
                return bytes(data[skipped : skipped + most_bytes])
            except Unreachable as error:
                attempts += 1
                if attempts >= ATTEMPTS:
                    raise
                await asyncio.sleep(_wait_s(error, attempts))

    @asynccontextmanager
    async def _open(
        self, url: str, model: HubModel, *, headers: Mapping[str, str]
    ) -> AsyncGenerator[httpx.Response, None]:
        """The body behind an address and its redirects."""
        token = await asyncio.to_thread(self.rules.token)
        for _ in range(REDIRECTS_MAX):
            # the token is for the hub's own eyes
            own = (
                httpx.URL(url).host == httpx.URL(self._base).host and httpx.URL(url).port == httpx.URL(self._base).port
            )
            sent = {**headers, **({"Authorization": f"Bearer {token}"} if token and own else {})}
            async with self._http.stream("GET", url, headers=sent) as response:
                if response.is_redirect:
                    url = self._redirected(url, response)
                    continue
                _check(response, model)
                yield response
                return
        raise Unreachable("hub.redirects", "The hub sends in circles.", next_step="Check hub_url.", model=str(model))

    def _redirected(self, url: str, response: httpx.Response) -> str:
        target = httpx.URL(url).join(response.headers["location"])
        if not self.rules.may_redirect(target):
            raise NotAllowed(
                "hub.foreign_redirect",
                f"The hub sends to {target.host}, which is not among the hosts that the operator named.",
                next_step="Ask the operator to add it to hub_hosts, if it belongs to the hub.",
                host=target.host,
            )
        return str(target)

    @property
    def _base(self) -> str:
        return self.rules.url.rstrip("/")

    def _url(self, model: HubModel, file: HubFile) -> str:
        return f"{self._base}/{model.repository}/resolve/{model.revision}/{quote(file.name)}"


def _check(response: httpx.Response, model: HubModel) -> None:
    status = response.status_code
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise NotAllowed(
            "hub.gated",
            f"The hub gives {model.repository} only to those whom it knows.",
            next_step="Choose another model, or ask the operator to accept its terms and set hub_token_file.",
            model=str(model),
        )
    if status == HTTPStatus.NOT_FOUND:
        raise NotFound(
            "hub.not_found",
            f"The hub has no model {model.repository} at {model.revision!r}.",
            next_step="Check its name and the branch, tag or commit.",
            model=str(model),
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
        raise Unreachable(
            "hub.busy",
            f"The hub answers {status} at the moment.",
            next_step="Try again later.",
            retry_after_s=response.headers.get("retry-after", ""),
        )
    raise _odd(model)


def _wait_s(error: ShardworkError, attempt: int) -> float:
    asked = error.why.evidence.get("retry_after_s", "")
    wanted = float(asked) if asked.isdigit() else WAIT_S * float(2**attempt)
    return min(wanted, WAIT_CAP_S)


def _file(entry: Any) -> HubFile:
    lfs: dict[str, Any] = entry.get("lfs") or {}
    size = lfs.get("size", entry.get("size"))
    if type(size) is not int or size < 0:
        raise ValueError("a size")
    sha256 = str(lfs.get("sha256") or lfs.get("oid") or "").removeprefix("sha256:")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise ValueError("a digest")
    blob = "" if sha256 else str(entry.get("blobId") or "")
    return HubFile(name=str(entry["rfilename"]), bytes=size, sha256=sha256, blob_sha1=blob)


def _matches(data: bytes, file: HubFile) -> bool:
    if len(data) != file.bytes:
        return False
    if file.sha256:
        return hashlib.sha256(data).hexdigest() == file.sha256
    return not file.blob_sha1 or hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == file.blob_sha1


def _is_sound(path: Path, file: HubFile) -> bool:
    """Whether a file on disk is what the hub says it is."""
    if path.stat().st_size != file.bytes:
        return False
    if not file.sha256:
        return file.bytes > COMPANION_MAX_BYTES or _matches(path.read_bytes(), file)
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256


def _changed(model: HubModel, file: HubFile) -> Corrupt:
    return Corrupt(
        "hub.changed",
        f"The hub's {file.name} is not what the hub says it is.",
        next_step="Try again; if it happens again, choose another revision.",
        model=str(model),
        file=file.name,
    )


def _odd(model: HubModel) -> Unreachable:
    return Unreachable(
        "hub.odd_answer",
        "The hub answers in a way that is not understood.",
        next_step="Check hub_url.",
        model=str(model),
    )
