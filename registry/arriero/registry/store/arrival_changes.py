"""What people and site tools do to the ledger of arrivals: look with URIs, release, drive again, park, drop, wake."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    false,
    func,
    literal,
    null,
    or_,
    select,
    text,
    tuple_,
    update,
)

from arriero.registry.dialect import like_pattern
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import arrivals, dids, replicas, rses, scopes
from arriero.registry.states import ArrivalState
from arriero.registry.store.contents import file_ids_below

RELEASED = "released_by_operator"
DROPPED = "dropped"
PARKED = "parked_by_operator"
"""Codes of what somebody has done to an arrival."""

_PARKED = text("arrivals.state = 'parked'")
"""Spelt out, so that the partial index serves."""


def file_rows(butler_id: int) -> Select[Any]:
    """Query for the files of a Butler's ledger by id, with their replicas; narrow it with where()."""
    return (
        select(
            arrivals.c.id,
            arrivals.c.fence,
            arrivals.c.state,
            arrivals.c.rse_id,
            scopes.c.name.label("scope"),
            dids.c.name,
            rses.c.name.label("rse"),
            dids.c.adler32,
            func.coalesce(replicas.c.bytes, dids.c.bytes).label("bytes"),
            replicas.c.path,
            replicas.c.state.label("replica_state"),
            arrivals.c.dataset_id,
            arrivals.c.datasets,
            arrivals.c.may_hold,
            arrivals.c.attempt,
            arrivals.c.code,
            arrivals.c.reason,
            arrivals.c.waits_for,
        )
        .join(dids, dids.c.id == arrivals.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(rses, rses.c.id == arrivals.c.rse_id)
        .outerjoin(
            replicas,
            and_(replicas.c.file_id == arrivals.c.file_id, replicas.c.rse_id == arrivals.c.rse_id),
        )
        .where(arrivals.c.butler_id == butler_id)
        .order_by(arrivals.c.id)
    )


def page(query: Select[Any], after_id: int, limit: int) -> Select[Any]:
    """Narrow a query of `file_rows` to its next page."""
    return query.where(arrivals.c.id > after_id).limit(limit)


def not_released() -> ColumnElement[bool]:
    """Condition that nobody has let go of an arrival."""
    return arrivals.c.state != ArrivalState.RELEASED


def narrowed(
    *,
    state: ArrivalState | None,
    code: str | None,
    rse: str | None,
    scope: str | None,
    name: str | None,
    below: int | None = None,
    ids: Sequence[int] = (),
) -> list[ColumnElement[bool]]:
    """Conditions on arrivals, joined with ``dids``, ``scopes`` and ``rses``; all must hold.

    Parameters
    ----------
    name
        Pattern; ``*`` is any text.
    below
        Id of a DID that the file is, or is in.
    """
    found: list[ColumnElement[bool]] = []
    equal = ((arrivals.c.state, state), (arrivals.c.code, code), (rses.c.name, rse), (scopes.c.name, scope))
    found.extend(column == value for column, value in equal if value is not None)
    if name is not None:
        found.append(dids.c.name.like(like_pattern(name), escape="\\"))
    if below is not None:
        found.append(arrivals.c.file_id.in_(select(file_ids_below([below]).c.id)))
    if ids:
        found.append(arrivals.c.id.in_(ids))
    return found


def release(connection: Connection, held: Sequence[tuple[int, int]], reason: str) -> Sequence[RowMapping]:
    """Mark ingested arrivals as released that nobody has touched since they were seen; give them."""
    return _moved(
        connection,
        held,
        {
            "state": ArrivalState.RELEASED,
            "may_hold": false(),
            "code": RELEASED,
            "reason": reason,
            "dataset_id": null(),
            "datasets": null(),
        },
    )


def ingest_again(
    connection: Connection, held: Sequence[tuple[int, int]], reason: str
) -> Sequence[RowMapping]:
    """Have ingested arrivals be pending again that nobody has touched since they were seen; give them."""
    values = {
        "state": ArrivalState.PENDING,
        "attempt": 0,
        "not_before": now(),
        "code": "ingest_again",
        "reason": reason,
    }
    return _moved(connection, held, values)


def _moved(
    connection: Connection, held: Sequence[tuple[int, int]], values: Mapping[str, Any]
) -> Sequence[RowMapping]:
    statement = (
        update(arrivals)
        .where(
            tuple_(arrivals.c.id, arrivals.c.fence).in_(list(held)),
            arrivals.c.state == ArrivalState.INGESTED,
        )
        # the fence moves: who still believes to have it in hand is not believed
        .values(**values, fence=arrivals.c.fence + 1, updated_at=now())
        .returning(arrivals.c.id, arrivals.c.file_id, arrivals.c.rse_id)
    )
    return connection.execute(statement).mappings().all()


def lock_seen(connection: Connection, ids: Sequence[int]) -> Sequence[Any]:
    """Lock arrivals that no agent has in hand, by id; give ``id``, ``fence`` and ``attempt``."""
    query = (
        select(arrivals.c.id, arrivals.c.fence, arrivals.c.attempt)
        .where(arrivals.c.id.in_(ids), arrivals.c.state != ArrivalState.LEASED)
        .order_by(arrivals.c.id)
        .with_for_update(of=arrivals)
    )
    return connection.execute(query).all()


def named(connection: Connection, ids: Sequence[int]) -> Sequence[RowMapping]:
    """Give ``id``, ``scope``, ``name``, ``rse`` and ``bytes`` of arrivals."""
    query = (
        select(
            arrivals.c.id, scopes.c.name.label("scope"), dids.c.name, rses.c.name.label("rse"), dids.c.bytes
        )
        .join(dids, dids.c.id == arrivals.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(rses, rses.c.id == arrivals.c.rse_id)
        .where(arrivals.c.id.in_(ids))
        .order_by(arrivals.c.id)
    )
    return connection.execute(query).mappings().all()


CHANGES: Mapping[str, tuple[ArrivalState, ...]] = {
    "retry": (ArrivalState.FAILED, ArrivalState.PARKED, ArrivalState.PENDING, ArrivalState.RELEASED),
    "park": (ArrivalState.FAILED, ArrivalState.PENDING),
    "drop": (ArrivalState.FAILED, ArrivalState.PARKED, ArrivalState.PENDING),
}
"""States from which an arrival can be changed by hand, by action."""


def changeable(
    butler_id: int,
    action: str,
    conditions: Sequence[ColumnElement[bool]],
    after_id: int,
    limit: int,
    *,
    force: bool = False,
) -> Select[Any]:
    """Query for ids of arrivals that an action would change, by id.

    Parameters
    ----------
    force
        Drop, too, what the Butler may have.
    """
    found = (
        select(arrivals.c.id)
        .join(dids, dids.c.id == arrivals.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(rses, rses.c.id == arrivals.c.rse_id)
        .where(arrivals.c.butler_id == butler_id, arrivals.c.id > after_id)
        .where(arrivals.c.state.in_(CHANGES[action]), *conditions)
        .order_by(arrivals.c.id)
        .limit(limit)
    )
    return found if action != "drop" or force else found.where(arrivals.c.may_hold.is_(False))


def change(
    connection: Connection,
    action: str,
    ids: Sequence[int],
    *,
    reason: str,
    waits_for: str,
    wait_s: float,
    force: bool = False,
) -> int:
    """Change arrivals that may be; give how many."""
    every: dict[str, dict[str, Any]] = {
        "retry": {
            "state": ArrivalState.PENDING,
            "attempt": 0,
            "not_before": now(),
            "code": null(),
            "reason": null(),
            "waits_for": null(),
        },
        "park": {
            "state": ArrivalState.PARKED,
            "not_before": after(literal(wait_s)),
            "code": PARKED,
            "reason": reason,
            "waits_for": waits_for,
        },
        "drop": {
            "state": ArrivalState.RELEASED,
            "may_hold": false(),
            "code": DROPPED,
            "reason": reason,
            "waits_for": null(),
        },
    }
    statement = (
        update(arrivals)
        .where(arrivals.c.id.in_(ids), arrivals.c.state.in_(CHANGES[action]))
        .values(**every[action], fence=arrivals.c.fence + 1, updated_at=now())
    )
    if action == "drop" and not force:
        statement = statement.where(arrivals.c.may_hold.is_(False))
    return connection.execute(statement).rowcount


def prerequisites(connection: Connection, butler_id: int, limit: int) -> Sequence[Any]:
    """Give what parked arrivals wait for, and how many: ``waits_for`` and ``files``, the most wanted first."""
    query = (
        select(arrivals.c.waits_for, func.count().label("files"))
        .where(arrivals.c.butler_id == butler_id, _PARKED, arrivals.c.waits_for.is_not(None))
        .group_by(arrivals.c.waits_for)
        .order_by(func.count().desc(), arrivals.c.waits_for)
        .limit(limit)
    )
    return connection.execute(query).all()


def by_state(connection: Connection, butler_id: int) -> Sequence[Any]:
    """Count the arrivals of a Butler: ``state``, ``files``, ``oldest`` (when the first of them came)."""
    query = (
        select(arrivals.c.state, func.count().label("files"), func.min(arrivals.c.created_at).label("oldest"))
        .where(arrivals.c.butler_id == butler_id)
        .group_by(arrivals.c.state)
    )
    return connection.execute(query).all()


def by_reason(connection: Connection, butler_id: int, limit: int) -> Sequence[Any]:
    """Count what is not ingested by ``state`` and ``code``, the most frequent first, with one ``example``."""
    query = (
        select(
            arrivals.c.state,
            arrivals.c.code,
            func.count().label("files"),
            func.min(arrivals.c.reason).label("example"),
        )
        .where(
            arrivals.c.butler_id == butler_id,
            arrivals.c.state != ArrivalState.INGESTED,
            or_(arrivals.c.code.is_not(None), arrivals.c.state != ArrivalState.PENDING),
        )
        .group_by(arrivals.c.state, arrivals.c.code)
        .order_by(func.count().desc(), arrivals.c.state, arrivals.c.code)
        .limit(limit)
    )
    return connection.execute(query).all()


def last_ingests(connection: Connection, butler_id: int, limit: int) -> Sequence[Any]:
    """Give ``created_at`` and ``ingested_at`` of what was ingested last."""
    query = (
        select(arrivals.c.created_at, arrivals.c.ingested_at)
        .where(arrivals.c.butler_id == butler_id, arrivals.c.ingested_at.is_not(None))
        .order_by(arrivals.c.ingested_at.desc())
        .limit(limit)
    )
    return connection.execute(query).all()
