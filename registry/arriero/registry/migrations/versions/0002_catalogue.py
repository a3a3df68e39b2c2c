"""The rest of the catalogue: limits and usage of accounts, what was deleted or detached, bad and dark replicas.

Words of states are spelt out here: a revision must not change when the code does.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_INSTANT = sa.DateTime(timezone=True)
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def _words(*words: str, name: str) -> sa.Enum:
    return sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=24)


def upgrade() -> None:
    _create_accounts()
    _create_dids()
    _create_replicas()
    _create_rses()


def _create_accounts() -> None:
    op.create_table(
        "account_attributes",
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_account_attributes_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "key", name=op.f("pk_account_attributes")),
    )
    op.create_table(
        "account_limits",
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_account_limits_account_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_account_limits_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "rse_id", name=op.f("pk_account_limits")),
    )
    op.create_table(
        "account_global_limits",
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("rse_expression", sa.String(length=1000), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
            name=op.f("fk_account_global_limits_account_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("account_id", "rse_expression", name=op.f("pk_account_global_limits")),
    )
    op.create_table(
        "account_usage_history",
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
            name=op.f("fk_account_usage_history_account_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_account_usage_history_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "rse_id", "at", name=op.f("pk_account_usage_history")),
    )
    op.create_index("ix_account_usage_history_at", "account_usage_history", ["at"], unique=False)


def _create_dids() -> None:
    op.create_table(
        "deleted_dids",
        sa.Column("id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("scope_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=500), nullable=False),
        sa.Column("type", _words("FILE", "DATASET", "CONTAINER", name="type"), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("monotonic", sa.Boolean(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("adler32", sa.String(length=8), nullable=True),
        sa.Column("md5", sa.String(length=32), nullable=True),
        sa.Column("meta", _JSON, nullable=True),
        sa.Column("closed_at", _INSTANT, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("deleted_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_deleted_dids_account_id")),
        sa.ForeignKeyConstraint(["scope_id"], ["scopes.id"], name=op.f("fk_deleted_dids_scope_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_dids")),
    )
    op.create_index("ix_deleted_dids_scope_id_name", "deleted_dids", ["scope_id", "name"], unique=False)
    op.create_table(
        "contents_history",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("parent_id", _BIG_ID, nullable=False),
        sa.Column("child_id", _BIG_ID, nullable=False),
        sa.Column("attached_at", _INSTANT, nullable=False),
        sa.Column("detached_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contents_history")),
    )
    op.create_index(
        "ix_contents_history_parent_id_child_id", "contents_history", ["parent_id", "child_id"], unique=False
    )


def _create_replicas() -> None:
    op.create_table(
        "bad_replicas",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("file_id", _BIG_ID, nullable=False),
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            _words(
                "BAD", "SUSPICIOUS", "TEMPORARY_UNAVAILABLE", "LOST", "RECOVERED", "DELETED", name="state"
            ),
            nullable=False,
        ),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("account_id", sa.Integer(), nullable=True),
        sa.Column("expires_at", _INSTANT, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_bad_replicas_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bad_replicas")),
    )
    op.create_index("ix_bad_replicas_file_id_rse_id", "bad_replicas", ["file_id", "rse_id"], unique=False)
    op.create_index("ix_bad_replicas_state_created_at", "bad_replicas", ["state", "created_at"], unique=False)
    op.create_table(
        "quarantined_replicas",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("adler32", sa.String(length=8), nullable=True),
        sa.Column("md5", sa.String(length=32), nullable=True),
        sa.Column("scope", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_quarantined_replicas_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", "path", name=op.f("pk_quarantined_replicas")),
    )


def _create_rses() -> None:
    op.create_table(
        "rse_usage_history",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=True),
        sa.Column("free", sa.BigInteger(), nullable=True),
        sa.Column("files", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_rse_usage_history_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", "source", "at", name=op.f("pk_rse_usage_history")),
    )
    op.create_table(
        "rse_qos_policies",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_rse_qos_policies_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", "policy", name=op.f("pk_rse_qos_policies")),
    )
    op.create_table(
        "transfer_limits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rse_expression", sa.Text(), nullable=False),
        sa.Column("direction", _words("SOURCE", "DESTINATION", name="direction"), nullable=False),
        sa.Column("activity", sa.String(length=50), nullable=False),
        sa.Column("max_transfers", sa.Integer(), nullable=False),
        sa.Column("volume", sa.BigInteger(), nullable=True),
        sa.Column("deadline_h", sa.Integer(), nullable=True),
        sa.Column("strategy", sa.String(length=25), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transfer_limits")),
        sa.UniqueConstraint(
            "rse_expression",
            "direction",
            "activity",
            name=op.f("uq_transfer_limits_rse_expression_direction_activity"),
        ),
    )


def downgrade() -> None:
    for table in (
        "transfer_limits",
        "rse_qos_policies",
        "rse_usage_history",
        "quarantined_replicas",
        "bad_replicas",
        "contents_history",
        "deleted_dids",
        "account_usage_history",
        "account_global_limits",
        "account_limits",
        "account_attributes",
    ):
        op.drop_table(table)
