"""Opening: the artifact store and its limits as the settings have them. Called by `app` and by operators' commands."""

from __future__ import annotations

import socket
from pathlib import Path

from shardwork.ids import sha256_hex

from ..settings import Settings
from .quota import ArtifactLimits
from .retention import Ages
from .sealing import PLAIN, Sealer
from .store import ArtifactStore


def location(settings: Settings) -> str:
    """A folder or a URL."""
    return settings.storage or str(settings.data_dir / "artifacts")


def open_contents(settings: Settings) -> ArtifactStore:
    """Raises Conflict "storage.wrong_key" and InvalidInput "storage.bad_key_file"."""
    sealer = sealer_of(key_file(settings), seals=settings.encrypt_at_rest)
    spool = _own_spool(settings) if settings.is_shared else None
    contents = ArtifactStore.open(location(settings), spool=spool, sealer=sealer)
    contents.signs = settings.direct_transfers
    return contents


def key_file(settings: Settings) -> Path:
    """Shared, like the other keys, by all coordinators of one store."""
    return settings.storage_key_file or (settings.keys_dir or settings.data_dir / "keys") / "storage.key"


def sealer_of(path: Path, *, seals: bool) -> Sealer:
    """A key is made where there is none and new content is to be encrypted; a store that was encrypted with another
    one refuses it. Without `seals` what is there is only read."""
    if seals:
        return Sealer.load_or_create(path)
    return Sealer.load(path, seals=False) if path.exists() else PLAIN


def _own_spool(settings: Settings) -> Path:
    """Uploads that are not whole yet: where several coordinators share a store, each has its own, on the store's disk
    if that is a folder: it takes over a whole upload by a rename."""
    if "://" in location(settings):
        return settings.data_dir / "uploads"
    own = sha256_hex(f"{socket.gethostname()}:{settings.data_dir.absolute()}".encode())[:16]
    return Path(location(settings)) / f"uploads-{own}"


def artifact_limits(settings: Settings) -> ArtifactLimits:
    return ArtifactLimits(
        loose_max_bytes=int(settings.upload_quota_gib * (1 << 30)),
        owner_max_bytes=int(settings.owner_quota_gib * (1 << 30)),
        ages=Ages(keep_days=settings.keep_days, keep_outputs_days=settings.keep_outputs_days),
        keep_s=settings.upload_keep_hours * 3600,
        reserve_bytes=settings.disk_reserve_mib << 20,
    )
