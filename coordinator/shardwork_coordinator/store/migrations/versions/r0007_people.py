"""Who signs in and with what, what operators did, the rules of the house, and what the HTTP API hands out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0007"
down_revision: str | None = "r0006"
branch_labels = None
depends_on = None

_STANDINGS = "'normal', 'drained', 'quarantined', 'banned'"
_APPEND_ONLY = ("auditentry", "policychange")
_INDEXES = (
    ("party", ["standing"]),
    ("party", ["last_seen_ms"]),
    ("party", ["listed"]),
    ("websession", ["user"]),
    ("apikey", ["owner"]),
    ("apifile", ["owner"]),
    ("auditentry", ["subject"]),
    ("policychange", ["name", "id"]),
    ("artifact", ["created_ms"]),
    ("job", ["created_ms"]),
    ("job", ["name"]),
    ("lease", ["ended_ms"]),
)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _create_people() -> None:
    op.create_table(
        "webuser",
        _text("name"),
        _text("role"),
        _text("password_hash"),
        _text("totp_secret"),
        _number("totp_step"),
        _number("created_ms"),
        _flag("disabled"),
        _number("failures"),
        _number("locked_until_ms"),
        sa.PrimaryKeyConstraint("name", name="pk_webuser"),
        sa.CheckConstraint("role IN ('viewer', 'operator')", name="ck_webuser_role"),
    )
    op.create_table(
        "websession",
        _text("id"),
        _text("user"),
        _text("csrf"),
        _number("created_ms"),
        _number("seen_ms"),
        _number("expires_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_websession"),
    )


def _create_api() -> None:
    op.create_table(
        "apikey",
        _text("id"),
        _text("owner"),
        _text("name"),
        _text("secret_sha256"),
        _number("created_ms"),
        _number("last_used_ms"),
        _number("expires_ms"),
        _flag("revoked"),
        sa.PrimaryKeyConstraint("id", name="pk_apikey"),
        sa.UniqueConstraint("secret_sha256", name="uq_apikey_secret_sha256"),
    )
    op.create_table(
        "apifile",
        _text("id"),
        _text("owner"),
        _text("artifact_id"),
        _text("filename"),
        _text("purpose"),
        _number("bytes"),
        _number("created_ms"),
        _flag("deleted"),
        sa.PrimaryKeyConstraint("id", name="pk_apifile"),
    )
    op.create_table(
        "offeredmodel",
        _text("name"),
        _text("artifact_id"),
        _number("bytes"),
        _text("facts_json"),
        _number("created_ms"),
        _flag("withdrawn"),
        sa.PrimaryKeyConstraint("name", name="pk_offeredmodel"),
    )


def _create_history() -> None:
    op.create_table(
        "auditentry",
        _text("id"),
        _number("at_ms"),
        _text("actor"),
        _text("action"),
        _text("subject"),
        _text("sentence"),
        _text("reason"),
        _text("evidence_json"),
        sa.PrimaryKeyConstraint("id", name="pk_auditentry"),
    )
    op.create_table(
        "policychange",
        _text("id"),
        _number("at_ms"),
        _text("actor"),
        _text("name"),
        _text("old_json"),
        _text("new_json"),
        _text("reason"),
        sa.PrimaryKeyConstraint("id", name="pk_policychange"),
    )


def _forbid_changes(dialect: str) -> None:
    """As the first revision does for transfers and events, whose function is used again."""
    for name in _APPEND_ONLY:
        if dialect != "sqlite":
            op.execute(
                f"CREATE TRIGGER {name}_append_only BEFORE UPDATE OR DELETE ON {name} "
                "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            )
            continue
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {name}_no_{verb.lower()} BEFORE {verb} ON {name} "
                f"BEGIN SELECT RAISE(ABORT, '{name} is append-only'); END"
            )


def upgrade() -> None:
    check = f"CONSTRAINT ck_party_standing CHECK (standing IN ({_STANDINGS}))"
    op.execute(f"ALTER TABLE party ADD COLUMN standing TEXT NOT NULL DEFAULT 'normal' {check}")
    op.execute("ALTER TABLE party ADD COLUMN standing_why_json TEXT NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE party ADD COLUMN listed BOOLEAN NOT NULL DEFAULT FALSE")
    _create_people()
    _create_api()
    _create_history()
    for table, names in _INDEXES:
        op.create_index(f"ix_{table}_{'_'.join(names)}", table, names)
    _forbid_changes(op.get_bind().dialect.name)


def downgrade() -> None:
    raise NotImplementedError("a coordinator's database is never taken back to an older shape; restore a backup")
