"""Several coordinators on one database: who they are, who is attached where, who carries out which effect."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision: str | None = "r0001"
branch_labels = None
depends_on = None


def _text_type() -> Any:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, _text_type(), nullable=False)


def _number(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=False, autoincrement=False)


def _create_cluster() -> None:
    op.create_table(
        "cluster",
        _text("id"),
        _text("ca_sha256"),
        _text("coordinator_key"),
        _text("operator_key"),
        _text("storage_id"),
        _number("created_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_cluster"),
    )
    op.create_table(
        "coordinator",
        _text("id"),
        _text("address"),
        _number("started_ms"),
        _number("heartbeat_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_coordinator"),
    )


def _create_attachment() -> None:
    op.create_table(
        "attachment",
        _text("worker_id"),
        _text("coordinator"),
        sa.Column("capability", sa.LargeBinary(), nullable=False),
        _number("minimum_msat"),
        sa.Column("accepting", sa.Boolean(), nullable=False),
        _number("since_ms"),
        sa.PrimaryKeyConstraint("worker_id", name="pk_attachment"),
        sa.CheckConstraint("minimum_msat >= 0", name="ck_attachment_minimum_msat"),
    )
    op.create_index("ix_attachment_coordinator", "attachment", ["coordinator"])


def upgrade() -> None:
    op.create_table(
        "paymentline", _number("number"), _text("line"), sa.PrimaryKeyConstraint("number", name="pk_paymentline")
    )
    _create_cluster()
    _create_attachment()
    op.create_table(
        "mark", _text("id"), _number("number"), _number("at_ms"), sa.PrimaryKeyConstraint("id", name="pk_mark")
    )
    op.add_column("outbox", sa.Column("holder", _text_type(), nullable=False, server_default=""))
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("outbox", "holder", server_default=None)
