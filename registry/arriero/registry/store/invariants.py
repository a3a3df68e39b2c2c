"""The invariants of DESIGN section 11 as queries for what must not be there, and how they are asked.

Each check is plain SQL that both databases read, and takes nothing from the code that it checks: a fault there must
not be one here too. All are asked in one snapshot. What concerns rules is asked range by range of rules, so that a
range is what has to fit, not the catalogue.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import BindParameter, Connection, TextClause, bindparam, select, text

from arriero.registry.schema.base import UtcDateTime, now
from arriero.registry.schema.tables import dids, rses, rules, scopes

EXAMPLES = 5
"""Cases that a finding shows."""

RANGE_RULES = 1000
RANGE_LOCKS = 500_000
"""Most rules, and most locks by the rules' own counts, that one range has; one rule at least."""


class Repair(StrEnum):
    """What mends a rule that a check names."""

    RECOUNT = "recount"
    LOOK = "look"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Check:
    """One question; whatever it finds should not be there.

    Parameters
    ----------
    name
        Stable word for it.
    invariant
        ``I1`` to ``I7``; ``keys`` for what the foreign keys that there are none of would prove (docs/adr/0007).
    title
        What is wrong where it finds something.
    sql
        Query with the columns ``rule_id``, ``did_id``, ``rse_id`` (each may be null) and ``detail``. It may use
        ``:at`` (the moment of the snapshot) and ``:late`` (two sweeps before it).
    by_rule
        It is about rules ``:after_rule < id <= :upto_rule``, with what `PRELUDE` prepares.
    repair
        What mends it.
    next_step
        What a person does about it.
    is_broken
        False where it says that work is late, which breaks nothing.
    """

    name: str
    invariant: str
    title: str
    sql: str
    by_rule: bool = False
    repair: Repair = Repair.NONE
    next_step: str = "nothing mends this by itself: report it as a fault of Arriero, with this output"
    is_broken: bool = True


PRELUDE = """
WITH RECURSIVE unfinished(rule_id) AS (
    SELECT rules.id FROM rules
    WHERE rules.id > :after_rule AND rules.id <= :upto_rule
    AND (
        EXISTS (
            SELECT 1 FROM evaluations WHERE evaluations.rule_id = rules.id
            AND (evaluations.lease_owner IS NOT NULL OR evaluations.not_before <= :at)
        )
        OR EXISTS (SELECT 1 FROM evaluation_items WHERE evaluation_items.rule_id = rules.id)
    )
),
judged(rule_id, did_id, did_type, copies, grouping) AS (
    SELECT rules.id, rules.did_id, dids.type, rules.copies, rules.grouping
    FROM rules JOIN dids ON dids.id = rules.did_id
    WHERE rules.id > :after_rule AND rules.id <= :upto_rule
    AND rules.state IN ('REPLICATING', 'OK', 'STUCK')
    AND rules.id NOT IN (SELECT unfinished.rule_id FROM unfinished)
),
waiting(rule_id) AS (
    SELECT rules.id FROM rules
    WHERE rules.id > :after_rule AND rules.id <= :upto_rule
    AND rules.id NOT IN (SELECT judged.rule_id FROM judged)
),
tree(rule_id, did_id, top_id, copies, grouping) AS (
    SELECT judged.rule_id, judged.did_id, judged.did_id, judged.copies, judged.grouping FROM judged
    UNION
    SELECT tree.rule_id, contents.child_id, tree.top_id, tree.copies, tree.grouping FROM tree
    JOIN dids ON dids.id = tree.did_id AND dids.type = 'CONTAINER'
    JOIN contents ON contents.parent_id = tree.did_id
),
members(rule_id, group_id, file_id, copies) AS (
    SELECT tree.rule_id, CASE tree.grouping WHEN 'DATASET' THEN tree.did_id ELSE tree.top_id END,
           contents.child_id, tree.copies
    FROM tree
    JOIN dids ON dids.id = tree.did_id AND dids.type = 'DATASET'
    JOIN contents ON contents.parent_id = tree.did_id
    UNION ALL
    SELECT judged.rule_id, judged.did_id, judged.did_id, judged.copies FROM judged WHERE judged.did_type = 'FILE'
),
range_locks(rule_id, file_id, rse_id, state) AS (
    SELECT locks.rule_id, locks.file_id, locks.rse_id, locks.state FROM locks
    WHERE locks.rule_id > :after_rule AND locks.rule_id <= :upto_rule
),
judged_locks(rule_id, file_id, rse_id, state) AS (
    SELECT range_locks.rule_id, range_locks.file_id, range_locks.rse_id, range_locks.state FROM range_locks
    WHERE range_locks.rule_id NOT IN (SELECT waiting.rule_id FROM waiting)
),
compared(rule_id, file_id, copies, held, unplaced) AS (
    SELECT rule_id, file_id, max(copies), sum(held), max(unplaced) FROM (
        SELECT members.rule_id, members.file_id, members.copies, 0 AS held,
               CASE WHEN unplaced_groups.group_id IS NULL THEN 0 ELSE 1 END AS unplaced
        FROM members LEFT JOIN unplaced_groups
        ON unplaced_groups.rule_id = members.rule_id AND unplaced_groups.group_id = members.group_id
        UNION ALL
        SELECT judged_locks.rule_id, judged_locks.file_id, 0, 1, 0 FROM judged_locks
    ) AS both_sides GROUP BY rule_id, file_id
)
"""
"""The rules of a range that have something left to look at (``unfinished``; one that rests will when it goes on); those
that are judged, and those that are not (``waiting``); what is below the judged ones, their files with their groups; locks.

Large sets are held against each other by a union that is grouped, and not by a join: nothing is known of their sizes
beforehand, and a join that is planned for a few rows never ends with a million.
"""


