"""What an owner can set for a worker: flag, then SHARDWORK_*, then worker.toml in the config folder, then the default.

Owns the names and defaults; `shardwork.config` reads them. Used by the CLI's `start`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from shardwork.config import ENV_PREFIX, Home, load_settings

from .cache import DEFAULT_LIMIT_BYTES
from .sandbox.jail import OUTPUT_BYTES, Mode


class WorkerSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    #: shown to people beside the worker's id
    name: str = Field(default="", max_length=64)
    #: Lightning address that earnings are paid out to
    payout_address: str = ""
    #: "auto" takes the best one
    device: str = "auto"
    #: asks at least this for a shard; 0 gives the work
    minimum_sats: int = Field(default=0, ge=0)
    #: asks at least this for 10^12 work units (tokens x parameters), whatever the size of a shard
    minimum_msat_per_tera_unit: int = Field(default=0, ge=0)
    #: takes no pay at all: what its shards would cost stays with their requesters
    donate: bool = False
    #: inputs kept for later shards, least recently used dropped first
    cache_bytes: int = Field(default=DEFAULT_LIMIT_BYTES, ge=0)
    #: auto shuts the training child in as well as this machine allows, require takes no work unless that holds
    sandbox: Mode = Mode.AUTO
    #: all that one shard may write; more ends it
    output_bytes: int = Field(default=OUTPUT_BYTES, gt=0)


def load(home: Home, env: Mapping[str, str], flags: Mapping[str, object]) -> WorkerSettings:
    """The settings of `start`. Raises what `shardwork.config.load_settings` raises.

    The three commands share the prefix, so a variable that resembles none of ours belongs to another command.
    """
    ours = [ENV_PREFIX + name.upper() for name in WorkerSettings.model_fields]
    others = [name for name in env if name not in ours and not difflib.get_close_matches(name, ours, cutoff=0.9)]
    return load_settings(WorkerSettings, home.config_dir / "worker.toml", env, flags, other_variables=others)
