"""What becomes of replicas that were looked at: by as many statements for one as for a hundred.

What is as it should be is verified now. What is not is noted, looked at again, and then acted on like what audits find.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    delete,
    exists,
    insert,
    literal,
    null,
    select,
    tuple_,
    update,
)

from arriero.registry.dialect import bulk_insert, use_temporary_table
from arriero.registry.pages import pages_of
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import replica_checks, replicas, scrubbed_rses, storage_findings
from arriero.registry.states import BadReplicaState, FindingState, ReplicaState
from arriero.registry.store import bad_replicas, replica_sets
from arriero.registry.store import storage_findings as findings
from arriero.registry.store.storage_audits import found_at_storage
from arriero.scheduler.scrub_queue import ASKED, moment
from arriero.scheduler.scrub_read import Looked, Outcome

MOST_ATTEMPTS = 6
"""After so many attempts that told nothing, one whose turn it was waits for its next turn."""

RSE_WAIT_S = 600.0
"""How long an RSE is left alone that does not answer, seconds."""

_WRONG = (Outcome.MISSING.value, Outcome.WRONG_SIZE.value, Outcome.WRONG_CHECKSUM.value)

looked_at = Table(
    "scrub_looked_at",
    MetaData(),
    Column("file_id", BigInteger, primary_key=True, autoincrement=False),
    Column("rse_id", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("outcome", String(24), nullable=False),
    Column("bytes", BigInteger),
    Column("adler32", String(8)),
    Column("code", String(64)),
    Column("reason", Text),
    prefixes=["TEMPORARY"],
)

_HELD = and_(
    replica_checks.c.file_id == looked_at.c.file_id,
    replica_checks.c.rse_id == looked_at.c.rse_id,
    replica_checks.c.fence == looked_at.c.fence,
)


@dataclass(slots=True)
class Settled:
    """What a settlement did."""

    good: int = 0
    wrong: int = 0
    unknown: int = 0


def settle_checks(
    connection: Connection, rse_id: int, looked: Sequence[Looked], *, confirm_s: float
) -> Settled:
    """Write down how looks at replicas of an RSE ended; those whose lease was lost count for nothing.

    Parameters
    ----------
    confirm_s
        How far apart two looks have to be that find it wrong, seconds.
    """
    use_temporary_table(connection, looked_at, found_at_storage)
    columns = ["file_id", "rse_id", "fence", "outcome", "bytes", "adler32", "code", "reason"]
    rows = (
        (
            one.check.file_id,
            rse_id,
            one.check.fence,
            one.outcome.value,
            one.bytes,
            one.adler32,
            one.code,
            None if one.reason is None else one.reason[:1000],
        )
        for one in looked
    )
    bulk_insert(connection, looked_at, columns, rows)
    # who has the check now is believed instead; and what has become of the replica meanwhile counts for more
    as_claimed = (
        exists()
        .where(
            replicas.c.file_id == looked_at.c.file_id,
            replicas.c.rse_id == looked_at.c.rse_id,
            replicas.c.updated_at <= replica_checks.c.claimed_at,
            replicas.c.state == ReplicaState.AVAILABLE,
        )
        .correlate(looked_at, replica_checks)
    )
    connection.execute(delete(looked_at).where(~exists().where(_HELD, as_claimed)))
    counts = Settled()
    for outcome in connection.scalars(select(looked_at.c.outcome)):
        if outcome == Outcome.GOOD:
            counts.good += 1
        elif outcome == Outcome.UNKNOWN:
            counts.unknown += 1
        else:
            counts.wrong += 1
    if counts.good:
        _verify(connection)
    if counts.wrong:
        _note(connection, rse_id, confirm_s)
    _give_back(connection, confirm_s)
    _forget_lost(connection, rse_id, looked)
    return counts


def _verify(connection: Connection) -> None:
    good = connection.execute(
        select(looked_at.c.file_id, looked_at.c.rse_id).where(looked_at.c.outcome == Outcome.GOOD.value)
    ).all()
    replica_sets.keep_only(connection, ((place, *key) for place, key in enumerate(good)))
    replica_sets.hold_replicas(connection)
    connection.execute(
        update(replicas)
        .where(
            tuple_(replicas.c.file_id, replicas.c.rse_id).in_(
                select(replica_sets.staged_replicas.c.file_id, replica_sets.staged_replicas.c.rse_id)
            ),
            replicas.c.state == ReplicaState.AVAILABLE,
        )
        # nothing has become of it: audits go on judging it
        .values(verified_at=now(), updated_at=replicas.c.updated_at)
    )
    bad_replicas.close(connection, BadReplicaState.RECOVERED, (BadReplicaState.SUSPICIOUS,))
    findings.forget_of_staged_replicas(connection)


def _note(connection: Connection, rse_id: int, confirm_s: float) -> None:
    rows = select(
        looked_at.c.outcome, looked_at.c.file_id, null(), looked_at.c.bytes, looked_at.c.adler32
    ).where(looked_at.c.outcome.in_(_WRONG))
    columns = ["kind", "file_id", "path", "bytes", "adler32"]
    connection.execute(insert(found_at_storage).from_select(columns, rows))
    at = moment(connection)
    findings.drop_settled(connection, rse_id)
    findings.note(connection, rse_id, None, at)
    findings.confirm(connection, rse_id, at, apart_s=confirm_s)


def _give_back(connection: Connection, confirm_s: float) -> None:
    """End the checks that told something for good; have the others come again."""
    ended = looked_at.c.outcome == Outcome.GOOD.value
    said = exists().where(
        storage_findings.c.file_id == looked_at.c.file_id,
        storage_findings.c.rse_id == looked_at.c.rse_id,
        storage_findings.c.state != FindingState.SEEN,
    )
    given_up = and_(
        looked_at.c.outcome == Outcome.UNKNOWN.value,
        replica_checks.c.attempt >= MOST_ATTEMPTS,
        replica_checks.c.rank != ASKED,
    )
    of_wrong = looked_at.c.outcome.in_(_WRONG)
    for condition in (ended, and_(of_wrong, said), given_up):
        connection.execute(delete(replica_checks).where(exists().where(_HELD, condition)))
    connection.execute(
        update(replica_checks)
        .where(_HELD, of_wrong)
        .values(
            rank=ASKED,
            why=literal("it was found to be wrong: ") + looked_at.c.outcome,
            attempt=0,
            not_before=after(literal(confirm_s)),
            lease_owner=null(),
            lease_until=null(),
        )
    )
    connection.execute(
        update(replica_checks)
        .where(_HELD, looked_at.c.outcome == Outcome.UNKNOWN.value)
        .values(code=looked_at.c.code, reason=looked_at.c.reason, lease_owner=null(), lease_until=null())
    )


def _forget_lost(connection: Connection, rse_id: int, looked: Sequence[Looked]) -> None:
    """Give back what was looked at for nothing: its replica has changed meanwhile."""
    for page in pages_of(looked, 500):
        connection.execute(
            delete(replica_checks).where(
                replica_checks.c.rse_id == rse_id,
                replica_checks.c.lease_owner.is_not(None),
                tuple_(replica_checks.c.file_id, replica_checks.c.fence).in_(
                    [(one.check.file_id, one.check.fence) for one in page]
                ),
            )
        )


def leave_alone(connection: Connection, rse_id: int, *, code: str | None, reason: str | None) -> None:
    """Have nothing be read at an RSE for a while that does not answer; with no code, it answers again."""
    values = {"code": code, "reason": None if reason is None else reason[:1000]}
    if code is None:
        connection.execute(
            update(scrubbed_rses)
            .where(scrubbed_rses.c.rse_id == rse_id, scrubbed_rses.c.code.is_not(None))
            .values(**values)
        )
        return
    connection.execute(
        update(scrubbed_rses)
        .where(scrubbed_rses.c.rse_id == rse_id)
        .values(**values, next_at=after(literal(RSE_WAIT_S)))
    )


def count_read(connection: Connection, rse_id: int, looked: Sequence[Looked], seconds: float) -> None:
    """Write down how much was read at an RSE, and how fast."""
    read = [one for one in looked if one.bytes is not None]
    total = sum(one.bytes or 0 for one in read)
    connection.execute(
        update(scrubbed_rses)
        .where(scrubbed_rses.c.rse_id == rse_id)
        .values(
            files=scrubbed_rses.c.files + len(read),
            bytes=scrubbed_rses.c.bytes + total,
            rate=total / max(seconds, 1e-3),
        )
    )
