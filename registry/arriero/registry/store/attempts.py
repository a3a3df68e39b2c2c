"""Locks with all that is known of the copies that they wait for: the request, and the last attempt that has ended."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, func, select

from arriero.registry.schema.tables import dids, locks, request_history, requests, rses, scopes


@dataclass(frozen=True, slots=True)
class TriedLocks:
    """Locks joined with their files, requests and last attempts."""

    joined: FromClause
    """Of ``locks``, ``dids``, ``scopes``, ``requests``, ``last`` and the source."""
    last: Any
    """Columns of the last attempt; null where there was none."""
    source: Any
    """Columns of the RSE that the last attempt read from."""

    @property
    def attempts(self) -> ColumnElement[int]:
        """How often it was tried."""
        return func.coalesce(requests.c.attempt, self.last.attempt, 0)

    @property
    def last_at(self) -> ColumnElement[Any]:
        """When it was tried last."""
        return func.coalesce(requests.c.started_at, self.last.at)


def tried_locks(*which: ColumnElement[bool]) -> TriedLocks:
    """Join locks with what is known of their copies.

    Parameters
    ----------
    which
        Conditions on ``request_history``: attempts are read at so many files only.
    """
    newest = func.row_number().over(
        partition_by=(request_history.c.file_id, request_history.c.destination_id),
        order_by=request_history.c.id.desc(),
    )
    last = select(request_history, newest.label("newest")).where(*which).subquery("last")
    source = rses.alias("source")
    joined = (
        locks.join(dids, dids.c.id == locks.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .outerjoin(
            requests,
            and_(requests.c.file_id == locks.c.file_id, requests.c.destination_id == locks.c.rse_id),
        )
        .outerjoin(
            last,
            and_(
                last.c.file_id == locks.c.file_id,
                last.c.destination_id == locks.c.rse_id,
                last.c.newest == 1,
            ),
        )
        .outerjoin(source, source.c.id == func.coalesce(requests.c.source_id, last.c.source_id))
    )
    return TriedLocks(joined, last.c, source.c)
