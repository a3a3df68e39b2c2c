"""Bytes are deleted: the queue, its history, what each RSE is to it, and the indexes by which it finds what may go."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_INSTANT = sa.DateTime(timezone=True)
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _words(*words: str, name: str) -> sa.Enum:
    return sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=24)


def _cause() -> sa.Enum:
    return _words("expired", "bad", "purge", "unlocked", name="cause")


def _is_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"


def upgrade() -> None:
    _create_deletions()
    _create_history()
    _create_rses()
    _create_stops()
    for name, table, columns, which in (
        ("ix_replicas_at_once", "replicas", ["rse_id", "file_id"], "purge IS NOT NULL"),
        ("ix_replicas_tombstone", "replicas", ["rse_id", "tombstone", "file_id"], "tombstone IS NOT NULL"),
        ("ix_bad_replicas_bad", "bad_replicas", ["rse_id", "file_id"], "state = 'BAD'"),
    ):
        op.create_index(name, table, columns, postgresql_where=sa.text(which), sqlite_where=sa.text(which))


def _create_deletions() -> None:
    op.create_table(
        "deletions",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("file_id", _BIG_ID, nullable=False),
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("cause", _cause(), nullable=False),
        sa.Column(
            "was",
            _words(
                "AVAILABLE",
                "UNAVAILABLE",
                "COPYING",
                "BEING_DELETED",
                "BAD",
                "TEMPORARY_UNAVAILABLE",
                name="was",
            ),
            nullable=False,
        ),
        sa.Column("proof_rse_id", sa.Integer(), nullable=True),
        sa.Column("proof_at", _INSTANT, nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("not_before", _INSTANT, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", _INSTANT, nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("grave_until", _INSTANT, nullable=True),
        sa.Column("gone_at", _INSTANT, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("started_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deletions")),
        sa.UniqueConstraint("file_id", "rse_id", name=op.f("uq_deletions_file_id_rse_id")),
    )
    op.create_index("ix_deletions_rse_id_not_before", "deletions", ["rse_id", "not_before"])


def _create_history() -> None:
    # PostgreSQL wants the column that it partitions by in the key; SQLite counts up only in a key of one column
    key = ["id", "at"] if _is_postgresql() else ["id"]
    op.create_table(
        "deletion_history",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("deletion_id", _BIG_ID, nullable=False),
        sa.Column("file_id", _BIG_ID, nullable=False),
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("cause", _cause(), nullable=False),
        sa.Column("state", _words("DONE", "NOT_FOUND", "KEPT", name="state"), nullable=False),
        sa.Column("proof_rse_id", sa.Integer(), nullable=True),
        sa.Column("proof_at", _INSTANT, nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("started_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint(*key, name=op.f("pk_deletion_history")),
        postgresql_partition_by="RANGE (at)",
    )
    if _is_postgresql():
        op.execute("CREATE TABLE deletion_history_default PARTITION OF deletion_history DEFAULT")
    op.create_index("ix_deletion_history_file_id_at", "deletion_history", ["file_id", "at"])


def _create_rses() -> None:
    op.add_column(
        "rse_usage", sa.Column("freed", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.create_table(
        "rse_deletions",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("not_before", _INSTANT, nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("paced_until", _INSTANT, nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("marked_at", _INSTANT, nullable=True),
        sa.Column("take_over", sa.Boolean(), nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_rse_deletions_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", name=op.f("pk_rse_deletions")),
    )
    op.create_table(
        "deletion_passes",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("kind", _words("at_once", "bad", "when_needed", name="kind"), nullable=False),
        sa.Column("after_at", _INSTANT, nullable=True),
        sa.Column("after_file_id", sa.BigInteger(), nullable=True),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.Column("not_before", _INSTANT, nullable=True),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_deletion_passes_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", "kind", name=op.f("pk_deletion_passes")),
    )


def _create_stops() -> None:
    op.create_table(
        "stops",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("account_id", sa.Integer(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_stops_account_id")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_stops")),
    )
    made = op.create_table(
        "installation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.execute(sa.insert(made).values(id=uuid.uuid4(), created_at=sa.func.current_timestamp()))


def downgrade() -> None:
    op.drop_index("ix_bad_replicas_bad", "bad_replicas")
    op.drop_index("ix_replicas_tombstone", "replicas")
    op.drop_index("ix_replicas_at_once", "replicas")
    for table in (
        "installation",
        "stops",
        "deletion_passes",
        "rse_deletions",
        "deletion_history",
        "deletions",
    ):
        op.drop_table(table)
    op.drop_column("rse_usage", "freed")
