"""How RSEs are: whether they are open, who has closed them and why, whether they are up, and how deletion stands there."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, exists, literal, null, or_, select, update

from arriero.registry.dialect import insert_into, rows_changed
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import (
    accounts,
    requests,
    rse_abilities,
    rse_deletions,
    rse_health,
    rse_pauses,
    rses,
)
from arriero.registry.states import BreakerState, RequestState, RseOperation

FLAGS = {
    RseOperation.READ: rses.c.availability_read,
    RseOperation.WRITE: rses.c.availability_write,
    RseOperation.DELETE: rses.c.availability_delete,
}
"""That an RSE is closed say these; who has closed it says ``rse_pauses``."""


def health_query() -> Select[Any]:
    """Query for the health of all RSEs, in the order of their names."""
    return (
        select(
            rses.c.id,
            rses.c.name.label("rse"),
            *(flag for flag in FLAGS.values()),
            rse_health.c.breaker,
            rse_health.c.failures,
            rse_health.c.opened_at,
            rse_health.c.retry_at,
            rse_health.c.code,
            rse_health.c.reason,
            rse_deletions.c.not_before.label("deletion_not_before"),
            rse_deletions.c.code.label("deletion_code"),
            rse_deletions.c.reason.label("deletion_reason"),
        )
        .outerjoin(rse_health, rse_health.c.rse_id == rses.c.id)
        .outerjoin(rse_deletions, rse_deletions.c.rse_id == rses.c.id)
        .where(rses.c.deleted_at.is_(None))
        .order_by(rses.c.name)
    )


def abilities_query() -> Select[Any]:
    """Query for what storages were found to be able to do."""
    return select(rse_abilities).order_by(rse_abilities.c.rse_id, rse_abilities.c.origin)


def keep_abilities(connection: Connection, found: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
    """Write down what storages were found to be able to do just now.

    Parameters
    ----------
    found
        By RSE name and origin; an RSE that has gone meanwhile is passed over.
    """
    names = sorted({rse for rse, _ in found})
    query = select(rses.c.name, rses.c.id).where(rses.c.name.in_(names), rses.c.deleted_at.is_(None))
    ids = {row.name: row.id for row in connection.execute(query)}
    rows = [
        {"rse_id": ids[rse], "origin": origin, "abilities": dict(found[rse, origin]), "probed_at": now()}
        for rse, origin in sorted(found)
        if rse in ids
    ]
    if not rows:
        return
    statement = insert_into(connection, rse_abilities).values(rows)
    said = {name: statement.excluded[name] for name in ("abilities", "probed_at")}
    connection.execute(statement.on_conflict_do_update(index_elements=["rse_id", "origin"], set_=said))


def recent_abilities(connection: Connection, within_s: float) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Read what storages were found to be able to do of late, by RSE name and origin."""
    rows = connection.execute(
        select(rses.c.name, rse_abilities.c.origin, rse_abilities.c.abilities)
        .join(rses, rses.c.id == rse_abilities.c.rse_id)
        .where(rse_abilities.c.probed_at > after(-within_s))
    )
    return {(row.name, row.origin): row.abilities for row in rows}


def pause_query() -> Select[Any]:
    """Query for who has closed which RSE for what."""
    return (
        select(rse_pauses, accounts.c.name.label("account"))
        .outerjoin(accounts, accounts.c.id == rse_pauses.c.account_id)
        .order_by(rse_pauses.c.rse_id, rse_pauses.c.operation)
    )


def pause(
    connection: Connection,
    rse_id: int,
    operations: Collection[RseOperation],
    *,
    account_id: int,
    reason: str | None,
) -> None:
    """Write down who closes an RSE; one that was closed before stays so, unless there is a new reason."""
    rows = [
        {"rse_id": rse_id, "operation": one, "account_id": account_id, "reason": reason, "created_at": now()}
        for one in sorted(operations)
    ]
    statement = insert_into(connection, rse_pauses).values(rows)
    if reason is None:
        connection.execute(statement.on_conflict_do_nothing())
        return
    said = {name: statement.excluded[name] for name in ("account_id", "reason", "created_at")}
    connection.execute(statement.on_conflict_do_update(index_elements=["rse_id", "operation"], set_=said))


def forget_pauses(connection: Connection) -> None:
    """Forget who had closed what is open."""
    is_open = or_(*(and_(rse_pauses.c.operation == one, flag) for one, flag in FLAGS.items()))
    connection.execute(
        delete(rse_pauses).where(
            exists(select(literal(1)).select_from(rses).where(rses.c.id == rse_pauses.c.rse_id, is_open))
        )
    )


def close_breaker(connection: Connection, rse_id: int) -> bool:
    """Have an RSE count as up; False when it did."""
    done = connection.execute(
        update(rse_health)
        .where(
            rse_health.c.rse_id == rse_id,
            or_(rse_health.c.breaker != BreakerState.CLOSED, rse_health.c.failures > 0),
        )
        .values(
            breaker=BreakerState.CLOSED,
            failures=0,
            opened_at=null(),
            retry_at=null(),
            code=null(),
            reason=null(),
            updated_at=now(),
        )
    )
    return done.rowcount == 1


def look_at_what_waits(connection: Connection, rse_id: int, codes: Collection[str], busy: str) -> int:
    """Have the requests be due that may wait for an RSE to be up again; give how many.

    Parameters
    ----------
    codes
        Of those that go there and failed because it is down.
    busy
        Code of those that wait for a source, wherever they go: which source, is not known.
    """
    chosen = (
        select(requests.c.id)
        .where(
            requests.c.state == RequestState.QUEUED,
            requests.c.not_before > now(),
            or_(
                requests.c.code == busy,
                and_(requests.c.destination_id == rse_id, requests.c.code.in_(codes)),
            ),
        )
        .order_by(requests.c.id)
        .with_for_update(skip_locked=True)
    )
    return rows_changed(
        connection, update(requests).where(requests.c.id.in_(chosen)).values(not_before=now())
    )
