"""The health of RSEs: whether they are open and up, who has closed them and why, and having one count as up again."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping

from arriero.registry.operations import Pause, RseHealth, StorageAbilities
from arriero.registry.ports import Bell
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rses import require_rse
from arriero.registry.states import BreakerState
from arriero.registry.store import rse_health as store
from arriero.registry.store.rses import load_rses
from arriero.rse.expression import parse

DOWN_CODES = ("timed_out", "unavailable")
"""Codes of copies that failed because an RSE is down."""

LINK_BUSY = "link_busy"
"""Code of requests that wait until something may be read from one of their sources, or written where they go."""

_AS_THEY_ARE = (
    *("rse", "availability_read", "availability_write", "availability_delete", "code", "reason"),
    *("deletion_not_before", "deletion_code", "deletion_reason"),
)


def list_health(context: Context, expression: str | None) -> Iterator[RseHealth]:
    """List the health of RSEs, those of an expression if one is given.

    Raises
    ------
    InvalidExpression
        It cannot be read, or nothing satisfies it.
    """
    with context.database.snapshot() as connection:
        chosen = None
        if expression:
            known = load_rses(connection)
            chosen = parse(expression).evaluate(rse.as_info() for rse in known.values())
        facts = _read(connection)
    return iter([_health(row, facts) for row in facts.rows if chosen is None or row["rse"] in chosen])


def get_health(context: Context, rse: str) -> RseHealth:
    """Describe how an RSE is.

    Raises
    ------
    NotFound
        There is none of that name.
    """
    with context.database.snapshot() as connection:
        require_rse(connection, rse)
        facts = _read(connection)
    return next(_health(row, facts) for row in facts.rows if row["rse"] == rse)


@dataclass(frozen=True, slots=True)
class _Facts:
    rows: Sequence[RowMapping]
    pauses: Mapping[int, list[Pause]]
    abilities: Mapping[int, list[StorageAbilities]]


def _read(connection: Connection) -> _Facts:
    pauses: dict[int, list[Pause]] = defaultdict(list)
    for row in connection.execute(store.pause_query()):
        said = Pause(operation=row.operation, since=row.created_at, account=row.account, reason=row.reason)
        pauses[row.rse_id].append(said)
    rows = connection.execute(store.health_query()).mappings().all()
    return _Facts(rows, pauses, storage_abilities(connection))


def storage_abilities(connection: Connection) -> Mapping[int, list[StorageAbilities]]:
    """Give what the storages of RSEs were found to be able to do, by the ids of the RSEs."""
    found: dict[int, list[StorageAbilities]] = defaultdict(list)
    for row in connection.execute(store.abilities_query()):
        told = {**row.abilities, "origin": row.origin, "probed_at": row.probed_at}
        found[row.rse_id].append(StorageAbilities.model_validate(told))
    return found


def _health(row: RowMapping, facts: _Facts) -> RseHealth:
    return RseHealth(
        **{key: row[key] for key in _AS_THEY_ARE},
        breaker=row["breaker"] or BreakerState.CLOSED,
        failures=row["failures"] or 0,
        down_since=row["opened_at"],
        next_look_at=row["retry_at"],
        pauses=facts.pauses.get(row["id"], []),
        abilities=facts.abilities.get(row["id"], []),
    )


def close_breaker(context: Context, actor: Actor, rse: str) -> dict[str, Any]:
    """Have an RSE count as up, and what waits for it be due now: whether it is up will show.

    Returns
    -------
    dict
        ``was_down``, and ``due_now``: requests that do not wait for their time any more.

    Raises
    ------
    NotFound
        There is no such RSE.
    """
    authorize(actor, Action.RSE_UPDATE, Target(rse, rse=rse))

    def work(connection: Connection) -> dict[str, Any]:
        row = require_rse(connection, rse, lock=True)
        was_down = store.close_breaker(connection, row["id"])
        due_now = store.look_at_what_waits(connection, row["id"], DOWN_CODES, LINK_BUSY)
        done = {"was_down": was_down, "due_now": due_now}
        audit.record(connection, actor, Action.RSE_UPDATE, rse, breaker=BreakerState.CLOSED, **done)
        return done

    done = context.database.run(work)
    context.doorbell.ring(Bell.REQUESTS)
    return done