@dataclass(slots=True)
class Finding:
    """What a check found."""

    check: Check
    broken: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Moment:
    """The moment of a snapshot, by the database's clock, and what has been due for too long then."""

    at: datetime
    late: datetime


def begin(connection: Connection, *, sweep_s: float) -> Moment:
    """Read the clock; the first statement of the snapshot that is examined.

    Parameters
    ----------
    sweep_s
        Time between two sweeps, seconds.
    """
    at = connection.execute(select(now())).scalar_one()
    return Moment(at, at - timedelta(seconds=2 * sweep_s))


def rule_ranges(connection: Connection) -> Iterator[tuple[int, int]]:
    """Divide the rules into ranges of ids, ``after < id <= upto``."""
    after = 0
    while True:
        rows = connection.execute(
            select(rules.c.id, rules.c.locks_ok + rules.c.locks_replicating + rules.c.locks_stuck)
            .where(rules.c.id > after)
            .order_by(rules.c.id)
            .limit(RANGE_RULES)
        ).all()
        if not rows:
            return
        upto, sum_of_locks = rows[0][0], max(rows[0][1], 0)
        for rule_id, count in rows[1:]:
            sum_of_locks += max(count, 0)
            if sum_of_locks > RANGE_LOCKS:
                break
            upto = rule_id
        yield after, upto
        after = upto


def ask(
    connection: Connection,
    check: Check,
    moment: Moment,
    within: tuple[int, int] | None = None,
    *,
    examples: int = EXAMPLES,
) -> tuple[int, Sequence[Any]]:
    """Ask one question; of rules, within one range.

    Returns
    -------
    broken
        How many cases there are.
    rows
        The first of them.
    """
    query = (
        f"{PRELUDE if check.by_rule else ''} SELECT found.*, count(*) OVER () AS total "  # noqa: S608 - own text
        f"FROM ({check.sql}) AS found ORDER BY rule_id, did_id, rse_id LIMIT :examples"
    )
    rows = connection.execute(_typed(query), _values(moment, within) | {"examples": examples}).all()
    return (rows[0].total if rows else 0), rows


