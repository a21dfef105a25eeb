"""What the client remembers and is told: the coordinator's join line, and where its key and state lie.

A join line that is given (flag --join) beats SHARDWORK_JOIN, which beats `client.toml` (written by a login, mode 0600).
Used by everything that talks to a coordinator.
"""

from __future__ import annotations

import contextlib
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
#: addresses of one cluster; fewer than a join line may have, so that a session has room for those it hears of
MOST_REMEMBERED = 8
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
    #: the join line is the one that a login of this home wrote
    is_remembered: bool = False

    def key(self) -> SigningKey:
        """The requester's key, made at its first use. Raises NotAuthenticated "login.key_missing" after a login: a new
        key would be somebody else, whose wallet is empty and who has no jobs."""
        path = self.home.key_path(KEY_NAME)
        if self.is_remembered and not path.exists():
            raise NotAuthenticated(
                "login.key_missing",
                "The key that you logged in with is gone, and your sats and jobs are bound to it.",
                next_step="Put it back from a backup. To begin anew, with an empty wallet:  shardwork init",
                path=path,
            )
        return load_or_create(path)


def access(join: str | None = None, *, home: Home | None = None) -> Access:
    """Which coordinator to talk to: `join` or the remembered one. Raises NotAuthenticated "login.missing"."""
    place = home or Home.find()
    if join:
        # a login must work also where the remembered settings are broken
        return Access(JoinLine.parse(join), place)
    file = place.config_dir / CONFIG_FILE
    settings = load_settings(ClientSettings, file, os.environ, {}, other_variables=OTHER_VARIABLES)
    if not settings.join:
        raise NotAuthenticated(
            "login.missing",
            "You are not logged in to a coordinator yet.",
            next_step="Ask its operator for the join line, then:  shardwork login 'shardwork://host:port?ca=…'  "
            "To try it on this machine alone:  shardwork init --demo",
        )
    where = origins(ClientSettings, file, os.environ, {}, other_variables=OTHER_VARIABLES)
    return Access(JoinLine.parse(settings.join), place, is_remembered=where["join"].startswith(str(file)))


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


def remember_others(access: Access, heard: JoinLine) -> None:
    """Adds coordinators that joined the cluster after the login to the remembered line, so that this home finds one
    when all of those that it was told of are gone; the oldest make room. Only a comfort: where no file can be written,
    nothing is remembered."""
    known = access.join.addresses
    fresh = [address for address in heard.addresses if address not in known]
    if not (access.is_remembered and fresh):
        return
    others = [address for address in (*known, *fresh) if address != heard.address]
    line = JoinLine.of((heard.address, *others[1 - MOST_REMEMBERED :]), access.join.ca_sha256)
    with contextlib.suppress(OSError):
        save_join(access.home, line)


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
