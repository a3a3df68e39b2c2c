"""Rules and their history in the database, and taking a rule away by sets."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Subquery,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    select,
    tuple_,
    update,
)

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    accounts,
    dataset_locks,
    dids,
    evaluation_items,
    evaluations,
    locks,
    replicas,
    request_history,
    requests,
    rule_history,
    rules,
    scopes,
    subscriptions,
    unplaced_groups,
)
from arriero.registry.states import ReplicaState, RequestState

_CHILD = rules.alias("child")

CANCELLED = "cancelled"
"""Code of a request that was ended before its copy began."""

NO_RULE = "no_rule"
NO_RULE_REASON = "no rule wants this copy any more"
"""Code and sentence of a replica that is not to come because nobody asks for it."""


def rule_query() -> Select[Any]:
    """Query for rules with the names of what they point at, in the order of their ids."""
    return (
        select(
            rules,
            scopes.c.name.label("scope"),
            dids.c.name.label("name"),
            dids.c.type.label("did_type"),
            dids.c.bytes.label("did_bytes"),
            accounts.c.name.label("account"),
            _CHILD.c.uuid.label("child_uuid"),
            subscriptions.c.uuid.label("subscription_uuid"),
        )
        .join(dids, dids.c.id == rules.c.did_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(accounts, accounts.c.id == rules.c.account_id)
        .outerjoin(_CHILD, _CHILD.c.id == rules.c.child_rule_id)
        .outerjoin(subscriptions, subscriptions.c.id == rules.c.subscription_id)
        .order_by(rules.c.id)
    )


def rule_row(connection: Connection, uuid: UUID, *, lock: bool = False) -> RowMapping | None:
    """A rule with the names of what it points at, None when there is none."""
    if lock:
        # by itself: who waits for the row sees what became of it, and of what it points at
        connection.execute(select(rules.c.id).where(rules.c.uuid == uuid).with_for_update()).all()
    return connection.execute(rule_query().where(rules.c.uuid == uuid)).mappings().one_or_none()


def ids_of(connection: Connection, uuids: Collection[UUID]) -> list[int]:
    """Ids of rules."""
    return list(connection.scalars(select(rules.c.id).where(rules.c.uuid.in_(uuids)).order_by(rules.c.id)))


def duplicates(
    connection: Connection, did_ids: Collection[int], account_id: int, expression: str, copies: int
) -> list[int]:
    """Those of some DIDs on which an account has that rule already, by id."""
    query = select(rules.c.did_id).where(
        rules.c.did_id.in_(did_ids),
        rules.c.account_id == account_id,
        rules.c.rse_expression == expression,
        rules.c.copies == copies,
    )
    return sorted(connection.scalars(query))


def known_uuids(connection: Connection, uuids: Collection[UUID]) -> list[UUID]:
    """Those of some ids that rules have or had."""
    there = select(rules.c.uuid).where(rules.c.uuid.in_(uuids))
    gone = select(rule_history.c.rule_uuid).where(rule_history.c.rule_uuid.in_(uuids))
    return list(connection.scalars(there.union(gone)))


def insert_rules(connection: Connection, values: Mapping[str, Any], keys: Sequence[tuple[UUID, int]]) -> None:
    """Insert the same rule on several DIDs, in one statement.

    Parameters
    ----------
    values
        What the rules have in common.
    keys
        Pairs of a rule's uuid and its DID.
    """
    expressions = {key: value for key, value in values.items() if isinstance(value, ClauseElement)}
    plain = {key: value for key, value in values.items() if key not in expressions}
    rows = [{**plain, "uuid": uuid, "did_id": did_id} for uuid, did_id in keys]
    connection.execute(insert(rules).values(**expressions) if expressions else insert(rules), rows)


def update_rule(connection: Connection, rule_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a rule."""
    connection.execute(update(rules).where(rules.c.id == rule_id).values(**values))


