"""From claimed requests to copy orders: which source, which protocols, which paths. A few statements a batch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exists, select

from arriero.registry.dialect import id_rows, is_found
from arriero.registry.rse_credentials import Credentials, RseCredentials
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    bad_replicas,
    dids,
    replicas,
    requests,
    rse_distances,
    rules,
    scopes,
)
from arriero.registry.states import BadReplicaState, ReplicaState
from arriero.rse.copy import CopyOrder
from arriero.rse.errors import InvalidExpression, RSEError
from arriero.rse.lfn2pfn import path_for
from arriero.rse.types import Endpoint
from arriero.scheduler.claim import ClaimedRequest
from arriero.scheduler.core.sources import BUSY, SITE_MOVER, Picked, Source, pick_source
from arriero.scheduler.hops import MULTIHOP, WAIT_S, Ways, load_ways
from arriero.scheduler.rse_catalogue import READ, WRITE, Rse, RseCatalogue
from arriero.scheduler.same_paths import owners_of_paths
from arriero.scheduler.traffic import Traffic

SUSPICIOUS_S = 3 * 86400.0
"""How long a copy counts as suspicious after somebody has said so, seconds; Rucio's three days."""


@dataclass(frozen=True, slots=True)
class PlannedCopy:
    """A copy that can begin."""

    request: ClaimedRequest
    order: CopyOrder
    source_id: int
    alternatives: int
    """Other sources that could be tried."""

    @property
    def link(self) -> tuple[int, int]:
        """Source and destination."""
        return self.source_id, self.request.destination_id


@dataclass(frozen=True, slots=True)
class Unplanned:
    """A request that nothing can be done for now."""

    request: ClaimedRequest
    code: str
    reason: str
    retryable: bool
    wait_s: float | None = None
    """How long it only waits for its turn, which is no attempt, seconds; None when it has failed."""
    hop_id: int | None = None
    """Where the file has to go first."""
    source_id: int | None = None
    """The source whose site's mover is waited for."""


