"""Alembic's environment: runs revisions on the connection, and in the transaction, that `migrate` hands over."""

from __future__ import annotations

from alembic import context

from shardwork_coordinator.store.tables import METADATA


def run() -> None:
    context.configure(
        connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=True
    )
    with context.begin_transaction():
        context.run_migrations()


run()
