"""First revision: every table as it stood when the store was born, and the append-only triggers."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision: str | None = None
branch_labels = None
depends_on = None


def _text(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable, autoincrement=False)


def _real(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Double(), nullable=nullable)


def _flag(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _blob(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def _create_party() -> None:
    op.create_table(
        "party",
        _text("id"),
        _blob("public_key"),
        _text("roles"),
        _text("name"),
        _text("payout_address"),
        _flag("reference"),
        _flag("revoked"),
        _text("software_version"),
        _number("created_ms"),
        _number("last_seen_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_party"),
        sa.UniqueConstraint("public_key", name="uq_party_public_key"),
    )


def _create_job() -> None:
    op.create_table(
        "job",
        _text("id"),
        _text("owner"),
        _text("submission_id"),
        _text("name"),
        _text("state"),
        _text("spec_json"),
        _text("facts_json"),
        _text("inputs_json"),
        _text("quote_json"),
        _text("rates_json"),
        _number("budget_msat"),
        _text("why_json"),
        _flag("self_evaluated"),
        _number("created_ms"),
        _number("ended_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sa.UniqueConstraint("owner", "submission_id", name="uq_job_owner_submission_id"),
        sa.CheckConstraint("budget_msat >= 0", name="ck_job_budget_msat"),
        sa.CheckConstraint(
            "state IN ('draft', 'funded', 'running', 'paused', 'succeeded', 'failed', 'cancelled')", name="ck_job_state"
        ),
    )
    op.create_index("ix_job_state", "job", ["state"])


def _create_stage() -> None:
    op.create_table(
        "stage",
        _text("job_id"),
        _text("name"),
        _number("position"),
        _text("recipe"),
        _text("state"),
        _number("planned_rounds"),
        _text("spec_json"),
        _text("artifacts_json"),
        _text("numbers_json"),
        _text("outputs_json"),
        sa.PrimaryKeyConstraint("job_id", "name", name="pk_stage"),
        sa.CheckConstraint("state IN ('waiting', 'running', 'done', 'failed', 'cancelled')", name="ck_stage_state"),
    )


def _create_round() -> None:
    op.create_table(
        "round",
        _text("job_id"),
        _text("stage"),
        _number("number"),
        _text("kind"),
        _text("state"),
        _text("phase"),
        _text("results_json"),
        _real("train_loss", nullable=True),
        _real("eval_loss", nullable=True),
        _text("outer"),
        _number("started_ms"),
        _number("ended_ms"),
        _number("bytes_up"),
        _number("bytes_down"),
        _number("reserved_msat"),
        _number("shards_left"),
        _number("accepted"),
        _number("rejected"),
        _number("paid_msat"),
        _number("fees_msat"),
        sa.PrimaryKeyConstraint("job_id", "stage", "number", name="pk_round"),
        sa.CheckConstraint("reserved_msat >= 0", name="ck_round_reserved_msat"),
        sa.CheckConstraint("paid_msat >= 0", name="ck_round_paid_msat"),
        sa.CheckConstraint("fees_msat >= 0", name="ck_round_fees_msat"),
        sa.CheckConstraint(
            "state IN ('open', 'judging', 'merging', 'evaluating', 'merged', 'rolled_back', 'abandoned')",
            name="ck_round_state",
        ),
    )


def _create_shard() -> None:
    op.create_table(
        "shard",
        _text("id"),
        _text("job_id"),
        _text("stage"),
        _number("round"),
        _text("phase"),
        _number("position"),
        _text("recipe"),
        _text("state"),
        _text("order_json"),
        _text("inputs_json"),
        _blob("seed"),
        _number("work_units"),
        _number("tokens"),
        _number("memory_bytes"),
        _number("price_msat"),
        _number("fee_msat"),
        _number("quorum"),
        _flag("reference_only"),
        _number("attempts_left"),
        _number("canonical"),
        _text("why_json"),
        _number("created_ms"),
        _number("done_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_shard"),
        sa.CheckConstraint("fee_msat >= 0", name="ck_shard_fee_msat"),
        sa.CheckConstraint("price_msat >= 0", name="ck_shard_price_msat"),
        sa.CheckConstraint("state IN ('ready', 'running', 'done', 'exhausted')", name="ck_shard_state"),
    )
    op.create_index("ix_shard_job_id_stage_round_phase", "shard", ["job_id", "stage", "round", "phase"])
    op.create_index("ix_shard_state", "shard", ["state"])


def _create_replica() -> None:
    op.create_table(
        "replica",
        _text("shard_id"),
        _number("number"),
        _text("job_id"),
        _text("stage"),
        _number("round"),
        _text("phase"),
        _text("purpose"),
        _text("state"),
        _number("epoch"),
        _text("worker_id"),
        _blob("offer"),
        _text("offer_sha256"),
        _number("granted_ms"),
        _number("expires_ms"),
        _number("deadline_ms"),
        _real("progress"),
        _real("loss", nullable=True),
        _text("step"),
        _text("output_root"),
        _text("outputs_json"),
        _text("metrics_json"),
        _text("why_json"),
        _number("created_ms"),
        sa.PrimaryKeyConstraint("shard_id", "number", name="pk_replica"),
        sa.CheckConstraint("purpose IN ('primary', 'backup', 'agreement')", name="ck_replica_purpose"),
        sa.CheckConstraint(
            "state IN ('ready', 'leased', 'committed', 'submitted', 'accepted', 'rejected', 'expired')",
            name="ck_replica_state",
        ),
    )
    op.create_index("ix_replica_job_id_stage_round_phase", "replica", ["job_id", "stage", "round", "phase"])
    op.create_index(
        "ix_replica_state_job_id_created_ms_shard_id_number",
        "replica",
        ["state", "job_id", "created_ms", "shard_id", "number"],
    )
    op.create_index("ix_replica_worker_id_state", "replica", ["worker_id", "state"])


def _create_lease() -> None:
    op.create_table(
        "lease",
        _text("id"),
        _text("job_id"),
        _text("shard_id"),
        _number("replica"),
        _number("epoch"),
        _text("worker_id"),
        _text("phase"),
        _text("state"),
        _number("granted_ms"),
        _number("ended_ms"),
        _number("paid_msat"),
        _number("compute_ms"),
        _text("why_json"),
        sa.PrimaryKeyConstraint("id", name="pk_lease"),
        sa.CheckConstraint("paid_msat >= 0", name="ck_lease_paid_msat"),
        sa.CheckConstraint(
            "state IN ('ready', 'leased', 'committed', 'submitted', 'accepted', 'rejected', 'expired')",
            name="ck_lease_state",
        ),
    )
    op.create_index("ix_lease_job_id", "lease", ["job_id"])
    op.create_index("ix_lease_shard_id", "lease", ["shard_id"])
    op.create_index("ix_lease_worker_id", "lease", ["worker_id"])


def _create_artifact() -> None:
    op.create_table(
        "artifact",
        _text("id"),
        _text("owner"),
        _text("purpose"),
        _text("state"),
        _number("bytes"),
        _number("leaves"),
        _number("created_ms"),
        sa.PrimaryKeyConstraint("id", "owner", name="pk_artifact"),
        sa.CheckConstraint("state IN ('staging', 'stored')", name="ck_artifact_state"),
    )
    op.create_index("ix_artifact_owner", "artifact", ["owner"])


def _create_event() -> None:
    op.create_table(
        "event",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        _text("job_id"),
        _number("at_ms"),
        _text("kind"),
        _text("subject"),
        _text("sentence"),
        _text("evidence_json"),
        sa.PrimaryKeyConstraint("sequence", name="pk_event"),
    )
    op.create_index("ix_event_job_id_sequence", "event", ["job_id", "sequence"])


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        _text("id"),
        _text("kind"),
        _text("payload_json"),
        _text("state"),
        _number("created_ms"),
        _number("attempts"),
        _text("why_json"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.CheckConstraint("state IN ('pending', 'done')", name="ck_outbox_state"),
    )
    op.create_index("ix_outbox_state", "outbox", ["state"])


def _create_answer() -> None:
    op.create_table(
        "answer",
        _text("id"),
        _text("request_sha256"),
        _blob("response"),
        _number("created_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_answer"),
    )


def _create_account() -> None:
    op.create_table(
        "account",
        _text("id"),
        _number("debits_pending"),
        _number("debits_posted"),
        _number("credits_pending"),
        _number("credits_posted"),
        sa.PrimaryKeyConstraint("id", name="pk_account"),
        sa.CheckConstraint("credits_pending >= 0", name="ck_account_credits_pending"),
        sa.CheckConstraint("credits_posted >= 0", name="ck_account_credits_posted"),
        sa.CheckConstraint("debits_pending >= 0", name="ck_account_debits_pending"),
        sa.CheckConstraint("debits_posted >= 0", name="ck_account_debits_posted"),
        sa.CheckConstraint(
            "substr(id, 1, 9) = 'external:' OR credits_posted - debits_posted - debits_pending >= 0",
            name="ck_account_floor",
        ),
    )


def _create_transfer() -> None:
    op.create_table(
        "transfer",
        _text("id"),
        _number("sequence"),
        _text("kind"),
        _text("debit"),
        _text("credit"),
        _number("msat"),
        _text("resolves", nullable=True),
        _text("reason"),
        _text("reference"),
        _number("at_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_transfer"),
        sa.UniqueConstraint("resolves", name="uq_transfer_resolves"),
        sa.UniqueConstraint("sequence", name="uq_transfer_sequence"),
        sa.CheckConstraint("debit <> credit", name="ck_transfer_accounts"),
        sa.CheckConstraint("kind IN ('posted', 'pending', 'post', 'void')", name="ck_transfer_kind"),
        sa.CheckConstraint("msat > 0", name="ck_transfer_msat"),
        sa.CheckConstraint("(kind IN ('post', 'void')) = (resolves IS NOT NULL)", name="ck_transfer_resolves"),
    )
    op.create_index("ix_transfer_credit_sequence", "transfer", ["credit", "sequence"])
    op.create_index("ix_transfer_debit_sequence", "transfer", ["debit", "sequence"])


def _create_deposit() -> None:
    op.create_table(
        "deposit",
        _text("id"),
        _text("owner"),
        _text("idempotency_key"),
        _number("msat"),
        _text("invoice"),
        _text("payment_hash"),
        _text("state"),
        _number("created_ms"),
        _number("expires_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_deposit"),
        sa.UniqueConstraint("owner", "idempotency_key", name="uq_deposit_owner_idempotency_key"),
        sa.UniqueConstraint("payment_hash", name="uq_deposit_payment_hash"),
        sa.CheckConstraint("msat > 0", name="ck_deposit_msat"),
        sa.CheckConstraint("state IN ('open', 'settled', 'expired')", name="ck_deposit_state"),
    )
    op.create_index("ix_deposit_state", "deposit", ["state"])


def _create_payout() -> None:
    op.create_table(
        "payout",
        _text("id"),
        _text("owner"),
        _text("address"),
        _number("msat"),
        _number("fee_limit_msat"),
        _text("state"),
        _text("invoice"),
        _text("payment_hash", nullable=True),
        _text("preimage"),
        _number("attempts"),
        _text("why_json"),
        _number("created_ms"),
        _number("updated_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_payout"),
        sa.UniqueConstraint("payment_hash", name="uq_payout_payment_hash"),
        sa.CheckConstraint("fee_limit_msat >= 0", name="ck_payout_fee_limit_msat"),
        sa.CheckConstraint("msat > 0", name="ck_payout_msat"),
        sa.CheckConstraint(
            "state IN ('created', 'bound', 'sent', 'settled', 'failed', 'unknown')", name="ck_payout_state"
        ),
    )
    op.create_index("ix_payout_owner_created_ms", "payout", ["owner", "created_ms"])
    op.create_index("ix_payout_state", "payout", ["state"])


def _forbid_changes(dialect: str) -> None:
    """The database itself refuses to edit or remove transfers and events."""
    if dialect == "sqlite":
        for name in ("transfer", "event"):
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {name}_no_{verb.lower()} BEFORE {verb} ON {name} "
                    f"BEGIN SELECT RAISE(ABORT, '{name} is append-only'); END"
                )
        return
    op.execute(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for name in ("transfer", "event"):
        op.execute(
            f"CREATE TRIGGER {name}_append_only BEFORE UPDATE OR DELETE ON {name} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )


def upgrade() -> None:
    _create_party()
    _create_job()
    _create_stage()
    _create_round()
    _create_shard()
    _create_replica()
    _create_lease()
    _create_artifact()
    _create_event()
    _create_outbox()
    _create_answer()
    _create_account()
    _create_transfer()
    _create_deposit()
    _create_payout()
    _forbid_changes(op.get_bind().dialect.name)
