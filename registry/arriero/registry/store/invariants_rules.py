"""Checks of rules, their locks and their places (I1, I2, I3), for ranges of rules."""

from arriero.registry.store.invariants import Check, Repair

_LOOK = "arriero doctor --repair has these rules looked at as a whole"

_LOCKS = (
    Check(
        "missing_locks",
        "I2",
        "a file of a rule has fewer locks than `copies`",
        """
        SELECT compared.rule_id AS rule_id, compared.file_id AS did_id, NULL AS rse_id,
               CAST(compared.held AS text) || ' of ' || CAST(compared.copies AS text) || ' locks' AS detail
        FROM compared
        WHERE compared.held < compared.copies AND NOT (compared.held = 0 AND compared.unplaced > 0)
        """,
        by_rule=True,
        repair=Repair.LOOK,
        next_step=_LOOK,
    ),
    Check(
        "surplus_locks",
        "I2",
        "a file has locks that its rule does not ask for",
        """
        SELECT compared.rule_id AS rule_id, compared.file_id AS did_id, NULL AS rse_id,
               CAST(compared.held AS text) || ' locks, '
               || CASE WHEN compared.copies = 0 THEN 'and the rule does not cover it'
                       ELSE CAST(compared.copies AS text) || ' asked for' END AS detail
        FROM compared
        WHERE compared.held > compared.copies
        """,
        by_rule=True,
        repair=Repair.LOOK,
        next_step=_LOOK,
    ),
    Check(
        "misplaced_locks",
        "I2",
        "a lock where no group of its file lies",
        """
        SELECT rule_id, file_id AS did_id, rse_id, 'lock ' || max(state) AS detail FROM (
            SELECT members.rule_id, members.file_id, dataset_locks.rse_id, NULL AS state, 1 AS placed
            FROM members JOIN dataset_locks
            ON dataset_locks.rule_id = members.rule_id AND dataset_locks.group_id = members.group_id
            UNION ALL
            SELECT judged_locks.rule_id, judged_locks.file_id, judged_locks.rse_id, judged_locks.state, 0
            FROM judged_locks
            WHERE judged_locks.rule_id NOT IN (
                SELECT judged.rule_id FROM judged WHERE judged.grouping = 'NONE' OR judged.did_type = 'FILE'
            )
        ) AS both_sides
        GROUP BY rule_id, file_id, rse_id HAVING max(placed) = 0
        """,
        by_rule=True,
        repair=Repair.LOOK,
        next_step=_LOOK,
    ),
    Check(
        "foreign_groups",
        "I2",
        "a place, or the word that there is none, of a group that its rule does not hold",
        """
        SELECT rule_id, group_id AS did_id, max(rse_id) AS rse_id, max(what) AS detail FROM (
            SELECT dataset_locks.rule_id, dataset_locks.group_id, dataset_locks.rse_id, 'has a place' AS what,
                   0 AS of_the_rule
            FROM dataset_locks
            WHERE dataset_locks.rule_id > :after_rule AND dataset_locks.rule_id <= :upto_rule
            AND dataset_locks.rule_id NOT IN (SELECT waiting.rule_id FROM waiting)
            UNION ALL
            SELECT unplaced_groups.rule_id, unplaced_groups.group_id, NULL, 'has no place', 0
            FROM unplaced_groups
            WHERE unplaced_groups.rule_id > :after_rule AND unplaced_groups.rule_id <= :upto_rule
            AND unplaced_groups.rule_id NOT IN (SELECT waiting.rule_id FROM waiting)
            UNION ALL
            SELECT tree.rule_id, tree.did_id, NULL, NULL, 1 FROM tree
            WHERE tree.grouping = 'DATASET' OR tree.did_id = tree.top_id
        ) AS both_sides
        GROUP BY rule_id, group_id HAVING max(of_the_rule) = 0
        """,
        by_rule=True,
        repair=Repair.LOOK,
        next_step=_LOOK,
    ),
)

