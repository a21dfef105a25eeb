"""Migrations: the database's history, run by itself at start, offline, from inside the package.

`versions` holds one module per revision, `env` is what Alembic runs. A test compares a migrated database with `tables`.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from shardwork.errors import Conflict

FOLDER = Path(__file__).parent


def migrate(connection: Connection) -> None:
    """Brings the schema to this version's head inside the caller's transaction.

    Raises Conflict "store.newer_database" when the database names a revision that this version doesn't know.
    """
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    current = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise Conflict(
            "store.newer_database",
            "The database was written by a newer version of Shardwork.",
            next_step="Start the version that wrote it, or a newer one.",
            revision=current,
        )
    if current != scripts.get_current_head():
        command.upgrade(config, "head")
