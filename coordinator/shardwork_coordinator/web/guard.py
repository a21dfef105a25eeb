"""The guard before every page: who may ask, and what each answer says about itself.

Against DNS rebinding it answers only to loopback names and those that the operator named, and it refuses what a page of
another site asks for, unless that is a person following a link. Used by `server`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: nothing from elsewhere, nothing inline
CONTENT_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'"
HEADERS = {
    "Content-Security-Policy": f"{CONTENT_POLICY}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
READS = ("GET", "HEAD")


class Guard:
    """ASGI middleware; streams pass through it untouched."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = (), *, is_secure: bool = False) -> None:
        """`hosts`: names beside loopback's. `is_secure`: served over TLS, so browsers are to stay with it."""
        self._app = app
        self._hosts = frozenset(_name_of(host) for host in hosts)
        self._headers = HEADERS | ({"Strict-Transport-Security": "max-age=15552000"} if is_secure else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers.setdefault("Cache-Control", _caching(scope["path"]))
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "")
        if not is_loopback_name(host) and _name_of(host) not in self._hosts:
            text = "This server answers only to localhost, 127.0.0.1, [::1] and the names in its setting web_hosts.\n"
            return PlainTextResponse(text, status_code=421)
        if "\0" in scope["path"]:
            # no id has one, and PostgreSQL takes none
            return PlainTextResponse("This address can't be.\n", status_code=400)
        if headers.get("sec-fetch-site") not in ("cross-site", "same-site"):
            return None
        # a link to a page is fine, using its streams, figures and forms from another site is not
        if scope["method"] in READS and headers.get("sec-fetch-mode") == "navigate":
            return None
        return PlainTextResponse("This is not for pages of other sites.\n", status_code=403)


def _name_of(host: str) -> str:
    """A Host header, or a name in the settings, without its port and without the brackets of an IPv6 address."""
    name, separator, port = host.rpartition(":")
    is_port = separator and port.isdecimal() and (":" not in name or name.endswith("]"))
    return (name if is_port else host).strip("[]").lower()


def is_loopback_name(host: str) -> bool:
    """Whether a Host header names this machine: "localhost", 127.0.0.0/8 or [::1], with any port."""
    name, port = host, ""
    if not host.endswith("]") and ":" in host:
        name, _, port = host.rpartition(":")
    if port and not port.isdecimal():
        return False
    if name.lower() == "localhost":
        return True
    try:
        if name.startswith("[") and name.endswith("]"):
            return ipaddress.IPv6Address(name[1:-1]).is_loopback
        return ipaddress.IPv4Address(name).is_loopback
    except ValueError:
        return False


def _caching(path: str) -> str:
    """Static files are asked for again with their ETag; figures are never kept."""
    return "no-cache" if path.startswith("/static/") else "no-store"
