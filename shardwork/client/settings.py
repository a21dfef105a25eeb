"""What the client remembers and is told: the coordinator's join line, and where its key and state lie.

A join line that is given (flag --join) beats SHARDWORK_JOIN, which beats `client.toml` (written by a login, mode 0600).
Used by everything that talks to a coordinator.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..config import HOME_VARIABLE, Home, load_settings, origins
from ..errors import NotAuthenticated
from ..identity.authority import JoinLine
from ..identity.keys import SigningKey, load_or_create

CONFIG_FILE = "client.toml"
KEY_NAME = "requester"
#: SHARDWORK_* names that are no settings of the client: its debug switch, and those of the two services, which may
#: share a shell with it
OTHER_VARIABLES = frozenset(
    f"SHARDWORK_{name}"
    for name in (
        *("DEBUG", "FAILPOINT", "DATA_DIR", "LISTEN", "WEB", "ADVERTISE", "DATABASE", "STORAGE", "PAYMENTS"),
        *("HEARTBEAT_S", "LEASE_TTL_S", "RECONNECT_GRACE_S", "AGREEMENT_GRACE_S", "BACKUP_FACTOR", "BACKUP_MIN_S"),
        *("PAYOUT_THRESHOLD_SATS", "MSAT_PER_TERA_UNIT", "MINIMUM_SHARD_MSAT", "FEE_BASIS_POINTS"),
        *("EXECUTOR_PROCESSES", "NAME", "PAYOUT_ADDRESS", "DEVICE", "MINIMUM_SATS", "CACHE_BYTES"),
    )
)


class ClientSettings(BaseModel):
    """Every setting of the client."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    join: Annotated[str, Field(description="join line of the coordinator, shardwork://host:port?ca=<sha256>")] = ""


@dataclass(frozen=True, slots=True)
class Access:
    """Which coordinator, and as whom."""

    join: JoinLine
    home: Home

    def key(self) -> SigningKey:
        """The requester's key, made at its first use."""
        return load_or_create(self.home.key_path(KEY_NAME))


def access(join: str | None = None, *, home: Home | None = None) -> Access:
    """Which coordinator to talk to: `join` or the remembered one. Raises NotAuthenticated "login.missing"."""
    place = home or Home.find()
    if join:
        # a login must work also where the remembered settings are broken
        return Access(JoinLine.parse(join), place)
    settings = load_settings(
        ClientSettings, place.config_dir / CONFIG_FILE, os.environ, {}, other_variables=OTHER_VARIABLES
    )
    if not settings.join:
        raise NotAuthenticated(
            "login.missing",
            "You are not logged in to a coordinator yet.",
            next_step="Ask its operator for the join line, then:  shardwork login 'shardwork://host:port?ca=…'  "
            "To try it on this machine alone:  shardwork init --demo",
        )
    return Access(JoinLine.parse(settings.join), place)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it counts now, and where it comes from."""

    key: str
    value: str
    #: "--join", "SHARDWORK_JOIN", "…/client.toml:2", "default"
    origin: str


def shown_settings(join: str | None = None, *, home: Home | None = None) -> list[Setting]:
    """Every setting and folder with its origin. Raises InvalidInput "config.…" where a file or variable is wrong."""
    place = home or Home.find()
    file, flags = place.config_dir / CONFIG_FILE, {"join": join}
    values = load_settings(ClientSettings, file, os.environ, flags, other_variables=OTHER_VARIABLES)
    where = origins(ClientSettings, file, os.environ, flags, other_variables=OTHER_VARIABLES)
    found = [Setting(key, str(getattr(values, key)), where[key]) for key in ClientSettings.model_fields]
    root = HOME_VARIABLE if os.environ.get(HOME_VARIABLE) else "default"
    folders = {"config": place.config_dir, "state": place.state_dir, "cache": place.cache_dir}
    found += [Setting(f"{name}_dir", str(folder), root) for name, folder in folders.items()]
    key = place.key_path(KEY_NAME)
    return [
        *found,
        Setting("key", str(key), "made at the first login" if not key.exists() else f"{root}, in config_dir"),
    ]


def save_join(place: Home, join: JoinLine) -> Path:
    """Remembers the join line; the file is replaced whole, readable by its owner only."""
    place.config_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = place.config_dir / CONFIG_FILE
    text = f"# written by `shardwork login`\njoin = {json.dumps(join.text())}\n"
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
    return path
