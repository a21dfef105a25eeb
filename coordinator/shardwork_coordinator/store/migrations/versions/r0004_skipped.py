"""Stages may be skipped, and say why they were or why they ended early."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0004"
down_revision: str | None = "r0003"
branch_labels = None
depends_on = None

BEFORE = "state IN ('waiting', 'running', 'done', 'failed', 'cancelled')"
AFTER = "state IN ('waiting', 'running', 'done', 'failed', 'cancelled', 'skipped')"


def _stage() -> sa.Table:
    """The table as it was: SQLite tells nobody its constraints, and is rebuilt from this."""
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    texts = ("job_id", "name", "recipe", "state", "spec_json", "artifacts_json", "numbers_json", "outputs_json")
    order = ("job_id", "name", "position", "recipe", "state", "planned_rounds", *texts[4:])
    return sa.Table(
        "stage",
        sa.MetaData(),
        *(sa.Column(name, text if name in texts else sa.BigInteger(), nullable=False) for name in order),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("job_id", "name", name="pk_stage"),
        sa.CheckConstraint(BEFORE, name="ck_stage_state"),
        sa.Index("ix_stage_state_deadline_ms", "state", "deadline_ms"),
    )


def upgrade() -> None:
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    with op.batch_alter_table("stage", copy_from=_stage()) as batch:
        batch.drop_constraint("ck_stage_state", type_="check")
        batch.create_check_constraint("ck_stage_state", AFTER)
        batch.add_column(sa.Column("why_json", text, nullable=False, server_default=""))


def downgrade() -> None:
    raise NotImplementedError("a coordinator's database is never taken back to an older shape; restore a backup")
