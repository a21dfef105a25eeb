"""Events may be details of one attempt, and a replica counts what the log told of its progress."""

from __future__ import annotations

from alembic import op

revision = "r0006"
down_revision: str | None = "r0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE event ADD COLUMN detail BOOLEAN NOT NULL DEFAULT FALSE")
    op.execute("ALTER TABLE replica ADD COLUMN parts_told BIGINT NOT NULL DEFAULT 0")


def downgrade() -> None:
    raise NotImplementedError("a coordinator's database is never taken back to an older shape; restore a backup")
