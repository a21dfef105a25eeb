"""Fair shares, time-outs, top-ups and donated work: what scheduling keeps beside a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0003"
down_revision: str | None = "r0002"
branch_labels = None
depends_on = None

#: (table, column, type and default, whether it must not be negative)
_ADDED = (
    ("job", "extra_msat", "BIGINT NOT NULL DEFAULT 0", True),
    ("job", "deadline_ms", "BIGINT NOT NULL DEFAULT 0", False),
    ("stage", "deadline_ms", "BIGINT NOT NULL DEFAULT 0", False),
    ("round", "donated_msat", "BIGINT NOT NULL DEFAULT 0", True),
    ("replica", "donated", "BOOLEAN NOT NULL DEFAULT FALSE", False),
    ("lease", "work_units", "BIGINT NOT NULL DEFAULT 0", False),
    ("lease", "donated_msat", "BIGINT NOT NULL DEFAULT 0", True),
)
#: (old index, its table), and (new index, table, columns)
_DROPPED = (("ix_job_state", "job"), ("ix_lease_worker_id", "lease"), ("ix_lease_job_id", "lease"))
_CREATED = (
    ("ix_job_state_deadline_ms", "job", ["state", "deadline_ms"]),
    ("ix_job_owner_created_ms", "job", ["owner", "created_ms"]),
    ("ix_stage_state_deadline_ms", "stage", ["state", "deadline_ms"]),
    ("ix_lease_worker_id_ended_ms", "lease", ["worker_id", "ended_ms"]),
    ("ix_lease_job_id_state_ended_ms", "lease", ["job_id", "state", "ended_ms"]),
)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False)


def upgrade() -> None:
    # said in SQL because SQLite takes a check with a new column only in the same breath
    for table, column, kind, floor in _ADDED:
        check = f" CONSTRAINT ck_{table}_{column} CHECK ({column} >= 0)" if floor else ""
        op.execute(f'ALTER TABLE "{table}" ADD COLUMN {column} {kind}{check}')
    for index, table in _DROPPED:
        op.drop_index(index, table)
    for index, table, columns in _CREATED:
        op.create_index(index, table, columns)
    op.create_table(
        "share",
        _text("owner"),
        _text("job_id"),
        sa.Column("virtual", sa.BigInteger(), nullable=False),
        sa.Column("clock", sa.BigInteger(), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "job_id", name="pk_share"),
    )
    op.create_index("ix_share_owner_open", "share", ["owner", "open"])


def downgrade() -> None:
    raise NotImplementedError("a coordinator's database is never taken back to an older shape; restore a backup")
