"""Checks of deletions: that each replica that goes has its deletion, each deletion its replica, and none is forgotten (I1, I7)."""

from arriero.registry.store.invariants import Check

_SWEEP = "no sweep runs: start a worker with -Q maintenance, and beat"

DELETION_CHECKS = (
    Check(
        "deleted_without_queue",
        "I7",
        "a replica is BEING_DELETED and nobody is to delete it",
        """
        SELECT NULL AS rule_id, replicas.file_id AS did_id, replicas.rse_id AS rse_id,
               'replica BEING_DELETED' AS detail
        FROM replicas
        LEFT JOIN deletions ON deletions.file_id = replicas.file_id AND deletions.rse_id = replicas.rse_id
        WHERE replicas.state = 'BEING_DELETED' AND deletions.id IS NULL
        """,
    ),
    Check(
        "deletions_of_nothing",
        "keys",
        "a deletion of a replica that is not there, or is not BEING_DELETED",
        """
        SELECT NULL AS rule_id, deletions.file_id AS did_id, deletions.rse_id AS rse_id,
               'replica ' || coalesce(replicas.state, 'none') AS detail
        FROM deletions
        LEFT JOIN replicas ON replicas.file_id = deletions.file_id AND replicas.rse_id = deletions.rse_id
        WHERE coalesce(replicas.state, 'none') <> 'BEING_DELETED'
        """,
    ),
    Check(
        "deletions_of_held",
        "I1",
        "a replica is BEING_DELETED that a lock takes for there",
        """
        SELECT locks.rule_id AS rule_id, deletions.file_id AS did_id, deletions.rse_id AS rse_id,
               'lock ' || locks.state AS detail
        FROM deletions
        JOIN locks ON locks.file_id = deletions.file_id AND locks.rse_id = deletions.rse_id
        WHERE locks.state <> 'STUCK'
        """,
        next_step="stop deletions (arriero deletion stop), and report it as a fault of Arriero, with this output",
    ),
    Check(
        "outlived_deletions",
        "I7",
        "a deletion is leased in the past for longer than two sweeps",
        """
        SELECT NULL AS rule_id, deletions.file_id AS did_id, deletions.rse_id AS rse_id,
               'deletion of ' || coalesce(deletions.lease_owner, '?') AS detail
        FROM deletions WHERE deletions.lease_until < :late
        """,
        next_step=_SWEEP,
    ),
    Check(
        "late_graves",
        "I7",
        "the path of a deletion has been free for long enough, for longer than two sweeps",
        """
        SELECT NULL AS rule_id, deletions.file_id AS did_id, deletions.rse_id AS rse_id,
               'its bytes are gone' AS detail
        FROM deletions
        WHERE deletions.gone_at IS NOT NULL AND deletions.lease_owner IS NULL AND deletions.not_before < :late
        """,
        next_step=_SWEEP,
        is_broken=False,
    ),
    Check(
        "deletions_held_without_lease",
        "I7",
        "a deletion is held without a lease, or waits without a reason",
        """
        SELECT NULL AS rule_id, deletions.file_id AS did_id, deletions.rse_id AS rse_id,
               CASE WHEN deletions.lease_owner IS NULL THEN 'waits' ELSE 'held' END AS detail
        FROM deletions
        WHERE (deletions.lease_owner IS NOT NULL) <> (deletions.lease_until IS NOT NULL)
        OR (deletions.lease_owner IS NULL AND deletions.attempt > 0
            AND (deletions.code IS NULL OR deletions.reason IS NULL))
        """,
    ),
)
"""In the order in which they are asked."""
