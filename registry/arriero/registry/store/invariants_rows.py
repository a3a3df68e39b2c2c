"""Checks of requests, arrivals and leases (I5, I6, I7), and of what refers to what is not there."""

from arriero.registry.store.invariants import Check

_STORAGES = (
    Check(
        "wrong_at_storage",
        "I4",
        "a replica that counts as verified, and was found missing or wrong at its storage since",
        """
        SELECT NULL AS rule_id, storage_findings.file_id AS did_id, storage_findings.rse_id AS rse_id,
               storage_findings.kind AS detail
        FROM storage_findings
        JOIN replicas ON replicas.file_id = storage_findings.file_id
        AND replicas.rse_id = storage_findings.rse_id
        WHERE storage_findings.state <> 'DECLARED' AND replicas.state = 'AVAILABLE'
        AND replicas.verified_at <= storage_findings.last_seen_at
        """,
        next_step="see `arriero audit findings`, and have the file read again: declare that replica suspicious",
    ),
)

_REQUESTS = (
    Check(
        "unwanted_requests",
        "I5",
        "a request that no lock wants",
        """
        SELECT NULL AS rule_id, requests.file_id AS did_id, requests.destination_id AS rse_id,
               'request ' || requests.state AS detail
        FROM requests
        WHERE requests.state <> 'SUBMITTED' AND NOT EXISTS (
            SELECT 1 FROM locks WHERE locks.file_id = requests.file_id AND locks.rse_id = requests.destination_id
            AND (locks.state <> 'OK' OR EXISTS (SELECT 1 FROM evaluations WHERE evaluations.rule_id = locks.rule_id))
        ) AND NOT EXISTS (
            SELECT 1 FROM hops WHERE hops.file_id = requests.file_id AND hops.rse_id = requests.destination_id
        )
        """,
    ),
    Check(
        "copies_without_request",
        "I5",
        "a replica that is COPYING without a request",
        """
        SELECT NULL AS rule_id, replicas.file_id AS did_id, replicas.rse_id AS rse_id,
               'replica COPYING' AS detail
        FROM replicas
        LEFT JOIN requests ON requests.file_id = replicas.file_id
        AND requests.destination_id = replicas.rse_id AND requests.state IN ('QUEUED', 'SUBMITTED')
        WHERE replicas.state = 'COPYING' AND replicas.announced_at IS NULL AND requests.id IS NULL
        """,
        next_step="say that it is not to come (state U of the replica): its rules ask for a copy then",
    ),
)

_ARRIVALS = (
    Check(
        "ingested_without_replica",
        "I6",
        "a dataset in a Butler whose replica is not there",
        """
        SELECT NULL AS rule_id, arrivals.file_id AS did_id, arrivals.rse_id AS rse_id,
               'in Butler ' || butlers.name || ', replica ' || coalesce(replicas.state, 'none') AS detail
        FROM arrivals
        JOIN butlers ON butlers.id = arrivals.butler_id
        LEFT JOIN replicas ON replicas.file_id = arrivals.file_id AND replicas.rse_id = arrivals.rse_id
        WHERE arrivals.state = 'ingested' AND butlers.transfer <> 'move'
        AND coalesce(replicas.state, 'none') NOT IN ('AVAILABLE', 'TEMPORARY_UNAVAILABLE', 'BAD', 'COPYING')
        """,
        next_step="readers of that Butler cannot open it: add a rule that brings the file back to this RSE",
    ),
    Check(
        "missing_arrivals",
        "I6",
        "a replica that a Butler should have and that is not in its ledger",
        """
        SELECT DISTINCT NULL AS rule_id, replicas.file_id AS did_id, replicas.rse_id AS rse_id,
               'not in the ledger of Butler ' || butlers.name AS detail
        FROM butler_selections
        JOIN butlers ON butlers.id = butler_selections.butler_id
        JOIN butler_rses ON butler_rses.butler_id = butlers.id
        JOIN replicas ON replicas.rse_id = butler_rses.rse_id AND replicas.state = 'AVAILABLE'
        JOIN dids ON dids.id = replicas.file_id AND dids.scope_id = butler_selections.scope_id
        AND dids.name LIKE butler_selections.name_like ESCAPE '\\'
        LEFT JOIN arrivals ON arrivals.butler_id = butlers.id AND arrivals.file_id = replicas.file_id
        WHERE arrivals.id IS NULL
        """,
    ),
)

