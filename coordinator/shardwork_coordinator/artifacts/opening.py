"""Opening: the artifact store and its limits as the settings have them. Called by `app` and by operators' commands."""

from __future__ import annotations

from ..settings import Settings
from .quota import ArtifactLimits
from .retention import Ages
from .store import ArtifactStore


def location(settings: Settings) -> str:
    """A folder or a URL."""
    return settings.storage or str(settings.data_dir / "artifacts")


def open_contents(settings: Settings) -> ArtifactStore:
    return ArtifactStore.open(location(settings))


def artifact_limits(settings: Settings) -> ArtifactLimits:
    return ArtifactLimits(
        loose_max_bytes=int(settings.upload_quota_gib * (1 << 30)),
        owner_max_bytes=int(settings.owner_quota_gib * (1 << 30)),
        ages=Ages(keep_days=settings.keep_days, keep_outputs_days=settings.keep_outputs_days),
        keep_s=settings.upload_keep_hours * 3600,
        reserve_bytes=settings.disk_reserve_mib << 20,
    )
