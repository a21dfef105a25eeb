"""Keys: a folder of keys made before any coordinator runs, for containers and for several machines.

What a key is, and that a folder is complete, is `keyring` and `cluster.identity`; here a whole one is made at once.
Called by `commands`.
"""

from __future__ import annotations

from pathlib import Path

from shardwork.errors import Conflict
from shardwork.identity.keys import load_or_create

from ..artifacts.sealing import Sealer
from ..cluster.identity import KEY_FILES
from ..tls import Authority

CERTIFICATE = "ca.pem"


def create(folder: Path, *, encrypts: bool = False) -> str:
    """Makes all keys, and the authority's certificate as a file that may be handed out; the certificate's SHA-256, as
    the join line has it. Raises Conflict "keys.exist": whoever has a coordinator's keys is the coordinator."""
    there = [name for name in KEY_FILES if (folder / name).exists()]
    if there:
        raise Conflict(
            "keys.exist",
            "This folder already holds a coordinator's keys.",
            next_step="Keep them, or name a new folder. Workers and clients know a coordinator by its keys.",
            folder=folder,
            found=", ".join(there),
        )
    authority = Authority.load_or_create(folder)
    for name in ("coordinator.key", "operator.key"):
        load_or_create(folder / name)
    if encrypts:
        Sealer.load_or_create(folder / "storage.key")
    (folder / CERTIFICATE).write_bytes(authority.ca_pem)
    return authority.ca_sha256


def certificate(folder: Path) -> str:
    """The authority's certificate, PEM: what a browser, a scraper or a proxy trusts."""
    return Authority.load_or_create(folder).ca_pem.decode()
