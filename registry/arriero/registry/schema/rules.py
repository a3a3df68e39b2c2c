"""Rules, their locks, the placements of their groups, and the evaluations that are due.

``locks`` has no foreign keys: three checks a row would double the cost of a rule, its rows come only from
``INSERT ... SELECT`` over keys that exist, and ``arriero doctor`` proves it (docs/adr/0007).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from arriero.registry.schema.base import (
    BigId,
    Json,
    UtcDateTime,
    created_at,
    metadata,
    now,
    updated_at,
    words,
)
from arriero.registry.states import EvaluationItem, LockState, RuleGrouping, RuleState

rules = Table(
    "rules",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("uuid", Uuid, nullable=False, unique=True),
    Column("did_id", ForeignKey("dids.id"), nullable=False, index=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("rse_expression", Text, nullable=False),
    Column("copies", SmallInteger, nullable=False),
    Column("grouping", words(RuleGrouping, "grouping"), nullable=False),
    Column("weight", String(255)),
    Column("state", words(RuleState, "state"), nullable=False, index=True),
    Column("code", String(64)),
    Column("reason", Text),
    Column("activity", String(50), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("source_replica_expression", Text),
    Column("locked", Boolean, nullable=False, default=False),
    Column("purge_replicas", Boolean, nullable=False, default=False),
    Column("ignore_availability", Boolean, nullable=False, default=False),
    Column("ignore_account_limit", Boolean, nullable=False, default=False),
    Column("notification", String(1), nullable=False, default="N"),
    Column("comments", Text),
    Column("meta", Json),
    Column("child_rule_id", ForeignKey("rules.id")),
    Column("subscription_id", ForeignKey("subscriptions.id"), index=True),
    Column("locks_ok", BigInteger, nullable=False, default=0),
    Column("locks_replicating", BigInteger, nullable=False, default=0),
    Column("locks_stuck", BigInteger, nullable=False, default=0),
    Column("stuck_at", UtcDateTime),
    # since when nothing of it has succeeded while something was STUCK; unlike `stuck_at` it outlives each retry
    Column("stuck_since", UtcDateTime),
    Column("expires_at", UtcDateTime),
    created_at(),
    updated_at(),
    UniqueConstraint("did_id", "account_id", "rse_expression", "copies"),
)

locks = Table(
    "locks",
    metadata,
    Column("rule_id", BigId, primary_key=True, autoincrement=False),
    Column("file_id", BigId, primary_key=True, autoincrement=False),
    Column("rse_id", Integer, primary_key=True, autoincrement=False),
    Column("bytes", BigInteger, nullable=False),
    Column("state", words(LockState, "state"), nullable=False),
    Column("code", String(64)),
    Column("reason", Text),
    created_at(),
    Index("ix_locks_file_id_rse_id", "file_id", "rse_id"),
    Index(
        "ix_locks_stuck",
        "rule_id",
        "file_id",
        postgresql_where=text("state = 'STUCK'"),
        sqlite_where=text("state = 'STUCK'"),
    ),
    # what of a dataset is missing still, without a look at what is there (docs/adr/0018)
    Index(
        "ix_locks_missing",
        "rule_id",
        "file_id",
        postgresql_where=text("state <> 'OK'"),
        sqlite_where=text("state <> 'OK'"),
    ),
)

dataset_locks = Table(
    "dataset_locks",
    metadata,
    Column("rule_id", ForeignKey("rules.id"), primary_key=True),
    # the dataset with grouping DATASET, the rule's own DID with ALL
    Column("group_id", ForeignKey("dids.id"), primary_key=True),
    Column("rse_id", ForeignKey("rses.id"), primary_key=True),
    # why it was chosen
    Column("reason", Text),
    created_at(),
)

unplaced_groups = Table(
    "unplaced_groups",
    metadata,
    Column("rule_id", ForeignKey("rules.id", ondelete="CASCADE"), primary_key=True),
    # as in `dataset_locks`; with grouping NONE the rule's own DID stands for all its files
    Column("group_id", BigId, primary_key=True, autoincrement=False),
    Column("code", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    created_at(),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("rule_id", ForeignKey("rules.id", ondelete="CASCADE"), primary_key=True),
    # raised by every change that has to be looked at; an evaluation ends only if nothing has raised it meanwhile
    Column("generation", BigInteger, nullable=False, default=1),
    Column("not_before", UtcDateTime, nullable=False, default=now()),
    # when what is stuck is tried again; apart from `not_before`, which every attach moves
    Column("retry_at", UtcDateTime),
    Column("attempt", Integer, nullable=False, default=0),
    Column("fence", BigInteger, nullable=False, default=0),
    Column("lease_owner", Text),
    Column("lease_until", UtcDateTime),
    Column("code", String(64)),
    Column("reason", Text),
    created_at(),
    Index("ix_evaluations_due", "not_before"),
)

evaluation_items = Table(
    "evaluation_items",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("rule_id", BigId, nullable=False),
    Column("kind", words(EvaluationItem, "kind"), nullable=False),
    # the file, or the collection whose files are looked at; none for what is STUCK
    Column("did_id", BigId),
    # files up to this id have been looked at
    Column("after_file_id", BigInteger, nullable=False, server_default=text("0")),
    Index("ix_evaluation_items_rule_id_kind_id", "rule_id", "kind", "id"),
    # who changes a collection asks which rules have yet to look at it
    Index(
        "ix_evaluation_items_collections",
        "did_id",
        postgresql_where=text("kind IN ('DATASET', 'CONTAINER')"),
        sqlite_where=text("kind IN ('DATASET', 'CONTAINER')"),
    ),
)
"""What of a rule has to be looked at. Rows are added and taken, never changed by two: who adds waits for nobody."""

rule_history = Table(
    "rule_history",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("at", UtcDateTime, nullable=False, default=now()),
    Column("rule_uuid", Uuid, nullable=False),
    Column("account", Text),
    Column("from_state", words(RuleState, "from_state")),
    Column("to_state", words(RuleState, "to_state")),
    Column("code", String(64)),
    Column("reason", Text),
    # what the rule was, said when it came to be and when it went: its row is gone then
    Column("did_id", BigId),
    Column("owner", Text),
    Column("rse_expression", Text),
    Column("locks_ok", BigInteger),
    Column("locks_replicating", BigInteger),
    Column("locks_stuck", BigInteger),
    Column("rule_created_at", UtcDateTime),
    Index("ix_rule_history_rule_uuid_at", "rule_uuid", "at"),
    Index(
        "ix_rule_history_did_id",
        "did_id",
        postgresql_where=text("did_id IS NOT NULL"),
        sqlite_where=text("did_id IS NOT NULL"),
    ),
)