class CannotPlan(Exception):
    """There is no order for this request."""

    def __init__(
        self,
        code: str,
        reason: str,
        *,
        retryable: bool = True,
        wait_s: float | None = None,
        hop_id: int | None = None,
        source_id: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.retryable = retryable
        self.wait_s = wait_s
        self.hop_id = hop_id
        self.source_id = source_id

    def of(self, request: ClaimedRequest) -> Unplanned:
        """Say it of a request."""
        return Unplanned(
            request, self.code, self.reason, self.retryable, self.wait_s, self.hop_id, self.source_id
        )


def plan_copies(
    connection: Connection, claimed: Sequence[ClaimedRequest], traffic: Traffic, credentials: Credentials
) -> tuple[list[PlannedCopy], list[Unplanned]]:
    """Choose the source of each request of a batch and write its order.

    Parameters
    ----------
    claimed
        The batch.
    traffic
        All RSEs, and what may begin between them; what is planned is counted.
    credentials
        By RSE name.

    Returns
    -------
    tuple
        The copies that can begin, and the requests that cannot, with the reason.
    """
    files = _files(connection, claimed)
    facts = _Facts(
        _replicas(connection, claimed),
        _distances(connection, claimed),
        traffic,
        _Endpoints(credentials),
        load_ways(connection, traffic.known),
        owners_of_paths(connection, claimed, traffic.known),
    )
    planned: list[PlannedCopy] = []
    unplanned: list[Unplanned] = []
    for request in claimed:
        try:
            planned.append(_plan(request, files.get(request.id), facts))
        except CannotPlan as fault:
            unplanned.append(fault.of(request))
        except RSEError as error:
            unplanned.append(Unplanned(request, error.code, str(error), error.retryable))
    return planned, unplanned


def _files(connection: Connection, claimed: Sequence[ClaimedRequest]) -> dict[int, Any]:
    declared_bad = exists().where(
        bad_replicas.c.file_id == requests.c.file_id,
        bad_replicas.c.rse_id == requests.c.destination_id,
        bad_replicas.c.state == BadReplicaState.BAD,
    )
    rows = connection.execute(
        select(
            requests.c.id,
            scopes.c.name.label("scope"),
            dids.c.name,
            dids.c.bytes,
            dids.c.adler32,
            dids.c.md5,
            rules.c.source_replica_expression,
            declared_bad.label("replaces_bad"),
        )
        .join(dids, dids.c.id == requests.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .outerjoin(rules, rules.c.id == requests.c.rule_id)
        .where(requests.c.id.in_(id_rows(connection, [request.id for request in claimed])))
    )
    return {row.id: row for row in rows}


def _replicas(connection: Connection, claimed: Sequence[ClaimedRequest]) -> dict[int, list[Any]]:
    rows = connection.execute(
        select(
            replicas.c.file_id,
            replicas.c.rse_id,
            replicas.c.state,
            replicas.c.path,
            is_found(
                bad_replicas.c.file_id == replicas.c.file_id,
                bad_replicas.c.rse_id == replicas.c.rse_id,
                bad_replicas.c.state == BadReplicaState.SUSPICIOUS,
                bad_replicas.c.created_at > after(-SUSPICIOUS_S),
                of=bad_replicas,
            ).label("suspicious"),
        ).where(replicas.c.file_id.in_(id_rows(connection, sorted({one.file_id for one in claimed}))))
    )
    held: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        held[row.file_id].append(row)
    return held


def _distances(connection: Connection, claimed: Sequence[ClaimedRequest]) -> dict[tuple[int, int], int]:
    rows = connection.execute(
        select(rse_distances.c.source_id, rse_distances.c.destination_id, rse_distances.c.distance).where(
            rse_distances.c.destination_id.in_({request.destination_id for request in claimed})
        )
    )
    return {(row.source_id, row.destination_id): row.distance for row in rows}


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the orders of a batch are made from."""

    held: Mapping[int, Sequence[Any]]
    """Replicas by file."""
    distances: Mapping[tuple[int, int], int]
    traffic: Traffic
    endpoints: "_Endpoints"
    ways: Ways
    owners: Mapping[int, str]
    """Scopes of the files that lie where requests would have theirs, by request."""

    @property
    def known(self) -> RseCatalogue:
        """All RSEs."""
        return self.traffic.known


def _plan(
    request: ClaimedRequest,
    file: Any,
    facts: _Facts,
) -> PlannedCopy:
    known = facts.known
    destination = known.by_id.get(request.destination_id)
    if file is None or destination is None:
        raise CannotPlan("gone", "the file or the RSE of this request exists no more", retryable=False)
    if request.id in facts.owners:
        raise CannotPlan(
            "already_exists",
            f"at {destination.name} the path of {file.name[:200]} belongs to the file of that name in scope "
            f"{facts.owners[request.id]}: its paths leave the scope out; rename one of them",
            retryable=False,
        )
    copies = {row.rse_id: row for row in facts.held.get(request.file_id, ()) if row.rse_id in known.by_id}
    picked = _pick(request, file, copies, facts)
    if picked.source is None:
        raise _without_source(picked, destination)
    if picked.source.distance is None:
        _go_by_way(request, copies, facts)
    source = known.by_id[picked.source.rse_id]
    order = _order(request, file, source, destination, copies=copies, endpoints=facts.endpoints)
    facts.traffic.begin(source.id, destination.id, request.activity)
    return PlannedCopy(request, order, source.id, picked.alternatives)


def _without_source(picked: Picked, destination: Rse) -> CannotPlan:
    if picked.code == SITE_MOVER and destination.is_of_a_site_mover:
        return CannotPlan(
            "no_source",
            f"{picked.reason}, and {destination.name} is written by its own: bring the file to an RSE that both reach",
        )
    if picked.code in {BUSY, SITE_MOVER}:
        return CannotPlan(picked.code, picked.reason, wait_s=picked.wait_s, source_id=picked.waits_for_id)
    return CannotPlan(picked.code, picked.reason)


def orders_of(
    connection: Connection, held: Mapping[ClaimedRequest, int], known: RseCatalogue
) -> dict[int, PlannedCopy]:
    """Write again the orders of requests that are under way, without credentials.

    Parameters
    ----------
    held
        Requests, with the source that was chosen for each.
    known
        All RSEs.

    Returns
    -------
    dict
        By request; what cannot be ordered any more is left out.
    """
    claimed = list(held)
    files, there = _files(connection, claimed), _replicas(connection, claimed)
    endpoints = _Endpoints({})
    found: dict[int, PlannedCopy] = {}
    for request, source_id in held.items():
        source, destination = known.by_id.get(source_id), known.by_id.get(request.destination_id)
        copies = {row.rse_id: row for row in there.get(request.file_id, ())}
        file = files.get(request.id)
        if source is None or destination is None or file is None or source_id not in copies:
            continue
        others = [
            rse_id
            for rse_id, row in copies.items()
            if row.state == ReplicaState.AVAILABLE and rse_id not in {source_id, destination.id}
        ]
        with suppress(CannotPlan, RSEError):
            order = _order(request, file, source, destination, copies=copies, endpoints=endpoints)
            found[request.id] = PlannedCopy(request, order, source_id, len(others))
    return found


def _order(
    request: ClaimedRequest,
    file: Any,
    source: Rse,
    destination: Rse,
    *,
    copies: Mapping[int, Any],
    endpoints: "_Endpoints",
) -> CopyOrder:
    there = copies.get(destination.id)
    return CopyOrder(
        source=endpoints.of(source, READ),
        source_path=_path(source, copies[source.id].path, file),
        destination=endpoints.of(destination, WRITE),
        destination_path=_path(destination, there.path if there is not None else None, file),
        bytes=request.bytes,
        adler32=file.adler32,
        md5=file.md5,
        attempt_name=request.attempt_name,
        replaces_bad=bool(file.replaces_bad),
    )


def _go_by_way(request: ClaimedRequest, copies: Mapping[int, Any], facts: _Facts) -> None:
    """Have the file go by way of another RSE, if only links through others are declared."""
    there = [rse_id for rse_id, row in copies.items() if row.state == ReplicaState.AVAILABLE]
    way = facts.ways.find(there, request.destination_id)
    if way is None:
        return
    hop, on_its_way = way[1], copies.get(way[1])
    names = " -> ".join(facts.known.by_id[rse_id].name for rse_id in way)
    if on_its_way is not None and on_its_way.state == ReplicaState.UNAVAILABLE:
        raise CannotPlan(MULTIHOP, f"the copy on the way {names} failed", hop_id=hop)
    raise CannotPlan(MULTIHOP, f"goes by way of others: {names}", wait_s=WAIT_S, hop_id=hop)


def _pick(
    request: ClaimedRequest,
    file: Any,
    copies: Mapping[int, Any],
    facts: _Facts,
) -> Picked:
    known = facts.known
    wanted = None
    if file.source_replica_expression:
        try:
            wanted = known.matching(file.source_replica_expression)
        except InvalidExpression as error:
            raise CannotPlan("no_source", f"source expression: {error}", retryable=True) from error
    sources = [
        Source(
            rse_id=rse_id,
            name=known.by_id[rse_id].name,
            readable=known.by_id[rse_id].readable,
            wanted=wanted is None or rse_id in wanted,
            reachable=known.by_id[rse_id].protocol_for(*READ) is not None,
            distance=facts.distances.get((rse_id, request.destination_id)),
            suspicious=row.suspicious,
            success=facts.traffic.success((rse_id, request.destination_id)),
            refusal=facts.traffic.refusal(rse_id, request.destination_id, request.activity),
            carried=facts.traffic.carries(rse_id),
        )
        for rse_id, row in copies.items()
        if row.state == ReplicaState.AVAILABLE
    ]
    return pick_source(
        sources,
        destination_id=request.destination_id,
        failed_id=request.failed_source_id,
        seed=str(request.id),
    )


class _Endpoints:
    """Where files of RSEs are read and written; each is made once for a batch."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._made: dict[tuple[int, tuple[str, ...]], Endpoint] = {}

    def of(self, rse: Rse, operations: tuple[str, ...]) -> Endpoint:
        """Give the endpoint of an RSE for the first of these operations that it offers."""
        made = self._made.get((rse.id, operations))
        if made is None:
            made = self._made[rse.id, operations] = self._make(rse, operations)
        return made

    def _make(self, rse: Rse, operations: tuple[str, ...]) -> Endpoint:
        protocol = rse.protocol_for(*operations)
        if protocol is None:
            raise CannotPlan(
                "no_protocol",
                f"{rse.name} has no protocol for {' or '.join(operations)}; add one with `arriero rse protocol add`",
                retryable=False,
            )
        bare = Endpoint(rse.name, protocol.scheme, protocol.hostname, protocol.port, protocol.prefix)
        return self._credentials.get(rse.name, RseCredentials()).of(bare)


def _path(rse: Rse, known_path: str | None, file: Any) -> str:
    if known_path:
        return known_path
    if not rse.deterministic:
        raise CannotPlan(
            "no_path",
            f"{rse.name} is not deterministic and no path is registered for this file",
            retryable=False,
        )
    return path_for(rse.algorithm, file.scope, file.name)
