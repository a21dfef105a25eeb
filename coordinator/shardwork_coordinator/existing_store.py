"""Existing store: the settings and the database that a command of the operator works on, beside a serving coordinator.

Used by `cli` and the modules of its groups of commands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

DataDir = Annotated[Path | None, typer.Option(help="Folder of keys, database and artifacts.")]


def settings_of(data_dir: Path | None, flags: Mapping[str, object]) -> Any:
    from shardwork.config import Home, load_settings

    from .settings import Settings
    from .telemetry import logs

    home = Home.find()
    given = {**flags, "data_dir": data_dir}
    defaults: dict[str, object] = (
        {} if data_dir or os.environ.get("SHARDWORK_DATA_DIR") else {"data_dir": home.data_dir / "coordinator"}
    )
    others = {name for name in os.environ if name in ("SHARDWORK_FAILPOINT", "SHARDWORK_DEBUG", "SHARDWORK_JOIN")}
    merged = {**given, **defaults}
    file = home.config_dir / "coordinator.toml"
    settings = load_settings(Settings, file, os.environ, merged, other_variables=others)
    logs.configure(settings.log_format, settings.log_level)
    return settings


async def read(settings: Any, work: Any) -> Any:
    store = existing_store(settings)
    try:
        return await store.read(work)
    finally:
        store.close()


async def write(settings: Any, work: Any) -> Any:
    store = existing_store(settings)
    try:
        return await store.write(work)
    finally:
        store.close()


def existing_store(settings: Any) -> Any:
    """A started store. Raises NotFound "store.not_here": a mistyped folder has no books that could balance; and
    Conflict "store.older_database": what looks must not change what an older coordinator may be serving."""
    from shardwork.errors import NotFound

    from .app import database_file, open_store, start_store

    path = database_file(settings)
    if path is not None and not path.exists():
        raise NotFound(
            "store.not_here",
            "There is no coordinator's database here.",
            next_step="Give --data-dir the folder that `serve` uses.",
            path=path,
        )
    store = open_store(settings)
    _check_schema(store)
    start_store(store)
    return store


def _check_schema(store: Any) -> None:
    from shardwork.errors import Conflict

    from .app import telling_unusable
    from .store import SqlStore

    if not isinstance(store, SqlStore):
        return
    with telling_unusable():
        needed = store.migrate(dry_run=True)
    if needed.steps:
        raise Conflict(
            "store.older_database",
            "This database is not of this version's form yet; nothing was changed.",
            next_step="Stop who serves it, make a `backup`, then run `shardwork-coordinator migrate`.",
            has=needed.before or "no tables",
            needs=needed.after,
        )
