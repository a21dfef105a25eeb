"""Migrations: the database's history, run by itself at start, offline, from inside the package.

`versions` holds one module per revision, `env` is what Alembic runs. A test compares a migrated database with `tables`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event

from shardwork.errors import Conflict

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Step:
    """One revision."""

    revision: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """What was done to a schema, or would be."""

    #: revision; empty for a new database
    before: str
    after: str
    steps: tuple[Step, ...]
    #: SQL that ran, in order; without what only looked
    statements: tuple[str, ...] = ()


def migrate(connection: Connection) -> Migration:
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
    head = str(scripts.get_current_head())
    if current == head:
        return Migration(before=head, after=head, steps=())
    steps = [Step(one.revision, str(one.doc)) for one in scripts.iterate_revisions("head", current or "base")]
    statements = _listen(connection)
    command.upgrade(config, "head")
    return Migration(before=current or "", after=head, steps=tuple(reversed(steps)), statements=tuple(statements))


def _listen(connection: Connection) -> list[str]:
    """Fills with what changes the database as it runs on this connection."""
    found: list[str] = []

    def heard(_: object, __: object, statement: str, *___: object) -> None:
        text = " ".join(statement.split())
        if not text.upper().startswith(("SELECT", "PRAGMA", "SHOW")):
            found.append(text)

    event.listen(connection, "before_cursor_execute", heard)
    return found
