"""Accounts, how they prove who they are, the tokens that they hold, and the scopes that they own."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
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
from arriero.registry.states import AccountType, IdentityType, Role, TokenKind

accounts = Table(
    "accounts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(25), nullable=False, unique=True),
    Column("type", words(AccountType, "type"), nullable=False),
    Column("role", words(Role, "role"), nullable=False),
    Column("email", Text),
    Column("suspended_at", UtcDateTime),
    # its name is never given again: histories and the audit refer to it
    Column("deleted_at", UtcDateTime),
    created_at(),
    updated_at(),
)

identities = Table(
    "identities",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("type", words(IdentityType, "type"), nullable=False),
    Column("identity", Text, nullable=False),
    Column("email", Text),
    Column("secret_hash", Text),
    Column("is_default", Boolean, nullable=False, default=True),
    created_at(),
    UniqueConstraint("type", "identity", "account_id"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, index=True),
    # SHA-256 of the token in hex: a dump of the database holds no key to it
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("kind", words(TokenKind, "kind"), nullable=False),
    Column("label", Text),
    created_at(),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
    Column("revoked_at", UtcDateTime),
)

token_rses = Table(
    "token_rses",
    metadata,
    Column("token_id", ForeignKey("tokens.id", ondelete="CASCADE"), primary_key=True),
    Column("rse_id", ForeignKey("rses.id"), primary_key=True),
)

token_butlers = Table(
    "token_butlers",
    metadata,
    Column("token_id", ForeignKey("tokens.id", ondelete="CASCADE"), primary_key=True),
    Column("butler_id", ForeignKey("butlers.id", ondelete="CASCADE"), primary_key=True),
)

scopes = Table(
    "scopes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(25), nullable=False, unique=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, index=True),
    created_at(),
)

account_attributes = Table(
    "account_attributes",
    metadata,
    Column("account_id", ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", Text, nullable=False),
)

account_limits = Table(
    "account_limits",
    metadata,
    Column("account_id", ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    # -1 is no limit; an account without a row has none either
    Column("bytes", BigInteger, nullable=False),
)

account_global_limits = Table(
    "account_global_limits",
    metadata,
    Column("account_id", ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("rse_expression", String(1000), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)

account_usage_history = Table(
    "account_usage_history",
    metadata,
    Column("account_id", ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("at", UtcDateTime, primary_key=True, default=now()),
    Column("files", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Index("ix_account_usage_history_at", "at"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("at", UtcDateTime, nullable=False, default=now()),
    Column("account", Text),
    Column("action", Text, nullable=False),
    Column("object", Text),
    Column("allowed", Boolean, nullable=False),
    Column("detail", Json),
    Column("request_id", Text),
    Index("ix_audit_log_account_at", "account", "at"),
)
