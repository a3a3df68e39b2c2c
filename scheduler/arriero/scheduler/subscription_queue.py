"""The queue of DIDs that subscriptions have to look at: take a batch, hold it, give it back.

A batch that is held is due again when its lease is over, so nothing has to take it back from a dead worker; its owner's
name, which no other claim ever has, decides whose end counts.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Connection,
    Float,
    Integer,
    bindparam,
    case,
    delete,
    insert,
    literal,
    null,
    select,
    update,
)

from arriero.registry.dialect import id_rows
from arriero.registry.schema.base import AT_THIS_MOMENT, after, now
from arriero.registry.schema.tables import subscription_items
from arriero.scheduler.errors import LeaseLost

PAGE_DIDS = 1000
"""DIDs that one batch looks at."""

PAGE_AGAIN_DIDS = 50
"""And those that have been looked at in vain: so few that each of them can be tried alone."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that this worker holds."""

    owner: str
    ids: tuple[int, ...]
    subscription_id: int | None
    """None: all subscriptions look."""
    again: bool
    attempt: int
    """How often they have been taken, from 1."""
    did_ids: tuple[int, ...]
    """Of single DIDs; empty for a range."""
    span: tuple[int, int] | None
    """The first and the last id of a range."""
    limit: int
    """DIDs to look at."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What could not be done for a DID and a subscription: it is tried again."""

    subscription_id: int
    did_id: int
    code: str
    reason: str


def claim(connection: Connection, worker: str, *, lease_s: float, page: int = PAGE_DIDS) -> Batch | None:
    """Take what has been due longest and goes together: single DIDs, or a page of a range.

    Parameters
    ----------
    worker
        Who takes it.
    lease_s
        How long it is held, seconds.
    page
        Most DIDs.

    Returns
    -------
    Batch or None
        None when nothing is due. The attempt is counted now: what kills its worker is counted too.
    """
    items = subscription_items.c
    due = connection.execute(
        select(subscription_items)
        .where(items.not_before <= AT_THIS_MOMENT)
        .order_by(items.not_before, items.id)
        .limit(page)
        .with_for_update(skip_locked=True)
    ).all()
    if not due:
        return None
    head = due[0]
    limit = page if head.attempt == 0 else min(page, PAGE_AGAIN_DIDS)
    span = (head.first_did_id, head.last_did_id) if head.first_did_id != head.last_did_id else None
    kind = (head.subscription_id, head.again, head.attempt > 0)
    together = [
        row
        for row in due
        if row.first_did_id == row.last_did_id and (row.subscription_id, row.again, row.attempt > 0) == kind
    ]
    chosen = [head] if span is not None else together[:limit]
    owner = f"{worker}/{uuid.uuid4().hex[:12]}"
    ids = tuple(sorted(row.id for row in chosen))
    connection.execute(
        update(subscription_items)
        .where(items.id.in_(id_rows(connection, ids)))
        .values(attempt=items.attempt + 1, lease_owner=owner, not_before=after(literal(lease_s)))
    )
    return Batch(
        owner=owner,
        ids=ids,
        subscription_id=head.subscription_id,
        again=head.again,
        attempt=max(row.attempt for row in chosen) + 1,
        did_ids=() if span is not None else tuple(sorted({row.first_did_id for row in chosen})),
        span=span,
        limit=limit,
    )


def finish(connection: Connection, batch: Batch, *, looked_to: int | None) -> None:
    """End a batch; a range that is not at its end is due again, behind what waits now.

    Parameters
    ----------
    looked_to
        Id of the last DID that was looked at in a range; None when all of it was.

    Raises
    ------
    LeaseLost
        Another worker has it.
    """
    items = subscription_items.c
    mine = (items.id.in_(id_rows(connection, batch.ids)), items.lease_owner == batch.owner)
    if looked_to is None:
        done = connection.execute(delete(subscription_items).where(*mine)).rowcount
    else:
        last = items.last_did_id
        done = connection.execute(
            update(subscription_items)
            .where(*mine)
            .values(
                # a range of one would be taken for a single DID, which is what it is then
                first_did_id=case((last <= looked_to, last), else_=literal(looked_to + 1, BigInteger)),
                attempt=0,
                lease_owner=null(),
                not_before=now(),
            )
        ).rowcount
    if done != len(batch.ids):
        raise LeaseLost(f"{len(batch.ids)} items of subscriptions are another worker's by now")


def put_back(connection: Connection, batch: Batch, *, wait_s: float, code: str, reason: str) -> None:
    """Give a batch up after an error; the attempts go on counting."""
    items = subscription_items.c
    connection.execute(
        update(subscription_items)
        .where(items.id.in_(id_rows(connection, batch.ids)), items.lease_owner == batch.owner)
        .values(
            lease_owner=null(),
            not_before=after(literal(wait_s)),
            code=code,
            reason=reason[:1000],
        )
    )


_COLUMNS = [
    "subscription_id",
    "first_did_id",
    "last_did_id",
    "again",
    "attempt",
    "not_before",
    "code",
    "reason",
    "created_at",
]


def _attempt_of(batch: Batch) -> int:
    """Attempts go on counting where the batch was the subscription's own."""
    return batch.attempt if batch.subscription_id is not None else 1


def try_again(
    connection: Connection, batch: Batch, failed: Sequence[Failed], *, wait_s: Callable[[Failed], float]
) -> None:
    """Note what failed, each DID for its subscription, in one statement.

    Parameters
    ----------
    batch
        Of which it was.
    wait_s
        When each is tried again, seconds.
    """
    rows = [
        {
            "subscription_id": one.subscription_id,
            "first_did_id": one.did_id,
            "last_did_id": one.did_id,
            "again": batch.again,
            "attempt": _attempt_of(batch),
            "wait_s": wait_s(one),
            "code": one.code[:64],
            "reason": one.reason[:1000],
        }
        for one in failed
    ]
    if rows:
        due = after(bindparam("wait_s", type_=Float))
        connection.execute(insert(subscription_items).values(not_before=due), rows)


def hand_over(
    connection: Connection,
    batch: Batch,
    subscription_id: int,
    *,
    looked_to: int | None,
    wait_s: float,
    code: str,
    reason: str,
) -> None:
    """Note all that a batch looked at for one subscription, which could look at nothing.

    Parameters
    ----------
    looked_to
        As of `finish`, which is called after it.
    """
    items = subscription_items.c
    rows = select(
        literal(subscription_id, BigInteger),
        items.first_did_id,
        items.last_did_id if looked_to is None else literal(looked_to, BigInteger),
        literal(batch.again),
        literal(_attempt_of(batch), Integer),
        after(literal(wait_s)),
        literal(code[:64]),
        literal(reason[:1000]),
        now(),
    ).where(items.id.in_(id_rows(connection, batch.ids)), items.lease_owner == batch.owner)
    connection.execute(insert(subscription_items).from_select(_COLUMNS, rows, include_defaults=False))


def is_due(connection: Connection) -> bool:
    """Whether anything is due now."""
    found = select(subscription_items.c.id).where(subscription_items.c.not_before <= AT_THIS_MOMENT).limit(1)
    return connection.scalar(found) is not None
