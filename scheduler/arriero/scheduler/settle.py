"""Settles batches of reports: replicas, locks, rules, requests, events and arrivals change together or not at all.

A fixed number of statements a batch. A report counts only by compare-and-set on (request, fence, owner, SUBMITTED): a
worker that was given up is not believed (DESIGN 4.1). Nothing is rung from here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy import Connection

from arriero.registry.database import Database
from arriero.registry.dialect import join_as_written
from arriero.registry.errors import Busy
from arriero.scheduler import rule_events
from arriero.scheduler import settle_effects as effects
from arriero.scheduler.errors import RulesJoined
from arriero.scheduler.reports import Outcome, Report, by_request
from arriero.scheduler.settle_rules import lock_rules, settle_rules, wake_waiting

log = structlog.get_logger(__name__)

_TRIES = 20


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a batch of reports."""

    done: int = 0
    retried: int = 0
    failed: int = 0
    released: int = 0
    dropped: int = 0
    """Copies that did not succeed and are not tried again, because nobody wants them or the file is there."""
    discarded: int = 0
    """Reports of workers that had been given up."""
    evaluations: int = 0
    """Rules that have to be looked at now."""


def settle(
    database: Database,
    reports: Sequence[Report],
    *,
    stuck_retry_s: float,
    note: Callable[[Connection, Settled], None] | None = None,
) -> Settled:
    """Settle a batch in one transaction.

    Parameters
    ----------
    reports
        At most one counts for each request, the last.
    stuck_retry_s
        When a rule with a failed copy is looked at again, seconds.
    note
        Writes what else belongs into the transaction; given what became of the batch.

    Raises
    ------
    Busy
        The database lost every race; nothing has changed, and the same batch may be settled again.
    """
    batch = list(by_request(reports).values())
    if not batch:
        return Settled()
    for _ in range(_TRIES):
        try:
            result = database.run(
                partial(_settle_and_note, reports=batch, stuck_retry_s=stuck_retry_s, note=note)
            )
        except RulesJoined:
            continue
        if result.discarded:
            log.warning("reports of another worker's requests discarded", count=result.discarded)
        return result
    raise Busy("rules keep coming to the replicas of this batch; settle it again")


def _settle_and_note(
    tx: Connection,
    reports: Sequence[Report],
    stuck_retry_s: float,
    note: Callable[[Connection, Settled], None] | None,
) -> Settled:
    result = _settle(tx, reports, stuck_retry_s)
    if note is not None:
        note(tx, result)
    return result


def _settle(tx: Connection, reports: Sequence[Report], stuck_retry_s: float) -> Settled:
    join_as_written(tx)
    effects.note_reports(tx, reports)
    held = len(reports) - effects.discard_zombies(tx)
    if not held:
        return Settled(discarded=len(reports))
    known = lock_rules(tx)
    effects.lock_replicas(tx)
    effects.drop_needless(tx)
    deltas = effects.lock_deltas(tx)
    ids = {rule.id for rule in known}
    if deltas.keys() - ids:
        raise RulesJoined("a rule has come to one of these replicas")
    effects.settle_replicas(tx)
    effects.settle_locks(tx)
    failures = {report.request_id: report for report in reports if report.outcome is Outcome.FAILED}
    touched = [rule for rule in known if rule.id in deltas]
    due_now = settle_rules(tx, touched, deltas, failures, stuck_retry_s)
    raised = wake_waiting(tx, ids)
    effects.record(tx, by_request(reports))
    counts = effects.settle_requests(tx, held)
    rule_events.tell_settled(tx, touched)
    return Settled(
        done=counts[Outcome.DONE],
        retried=counts[Outcome.RETRY],
        failed=counts[Outcome.FAILED],
        released=counts[Outcome.RELEASED],
        dropped=counts[Outcome.DROPPED],
        discarded=len(reports) - held,
        evaluations=due_now + raised,
    )
