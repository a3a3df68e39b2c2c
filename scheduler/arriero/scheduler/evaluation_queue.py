"""The queue of evaluations: claim one, hold it, give it up. Fences decide, and only the database's clock is read."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, delete, func, literal, null, select, update

from arriero.registry.schema.base import AT_THIS_MOMENT, after
from arriero.registry.schema.tables import evaluations
from arriero.scheduler.errors import LeaseLost


@dataclass(frozen=True, slots=True)
class Claimed:
    """An evaluation that this worker holds."""

    rule_id: int
    generation: int
    fence: int
    attempt: int
    owner: str
    retries: bool
    """What is stuck is due, too: whoever claims it has that looked at, in the same transaction."""


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
    due = connection.execute(
        select(evaluations.c.rule_id, (evaluations.c.retry_at <= AT_THIS_MOMENT).label("retries"))
        .where(evaluations.c.lease_owner.is_(None), evaluations.c.not_before <= AT_THIS_MOMENT)
        .order_by(evaluations.c.not_before)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if due is None:
        return None
    row = connection.execute(
        update(evaluations)
        .where(evaluations.c.rule_id == due.rule_id)
        .values(
            attempt=evaluations.c.attempt + 1,
            fence=evaluations.c.fence + 1,
            lease_owner=owner,
            lease_until=after(literal(lease_s)),
            retry_at=null() if due.retries else evaluations.c.retry_at,
        )
        .returning(evaluations.c.generation, evaluations.c.fence, evaluations.c.attempt)
    ).one()
    return Claimed(due.rule_id, row.generation, row.fence, row.attempt, owner, bool(due.retries))


def go_on(connection: Connection, held: Claimed, *, retry_s: float | None) -> None:
    """Give an evaluation that has more to look at back, behind those that are due.

    Parameters
    ----------
    retry_s
        What is stuck is due in so many seconds, if not before.

    Raises
    ------
    LeaseLost
        Another worker has it.
    """
    _release(connection, held, not_before=AT_THIS_MOMENT, retry_at=_retry_at(retry_s))


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
        # raised meanwhile, and perhaps for what is stuck
        _release(connection, held)


def look_again(
    connection: Connection, held: Claimed, *, wait_s: float, retry_s: float | None, code: str, reason: str
) -> None:
    """End an evaluation of a rule that is stuck: it is due again when its time comes, at once if it was raised.

    Parameters
    ----------
    wait_s
        What is stuck is due in so many seconds, unless its time was set before: what is attached meanwhile does not
        postpone it.
    retry_s
        It is due in so many seconds at the latest.

    Raises
    ------
    LeaseLost
        Another worker has it.
    """
    raised = evaluations.c.generation != held.generation
    retry_at = func.coalesce(_retry_at(retry_s), after(literal(wait_s)))
    _release(
        connection,
        held,
        code=code,
        reason=reason,
        retry_at=retry_at,
        not_before=case((raised, evaluations.c.not_before), else_=retry_at),
    )


def _retry_at(retry_s: float | None) -> Any:
    """When what is stuck is due, as far as it is known; null if it is not."""
    known = evaluations.c.retry_at
    if retry_s is None:
        return known
    soon = after(literal(retry_s))
    return case((known < soon, known), else_=soon)


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


def _release(connection: Connection, held: Claimed, **values: object) -> None:
    done = connection.execute(
        update(evaluations)
        .where(
            evaluations.c.rule_id == held.rule_id,
            evaluations.c.fence == held.fence,
            evaluations.c.lease_owner == held.owner,
        )
        .values(
            {"code": None, "reason": None} | values | {"lease_owner": None, "lease_until": None, "attempt": 0}
        )
    )
    if done.rowcount == 0:
        raise LeaseLost(f"the evaluation of rule {held.rule_id} is another worker's by now")
