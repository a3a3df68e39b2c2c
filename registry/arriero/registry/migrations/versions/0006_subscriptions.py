"""Subscriptions are applied: which DIDs have to be looked at, and which each was applied to."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_INSTANT = sa.DateTime(timezone=True)
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column(
        "subscriptions",
        sa.Column("wants_files", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    _say_who_wants_files()
    op.create_table(
        "subscription_items",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("subscription_id", _BIG_ID, nullable=True),
        sa.Column("first_did_id", sa.BigInteger(), nullable=False),
        sa.Column("last_did_id", sa.BigInteger(), nullable=False),
        sa.Column("again", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("not_before", _INSTANT, nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_subscription_items_subscription_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscription_items")),
    )
    op.create_index("ix_subscription_items_due", "subscription_items", ["not_before", "id"])
    op.create_index(op.f("ix_subscription_items_subscription_id"), "subscription_items", ["subscription_id"])
    op.create_table(
        "subscription_matches",
        sa.Column("did_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("subscription_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["did_id"], ["dids.id"], name=op.f("fk_subscription_matches_did_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_subscription_matches_subscription_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("did_id", "subscription_id", name=op.f("pk_subscription_matches")),
    )
    op.create_index(
        "ix_dids_collection_ids",
        "dids",
        ["id"],
        postgresql_where=sa.text("type IN ('DATASET', 'CONTAINER')"),
        sqlite_where=sa.text("type IN ('DATASET', 'CONTAINER')"),
    )


def _say_who_wants_files() -> None:
    bind = op.get_bind()
    for row in bind.execute(sa.text("SELECT id, filter FROM subscriptions")).all():
        found = json.loads(row.filter) if isinstance(row.filter, str) else row.filter
        types = found.get("did_type", [])
        if "FILE" in [str(one).upper() for one in (types if isinstance(types, list) else [types])]:
            bind.execute(
                sa.text("UPDATE subscriptions SET wants_files = :yes WHERE id = :id"),
                {"yes": True, "id": row.id},
            )


def downgrade() -> None:
    op.drop_index("ix_dids_collection_ids", "dids")
    op.drop_table("subscription_matches")
    op.drop_table("subscription_items")
    op.drop_column("subscriptions", "wants_files")
