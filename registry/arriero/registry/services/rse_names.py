"""RSEs by name and by expression, for services that are about something else."""

from collections.abc import Mapping

from sqlalchemy import Connection

from arriero.registry.services.rses import require_rse
from arriero.registry.store.rses import Rse
from arriero.rse.errors import InvalidExpression
from arriero.rse.expression import parse


def require_rse_id(connection: Connection, name: str) -> int:
    """Give the id of an RSE.

    Raises
    ------
    NotFound
        There is none of that name.
    """
    return int(require_rse(connection, name)["id"])


def matching(known: Mapping[str, Rse], expression: str) -> list[Rse]:
    """Give the RSEs of an expression that was good once; none where it no longer names any."""
    try:
        names = parse(expression).evaluate((rse.as_info() for rse in known.values()), allow_empty=True)
    except InvalidExpression:
        return []
    return [known[name] for name in sorted(names)]
