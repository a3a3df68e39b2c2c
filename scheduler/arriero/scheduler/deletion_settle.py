"""Settles deletions: replicas, what waited for them, history, counters and events change together or not at all.

A fixed number of statements a batch. A report counts only by compare-and-set on (deletion, fence, owner): a worker that was
given up is not believed (DESIGN 4.1). Lock order: deletions, rules, replicas, as nobody holds a replica and asks for its deletion.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, case, func, literal, null, or_, select, update

from arriero.registry.dialect import id_rows, insert_into, interpret
from arriero.registry.ports import Bell
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import deletion_totals, deletions, rse_deletions, rse_usage, rses
from arriero.registry.services.bad_replicas import Declaration, RulesCame, Sayer, declare_keys, retried
from arriero.registry.services.context import Context
from arriero.registry.states import BadReplicaState
from arriero.registry.store import events
from arriero.registry.store import replica_sets as sets
from arriero.registry.store.deletion_terms import hold_rse
from arriero.registry.store.evaluations import look_at_files
from arriero.scheduler import deletion_effects as effects
from arriero.scheduler.deletion_reports import Action, Decided, Outcome, Report, decide

log = structlog.get_logger(__name__)

_DOUBT = Declaration(
    BadReplicaState.SUSPICIOUS,
    "a worker that had been given up has removed something at its path; it is to be read again",
)

GRAVE = "grave"
"""Code of a deletion whose bytes are gone and whose path is kept free."""


@dataclass(slots=True)
class Settled:
    """What became of a batch of reports."""

    done: int = 0
    freed: int = 0
    """Bytes."""
    failed: int = 0
    released: int = 0
    """Taken back before anything was asked of the storage, or kept because their proof was gone."""
    discarded: int = 0
    """Reports of workers that had been given up."""
    late: list[int] = field(default_factory=list)
    """Files that those may have removed."""
    woken: int = 0
    """Rules that have waited for a replica to go."""


def settle_deletions(context: Context, rse_id: int, owner: str, reports: Sequence[Report]) -> Settled:
    """Settle a batch of one RSE in one transaction.

    Raises
    ------
    Busy
        The database lost every race; nothing has changed, and the same batch may be settled again.
    """
    if not reports:
        return Settled()
    work = partial(_settle, context=context, rse_id=rse_id, owner=owner, reports=reports)
    result = retried(context, work)
    if result.woken:
        context.doorbell.ring(Bell.EVALUATIONS)
    if result.discarded:
        log.warning("reports of another worker's deletions discarded", count=result.discarded)
    if result.late:
        _doubt_made_again(context, rse_id, result.late)
    return result


def _doubt_made_again(context: Context, rse_id: int, file_ids: Collection[int]) -> None:
    """Have replicas read again that were made again at paths where a worker that had been given up has removed something."""
    doubted = retried(
        context,
        lambda tx: declare_keys(tx, [(file_id, rse_id) for file_id in file_ids], _DOUBT, Sayer())[0],
    )
    if doubted:
        log.warning("replicas made again where a given up worker has deleted", rse_id=rse_id, count=doubted)


def _settle(
    connection: Connection, context: Context, rse_id: int, owner: str, reports: Sequence[Report]
) -> Settled:
    interpret(connection)
    held = _hold(connection, owner, reports)
    decided = [
        decide(report, held[report.deletion.id, report.deletion.fence])
        for report in reports
        if (report.deletion.id, report.deletion.fence) in held
    ]
    result = Settled(discarded=len(reports) - len(decided))
    result.late = [
        report.deletion.file_id
        for report in reports
        if (report.deletion.id, report.deletion.fence) not in held and report.may_have_removed
    ]
    if not decided:
        return result
    effects.note(connection, decided)
    result.woken = _end(connection, rse_id, decided)
    if any(one.action in {Action.AGAIN, Action.BURY} for one in decided):
        _try_again(connection, context)
    result.done = sum(one.is_gone for one in decided)
    result.freed = sum(one.freed for one in decided)
    result.failed = sum(one.report.outcome in {Outcome.FAILED, Outcome.UNREACHABLE} for one in decided)
    result.released = len(decided) - result.done - result.failed
    _count_space(connection, rse_id, result.freed)
    _count(connection, rse_id, decided)
    if result.done:
        _storage_works(connection, rse_id)
    _tell(connection, rse_id, decided)
    return result


def _hold(connection: Connection, owner: str, reports: Iterable[Report]) -> dict[tuple[int, int], Any]:
    """Hold the deletions that are still this worker's, by id and fence."""
    has_grave = case((deletions.c.grave_until > now(), 1), else_=0)
    rows = connection.execute(
        select(deletions.c.id, deletions.c.fence, has_grave.label("has_grave"))
        .where(
            deletions.c.id.in_(id_rows(connection, sorted(one.deletion.id for one in reports))),
            deletions.c.lease_owner == owner,
        )
        .order_by(deletions.c.id)
        .with_for_update()
    )
    return {(row.id, row.fence): row for row in rows}


