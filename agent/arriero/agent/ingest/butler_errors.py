"""What an exception out of the Butler means for the files that were being ingested.

Why it exists: "the database is away", "somebody was faster" and "this file is refused" need three different
answers, and the Butler lets SQLAlchemy's and the driver's exceptions through. It decides; it does nothing.
"""

from __future__ import annotations

from enum import StrEnum

import sqlalchemy.exc as sa
from lsst.daf.butler import ButlerUserError
from lsst.daf.butler.registry import ConflictingDefinitionError, RegistryError

BUTLER_ERRORS = (
    ArithmeticError,
    ButlerUserError,
    RegistryError,
    sa.SQLAlchemyError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What Butler calls raise; all of them say which call failed, few of them why."""

LONGEST_REASON = 500
"""Characters of a reason that a report carries."""

_CONFLICTS = frozenset(
    {"40001", "40P01", "55P03", "23505", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}
)
"""Serialization failure, deadlock, lock not available, and a key that is taken (PostgreSQL's manual,
appendix A; SQLite's extended result codes)."""

_SQLITE_SCHEMA = ("no such table", "no such column")


class Failure(StrEnum):
    """Kinds of failure of a Butler call."""

    UNAVAILABLE = "unavailable"
    CONFLICT = "conflict"
    REFUSED = "refused"


def classify(error: BaseException) -> Failure:
    """Return what a Butler call's exception means.

    Returns
    -------
    Failure
        UNAVAILABLE: nothing is said about any file, later is better. CONFLICT: another writer may have
        been faster, the same call may succeed at once. REFUSED: something in the call is refused.
    """
    if isinstance(error, ConflictingDefinitionError):
        return Failure.CONFLICT
    if isinstance(error, sa.DBAPIError):
        return _classify_database(error)
    if isinstance(error, sa.TimeoutError | ConnectionError | TimeoutError):
        return Failure.UNAVAILABLE
    return Failure.REFUSED


def _classify_database(error: sa.DBAPIError) -> Failure:
    if _CONFLICTS & {getattr(error.orig, "sqlstate", None), getattr(error.orig, "sqlite_errorname", None)}:
        return Failure.CONFLICT
    if isinstance(error, sa.OperationalError):
        schema = str(error.orig).startswith(_SQLITE_SCHEMA)
        return Failure.REFUSED if schema else Failure.UNAVAILABLE
    if error.connection_invalidated or isinstance(error, sa.InterfaceError):
        return Failure.UNAVAILABLE
    return Failure.REFUSED


def sentence(error: BaseException) -> str:
    """Return what an exception says, short and without statements or parameters."""
    said = str(error.orig) if isinstance(error, sa.DBAPIError) else str(error)
    line = " ".join(said.split()) or type(error).__name__
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 1]}…"
