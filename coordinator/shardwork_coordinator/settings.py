"""Settings of a coordinator, each with its default and a line of documentation. Read by `cli`, used by `app`.

flag > SHARDWORK_* variable > coordinator.toml > default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    data_dir: Annotated[Path, Field(description="folder of keys, database and artifacts")]
    listen: Annotated[str, Field(description="HOST:PORT of the gRPC service; port 0 is any free one")] = "127.0.0.1:0"
    web: Annotated[
        str, Field(description="HOST:PORT of the dashboard, the HTTP API and /metrics; TLS wherever it is not loopback")
    ] = "127.0.0.1:0"
    web_hosts: Annotated[
        str, Field(description="further names that the web server answers to, with spaces between; the port is ignored")
    ] = ""
    web_certificate_file: Annotated[
        Path | None,
        Field(description="PEM chain for the web server; empty: off loopback one of the coordinator's own authority"),
    ] = None
    web_key_file: Annotated[Path | None, Field(description="PEM file of mode 0600 with its private key")] = None
    public_page: Annotated[bool, Field(description="show demand, rates and totals to everybody, without a login")] = (
        True
    )
    metrics_token_file: Annotated[
        Path | None,
        Field(description="file of mode 0600 with the bearer token of /metrics; empty: loopback only asks for none"),
    ] = None
    advertise: Annotated[str, Field(description="host name or address in the join line; empty: the listen host")] = ""
    database: Annotated[str, Field(description="database URL; empty: SQLite in data_dir; `memory` keeps nothing")] = ""
    storage: Annotated[str, Field(description="artifact store: a folder or an obstore URL; empty: in data_dir")] = ""
    keys_dir: Annotated[
        Path | None,
        Field(description="folder of keys that coordinators on one database share; empty: `keys` in data_dir"),
    ] = None
    direct_transfers: Annotated[
        bool, Field(description="let parties reach an object store by short-lived signed addresses; not when encrypted")
    ] = True
    encrypt_at_rest: Annotated[
        bool,
        Field(description="encrypt new artifacts, with the key in storage_key_file; it is made where there is none"),
    ] = False
    storage_key_file: Annotated[
        Path | None, Field(description="file of mode 0600 with the storage keys; empty: storage.key among the keys")
    ] = None
    payments: Annotated[
        Literal["auto", "simulated"],
        Field(description="payment back-end; auto: simulated, on loopback only"),
    ] = "auto"
    heartbeat_s: Annotated[int, Field(ge=1, le=60, description="seconds between a worker's heartbeats")] = 2
    lease_ttl_s: Annotated[int, Field(ge=3, le=3600, description="silence after which a lease is taken back")] = 12
    reconnect_grace_s: Annotated[float, Field(ge=0, description="silence allowed after a stream broke")] = 4.0
    agreement_grace_s: Annotated[
        float, Field(ge=0, description="how long to wait for a second key before a job is self-evaluated")
    ] = 15.0
    backup_factor: Annotated[
        float, Field(ge=1, description="a shard slower than this many times its siblings' median gets a copy")
    ] = 2.0
    backup_min_s: Annotated[float, Field(ge=0, description="no copy before a shard ran this long")] = 5.0
    intake: Annotated[
        Literal["open", "closed"], Field(description="whether new jobs are taken; closed: those that run go on")
    ] = "open"
    max_running_shards: Annotated[
        int,
        Field(ge=0, le=1_000_000, description="shards of one requester that may run at the same time; 0: any number"),
    ] = 0
    max_open_jobs: Annotated[
        int, Field(ge=1, le=1_000_000, description="jobs of one requester that may run or be paused at the same time")
    ] = 1_000
    payout_threshold_sats: Annotated[
        int, Field(ge=1, le=100_000_000, description="earnings are paid out from this amount on")
    ] = 1_000
    msat_per_tera_unit: Annotated[
        int, Field(ge=0, le=1_000_000_000, description="price of 10^12 tokens x parameters")
    ] = 10
    minimum_shard_msat: Annotated[int, Field(ge=0, le=1_000_000_000, description="no shard costs less")] = 1_000
    fee_basis_points: Annotated[int, Field(ge=0, le=5_000, description="the house's share on top")] = 200
    upload_quota_gib: Annotated[
        float,
        Field(gt=0, le=1_048_576, description="uploads of one party that no job or result uses may take so much"),
    ] = 32.0
    upload_keep_hours: Annotated[
        float, Field(gt=0, description="such uploads and unfinished ones are deleted after this time")
    ] = 24.0
    owner_quota_gib: Annotated[
        float,
        Field(gt=0, le=1_048_576, description="all that one party stores: its uploads and the outputs of its jobs"),
    ] = 512.0
    keep_days: Annotated[
        float,
        Field(
            gt=0,
            le=36_500,
            description="days that inputs and intermediate results stay after their job or round has ended",
        ),
    ] = 7.0
    keep_outputs_days: Annotated[
        float,
        Field(
            ge=0,
            le=36_500,
            description="days that outputs stay after their job has ended; 0: until their owner deletes",
        ),
    ] = 90.0
    hub_url: Annotated[str, Field(description="the hub that `hub:` models are copied from")] = "https://huggingface.co"
    hub_allow: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9._*?/\[\]! -]*$",
            max_length=2_000,
            description="models that may be copied, as patterns of ORG/NAME with spaces between; empty: none",
        ),
    ] = ""
    hub_hosts: Annotated[
        str, Field(description="hosts that the hub may send a download on to, as patterns with spaces between")
    ] = "*.huggingface.co *.hf.co"
    hub_token_file: Annotated[
        Path | None, Field(description="file of mode 0600 with the hub's token, for models that need one")
    ] = None
    hub_max_gib: Annotated[float, Field(gt=0, description="largest model that is copied")] = 32.0
    hub_cache_gib: Annotated[
        float, Field(gt=0, description="all copied models together; the least recently used give way")
    ] = 200.0
    executor_cache_gib: Annotated[
        float, Field(ge=0, description="inputs that the executor keeps on disk between phases, at most")
    ] = 8.0
    disk_reserve_mib: Annotated[
        int,
        Field(ge=0, description="disk never filled by uploads and phases; uploads without a lease leave twice as much"),
    ] = 1024
    log_format: Annotated[
        Literal["auto", "console", "json"],
        Field(description="lines of the log; auto: in columns on a terminal, JSON elsewhere"),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="least level that is logged; debug: every call")
    ] = "info"
    traces: Annotated[
        Literal["auto", "on", "off"],
        Field(description="OpenTelemetry spans, with the extra `otel`; auto: where OTEL_* variables ask for them"),
    ] = "auto"
    executor_processes: Annotated[int, Field(ge=1, le=64, description="processes for prepare and merging")] = 1

    @property
    def is_shared(self) -> bool:
        """Whether other coordinators may work on the same database."""
        return self.database.startswith("postgres")
