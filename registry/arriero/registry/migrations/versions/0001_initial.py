"""The first schema: the catalogue, its queues, its histories.

Words of states are spelt out here: a revision must not change when the code does.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_INSTANT = sa.DateTime(timezone=True)
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(JSONB(), "postgresql")
_NAME = sa.String(length=500).with_variant(sa.String(length=500, collation="C"), "postgresql")


def _words(*words: str, name: str) -> sa.Enum:
    return sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=24)


def _is_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"


def _history_key(table: str, time: str) -> list[sa.schema.SchemaItem]:
    # PostgreSQL wants the column that it partitions by in the key; SQLite counts up only in a key of one column
    columns = ["id", time] if _is_postgresql() else ["id"]
    return [sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))]


def _add_default_partition(table: str) -> None:
    if _is_postgresql():
        op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")


def upgrade() -> None:
    _create_accounts()
    _create_rses()
    _create_dids()
    _create_subscriptions()
    _create_rules()
    _create_requests()
    _create_butlers()
    _create_tokens()
    _create_histories()


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=25), nullable=False),
        sa.Column("type", _words("USER", "GROUP", "SERVICE", name="type"), nullable=False),
        sa.Column(
            "role", _words("admin", "data_manager", "site_agent", "reader", name="role"), nullable=False
        ),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("suspended_at", _INSTANT, nullable=True),
        sa.Column("deleted_at", _INSTANT, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("name", name=op.f("uq_accounts_name")),
    )
    op.create_table(
        "identities",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("type", _words("USERPASS", "X509", "OIDC", name="type"), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("secret_hash", sa.Text(), nullable=True),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_identities_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identities")),
        sa.UniqueConstraint(
            "type", "identity", "account_id", name=op.f("uq_identities_type_identity_account_id")
        ),
    )
    op.create_index(op.f("ix_identities_account_id"), "identities", ["account_id"], unique=False)
    op.create_table(
        "scopes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=25), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_scopes_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scopes")),
        sa.UniqueConstraint("name", name=op.f("uq_scopes_name")),
    )
    op.create_index(op.f("ix_scopes_account_id"), "scopes", ["account_id"], unique=False)


def _create_rses() -> None:
    op.create_table(
        "rses",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("type", _words("DISK", "TAPE", name="type"), nullable=False),
        sa.Column("deterministic", sa.Boolean(), nullable=False),
        sa.Column("volatile", sa.Boolean(), nullable=False),
        sa.Column("availability_read", sa.Boolean(), nullable=False),
        sa.Column("availability_write", sa.Boolean(), nullable=False),
        sa.Column("availability_delete", sa.Boolean(), nullable=False),
        sa.Column("staging_area", sa.Boolean(), nullable=False),
        sa.Column("details", _JSON, nullable=True),
        sa.Column("deleted_at", _INSTANT, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rses")),
        sa.UniqueConstraint("name", name=op.f("uq_rses_name")),
    )
    op.create_table(
        "rse_attributes",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_rse_attributes_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", "key", name=op.f("pk_rse_attributes")),
    )
    op.create_table(
        "rse_protocols",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("scheme", sa.String(length=32), nullable=False),
        sa.Column("hostname", sa.String(length=255), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("impl", sa.Text(), nullable=False),
        sa.Column("domains", _JSON, nullable=False),
        sa.Column("extended_attributes", _JSON, nullable=True),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_rse_protocols_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rse_protocols")),
        sa.UniqueConstraint(
            "rse_id", "scheme", "hostname", "port", name=op.f("uq_rse_protocols_rse_id_scheme_hostname_port")
        ),
    )
    op.create_table(
        "rse_distances",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("destination_id", sa.Integer(), nullable=False),
        sa.Column("distance", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["destination_id"], ["rses.id"], name=op.f("fk_rse_distances_destination_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["rses.id"], name=op.f("fk_rse_distances_source_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("source_id", "destination_id", name=op.f("pk_rse_distances")),
    )
    op.create_table(
        "rse_usage",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=True),
        sa.Column("free", sa.BigInteger(), nullable=True),
        sa.Column("files", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_rse_usage_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", "source", name=op.f("pk_rse_usage")),
    )
    op.create_table(
        "rse_limits",
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rse_id"], ["rses.id"], name=op.f("fk_rse_limits_rse_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rse_id", "name", name=op.f("pk_rse_limits")),
    )


def _create_dids() -> None:
    op.create_table(
        "dids",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("scope_id", sa.Integer(), nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("type", _words("FILE", "DATASET", "CONTAINER", name="type"), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("monotonic", sa.Boolean(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("adler32", sa.String(length=8), nullable=True),
        sa.Column("md5", sa.String(length=32), nullable=True),
        sa.Column("spread", sa.Integer(), nullable=False),
        sa.Column("closed_at", _INSTANT, nullable=True),
        sa.Column("expired_at", _INSTANT, nullable=True),
        sa.Column("accessed_at", _INSTANT, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dids")),
        sa.UniqueConstraint("scope_id", "name", name=op.f("uq_dids_scope_id_name")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_dids_collections",
        "dids",
        ["scope_id", "name"],
        unique=False,
        postgresql_where=sa.text("type <> 'FILE'"),
        sqlite_where=sa.text("type <> 'FILE'"),
    )
    op.create_index(
        "ix_dids_expired_at",
        "dids",
        ["expired_at"],
        unique=False,
        postgresql_where=sa.text("expired_at IS NOT NULL"),
        sqlite_where=sa.text("expired_at IS NOT NULL"),
    )
    op.create_table(
        "did_meta",
        sa.Column("did_id", _BIG_ID, nullable=False),
        sa.Column("meta", _JSON, nullable=False),
        sa.ForeignKeyConstraint(["did_id"], ["dids.id"], name=op.f("fk_did_meta_did_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("did_id", name=op.f("pk_did_meta")),
    )
    if op.get_bind().dialect.name == "postgresql":
        # `rubin_sidecar` is a document, not a value to search for: it would be two thirds of the index
        op.execute(
            "CREATE INDEX ix_did_meta_searched ON did_meta "
            "USING gin ((meta - 'rubin_sidecar'::text) jsonb_path_ops) WITH (gin_pending_list_limit = 256)"
        )
    op.create_table(
        "contents",
        sa.Column("parent_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("child_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("parent_id", "child_id", name=op.f("pk_contents")),
    )
    op.create_index("ix_contents_child_id", "contents", ["child_id", "parent_id"], unique=False)
    op.create_table(
        "replicas",
        sa.Column("file_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("rse_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column(
            "state",
            _words(
                "AVAILABLE",
                "UNAVAILABLE",
                "COPYING",
                "BEING_DELETED",
                "BAD",
                "TEMPORARY_UNAVAILABLE",
                name="state",
            ),
            nullable=False,
        ),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("verified_at", _INSTANT, nullable=True),
        sa.Column("tombstone", _INSTANT, nullable=True),
        sa.Column("purge", sa.Boolean(), nullable=True),
        sa.Column("accessed_at", _INSTANT, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("file_id", "rse_id", name=op.f("pk_replicas")),
    )
    op.create_index("ix_replicas_rse_id", "replicas", ["rse_id", "file_id"], unique=False)
    op.create_index(
        "uq_replicas_rse_id_path",
        "replicas",
        ["rse_id", "path"],
        unique=True,
        postgresql_where=sa.text("path IS NOT NULL"),
        sqlite_where=sa.text("path IS NOT NULL"),
    )


def _create_subscriptions() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("filter", _JSON, nullable=False),
        sa.Column("replication_rules", _JSON, nullable=False),
        sa.Column("comments", sa.Text(), nullable=True),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("retroactive", sa.Boolean(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("state", _words("ACTIVE", "INACTIVE", "BROKEN", name="state"), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("last_processed", _INSTANT, nullable=True),
        sa.Column("expires_at", _INSTANT, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_subscriptions_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscriptions")),
        sa.UniqueConstraint("account_id", "name", name=op.f("uq_subscriptions_account_id_name")),
        sa.UniqueConstraint("uuid", name=op.f("uq_subscriptions_uuid")),
    )


def _create_rules() -> None:
    op.create_table(
        "rules",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("did_id", _BIG_ID, nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("rse_expression", sa.Text(), nullable=False),
        sa.Column("copies", sa.SmallInteger(), nullable=False),
        sa.Column("grouping", _words("ALL", "DATASET", "NONE", name="grouping"), nullable=False),
        sa.Column("weight", sa.String(length=255), nullable=True),
        sa.Column(
            "state",
            _words("INJECT", "REPLICATING", "OK", "STUCK", "SUSPENDED", "WAITING_APPROVAL", name="state"),
            nullable=False,
        ),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("activity", sa.String(length=50), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("source_replica_expression", sa.Text(), nullable=True),
        sa.Column("locked", sa.Boolean(), nullable=False),
        sa.Column("purge_replicas", sa.Boolean(), nullable=False),
        sa.Column("ignore_availability", sa.Boolean(), nullable=False),
        sa.Column("ignore_account_limit", sa.Boolean(), nullable=False),
        sa.Column("notification", sa.String(length=1), nullable=False),
        sa.Column("comments", sa.Text(), nullable=True),
        sa.Column("meta", _JSON, nullable=True),
        sa.Column("child_rule_id", _BIG_ID, nullable=True),
        sa.Column("subscription_id", _BIG_ID, nullable=True),
        sa.Column("locks_ok", sa.BigInteger(), nullable=False),
        sa.Column("locks_replicating", sa.BigInteger(), nullable=False),
        sa.Column("locks_stuck", sa.BigInteger(), nullable=False),
        sa.Column("stuck_at", _INSTANT, nullable=True),
        sa.Column("expires_at", _INSTANT, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_rules_account_id")),
        sa.ForeignKeyConstraint(["child_rule_id"], ["rules.id"], name=op.f("fk_rules_child_rule_id")),
        sa.ForeignKeyConstraint(["did_id"], ["dids.id"], name=op.f("fk_rules_did_id")),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_rules_subscription_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rules")),
        sa.UniqueConstraint(
            "did_id",
            "account_id",
            "rse_expression",
            "copies",
            name=op.f("uq_rules_did_id_account_id_rse_expression_copies"),
        ),
        sa.UniqueConstraint("uuid", name=op.f("uq_rules_uuid")),
    )
    op.create_index(op.f("ix_rules_account_id"), "rules", ["account_id"], unique=False)
    op.create_index(op.f("ix_rules_did_id"), "rules", ["did_id"], unique=False)
    op.create_index(op.f("ix_rules_subscription_id"), "rules", ["subscription_id"], unique=False)
    op.create_index(op.f("ix_rules_state"), "rules", ["state"], unique=False)
    op.create_table(
        "locks",
        sa.Column("rule_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("file_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("rse_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", _words("OK", "REPLICATING", "STUCK", name="state"), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("rule_id", "file_id", "rse_id", name=op.f("pk_locks")),
    )
    op.create_index("ix_locks_file_id_rse_id", "locks", ["file_id", "rse_id"], unique=False)
    op.create_index(
        "ix_locks_stuck",
        "locks",
        ["rule_id", "file_id"],
        unique=False,
        postgresql_where=sa.text("state = 'STUCK'"),
        sqlite_where=sa.text("state = 'STUCK'"),
    )
    op.create_table(
        "dataset_locks",
        sa.Column("rule_id", _BIG_ID, nullable=False),
        sa.Column("group_id", _BIG_ID, nullable=False),
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["dids.id"], name=op.f("fk_dataset_locks_group_id")),
        sa.ForeignKeyConstraint(["rse_id"], ["rses.id"], name=op.f("fk_dataset_locks_rse_id")),
        sa.ForeignKeyConstraint(["rule_id"], ["rules.id"], name=op.f("fk_dataset_locks_rule_id")),
        sa.PrimaryKeyConstraint("rule_id", "group_id", "rse_id", name=op.f("pk_dataset_locks")),
    )
    op.create_table(
        "evaluations",
        sa.Column("rule_id", _BIG_ID, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("not_before", _INSTANT, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", _INSTANT, nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["rule_id"], ["rules.id"], name=op.f("fk_evaluations_rule_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rule_id", name=op.f("pk_evaluations")),
    )
    op.create_index("ix_evaluations_due", "evaluations", ["not_before"], unique=False)


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("type", _words("TRANSFER", name="type"), nullable=False),
        sa.Column("file_id", _BIG_ID, nullable=False),
        sa.Column("destination_id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=True),
        sa.Column("rule_id", _BIG_ID, nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("activity", sa.String(length=50), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("state", _words("QUEUED", "SUBMITTED", "DONE", "FAILED", name="state"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("not_before", _INSTANT, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", _INSTANT, nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("started_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
        sa.UniqueConstraint("file_id", "destination_id", name=op.f("uq_requests_file_id_destination_id")),
    )
    op.create_index(
        "ix_requests_due",
        "requests",
        ["priority", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'QUEUED'"),
        sqlite_where=sa.text("state = 'QUEUED'"),
    )
    op.create_index(
        "ix_requests_leased",
        "requests",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("state = 'SUBMITTED'"),
        sqlite_where=sa.text("state = 'SUBMITTED'"),
    )


def _create_butlers() -> None:
    op.create_table(
        "butlers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("transfer", sa.String(length=16), nullable=False),
        sa.Column("instruments", _JSON, nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_butlers")),
        sa.UniqueConstraint("name", name=op.f("uq_butlers_name")),
    )
    op.create_table(
        "butler_rses",
        sa.Column("butler_id", sa.Integer(), nullable=False),
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column("uri_prefix", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["butler_id"], ["butlers.id"], name=op.f("fk_butler_rses_butler_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["rse_id"], ["rses.id"], name=op.f("fk_butler_rses_rse_id")),
        sa.PrimaryKeyConstraint("butler_id", "rse_id", name=op.f("pk_butler_rses")),
    )
    op.create_table(
        "butler_selections",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("butler_id", sa.Integer(), nullable=False),
        sa.Column("scope_id", sa.Integer(), nullable=False),
        sa.Column("name_like", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["butler_id"], ["butlers.id"], name=op.f("fk_butler_selections_butler_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["scope_id"], ["scopes.id"], name=op.f("fk_butler_selections_scope_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_butler_selections")),
        sa.UniqueConstraint(
            "butler_id",
            "scope_id",
            "name_like",
            name=op.f("uq_butler_selections_butler_id_scope_id_name_like"),
        ),
    )
    op.create_index(op.f("ix_butler_selections_butler_id"), "butler_selections", ["butler_id"], unique=False)
    op.create_table(
        "arrivals",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("butler_id", sa.Integer(), nullable=False),
        sa.Column("file_id", _BIG_ID, nullable=False),
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            _words("pending", "leased", "parked", "ingested", "failed", "released", name="state"),
            nullable=False,
        ),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("not_before", _INSTANT, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", _INSTANT, nullable=True),
        sa.Column("waits_for", sa.Text(), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("dataset_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("started_at", _INSTANT, nullable=True),
        sa.Column("ingested_at", _INSTANT, nullable=True),
        sa.Column("updated_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["butler_id"], ["butlers.id"], name=op.f("fk_arrivals_butler_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["rse_id"], ["rses.id"], name=op.f("fk_arrivals_rse_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_arrivals")),
        sa.UniqueConstraint("butler_id", "file_id", name=op.f("uq_arrivals_butler_id_file_id")),
    )
    op.create_index(
        "ix_arrivals_due",
        "arrivals",
        ["butler_id", "not_before"],
        unique=False,
        postgresql_where=sa.text("state IN ('pending', 'parked')"),
        sqlite_where=sa.text("state IN ('pending', 'parked')"),
    )
    op.create_index("ix_arrivals_file_id", "arrivals", ["file_id"], unique=False)
    op.create_index(
        "ix_arrivals_leased",
        "arrivals",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("state = 'leased'"),
        sqlite_where=sa.text("state = 'leased'"),
    )


def _create_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("kind", _words("session", "agent", name="kind"), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.Column("revoked_at", _INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_tokens_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_tokens_token_hash")),
    )
    op.create_index(op.f("ix_tokens_account_id"), "tokens", ["account_id"], unique=False)
    op.create_index(op.f("ix_tokens_expires_at"), "tokens", ["expires_at"], unique=False)
    op.create_table(
        "token_rses",
        sa.Column("token_id", _BIG_ID, nullable=False),
        sa.Column("rse_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["rse_id"], ["rses.id"], name=op.f("fk_token_rses_rse_id")),
        sa.ForeignKeyConstraint(
            ["token_id"], ["tokens.id"], name=op.f("fk_token_rses_token_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_id", "rse_id", name=op.f("pk_token_rses")),
    )
    op.create_table(
        "token_butlers",
        sa.Column("token_id", _BIG_ID, nullable=False),
        sa.Column("butler_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["butler_id"], ["butlers.id"], name=op.f("fk_token_butlers_butler_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["token_id"], ["tokens.id"], name=op.f("fk_token_butlers_token_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_id", "butler_id", name=op.f("pk_token_butlers")),
    )


def _create_histories() -> None:
    op.create_table(
        "events",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("event_type", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("payload", _JSON, nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        *_history_key("events", "created_at"),
        postgresql_partition_by="RANGE (created_at)",
    )
    _add_default_partition("events")
    op.create_index("ix_events_created_at", "events", ["created_at"], unique=False)
    op.create_table(
        "audit_log",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=True),
        sa.Column("allowed", sa.Boolean(), nullable=False),
        sa.Column("detail", _JSON, nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        *_history_key("audit_log", "at"),
        postgresql_partition_by="RANGE (at)",
    )
    _add_default_partition("audit_log")
    op.create_index("ix_audit_log_account_at", "audit_log", ["account", "at"], unique=False)
    op.create_table(
        "rule_history",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("rule_uuid", sa.Uuid(), nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column(
            "from_state",
            _words(
                "INJECT", "REPLICATING", "OK", "STUCK", "SUSPENDED", "WAITING_APPROVAL", name="from_state"
            ),
            nullable=True,
        ),
        sa.Column(
            "to_state",
            _words("INJECT", "REPLICATING", "OK", "STUCK", "SUSPENDED", "WAITING_APPROVAL", name="to_state"),
            nullable=True,
        ),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("did_id", _BIG_ID, nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("rse_expression", sa.Text(), nullable=True),
        sa.Column("locks_ok", sa.BigInteger(), nullable=True),
        sa.Column("locks_replicating", sa.BigInteger(), nullable=True),
        sa.Column("locks_stuck", sa.BigInteger(), nullable=True),
        sa.Column("rule_created_at", _INSTANT, nullable=True),
        *_history_key("rule_history", "at"),
        postgresql_partition_by="RANGE (at)",
    )
    _add_default_partition("rule_history")
    op.create_index("ix_rule_history_rule_uuid_at", "rule_history", ["rule_uuid", "at"], unique=False)
    op.create_index(
        "ix_rule_history_did_id",
        "rule_history",
        ["did_id"],
        unique=False,
        postgresql_where=sa.text("did_id IS NOT NULL"),
        sqlite_where=sa.text("did_id IS NOT NULL"),
    )
    op.create_table(
        "request_history",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("request_id", _BIG_ID, nullable=False),
        sa.Column("file_id", _BIG_ID, nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=True),
        sa.Column("destination_id", sa.Integer(), nullable=False),
        sa.Column("rule_id", _BIG_ID, nullable=True),
        sa.Column("state", _words("QUEUED", "SUBMITTED", "DONE", "FAILED", name="state"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("mode", sa.String(length=32), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("started_at", _INSTANT, nullable=True),
        *_history_key("request_history", "at"),
        postgresql_partition_by="RANGE (at)",
    )
    _add_default_partition("request_history")
    op.create_index("ix_request_history_file_id_at", "request_history", ["file_id", "at"], unique=False)


def downgrade() -> None:
    for table in (
        "request_history",
        "rule_history",
        "audit_log",
        "events",
        "token_butlers",
        "token_rses",
        "tokens",
        "arrivals",
        "butler_selections",
        "butler_rses",
        "butlers",
        "requests",
        "evaluations",
        "dataset_locks",
        "locks",
        "rules",
        "subscriptions",
        "replicas",
        "contents",
        "did_meta",
        "dids",
        "rse_limits",
        "rse_usage",
        "rse_distances",
        "rse_protocols",
        "rse_attributes",
        "rses",
        "scopes",
        "identities",
        "accounts",
    ):
        op.drop_table(table)
