"""People who judge: how each stands in a stage, and every task that they were given."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0009"
down_revision: str | None = "r0008"
branch_labels = None
depends_on = None

_STATES = (
    "'given', 'cast', 'held', 'paid', 'rejected', 'practice', 'skipped', 'reported', 'expired'",
    "'probation', 'cleared', 'stopped'",
)
_INDEXES = (
    ("shard", ["job_id", "phase", "state", "id"]),
    ("annotator", ["party"]),
    ("annotator", ["state", "last_ms"]),
    ("vote", ["annotator", "given_ms"]),
    ("vote", ["job_id", "stage", "state"]),
    ("vote", ["job_id", "stage", "number"]),
    ("vote", ["state", "cast_ms"]),
)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _create_annotator() -> None:
    op.create_table(
        "annotator",
        *(_text(name) for name in ("job_id", "stage", "party")),
        _number("number"),
        _text("state"),
        *(_number(name) for name in ("given", "votes", "practised")),
        _text("cursor"),
        sa.Column("nothing_left", sa.Boolean(), nullable=False),
        _text("evidence_json"),
        _text("why_json"),
        *(_number(name) for name in ("joined_ms", "last_ms")),
        sa.PrimaryKeyConstraint("job_id", "stage", "party", name="pk_annotator"),
        sa.UniqueConstraint("job_id", "stage", "number", name="uq_annotator_job_id_stage_number"),
        sa.CheckConstraint(f"state IN ({_STATES[1]})", name="ck_annotator_state"),
    )


def _create_vote() -> None:
    op.create_table(
        "vote",
        *(_text(name) for name in ("id", "shard_id")),
        _number("replica"),
        *(_text(name) for name in ("job_id", "stage", "phase", "annotator")),
        *(_number(name) for name in ("number", "position")),
        *(_text(name) for name in ("shown", "state", "answer_json", "body_sha256")),
        *(_number(name) for name in ("ms", "least_ms", "price_msat", "right", "given_ms", "cast_ms", "decided_ms")),
        _text("why_json"),
        sa.PrimaryKeyConstraint("id", name="pk_vote"),
        sa.UniqueConstraint("shard_id", "replica", name="uq_vote_shard_id_replica"),
        sa.CheckConstraint(f"state IN ({_STATES[0]})", name="ck_vote_state"),
        sa.CheckConstraint("price_msat >= 0", name="ck_vote_price_msat"),
    )


def upgrade() -> None:
    _create_annotator()
    _create_vote()
    for table, names in _INDEXES:
        op.create_index(f"ix_{table}_{'_'.join(names)}", table, names)


def downgrade() -> None:
    raise NotImplementedError("a coordinator's database is never taken back to an older shape; restore a backup")
