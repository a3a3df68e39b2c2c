"""What the database knows of why a rule is as it is: each question one statement, whatever the number of files."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    func,
    literal,
    null,
    or_,
    select,
    tuple_,
)

from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import (
    dataset_locks,
    dids,
    evaluation_items,
    evaluations,
    locks,
    request_history,
    requests,
    rses,
    rule_history,
    rules,
    scopes,
    unplaced_groups,
)
from arriero.registry.states import LockState, RequestState
from arriero.registry.store.attempts import tried_locks

COPYING = "copying"
QUEUED = "queued"
ANNOUNCED = "announced"
STUCK = "stuck"
"""Codes of what files wait for where nothing has failed, and of what is STUCK without a code."""

RECENT_COPIES = 20_000
"""Requests that ended last and that rates are measured on: what is read stays the same however long the history is."""

HOUR_S, DAY_S = 3600, 86400
"""How far back those may be, seconds; an hour without any falls back on the day."""


def standing(connection: Connection, rule_id: int) -> RowMapping:
    """When a rule came into its state, and when it is looked at again."""
    moved = or_(rule_history.c.from_state.is_(None), rule_history.c.from_state != rule_history.c.to_state)
    since = (
        select(func.max(rule_history.c.at))
        .where(rule_history.c.rule_uuid == rules.c.uuid, rule_history.c.to_state == rules.c.state, moved)
        .scalar_subquery()
    )
    query = (
        select(
            now().label("now"),
            func.coalesce(since, rules.c.created_at).label("since"),
            evaluations.c.rule_id.is_not(None).label("awaited"),
            evaluations.c.not_before,
            evaluations.c.retry_at,
            evaluations.c.lease_until,
            evaluations.c.attempt,
            evaluations.c.code,
            evaluations.c.reason,
        )
        .outerjoin(evaluations, evaluations.c.rule_id == rules.c.id)
        .where(rules.c.id == rule_id)
    )
    return connection.execute(query).mappings().one()


def items_left(connection: Connection, rule_id: int) -> dict[str, int]:
    """How much of a rule has not been looked at, by kind."""
    query = (
        select(evaluation_items.c.kind, func.count().label("items"))
        .where(evaluation_items.c.rule_id == rule_id)
        .group_by(evaluation_items.c.kind)
        .order_by(evaluation_items.c.kind)
    )
    return {row.kind.value: row.items for row in connection.execute(query)}


def rse_names(connection: Connection) -> dict[int, str]:
    """Names of all RSEs, also of those that were removed."""
    return {row.id: row.name for row in connection.execute(select(rses.c.id, rses.c.name))}


def lock_sums(connection: Connection, rule_id: int) -> Sequence[RowMapping]:
    """Locks of a rule and their bytes, by RSE and state."""
    query = (
        select(
            locks.c.rse_id,
            locks.c.state,
            func.count().label("files"),
            func.sum(locks.c.bytes).label("bytes"),
        )
        .where(locks.c.rule_id == rule_id)
        .group_by(locks.c.rse_id, locks.c.state)
    )
    return connection.execute(query).mappings().all()


def placed_groups(connection: Connection, rule_id: int) -> Sequence[RowMapping]:
    """For each RSE of a rule how many groups were placed there as a whole, and the first of them with its reason."""
    counted = (
        select(
            dataset_locks.c.rse_id,
            func.count().label("groups"),
            func.min(dataset_locks.c.group_id).label("group_id"),
        )
        .where(dataset_locks.c.rule_id == rule_id)
        .group_by(dataset_locks.c.rse_id)
        .subquery()
    )
    query = (
        select(
            counted.c.rse_id,
            counted.c.groups,
            dataset_locks.c.reason,
            scopes.c.name.label("scope"),
            dids.c.name,
        )
        .join(
            dataset_locks,
            and_(
                dataset_locks.c.rule_id == rule_id,
                dataset_locks.c.group_id == counted.c.group_id,
                dataset_locks.c.rse_id == counted.c.rse_id,
            ),
        )
        .join(dids, dids.c.id == counted.c.group_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
    )
    return connection.execute(query).mappings().all()


def unplaced(connection: Connection, rule_id: int) -> Sequence[RowMapping]:
    """Groups of a rule that have no place, by code, with the first of each; the most first."""
    counted = (
        select(
            unplaced_groups.c.code,
            func.count().label("groups"),
            func.min(unplaced_groups.c.created_at).label("since"),
            func.min(unplaced_groups.c.group_id).label("group_id"),
        )
        .where(unplaced_groups.c.rule_id == rule_id)
        .group_by(unplaced_groups.c.code)
        .subquery()
    )
    query = (
        select(counted, unplaced_groups.c.reason, scopes.c.name.label("scope"), dids.c.name)
        .join(
            unplaced_groups,
            and_(
                unplaced_groups.c.rule_id == rule_id,
                unplaced_groups.c.group_id == counted.c.group_id,
            ),
        )
        .outerjoin(dids, dids.c.id == counted.c.group_id)
        .outerjoin(scopes, scopes.c.id == dids.c.scope_id)
        .order_by(counted.c.groups.desc(), counted.c.code)
    )
    return connection.execute(query).mappings().all()


def waits_of(rule_id: int) -> Select[Any]:
    """Query for the locks of a rule that are not OK, counted by where they are and how their copies stand.

    By plain columns: of those PostgreSQL knows how few values there are, and need not sort a million rows.
    """
    by = (
        locks.c.rse_id,
        locks.c.state,
        locks.c.code,
        requests.c.state.label("request_state"),
        requests.c.code.label("request_code"),
        requests.c.source_id,
    )
    return (
        select(
            *by,
            func.count().label("files"),
            func.sum(locks.c.bytes).label("bytes"),
            func.min(locks.c.created_at).label("since"),
            func.min(requests.c.not_before).label("first_at"),
            func.max(requests.c.not_before).label("last_at"),
            func.coalesce(func.max(requests.c.attempt), 0).label("attempts"),
            func.min(locks.c.file_id).label("file_id"),
        )
        .select_from(locks)
        .outerjoin(
            requests,
            and_(requests.c.file_id == locks.c.file_id, requests.c.destination_id == locks.c.rse_id),
        )
        .where(locks.c.rule_id == rule_id, locks.c.state != LockState.OK)
        .group_by(*by)
    )


@dataclass(slots=True)
class Waiting:
    """Locks of a rule that wait at one RSE for the same thing."""

    rse_id: int
    state: LockState
    code: str
    request_state: RequestState | None
    source_id: int | None
    """From where the copy comes, or came when that failed; None: not known before it begins."""
    since: datetime
    file_id: int
    """The first of the files."""
    files: int = 0
    bytes: int = 0
    attempts: int = 0
    next_attempt_at: datetime | None = None
    last_attempt_at: datetime | None = None

    def add(self, row: RowMapping) -> None:
        """Count a row of `waits_of` in."""
        self.files += row["files"]
        self.bytes += int(row["bytes"])
        self.attempts = max(self.attempts, row["attempts"])
        self.since = min(self.since, row["since"])
        self.file_id = min(self.file_id, row["file_id"])
        if self.request_state is RequestState.QUEUED:
            self.next_attempt_at = min(self.next_attempt_at or row["first_at"], row["first_at"])
            self.last_attempt_at = max(self.last_attempt_at or row["last_at"], row["last_at"])


def waits(connection: Connection, rule_id: int) -> list[Waiting]:
    """Tell what the locks of a rule that are not OK wait for; the most first."""
    found: dict[tuple[Any, ...], Waiting] = {}
    for row in connection.execute(waits_of(rule_id)).mappings():
        request = row["request_state"]
        tried = request is RequestState.SUBMITTED or row["request_code"] is not None
        key = (row["rse_id"], row["state"], _waits_for(row), request, row["source_id"] if tried else None)
        one = found.setdefault(key, Waiting(*key, since=row["since"], file_id=row["file_id"]))
        one.add(row)
    return sorted(found.values(), key=lambda one: (-one.files, one.rse_id, one.code, one.source_id or 0))


def _waits_for(row: RowMapping) -> str:
    """Code of what locks that are not OK wait for."""
    if row["state"] is LockState.STUCK:
        return str(row["code"] or row["request_code"] or STUCK)
    match row["request_state"]:
        case None:
            return ANNOUNCED
        case RequestState.SUBMITTED:
            return COPYING
        case _:
            return str(row["request_code"] or QUEUED)


def examples(
    connection: Connection, rule_id: int, chosen: Collection[tuple[int, int]]
) -> dict[tuple[int, int], RowMapping]:
    """Locks of a rule with all that is known of their copies.

    Parameters
    ----------
    chosen
        Pairs of a file's and an RSE's id; a few.
    """
    pairs = sorted(chosen)
    tried = tried_locks(
        # the index knows files
        request_history.c.file_id.in_([file_id for file_id, _ in pairs]),
        tuple_(request_history.c.file_id, request_history.c.destination_id).in_(pairs),
    )
    query = (
        select(
            locks.c.file_id,
            locks.c.rse_id,
            locks.c.bytes,
            locks.c.reason,
            scopes.c.name.label("scope"),
            dids.c.name,
            tried.attempts.label("attempt"),
            case((requests.c.state == RequestState.QUEUED, requests.c.not_before), else_=null()).label(
                "next_attempt_at"
            ),
            requests.c.lease_until,
            func.coalesce(requests.c.reason, tried.last.reason).label("last_error"),
            tried.last_at.label("last_at"),
            tried.source.name.label("last_source"),
        )
        .select_from(tried.joined)
        .where(locks.c.rule_id == rule_id, tuple_(locks.c.file_id, locks.c.rse_id).in_(pairs))
    )
    found = connection.execute(query).mappings()
    return {(row["file_id"], row["rse_id"]): row for row in found}


def recent_rates(connection: Connection) -> Sequence[RowMapping]:
    """Rows of `recent_rates_query`."""
    return connection.execute(recent_rates_query()).mappings().all()


def recent_rates_query() -> Select[Any]:
    """Query for what was copied lately over each link: files, bytes and seconds of the last hour, and of the last day.

    Read from the `RECENT_COPIES` requests that ended last.
    """
    ended = (
        select(request_history).order_by(request_history.c.id.desc()).limit(RECENT_COPIES).subquery("ended")
    )
    newly = ended.c.at >= select(after(literal(-HOUR_S))).scalar_subquery()
    return (
        select(
            ended.c.source_id,
            ended.c.destination_id,
            func.count().label("day_files"),
            func.sum(ended.c.bytes).label("day_bytes"),
            func.sum(ended.c.seconds).label("day_seconds"),
            func.sum(case((newly, 1), else_=0)).label("hour_files"),
            func.sum(case((newly, ended.c.bytes), else_=0)).label("hour_bytes"),
            func.sum(case((newly, ended.c.seconds), else_=0.0)).label("hour_seconds"),
        )
        .where(
            ended.c.state == RequestState.DONE,
            ended.c.seconds > 0,
            ended.c.at >= select(after(literal(-DAY_S))).scalar_subquery(),
        )
        .group_by(ended.c.source_id, ended.c.destination_id)
    )
