"""Rules: what the operator allows of a hub. Nothing, until a pattern says otherwise. Pure but for the token's file."""

from __future__ import annotations

import ipaddress
import stat
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import httpx

from shardwork.errors import InvalidInput, NotAllowed
from shardwork.guarded import Address, is_public
from shardwork.models.hub import HubModel

from ..settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRules:
    url: str = "https://huggingface.co"
    #: patterns of ORG/NAME; none: no model
    allow: tuple[str, ...] = ()
    #: hosts that the hub may send a download on to, as patterns
    hosts: tuple[str, ...] = ("*.huggingface.co", "*.hf.co")
    max_bytes: int = 32 << 30
    #: all mirrored models together
    cache_bytes: int = 200 << 30
    token_file: Path | None = None

    @classmethod
    def of(cls, settings: Settings) -> HubRules:
        """Raises InvalidInput "hub.bad_url" and "hub.bad_token_file"."""
        rules = cls(
            url=settings.hub_url.rstrip("/"),
            allow=tuple(settings.hub_allow.split()),
            hosts=tuple(settings.hub_hosts.split()),
            max_bytes=int(settings.hub_max_gib * (1 << 30)),
            cache_bytes=int(settings.hub_cache_gib * (1 << 30)),
            token_file=settings.hub_token_file,
        )
        rules.check()
        return rules

    def check_allowed(self, model: HubModel) -> None:
        """Raises NotAllowed "hub.not_allowed"."""
        if any(fnmatchcase(model.repository, pattern) for pattern in self.allow):
            return
        given = f"allows only {', '.join(self.allow)}" if self.allow else "allows no models of a hub"
        raise NotAllowed(
            "hub.not_allowed",
            f"This coordinator {given}; {model.repository} is not among them.",
            next_step=f"Download the model and name its folder, or ask the operator to set hub_allow to "
            f'"{model.repository}" or a pattern such as "{model.organisation}/*".',
            model=model.repository,
        )

    def may_redirect(self, url: httpx.URL) -> bool:
        """Whether the hub may send a download on to this address."""
        own = httpx.URL(self.url)
        if (url.scheme, url.host, url.port) == (own.scheme, own.host, own.port):
            return True
        # never from TLS to plain text
        named = any(fnmatchcase(url.host, pattern) for pattern in self.hosts)
        return named and (url.scheme == "https" or own.scheme == "http")

    def may_reach(self, host: str, address: Address) -> bool:
        """Private addresses only for hosts that the operator named in full: a pattern or a redirect names none."""
        named = {httpx.URL(self.url).host, *(pattern for pattern in self.hosts if "*" not in pattern)}
        return host in named or is_public(host, address)

    def token(self) -> str | None:
        """Raises InvalidInput "hub.bad_token_file" for a file that is missing, or that others may read."""
        if self.token_file is None:
            return None
        try:
            mode, text = self.token_file.stat().st_mode, self.token_file.read_text().strip()
        except OSError as error:
            raise _bad_token(self.token_file, str(error.strerror)) from error
        if stat.S_IMODE(mode) & 0o077:
            raise _bad_token(self.token_file, "others may read it; chmod 600")
        if not text.isascii() or not text.isprintable() or not text:
            raise _bad_token(self.token_file, "it holds no token")
        return text

    def check(self) -> None:
        """At start. Raises InvalidInput "hub.bad_url" and "hub.bad_token_file"."""
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise _bad_url(self.url) from error
        if url.scheme not in ("http", "https") or not url.host:
            raise _bad_url(self.url)
        if url.scheme == "http" and not _is_loopback(url.host):
            raise _bad_url(self.url)
        if self.allow:
            self.token()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bad_url(url: str) -> InvalidInput:
    return InvalidInput(
        "hub.bad_url", f"hub_url {url!r} is no https address.", next_step="Give the hub's https address.", key="hub_url"
    )


def _bad_token(path: Path, reason: str) -> InvalidInput:
    return InvalidInput(
        "hub.bad_token_file",
        f"The hub's token can't be read: {reason}.",
        next_step="Put the token alone into a file that only this user may read.",
        file=path,
        key="hub_token_file",
    )