def set_of_requests(connection: Connection, rule_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of the requests of a rule: ``priority`` and ``activity``."""
    held = select(locks.c.file_id, locks.c.rse_id).where(locks.c.rule_id == rule_id)
    connection.execute(
        update(requests)
        .where(requests.c.rule_id == rule_id, tuple_(requests.c.file_id, requests.c.destination_id).in_(held))
        .values(**values)
    )


def one_expired(connection: Connection, *, skip: frozenset[int] = frozenset()) -> RowMapping | None:
    """Lock a rule whose lifetime is over and that nobody else is taking away; None when there is none."""
    query = (
        rule_query()
        .where(rules.c.expires_at < now(), ~rules.c.locked, rules.c.child_rule_id.is_(None))
        .limit(1)
        .with_for_update(of=rules, skip_locked=True)
    )
    if skip:
        query = query.where(rules.c.id.not_in(skip))
    return connection.execute(query).mappings().one_or_none()


def only_of(rule_id: int) -> Subquery:
    """What a rule locks and no other does: columns ``file_id``, ``rse_id`` and ``bytes``."""
    other = locks.alias("other")
    shared = exists().where(
        other.c.file_id == locks.c.file_id,
        other.c.rse_id == locks.c.rse_id,
        other.c.rule_id != rule_id,
    )
    mine = select(locks.c.file_id, locks.c.rse_id, locks.c.bytes)
    return mine.where(locks.c.rule_id == rule_id, ~shared).subquery()


def lock_replicas_of(connection: Connection, rule_id: int) -> None:
    """Lock the replicas that a rule holds, so that what other rules hold of them stays as it is."""
    held = (
        select(replicas.c.file_id)
        .join(locks, and_(locks.c.file_id == replicas.c.file_id, locks.c.rse_id == replicas.c.rse_id))
        .where(locks.c.rule_id == rule_id)
        .order_by(replicas.c.file_id, replicas.c.rse_id)
        .with_for_update(of=replicas)
        .subquery()
    )
    connection.execute(select(func.count()).select_from(held)).all()


def release_replicas(connection: Connection, rule_id: int, *, purge: bool) -> int:
    """Mark the replicas that only this rule held as held by nobody; give how many.

    One whose copy has not begun becomes UNAVAILABLE. One that is being copied stays COPYING until the copy has ended:
    its bytes must not become unknown. Nothing is deleted.
    """
    mine = only_of(rule_id)
    not_begun = and_(
        replicas.c.state == ReplicaState.COPYING,
        exists().where(
            requests.c.file_id == replicas.c.file_id,
            requests.c.destination_id == replicas.c.rse_id,
            requests.c.state != RequestState.SUBMITTED,
        ),
    )
    statement = (
        update(replicas)
        .where(tuple_(replicas.c.file_id, replicas.c.rse_id).in_(select(mine.c.file_id, mine.c.rse_id)))
        .values(
            tombstone=func.coalesce(replicas.c.tombstone, now()),
            purge=literal(True) if purge else replicas.c.purge,
            state=case((not_begun, ReplicaState.UNAVAILABLE.value), else_=replicas.c.state),
            code=case((not_begun, NO_RULE), else_=replicas.c.code),
            reason=case((not_begun, NO_RULE_REASON), else_=replicas.c.reason),
            updated_at=now(),
        )
    )
    return connection.execute(statement).rowcount


def cancel_requests(connection: Connection, rule_id: int) -> None:
    """End the requests that only this rule wanted, in the history; hand those that others want too to one of them.

    What is being copied ends by itself.
    """
    mine = only_of(rule_id)
    wanted = and_(
        tuple_(requests.c.file_id, requests.c.destination_id).in_(select(mine.c.file_id, mine.c.rse_id)),
        requests.c.state != RequestState.SUBMITTED,
    )
    end_requests(connection, wanted, NO_RULE_REASON)
    heir = (
        select(func.min(locks.c.rule_id))
        .where(
            locks.c.file_id == requests.c.file_id,
            locks.c.rse_id == requests.c.destination_id,
            locks.c.rule_id != rule_id,
        )
        .scalar_subquery()
    )
    held = select(locks.c.file_id, locks.c.rse_id).where(locks.c.rule_id == rule_id)
    connection.execute(
        update(requests)
        .where(requests.c.rule_id == rule_id, tuple_(requests.c.file_id, requests.c.destination_id).in_(held))
        .values(rule_id=heir)
    )


def end_requests(connection: Connection, which: ColumnElement[bool], reason: str) -> None:
    """End requests that nobody is working on, in the history."""
    note_taken_back(connection, which, reason)
    connection.execute(delete(requests).where(which))


def note_taken_back(connection: Connection, which: ColumnElement[bool], reason: str) -> None:
    """Write into the history that requests are taken back."""
    kept = [
        "file_id",
        "source_id",
        "destination_id",
        "rule_id",
        "attempt",
        "bytes",
        "created_at",
        "started_at",
    ]
    ended = select(
        now(),
        requests.c.id,
        literal(RequestState.FAILED.value),
        literal(CANCELLED),
        literal(reason),
        *(requests.c[name] for name in kept),
    ).where(which)
    connection.execute(
        insert(request_history).from_select(["at", "request_id", "state", "code", "reason", *kept], ended)
    )


def delete_rule(connection: Connection, rule_id: int) -> None:
    """Delete a rule with its locks, placements and evaluation."""
    connection.execute(delete(locks).where(locks.c.rule_id == rule_id))
    connection.execute(delete(dataset_locks).where(dataset_locks.c.rule_id == rule_id))
    connection.execute(delete(unplaced_groups).where(unplaced_groups.c.rule_id == rule_id))
    # the row first: who claims the evaluation at this moment adds items to it
    connection.execute(delete(evaluations).where(evaluations.c.rule_id == rule_id))
    connection.execute(delete(evaluation_items).where(evaluation_items.c.rule_id == rule_id))
    connection.execute(update(rules).where(rules.c.child_rule_id == rule_id).values(child_rule_id=null()))
    connection.execute(delete(rules).where(rules.c.id == rule_id))
