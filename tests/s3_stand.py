"""An S3-compatible server on 127.0.0.1 that checks every signature, for tests of direct transfers.

Speaks what obstore and signed addresses need: GET with ranges, HEAD, PUT, uploads in parts, copy, delete and list.
Signatures are AWS Signature Version 4 in headers and in addresses, computed here anew; addresses end when they say.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

from obstore.store import S3Store

BUCKET, REGION, KEY, SECRET = "bucket", "us-east-1", "key-of-tests", "secret-of-tests"


@dataclass(slots=True)
class S3:
    port: int = 0
    objects: dict[str, tuple[bytes, float]] = field(default_factory=dict[str, tuple[bytes, float]])
    #: method and whether the address was signed -> requests that were let in
    served: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    refused: Counter[str] = field(default_factory=Counter[str])
    #: seconds by which this server's clock is ahead
    ahead_s: float = 0.0
    #: it answers nobody
    away: bool = False
    #: bodies of signed reads end after so many bytes, so often
    cut_at: int = 0
    cuts: int = 0
    #: signed reads are sent on to here
    redirect: str = ""
    #: (method, key) -> what happens to bytes on their way
    spoil: dict[str, Any] = field(default_factory=dict[str, Any])
    #: parts of uploads that are put together later
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict[str, dict[int, bytes]])

    def store(self) -> S3Store:
        return S3Store(
            BUCKET,
            endpoint=f"http://127.0.0.1:{self.port}",
            access_key_id=KEY,
            secret_access_key=SECRET,
            region=REGION,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: S3

    def do_GET(self) -> None:
        query = self._let_in()
        if query is None:
            return None
        key = self._key()
        if not key:
            return self._list(query)
        if self.how == "signed" and self.s3.redirect:
            return self._answer(307, b"", {"Location": self.s3.redirect})
        self._get(key)
        return None

    def _get(self, key: str) -> None:
        if key not in self.s3.objects:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        data, changed = self.s3.objects[key]
        headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last-Modified": _http_date(changed)}
        status, asked = 200, self.headers.get("Range", "")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1, len(data)) if last else len(data)
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
            data, status = data[int(first) : end], 206
        if self.how == "signed" and "GET" in self.s3.spoil:
            data = self.s3.spoil["GET"](data)
        if self.how == "signed" and self.s3.cuts and len(data) > self.s3.cut_at:
            self.s3.cuts -= 1
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: self.s3.cut_at])
            self.close_connection = True
            return None
        self._answer(status, data, headers)
        return None

    def do_HEAD(self) -> None:
        if self._let_in() is None:
            return None
        found = self.s3.objects.get(self._key())
        if found is None:
            return self._answer(404, b"")
        data, changed = found
        etag = hashlib.md5(data).hexdigest()
        self._answer(200, data, {"ETag": f'"{etag}"', "Last-Modified": _http_date(changed)}, body=False)
        return None

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        data = self.rfile.read(length)
        query = self._let_in()
        if query is None:
            return
        source = self.headers.get("x-amz-copy-source")
        if source:
            data = self.s3.objects[unquote(source).lstrip("/").removeprefix(f"{BUCKET}/")][0]
        elif self.how == "signed" and "PUT" in self.s3.spoil:
            data = self.s3.spoil["PUT"](data)
        if "uploadId" in query:
            self.s3.parts[query["uploadId"]][int(query["partNumber"])] = data
        else:
            self.s3.objects[self._key()] = data, time.time()
        etag = hashlib.md5(data).hexdigest()
        body = f"<CopyObjectResult><ETag>&quot;{etag}&quot;</ETag></CopyObjectResult>" if source else ""
        self._answer(200, body.encode(), {"ETag": f'"{etag}"'})

    def do_DELETE(self) -> None:
        if self._let_in() is None:
            return
        self.s3.objects.pop(self._key(), None)
        self._answer(204, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        query = self._let_in()
        if query is None:
            return
        if "delete" not in query:
            self._multipart(query)
            return
        rows = ""
        for found in ET.fromstring(body).iter():
            if found.tag.endswith("Key"):
                self.s3.objects.pop(found.text or "", None)
                rows += f"<Deleted><Key>{escape(found.text or '')}</Key></Deleted>"
        self._answer(200, f"<DeleteResult>{rows}</DeleteResult>".encode())

    def _multipart(self, query: Mapping[str, str]) -> None:
        if "uploads" in query:
            number = str(len(self.s3.parts))
            self.s3.parts[number] = {}
            text = f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
        else:
            parts = self.s3.parts[query["uploadId"]]
            self.s3.objects[self._key()] = b"".join(parts[each] for each in sorted(parts)), time.time()
            text = "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
        self._answer(200, text.encode())

    def _list(self, query: Mapping[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        rows, folders = "", set[str]()
        for key, (data, changed) in sorted(self.s3.objects.items()):
            if not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                continue
            at = datetime.fromtimestamp(changed, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            rows += f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><LastModified>{at}</LastModified>"
            rows += "<ETag>x</ETag></Contents>"
        rows += "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders))
        self._answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode())

    # ---- signatures -------------------------------------------------------------------------------------------------

    how = ""

    def _let_in(self) -> dict[str, str] | None:
        """The query of a request whose signature is right; others are answered here."""
        if self.s3.away:
            self._answer(503, b"<Error><Code>SlowDown</Code></Error>")
            return None
        path, _, text = self.path.partition("?")
        query = dict(parse_qsl(text, keep_blank_values=True))
        self.how = "signed" if "X-Amz-Signature" in query else "headers"
        wrong = self._wrong(path, query)
        if wrong:
            self.s3.refused[wrong] += 1
            self._answer(403, f"<Error><Code>{wrong}</Code></Error>".encode())
            return None
        self.s3.served[self.command, self.how] += 1
        return query

    def _wrong(self, path: str, query: Mapping[str, str]) -> str:
        if self.how == "signed":
            given, signed, stamp = query["X-Amz-Signature"], query["X-Amz-SignedHeaders"], query["X-Amz-Date"]
            scope, payload = query["X-Amz-Credential"], "UNSIGNED-PAYLOAD"
            began = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
            if time.time() + self.s3.ahead_s > began + int(query["X-Amz-Expires"]):
                return "AccessDenied"
        else:
            parts = dict(
                part.strip().split("=", 1)
                for part in self.headers.get("Authorization", "AWS4 a=b").partition(" ")[2].split(",")
            )
            given, signed = parts.get("Signature", ""), parts.get("SignedHeaders", "")
            scope, stamp = parts.get("Credential", "/"), self.headers.get("x-amz-date", "")
            payload = self.headers.get("x-amz-content-sha256", "")
        pairs = sorted((name, value) for name, value in query.items() if name != "X-Amz-Signature")
        asked = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
        headers = "".join(f"{name}:{self.headers.get(name, '').strip()}\n" for name in signed.split(";"))
        canonical = "\n".join((self.command, path, asked, headers, signed, payload))
        place = scope.partition("/")[2]
        text = "\n".join(("AWS4-HMAC-SHA256", stamp, place, hashlib.sha256(canonical.encode()).hexdigest()))
        signing = b"AWS4" + SECRET.encode()
        for part in place.split("/"):
            signing = hmac.new(signing, part.encode(), hashlib.sha256).digest()
        expected = hmac.new(signing, text.encode(), hashlib.sha256).hexdigest()
        return "" if hmac.compare_digest(expected, given) else "SignatureDoesNotMatch"

    def _key(self) -> str:
        return unquote(self.path.partition("?")[0]).removeprefix(f"/{BUCKET}").lstrip("/")

    def _answer(self, status: int, data: bytes, headers: Mapping[str, str] | None = None, *, body: bool = True) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not body or self.command == "HEAD":
            return
        try:
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


def _http_date(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


@contextmanager
def s3_server() -> Generator[S3, None, None]:
    """Serves one bucket until left."""
    s3 = S3()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"s3": s3}))
    server.daemon_threads = True
    s3.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield s3
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