_LEASES = (
    Check(
        "outlived_leases",
        "I7",
        "leased in the past for longer than two sweeps",
        """
        SELECT NULL AS rule_id, requests.file_id AS did_id, requests.destination_id AS rse_id,
               'request of ' || coalesce(requests.lease_owner, '?') AS detail
        FROM requests WHERE requests.state = 'SUBMITTED' AND requests.lease_until < :late
        UNION ALL
        SELECT evaluations.rule_id, NULL, NULL, 'evaluation of ' || evaluations.lease_owner
        FROM evaluations WHERE evaluations.lease_owner IS NOT NULL AND evaluations.lease_until < :late
        UNION ALL
        SELECT NULL, arrivals.file_id, arrivals.rse_id, 'arrival of ' || coalesce(arrivals.lease_owner, '?')
        FROM arrivals WHERE arrivals.state = 'leased' AND arrivals.lease_until < :late
        """,
        next_step="no sweep runs: start a worker with -Q maintenance, and beat",
    ),
    Check(
        "late_evaluations",
        "I7",
        "a rule has been due to be looked at for longer than two sweeps",
        """
        SELECT evaluations.rule_id AS rule_id, NULL AS did_id, NULL AS rse_id,
               'attempt ' || CAST(evaluations.attempt AS text) AS detail
        FROM evaluations WHERE evaluations.lease_owner IS NULL AND evaluations.not_before < :late
        """,
        next_step="start more workers with -Q rules; if there are enough, look at their logs",
        is_broken=False,
    ),
    Check(
        "held_without_lease",
        "I7",
        "held without a lease",
        """
        SELECT NULL AS rule_id, requests.file_id AS did_id, requests.destination_id AS rse_id,
               'request ' || requests.state AS detail
        FROM requests
        WHERE (requests.state = 'SUBMITTED')
              <> (requests.lease_owner IS NOT NULL AND requests.lease_until IS NOT NULL)
        UNION ALL
        SELECT evaluations.rule_id, NULL, NULL, 'evaluation' FROM evaluations
        WHERE (evaluations.lease_owner IS NOT NULL) <> (evaluations.lease_until IS NOT NULL)
        UNION ALL
        SELECT NULL, arrivals.file_id, arrivals.rse_id, 'arrival ' || arrivals.state
        FROM arrivals
        WHERE (arrivals.state = 'leased') <> (arrivals.lease_owner IS NOT NULL AND arrivals.lease_until IS NOT NULL)
        """,
    ),
    Check(
        "waits_without_reason",
        "I7",
        "a request or an arrival waits without a reason",
        """
        SELECT NULL AS rule_id, requests.file_id AS did_id, requests.destination_id AS rse_id,
               'request FAILED' AS detail
        FROM requests WHERE requests.state = 'FAILED' AND (requests.code IS NULL OR requests.reason IS NULL)
        UNION ALL
        SELECT NULL, arrivals.file_id, arrivals.rse_id, 'arrival ' || arrivals.state FROM arrivals
        WHERE (arrivals.state = 'failed' AND arrivals.reason IS NULL)
        OR (arrivals.state = 'parked' AND arrivals.waits_for IS NULL)
        """,
    ),
)

