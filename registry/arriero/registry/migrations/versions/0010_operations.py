"""Attempts of links counted for good; who has closed an RSE, since when and why."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "link_totals",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("destination_id", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("copies", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["destination_id"], ["rses.id"], name=op.f("fk_link_totals_destination_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["rses.id"], name=op.f("fk_link_totals_source_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("source_id", "destination_id", "code", name=op.f("pk_link_totals")),
    )
    op.create_table(
        "rse_pauses",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column(
            "operation",
            sa.Enum(
                "READ",
                "WRITE",
                "DELETE",
                name="operation",
                native_enum=False,
                create_constraint=True,
                length=24,
            ),
            nullable=False,
        ),
        sa.Column("account_id", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_rse_pauses_account_id")),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_rse_pauses_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", "operation", name=op.f("pk_rse_pauses")),
    )


def downgrade() -> None:
    op.drop_table("rse_pauses")
    op.drop_table("link_totals")