_COUNTS = (
    Check(
        "counts",
        "I3",
        "a rule's counts are not those of its locks",
        """
        SELECT rules.id AS rule_id, NULL AS did_id, NULL AS rse_id,
               'says OK ' || CAST(rules.locks_ok AS text)
               || ', REPLICATING ' || CAST(rules.locks_replicating AS text)
               || ', STUCK ' || CAST(rules.locks_stuck AS text)
               || '; has ' || CAST(coalesce(counted.ok, 0) AS text)
               || ', ' || CAST(coalesce(counted.replicating, 0) AS text)
               || ', ' || CAST(coalesce(counted.stuck, 0) AS text) AS detail
        FROM rules LEFT JOIN (
            SELECT range_locks.rule_id,
                   sum(CASE range_locks.state WHEN 'OK' THEN 1 ELSE 0 END) AS ok,
                   sum(CASE range_locks.state WHEN 'REPLICATING' THEN 1 ELSE 0 END) AS replicating,
                   sum(CASE range_locks.state WHEN 'STUCK' THEN 1 ELSE 0 END) AS stuck
            FROM range_locks GROUP BY range_locks.rule_id
        ) AS counted ON counted.rule_id = rules.id
        WHERE rules.id > :after_rule AND rules.id <= :upto_rule
        AND (rules.locks_ok <> coalesce(counted.ok, 0)
             OR rules.locks_replicating <> coalesce(counted.replicating, 0)
             OR rules.locks_stuck <> coalesce(counted.stuck, 0))
        """,
        by_rule=True,
        repair=Repair.RECOUNT,
        next_step="arriero doctor --repair counts them anew",
    ),
    Check(
        "rule_state",
        "I3",
        "a rule's state is not what its locks say",
        """
        SELECT rules.id AS rule_id, NULL AS did_id, NULL AS rse_id,
               rules.state || ' with ' || CAST(rules.locks_replicating AS text) || ' REPLICATING, '
               || CAST(rules.locks_stuck AS text) || ' STUCK, '
               || CAST((SELECT count(*) FROM unplaced_groups WHERE unplaced_groups.rule_id = rules.id) AS text)
               || ' groups without a place' AS detail
        FROM judged JOIN rules ON rules.id = judged.rule_id
        WHERE rules.state <> CASE
            WHEN rules.locks_stuck > 0
                OR EXISTS (SELECT 1 FROM unplaced_groups WHERE unplaced_groups.rule_id = rules.id) THEN 'STUCK'
            WHEN rules.locks_replicating > 0 THEN 'REPLICATING'
            ELSE 'OK' END
        """,
        by_rule=True,
        repair=Repair.LOOK,
        next_step=_LOOK,
    ),
    Check(
        "lock_state",
        "I3",
        "a lock's state is not what its replica says",
        """
        SELECT judged_locks.rule_id AS rule_id, judged_locks.file_id AS did_id, judged_locks.rse_id AS rse_id,
               'lock ' || judged_locks.state || ', replica ' || coalesce(replicas.state, 'none') AS detail
        FROM judged_locks
        LEFT JOIN replicas ON replicas.file_id = judged_locks.file_id AND replicas.rse_id = judged_locks.rse_id
        WHERE (judged_locks.state = 'OK'
               AND coalesce(replicas.state, '') NOT IN ('AVAILABLE', 'TEMPORARY_UNAVAILABLE'))
        OR (judged_locks.state = 'REPLICATING' AND coalesce(replicas.state, '') <> 'COPYING')
        """,
        by_rule=True,
        repair=Repair.LOOK,
        next_step=_LOOK,
    ),
    Check(
        "held_tombstones",
        "I3",
        "a replica that a lock holds has a tombstone",
        """
        SELECT range_locks.rule_id AS rule_id, range_locks.file_id AS did_id, range_locks.rse_id AS rse_id,
               'lock ' || range_locks.state || ', replica ' || replicas.state AS detail
        FROM range_locks
        JOIN replicas ON replicas.file_id = range_locks.file_id AND replicas.rse_id = range_locks.rse_id
        WHERE replicas.tombstone IS NOT NULL
        """,
        by_rule=True,
        next_step="its deletion is refused while the lock holds it; report it as a fault of Arriero, with this output",
    ),
)

