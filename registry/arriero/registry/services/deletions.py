"""Deletions: what is under way, what would go and what stays, asking for some, stopping all.

Nothing is deleted here: what is asked for is marked, and taken by `arriero.scheduler.deletion_run` under its own guards.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection

from arriero.registry.deletion_words import (
    DeleteOrder,
    Deletion,
    DeletionFilter,
    DeletionHistoryFilter,
    DeletionSite,
    DeletionStop,
    EndedDeletion,
    GoOrder,
    JudgedReplica,
    Purged,
    PurgeOrder,
    StopOrder,
)
from arriero.registry.ports import Bell
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import require_did, require_dids
from arriero.registry.services.rses import require_rse
from arriero.registry.states import DeletionCause, DeletionPass
from arriero.registry.store import deletion_candidates as candidates
from arriero.registry.store import deletion_guards as guards
from arriero.registry.store import deletions as store
from arriero.registry.store import stops
from arriero.registry.store.deletion_terms import sites
from arriero.registry.store.rses import load_rses
from arriero.registry.store.streaming import streamed
from arriero.rse.expression import parse

_PAGE = 10_000
"""Replicas that one transaction marks."""

ALL = "all"
"""Target in the audit of what concerns every RSE."""


def list_deletions(context: Context, chosen: DeletionFilter) -> Iterator[Deletion]:
    """List what is being deleted, the oldest first.

    Raises
    ------
    NotFound
        There is no such RSE.
    """
    with context.database.snapshot() as connection:
        rse_id = None if chosen.rse is None else require_rse(connection, chosen.rse)["id"]
        query = store.deletions_query(rse_id=rse_id, code=chosen.code, limit=chosen.limit)
        with streamed(connection, query) as rows:
            for row in rows:
                yield Deletion.model_validate(dict(row))


def list_history(context: Context, chosen: DeletionHistoryFilter) -> Iterator[EndedDeletion]:
    """List deletions that have ended, the last first.

    Raises
    ------
    NotFound
        There is no such RSE or file.
    """
    with context.database.snapshot() as connection:
        rse_id = None if chosen.rse is None else require_rse(connection, chosen.rse)["id"]
        file_id = None
        if chosen.scope is not None and chosen.name is not None:
            file_id = require_did(connection, chosen.scope, chosen.name)["id"]
        query = store.history_query(rse_id=rse_id, file_id=file_id, limit=chosen.limit)
        with streamed(connection, query) as rows:
            for row in rows:
                yield EndedDeletion.model_validate(dict(row))


def list_sites(context: Context, expression: str | None) -> list[DeletionSite]:
    """Say how deletion stands with RSEs, all or those of an expression.

    Raises
    ------
    InvalidExpression
        It cannot be read, or names no RSE.
    """
    with context.database.snapshot() as connection:
        chosen = None
        if expression:
            known = load_rses(connection)
            chosen = parse(expression).evaluate(rse.as_info() for rse in known.values())
        rows = sites(connection)
    found = [DeletionSite.model_validate(row) for row in rows]
    return [one for one in found if chosen is None or one.rse in chosen]


def shown_stop(context: Context) -> DeletionStop:
    """Say whether deletions are stopped everywhere, by whom and why."""
    with context.database.snapshot() as connection:
        row = stops.stopped(connection, stops.DELETIONS)
    if row is None:
        return DeletionStop(stopped=False)
    return DeletionStop(stopped=True, account=row["account"], since=row["created_at"], reason=row["reason"])


def stop(context: Context, actor: Actor, order: StopOrder) -> DeletionStop:
    """Stop all deletions. Workers look every second; what has been sent to a storage is not taken back.

    Whoever manages data may: stopping hurts nothing.
    """
    authorize(actor, Action.DELETION_STOP, Target(ALL))

    def work(connection: Connection) -> None:
        stops.stop(connection, stops.DELETIONS, account_id=actor.account_id, reason=order.reason)
        audit.record(connection, actor, Action.DELETION_STOP, ALL, reason=order.reason)

    context.database.run(work)
    return shown_stop(context)


def go(context: Context, actor: Actor, order: GoOrder) -> DeletionStop:
    """Let deletions go on: everywhere, or at one RSE, whose failures are forgotten.

    Raises
    ------
    NotFound
        There is no such RSE.
    """
    target = ALL if order.rse is None else order.rse
    authorize(actor, Action.DELETION_GO, Target(target, rse=order.rse))

    def work(connection: Connection) -> None:
        if order.rse is None:
            stops.go(connection, stops.DELETIONS)
        else:
            rse_id = require_rse(connection, order.rse)["id"]
            store.forget_failures(connection, rse_id, take_over=order.take_over)
        audit.record(connection, actor, Action.DELETION_GO, target, take_over=order.take_over)

    context.database.run(work)
    context.doorbell.ring(Bell.DELETIONS)
    return shown_stop(context)


def plan(context: Context, order: DeleteOrder) -> Iterator[JudgedReplica]:
    """Say of replicas at an RSE what would become of them; nothing is changed.

    Parameters
    ----------
    order
        Of its DIDs; without any, of everything there that has a tombstone, is bad, or whose file has expired.

    Raises
    ------
    NotFound
        There is no such RSE or DID.
    """
    with context.database.snapshot() as connection:
        place, did_ids = _meant(connection, order)
        which = None if did_ids is None else store.here(place, did_ids)
        with streamed(connection, candidates.judged_query(place, which)) as rows:
            for row in rows:
                yield _judged(row, asked=which is not None)


def _judged(row: Any, *, asked: bool) -> JudgedReplica:
    """What becomes of a replica.

    Parameters
    ----------
    asked
        Somebody asks for it: it goes at once.
    """
    code, reason = row["code"], None
    cause: str | None = row["why"]
    if code is not None:
        verdict, reason = "keep", guards.REASONS[code]
    elif asked or row["when"] == DeletionPass.AT_ONCE:
        verdict = "delete"
        cause = DeletionCause.PURGE if cause == DeletionCause.UNLOCKED else cause
    else:
        verdict = "when_needed"
    values = {key: row[key] for key in ("scope", "name", "bytes", "state", "tombstone")}
    kept = verdict == "keep"
    return JudgedReplica.model_validate(
        {**values, "verdict": verdict, "cause": None if kept else cause, "code": code, "reason": reason}
    )


def purge(context: Context, actor: Actor, order: PurgeOrder) -> Purged:
    """Have deletion take replicas at an RSE at once, as far as nothing stands against it; the others stay as they are.

    Raises
    ------
    NotFound
        There is no such RSE or DID.
    Denied
        A file is another account's; then nothing is done.
    """
    if order.dids is None:
        done = _purge_unlocked(context, actor, order)
    else:
        done = context.database.run(lambda connection: _purge(connection, actor, order))
    context.doorbell.ring(Bell.DELETIONS)
    return done


def _purge(connection: Connection, actor: Actor, order: PurgeOrder) -> Purged:
    place, did_ids = _meant(connection, order)
    assert did_ids is not None
    for row in store.owners(connection, place, did_ids):
        name = f"{row['scope']}:{row['name']}@{order.rse}"
        authorize(actor, Action.REPLICA_DELETE, Target(name, owner=row["owner"], rse=order.rse))
    which = store.here(place, did_ids)
    store.hold(connection, which)
    files, size = store.purge(connection, place, did_ids)
    kept = store.count(connection, which) - files
    first = f"{order.dids[0].scope}:{order.dids[0].name}" if order.dids else ""
    detail = {"rse": order.rse, "count": files, "kept": kept, "reason": order.reason}
    audit.record(connection, actor, Action.REPLICA_DELETE, first, **detail)
    return Purged(files=files, bytes=size, kept=kept)


def _purge_unlocked(context: Context, actor: Actor, order: PurgeOrder) -> Purged:
    """Mark all that nobody holds at an RSE, some of it in each transaction. For administrators: it is everybody's."""
    authorize(actor, Action.RSE_UPDATE, Target(order.rse, rse=order.rse))
    files, size, last = 0, 0, 0
    while True:

        def work(connection: Connection, after: int = last, marked: int = files) -> tuple[Sequence[int], int]:
            rse_id = require_rse(connection, order.rse)["id"]
            found, more = store.purge_unlocked(connection, rse_id, after_file_id=after, limit=_PAGE)
            if found or not marked:
                detail = {"rse": order.rse, "count": len(found), "unlocked": True, "reason": order.reason}
                audit.record(connection, actor, Action.REPLICA_DELETE, order.rse, **detail)
            return found, more

        page, more = context.database.run(work)
        files, size = files + len(page), size + more
        if len(page) < _PAGE:
            return Purged(files=files, bytes=size, kept=0)
        last = page[-1]


def _meant(connection: Connection, order: DeleteOrder) -> tuple[guards.Place, list[int] | None]:
    place = guards.place_of(connection, require_rse(connection, order.rse)["id"])
    if order.dids is None:
        return place, None
    found = require_dids(connection, [(did.scope, did.name) for did in order.dids])
    return place, sorted({row["id"] for row in found.values()})
