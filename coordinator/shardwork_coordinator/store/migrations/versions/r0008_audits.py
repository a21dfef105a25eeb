"""A shard may check another's result, and a round keeps what its recipe measured."""

from __future__ import annotations

from alembic import op

revision = "r0008"
down_revision: str | None = "r0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE shard ADD COLUMN audits TEXT NOT NULL DEFAULT ''")
    op.create_index("ix_shard_audits", "shard", ["audits"])
    op.execute("ALTER TABLE round ADD COLUMN measures_json TEXT NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    raise NotImplementedError("a coordinator's database is never taken back to an older shape; restore a backup")
