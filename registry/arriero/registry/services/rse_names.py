"""RSEs by name and by expression, for services that are about something else."""

from collections.abc import Mapping

from sqlalchemy import Connection

from arriero.registry.services.rses import require_rse
from arriero.registry.store.rses import Rse
from arriero.rse.errors import InvalidExpression
from arriero.rse.expression import parse
from arriero.rse.rse_index import RseIndex


def require_rse_id(connection: Connection, name: str) -> int:
    """Give the id of an RSE.

    Raises
    ------
    NotFound
        There is none of that name.
    """
    return int(require_rse(connection, name)["id"])


def index_of(known: Mapping[str, Rse]) -> RseIndex:
    """Index RSEs for the expressions that are evaluated among them."""
    return RseIndex(rse.as_info() for rse in known.values())


def matching(known: Mapping[str, Rse], index: RseIndex, expression: str) -> list[Rse]:
    """Give the RSEs of an expression that was good once; none where it no longer names any."""
    try:
        names = parse(expression).evaluate(index, allow_empty=True)
    except InvalidExpression:
        return []
    return [known[name] for name in sorted(names)]
