"""Evaluations follow the change: what of a rule has to be looked at, and which of its groups have no place.

Words of states are spelt out here: a revision must not change when the code does.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_INSTANT = sa.DateTime(timezone=True)
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KINDS = sa.Enum(
    "FILE", "DATASET", "CONTAINER", "STUCK", name="kind", native_enum=False, create_constraint=True, length=24
)


def upgrade() -> None:
    op.add_column("evaluations", sa.Column("retry_at", _INSTANT, nullable=True))
    op.add_column("dataset_locks", sa.Column("reason", sa.Text(), nullable=True))
    op.create_table(
        "evaluation_items",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("rule_id", _BIG_ID, nullable=False),
        sa.Column("kind", _KINDS, nullable=False),
        sa.Column("did_id", _BIG_ID, nullable=True),
        sa.Column("after_file_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluation_items")),
    )
    op.create_index("ix_evaluation_items_rule_id_kind_id", "evaluation_items", ["rule_id", "kind", "id"])
    op.create_index(
        "ix_evaluation_items_collections",
        "evaluation_items",
        ["did_id"],
        postgresql_where=sa.text("kind IN ('DATASET', 'CONTAINER')"),
        sqlite_where=sa.text("kind IN ('DATASET', 'CONTAINER')"),
    )
    op.create_table(
        "unplaced_groups",
        sa.Column("rule_id", _BIG_ID, nullable=False),
        sa.Column("group_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["rule_id"], ["rules.id"], name=op.f("fk_unplaced_groups_rule_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rule_id", "group_id", name=op.f("pk_unplaced_groups")),
    )
    # what was due, or had no place, is looked at as a whole once
    op.execute(
        """
        INSERT INTO evaluation_items (rule_id, kind, did_id)
        SELECT rules.id, dids.type, dids.id FROM rules
        JOIN evaluations ON evaluations.rule_id = rules.id
        JOIN dids ON dids.id = rules.did_id
        ORDER BY rules.id
        """
    )


def downgrade() -> None:
    op.drop_table("unplaced_groups")
    op.drop_table("evaluation_items")
    op.drop_column("dataset_locks", "reason")
    op.drop_column("evaluations", "retry_at")
