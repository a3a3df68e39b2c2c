"""Transfers as operators look at them: lists, totals by reason, and all that is known of the copies of one file."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, RowMapping

from arriero.registry.errors import InvalidInput, NotFound
from arriero.registry.operations import (
    LIVE,
    Transfer,
    TransferAttempt,
    TransferChoice,
    TransferDetail,
    TransferFilter,
    TransferPage,
    TransferTotal,
    WaitingLock,
)
from arriero.registry.schema.tables import requests
from arriero.registry.services.context import Context
from arriero.registry.services.hindrances import (
    Hindrance,
    Hindrances,
    load_hindrances,
    next_attempt,
    told,
)
from arriero.registry.services.lookups import require_did
from arriero.registry.services.rses import require_rse
from arriero.registry.services.rules import parse_rule_id, require_rule
from arriero.registry.states import DidType, RequestState
from arriero.registry.store import transfers as store
from arriero.registry.store.streaming import streamed

_SAME = (
    *("id", "scope", "name", "bytes", "source", "destination", "account", "activity", "priority", "state"),
    *("attempt", "lease_owner", "lease_until", "created_at", "started_at", "copied"),
)


def list_transfers(context: Context, page: TransferPage) -> Iterator[Transfer]:
    """List transfers that are wanted, under way, or given up.

    Raises
    ------
    NotFound
        What they are to be narrowed to is not there.
    """
    with context.database.snapshot() as connection:
        which = _narrowed(connection, page)
        hindrances = load_hindrances(connection)
        words = hindrances.words()
        query = store.transfers_query(which, words, page.code)
        query = store.by_age(query) if page.order == "age" else store.by_problem(query, words)
        with streamed(connection, query.limit(page.limit)) as rows:
            for row in rows:
                yield _transfer(row, hindrances)


def total_transfers(context: Context, chosen: TransferFilter) -> list[TransferTotal]:
    """Count transfers by what they wait for and where they go, the most first.

    Raises
    ------
    NotFound
        What they are to be narrowed to is not there.
    """
    with context.database.snapshot() as connection:
        which = _narrowed(connection, chosen)
        hindrances = load_hindrances(connection)
        query = store.totals_query(which, hindrances.words(), chosen.code)
        rows = connection.execute(query).mappings().all()
    return [_total(row, hindrances) for row in rows]


def show_transfers(context: Context, scope: str, name: str, rse: str | None) -> list[TransferDetail]:
    """Tell all that is known of the copies of a file, by RSE; of one of them if it is named.

    Raises
    ------
    NotFound
        There is no such DID or RSE, or no copy was ever asked for.
    InvalidInput
        It is no file.
    """
    with context.database.snapshot() as connection:
        did = require_did(connection, scope, name)
        if did["type"] is not DidType.FILE:
            raise InvalidInput(
                f"{scope}:{name[:200]} is a {did['type'].lower()}: list the transfers of what it holds"
            )
        rse_id = None if rse is None else int(require_rse(connection, rse)["id"])
        which = [requests.c.file_id == did["id"]]
        if rse_id is not None:
            which.append(requests.c.destination_id == rse_id)
        hindrances = load_hindrances(connection)
        query = store.by_age(store.transfers_query(which, hindrances.words(), None))
        live = {row["destination"]: row for row in connection.execute(query).mappings()}
        attempts = store.attempts_of(connection, did["id"], rse_id)
        locks = store.locks_on(connection, did["id"], rse_id)
        states = store.replicas_of(connection, did["id"])
    tried, held = _by_destination(attempts), _by_destination(locks)
    found = [
        TransferDetail(
            scope=scope,
            name=name,
            destination=destination,
            replica=states.get(destination),
            request=None if destination not in live else _transfer(live[destination], hindrances),
            fence=None if destination not in live else live[destination]["fence"],
            locks=[_lock(row) for row in held[destination]],
            attempts=[_attempt(row) for row in tried[destination]],
        )
        for destination in sorted(live.keys() | tried.keys())
    ]
    if not found:
        where = "" if rse is None else f" to {rse}"
        raise NotFound(
            f"no copy of {scope}:{name[:200]}{where} was ever asked for; `arriero trace` tells its way",
            rucio_class="RequestNotFound",
            code="request_not_found",
        )
    return found


def choose(connection: Connection, chosen: TransferChoice) -> list[ColumnElement[bool]]:
    """Give the conditions on requests that a choice stands for.

    Raises
    ------
    NotFound
        A rule, DID or RSE that it names is not there.
    """
    which: list[ColumnElement[bool]] = []
    if chosen.rule is not None:
        rule = require_rule(connection, parse_rule_id(chosen.rule))
        which.append(store.wanted_by(rule["id"]))
    if chosen.scope is not None and chosen.name is not None:
        which.append(store.below(require_did(connection, chosen.scope, chosen.name)["id"]))
    if chosen.destination is not None:
        which.append(requests.c.destination_id == require_rse(connection, chosen.destination)["id"])
    return which


def _narrowed(connection: Connection, chosen: TransferFilter) -> list[ColumnElement[bool]]:
    which = choose(connection, chosen)
    if chosen.source is not None:
        which.append(requests.c.source_id == require_rse(connection, chosen.source)["id"])
    if chosen.activity is not None:
        which.append(requests.c.activity == chosen.activity)
    which.append(requests.c.state.in_(chosen.state or LIVE))
    return which


def _transfer(row: RowMapping, hindrances: Hindrances) -> Transfer:
    found = _hindrance(row, hindrances)
    next_at = row["not_before"] if row["state"] is RequestState.QUEUED else None
    return Transfer(
        **{key: row[key] for key in _SAME},
        rule_id=None if row["rule_uuid"] is None else row["rule_uuid"].hex,
        code=row["waits_for"],
        reason=told(found, row["reason"]),
        next_attempt_at=next_attempt(found, next_at),
    )


def _hindrance(row: RowMapping, hindrances: Hindrances) -> Hindrance | None:
    if row["state"] is not RequestState.QUEUED:
        return None
    return hindrances.of(row["destination_id"], row["activity"], row["code"])


def _total(row: RowMapping, hindrances: Hindrances) -> TransferTotal:
    queued = row["state"] is RequestState.QUEUED
    found = None
    if queued:
        found = hindrances.of(row["destination_id"], row["activity"], row["example_code"])
    return TransferTotal(
        state=row["state"],
        code=row["waits_for"],
        destination=row["destination"],
        files=row["files"],
        bytes=int(row["bytes"]),
        attempts=row["attempts"],
        oldest_at=row["oldest_at"],
        next_attempt_at=next_attempt(found, row["next_attempt_at"]),
        reason=told(found, row["example_reason"]),
    )


def _attempt(row: RowMapping) -> TransferAttempt:
    return TransferAttempt.model_validate({**row, "ended_at": row["at"]})


def _lock(row: RowMapping) -> WaitingLock:
    return WaitingLock.model_validate({**row, "rule_id": row["rule_uuid"].hex})


def _by_destination(rows: Sequence[RowMapping]) -> Mapping[str, list[RowMapping]]:
    found: dict[str, list[RowMapping]] = defaultdict(list)
    for row in rows:
        found[row["destination"]].append(row)
    return found
