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
)

from arriero.registry.dialect import use_temporary_table

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

eval_items = Table(
    "eval_items",
    _metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(24), nullable=False),
    Column("did_id", BigInteger),
    # where it has come to before this chunk
    Column("after_file_id", BigInteger, nullable=False),
    prefixes=_TEMPORARY,
)
"""The items that this chunk has taken."""

eval_window = Table(
    "eval_window",
    _metadata,
    # no key: each file once, and always read from end to end
    Column("file_id", BigInteger, nullable=False),
    prefixes=_TEMPORARY,
)
"""The files that this chunk looks at, whether they are the rule's still or not."""

eval_seen = Table(
    "eval_seen",
    _metadata,
    Column("file_id", BigInteger, primary_key=True, autoincrement=False),
    prefixes=_TEMPORARY,
)
"""The files that chunks of a plan have looked at: nothing is written that the next could see."""

eval_parents = Table(
    "eval_parents",
    _metadata,
    Column("did_id", BigInteger, primary_key=True, autoincrement=False),
    prefixes=_TEMPORARY,
)
"""The datasets that hold the files of this chunk, and those that it looks at."""

eval_sets = Table(
    "eval_sets",
    _metadata,
    Column("did_id", BigInteger, primary_key=True, autoincrement=False),
    # by (scope, name): a file in several datasets belongs to the first that has a place
    Column("position", BigInteger, nullable=False, unique=True),
    Column("group_id", BigInteger, nullable=False),
    Column("is_new", Boolean, nullable=False),
    Column("is_unplaced", Boolean, nullable=False),
    prefixes=_TEMPORARY,
)
"""Those of the parents that are below the rule's DID (for a file: itself) and the group that each belongs to."""

eval_files = Table(
    "eval_files",
    _metadata,
    # no key: each file once, and always read from end to end
    Column("file_id", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("spread", Integer, nullable=False),
    Column("group_id", BigInteger, nullable=False),
    prefixes=_TEMPORARY,
)
"""The files of this chunk that have fewer locks than copies, each in a group that has a place or may get one."""

eval_slots = Table(
    "eval_slots",
    _metadata,
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("rank", Integer, primary_key=True, autoincrement=False),
    Column("rse_id", Integer, nullable=False),
    prefixes=_TEMPORARY,
)
"""The policy of grouping NONE."""

eval_gone = Table(
    "eval_gone",
    _metadata,
    Column("file_id", BigInteger, primary_key=True, autoincrement=False),
    Column("rse_id", Integer, primary_key=True, autoincrement=False),
    prefixes=_TEMPORARY,
)
"""Locks that the rule no longer asks for."""

eval_placed = Table(
    "eval_placed",
    _metadata,
    # no key: each lock once, and always read from end to end
    Column("file_id", BigInteger, nullable=False),
    Column("rse_id", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    # the lock's state; empty for one that is missing
    Column("was", String(24), nullable=False),
    Column("outcome", String(16), nullable=False),
    # its replica, as it was when it was held
    Column("is_there", Boolean, nullable=False),
    Column("has_tombstone", Boolean, nullable=False),
    prefixes=_TEMPORARY,
)
"""Locks that are missing, or have to be looked at again, and what becomes of each."""

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
    Column("mode_reason", Text),
    Column("seconds", Float),
    Column("delay_s", Float, nullable=False),
    prefixes=_TEMPORARY,
)
"""Reports of one batch of requests."""

EVALUATION_TABLES = (
    eval_rses,
    eval_items,
    eval_window,
    eval_parents,
    eval_sets,
    eval_files,
    eval_slots,
    eval_gone,
    eval_placed,
)


def prepare(connection: Connection, *tables: Table) -> None:
    """Have these tables, empty."""
    use_temporary_table(connection, *tables)
