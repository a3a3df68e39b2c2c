"""Use cases about arrivals: agents claim, report and extend; people look.

Claiming and reporting are short transactions; nothing is held open while an agent works (DESIGN 4.1).
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import NotFound
from arriero.registry.models import (
    MOVE,
    Arrival,
    ArrivalFile,
    ArrivalFilter,
    ArrivalOutcome,
    ClaimArrivals,
    ExtendArrivals,
)
from arriero.registry.pages import pages_by_id
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rse_names import require_rse_id
from arriero.registry.services.uris import UriMaker
from arriero.registry.states import ArrivalState, ReplicaState
from arriero.registry.store import arrival_queue as queue
from arriero.registry.store import arrivals as store
from arriero.registry.store import butlers as butler_store
from arriero.registry.store import events as event_store
from arriero.rse.errors import RSEError

BUTLER_UNAVAILABLE = "butler_unavailable"
"""Code of an outcome that says nothing about the file: it costs no attempt."""

_UNDECIDED = frozenset({BUTLER_UNAVAILABLE, "replaced_file"})
"""Codes of outcomes after which the Butler may refer to the file: its answer was lost, or it has another of that name."""

FIRST_BACKOFF_S = 5.0
LONGEST_BACKOFF_S = 3600.0
"""Wait after the first failed attempt, and at most; it doubles in between. Seconds."""

OUTAGE_WAIT_S = 10.0
"""Wait after an outage of the Butler, seconds: the agent backs off by itself as well."""

PARKED_WAIT_S = 300.0
"""When a parked arrival is tried again, whether or not what it waits for has come, seconds. Waiting costs no attempt."""

NOT_AVAILABLE_WAIT_S = 60.0
"""When an arrival whose replica is not AVAILABLE any more is looked at again, seconds."""

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of an arrival that was reported."""

    state: ArrivalState
    attempt: int
    wait_s: float = 0.0


