"""Proves the invariants of DESIGN section 11 on a live system, and mends of them what can be mended by looking again.

All is read in one snapshot, and rules that wait for an evaluation are not judged: work that goes on meanwhile is never
taken for a fault (docs/adr/0021).
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection

from arriero.registry.database import Database
from arriero.registry.errors import InvalidInput
from arriero.registry.ports import Bell
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.store import invariants as store
from arriero.registry.store import invariants_repair as repair_store
from arriero.registry.store.invariants import Check, Finding, Repair
from arriero.registry.store.invariants_deletions import DELETION_CHECKS
from arriero.registry.store.invariants_rows import ROW_CHECKS
from arriero.registry.store.invariants_rules import RULE_CHECKS

log = structlog.get_logger(__name__)

CHECKS: tuple[Check, ...] = tuple(
    sorted(
        (*RULE_CHECKS, *ROW_CHECKS, *DELETION_CHECKS),
        key=lambda check: (check.invariant == "keys", check.invariant),
    )
)
"""All of them, by invariant."""

MAX_REPAIRED = 10_000
"""Rules that one repair mends at most; repeating it mends the next."""

_PAGE = 100
"""Rules that one transaction of a repair holds."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far an examination has come."""

    step: int
    of: int


def chosen_checks(names: Collection[str] = ()) -> tuple[Check, ...]:
    """Give the checks of some names or invariants; all when none is named.

    Raises
    ------
    InvalidInput
        A name is neither.
    """
    wanted = {name.casefold() for name in names}
    known = {word.casefold() for check in CHECKS for word in (check.name, check.invariant)}
    if unknown := sorted(wanted - known):
        invariants = ", ".join(dict.fromkeys(check.invariant for check in CHECKS))
        words = ", ".join(check.name for check in CHECKS)
        raise InvalidInput(f"there is no check {unknown[0][:100]!r}; there are {invariants}; and {words}")
    return tuple(
        check
        for check in CHECKS
        if not wanted or wanted & {check.name.casefold(), check.invariant.casefold()}
    )


def examine(
    database: Database, checks: Sequence[Check] = CHECKS, *, sweep_s: float
) -> Generator[Step | Finding, None, None]:
    """Ask each check in one snapshot.

    Parameters
    ----------
    checks
        Which.
    sweep_s
        Time between two sweeps, seconds.

    Yields
    ------
    Step or Finding
        A step after each question, and a finding for each check, also for those that find nothing.
    """
    with database.snapshot(one_moment=True) as connection:
        moment = store.begin(connection, sweep_s=sweep_s)
        of_rules = [Finding(check) for check in checks if check.by_rule]
        of_rows = [Finding(check) for check in checks if not check.by_rule]
        ranges = list(store.rule_ranges(connection)) if of_rules else []
        steps = len(ranges) * len(of_rules) + len(of_rows)
        done = 0
        for within in ranges:
            for finding in of_rules:
                _ask(connection, finding, moment, within)
                yield Step(done := done + 1, steps)
        yield from of_rules
        for finding in of_rows:
            _ask(connection, finding, moment)
            yield Step(done := done + 1, steps)
            yield finding


def _ask(
    connection: Connection, finding: Finding, moment: store.Moment, within: tuple[int, int] | None = None
) -> None:
    broken, rows = store.ask(connection, finding.check, moment, within)
    if broken:
        room = store.EXAMPLES - len(finding.examples)
        finding.examples += store.named(connection, rows[:room]) if room else []
        finding.broken += broken


def report(context: Context, actor: Actor, names: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """Examine the catalogue for an administrator.

    Parameters
    ----------
    names
        Checks or invariants; all when there are none.

    Yields
    ------
    dict
        ``step`` and ``of`` after each question; for each check ``check``, ``invariant``, ``what``, ``broken`` (how many
        cases), ``is_broken`` (False also where work is only late), ``examples`` and ``next_step``.

    Raises
    ------
    Denied
        Names of everybody's data are in it.
    """
    authorize(actor, Action.DOCTOR_EXAMINE, Target("doctor"))
    found = examine(context.database, chosen_checks(names), sweep_s=context.settings.sweep_s)
    with closing(found) as lines:
        for line in lines:
            if isinstance(line, Step):
                yield {"step": line.step, "of": line.of}
            else:
                yield described(line)


def described(finding: Finding) -> dict[str, Any]:
    """Say what a check found as its readers get it."""
    check = finding.check
    return {
        "check": check.name,
        "invariant": check.invariant,
        "what": check.title,
        "broken": finding.broken,
        "is_broken": check.is_broken and finding.broken > 0,
        "examples": finding.examples,
        "next_step": check.next_step if finding.broken else None,
    }


def repair(context: Context, actor: Actor, names: Collection[str] = ()) -> dict[str, Any]:
    """Count anew the locks of rules whose counts are wrong, and have the rules that checks name looked at as a whole.

    Parameters
    ----------
    names
        As of `report`; what else the checks name is left as it is.

    Returns
    -------
    dict
        ``recounted`` and ``looked_at``: how many rules; ``more``: there are more than one call mends.
    """
    authorize(actor, Action.DOCTOR_REPAIR, Target("doctor"))
    checks = [check for check in chosen_checks(names) if check.repair is not Repair.NONE]
    looks = [check for check in checks if check.repair is Repair.LOOK]
    concerned = sorted(_concerned(context, checks))
    recounted = looked_at = 0
    for first in range(0, min(len(concerned), MAX_REPAIRED), _PAGE):
        page = concerned[first : min(first + _PAGE, MAX_REPAIRED)]

        def work(connection: Connection, page: Sequence[int] = page) -> tuple[int, int]:
            held = repair_store.hold_rules(connection, page)
            if not held:
                return 0, 0
            anew = repair_store.recount(connection, page)
            # before they are due, for then they are not judged
            moment = store.begin(connection, sweep_s=context.settings.sweep_s)
            ids = [rule_id for rule_id, _, _ in held]
            if looks:
                store.add_items(connection, looks, moment, (ids[0] - 1, ids[-1]), ids)
            audit.record(connection, actor, Action.DOCTOR_REPAIR, held[0][1], rules=len(held), recounted=anew)
            return anew, repair_store.look_again(connection, held)

        anew, again = context.database.run(work)
        recounted += anew
        looked_at += again
    if looked_at:
        context.doorbell.ring(Bell.EVALUATIONS)
    if concerned:
        log.warning("rules repaired", recounted=recounted, looked_at=looked_at)
    return {"recounted": recounted, "looked_at": looked_at, "more": len(concerned) > MAX_REPAIRED}


def _concerned(context: Context, checks: Sequence[Check]) -> set[int]:
    """Rules that the checks name: at least one more than one repair mends, if there are so many."""
    found: set[int] = set()
    with context.database.snapshot(one_moment=True) as connection:
        moment = store.begin(connection, sweep_s=context.settings.sweep_s)
        for within in store.rule_ranges(connection):
            for check in checks:
                found.update(store.concerned(connection, check, moment, within, MAX_REPAIRED + 1))
            if len(found) > MAX_REPAIRED:
                break
    return found
