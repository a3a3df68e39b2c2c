"""Which DIDs subscriptions have to look at: noted in the transaction of the change, where any subscription cares.

Rows are only added here and taken by the worker that has looked, so nobody waits for anybody (docs/adr/0017). Each
function is one statement, and finds nothing to do where no subscription is active.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Select,
    and_,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from arriero.registry.dialect import id_rows, wait_for_writers
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import did_meta, dids, scopes, subscription_items, subscriptions
from arriero.registry.states import DidType, SubscriptionState
from arriero.registry.store.contents import everything_below
from arriero.registry.store.did_sets import staged_dids
from arriero.registry.store.staging import staged_files

LIVE = (SubscriptionState.ACTIVE, SubscriptionState.BROKEN)
"""States in which a subscription is applied, or would be if it could."""

_COLUMNS = [
    "subscription_id",
    "first_did_id",
    "last_did_id",
    "again",
    "attempt",
    "not_before",
    "created_at",
]


def live(*, with_files: bool = False) -> ColumnElement[bool]:
    """Whether any subscription is applied; with ``with_files``, any that takes files."""
    found = exists().where(subscriptions.c.state.in_(LIVE))
    return found.where(subscriptions.c.wants_files) if with_files else found


def _note(
    connection: Connection,
    ids: FromClause,
    *,
    subscription_id: int | None = None,
    again: bool = False,
) -> bool:
    """Add an item for each row of first and last ids; False when there was none."""
    first, last = ids.c
    whose: ColumnElement[Any] = null() if subscription_id is None else literal(subscription_id, BigInteger)
    rows = select(whose, first, last, literal(again), literal(0, Integer), now(), now()).where(
        last.is_not(None)
    )
    return (
        connection.execute(
            insert(subscription_items).from_select(_COLUMNS, rows, include_defaults=False),
            execution_options={"preserve_rowcount": True},
        ).rowcount
        > 0
    )


def _each(did_id: ColumnElement[int]) -> FromClause:
    """Those DIDs of ``did_id`` that a subscription may take."""
    taken = or_(dids.c.type != DidType.FILE, live(with_files=True))
    return (
        select(dids.c.id.label("first"), dids.c.id.label("last"))
        .where(dids.c.id == did_id, live(), taken)
        .distinct()
        .subquery("noted")
    )


def note_staged_dids(connection: Connection, *, below: bool = False) -> bool:
    """Note the staged DIDs: they are new, or their metadata has changed.

    Parameters
    ----------
    below
        Also everything below them.

    Returns
    -------
    bool
        Whether anybody has to look.
    """
    if not below:
        return _note(connection, _each(staged_dids.c.did_id))
    roots = select(staged_dids.c.did_id.label("id"), staged_dids.c.did_id.label("root")).subquery("roots")
    tree = everything_below(roots).subquery("tree")
    return _note(connection, _each(tree.c.id))


def note_dids(connection: Connection, ids: Collection[int], *, again: bool = False) -> bool:
    """Note some DIDs; as `note_staged_dids`.

    Parameters
    ----------
    again
        Subscriptions that were applied to them before are applied once more.
    """
    chosen = id_rows(connection, sorted(ids)).subquery("chosen")
    return _note(connection, _each(chosen.c.id), again=again)


def note_files_between(connection: Connection, file_ids: range) -> bool:
    """Note new files by their ids, in one row however many; ids of others may be among them."""
    one = select(
        literal(file_ids.start, BigInteger).label("first"),
        literal(file_ids.stop - 1, BigInteger).label("last"),
    )
    return _note(connection, one.where(live(with_files=True)).subquery("noted"))


def note_staged_files(connection: Connection) -> bool:
    """Note the staged files, of which some are new."""
    found = select(staged_files.c.file_id.label("first"), staged_files.c.file_id.label("last"))
    return _note(connection, found.where(live(with_files=True)).subquery("noted"))


def wait_for_registrations(connection: Connection) -> None:
    """Wait for those who change DIDs and have not seen yet that there is a subscription, and hold off new ones.

    Call it first in the transaction that makes a subscription active, so that no DID falls between: what was
    committed before is the past, what comes after is noted.
    """
    for table in (dids, did_meta):
        wait_for_writers(connection, table)


def note_past(connection: Connection, subscription_id: int) -> None:
    """Have a subscription look at every DID that there is, from the first on.

    Parameters
    ----------
    connection
        After `wait_for_registrations`.
    """
    forget(connection, subscription_id, walks=True)
    everything = select(literal(1, BigInteger).label("first"), func.max(dids.c.id).label("last"))
    _note(connection, everything.subquery("noted"), subscription_id=subscription_id, again=True)


def wake(connection: Connection, subscription_id: int) -> None:
    """Have what waits for a subscription tried now: it was corrected."""
    connection.execute(
        update(subscription_items)
        .where(
            subscription_items.c.subscription_id == subscription_id,
            subscription_items.c.lease_owner.is_(None),
        )
        .values(not_before=now(), attempt=0)
    )


def forget(connection: Connection, subscription_id: int, *, walks: bool = False) -> None:
    """Take away what waits for a subscription.

    Parameters
    ----------
    walks
        Only its walks over the past.
    """
    items = subscription_items.c
    is_walk = and_(items.again, items.first_did_id != items.last_did_id) if walks else ~false()
    connection.execute(delete(subscription_items).where(items.subscription_id == subscription_id, is_walk))


def waiting(subscription_id: int) -> Select[Any]:
    """Query for what waits for a subscription, the next first; ``scope`` and ``name`` where it is one DID."""
    items = subscription_items.c
    return (
        select(
            scopes.c.name.label("scope"),
            dids.c.name,
            items.first_did_id,
            items.last_did_id,
            items.attempt,
            items.not_before,
            items.code,
            items.reason,
            items.created_at,
        )
        .select_from(subscription_items)
        .outerjoin(dids, and_(dids.c.id == items.first_did_id, items.first_did_id == items.last_did_id))
        .outerjoin(scopes, scopes.c.id == dids.c.scope_id)
        .where(items.subscription_id == subscription_id)
        .order_by(items.not_before, items.id)
    )