_FILES = (
    Check(
        "no_copy",
        "I1",
        "a file under a rule has no copy, and its lock does not say so",
        """
        SELECT range_locks.rule_id AS rule_id, range_locks.file_id AS did_id, range_locks.rse_id AS rse_id,
               'lock ' || range_locks.state AS detail
        FROM range_locks
        LEFT JOIN replicas ON replicas.file_id = range_locks.file_id
        AND replicas.state IN ('AVAILABLE', 'TEMPORARY_UNAVAILABLE', 'COPYING')
        WHERE range_locks.state <> 'STUCK' AND replicas.file_id IS NULL
        AND range_locks.rule_id NOT IN (SELECT unfinished.rule_id FROM unfinished)
        """,
        by_rule=True,
        repair=Repair.LOOK,
        next_step="arriero trace SCOPE:NAME shows where its copies went; register a good one with arriero replica add",
    ),
    Check(
        "locks_of_nothing",
        "keys",
        "a lock on a file, or at an RSE, that is not there",
        """
        SELECT range_locks.rule_id AS rule_id, range_locks.file_id AS did_id, range_locks.rse_id AS rse_id,
               CASE WHEN dids.id IS NULL THEN 'no such file' ELSE 'no such RSE' END AS detail
        FROM range_locks
        LEFT JOIN dids ON dids.id = range_locks.file_id AND dids.type = 'FILE'
        LEFT JOIN rses ON rses.id = range_locks.rse_id
        WHERE dids.id IS NULL OR rses.id IS NULL
        """,
        by_rule=True,
    ),
)

_WORK = (
    Check(
        "forgotten_rules",
        "I7",
        "a rule that is stuck, or not looked at yet, or has more to be looked at, waits for nothing",
        """
        SELECT rules.id AS rule_id, rules.did_id AS did_id, NULL AS rse_id, 'rule ' || rules.state AS detail
        FROM rules
        WHERE rules.id > :after_rule AND rules.id <= :upto_rule
        AND NOT EXISTS (SELECT 1 FROM evaluations WHERE evaluations.rule_id = rules.id)
        AND (rules.state IN ('STUCK', 'INJECT')
             OR (rules.state IN ('OK', 'REPLICATING')
                 AND EXISTS (SELECT 1 FROM evaluation_items WHERE evaluation_items.rule_id = rules.id)))
        """,
        by_rule=True,
        repair=Repair.LOOK,
        next_step=_LOOK,
    ),
    Check(
        "rules_without_reason",
        "I7",
        "a rule or a lock waits without a reason",
        """
        SELECT rules.id AS rule_id, rules.did_id AS did_id, NULL AS rse_id, 'rule STUCK' AS detail
        FROM rules
        WHERE rules.id > :after_rule AND rules.id <= :upto_rule
        AND rules.state = 'STUCK' AND (rules.code IS NULL OR rules.reason IS NULL)
        UNION ALL
        SELECT locks.rule_id, locks.file_id, locks.rse_id, 'lock STUCK' FROM locks
        WHERE locks.rule_id > :after_rule AND locks.rule_id <= :upto_rule
        AND locks.state = 'STUCK' AND (locks.code IS NULL OR locks.reason IS NULL)
        """,
        by_rule=True,
        repair=Repair.LOOK,
        next_step=_LOOK,
    ),
)

RULE_CHECKS: tuple[Check, ...] = (*_FILES[:1], *_LOCKS, *_COUNTS, *_WORK, *_FILES[1:])
"""In the order of the invariants."""
