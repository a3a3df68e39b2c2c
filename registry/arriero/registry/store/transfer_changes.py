"""What is done to transfers by hand, by sets: having them be due now, and taking them back.

The caller has begun the transaction and holds the rules. Lock order: rules, replicas, requests (DESIGN section 11).
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    CompoundSelect,
    Connection,
    Integer,
    MetaData,
    RowMapping,
    Select,
    Table,
    Text,
    and_,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from arriero.registry.dialect import id_rows, rows_changed, use_temporary_table
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    accounts,
    locks,
    replicas,
    requests,
    rule_history,
    rules,
)
from arriero.registry.states import RESTING, LockState, ReplicaState, RequestState, RuleState
from arriero.registry.store.losses import LOST
from arriero.registry.store.rule_work import RETRY_NOW
from arriero.registry.store.rules import CANCELLED, note_taken_back

taken_back = Table(
    "taken_back",
    MetaData(),
    Column("request_id", BigInteger, primary_key=True, autoincrement=False),
    Column("file_id", BigInteger, nullable=False),
    Column("rse_id", Integer, nullable=False),
    Column("under_way", Boolean, nullable=False),
    prefixes=["TEMPORARY"],
)
"""Requests that are taken back."""

_OF_IT = and_(locks.c.file_id == taken_back.c.file_id, locks.c.rse_id == taken_back.c.rse_id)
_ON_ITS_PAIR = and_(locks.c.file_id == requests.c.file_id, locks.c.rse_id == requests.c.destination_id)
_WAITING = (RequestState.QUEUED, RequestState.SUBMITTED)


def hold_rules(connection: Connection, which: Sequence[ColumnElement[bool]]) -> Sequence[RowMapping]:
    """Hold the rules that have locks of some kind: ``id``, ``uuid``, ``state`` and ``account`` of each, by id.

    Parameters
    ----------
    which
        Conditions on ``locks``.
    """
    return _hold(connection, select(locks.c.rule_id).where(*which))


def _hold(connection: Connection, rule_ids: Select[Any] | CompoundSelect[Any]) -> Sequence[RowMapping]:
    query = (
        select(rules.c.id, rules.c.uuid, rules.c.state, accounts.c.name.label("account"))
        .join(accounts, accounts.c.id == rules.c.account_id)
        .where(rules.c.id.in_(rule_ids))
        .order_by(rules.c.id)
        .with_for_update(of=rules, key_share=True)
    )
    return connection.execute(query).mappings().all()


def make_due(connection: Connection, which: Sequence[ColumnElement[bool]], *, priority: int | None) -> int:
    """Have queued requests be due now, with all their attempts; give how many were not so already.

    Parameters
    ----------
    which
        Conditions on the ``locks`` that they are for.
    priority
        That they are to have at least; None: as they are.
    """
    behind = [requests.c.not_before > now(), requests.c.attempt > 0]
    values: dict[str, Any] = {"not_before": now(), "attempt": 0}
    if priority is not None:
        behind.append(requests.c.priority < priority)
        values["priority"] = case((requests.c.priority < priority, priority), else_=requests.c.priority)
    # what a worker is claiming at this moment needs nobody
    chosen = (
        select(requests.c.id)
        .where(
            requests.c.state == RequestState.QUEUED,
            or_(*behind),
            exists().where(_ON_ITS_PAIR, locks.c.state != LockState.OK, *which),
        )
        .order_by(requests.c.id)
        .with_for_update(of=requests, skip_locked=True)
    )
    return rows_changed(connection, update(requests).where(requests.c.id.in_(chosen)).values(**values))


def retry_locks(
    connection: Connection, rule_ids: Collection[int], which: Sequence[ColumnElement[bool]]
) -> tuple[int, list[int]]:
    """Have STUCK locks be tried again with the next look at their rules; give how many, and the rules.

    Parameters
    ----------
    rule_ids
        Rules that are held, and do not rest.
    which
        Conditions on ``locks``.
    """
    # nothing of a lost file can be tried
    stuck = (
        locks.c.rule_id.in_(id_rows(connection, sorted(rule_ids))),
        locks.c.state == LockState.STUCK,
        func.coalesce(locks.c.code, "") != LOST,
        *which,
    )
    counted = connection.execute(
        select(locks.c.rule_id, func.count().label("count")).where(*stuck).group_by(locks.c.rule_id)
    )
    found = {row.rule_id: int(row[1]) for row in counted}
    if found:
        connection.execute(update(locks).where(*stuck).values(code=RETRY_NOW))
    return sum(found.values()), sorted(found)


def take(
    connection: Connection,
    which: Sequence[ColumnElement[bool]],
    *,
    states: Collection[RequestState] = _WAITING,
) -> None:
    """Note the requests that are to be taken back.

    Parameters
    ----------
    which
        Conditions on ``requests``.
    """
    use_temporary_table(connection, taken_back)
    rows = select(
        requests.c.id,
        requests.c.file_id,
        requests.c.destination_id,
        requests.c.state == RequestState.SUBMITTED,
    ).where(requests.c.state.in_(states), *which)
    connection.execute(insert(taken_back).from_select(list(taken_back.c), rows))


def rules_concerned(connection: Connection) -> Sequence[RowMapping]:
    """Hold the rules that have locks on what was noted, or have asked for it, as `hold_rules` does."""
    on_it = select(locks.c.rule_id).join(taken_back, _OF_IT)
    asked = (
        select(requests.c.rule_id)
        .join(taken_back, taken_back.c.request_id == requests.c.id)
        .where(requests.c.rule_id.is_not(None))
    )
    return _hold(connection, on_it.union(asked))


def hold_what_was_noted(connection: Connection) -> None:
    """Hold the replicas, to which no lock can come from here on, and then the requests; forget those that have ended."""
    held = (
        select(replicas.c.file_id)
        .join(
            taken_back,
            and_(replicas.c.file_id == taken_back.c.file_id, replicas.c.rse_id == taken_back.c.rse_id),
        )
        .order_by(replicas.c.file_id, replicas.c.rse_id)
        .with_for_update(of=replicas)
    )
    connection.execute(select(func.count()).select_from(held.subquery())).all()
    live = (
        select(requests.c.id)
        .join(taken_back, taken_back.c.request_id == requests.c.id)
        .where(requests.c.state.in_(_WAITING))
        .order_by(requests.c.id)
        .with_for_update(of=requests)
    )
    connection.execute(select(func.count()).select_from(live.subquery())).all()
    # some have been claimed, given back or ended since they were noted
    state = select(requests.c.state == RequestState.SUBMITTED).where(
        requests.c.id == taken_back.c.request_id, requests.c.state.in_(_WAITING)
    )
    connection.execute(delete(taken_back).where(~exists(state.correlate(taken_back))))
    connection.execute(update(taken_back).values(under_way=state.scalar_subquery()))


def rules_with_locks(connection: Connection) -> frozenset[int]:
    """Ids of the rules that have locks on what was noted now."""
    return frozenset(connection.scalars(select(locks.c.rule_id).join(taken_back, _OF_IT).distinct()))


def leave_to_others(connection: Connection, rule_id: int, *, queued_only: bool) -> int:
    """Forget what rules other than one want too, and what has begun meanwhile; give how many others want.

    Parameters
    ----------
    rule_id
        The rule whose requests are taken back.
    queued_only
        What has begun goes on.
    """
    if queued_only:
        connection.execute(delete(taken_back).where(taken_back.c.under_way))
    others = exists().where(_OF_IT, locks.c.rule_id != rule_id)
    return rows_changed(connection, delete(taken_back).where(others))


def noted(connection: Connection) -> tuple[int, int]:
    """How many requests are noted that wait in the queue, and that are under way."""
    rows = connection.execute(
        select(taken_back.c.under_way, func.count().label("count")).group_by(taken_back.c.under_way)
    )
    found = {bool(row.under_way): int(row[1]) for row in rows}
    return found.get(False, 0), found.get(True, 0)


def end_them(connection: Connection, reason: str) -> None:
    """End what was noted: in the history, and for its locks and replicas; whoever copies it loses its lease.

    A request that rules want stays, FAILED: the fence goes on, so that what an attempt has left is found by the next one.
    """
    of_it = requests.c.id.in_(select(taken_back.c.request_id))
    note_taken_back(connection, of_it, reason)
    wanted = exists().where(_ON_ITS_PAIR, locks.c.state != LockState.OK)
    connection.execute(delete(requests).where(of_it, ~wanted))
    connection.execute(
        update(requests)
        .where(of_it)
        .values(
            state=RequestState.FAILED,
            fence=requests.c.fence + 1,
            lease_owner=null(),
            lease_until=null(),
            code=CANCELLED,
            reason=reason,
        )
    )
    connection.execute(
        update(replicas)
        .where(
            replicas.c.state == ReplicaState.COPYING,
            replicas.c.file_id == taken_back.c.file_id,
            replicas.c.rse_id == taken_back.c.rse_id,
        )
        .values(state=ReplicaState.UNAVAILABLE, code=CANCELLED, reason=reason, updated_at=now())
    )


def stop_locks(connection: Connection, reason: str, *, account: str) -> list[int]:
    """Have the waiting locks on what was noted STUCK, with the counts, states and history of their rules; give the rules.

    Parameters
    ----------
    reason
        Who has taken their copies back, when and why.
    account
        Who.
    """
    per_rule = (
        select(locks.c.rule_id, func.count().label("count"))
        .join(taken_back, _OF_IT)
        .where(locks.c.state == LockState.REPLICATING)
        .group_by(locks.c.rule_id)
        .subquery("per_rule")
    )
    concerned = sorted(connection.scalars(select(per_rule.c.rule_id)))
    if not concerned:
        return []
    chosen = rules.c.id.in_(id_rows(connection, concerned))
    past = select(
        rules.c.uuid,
        now(),
        literal(account),
        cast(rules.c.state, Text),
        case(
            (rules.c.state == RuleState.REPLICATING, RuleState.STUCK.value), else_=cast(rules.c.state, Text)
        ),
        literal(CANCELLED),
        literal(reason),
    ).where(chosen)
    columns = ["rule_uuid", "at", "account", "from_state", "to_state", "code", "reason"]
    connection.execute(insert(rule_history).from_select(columns, past, include_defaults=False))
    # what else a STUCK rule says stays said; whoever evaluates or rests it decides about its state
    begins = rules.c.state == RuleState.REPLICATING
    connection.execute(
        update(rules)
        .where(rules.c.id == per_rule.c.rule_id)
        .values(
            locks_replicating=rules.c.locks_replicating - per_rule.c.count,
            locks_stuck=rules.c.locks_stuck + per_rule.c.count,
            state=case((begins, RuleState.STUCK.value), else_=cast(rules.c.state, Text)),
            code=case((begins, CANCELLED), else_=rules.c.code),
            reason=case((begins, reason), else_=rules.c.reason),
            stuck_at=case((begins, now()), else_=rules.c.stuck_at),
            stuck_since=case((begins, func.coalesce(rules.c.stuck_since, now())), else_=rules.c.stuck_since),
            updated_at=now(),
        )
    )
    connection.execute(
        update(locks)
        .where(_OF_IT, locks.c.state == LockState.REPLICATING)
        .values(state=LockState.STUCK, code=CANCELLED, reason=reason)
    )
    resting = select(rules.c.id).where(chosen, rules.c.state.in_(RESTING))
    rests = set(connection.scalars(resting))
    return [rule_id for rule_id in concerned if rule_id not in rests]
