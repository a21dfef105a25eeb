"""What an owner can set for a worker: flag, then SHARDWORK_*, then worker.toml in the config folder, then the default.

Owns the names and defaults; `shardwork.config` reads them. Used by the CLI's `start`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shardwork.config import ENV_PREFIX, Home, load_settings
from shardwork.money import ALL_SATS
from shardwork.recipes import kinds

from .cache import DEFAULT_LIMIT_BYTES
from .limits.hours import Hours
from .limits.size import Size
from .sandbox.jail import OUTPUT_BYTES, Mode

#: whether it takes payments is found out when the first one is sent
ADDRESS = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")
#: slower than this, a transfer would look dead to the coordinator
LEAST_RATE = 16 * 1024


class AtLimit(StrEnum):
    FINISH = "finish"
    GIVE_BACK = "give_back"


class WorkerSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    #: shown to people beside the worker's id
    name: str = Field(default="", max_length=64)
    #: Lightning address that earnings are paid out to, as name@example.org
    payout_address: str = ""
    #: "auto" takes the best one
    device: str = "auto"
    #: asks at least this for a shard; 0 gives the work
    minimum_sats: int = Field(default=0, ge=0, le=ALL_SATS)
    #: asks at least this for 10^12 work units (tokens x parameters), whatever the size of a shard
    minimum_msat_per_tera_unit: int = Field(default=0, ge=0, le=ALL_SATS)
    #: takes no pay at all: what its shards would cost stays with their requesters
    donate: bool = False
    #: shows its name, and what it gave and was paid, on the coordinator's public page
    listed: bool = False
    #: inputs kept for later shards, least recently used dropped first
    cache_bytes: Size = Field(default=DEFAULT_LIMIT_BYTES, ge=0)
    #: auto shuts the training child in as well as this machine allows, require takes no work unless that holds
    sandbox: Mode = Mode.AUTO
    #: all that one shard may write; more ends it
    output_bytes: Size = Field(default=OUTPUT_BYTES, gt=0)
    #: local times of day at which shards are taken, as 22:00-07:00 or several with commas; empty: always
    hours: str = ""
    #: the shard in hand when the hours or the day's bytes end: finish completes it, give_back returns it at once
    at_limit: AtLimit = AtLimit.FINISH
    #: works only while nobody else uses the machine: no typing in terminals, little processor time, no others on a GPU
    idle_only: bool = False
    #: so long must it have been left alone
    idle_minutes: int = Field(default=5, ge=0)
    #: share of all processors' time that others may take on an idle machine
    idle_cpu: float = Field(default=0.25, ge=0, le=1)
    #: share of the device's memory that shards may use
    memory_share: float = Field(default=1.0, gt=0, le=1)
    #: rests when a GPU it computes on draws more; measured with nvidia-smi
    power_watts: float | None = Field(default=None, gt=0)
    #: leaves at least so much of the cache's disk free
    keep_free_bytes: Size = Field(default=0, ge=0)
    #: downloads at most so much a second
    down_bytes_per_s: Size | None = Field(default=None, ge=LEAST_RATE)
    #: uploads at most so much a second
    up_bytes_per_s: Size | None = Field(default=None, ge=LEAST_RATE)
    #: moves at most so much a day, both ways together; a shard that was begun may go beyond it
    day_bytes: Size | None = Field(default=None, gt=0)
    #: takes no shard whose inputs, as far as they are not here, are larger
    input_bytes: Size | None = Field(default=None, gt=0)
    #: job kinds whose shards are taken; empty: all that this version runs
    recipes: list[str] = []

    @field_validator("hours")
    @classmethod
    def _known_hours(cls, text: str) -> str:
        Hours.parse(text)
        return text

    @field_validator("payout_address")
    @classmethod
    def _known_address(cls, text: str) -> str:
        if text and not ADDRESS.fullmatch(text):
            raise ValueError(f"{text[:80]!r} is no Lightning address; it is written like name@example.org")
        return text

    @field_validator("recipes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """An environment variable or a flag may list them with commas."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("recipes")
    @classmethod
    def _known_recipes(cls, names: list[str]) -> list[str]:
        unknown = [name for name in names if name not in kinds()]
        if unknown:
            near = difflib.get_close_matches(unknown[0], kinds(), n=1)
            meant = f"the nearest is {near[0]}" if near else f"there are: {', '.join(kinds())}"
            raise ValueError(f"there is no job kind {unknown[0]!r}; {meant}")
        return names


def settings_file(home: Home) -> Path:
    return home.config_dir / "worker.toml"


def load(home: Home, env: Mapping[str, str], flags: Mapping[str, object]) -> WorkerSettings:
    """The settings of `start`. Raises what `shardwork.config.load_settings` raises.

    The three commands share the prefix, so a variable that resembles none of ours belongs to another command.
    """
    ours = [ENV_PREFIX + name.upper() for name in WorkerSettings.model_fields]
    others = [name for name in env if name not in ours and not difflib.get_close_matches(name, ours, cutoff=0.9)]
    return load_settings(WorkerSettings, settings_file(home), env, flags, other_variables=others)
