"""Failures and repair: how long a rule has had no success, what clients have announced, which files are lost."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_INSTANT = sa.DateTime(timezone=True)
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("rules", sa.Column("stuck_since", _INSTANT, nullable=True))
    op.execute("UPDATE rules SET stuck_since = stuck_at WHERE state = 'STUCK'")
    op.add_column("replicas", sa.Column("announced_at", _INSTANT, nullable=True))
    op.create_index(
        "ix_replicas_announced_at",
        "replicas",
        ["announced_at"],
        postgresql_where=sa.text("announced_at IS NOT NULL"),
        sqlite_where=sa.text("announced_at IS NOT NULL"),
    )
    # what was announced before has its whole time from now on
    op.execute(
        """
        UPDATE replicas SET announced_at = CURRENT_TIMESTAMP
        WHERE state = 'COPYING' AND NOT EXISTS (
            SELECT 1 FROM requests
            WHERE requests.file_id = replicas.file_id AND requests.destination_id = replicas.rse_id
        )
        """
    )
    op.create_table(
        "lost_files",
        sa.Column("file_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("lost_at", _INSTANT, nullable=False),
        sa.Column("accepted_at", _INSTANT, nullable=True),
        sa.Column("account_id", sa.Integer(), nullable=True),
        sa.Column("accepted_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("file_id", name=op.f("pk_lost_files")),
    )
    op.create_index(
        "ix_lost_files_open",
        "lost_files",
        ["lost_at"],
        postgresql_where=sa.text("accepted_at IS NULL"),
        sqlite_where=sa.text("accepted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("lost_files")
    op.drop_index("ix_replicas_announced_at", table_name="replicas")
    op.drop_column("replicas", "announced_at")
    op.drop_column("rules", "stuck_since")
