"""Requests that wait for the mover of a site are found by their source."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_requests_site_mover",
        "requests",
        ["source_id"],
        postgresql_where=sa.text("state = 'QUEUED' AND code = 'site_mover'"),
        sqlite_where=sa.text("state = 'QUEUED' AND code = 'site_mover'"),
    )


def downgrade() -> None:
    op.drop_index("ix_requests_site_mover", table_name="requests")
