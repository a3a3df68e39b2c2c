"""What an audit of a storage finds, held against the catalogue by sets, noted, and acted on when it is confirmed.

What has changed in the catalogue shortly before the moment of the audit, or since, is not judged. One audit proves nothing:
what it finds is noted, and acted on when another audit, long enough after it, finds the same. An audit that finds too much
counts for nothing (docs/adr/0024).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import Conflict
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.bad_replicas import Sayer
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.pfn_lookup import Place, candidates
from arriero.registry.services.storage_audits import hold_receiving, list_audits
from arriero.registry.services.storage_findings import act
from arriero.registry.settings import Settings
from arriero.registry.states import AuditState, FindingKind
from arriero.registry.store import audit_lines
from arriero.registry.store import storage_audits as store
from arriero.registry.store import storage_findings as findings
from arriero.registry.store.rses import load_rses

log = structlog.get_logger(__name__)

EMPTY = "empty"
TOO_MANY = "too_many"
DRY_RUN = "dry_run"
"""Why an audit counts for nothing."""

_PAGE = 10_000


def compare(
    context: Context, actor: Actor, audit_id: int, *, brake: float | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Compare an audit whose lines are all there with the catalogue, and act on what is confirmed by it.

    Parameters
    ----------
    brake
        Instead of the setting ``audit_brake_share``; for administrators.
    dry_run
        Only count; nothing is noted or done, and the audit ends.

    Returns
    -------
    dict
        The audit, as `list_audits` gives it.

    Raises
    ------
    Conflict
        The audit has ended, or the database has lost lines of it.
    """
    settings = (
        context.settings
        if brake is None
        else context.settings.model_copy(update={"audit_brake_share": brake})
    )
    row = _check_complete(context, actor, audit_id, overrides=brake is not None)
    most_dark = _most(settings, row["lines"])
    if row["unknown"] <= most_dark:
        _look_again(context, row)
    counts = context.database.run(
        lambda connection: _compare(connection, actor, audit_id, settings, dry_run=dry_run)
    )
    declared = 0
    if counts is not None:
        declared = act(
            context, row["rse_id"], Sayer(actor.account, actor.account_id), request_id=actor.request_id
        ).declared
        context.database.run(lambda connection: store.change(connection, audit_id, {"declared": declared}))
    [shown] = list_audits(context, audit_id=audit_id)
    log.info("audit compared", audit=audit_id, rse=row["rse"], state=shown["state"], declared=declared)
    return shown


def _check_complete(context: Context, actor: Actor, audit_id: int, *, overrides: bool) -> dict[str, Any]:
    def work(connection: Connection) -> dict[str, Any]:
        row = hold_receiving(connection, actor, audit_id)
        if overrides:
            authorize(actor, Action.AUDIT_OVERRIDE, Target(row["rse"]))
        if audit_lines.count(connection, audit_id) != row["lines"]:
            raise Conflict(
                f"the database has lost lines of audit {audit_id}, as it may when it crashes: begin a new one",
                code="audit_incomplete",
            )
        audit_lines.describe(connection)
        return {**row, "unknown": audit_lines.count(connection, audit_id, only_unknown=True)}

    return context.database.run(work)


def _look_again(context: Context, row: RowMapping | Mapping[str, Any]) -> None:
    """Find the files that were registered after their lines had come."""
    after = -1
    while True:

        def work(connection: Connection, after: int = after) -> int | None:
            lines = audit_lines.unknown(connection, row["id"], after, _PAGE)
            if not lines:
                return None
            rse = load_rses(connection, [row["rse"]])[row["rse"]]
            found = candidates(connection, [[Place(rse, path)] for _, path, _, _ in lines])
            known = [(lines[one[0]][0], *one[1:]) for one in found]
            audit_lines.look_again(connection, row["id"], lines, known)
            return lines[-1][0]

        last = context.database.run(work)
        if last is None:
            return
        after = last


def _most(settings: Settings, of: int) -> int:
    """How many are believed, of so many."""
    return max(settings.audit_brake_files, int(settings.audit_brake_share * of))


def _compare(
    connection: Connection, actor: Actor, audit_id: int, settings: Settings, *, dry_run: bool
) -> dict[FindingKind, int] | None:
    """Note what an audit finds; None when it counts for nothing."""
    row = hold_receiving(connection, actor, audit_id)
    rse_id, at = row["rse_id"], row["observed_at"]
    before = at - timedelta(seconds=settings.audit_margin_s)
    judged = store.count_judged(connection, rse_id, before)
    store.find(connection, audit_id, rse_id, before, checksums=row["has_adler32"])
    counts = store.count_found(connection)
    values: dict[str, Any] = {"judged": judged, **{kind.lower(): number for kind, number in counts.items()}}
    fault = _fault(row, judged, counts, settings)
    state = AuditState.COMPARED
    if fault is not None:
        code, reason = fault
        state = AuditState.HELD
        store.change(connection, audit_id, {**values, "state": state, "code": code, "reason": reason})
        log.warning("audit counts for nothing", audit=audit_id, rse=row["rse"], code=code, **counts)
    elif dry_run:
        state, reason = AuditState.ABANDONED, "it was to be a dry run"
        store.change(connection, audit_id, {**values, "state": state, "code": DRY_RUN, "reason": reason})
    else:
        store.change(connection, audit_id, {**values, "state": state})
        findings.drop_settled(connection, rse_id)
        findings.drop_unseen(connection, rse_id, _kinds(row))
        findings.note(connection, rse_id, audit_id, at)
        findings.confirm(connection, rse_id, at, apart_s=settings.audit_confirm_s)
    audit.record(connection, actor, Action.AUDIT_RUN, row["rse"], audit=audit_id, state=state, **values)
    return counts if state is AuditState.COMPARED else None


def _kinds(row: RowMapping | Mapping[str, Any]) -> list[FindingKind]:
    """What an audit could have found."""
    kinds = [FindingKind.MISSING, FindingKind.DARK]
    if row["has_bytes"]:
        kinds.append(FindingKind.WRONG_SIZE)
    if row["has_adler32"]:
        kinds.append(FindingKind.WRONG_CHECKSUM)
    return kinds


def _fault(
    row: RowMapping | Mapping[str, Any], judged: int, counts: Mapping[FindingKind, int], settings: Settings
) -> tuple[str, str] | None:
    """Why an audit is not to be believed: code and sentence."""
    rse, lines = row["rse"], row["lines"]
    if judged and not lines:
        return (
            EMPTY,
            f"nothing was found at {rse}, and the catalogue has {judged} replicas there: is it mounted?",
        )
    wrong = counts[FindingKind.WRONG_SIZE] + counts[FindingKind.WRONG_CHECKSUM]
    cases = (
        ("missing", counts[FindingKind.MISSING], judged, "is all of it mounted, and is the dump whole?"),
        ("wrong", wrong, judged, "is the dump of this RSE, with bytes and adler32 in this order?"),
        (
            "dark",
            counts[FindingKind.DARK],
            lines,
            "are its paths below the prefix (--strip), and was the catalogue restored from a backup?",
        ),
    )
    said = [
        f"{found} of {of} are {what}, more than {settings.audit_brake_share:.0%}: {question}"
        for what, found, of, question in cases
        if found > _most(settings, of)
    ]
    return (TOO_MANY, f"{'; '.join(said)} Nothing was noted.") if said else None
