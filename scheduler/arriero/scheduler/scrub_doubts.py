"""Which replicas somebody has a reason to doubt: they are read before all others, and without a pace too.

Each statement begins with what is doubted, which is little, and finds the replicas by their keys.
"""

from collections.abc import Collection

from sqlalchemy import Connection, FromClause, Select, and_, func, literal, or_, select, text

from arriero.registry.dialect import join_as_planned, join_as_written
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import bad_replicas, dids, replicas, requests, storage_findings
from arriero.registry.states import BadReplicaState, FindingState
from arriero.scheduler.scrub_queue import ASKED, put, read_already, to_be_read

_DOUBTFUL = text("requests.code IN ('not_found', 'source_mismatch')")
"""Spelt out, so that both databases see that the partial index serves."""


def ask_for_doubted(connection: Connection, rse_ids: Collection[int], *, since_s: float) -> int:
    """Have replicas be read that somebody has a reason to doubt; give how many are new in the queue.

    Parameters
    ----------
    rse_ids
        RSEs that can be read from.
    since_s
        Suspicions that are older are forgotten, seconds.
    """
    if not rse_ids:
        return 0
    readable = replicas.c.rse_id.in_(sorted(rse_ids))
    join_as_written(connection)
    added = sum(
        put(connection, rows.where(readable))
        for rows in (_suspicious(since_s), _failed_sources(), _found_by_audits(), _beside_suspected())
    )
    join_as_planned(connection)
    return added


def _with_files(source: FromClause) -> FromClause:
    return source.join(dids, dids.c.id == replicas.c.file_id)


def _suspicious(since_s: float) -> Select[tuple[object, ...]]:
    said = (
        select(bad_replicas.c.file_id, bad_replicas.c.rse_id)
        .where(
            bad_replicas.c.state == BadReplicaState.SUSPICIOUS,
            bad_replicas.c.created_at > select(after(literal(-since_s))).scalar_subquery(),
        )
        .distinct()
        .subquery("said")
    )
    found = said.join(
        replicas, and_(replicas.c.file_id == said.c.file_id, replicas.c.rse_id == said.c.rse_id)
    )
    return to_be_read(_with_files(found), "it was declared suspicious", ASKED, ~read_already())


def _failed_sources() -> Select[tuple[object, ...]]:
    """Sources of copies that were not there, or not what the catalogue says; not those that were read since."""
    failed = (
        select(requests.c.file_id, requests.c.source_id, func.max(requests.c.started_at).label("started_at"))
        .where(_DOUBTFUL, requests.c.source_id.is_not(None))
        .group_by(requests.c.file_id, requests.c.source_id)
        .subquery("failed")
    )
    found = failed.join(
        replicas, and_(replicas.c.file_id == failed.c.file_id, replicas.c.rse_id == failed.c.source_id)
    )
    since = or_(replicas.c.verified_at.is_(None), replicas.c.verified_at < failed.c.started_at)
    return to_be_read(_with_files(found), "a copy from it failed", ASKED, since, ~read_already())


def _found_by_audits() -> Select[tuple[object, ...]]:
    found = storage_findings.join(
        replicas,
        and_(
            replicas.c.file_id == storage_findings.c.file_id, replicas.c.rse_id == storage_findings.c.rse_id
        ),
    )
    return to_be_read(
        _with_files(found),
        "an audit found it to be wrong",
        ASKED,
        storage_findings.c.file_id.is_not(None),
        storage_findings.c.audit_id.is_not(None),
        storage_findings.c.state.in_((FindingState.SEEN, FindingState.SUSPECTED)),
    )


def _beside_suspected() -> Select[tuple[object, ...]]:
    """Other replicas of files of which one differs from the catalogue, and nobody knows which of the two is right."""
    doubted = (
        select(storage_findings.c.file_id)
        .where(storage_findings.c.file_id.is_not(None), storage_findings.c.state == FindingState.SUSPECTED)
        .distinct()
        .subquery("doubted")
    )
    found = doubted.join(replicas, replicas.c.file_id == doubted.c.file_id)
    return to_be_read(
        _with_files(found),
        "another copy of the file differs from the catalogue",
        ASKED,
        replicas.c.verified_at.is_(None),
        ~read_already(),
    )
