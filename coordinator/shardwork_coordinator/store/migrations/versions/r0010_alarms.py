"""A stage keeps the alarms that rang for it."""

from __future__ import annotations

from alembic import op

revision = "r0010"
down_revision: str | None = "r0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE stage ADD COLUMN alarms_json TEXT NOT NULL DEFAULT '[]'")


def downgrade() -> None:
    raise NotImplementedError("a coordinator's database is never taken back to an older shape; restore a backup")