def _end(connection: Connection, rse_id: int, decided: Sequence[Decided]) -> int:
    """Carry out what ends deletions; give how many rules have waited for their replicas."""
    finished = [one for one in decided if one.action is Action.FINISH]
    reverted = [one for one in decided if one.action is Action.REVERT]
    changing = [*finished, *reverted]
    if not changing:
        return 0
    _stage(connection, rse_id, changing)
    waiting = hold_staged(connection)
    if waiting:
        look_at_files(connection, sets.locks_on_them())
    if reverted:
        if finished:
            _stage(connection, rse_id, reverted)
        effects.revert(connection)
    if finished:
        if reverted:
            _stage(connection, rse_id, finished)
        lost_its_proof = not all(one.report.deletion.may_go for one in finished)
        effects.finish(connection, may_be_lost=lost_its_proof)
    return waiting


def hold_staged(connection: Connection) -> int:
    """Hold the staged replicas, after the rules that wait for them; give how many those are.

    Raises
    ------
    RulesCame
        Another has come meanwhile.
    """
    held = sets.hold_rules(connection)
    sets.hold_replicas(connection)
    waiting = sets.rules_with_locks(connection)
    if waiting - held:
        raise RulesCame
    return len(waiting)


def _stage(connection: Connection, rse_id: int, decided: Sequence[Decided]) -> None:
    sets.keep_only(
        connection, ((place, one.report.deletion.file_id, rse_id) for place, one in enumerate(decided))
    )


def _try_again(connection: Connection, context: Context) -> None:
    """Give the others back to the queue: attempts that asked nothing, or got no answer, do not count."""
    one = effects.reap_settled
    uncounted = one.c.outcome.in_((Outcome.UNREACHABLE.value, Outcome.UNSENT.value))
    grave_s = context.settings.deletion_grave_s
    is_buried = one.c.action == Action.BURY.value
    # what is still there is looked at once more when nothing can be on its way any more
    waits = or_(is_buried, one.c.outcome.in_((Outcome.KEPT.value, Outcome.SPOILT.value)))
    grave_until: Any = case((one.c.may_be_under_way, after(literal(grave_s))), else_=deletions.c.grave_until)
    connection.execute(
        update(deletions)
        .where(deletions.c.id == one.c.deletion_id, one.c.action.in_((Action.AGAIN.value, Action.BURY.value)))
        .values(
            attempt=case((uncounted, deletions.c.attempt - 1), else_=deletions.c.attempt),
            not_before=case((waits, deletions.c.grave_until), else_=after(one.c.delay_s)),
            gone_at=case((is_buried, now()), else_=null()),
            grave_until=grave_until,
            code=case((is_buried, GRAVE), else_=func.coalesce(one.c.code, deletions.c.code)),
            reason=case(
                (
                    is_buried,
                    "its bytes are gone; its path is kept free until no request can be on its way there",
                ),
                else_=func.coalesce(one.c.reason, deletions.c.reason),
            ),
            lease_owner=null(),
            lease_until=null(),
        )
    )


