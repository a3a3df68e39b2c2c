"""The registry's port for the movers of sites (`arriero.registry.ports.TransferDesk`): claims and reports over HTTP.

Requests are chosen, planned and settled by the code of the central workers. What a site says is believed of its own
RSEs only: how a copy ended, not whose fault it is.
"""

from collections.abc import Callable, Mapping, Sequence

import structlog
from sqlalchemy import Connection, select

from arriero.registry.database import Database
from arriero.registry.dialect import id_rows
from arriero.registry.errors import Busy
from arriero.registry.moving import OrderEndpoint, RequestOrder, RequestOutcome
from arriero.registry.ports import Doorbell, SiteMover
from arriero.registry.schema.tables import requests
from arriero.registry.services.context import Context
from arriero.registry.settings import Settings
from arriero.registry.states import RequestState
from arriero.rse.copy import CopyResult
from arriero.rse.types import Endpoint
from arriero.scheduler.claim import ClaimedRequest, extend_leases
from arriero.scheduler.copy_ends import CopyEnds
from arriero.scheduler.core.sources import SITE_MOVER
from arriero.scheduler.mover import Finished
from arriero.scheduler.plan import PlannedCopy, orders_of
from arriero.scheduler.reports import Report, released
from arriero.scheduler.rse_catalogue import RseCatalogue, load_rses
from arriero.scheduler.settle import Settled
from arriero.scheduler.site_lanes import find_site_lanes, is_due_at, outgoing
from arriero.scheduler.take import Taken, ask_for_hops, take
from arriero.scheduler.traffic import load_traffic

log = structlog.get_logger(__name__)


