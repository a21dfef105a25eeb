"""The guard before every page: who may ask, and what each answer says about itself.

A page without a login must not be readable by other web sites. Against DNS rebinding it answers only to loopback names,
and it refuses what a page of another site asks for. Used by `server`.
"""

from __future__ import annotations

import ipaddress

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: nothing from elsewhere, nothing inline
CONTENT_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'"
HEADERS = {
    "Content-Security-Policy": f"{CONTENT_POLICY}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """ASGI middleware; streams pass through it untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", _caching(scope["path"]))
            await send(message)

        refusal = _refusal(Headers(scope=scope), scope["path"])
        await (refusal or self._app)(scope, receive, send_with_headers)


def _refusal(headers: Headers, path: str) -> PlainTextResponse | None:
    if not is_loopback_name(headers.get("host", "")):
        text = "This page answers only to localhost, 127.0.0.1 and [::1]. A proxy must send one of them as Host.\n"
        return PlainTextResponse(text, status_code=421)
    # a link to the page is fine, using its streams and figures from another site is not
    if path != "/" and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return PlainTextResponse("This is not for pages of other sites.\n", status_code=403)
    return None


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
