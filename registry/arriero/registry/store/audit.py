"""The audit log: one row a call that changes something, or that was refused."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert

from arriero.registry.schema.tables import audit_log


def append(
    connection: Connection,
    *,
    account: str | None,
    action: str,
    target: str | None,
    allowed: bool,
    detail: Mapping[str, Any] | None = None,
    request_id: str | None = None,
) -> None:
    """Append a row.

    Parameters
    ----------
    connection
        In the transaction of the change itself.
    detail
        Counts and chosen values; never a secret.
    """
    connection.execute(
        insert(audit_log).values(
            account=account,
            action=action,
            object=target,
            allowed=allowed,
            detail=dict(detail) if detail else None,
            request_id=request_id,
        )
    )
