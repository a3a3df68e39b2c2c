"""Takes requests and plans their copies in one transaction; for workers of the centre, and for the movers of sites."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from arriero.registry.database import Database
from arriero.registry.rse_credentials import Credentials
from arriero.scheduler import hops
from arriero.scheduler.claim import Chosen, ClaimedRequest, PutOff, claim_requests
from arriero.scheduler.core.lanes import Lane
from arriero.scheduler.core.sources import BUSY
from arriero.scheduler.lanes import Place
from arriero.scheduler.plan import PlannedCopy, Unplanned, plan_copies
from arriero.scheduler.rse_catalogue import load_rses
from arriero.scheduler.traffic import Traffic, note_probes


@dataclass(slots=True)
class Taken:
    """What one claim has brought."""

    traffic: Traffic
    claimed: Sequence[ClaimedRequest] = ()
    planned: Sequence[PlannedCopy] = ()
    unplanned: Sequence[Unplanned] = ()
    put_off: int = 0
    """Requests that were left where they are, because their links or RSEs take no more now."""
    beyond: Place | None = None
    """The lane at which it has stopped."""
    limit: int = 0
    """How many it was to bring at most."""


def take(
    tx: Connection,
    owner: str,
    *,
    limit: int,
    lease_s: float,
    traffic: Traffic,
    lanes: Sequence[Lane],
    credentials: Credentials,
    first: Sequence[int] = (),
) -> Taken:
    """Take the most urgent requests of some lanes, with their sources chosen.

    Parameters
    ----------
    owner, limit, lease_s, traffic, lanes, first
        As for `claim_requests`.
    credentials
        By RSE name.
    """
    taken = Taken(traffic, limit=limit)

    def choose(claimed: Sequence[ClaimedRequest]) -> Chosen:
        if any(request.destination_id not in traffic.known.by_id for request in claimed):
            traffic.known = load_rses(tx)
        taken.planned, unplanned = plan_copies(tx, claimed, traffic, credentials)
        taken.unplanned = [one for one in unplanned if not _only_waits(one)]
        put_off = [
            PutOff(one.request.id, one.code, one.reason, one.wait_s or 0.0)
            for one in unplanned
            if _only_waits(one)
        ]
        taken.put_off = len(put_off)
        # also of what waits for a site, whose mover finds it by its source
        waiting = {one.request.id: one.source_id for one in taken.unplanned if one.source_id is not None}
        return Chosen(waiting | {copy.request.id: copy.source_id for copy in taken.planned}, put_off)

    taken.claimed = claim_requests(
        tx,
        owner,
        limit=limit,
        lease_s=lease_s,
        traffic=traffic,
        lanes=lanes,
        choose=choose,
        first=first,
    )
    note_probes(tx, traffic.probed)
    return taken


def _only_waits(one: Unplanned) -> bool:
    """Whether all that a request lacks is room on its link."""
    return one.code == BUSY and one.wait_s is not None


def ask_for_hops(database: Database, taken: Taken) -> None:
    """Have copies made to where what was taken has to go first."""
    wanted = [hops.Hop(one.request, one.hop_id) for one in taken.unplanned if one.hop_id is not None]
    if wanted:
        database.run(lambda tx: hops.ask_for(tx, wanted))
