"""How far RSEs are from each other: copies come from the nearest, and from where no distance is set last."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rses import require_rse
from arriero.registry.store import rses as store

MAX_DISTANCE = 1_000_000


def check_distance(value: int) -> int:
    """Give a distance back that may be one.

    Raises
    ------
    InvalidInput
        It is none.
    """
    if not 0 <= value <= MAX_DISTANCE:
        raise InvalidInput(f"a distance is a whole number from 0, near, to {MAX_DISTANCE}")
    return value


def add_distance(
    context: Context, actor: Actor, source: str, destination: str, value: int, *, bidirectional: bool
) -> None:
    """Set the distance between two RSEs that had none.

    Parameters
    ----------
    bidirectional
        The way back too.

    Raises
    ------
    Conflict
        There is one, in either direction if both are asked for; nothing is changed then.
    """
    check_distance(value)

    def change(connection: Connection, start: int, end: int) -> None:
        known = store.distance(connection, start, end)
        if known is not None:
            raise Conflict(
                f"between {source} and {destination} the distance {known} is set already: update it"
            )
        store.set_distances(connection, [(start, end, value)])

    _both(context, actor, (source, destination), change, bidirectional=bidirectional, distance=value)


def update_distance(
    context: Context, actor: Actor, source: str, destination: str, value: int, *, bidirectional: bool
) -> None:
    """Change the distance between two RSEs.

    Raises
    ------
    NotFound
        There is none to change; nothing is changed then.
    """
    check_distance(value)

    def change(connection: Connection, start: int, end: int) -> None:
        if store.distance(connection, start, end) is None:
            raise _no_distance(source, destination)
        store.set_distances(connection, [(start, end, value)])

    _both(context, actor, (source, destination), change, bidirectional=bidirectional, distance=value)


def delete_distance(
    context: Context, actor: Actor, source: str, destination: str, *, bidirectional: bool
) -> None:
    """Remove the distance between two RSEs: copies come this way only when there is no other.

    Raises
    ------
    NotFound
        There is none.
    """

    def change(connection: Connection, start: int, end: int) -> None:
        if not store.delete_distance(connection, start, end):
            raise _no_distance(source, destination)

    _both(context, actor, (source, destination), change, bidirectional=bidirectional, distance=None)


def _both(
    context: Context,
    actor: Actor,
    link: tuple[str, str],
    change: Callable[[Connection, int, int], None],
    *,
    bidirectional: bool,
    distance: int | None,
) -> None:
    source, destination = link
    authorize(actor, Action.RSE_UPDATE, Target(destination, rse=destination))
    if bidirectional:
        authorize(actor, Action.RSE_UPDATE, Target(source, rse=source))

    def work(connection: Connection) -> None:
        # in the order of the names, so that two who do this at once do not wait for each other
        ids = {name: require_rse(connection, name, lock=True)["id"] for name in sorted(set(link))}
        change(connection, ids[source], ids[destination])
        if bidirectional and source != destination:
            change(connection, ids[destination], ids[source])
        audit.record(
            connection, actor, Action.RSE_UPDATE, destination, distance_from=source, distance=distance
        )

    context.database.run(work)


def _no_distance(source: str, destination: str) -> NotFound:
    return NotFound(
        f"no distance is set between {source} and {destination}: add it", rucio_class="NoDistance"
    )


def get_distance(context: Context, source: str, destination: str) -> list[dict[str, Any]]:
    """Give the distance between two RSEs, in a list that is empty where none is set."""
    with context.database.snapshot() as connection:
        source_row = require_rse(connection, source)
        destination_row = require_rse(connection, destination)
        value = store.distance(connection, source_row["id"], destination_row["id"])
    if value is None:
        return []
    return [
        {
            "src_rse_id": str(source_row["id"]),
            "dest_rse_id": str(destination_row["id"]),
            "src_rse": source,
            "dest_rse": destination,
            "distance": value,
            "ranking": value,
        }
    ]
