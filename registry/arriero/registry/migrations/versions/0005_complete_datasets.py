"""Who asks to be told of complete datasets: what is missing is found by an index, and what was told is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_index(
        "ix_locks_missing",
        "locks",
        ["rule_id", "file_id"],
        postgresql_where=sa.text("state <> 'OK'"),
        sqlite_where=sa.text("state <> 'OK'"),
    )
    op.create_table(
        "complete_datasets",
        sa.Column("rule_id", _BIG_ID, nullable=False),
        sa.Column("dataset_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("rse_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["rule_id"], ["rules.id"], name=op.f("fk_complete_datasets_rule_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rule_id", "dataset_id", "rse_id", name=op.f("pk_complete_datasets")),
    )


def downgrade() -> None:
    op.drop_table("complete_datasets")
    op.drop_index("ix_locks_missing", table_name="locks")
