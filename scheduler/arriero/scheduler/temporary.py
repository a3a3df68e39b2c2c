"""Temporary tables: what one transaction works with, so that its statements are few whatever the number of files.

They live in a session and are empty at the start of each transaction (`use_temporary_table`).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from arriero.registry.dialect import is_postgresql, use_temporary_table

_metadata = MetaData()

_TEMPORARY = ["TEMPORARY"]

eval_rses = Table(
    "eval_rses",
    _metadata,
    Column("rse_id", Integer, primary_key=True, autoincrement=False),
    Column("is_candidate", Boolean, nullable=False),
    Column("is_source", Boolean, nullable=False),
    prefixes=_TEMPORARY,
)
"""The RSEs of the rule's expression, and those that a copy may be taken from."""

eval_sets = Table(
    "eval_sets",
    _metadata,
    Column("did_id", BigInteger, primary_key=True, autoincrement=False),
    # by (scope, name): a file in several datasets belongs to the first
    Column("position", BigInteger, nullable=False),
    Column("group_id", BigInteger, nullable=False),
    Column("is_chosen_now", Boolean, nullable=False),
    prefixes=_TEMPORARY,
)
"""The datasets below the rule's DID (for a file: itself) and the group that each belongs to."""

eval_files = Table(
    "eval_files",
    _metadata,
    Column("file_id", BigInteger, primary_key=True, autoincrement=False),
    Column("bytes", BigInteger, nullable=False),
    Column("spread", Integer, nullable=False),
    Column("group_id", BigInteger, nullable=False),
    prefixes=_TEMPORARY,
)
"""The files of this chunk: those that have fewer locks than copies."""

eval_slots = Table(
    "eval_slots",
    _metadata,
    Column("slot", Integer, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("rse_id", Integer, nullable=False),
    prefixes=_TEMPORARY,
)
"""The policy of grouping NONE."""

eval_gone = Table(
    "eval_gone",
    _metadata,
    Column("file_id", BigInteger, nullable=False),
    Column("rse_id", Integer, nullable=False),
    prefixes=_TEMPORARY,
)
"""Locks that the rule no longer asks for."""

eval_placed = Table(
    "eval_placed",
    _metadata,
    Column("file_id", BigInteger, nullable=False),
    Column("rse_id", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    # the lock's state; empty for one that is missing
    Column("was", String(24), nullable=False),
    Column("outcome", String(16), nullable=False),
    prefixes=_TEMPORARY,
)
"""Locks that are missing or have to be looked at again, and what becomes of each."""

settled = Table(
    "settled",
    _metadata,
    Column("request_id", BigInteger, primary_key=True, autoincrement=False),
    Column("fence", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),
    Column("file_id", BigInteger, nullable=False),
    Column("rse_id", Integer, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("code", String(64)),
    Column("reason", Text),
    Column("mode", String(32)),
    Column("seconds", Float),
    Column("delay_s", Float, nullable=False),
    prefixes=_TEMPORARY,
)
"""Reports of one batch of requests."""

EVALUATION_TABLES = (eval_rses, eval_sets, eval_files, eval_slots, eval_gone, eval_placed)


def prepare(connection: Connection, *tables: Table) -> None:
    """Have these tables, empty."""
    for table in tables:
        use_temporary_table(connection, table)


def analyze(connection: Connection, table: Table) -> None:
    """Tell PostgreSQL's planner how large a temporary table has become: nobody else does."""
    if is_postgresql(connection):
        connection.execute(text(f"ANALYZE {table.name}"))
