"""How far each sender of events has come, which process may send, and which events may be sent already.

Ids are given before a transaction commits, so an event may come to light below one that was seen before. A sender goes
up to an id only when every transaction that may still bring one below it has ended.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, or_, select, text, update

from arriero.registry.dialect import insert_into, is_postgresql
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import event_senders, events


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to send, until the lease ends or another fence is given."""

    position: int
    fence: int


def newest(connection: Connection) -> int:
    """The highest id of an event that is there; 0 when there is none."""
    return connection.scalar(select(func.max(events.c.id))) or 0


def writers(connection: Connection) -> frozenset[str]:
    """The transactions under way that may have written events; asked after `newest`, those that may bring one below it.

    Whoever inserts holds this lock from before it is given an id until it has ended. On SQLite one transaction writes at a
    time, and what a reader sees is all there is.
    """
    if not is_postgresql(connection):
        return frozenset()
    return frozenset(connection.scalars(_WRITERS))


_WRITERS = text(
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted AND mode = 'RowExclusiveLock' "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND relation = 'events'::regclass AND pid IS DISTINCT FROM pg_backend_pid()"
)


def add(connection: Connection, name: str, position: int) -> None:
    """Have a sender of a name, from a position on; one that is there keeps its own."""
    row = {"name": name, "position": position, "fence": 0, "created_at": now(), "updated_at": now()}
    connection.execute(insert_into(connection, event_senders).values(row).on_conflict_do_nothing())


def claim(connection: Connection, name: str, owner: str, lease_s: float) -> Turn | None:
    """Take or extend the right to send; None while another process has it.

    Parameters
    ----------
    owner
        Of this process alone.
    """
    here = event_senders.c.name == name
    row = connection.execute(select(event_senders).where(here).with_for_update()).one()
    mine = row.owner == owner
    taken = (
        update(event_senders)
        .where(here, or_(event_senders.c.owner == owner, event_senders.c.leased_until.is_(None), _run_out))
        .values(owner=owner, fence=row.fence if mine else row.fence + 1, leased_until=after(lease_s))
        .returning(event_senders.c.position, event_senders.c.fence)
    )
    found = connection.execute(taken).first()
    return None if found is None else Turn(found.position, found.fence)


_run_out = event_senders.c.leased_until < now()


def mark(connection: Connection, name: str, turn: Turn, position: int) -> bool:
    """Say that events up to an id are dealt with; False when another process has the right to send by now."""
    moved = (
        update(event_senders)
        .where(event_senders.c.name == name, event_senders.c.fence == turn.fence)
        .where(event_senders.c.owner.is_not(None))
        .values(position=position, updated_at=now())
    )
    return connection.execute(moved).rowcount == 1


def release(connection: Connection, name: str, turn: Turn) -> None:
    """Let another process send at once."""
    connection.execute(
        update(event_senders)
        .where(event_senders.c.name == name, event_senders.c.fence == turn.fence)
        .values(owner=None, leased_until=None)
    )


def following(
    connection: Connection, position: int, upto: int, event_types: Collection[str], limit: int
) -> Sequence[Any]:
    """Events of some types after one id and up to another, in their order."""
    query = (
        select(events)
        .where(events.c.id > position, events.c.id <= upto, events.c.event_type.in_(sorted(event_types)))
        .order_by(events.c.id)
        .limit(limit)
    )
    return connection.execute(query).all()


def overview(connection: Connection) -> list[dict[str, Any]]:
    """All senders: how far they are, what waits behind that, who sends."""
    waiting = select(func.count()).where(events.c.id > event_senders.c.position).scalar_subquery()
    query = select(
        event_senders.c.name,
        event_senders.c.position,
        waiting.label("behind"),
        event_senders.c.owner,
        event_senders.c.leased_until,
        event_senders.c.updated_at,
    ).order_by(event_senders.c.name)
    return [dict(row) for row in connection.execute(query).mappings()]
