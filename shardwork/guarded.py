"""Guarded: HTTP to addresses that others named, which must not lead into networks that only this machine can reach.

Every host is resolved here and the connection goes to the address that was checked, so a name cannot lead elsewhere
the second time. Redirects are never followed by themselves: whoever asks decides about each. No proxy and no
environment. Used for hubs by the coordinator, and for signed URLs by workers and clients.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .errors import InvalidInput, NotAllowed, Unreachable

if TYPE_CHECKING:
    # takes a tenth of a second, and most processes need none: imported where it is used
    import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: host name, its address -> whether a connection may go there
MayReach = Callable[[str, Address], bool]

TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0


def is_public(_: str, address: Address) -> bool:
    """A MayReach: only what everybody on the Internet can reach as well."""
    return address.is_global and not address.is_multicast


class Guarded:
    """One client. Close it, or use it as a context."""

    def __init__(self, may_reach: MayReach = is_public, *, needs_tls: bool = True) -> None:
        import httpx

        self._may_reach = may_reach
        self._needs_tls = needs_tls
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S), follow_redirects=False, trust_env=False
        )

    async def close(self) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: AsyncIterable[bytes] | None = None,
    ) -> AsyncGenerator[httpx.Response, None]:
        """A response whose body was not read yet. Raises NotAllowed "http.forbidden_address", InvalidInput
        "http.bad_url", Unreachable "http.unreachable", also while the body is read."""
        import httpx

        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise _bad_url(url) from error
        if parsed.scheme not in ("https", "http") or not parsed.host or parsed.userinfo:
            raise _bad_url(url)
        addresses = await self._addresses(parsed)
        if parsed.scheme == "http" and self._needs_tls and not all(one.is_loopback for one in addresses):
            raise NotAllowed("http.no_tls", f"{parsed.host} is reached without TLS.", next_step="Use an https address.")
        try:
            response = await self._send(method, parsed, addresses, headers=headers or {}, content=content)
            try:
                yield response
            finally:
                await response.aclose()
        except (httpx.HTTPError, OSError) as error:
            raise Unreachable(
                "http.unreachable",
                f"{parsed.host} does not answer as it should.",
                next_step="Try again later.",
                reason=f"{type(error).__name__}: {error}"[:200],
            ) from error

    async def _send(
        self,
        method: str,
        url: httpx.URL,
        addresses: list[Address],
        *,
        headers: Mapping[str, str],
        content: AsyncIterable[bytes] | None,
    ) -> httpx.Response:
        import httpx

        host = url.host if url.port is None else f"{url.host}:{url.port}"
        for number, address in enumerate(addresses, 1):
            request = self._client.build_request(
                method,
                url.copy_with(host=str(address)),
                headers={"Host": host, "Accept-Encoding": "identity", **headers},
                content=content,
                # the certificate is still the name's
                extensions={"sni_hostname": url.host},
            )
            try:
                return await self._client.send(request, stream=True)
            except httpx.ConnectError:
                if number == len(addresses):
                    raise
        raise OSError("no address")

    async def _addresses(self, url: httpx.URL) -> list[Address]:
        """The host's addresses, when all of them may be reached."""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unreachable(
                "http.unknown_host",
                f"There is no host {url.host!r}.",
                next_step="Check its spelling, and that names are resolved here.",
                reason=str(error),
            ) from error
        addresses = [_plain(ipaddress.ip_address(str(each[4][0]).partition("%")[0])) for each in found]
        for address in addresses:
            if not self._may_reach(url.host, address):
                raise NotAllowed(
                    "http.forbidden_address",
                    f"{url.host} leads to {address}, which may not be reached from here.",
                    next_step="Only public addresses are, and those that the operator named.",
                    host=url.host,
                )
        return list(dict.fromkeys(addresses))


def _plain(address: Address) -> Address:
    """An IPv4 address in IPv6's clothes as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _bad_url(url: str) -> InvalidInput:
    return InvalidInput(
        "http.bad_url",
        "This is no address to fetch from.",
        next_step="Write it as https://host/path.",
        url=url[:100],
    )
