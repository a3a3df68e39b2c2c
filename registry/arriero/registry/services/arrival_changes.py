"""Use cases of who looks after a Butler's ledger: see its files, release, drive again, park, drop, wake, its state."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter

from sqlalchemy import Connection, RowMapping, select

from arriero.registry.arrival_words import (
    MAX_PREREQUISITES,
    OPERATOR,
    AdoptArrivals,
    ButlerFile,
    ButlerFileFilter,
    ButlerStatus,
    ChangeArrivals,
    Changed,
    CompleteExposures,
    HeldArrivals,
    Prerequisite,
    WakeArrivals,
    WhyCount,
)
from arriero.registry.errors import InvalidInput
from arriero.registry.pages import pages_by_id
from arriero.registry.schema.base import now
from arriero.registry.services import audit
from arriero.registry.services.arrivals import authorize_held, datasets_as_text, require_butler
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.butlers import get_butler
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import require_did
from arriero.registry.services.uris import UriMaker
from arriero.registry.states import ArrivalState
from arriero.registry.store import arrival_changes as store
from arriero.registry.store import arrival_queue as queue
from arriero.registry.store import butlers as butler_store
from arriero.registry.store import events
from arriero.rse.errors import RSEError

PARK_S = 366 * 86400.0
"""When what somebody has parked is tried again after all, seconds: nothing waits without a time."""

LAG_FILES = 10_000
"""Newest ingests of which the lag is told."""

_PAGE = 1000
_CHANGE_PAGE = 5000
_REASONS = 100


def list_files(context: Context, butler: str, chosen: ButlerFileFilter) -> Iterator[ButlerFile]:
    """List the files of a Butler's ledger by id, page by page.

    Raises
    ------
    NotFound
        The butler, or the dataset, does not exist.
    """
    with context.database.snapshot() as connection:
        butler_id = require_butler(connection, butler)
        below = None
        if chosen.dataset is not None:
            scope, colon, name = chosen.dataset.partition(":")
            if not (scope and colon and name):
                raise InvalidInput(f"{chosen.dataset[:100]!r} is not a DID: write scope:name")
            below = int(require_did(connection, scope, name)["id"])
        feeds = butler_store.feeds_of(connection, butler_id)
    makers = {rse_id: UriMaker(feed) for rse_id, feed in feeds.items()}
    conditions = store.narrowed(
        state=chosen.state,
        code=chosen.code,
        rse=chosen.rse,
        scope=chosen.scope,
        name=chosen.name,
        below=below,
    )
    query = store.file_rows(butler_id).where(*conditions)

    def read(after: int, size: int) -> Sequence[RowMapping]:
        with context.database.snapshot() as connection:
            return connection.execute(store.page(query, after, size)).mappings().all()

    for page in pages_by_id(read, itemgetter("id"), after=chosen.after, limit=chosen.limit, size=_PAGE):
        yield from (_file(row, makers) for row in page)


def _file(row: RowMapping, makers: Mapping[int, UriMaker]) -> ButlerFile:
    maker = makers.get(row["rse_id"])
    try:
        uri = None if maker is None else maker.uri(row["scope"], row["name"], row["path"])
    except RSEError:
        uri = None
    return ButlerFile.model_validate({**row, "uri": uri})


def release(context: Context, actor: Actor, order: HeldArrivals) -> list[int]:
    """Mark arrivals as released; their datasets have been taken out of the Butler.

    Returns
    -------
    list of int
        Ids that are not ingested, or have been touched since they were seen: they stay as they are.

    Raises
    ------
    Denied
        The token is not bound to the butler of one of them; nothing was done.
    """
    reason = order.reason or f"released by {actor.account}"
    return _moved(
        context,
        actor,
        order,
        lambda connection, held: store.release(connection, held, reason),
        event="arrival-released",
    )


def ingest_again(context: Context, actor: Actor, order: HeldArrivals) -> list[int]:
    """Have arrivals ingested again that the Butler has lost; as `release`."""
    reason = order.reason or f"to be ingested again, said {actor.account}"
    return _moved(
        context, actor, order, lambda connection, held: store.ingest_again(connection, held, reason)
    )


def _moved(
    context: Context,
    actor: Actor,
    order: HeldArrivals,
    move: Callable[[Connection, Sequence[tuple[int, int]]], Sequence[RowMapping]],
    *,
    event: str | None = None,
) -> list[int]:
    held = sorted({(item.id, item.fence) for item in order.arrivals})
    if not held:
        return []

    def work(connection: Connection) -> set[int]:
        butlers = authorize_held(connection, actor, Action.ARRIVAL_RELEASE, [key for key, _ in held])
        done = {row["id"] for row in move(connection, held)}
        if not done:
            return done
        if event is not None:
            keyed = [
                (
                    f"{row['scope']}:{row['name']}",
                    {"butler": ", ".join(butlers), **{str(key): value for key, value in row.items()}},
                )
                for row in store.named(connection, sorted(done))
            ]
            events.append(connection, event, keyed)
        audit.record(
            connection,
            actor,
            Action.ARRIVAL_RELEASE,
            ", ".join(butlers),
            files=len(done),
            again=event is None,
        )
        return done

    done = context.database.run(work)
    return [key for key, _ in held if key not in done]


def adopt(context: Context, actor: Actor, order: AdoptArrivals) -> list[int]:
    """Write down what a Butler has of files, whatever the ledger said; as `release`.

    Returns
    -------
    list of int
        Ids that an agent has in hand, or that have been touched since they were seen.
    """
    found = {item.id: item for item in order.arrivals}

    def work(connection: Connection) -> set[int]:
        butlers = authorize_held(connection, actor, Action.ARRIVAL_RELEASE, list(found))
        rows = [row for row in store.lock_seen(connection, list(found)) if row.fence == found[row.id].fence]
        if rows:
            state = ArrivalState.INGESTED.value
            queue.settle(
                connection,
                [
                    (
                        row.id,
                        state,
                        row.attempt,
                        0.0,
                        found[row.id].dataset_id,
                        None,
                        None,
                        None,
                        False,
                        datasets_as_text(found[row.id].datasets),
                    )
                    for row in rows
                ],
            )
            audit.record(connection, actor, Action.ARRIVAL_RELEASE, ", ".join(butlers), adopted=len(rows))
        return {row.id for row in rows}

    done = context.database.run(work) if found else set()
    return [key for key in found if key not in done]


def change(context: Context, actor: Actor, order: ChangeArrivals) -> Changed:
    """Have arrivals tried again, parked, or left out, in pages of one short transaction each.

    Raises
    ------
    Denied
        The token is not bound to the butler.
    NotFound
        There is no such butler.
    InvalidInput
        It names no state from which the action goes.
    """
    authorize(actor, Action.ARRIVAL_CHANGE, Target(order.butler, butler=order.butler))
    possible = store.CHANGES[order.action]
    if order.state is not None and order.state not in possible:
        raise InvalidInput(
            f"{order.action} is for arrivals that are {', '.join(possible)}, not {order.state}"
            + (
                "; take it out of the Butler with 'arriero arrival release'"
                if order.state is ArrivalState.INGESTED
                else ""
            )
        )
    with context.database.snapshot() as connection:
        butler_id = require_butler(connection, order.butler)
    conditions = store.narrowed(
        state=order.state, code=order.code, rse=order.rse, scope=order.scope, name=order.name, ids=order.ids
    )
    if order.action == "retry" and order.state is None and not order.ids:
        # what somebody has let go comes back only when it is meant
        conditions.append(store.not_released())
    reason = order.reason or f"{order.action} by {actor.account}"
    last, total = 0, 0

    def work(connection: Connection) -> tuple[int, int]:
        query = store.changeable(butler_id, order.action, conditions, last, _CHANGE_PAGE, force=order.force)
        ids: list[int] = list(connection.scalars(query))
        if not ids or order.dry_run:
            return len(ids), ids[-1] if ids else last
        done = store.change(
            connection,
            order.action,
            ids,
            reason=reason,
            waits_for=OPERATOR,
            wait_s=PARK_S,
            force=order.force,
        )
        audit.record(connection, actor, Action.ARRIVAL_CHANGE, order.butler, change=order.action, files=done)
        return done, ids[-1]

    while True:
        if order.dry_run:
            with context.database.snapshot() as connection:
                done, reached = work(connection)
        else:
            done, reached = context.database.run(work)
        total += done
        if reached == last:
            return Changed(changed=total)
        last = reached


def prerequisites(context: Context, butler: str) -> list[Prerequisite]:
    """Give what the parked arrivals of a Butler wait for."""
    with context.database.snapshot() as connection:
        rows = store.prerequisites(connection, require_butler(connection, butler), MAX_PREREQUISITES)
    return [Prerequisite(waits_for=row.waits_for, files=row.files) for row in rows]


def wake(context: Context, actor: Actor, order: WakeArrivals) -> Changed:
    """Have parked arrivals be due whose prerequisites the Butler has now.

    Raises
    ------
    Denied
        The token is not bound to the butler.
    NotFound
        There is no such butler.
    """
    authorize(actor, Action.ARRIVAL_REPORT, Target(order.butler, butler=order.butler))
    wanted = sorted(set(order.prerequisites))

    def work(connection: Connection) -> int:
        butler_id = require_butler(connection, order.butler)
        woken = queue.wake(connection, butler_id, wanted)
        if woken:
            audit.record(connection, actor, Action.ARRIVAL_REPORT, order.butler, woken=woken)
        return woken

    return Changed(changed=context.database.run(work))


def tell_complete(context: Context, actor: Actor, butler: str, told: CompleteExposures) -> int:
    """Send the events of exposures that are whole in a Butler, and of the visits that it has of them.

    Raises
    ------
    Denied
        The token is not bound to the butler.
    NotFound
        There is no such butler.
    """
    authorize(actor, Action.ARRIVAL_REPORT, Target(butler, butler=butler))

    def work(connection: Connection) -> None:
        require_butler(connection, butler)
        keyed = [
            (
                f"{butler}:{one.instrument}:{one.exposure}",
                {"butler": butler, **one.model_dump(mode="json")},
            )
            for one in told.exposures
        ]
        events.append(connection, "exposure-complete", keyed)
        visits = {(one.instrument, visit): one.exposure for one in told.exposures for visit in one.visits}
        defined = [
            (
                f"{butler}:{instrument}:visit:{visit}",
                {"butler": butler, "instrument": instrument, "visit": visit, "exposure": exposure},
            )
            for (instrument, visit), exposure in visits.items()
        ]
        events.append(connection, "visit-defined", defined)
        if keyed:
            audit.record(connection, actor, Action.ARRIVAL_REPORT, butler, complete=len(keyed))

    context.database.run(work)
    return len(told.exposures)


def status(context: Context, butler: str) -> ButlerStatus:
    """Tell how the ledger of a Butler stands.

    Raises
    ------
    NotFound
        There is no such butler.
    """
    known = get_butler(context, butler)
    with context.database.snapshot() as connection:
        butler_id = require_butler(connection, butler)
        at = connection.scalar(select(now()))
        states = store.by_state(connection, butler_id)
        reasons = store.by_reason(connection, butler_id, _REASONS)
        last = store.last_ingests(connection, butler_id, LAG_FILES)
    lags = sorted((row.ingested_at - row.created_at).total_seconds() for row in last)
    waiting = (ArrivalState.PENDING, ArrivalState.PARKED, ArrivalState.LEASED)
    return ButlerStatus(
        name=known.name,
        uri=known.uri,
        at=at,
        states={row.state: row.files for row in states},
        reasons=[
            WhyCount(state=row.state, code=row.code, files=row.files, example=row.example) for row in reasons
        ],
        last_ingest=last[0].ingested_at if last else None,
        oldest_waiting=min((row.oldest for row in states if row.state in waiting), default=None),
        lag_p50_s=_part(lags, 0.50),
        lag_p95_s=_part(lags, 0.95),
        lag_files=len(lags),
    )


def _part(ordered: Sequence[float], part: float) -> float | None:
    """Value below which a part of some values lies (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else None
