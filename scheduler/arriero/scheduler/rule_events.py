"""What owners of rules are told of changes, by the letter ``notification`` of each rule (docs/adr/0018).

A rule that asks for nothing costs nothing; those that ask cost the same few statements for any number of rules, files
and datasets. Everybody who calls holds the rows of the rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, literal, select, union

from arriero.registry.dialect import id_rows
from arriero.registry.schema.tables import contents, locks
from arriero.registry.states import RESTING, LockState, RuleGrouping, RuleState
from arriero.registry.store import complete_datasets, notifications
from arriero.scheduler.evaluation_words import OK
from arriero.scheduler.reports import Outcome
from arriero.scheduler.temporary import eval_gone, eval_placed, settled

if TYPE_CHECKING:
    from arriero.scheduler.rule_changes import RuleChange, RuleCounts

STEP = 10
"""Between two messages of progress, per cent; Rucio's figure."""

_UNDER_WAY = (RuleState.REPLICATING, RuleState.STUCK)


def step(counts: Mapping[LockState, int]) -> int:
    """Give the last step that a rule has reached, per cent of its locks; 100 is for rules that are OK."""
    total = sum(counts.values())
    reached = STEP * (counts[LockState.OK] * (100 // STEP) // total) if total else 0
    return min(reached, 100 - STEP)


def tell(connection: Connection, changes: Sequence[RuleChange]) -> None:
    """Tell of rules that have become OK or have reached another step.

    Parameters
    ----------
    changes
        Written already.
    """
    ok = [change for change in changes if _becomes_ok(change)]
    further = [change for change in changes if _is_further(change)]
    waits = [change for change in (*ok, *further) if change.rule.notification in notifications.OF_CLOSED_DIDS]
    closed = notifications.closed_among(connection, {one.rule.did_id for one in waits}) if waits else set()

    def is_told(rule: RuleCounts) -> bool:
        return rule.notification == notifications.ALWAYS or rule.did_id in closed

    told = [change.rule for change in ok if is_told(change.rule)]
    notifications.tell_ok(connection, [(one.notification, one.uuid, one.scope, one.name) for one in told])
    notifications.tell_progress(
        connection,
        [
            notifications.message(
                change.rule.uuid, change.rule.scope, change.rule.name, progress=step(change.counts)
            )
            for change in further
            if is_told(change.rule)
        ],
    )
    whole = [change.rule.id for change in ok if _asks_for_datasets(change.rule)]
    if whole:
        complete_datasets.note_all(connection, whole)
        complete_datasets.tell(connection)


def _becomes_ok(change: RuleChange) -> bool:
    return change.moves and change.state is RuleState.OK and change.rule.notification in notifications.LETTERS


def _is_further(change: RuleChange) -> bool:
    return (
        change.rule.notification == notifications.PROGRESS
        and change.state in _UNDER_WAY
        and change.is_total_known
        and step(change.counts) > step(change.rule.counts)
    )


def _asks_for_datasets(rule: RuleCounts) -> bool:
    return rule.notification in notifications.OF_DATASETS and rule.grouping is not RuleGrouping.NONE


def tell_settled(connection: Connection, rules: Sequence[RuleCounts]) -> None:
    """Tell of datasets whose last file the batch in ``settled`` has brought.

    Parameters
    ----------
    connection
        When locks, rules and requests are settled.
    rules
        Those whose rows are held, as they were before.
    """
    asking = [rule.id for rule in rules if _asks_for_datasets(rule) and rule.state not in RESTING]
    if not asking:
        return
    brought = (
        select(locks.c.rule_id, contents.c.parent_id.label("dataset_id"), locks.c.rse_id)
        .select_from(settled)
        .join(locks, (locks.c.file_id == settled.c.file_id) & (locks.c.rse_id == settled.c.rse_id))
        .join(contents, contents.c.child_id == settled.c.file_id)
        .where(
            settled.c.outcome == Outcome.DONE.value, locks.c.rule_id.in_(id_rows(connection, sorted(asking)))
        )
    )
    complete_datasets.note_datasets(connection, brought)
    complete_datasets.drop_incomplete(connection)
    complete_datasets.tell(connection)


def tell_evaluated(connection: Connection, rule: RuleCounts) -> None:
    """Tell of datasets that a chunk of an evaluation has found to be there as a whole.

    Parameters
    ----------
    connection
        When the chunk is carried out, and its items are taken.
    rule
        As it was before.
    """
    if not _asks_for_datasets(rule):
        return
    lacking = union(
        select(eval_placed.c.file_id, eval_placed.c.rse_id).where(eval_placed.c.outcome != OK),
        select(eval_gone.c.file_id, eval_gone.c.rse_id),
    ).subquery("lacking")
    complete_datasets.forget(connection, rule.id, select(lacking.c.file_id, lacking.c.rse_id))
    found = (
        select(
            literal(rule.id).label("rule_id"),
            contents.c.parent_id.label("dataset_id"),
            eval_placed.c.rse_id,
        )
        .join(contents, contents.c.child_id == eval_placed.c.file_id)
        .where(eval_placed.c.outcome == OK)
    )
    complete_datasets.note_datasets(connection, found)
    complete_datasets.drop_incomplete(connection)
    complete_datasets.tell(connection)
