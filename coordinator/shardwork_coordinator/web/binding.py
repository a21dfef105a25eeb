"""Binding: the address that the web server listens on, how many it lets in there, and the TLS that it speaks.

Used by `server`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

from shardwork.errors import InvalidInput
from shardwork.identity.private_file import read_private

from ..settings import Settings
from ..tls import Authority


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the web server listens."""

    host: str
    port: int

    @classmethod
    def of(cls, settings: Settings) -> Place:
        """Raises InvalidInput "web.bad_address"."""
        host, _, port = settings.web.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise InvalidInput(
                "web.bad_address",
                f"The web server can't listen on {settings.web}.",
                next_step="Give --web as HOST:PORT; port 0 is any free one.",
                web=settings.web,
            )
        return cls(host=host.strip("[]") or "127.0.0.1", port=int(port))

    @property
    def is_loopback(self) -> bool:
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_everywhere(self) -> bool:
        return self.host in ("0.0.0.0", "::")


class Door(socket.socket):
    """A listening socket that turns away who comes while `most` of those it let in are still there.

    Counted here and not by the server, which knows of a connection only after its TLS handshake.
    """

    def __init__(self, family: socket.AddressFamily, most: int) -> None:
        # the protocol by name: only then does asyncio send small answers at once, instead of waiting 40 ms for more
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._most = most
        self._inside: WeakSet[socket.socket] = WeakSet()

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises BlockingIOError for one that was turned away, as if nobody had come."""
        connection, address = super().accept()
        if len(self._inside) >= self._most:
            # a socket that was closed may be remembered for a while, in a circle with its transport
            self._inside = WeakSet(one for one in self._inside if one.fileno() != -1)
        if len(self._inside) >= self._most:
            connection.close()
            raise BlockingIOError
        self._inside.add(connection)
        return connection, address


@contextlib.contextmanager
def bound(place: Place, most: int) -> Generator[Door, None, None]:
    """A listening socket for `most` connections at a time. Raises InvalidInput "web.port_taken"."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listener = Door(family, most)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((place.host, place.port))
    except (OSError, OverflowError, ValueError) as error:
        listener.close()
        raise InvalidInput(
            "web.port_taken",
            f"The web page can't listen on {place.host}:{place.port}.",
            next_step="Give --web another port, or port 0 for any free one.",
            reason=str(error),
        ) from error
    with contextlib.closing(listener):
        yield listener


def hosts_of(settings: Settings, place: Place) -> tuple[str, ...]:
    """Names that the server answers to beside loopback's: what the operator named, and the address it listens on."""
    own = () if place.is_loopback or place.is_everywhere else (place.host,)
    advertised = (settings.advertise,) if settings.advertise else ()
    return tuple(dict.fromkeys((*settings.web_hosts.split(), *advertised, *own)))


def context_of(settings: Settings, place: Place, authority: Authority) -> ssl.SSLContext | None:
    """TLS of the operator's certificate, or off loopback of our own authority; None on loopback without one.

    Raises InvalidInput "web.bad_certificate".
    """
    if settings.web_certificate_file is None and place.is_loopback:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.web_certificate_file is None:
        _load(context, authority.web_leaf(("localhost", *hosts_of(settings, place))))
        return context
    try:
        key = settings.web_key_file
        if key is not None and read_private(key) is None:
            raise FileNotFoundError(2, "No such file", str(key))
        context.load_cert_chain(settings.web_certificate_file, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            "web.bad_certificate",
            "The web server's certificate or key can't be used.",
            next_step="web_certificate_file is a PEM chain, web_key_file its key in a file of mode 0600.",
            reason=str(error),
        ) from error
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Python takes certificates from files only; this one is gone before anybody connects."""
    number, name = tempfile.mkstemp(suffix=".pem")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(pem)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()
