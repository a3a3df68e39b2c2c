"""Proves the invariants I2, I3, I5 and I7 of DESIGN section 11 in SQL, over everything that a catalogue holds.

Call `assert_invariants` at the end of a test of trouble. Each check is a query for what must not be there.
"""

from __future__ import annotations

from sqlalchemy import text

from arriero.registry.database import Database

_MEMBERS = """
WITH RECURSIVE tree(rule_id, did_id) AS (
    SELECT id, did_id FROM rules
    UNION
    SELECT tree.rule_id, contents.child_id FROM tree
    JOIN dids ON dids.id = tree.did_id AND dids.type = 'CONTAINER'
    JOIN contents ON contents.parent_id = tree.did_id
),
members(rule_id, group_id, file_id) AS (
    SELECT tree.rule_id,
           CASE WHEN rules.grouping = 'ALL' THEN rules.did_id ELSE tree.did_id END,
           CASE WHEN dids.type = 'FILE' THEN dids.id ELSE contents.child_id END
    FROM tree
    JOIN rules ON rules.id = tree.rule_id
    JOIN dids ON dids.id = tree.did_id AND dids.type != 'CONTAINER'
    LEFT JOIN contents ON contents.parent_id = dids.id
    WHERE dids.type = 'FILE' OR contents.child_id IS NOT NULL
),
settled(rule_id) AS (
    SELECT rules.id FROM rules
    WHERE rules.state IN ('REPLICATING', 'OK', 'STUCK')
    AND NOT EXISTS (
        SELECT 1 FROM evaluations WHERE evaluations.rule_id = rules.id
        AND (evaluations.lease_owner IS NOT NULL OR evaluations.not_before <= {now})
    )
),
grouped(rule_id) AS (
    SELECT rules.id FROM rules JOIN dids ON dids.id = rules.did_id
    WHERE rules.grouping != 'NONE' AND dids.type != 'FILE'
)
"""
"""Files of each rule with their groups; the rules that wait for no evaluation; those that place groups."""

