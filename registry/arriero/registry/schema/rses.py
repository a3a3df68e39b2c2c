"""RSEs: attributes, protocols, distances, usage and limits."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from arriero.registry.schema.base import Json, UtcDateTime, created_at, metadata, updated_at, words
from arriero.registry.states import RseOperation, RseType

rses = Table(
    "rses",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("type", words(RseType, "type"), nullable=False, default=RseType.DISK),
    Column("deterministic", Boolean, nullable=False, default=True),
    Column("volatile", Boolean, nullable=False, default=False),
    Column("availability_read", Boolean, nullable=False, default=True),
    Column("availability_write", Boolean, nullable=False, default=True),
    Column("availability_delete", Boolean, nullable=False, default=True),
    Column("staging_area", Boolean, nullable=False, default=False),
    # where it is and whose: Rucio's city, region_code, country_name, continent, time_zone, ISP, ASN, longitude, latitude
    Column("details", Json),
    # a name is never given again to another storage: rows of histories refer to it
    Column("deleted_at", UtcDateTime),
    created_at(),
    updated_at(),
)

rse_attributes = Table(
    "rse_attributes",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", Text, nullable=False),
)

rse_protocols = Table(
    "rse_protocols",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), nullable=False),
    Column("scheme", String(32), nullable=False),
    Column("hostname", String(255), nullable=False, default=""),
    Column("port", Integer, nullable=False, default=0),
    Column("prefix", Text, nullable=False, default=""),
    Column("impl", Text, nullable=False, default=""),
    # {"lan": {"read": 1, ...}, "wan": {"read": 1, "third_party_copy_read": 1, ...}}: Rucio's shape; 0 or absent is off
    Column("domains", Json, nullable=False),
    Column("extended_attributes", Json),
    UniqueConstraint("rse_id", "scheme", "hostname", "port"),
)

rse_distances = Table(
    "rse_distances",
    metadata,
    Column("source_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("destination_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("distance", Integer, nullable=False),
)

rse_usage = Table(
    "rse_usage",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("used", BigInteger),
    Column("free", BigInteger),
    Column("files", BigInteger),
    # bytes that deletion has freed since then
    Column("freed", BigInteger, nullable=False, server_default=text("0")),
    Column("updated_at", UtcDateTime, nullable=False),
)

rse_limits = Table(
    "rse_limits",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

rse_usage_history = Table(
    "rse_usage_history",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("at", UtcDateTime, primary_key=True),
    Column("used", BigInteger),
    Column("free", BigInteger),
    Column("files", BigInteger),
)

rse_qos_policies = Table(
    "rse_qos_policies",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("policy", String(64), primary_key=True),
)

rse_pauses = Table(
    "rse_pauses",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("operation", words(RseOperation, "operation"), primary_key=True),
    Column("account_id", ForeignKey("accounts.id")),
    Column("reason", Text),
    created_at(),
)
"""Who has closed an RSE, since when and why; that it is closed say its flags."""
