"""One person's tasks in a stage are found without reading everybody's."""

from __future__ import annotations

from alembic import op

revision = "r0011"
down_revision: str | None = "r0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    names = ["annotator", "job_id", "stage", "number"]
    op.create_index(f"ix_vote_{'_'.join(names)}", "vote", names)


def downgrade() -> None:
    raise NotImplementedError("a coordinator's database is never taken back to an older shape; restore a backup")