_CHECKS: dict[str, str] = {
    "I2: not `copies` locks on a file of a rule": _MEMBERS
    + """
    SELECT members.rule_id, members.file_id,
           (SELECT count(*) FROM locks
            WHERE locks.rule_id = members.rule_id AND locks.file_id = members.file_id) AS held
    FROM members JOIN settled ON settled.rule_id = members.rule_id JOIN rules ON rules.id = members.rule_id
    WHERE (SELECT count(*) FROM locks
           WHERE locks.rule_id = members.rule_id AND locks.file_id = members.file_id) != rules.copies
    AND NOT (
        rules.code = 'not_enough_rses'
        AND NOT EXISTS (SELECT 1 FROM locks
                        WHERE locks.rule_id = members.rule_id AND locks.file_id = members.file_id)
        AND NOT EXISTS (SELECT 1 FROM dataset_locks
                        WHERE dataset_locks.rule_id = members.rule_id
                        AND dataset_locks.group_id = members.group_id)
    )
    """,
    "I2: a lock on a file that its rule does not cover": _MEMBERS
    + """
    SELECT locks.rule_id, locks.file_id, locks.rse_id
    FROM locks LEFT JOIN rules ON rules.id = locks.rule_id
    WHERE rules.id IS NULL OR (
        locks.rule_id IN (SELECT rule_id FROM settled)
        AND NOT EXISTS (SELECT 1 FROM members
                        WHERE members.rule_id = locks.rule_id AND members.file_id = locks.file_id)
    )
    """,
    "I2: a lock where no group of its file lies": _MEMBERS
    + """
    SELECT locks.rule_id, locks.file_id, locks.rse_id
    FROM locks JOIN settled ON settled.rule_id = locks.rule_id JOIN grouped ON grouped.rule_id = locks.rule_id
    WHERE NOT EXISTS (
        SELECT 1 FROM members JOIN dataset_locks
        ON dataset_locks.rule_id = members.rule_id AND dataset_locks.group_id = members.group_id
        WHERE members.rule_id = locks.rule_id AND members.file_id = locks.file_id
        AND dataset_locks.rse_id = locks.rse_id
    )
    """,
    "I3: a rule's counts are not those of its locks": """
    SELECT rules.id, locks_ok, locks_replicating, locks_stuck FROM rules
    WHERE locks_ok != (SELECT count(*) FROM locks WHERE rule_id = rules.id AND locks.state = 'OK')
    OR locks_replicating != (SELECT count(*) FROM locks WHERE rule_id = rules.id AND locks.state = 'REPLICATING')
    OR locks_stuck != (SELECT count(*) FROM locks WHERE rule_id = rules.id AND locks.state = 'STUCK')
    """,
    "I3: a rule's state is not what its locks say": _MEMBERS
    + """
    SELECT rules.id, rules.state, rules.locks_replicating, rules.locks_stuck
    FROM rules JOIN settled ON settled.rule_id = rules.id
    WHERE (rules.state = 'OK' AND locks_replicating + locks_stuck > 0)
    OR (rules.state = 'REPLICATING' AND (locks_replicating = 0 OR locks_stuck > 0))
    OR (rules.state = 'STUCK' AND locks_stuck = 0 AND coalesce(rules.code, '') != 'not_enough_rses')
    """,
    "I3: a lock's state is not what its replica says": _MEMBERS
    + """
    SELECT locks.rule_id, locks.file_id, locks.rse_id, locks.state, replicas.state AS replica
    FROM locks JOIN settled ON settled.rule_id = locks.rule_id
    LEFT JOIN replicas ON replicas.file_id = locks.file_id AND replicas.rse_id = locks.rse_id
    WHERE (locks.state = 'OK' AND coalesce(replicas.state, '') NOT IN ('AVAILABLE', 'TEMPORARY_UNAVAILABLE'))
    OR (locks.state = 'REPLICATING' AND coalesce(replicas.state, '') != 'COPYING')
    """,
    "I3: a replica that a lock holds has a tombstone": """
    SELECT replicas.file_id, replicas.rse_id FROM replicas
    JOIN locks ON locks.file_id = replicas.file_id AND locks.rse_id = replicas.rse_id
    WHERE replicas.tombstone IS NOT NULL
    """,
    "I5: two live requests for one copy": """
    SELECT file_id, destination_id, count(*) FROM requests
    WHERE state IN ('QUEUED', 'SUBMITTED') GROUP BY file_id, destination_id HAVING count(*) > 1
    """,
    "I5: a request that no lock wants": """
    SELECT requests.file_id, requests.destination_id, requests.state FROM requests
    WHERE requests.state != 'SUBMITTED' AND NOT EXISTS (
        SELECT 1 FROM locks WHERE locks.file_id = requests.file_id AND locks.rse_id = requests.destination_id
        AND (locks.state != 'OK' OR EXISTS (SELECT 1 FROM evaluations WHERE evaluations.rule_id = locks.rule_id))
    )
    """,
    "I5: a replica that is COPYING without a request": """
    SELECT replicas.file_id, replicas.rse_id FROM replicas
    WHERE replicas.state = 'COPYING' AND NOT EXISTS (
        SELECT 1 FROM requests WHERE requests.file_id = replicas.file_id
        AND requests.destination_id = replicas.rse_id AND requests.state IN ('QUEUED', 'SUBMITTED')
    )
    """,
    "I7: leased in the past": """
    SELECT 'request', id FROM requests WHERE state = 'SUBMITTED' AND lease_until < {late}
    UNION ALL SELECT 'evaluation', rule_id FROM evaluations
    WHERE lease_owner IS NOT NULL AND lease_until < {late}
    UNION ALL SELECT 'arrival', id FROM arrivals WHERE state = 'leased' AND lease_until < {late}
    """,
    "I7: held without a lease": """
    SELECT 'request', id FROM requests
    WHERE (state = 'SUBMITTED') != (lease_owner IS NOT NULL AND lease_until IS NOT NULL)
    UNION ALL SELECT 'arrival', id FROM arrivals
    WHERE (state = 'leased') != (lease_owner IS NOT NULL AND lease_until IS NOT NULL)
    """,
    "I7: waits without a reason": """
    SELECT 'lock', rule_id FROM locks WHERE state = 'STUCK' AND (code IS NULL OR reason IS NULL)
    UNION ALL SELECT 'rule', id FROM rules WHERE state = 'STUCK' AND (code IS NULL OR reason IS NULL)
    UNION ALL SELECT 'request', id FROM requests WHERE state = 'FAILED' AND (code IS NULL OR reason IS NULL)
    UNION ALL SELECT 'arrival', id FROM arrivals
    WHERE (state = 'failed' AND reason IS NULL) OR (state = 'parked' AND waits_for IS NULL)
    """,
    "I7: a rule that is stuck, or not looked at yet, waits for nothing": """
    SELECT rules.id, rules.state FROM rules WHERE rules.state IN ('STUCK', 'INJECT')
    AND NOT EXISTS (SELECT 1 FROM evaluations WHERE evaluations.rule_id = rules.id)
    """,
}

_CLOCKS = {
    "postgresql": ("clock_timestamp()", "clock_timestamp() - make_interval(secs => {seconds})"),
    "sqlite": (
        "strftime('%Y-%m-%d %H:%M:%f', 'now')",
        "strftime('%Y-%m-%d %H:%M:%f', 'now', '-{seconds} seconds')",
    ),
}


def broken_invariants(database: Database, *, sweep_s: float = 5.0, announced: bool = False) -> list[str]:
    """Say which invariants do not hold, each with the first rows that break it.

    Parameters
    ----------
    sweep_s
        Time between two sweeps, seconds.
    announced
        Replicas may be COPYING without a request, because clients have announced them.
    """
    clock, late = _CLOCKS["postgresql" if database.is_postgresql else "sqlite"]
    broken = []
    with database.snapshot() as connection:
        for name, query in _CHECKS.items():
            if announced and "without a request" in name:
                continue
            # the clock's own words hold no value of a caller's
            filled = query.replace("{now}", clock).replace("{late}", late.format(seconds=2 * sweep_s))
            rows = connection.execute(text(filled)).all()
            if rows:
                broken.append(f"{name}: {len(rows)}, such as {[tuple(row) for row in rows[:5]]}")
    return broken


def assert_invariants(database: Database, *, sweep_s: float = 5.0, announced: bool = False) -> None:
    """Fail with the invariants that do not hold."""
    broken = broken_invariants(database, sweep_s=sweep_s, announced=announced)
    assert not broken, "\n".join(broken)