_KEYS = (
    Check(
        "locks_without_rule",
        "keys",
        "a lock of a rule that is not there",
        """
        SELECT locks.rule_id AS rule_id, locks.file_id AS did_id, locks.rse_id AS rse_id, 'no such rule' AS detail
        FROM locks LEFT JOIN rules ON rules.id = locks.rule_id WHERE rules.id IS NULL
        """,
    ),
    Check(
        "replicas_of_nothing",
        "keys",
        "a replica of a file, or at an RSE, that is not there",
        """
        SELECT NULL AS rule_id, replicas.file_id AS did_id, replicas.rse_id AS rse_id,
               CASE WHEN dids.id IS NULL THEN 'no such file' ELSE 'no such RSE' END AS detail
        FROM replicas
        LEFT JOIN dids ON dids.id = replicas.file_id AND dids.type = 'FILE'
        LEFT JOIN rses ON rses.id = replicas.rse_id
        WHERE dids.id IS NULL OR rses.id IS NULL
        """,
    ),
    Check(
        "requests_of_nothing",
        "keys",
        "a request for a file, or at an RSE, or of a replica, that is not there",
        """
        SELECT NULL AS rule_id, requests.file_id AS did_id, requests.destination_id AS rse_id,
               CASE WHEN dids.id IS NULL THEN 'no such file' WHEN rses.id IS NULL THEN 'no such RSE'
                    ELSE 'no replica to come' END AS detail
        FROM requests
        LEFT JOIN dids ON dids.id = requests.file_id AND dids.type = 'FILE'
        LEFT JOIN rses ON rses.id = requests.destination_id
        LEFT JOIN replicas ON replicas.file_id = requests.file_id AND replicas.rse_id = requests.destination_id
        WHERE dids.id IS NULL OR rses.id IS NULL OR replicas.file_id IS NULL
        """,
    ),
    Check(
        "contents_of_nothing",
        "keys",
        "an attachment to, or of, what is not there or of another type",
        """
        SELECT NULL AS rule_id, contents.parent_id AS did_id, NULL AS rse_id,
               'holds #' || CAST(contents.child_id AS text) AS detail
        FROM contents
        LEFT JOIN dids AS parent ON parent.id = contents.parent_id
        LEFT JOIN dids AS child ON child.id = contents.child_id
        WHERE parent.id IS NULL OR child.id IS NULL OR parent.type = 'FILE'
        OR (parent.type = 'DATASET') <> (child.type = 'FILE')
        """,
    ),
    Check(
        "work_of_nothing",
        "keys",
        "what is to be looked at is of a rule that is not there",
        """
        SELECT evaluation_items.rule_id AS rule_id, evaluation_items.did_id AS did_id, NULL AS rse_id,
               'item ' || evaluation_items.kind AS detail
        FROM evaluation_items LEFT JOIN rules ON rules.id = evaluation_items.rule_id
        WHERE rules.id IS NULL
        """,
    ),
    Check(
        "arrivals_of_nothing",
        "keys",
        "an arrival of a file that is not there",
        """
        SELECT NULL AS rule_id, arrivals.file_id AS did_id, arrivals.rse_id AS rse_id,
               'arrival ' || arrivals.state AS detail
        FROM arrivals LEFT JOIN dids ON dids.id = arrivals.file_id AND dids.type = 'FILE'
        WHERE dids.id IS NULL
        """,
    ),
    Check(
        "dids_of_nobody",
        "keys",
        "a DID whose scope or account is not there",
        """
        SELECT NULL AS rule_id, dids.id AS did_id, NULL AS rse_id,
               CASE WHEN scopes.id IS NULL THEN 'no such scope' ELSE 'no such account' END AS detail
        FROM dids
        LEFT JOIN scopes ON scopes.id = dids.scope_id
        LEFT JOIN accounts ON accounts.id = dids.account_id
        WHERE scopes.id IS NULL OR accounts.id IS NULL
        """,
    ),
)

ROW_CHECKS: tuple[Check, ...] = (*_STORAGES, *_REQUESTS, *_ARRIVALS, *_LEASES, *_KEYS)
"""In the order of the invariants."""
