"""A hub-shaped HTTP server on 127.0.0.1 with the faults that hubs have: for tests of the coordinator's copies.

Speaks `api/models/…/revision/…` and `…/resolve/…`, keeps weights behind a redirect to "large" files as the Hugging Face
Hub does, and knows ranges. What it was asked lies in `seen`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass(slots=True)
class Hub:
    """One repository "acme/tiny" with one branch and one tag."""

    files: dict[str, bytes]
    port: int = 0
    #: (path, Range header, Authorization header) of each request
    seen: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    #: answered so often before anything else: (status, Retry-After)
    refusals: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    #: bodies of large files end after so many bytes, so often
    cut_at: int = 0
    cuts: int = 0
    knows_ranges: bool = True
    #: where large files are said to lie; empty: here
    large_base: str = ""
    #: what is sent instead of a file
    instead: dict[str, bytes] = field(default_factory=dict[str, bytes])
    #: declared sizes that are not true
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    token: str = ""
    commit: str = COMMIT

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ranges(self, name: str) -> list[str]:
        return [asked for path, asked, _ in self.seen if path.endswith(name) and path.startswith("/large")]

    def info(self) -> bytes:
        siblings: list[Mapping[str, object]] = []
        for name, data in self.files.items():
            size = self.sizes.get(name, len(data))
            entry: dict[str, object] = {"rfilename": name, "size": size}
            if is_large(name):
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": size}
            else:
                entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            siblings.append(entry)
        return json.dumps({"id": "acme/tiny", "sha": self.commit, "siblings": siblings}).encode()


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        hub = self.hub
        hub.seen.append((path, self.headers.get("Range", ""), self.headers.get("Authorization", "")))
        if hub.refusals:
            status, wait = hub.refusals.pop(0)
            return self._answer(status, b"", {"Retry-After": wait} if wait else {})
        is_file = path.startswith("/large/")
        if hub.token and not is_file and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._answer(401, b"")
        if is_file:
            return self._large(path.removeprefix("/large/"))
        for revision in ("main", "v1/stable", hub.commit):
            if path == f"/api/models/acme/tiny/revision/{revision}":
                return self._answer(200, hub.info())
            name = path.removeprefix(f"/acme/tiny/resolve/{revision}/")
            if name in hub.files:
                if is_large(name):
                    return self._answer(302, b"", {"Location": f"{hub.large_base or hub.url}/large/{name}"})
                return self._answer(200, hub.instead.get(name, hub.files[name]))
        return self._answer(404, b"")

    def _large(self, name: str) -> None:
        data = self.hub.instead.get(name, self.hub.files[name])
        headers: dict[str, str] = {}
        asked, status = self.headers.get("Range", ""), 200
        if asked and self.hub.knows_ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1, len(data)) if last else len(data)
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
            data, status = data[int(first) : end], 206
        if self.hub.cuts and len(data) > self.hub.cut_at:
            self.hub.cuts -= 1
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: self.hub.cut_at])
            self.close_connection = True
            return
        self._answer(status, data, headers)

    def _answer(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@contextmanager
def hub_of(folder: Path) -> Generator[Hub, None, None]:
    """Serves a model folder's files until left."""
    hub = Hub({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
