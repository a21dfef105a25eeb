"""Every Store by its name, for suites that run on each: memory, SQLite, and PostgreSQL where a wheel has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import database
from sqlalchemy import create_engine

from shardwork_coordinator.store import MemoryStore, SqlStore, Store
from shardwork_coordinator.store.tables import METADATA

#: a folder of the test's own, and the URL of a PostgreSQL database whose rows may go
OPEN: dict[str, Callable[[Path, str], Store]] = {
    "memory": lambda folder, server: MemoryStore(),
    "sqlite": lambda folder, server: SqlStore(f"sqlite:///{folder}/data/coordinator.db"),
}
if database.is_there():
    OPEN["postgresql"] = lambda folder, server: _emptied(server)


def engine_url(url: str) -> str:
    """With the driver that SQLAlchemy shall take."""
    return url.replace("postgresql:", "postgresql+psycopg:", 1)


def _emptied(url: str) -> Store:
    engine = create_engine(engine_url(url))
    with engine.begin() as connection:
        names = ", ".join(f'"{name}"' for name in METADATA.tables)
        connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")
    engine.dispose()
    return SqlStore(url)
