"""Traces of reading: that a client has read a file, or a dataset, and where.

Rucio's clients send them without any token, so nothing that matters may depend on them: they move ``accessed_at`` and
nothing else, a minute at a time, and say nothing of what is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from arriero.registry.errors import InvalidInput
from arriero.registry.services.context import Context
from arriero.registry.store.accesses import rse_ids, touch
from arriero.registry.store.dids import scopes_by_name

MAX_TRACES = 1000
"""Traces of one call."""


@dataclass(frozen=True, slots=True)
class Access:
    """A DID that was read, and from which RSE if that is known."""

    scope: str
    name: str
    rse: str | None = None


def record_accesses(context: Context, accesses: Sequence[Access]) -> None:
    """Write down that DIDs and replicas were read just now; those that are not there are passed over.

    Parameters
    ----------
    accesses
        Datasets and files; containers are passed over.
    """
    if len(accesses) > MAX_TRACES:
        raise InvalidInput(f"at most {MAX_TRACES} traces in one call")
    if not accesses:
        return

    def work(connection: Connection) -> None:
        scopes = scopes_by_name(connection, {one.scope for one in accesses})
        rses = rse_ids(connection, {one.rse for one in accesses if one.rse})
        known = [one for one in dict.fromkeys(accesses) if one.scope in scopes]
        read = [(scopes[one.scope].id, one.name) for one in known]
        where = [(scopes[one.scope].id, one.name, rses[one.rse]) for one in known if one.rse in rses]
        if read:
            touch(connection, read, where)

    context.database.run(work)
