"""Audits of storages, what they find, and replicas whose bytes are read again."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_INSTANT = sa.DateTime(timezone=True)
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_KINDS = ("MISSING", "DARK", "WRONG_SIZE", "WRONG_CHECKSUM")


def _words(*values: str, name: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=24)


def _partial(name: str, table: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, postgresql_where=where, sqlite_where=where)


def upgrade() -> None:
    _add_audits()
    _add_findings()
    _add_checks()
    op.add_column("quarantined_replicas", sa.Column("moved_to", sa.Text(), nullable=True))
    _partial(
        "ix_requests_doubtful",
        "requests",
        ["source_id", "file_id"],
        "code IN ('not_found', 'source_mismatch')",
    )


def _add_audits() -> None:
    op.create_table(
        "storage_audits",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("source", _words("DUMP", "WALK", name="source"), nullable=False),
        sa.Column(
            "state", _words("RECEIVING", "COMPARED", "HELD", "ABANDONED", name="state"), nullable=False
        ),
        sa.Column("observed_at", _INSTANT, nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("unusable", sa.BigInteger(), nullable=False),
        sa.Column("has_bytes", sa.Boolean(), nullable=False),
        sa.Column("has_adler32", sa.Boolean(), nullable=False),
        sa.Column("judged", sa.BigInteger(), nullable=True),
        sa.Column("missing", sa.BigInteger(), nullable=True),
        sa.Column("dark", sa.BigInteger(), nullable=True),
        sa.Column("wrong_size", sa.BigInteger(), nullable=True),
        sa.Column("wrong_checksum", sa.BigInteger(), nullable=True),
        sa.Column("declared", sa.BigInteger(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_storage_audits_rse_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_storage_audits_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_storage_audits")),
    )
    op.create_index("ix_storage_audits_rse_id_observed_at", "storage_audits", ["rse_id", "observed_at"])
    op.create_table(
        "storage_audit_lines",
        sa.Column("audit_id", _BIG_ID, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("file_id", _BIG_ID, nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("adler32", sa.String(length=8), nullable=True),
    )
    lines = "storage_audit_lines"
    _partial("ix_storage_audit_lines_known", lines, ["audit_id", "file_id"], "file_id IS NOT NULL")
    _partial("ix_storage_audit_lines_unknown", lines, ["audit_id", "number"], "file_id IS NULL")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(sa.text("ALTER TABLE storage_audit_lines SET UNLOGGED"))


def _add_findings() -> None:
    op.create_table(
        "storage_findings",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("kind", _words(*_KINDS, name="kind"), nullable=False),
        sa.Column(
            "state", _words("SEEN", "CONFIRMED", "DECLARED", "SUSPECTED", name="state"), nullable=False
        ),
        sa.Column("file_id", _BIG_ID, nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("adler32", sa.String(length=8), nullable=True),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("first_seen_at", _INSTANT, nullable=False),
        sa.Column("last_seen_at", _INSTANT, nullable=False),
        sa.Column("audit_id", _BIG_ID, nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_storage_findings_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_storage_findings")),
    )
    table, known = "storage_findings", "file_id IS NOT NULL"
    _partial("uq_storage_findings_replica", table, ["rse_id", "file_id"], known, unique=True)
    _partial("uq_storage_findings_dark", table, ["rse_id", "path"], "file_id IS NULL", unique=True)
    _partial("ix_storage_findings_file_id", table, ["file_id"], known)


def _add_checks() -> None:
    op.create_table(
        "replica_checks",
        sa.Column("file_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("rse_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rank", sa.SmallInteger(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("verified_at", _INSTANT, nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("not_before", _INSTANT, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", _INSTANT, nullable=True),
        sa.Column("claimed_at", _INSTANT, nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("file_id", "rse_id", name=op.f("pk_replica_checks")),
    )
    op.create_index("ix_replica_checks_rse_id_not_before", "replica_checks", ["rse_id", "not_before"])
    op.create_table(
        "scrubbed_rses",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("next_at", _INSTANT, nullable=False),
        sa.Column("refill_at", _INSTANT, nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("rate", sa.Float(), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_scrubbed_rses_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", name=op.f("pk_scrubbed_rses")),
    )


def downgrade() -> None:
    op.drop_index("ix_requests_doubtful", "requests")
    op.drop_column("quarantined_replicas", "moved_to")
    for table in (
        "scrubbed_rses",
        "replica_checks",
        "storage_findings",
        "storage_audit_lines",
        "storage_audits",
    ):
        op.drop_table(table)
