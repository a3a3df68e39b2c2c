"""Use cases about butlers."""

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from arriero.registry.dialect import wait_for_writers
from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.models import MOVE, ButlerInfo, NewButler
from arriero.registry.schema.tables import replicas
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.store import butlers as store
from arriero.registry.store.arrivals import record_arrivals


def add_butler(context: Context, actor: Actor, butler: NewButler) -> None:
    """Add a butler, and make arrivals of what is AVAILABLE for it already.

    Safe to repeat: the same definition once more fills in what is missing.

    Raises
    ------
    Conflict
        There is another butler of that name.
    InvalidInput
        Files are to be moved from an RSE that is no staging area.
    NotFound
        An RSE or a scope does not exist.
    """
    authorize(actor, Action.BUTLER_ADD, Target(butler.name, butler=butler.name))

    def insert(connection: Connection) -> int:
        existing = store.butler_rows(connection, butler.name)
        if existing:
            if not _same(ButlerInfo.model_validate(existing[0]), butler):
                raise Conflict(
                    f"butler {butler.name} exists with another definition: see 'arriero butler show {butler.name}'",
                    code="butler_exists",
                )
            return int(existing[0]["id"])
        rse_ids = store.rse_ids(connection, [feed.rse for feed in butler.rses])
        scope_ids = store.scope_ids(connection, [taken.scope for taken in butler.selections])
        _all_there("RSE", [feed.rse for feed in butler.rses], rse_ids, "RSENotFound")
        _all_there("scope", [taken.scope for taken in butler.selections], scope_ids, "ScopeNotFound")
        if butler.transfer == MOVE and (lasting := store.not_staging(connection, rse_ids.values())):
            raise InvalidInput(
                f"{', '.join(lasting)} is no staging area: what is moved into a Butler does not stay at its RSE. "
                "Use 'direct' or 'copy', or say 'arriero rse update RSE --key staging_area --value true' of one that only hands files on",
                code="no_staging_area",
            )
        butler_id = store.add_butler(
            connection,
            name=butler.name,
            uri=butler.uri,
            transfer=butler.transfer,
            instruments=butler.instruments,
            feeds=list({rse_ids[feed.rse]: feed.uri_prefix for feed in butler.rses}.items()),
            selections=sorted({(scope_ids[taken.scope], taken.pattern) for taken in butler.selections}),
        )
        audit.record(connection, actor, Action.BUTLER_ADD, butler.name, uri=butler.uri)
        # whoever makes a replica AVAILABLE after this sees the butler; whoever did so before has committed
        wait_for_writers(connection, replicas)
        return butler_id

    try:
        butler_id = context.database.run(insert)
    except IntegrityError as error:
        raise Conflict(
            f"butler {butler.name} was added by someone else just now", code="butler_exists"
        ) from error
    context.database.run(lambda connection: record_arrivals(connection, store.landed_at(butler_id)))


def list_butlers(context: Context) -> list[ButlerInfo]:
    """List butlers by name."""
    with context.database.snapshot() as connection:
        return [ButlerInfo.model_validate(row) for row in store.butler_rows(connection)]


def get_butler(context: Context, name: str) -> ButlerInfo:
    """Give one butler.

    Raises
    ------
    NotFound
        There is none of that name.
    """
    with context.database.snapshot() as connection:
        rows = store.butler_rows(connection, name)
    if not rows:
        raise NotFound(f"there is no butler {name}: see 'arriero butler list'", code="butler_not_found")
    return ButlerInfo.model_validate(rows[0])


def _same(known: ButlerInfo, wanted: NewButler) -> bool:
    return (
        (known.uri, known.transfer, known.instruments)
        == (wanted.uri, wanted.transfer, list(wanted.instruments))
        and {(feed.rse, feed.uri_prefix) for feed in known.rses}
        == {(feed.rse, feed.uri_prefix) for feed in wanted.rses}
        and {(taken.scope, taken.pattern) for taken in known.selections}
        == {(taken.scope, taken.pattern) for taken in wanted.selections}
    )


def _all_there(kind: str, names: list[str], found: dict[str, int], rucio_class: str) -> None:
    missing = sorted(set(names) - set(found))
    if missing:
        raise NotFound(
            f"there is no {kind} {', '.join(missing)}: add it, or correct the name",
            rucio_class=rucio_class,
            code=f"{kind.lower()}_not_found",
        )