def concerned(
    connection: Connection, check: Check, moment: Moment, within: tuple[int, int], limit: int
) -> list[int]:
    """Ids of the rules of a range that a check names, at most ``limit``."""
    query = (
        f"{PRELUDE} SELECT DISTINCT found.rule_id FROM ({check.sql}) AS found "  # noqa: S608 - own text
        "ORDER BY found.rule_id LIMIT :examples"
    )
    return list(
        connection.scalars(_typed(query), _values(moment, within) | {"examples": limit}),
    )


def add_items(
    connection: Connection,
    checks: Sequence[Check],
    moment: Moment,
    within: tuple[int, int],
    rule_ids: Sequence[int],
) -> None:
    """Have looked at what checks name of some rules of a range: a file that is surplus is in no contents of the rule.

    Parameters
    ----------
    checks
        In one statement: a rule with items is not judged any more.
    rule_ids
        Whose rows are held.
    """
    did_id = "CAST(did_id AS bigint) AS did_id"
    sides = (f"SELECT rule_id, {did_id} FROM ({one.sql}) AS {one.name}" for one in checks)  # noqa: S608
    every = " UNION ".join(sides)
    query = (
        f"INSERT INTO evaluation_items (rule_id, kind, did_id) {PRELUDE} "  # noqa: S608 - own text
        f"SELECT found.rule_id, dids.type, found.did_id FROM ({every}) AS found "
        "JOIN dids ON dids.id = found.did_id WHERE found.rule_id IN :rule_ids"
    )
    chosen: BindParameter[int] = bindparam("rule_ids", expanding=True)
    connection.execute(
        _typed(query).bindparams(chosen), _values(moment, within) | {"rule_ids": list(rule_ids)}
    )


def _values(moment: Moment, within: tuple[int, int] | None) -> dict[str, Any]:
    values: dict[str, Any] = {"at": moment.at, "late": moment.late}
    if within is not None:
        values |= {"after_rule": within[0], "upto_rule": within[1]}
    return values


def _typed(query: str) -> TextClause:
    statement = text(query)
    # instants are written as the columns hold them, which is not the same on both databases
    typed = [bindparam(name, type_=UtcDateTime()) for name in ("at", "late") if f":{name}" in query]
    return statement.bindparams(*typed)


def named(connection: Connection, rows: Sequence[Any]) -> list[dict[str, str]]:
    """Say in names what cases are about; what is not there any more keeps its number."""
    rule_ids = {row.rule_id for row in rows if row.rule_id is not None}
    did_ids = {row.did_id for row in rows if row.did_id is not None}
    rse_ids = {row.rse_id for row in rows if row.rse_id is not None}
    of_rules = {
        rule_id: uuid.hex
        for rule_id, uuid in connection.execute(
            select(rules.c.id, rules.c.uuid).where(rules.c.id.in_(rule_ids))
        )
    }
    of_dids = {
        did_id: f"{scope or '?'}:{name}"
        for did_id, scope, name in connection.execute(
            select(dids.c.id, scopes.c.name, dids.c.name)
            .outerjoin(scopes, scopes.c.id == dids.c.scope_id)
            .where(dids.c.id.in_(did_ids))
        )
    }
    of_rses = {
        row.id: row.name
        for row in connection.execute(select(rses.c.id, rses.c.name).where(rses.c.id.in_(rse_ids)))
    }
    return [
        {
            key: value
            for key, value in (
                ("rule_id", _name(of_rules, row.rule_id)),
                ("did", _name(of_dids, row.did_id)),
                ("rse", _name(of_rses, row.rse_id)),
                ("detail", row.detail),
            )
            if value is not None
        }
        for row in rows
    ]


def _name(names: dict[int, str], number: int | None) -> str | None:
    return None if number is None else names.get(number, f"#{number}")