def list_arrivals(context: Context, chosen: ArrivalFilter) -> Iterator[Arrival]:
    """List arrivals by id, page by page.

    Raises
    ------
    NotFound
        The butler, RSE or scope does not exist.
    """
    with context.database.snapshot() as connection:
        butler_id = None if chosen.butler is None else require_butler(connection, chosen.butler)
        rse_id = None if chosen.rse is None else require_rse_id(connection, chosen.rse)
        scope_id = None if chosen.scope is None else _scope_id(connection, chosen.scope)

    def read(after: int, size: int) -> list[Arrival]:
        query = store.narrowed_arrivals(
            butler_id=butler_id,
            state=chosen.state,
            rse_id=rse_id,
            code=chosen.code,
            scope_id=scope_id,
            name=chosen.name,
            after_id=after,
            limit=size,
        )
        with context.database.snapshot() as connection:
            return [Arrival.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    for page in pages_by_id(read, attrgetter("id"), after=chosen.after, limit=chosen.limit, size=_PAGE):
        yield from page


def authorize_claim(context: Context, actor: Actor, butler: str) -> int:
    """Check that an actor may claim a butler's arrivals; give its id.

    Raises
    ------
    Denied
        The token is not bound to it.
    NotFound
        There is no such butler.
    """
    authorize(actor, Action.ARRIVAL_CLAIM, Target(butler, butler=butler))
    with context.database.snapshot() as connection:
        return require_butler(connection, butler)


def butlers_with_work(context: Context, butler_ids: Collection[int]) -> set[int]:
    """Give those of some butlers that have arrivals to claim."""
    with context.database.snapshot() as connection:
        return queue.butlers_with_work(connection, butler_ids)


def claim_arrivals(context: Context, actor: Actor, butler_id: int, claim: ClaimArrivals) -> list[ArrivalFile]:
    """Lease due arrivals of a butler, without waiting.

    Parameters
    ----------
    butler_id
        From `authorize_claim`.
    claim
        How many, for whom, for how long.

    Returns
    -------
    list of ArrivalFile
        Empty when nothing is due.
    """
    with context.database.snapshot() as connection:
        if not queue.butlers_with_work(connection, [butler_id]):
            return []
    return context.database.run(lambda connection: _claim(connection, context, actor, butler_id, claim))


def _claim(
    connection: Connection, context: Context, actor: Actor, butler_id: int, claim: ClaimArrivals
) -> list[ArrivalFile]:
    queue.free_outlived_leases(connection, context.settings.arrival_max_attempts, butler_id=butler_id)
    due = _without_suspects(queue.select_due(connection, butler_id, claim.limit), claim.limit)
    if not due:
        return []
    readable = [row for row in due if row["replica_state"] == ReplicaState.AVAILABLE]
    gone = [row["id"] for row in due if row["replica_state"] != ReplicaState.AVAILABLE]
    if gone:
        reason = "the replica is not AVAILABLE any more: it is ingested when it is again"
        queue.put_off(connection, gone, store.NOT_AVAILABLE, reason, NOT_AVAILABLE_WAIT_S)
    files = _with_uris(connection, butler_id, readable)
    put_off = len(due) - len(files)
    audit.record(
        connection,
        actor,
        Action.ARRIVAL_CLAIM,
        claim.butler,
        files=len(files),
        worker=claim.worker,
        **({"put_off": put_off} if put_off else {}),
    )
    if not files:
        return []
    held = queue.lease(connection, [row["id"] for row, _ in files], claim.worker, claim.lease_s)
    return [
        ArrivalFile(
            id=row["id"],
            fence=held[row["id"]][0],
            attempt=held[row["id"]][1],
            scope=row["scope"],
            name=row["name"],
            rse=rse,
            uri=uri,
            bytes=row["bytes"],
            adler32=row["adler32"],
            meta=row["meta"] or {},
        )
        for row, (rse, uri) in files
    ]


def _without_suspects(due: Sequence[RowMapping], limit: int) -> Sequence[RowMapping]:
    """Cut a claim that begins with files whose agent died: ever fewer together, so that a deadly one ends up alone."""
    if due and due[0]["code"] == queue.LEASE_EXPIRED:
        return due[: max(1, limit >> (2 * due[0]["attempt"]))]
    return due


def _with_uris(
    connection: Connection, butler_id: int, rows: Sequence[RowMapping]
) -> list[tuple[RowMapping, tuple[str, str]]]:
    feeds = butler_store.feeds_of(connection, butler_id)
    makers = {rse_id: UriMaker(feed) for rse_id, feed in feeds.items()}
    found: list[tuple[RowMapping, tuple[str, str]]] = []
    for row in rows:
        rse_id = row["rse_id"]
        try:
            uri = makers[rse_id].uri(row["scope"], row["name"], row["path"])
        except RSEError as error:
            queue.put_off(connection, [row["id"]], error.code, error.message, LONGEST_BACKOFF_S)
            continue
        found.append((row, (feeds[rse_id].rse, uri)))
    return found


def report_arrivals(context: Context, actor: Actor, outcomes: Sequence[ArrivalOutcome]) -> list[int]:
    """Take in what an agent made of arrivals.

    Returns
    -------
    list of int
        Ids that were not accepted: their fence has moved, or they are not leased.

    Raises
    ------
    Denied
        The token is not bound to the butler of one of them; nothing was taken in.
    """
    return context.database.run(lambda connection: _report(connection, context, actor, outcomes))


def _report(
    connection: Connection, context: Context, actor: Actor, outcomes: Sequence[ArrivalOutcome]
) -> list[int]:
    by_id = {outcome.id: outcome for outcome in outcomes}
    butlers = authorize_held(connection, actor, Action.ARRIVAL_REPORT, list(by_id))
    rows = {
        row["id"]: row
        for row in queue.lock_leased(connection, list(by_id))
        if row["fence"] == by_id[row["id"]].fence
    }
    if rows:
        limit = context.settings.arrival_max_attempts
        settled = {key: settle(by_id[key], row["attempt"], limit) for key, row in rows.items()}
        queue.settle(connection, (_report_row(by_id[key], settled[key]) for key in rows))
        _wake(connection, rows, by_id)
        ingested = [row for key, row in rows.items() if settled[key].state is ArrivalState.INGESTED]
        if moved := [row["id"] for row in ingested if row["transfer"] == MOVE]:
            store.let_go_of_moved(connection, moved)
        event_store.append(
            connection,
            "arrival-ingested",
            [(f"{row['scope']}:{row['name']}", _ingested_payload(row, by_id[row["id"]])) for row in ingested],
        )
        audit.record(
            connection,
            actor,
            Action.ARRIVAL_REPORT,
            ", ".join(butlers),
            files=len(rows),
            ingested=len(ingested),
        )
    rejected = [key for key in by_id if key not in rows]
    late = [key for key in rejected if by_id[key].state is ArrivalState.INGESTED]
    if late:
        # it is in the Butler now, whatever has become of the arrival meanwhile
        queue.doubt(connection, late)
    return rejected


def _wake(
    connection: Connection, rows: Mapping[int, RowMapping], outcomes: Mapping[int, ArrivalOutcome]
) -> None:
    provided: dict[int, dict[str, None]] = {}
    for key, row in rows.items():
        if outcomes[key].provides:
            provided.setdefault(row["butler_id"], {}).update(dict.fromkeys(outcomes[key].provides))
    for butler_id, prerequisites in provided.items():
        queue.wake(connection, butler_id, list(prerequisites))


def settle(outcome: ArrivalOutcome, attempt: int, max_attempts: int) -> Settlement:
    """Decide what becomes of an arrival. Pure but for the jitter.

    Parameters
    ----------
    outcome
        What the agent says.
    attempt
        The attempt that it is about, from 1.
    max_attempts
        The last one.
    """
    if outcome.state is ArrivalState.PARKED:
        return Settlement(ArrivalState.PARKED, attempt - 1, _jittered(PARKED_WAIT_S))
    if outcome.state is ArrivalState.FAILED:
        if outcome.code == BUTLER_UNAVAILABLE:
            return Settlement(ArrivalState.PENDING, attempt - 1, _jittered(OUTAGE_WAIT_S))
        if outcome.retryable and attempt < max_attempts:
            wait_s = min(FIRST_BACKOFF_S * 2.0 ** (attempt - 1), LONGEST_BACKOFF_S)
            return Settlement(ArrivalState.PENDING, attempt, _jittered(wait_s))
    return Settlement(outcome.state, attempt)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret


def _report_row(outcome: ArrivalOutcome, settled: Settlement) -> tuple[Any, ...]:
    fine = settled.state is ArrivalState.INGESTED
    return (
        outcome.id,
        settled.state.value,
        settled.attempt,
        settled.wait_s,
        outcome.dataset_id,
        None if fine else outcome.code,
        None if fine else outcome.reason,
        outcome.waits_for if settled.state is ArrivalState.PARKED else None,
        False if fine else True if outcome.code in _UNDECIDED else None,
        datasets_as_text(outcome.datasets),
    )


def datasets_as_text(ids: Sequence[UUID]) -> str | None:
    """Write the datasets of a file as the ledger keeps them; None where there are not several."""
    return orjson.dumps([str(one) for one in ids]).decode() if ids else None


def _ingested_payload(row: RowMapping, outcome: ArrivalOutcome) -> dict[str, Any]:
    return {
        "scope": row["scope"],
        "name": row["name"],
        "rse": row["rse"],
        "butler": row["butler"],
        "dataset_id": str(outcome.dataset_id) if outcome.dataset_id else None,
        "bytes": row["bytes"],
        "checksum-adler": row["adler32"],
    }


def extend_arrivals(context: Context, actor: Actor, extension: ExtendArrivals) -> list[int]:
    """Extend leases.

    Returns
    -------
    list of int
        Ids whose lease is lost.
    """
    held = sorted({(item.id, item.fence) for item in extension.arrivals})
    if not held:
        return []

    def extend(connection: Connection) -> set[int]:
        butlers = authorize_held(connection, actor, Action.ARRIVAL_REPORT, [key for key, _ in held])
        extended = queue.extend_leases(connection, held, extension.lease_s)
        if extended:
            audit.record(connection, actor, Action.ARRIVAL_REPORT, ", ".join(butlers), extended=len(extended))
        return extended

    kept = context.database.run(extend)
    return [key for key, _ in held if key not in kept]


def authorize_held(connection: Connection, actor: Actor, action: Action, ids: Sequence[int]) -> list[str]:
    """Check that an actor may do something to arrivals; give the names of their butlers.

    Raises
    ------
    Denied
        The token is not bound to the butler of one of them.
    """
    butlers = store.butlers_of(connection, ids)
    for butler in butlers:
        authorize(actor, action, Target(butler, butler=butler))
    return butlers


def require_butler(connection: Connection, name: str) -> int:
    """Give the id of a butler.

    Raises
    ------
    NotFound
        There is none of that name.
    """
    found = butler_store.butler_ids(connection, [name])
    if name not in found:
        raise NotFound(f"there is no butler {name}: see 'arriero butler list'", code="butler_not_found")
    return found[name]


def _scope_id(connection: Connection, name: str) -> int:
    found = butler_store.scope_ids(connection, [name])
    if name not in found:
        raise NotFound(
            f"there is no scope {name}: see 'arriero scope list'",
            rucio_class="ScopeNotFound",
            code="scope_not_found",
        )
    return found[name]
