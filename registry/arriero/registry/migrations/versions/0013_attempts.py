"""Attempts that were followed by another, why a copy went its way, how far it is; what storages can do; deletions counted for good."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_INSTANT = sa.DateTime(timezone=True)
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def _is_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"


def upgrade() -> None:
    op.add_column("requests", sa.Column("copied", sa.BigInteger(), nullable=True))
    op.add_column("request_history", sa.Column("mode_reason", sa.Text(), nullable=True))
    _create_attempts()
    op.create_table(
        "rse_abilities",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(length=300), nullable=False),
        sa.Column("abilities", _JSON, nullable=False),
        sa.Column("probed_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_rse_abilities_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", "origin", name=op.f("pk_rse_abilities")),
    )
    op.create_table(
        "deletion_totals",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_deletion_totals_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", "outcome", "code", name=op.f("pk_deletion_totals")),
    )


def _create_attempts() -> None:
    # PostgreSQL wants the column that it partitions by in the key; SQLite counts up only in a key of one column
    key = ["id", "at"] if _is_postgresql() else ["id"]
    op.create_table(
        "request_attempts",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("request_id", _BIG_ID, nullable=False),
        sa.Column("file_id", _BIG_ID, nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=True),
        sa.Column("destination_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("started_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint(*key, name=op.f("pk_request_attempts")),
        postgresql_partition_by="RANGE (at)",
    )
    if _is_postgresql():
        op.execute("CREATE TABLE request_attempts_default PARTITION OF request_attempts DEFAULT")
    op.create_index("ix_request_attempts_file_id_at", "request_attempts", ["file_id", "at"])


def downgrade() -> None:
    op.drop_table("deletion_totals")
    op.drop_table("rse_abilities")
    op.drop_table("request_attempts")
    op.drop_column("request_history", "mode_reason")
    op.drop_column("requests", "copied")
