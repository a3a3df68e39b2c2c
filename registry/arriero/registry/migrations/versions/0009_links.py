"""Links, the health of RSEs, copies on the way to others; requests are queued in lanes."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "links",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("destination_id", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("throughput", sa.Float(), nullable=True),
        sa.Column("duration", sa.Float(), nullable=True),
        sa.Column("success", sa.Float(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("mode", sa.String(32), nullable=True),
        sa.Column("mode_reason", sa.Text(), nullable=True),
        sa.Column("code", sa.String(64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["destination_id"], ["rses.id"], name=op.f("fk_links_destination_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["rses.id"], name=op.f("fk_links_source_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("source_id", "destination_id", name=op.f("pk_links")),
    )
    op.create_table(
        "rse_health",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column(
            "breaker",
            sa.Enum(
                "CLOSED",
                "OPEN",
                "HALF_OPEN",
                name="breaker",
                native_enum=False,
                create_constraint=True,
                length=24,
            ),
            nullable=False,
        ),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("code", sa.String(64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_rse_health_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", name=op.f("pk_rse_health")),
    )
    op.create_table(
        "hops",
        sa.Column("file_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("rse_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("destination_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("file_id", "rse_id", name=op.f("pk_hops")),
    )
    op.create_index(
        "ix_requests_lanes",
        "requests",
        ["destination_id", "priority", "rule_id", "not_before"],
        postgresql_where=sa.text("state = 'QUEUED'"),
        sqlite_where=sa.text("state = 'QUEUED'"),
    )
    op.create_index(
        "ix_requests_ownerless",
        "requests",
        ["destination_id", "priority"],
        postgresql_where=sa.text("state = 'QUEUED' AND rule_id IS NULL"),
        sqlite_where=sa.text("state = 'QUEUED' AND rule_id IS NULL"),
    )
    op.drop_index("ix_requests_due", table_name="requests")


def downgrade() -> None:
    op.create_index(
        "ix_requests_due",
        "requests",
        ["priority", "id"],
        postgresql_where=sa.text("state = 'QUEUED'"),
        sqlite_where=sa.text("state = 'QUEUED'"),
    )
    op.drop_index("ix_requests_ownerless", table_name="requests")
    op.drop_index("ix_requests_lanes", table_name="requests")
    op.drop_table("hops")
    op.drop_table("rse_health")
    op.drop_table("links")