def _count_space(connection: Connection, rse_id: int, freed: int) -> None:
    if freed:
        connection.execute(
            update(rse_usage).where(rse_usage.c.rse_id == rse_id).values(freed=rse_usage.c.freed + freed)
        )


def _count(connection: Connection, rse_id: int, decided: Sequence[Decided]) -> None:
    """Add to what every RSE has had since the beginning, for those who measure."""
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0.0])
    for one in decided:
        report = one.report
        if report.outcome is Outcome.UNSENT:
            continue
        of_its_kind = sums[report.outcome.value, (report.code or "")[:64]]
        of_its_kind[0] += 1
        of_its_kind[1] += one.freed
        of_its_kind[2] += report.seconds or 0.0
    if not sums:
        return
    key, counted = ("rse_id", "outcome", "code"), ("files", "bytes", "seconds")
    rows = [dict(zip((*key, *counted), (rse_id, *kind, *sums[kind]), strict=True)) for kind in sorted(sums)]
    statement = insert_into(connection, deletion_totals).values(rows)
    added = {name: deletion_totals.c[name] + statement.excluded[name] for name in counted}
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=added))


def _storage_works(connection: Connection, rse_id: int) -> None:
    """Forget the failures of a storage that has done something."""
    connection.execute(
        update(rse_deletions)
        .where(rse_deletions.c.rse_id == rse_id, rse_deletions.c.failures > 0)
        .values(failures=0, not_before=null(), code=null(), reason=null())
    )


def note_failure(connection: Connection, rse_id: int, *, code: str, reason: str, wait_s: float) -> None:
    """Have nothing be deleted at an RSE for a while, and then one thing first."""
    hold_rse(connection, rse_id)
    connection.execute(
        update(rse_deletions)
        .where(rse_deletions.c.rse_id == rse_id)
        .values(
            failures=rse_deletions.c.failures + 1,
            code=code,
            reason=reason[:1000],
            not_before=after(literal(wait_s)),
        )
    )


def finish_graves(context: Context, *, limit: int = 1000) -> int:
    """Let replicas leave the catalogue whose bytes are gone and whose paths have been free for long enough; for a sweep."""

    def work(connection: Connection) -> tuple[int, int]:
        rows = connection.execute(
            select(deletions.c.id, deletions.c.file_id, deletions.c.rse_id)
            .where(deletions.c.gone_at.is_not(None), deletions.c.not_before <= now())
            .order_by(deletions.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        if not rows:
            return 0, 0
        effects.note_finished(connection, [row.id for row in rows])
        sets.keep_only(connection, ((place, row.file_id, row.rse_id) for place, row in enumerate(rows)))
        waiting = hold_staged(connection)
        if waiting:
            look_at_files(connection, sets.locks_on_them())
        effects.finish(connection)
        return len(rows), waiting

    finished, woken = retried(context, work)
    if woken:
        context.doorbell.ring(Bell.EVALUATIONS)
    return finished


_EVENTS = {
    Outcome.DONE: "deletion-done",
    Outcome.NOT_FOUND: "deletion-not-found",
    Outcome.FAILED: "deletion-failed",
}
"""Rucio's events."""


def _tell(connection: Connection, rse_id: int, decided: Sequence[Decided]) -> None:
    """Write events in Rucio's shape, each with the key that keeps those of one replica in order."""
    rse = connection.scalar(select(rses.c.name).where(rses.c.id == rse_id))
    keyed: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for one in decided:
        report, deletion = one.report, one.report.deletion
        if report.outcome not in _EVENTS:
            continue
        payload = {
            "scope": deletion.scope,
            "name": deletion.name,
            "rse": rse,
            "file-size": deletion.bytes,
            "bytes": deletion.bytes,
            "url": report.url,
            "protocol": report.scheme,
            "duration": round(report.seconds or 0.0, 3),
            "reason": report.reason or "",
        }
        key = f"{rse}:{deletion.scope}:{deletion.name}"
        keyed.setdefault(_EVENTS[report.outcome], []).append((key, payload))
    for event_type, told in keyed.items():
        events.append(connection, event_type, told)
