"""What the scheduler has to know of the RSEs, read in five statements whatever their number."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from arriero.registry.schema.tables import rse_attributes, rse_limits, rse_protocols, rse_usage, rses
from arriero.registry.store.movers import SITE_MOVER, TRUE
from arriero.rse.expression import parse
from arriero.rse.rse_index import RseIndex
from arriero.rse.types import RseInfo
from arriero.scheduler.core.choose import Candidate

DEFAULT_ALGORITHM = "hash"
"""LFN-to-PFN algorithm of an RSE that names none, as in Rucio."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """One registered protocol of an RSE."""

    scheme: str
    hostname: str
    port: int
    prefix: str
    domains: Mapping[str, Mapping[str, Any]]

    def priority(self, operation: str) -> int:
        """Best priority of an operation in any domain, from 1; 0 where it is off (Rucio's figures)."""
        offered = [domain.get(operation) for domain in self.domains.values() if isinstance(domain, Mapping)]
        # what is no number is off: one malformed row must not stop the evaluation of every rule
        return min((value for value in offered if isinstance(value, int) and value > 0), default=0)


@dataclass(frozen=True, slots=True)
class Rse:
    """An RSE as the scheduler sees it."""

    id: int
    name: str
    deterministic: bool
    readable: bool
    writable: bool
    attributes: Mapping[str, str]
    protocols: tuple[Protocol, ...]
    free: int | None
    """Bytes that may still be written, above ``MinFreeSpace``; None when nobody has measured."""

    @property
    def is_of_a_site_mover(self) -> bool:
        """Whether only the mover of its site carries files to and from it."""
        return self.attributes.get(SITE_MOVER, "").lower() in TRUE

    @property
    def algorithm(self) -> str:
        """Its LFN-to-PFN algorithm."""
        return self.attributes.get("lfn2pfn_algorithm", DEFAULT_ALGORITHM)

    def protocol_for(self, *operations: str) -> Protocol | None:
        """Give the best protocol for the first of ``operations`` that any protocol offers."""
        for operation in operations:
            offered = [(protocol.priority(operation), index) for index, protocol in enumerate(self.protocols)]
            best = min((one for one in offered if one[0] > 0), default=None)
            if best is not None:
                return self.protocols[best[1]]
        return None

    def as_candidate(self) -> Candidate:
        """The RSE for the core."""
        return Candidate(self.id, self.name, self.writable, self.free, self.attributes)


READ = ("third_party_copy_read", "read")
"""Operations that make an RSE a source, best first."""

WRITE = ("third_party_copy_write", "write")
"""Operations that make an RSE a destination, best first."""


class RseCatalogue:
    """All RSEs at one moment."""

    def __init__(self, known: Iterable[Rse]) -> None:
        self.by_id: Mapping[int, Rse] = {rse.id: rse for rse in known}
        self._ids = {rse.name: rse.id for rse in self.by_id.values()}
        self._index = RseIndex(RseInfo(rse.name, rse.attributes) for rse in self.by_id.values())
        self._matches: dict[str, frozenset[int]] = {}

    def matching(self, expression: str) -> frozenset[int]:
        """Ids of the RSEs that an expression names.

        Raises
        ------
        InvalidExpression
            It cannot be read, names what does not exist, or no RSE satisfies it.
        """
        found = self._matches.get(expression)
        if found is None:
            names = parse(expression).evaluate(self._index)
            found = self._matches[expression] = frozenset(self._ids[name] for name in names)
        return found


def load_rses(connection: Connection) -> RseCatalogue:
    """Read all RSEs but those that were removed."""
    attributes: dict[int, dict[str, str]] = defaultdict(dict)
    for row in connection.execute(
        select(rse_attributes.c.rse_id, rse_attributes.c.key, rse_attributes.c.value)
    ):
        attributes[row.rse_id][row.key] = row.value
    protocols: dict[int, list[Protocol]] = defaultdict(list)
    for row in connection.execute(select(rse_protocols).order_by(rse_protocols.c.id)):
        protocol = Protocol(row.scheme, row.hostname, row.port, row.prefix, row.domains or {})
        protocols[row.rse_id].append(protocol)
    free = _free(connection)
    return RseCatalogue(
        Rse(
            id=row.id,
            name=row.name,
            deterministic=row.deterministic,
            readable=row.availability_read,
            writable=row.availability_write,
            attributes=attributes[row.id],
            protocols=tuple(protocols[row.id]),
            free=free.get(row.id),
        )
        for row in connection.execute(select(rses).where(rses.c.deleted_at.is_(None)).order_by(rses.c.id))
    )


def hold_rses(connection: Connection, rse_ids: Collection[int]) -> bool:
    """Keep RSEs from being removed until the transaction ends; False when one of them has been."""
    if not rse_ids:
        return True
    chosen = select(rses.c.id).where(rses.c.id.in_(rse_ids), rses.c.deleted_at.is_(None)).order_by(rses.c.id)
    held = connection.scalars(chosen.with_for_update(read=True, key_share=True)).all()
    return len(held) == len(rse_ids)


def _free(connection: Connection) -> dict[int, int]:
    measured = connection.execute(
        select(rse_usage.c.rse_id, func.min(rse_usage.c.free).label("free"))
        .where(rse_usage.c.free.is_not(None))
        .group_by(rse_usage.c.rse_id)
    )
    kept = connection.execute(
        select(rse_limits.c.rse_id, rse_limits.c.value).where(rse_limits.c.name == "MinFreeSpace")
    )
    reserve = {row.rse_id: row.value for row in kept}
    return {row.rse_id: max(int(row.free) - reserve.get(row.rse_id, 0), 0) for row in measured}
