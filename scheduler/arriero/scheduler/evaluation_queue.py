"""The queue of evaluations: claim one, hold it, give it up. Fences decide, and only the database's clock is read."""

from dataclasses import dataclass

from sqlalchemy import Connection, case, delete, literal, null, select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import evaluations
from arriero.scheduler.claim import AT_THIS_MOMENT
from arriero.scheduler.errors import LeaseLost


@dataclass(frozen=True, slots=True)
class Claimed:
    """An evaluation that this worker holds."""

    rule_id: int
    generation: int
    fence: int
    attempt: int
    owner: str


def claim(connection: Connection, owner: str, *, lease_s: float) -> Claimed | None:
    """Take the evaluation that has been due longest.

    Parameters
    ----------
    owner
        Who takes it; one name for each worker.
    lease_s
        How long it is held without a sign of life, seconds.

    Returns
    -------
    Claimed or None
        None when nothing is due. The attempt is counted now: what kills its worker is counted too.
    """
    due = (
        select(evaluations.c.rule_id)
        .where(evaluations.c.lease_owner.is_(None), evaluations.c.not_before <= AT_THIS_MOMENT)
        .order_by(evaluations.c.not_before)
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    row = connection.execute(
        update(evaluations)
        .where(evaluations.c.rule_id == due.c.rule_id)
        .values(
            attempt=evaluations.c.attempt + 1,
            fence=evaluations.c.fence + 1,
            lease_owner=owner,
            lease_until=after(literal(lease_s)),
        )
        .returning(
            evaluations.c.rule_id, evaluations.c.generation, evaluations.c.fence, evaluations.c.attempt
        )
    ).one_or_none()
    if row is None:
        return None
    return Claimed(row.rule_id, row.generation, row.fence, row.attempt, owner)


def extend(connection: Connection, held: Claimed, *, lease_s: float) -> None:
    """Hold an evaluation for another ``lease_s`` seconds.

    Raises
    ------
    LeaseLost
        Another worker has it.
    """
    _held(connection, held, lease_until=after(literal(lease_s)), attempt=1)


def finish(connection: Connection, held: Claimed) -> None:
    """End an evaluation, unless something has raised it since it was claimed: then it is due again.

    Raises
    ------
    LeaseLost
        Another worker has it.
    """
    done = connection.execute(
        delete(evaluations).where(
            evaluations.c.rule_id == held.rule_id,
            evaluations.c.fence == held.fence,
            evaluations.c.lease_owner == held.owner,
            evaluations.c.generation == held.generation,
        )
    )
    if done.rowcount == 0:
        _held(connection, held, lease_owner=None, lease_until=None, attempt=0, code=None, reason=None)


def look_again(connection: Connection, held: Claimed, *, wait_s: float, code: str, reason: str) -> None:
    """End an evaluation of a rule that is stuck: it is due again after ``wait_s`` seconds, at once if it was raised.

    Raises
    ------
    LeaseLost
        Another worker has it.
    """
    raised = evaluations.c.generation != held.generation
    _held(
        connection,
        held,
        lease_owner=None,
        lease_until=None,
        attempt=0,
        code=code,
        reason=reason,
        not_before=case((raised, evaluations.c.not_before), else_=after(literal(wait_s))),
    )


def put_back(connection: Connection, held: Claimed, *, wait_s: float, code: str, reason: str) -> bool:
    """Give up after an error; the attempts go on counting.

    Returns
    -------
    bool
        False when another worker had it already.
    """
    done = connection.execute(
        update(evaluations)
        .where(
            evaluations.c.rule_id == held.rule_id,
            evaluations.c.fence == held.fence,
            evaluations.c.lease_owner == held.owner,
        )
        .values(
            lease_owner=null(),
            lease_until=null(),
            not_before=after(literal(wait_s)),
            code=code,
            reason=reason[:1000],
        )
    )
    return done.rowcount == 1


def _held(connection: Connection, held: Claimed, **values: object) -> None:
    done = connection.execute(
        update(evaluations)
        .where(
            evaluations.c.rule_id == held.rule_id,
            evaluations.c.fence == held.fence,
            evaluations.c.lease_owner == held.owner,
        )
        .values(**values)
    )
    if done.rowcount == 0:
        raise LeaseLost(f"the evaluation of rule {held.rule_id} is another worker's by now")
