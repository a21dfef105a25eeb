"""An attachment keeps all that its worker said at its arrival, not only what its machine is."""

from __future__ import annotations

from alembic import op

revision = "r0005"
down_revision: str | None = "r0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DELETE FROM attachment")
    op.execute("ALTER TABLE attachment RENAME COLUMN capability TO hello")
