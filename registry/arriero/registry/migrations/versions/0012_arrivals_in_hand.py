"""Arrivals that a Butler may have are known as such; what is parked and what came last is found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_INDEXES = {
    "ix_arrivals_parked": (["butler_id"], "state = 'parked'"),
    "ix_arrivals_ingested_at": (["butler_id", "ingested_at"], "ingested_at IS NOT NULL"),
}


def upgrade() -> None:
    op.add_column("arrivals", sa.Column("may_hold", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute(
        "UPDATE arrivals SET may_hold = true WHERE code = 'lease_expired' AND state IN ('pending', 'failed')"
    )
    for name, (columns, condition) in _INDEXES.items():
        where = sa.text(condition)
        op.create_index(name, "arrivals", columns, postgresql_where=where, sqlite_where=where)


def downgrade() -> None:
    for name in _INDEXES:
        op.drop_index(name, table_name="arrivals")
    op.drop_column("arrivals", "may_hold")
