"""The time that replicas have: announced ones that do not come, those of files that have expired, those nobody holds.

Nothing is deleted here: files that have expired lose the rules on themselves, and their replicas get tombstones. What
deletion may take is listed (DESIGN section 5, decision 4.7); it is taken by `arriero.scheduler.deletion_run`.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection

from arriero.registry.ports import Bell
from arriero.registry.services.authorisation import Action
from arriero.registry.services.bad_replicas import RulesCame, retried
from arriero.registry.services.context import Context
from arriero.registry.services.rses import require_rse
from arriero.registry.services.rule_removal import end_rule
from arriero.registry.store import announced as store
from arriero.registry.store import audit, deletion_candidates, erasure, events, losses
from arriero.registry.store import dids as did_store
from arriero.registry.store import replica_sets as sets
from arriero.registry.store.deletion_guards import place_of
from arriero.registry.store.evaluations import look_at_files
from arriero.registry.store.streaming import streamed


def expire_announced(context: Context, *, limit: int = 1000) -> int:
    """Have replicas be UNAVAILABLE that clients have announced too long ago; for a sweep.

    The rules with locks on them look at those files: what has another source is copied from there.

    Parameters
    ----------
    limit
        At most so many.

    Returns
    -------
    int
        How many became UNAVAILABLE.
    """
    deadline_s = context.settings.announced_deadline_s
    reason = f"a client announced it and it was not there after {deadline_s / 3600:g} h"

    def work(connection: Connection) -> int:
        over = store.overdue(connection, deadline_s=deadline_s, limit=limit)
        if not over:
            return 0
        sets.keep_only(connection, ((place, file_id, rse_id) for place, (file_id, rse_id) in enumerate(over)))
        held = sets.hold_rules(connection)
        sets.hold_replicas(connection)
        rule_ids = sets.rules_with_locks(connection)
        if rule_ids - held:
            raise RulesCame
        store.keep_overdue(connection)
        count = store.give_up(connection, reason)
        if count:
            losses.note(connection, sets.their_files())
            keyed = [
                (
                    f"{row['rse']}:{row['scope']}:{row['name']}",
                    {**{key: row[key] for key in ("scope", "name", "rse", "bytes")}, "reason": reason},
                )
                for row in sets.found_replicas(connection)
            ]
            events.append(connection, "replica-unavailable", keyed)
            look_at_files(connection, sets.locks_on_them())
        return count

    ended = retried(context, work)
    if ended:
        context.doorbell.ring(Bell.EVALUATIONS)
    return ended


def release_expired_files(context: Context, *, limit: int = 1000) -> int:
    """End the rules on files whose lifetime is over, and have deletion take their replicas; for a sweep.

    What rules on datasets hold of them stays held, and a file on which a rule is locked stays as it is.

    Parameters
    ----------
    limit
        At most so many.

    Returns
    -------
    int
        How many files were released.
    """

    def work(connection: Connection) -> int:
        chosen = deletion_candidates.expired_files(connection, limit=limit)
        if not chosen:
            return 0
        did_store.lock_dids(connection, chosen)
        # given a new lifetime or a locked rule meanwhile: it stays
        chosen = deletion_candidates.expired_files(connection, limit=limit, among=chosen)
        for rule in erasure.rules_on_files(connection, chosen):
            end_rule(connection, rule, purge=True, account=None, reason="the lifetime of its file was over")
        marked = deletion_candidates.mark(connection, chosen)
        audit.append(
            connection,
            account=None,
            action=Action.DID_ERASE,
            target=f"{len(chosen)} files",
            allowed=True,
            detail={"reason": "expired", "files": chosen[:100], "replicas": marked},
        )
        return len(chosen)

    return context.database.run(work)


def list_candidates(context: Context, rse: str) -> Iterator[dict[str, Any]]:
    """Give the replicas at an RSE that deletion may take: those that go at once first, then the least read.

    Raises
    ------
    NotFound
        There is no such RSE.
    """
    with context.database.snapshot() as connection:
        rse_id = require_rse(connection, rse)["id"]
        query = deletion_candidates.candidates_query(place_of(connection, rse_id))
        with streamed(connection, query) as rows:
            for row in rows:
                yield dict(row)