class Desk:
    """Hands out requests to the movers of sites and takes in their reports.

    Parameters
    ----------
    database, settings, doorbell
        Of this process.
    """

    def __init__(self, database: Database, settings: Settings, doorbell: Doorbell) -> None:
        self._database = database
        self._settings = settings
        self._ends = CopyEnds(Context(database, settings, doorbell))

    def is_due(self, site: SiteMover) -> bool:
        """Tell whether there may be something for a mover to do."""
        with self._database.snapshot() as connection:
            return is_due_at(connection, site.rse_ids)

    def claim(
        self, site: SiteMover, *, limit: int, lease_s: float, note: Callable[[Connection, int], None]
    ) -> list[RequestOrder]:
        """Lease due requests: those that go to its RSEs, and those that only it can read; at most half of the latter.

        What cannot be planned is settled at once, as the central workers do it.
        """

        def claim(tx: Connection) -> Taken:
            traffic = load_traffic(tx, load_rses(tx), self._settings.activity_shares)
            traffic.site = site.rse_ids
            taken = take(
                tx,
                site.owner,
                limit=limit,
                lease_s=lease_s,
                traffic=traffic,
                lanes=find_site_lanes(tx, site.rse_ids),
                credentials={},
                first=outgoing(tx, traffic, limit=max(limit // 2, 1)),
            )
            if taken.planned:
                note(tx, len(taken.planned))
            return taken

        taken = self._database.run(claim)
        ask_for_hops(self._database, taken)
        if taken.unplanned:
            try:
                self._ends.settle([self._ends.unplanned(fault) for fault in taken.unplanned])
            except Busy as error:
                log.warning(
                    "left to the end of their leases", requests=len(taken.unplanned), cause=error.code
                )
        return [_order(copy) for copy in taken.planned]

    def extend(
        self, site: SiteMover, held: Sequence[tuple[int, int]], *, lease_s: float, copied: Mapping[int, int]
    ) -> frozenset[tuple[int, int]]:
        """Extend leases, and note the bytes that are copied; give the (id, fence) that this mover still holds."""
        asked = set(held)

        def extend(tx: Connection) -> frozenset[tuple[int, int]]:
            found = tx.execute(
                select(requests.c.id, requests.c.fence).where(
                    requests.c.id.in_(id_rows(tx, sorted({request_id for request_id, _ in asked})))
                )
            )
            ids = [row.id for row in found if (row.id, row.fence) in asked]
            so_far = {key: copied[key] for key in ids if key in copied}
            return extend_leases(tx, site.owner, ids, lease_s=lease_s, copied=so_far) & asked

        return self._database.run(extend)

    def report(
        self,
        site: SiteMover,
        outcomes: Sequence[RequestOutcome],
        *,
        note: Callable[[Connection, Mapping[str, int]], None],
    ) -> list[int]:
        """Settle what became of requests; give the ids of those that this mover does not hold under that fence."""
        by_id = {outcome.id: outcome for outcome in outcomes}
        with self._database.snapshot() as connection:
            known = load_rses(connection)
            held = _held(connection, site.owner, by_id)
            orders = orders_of(connection, held, known)
        own = {rse.name for rse in known.by_id.values() if rse.id in site.rse_ids}
        reports = self._reports(known, [(one, by_id[one.id]) for one in held], orders, own)
        if reports:
            self._ends.settle(reports, note=lambda tx, result: note(tx, _figures(result)))
        settled = {report.request_id for report in reports}
        return [key for key in by_id if key not in settled]

    def _reports(
        self,
        known: RseCatalogue,
        ended: Sequence[tuple[ClaimedRequest, RequestOutcome]],
        orders: Mapping[int, PlannedCopy],
        own: set[str],
    ) -> list[Report]:
        finished = [
            _finished(orders[request.id], outcome, own) for request, outcome in ended if request.id in orders
        ]
        # its source or protocol has gone meanwhile: what is there is adopted by the next attempt
        others = [_bare(request, outcome) for request, outcome in ended if request.id not in orders]
        return self._ends.reports(finished, known) + others


def _held(
    connection: Connection, owner: str, outcomes: Mapping[int, RequestOutcome]
) -> dict[ClaimedRequest, int]:
    """Give the requests that a mover holds under the fences that it says, and the source of each."""
    rows = connection.execute(
        select(requests).where(
            requests.c.id.in_(id_rows(connection, sorted(outcomes))),
            requests.c.lease_owner == owner,
            requests.c.state == RequestState.SUBMITTED,
            requests.c.source_id.is_not(None),
        )
    )
    return {
        ClaimedRequest(
            id=row.id,
            fence=row.fence,
            owner=owner,
            file_id=row.file_id,
            destination_id=row.destination_id,
            bytes=row.bytes,
            attempt=row.attempt,
            failed_source_id=None,
            activity=row.activity,
        ): row.source_id
        for row in rows
        if outcomes[row.id].fence == row.fence
    }


def _finished(copy: PlannedCopy, outcome: RequestOutcome, own: set[str]) -> Finished:
    if outcome.state == "released":
        return Finished(copy, None, "cancelled", outcome.reason or "given back by the mover of the site")
    reason = outcome.reason or "the mover of the site says no more"
    if outcome.state == "failed":
        # not the code by which requests wait for a mover: it would come back at once
        code = outcome.code if outcome.code and outcome.code != SITE_MOVER else "unexpected_error"
        # a site without a network must not have everybody's RSEs closed
        blamed = outcome.rse if outcome.rse in own else None
        return Finished(copy, None, code, reason, outcome.retryable, blamed)
    order = copy.order
    if outcome.bytes != order.bytes or (order.adler32 is not None and outcome.adler32 != order.adler32):
        return Finished(
            copy,
            None,
            "checksum_mismatch",
            f"{order.destination.rse}: the mover of the site verified {outcome.bytes} bytes, adler32 {outcome.adler32}; "
            f"the catalogue has {order.bytes} bytes, adler32 {order.adler32}",
            retryable=True,
        )
    return Finished(copy, _result(outcome))


def _result(outcome: RequestOutcome) -> CopyResult:
    return CopyResult(
        outcome.mode or "streamed",
        outcome.mode_reason or "",
        outcome.bytes or 0,
        outcome.adler32 or "",
        outcome.seconds or 0.0,
    )


def _bare(request: ClaimedRequest, outcome: RequestOutcome) -> Report:
    said = f"its order does not hold any more; the mover of the site says: {outcome.state}"
    return released(request, said, delay_s=1.0)


def _figures(result: Settled) -> dict[str, int]:
    return {
        "done": result.done,
        "failed": result.failed + result.retried,
        "given_back": result.released + result.dropped,
        "discarded": result.discarded,
    }


def _order(copy: PlannedCopy) -> RequestOrder:
    request, order = copy.request, copy.order
    return RequestOrder(
        id=request.id,
        fence=request.fence,
        attempt=request.attempt,
        attempt_name=order.attempt_name,
        source=_endpoint(order.source),
        source_path=order.source_path,
        destination=_endpoint(order.destination),
        destination_path=order.destination_path,
        bytes=order.bytes,
        adler32=order.adler32,
        md5=order.md5,
        replaces_bad=order.replaces_bad,
    )


def _endpoint(endpoint: Endpoint) -> OrderEndpoint:
    return OrderEndpoint(
        rse=endpoint.rse,
        scheme=endpoint.scheme,
        hostname=endpoint.hostname or "",
        port=endpoint.port,
        prefix=endpoint.prefix,
    )
