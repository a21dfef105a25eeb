"""Keyring: the keys that make a coordinator the one in the join line. All on one database hold the same.

Owns which files they are and the folder in which they lie; what a key is `shardwork.identity`, the authority `tls`.
Called by `app`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shardwork.identity.keys import SigningKey, load_or_create

from .cluster.identity import THE_ONE, check_keys_folder
from .records import Cluster
from .settings import Settings
from .tls import Authority


def keys_folder(settings: Settings) -> Path:
    return settings.keys_dir or settings.data_dir / "keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Who this coordinator is; the same for all on one database."""

    signing: SigningKey
    operator: SigningKey
    authority: Authority

    @classmethod
    def open(cls, settings: Settings) -> Keys:
        """Those of the folder, made there at first start unless somebody named the folder."""
        folder = keys_folder(settings)
        if settings.keys_dir is not None:
            check_keys_folder(folder)
        return cls(
            signing=load_or_create(folder / "coordinator.key"),
            operator=load_or_create(folder / "operator.key"),
            authority=Authority.load_or_create(folder),
        )

    def identity(self, storage: str, now_ms: int) -> Cluster:
        """What the others compare with theirs: public keys and digests."""
        return Cluster(
            id=THE_ONE,
            ca_sha256=self.authority.ca_sha256,
            coordinator_key=self.signing.public_key.hex(),
            operator_key=self.operator.public_key.hex(),
            storage_id=storage,
            created_ms=now_ms,
        )
