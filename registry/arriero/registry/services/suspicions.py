"""Suspicious replicas become bad: when they were said to be suspicious often enough, and another copy is known to be good.

As Rucio's replica recoverer has it. Where many would become bad at one RSE, the RSE is at fault and not its files.
"""

from collections import Counter

import structlog
from sqlalchemy import Connection

from arriero.registry.ports import Bell
from arriero.registry.services.authorisation import Action
from arriero.registry.services.bad_replicas import Declaration, Sayer, declare_keys, retried
from arriero.registry.services.context import Context
from arriero.registry.states import BadReplicaState
from arriero.registry.store import audit as audit_store
from arriero.registry.store import suspicions as store

log = structlog.get_logger(__name__)

_DAY_S = 86400.0


def promote_suspicious(context: Context, *, limit: int = 1000) -> int:
    """Declare replicas bad that were declared suspicious ``suspicious_count`` times in ``suspicious_days``; for a sweep.

    Parameters
    ----------
    limit
        At most so many, and what the brake lets through.

    Returns
    -------
    int
        How many were declared bad.
    """
    settings = context.settings
    reason = (
        f"it was declared suspicious {settings.suspicious_count} times in {settings.suspicious_days:g} days"
    )

    def work(connection: Connection) -> int:
        rows = store.suspected(
            connection,
            count=settings.suspicious_count,
            within_s=settings.suspicious_days * _DAY_S,
            limit=max(limit, 2 * settings.suspicious_brake_files),
        )
        of_rse = Counter(row["rse"] for row in rows)
        braked = sorted(rse for rse, number in of_rse.items() if number > settings.suspicious_brake_files)
        if braked:
            log.warning(
                "too many suspicious replicas at an RSE: none is declared bad",
                rses=braked,
                of_rse=dict(of_rse),
            )
        chosen = [row for row in rows if row["rse"] not in braked][:limit]
        if not chosen:
            return 0
        keys = [(row["file_id"], row["rse_id"]) for row in chosen]
        count, _ = declare_keys(connection, keys, Declaration(BadReplicaState.BAD, reason), Sayer())
        audit_store.append(
            connection,
            account=None,
            action=Action.REPLICA_DECLARE,
            target=chosen[0]["rse"],
            allowed=True,
            detail={"state": BadReplicaState.BAD, "count": count, "reason": reason},
        )
        return count

    declared = retried(context, work)
    if declared:
        log.warning("suspicious replicas declared bad", count=declared)
        context.doorbell.ring(Bell.EVALUATIONS)
    return declared
