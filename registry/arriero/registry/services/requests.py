"""Requests: what is to be copied, and what became of earlier attempts. Listed, never changed from here."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import InvalidInput, NotFound
from arriero.registry.schema.tables import request_history, requests
from arriero.registry.services.context import Context
from arriero.registry.services.lookups import require_did
from arriero.registry.services.rses import require_rse
from arriero.registry.states import REQUEST_LETTERS, RUCIO_REQUEST_LETTERS, DidType, RequestState
from arriero.registry.store import requests as store
from arriero.registry.store.rses import load_rses
from arriero.registry.store.streaming import streamed

MAX_PAGE = 10_000
"""Past attempts of one answer."""


def list_requests(context: Context, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """List the requests that there are, the oldest first.

    Parameters
    ----------
    query
        ``request_states`` (Rucio's letters or our words, with commas between), and ``src_rse``, ``dst_rse`` or
        ``src_site``, ``dst_site``; at least one of these. A request whose source has not been chosen has none.

    Raises
    ------
    InvalidInput
        Something is missing, or no such state.
    NotFound
        No such RSE, or no RSE of that site.
    """
    states = _states(query)
    with context.database.snapshot() as connection:
        sources, destinations = _ends(connection, query)
        found = store.narrowed(
            store.live_requests(), requests, states=states, sources=sources, destinations=destinations
        )
        with streamed(connection, found) as rows:
            for row in rows:
                yield _wire(row)


def list_past_requests(context: Context, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """List attempts that have ended, the oldest first.

    Parameters
    ----------
    query
        As of `list_requests`, with ``offset`` (0) and ``limit`` (100, at most `MAX_PAGE`).

    Raises
    ------
    InvalidInput, NotFound
        As of `list_requests`.
    """
    states = _states(query)
    offset, limit = _number(query, "offset", 0, 2**31), _number(query, "limit", 100, MAX_PAGE)
    with context.database.snapshot() as connection:
        sources, destinations = _ends(connection, query)
        found = store.narrowed(
            store.past_requests(), request_history, states=states, sources=sources, destinations=destinations
        )
        with streamed(connection, found.offset(offset).limit(limit)) as rows:
            for row in rows:
                yield _wire(row)


def get_request(context: Context, scope: str, name: str, rse: str, *, past: bool = False) -> dict[str, Any]:
    """Describe the request for a file at an RSE.

    Parameters
    ----------
    past
        The last attempt that has ended instead.

    Raises
    ------
    NotFound
        There is no such DID, RSE or request.
    """
    table = request_history if past else requests
    query = store.past_requests() if past else store.live_requests()
    with context.database.snapshot() as connection:
        did = require_did(connection, scope, name)
        destination = require_rse(connection, rse)
        query = query.where(table.c.file_id == did["id"], table.c.destination_id == destination["id"])
        newest = query.order_by(None).order_by(table.c.id.desc()).limit(1)
        row = connection.execute(newest).mappings().one_or_none()
    if row is None:
        what = "no copy has been tried" if past else "no copy is asked for"
        raise NotFound(f"{what} of {scope}:{name[:200]} to {rse}", rucio_class="RequestNotFound")
    return _wire(row)


def _states(query: Mapping[str, str]) -> list[RequestState]:
    words = [word.strip() for word in query.get("request_states", "").split(",") if word.strip()]
    if not words:
        raise InvalidInput("request_states is missing, such as Q,S")
    letters = {letter: state for state, letter in REQUEST_LETTERS.items()}
    found = []
    for word in words:
        if word in letters:
            found.append(letters[word])
        elif word.upper() in RequestState.__members__:
            found.append(RequestState(word.upper()))
        elif word not in RUCIO_REQUEST_LETTERS:
            raise InvalidInput(f"{word[:40]!a} is no state of a request; they are {', '.join(letters)}")
    return found


def _ends(connection: Connection, query: Mapping[str, str]) -> tuple[list[int] | None, list[int] | None]:
    """Ids of the sources and of the destinations; None for all."""
    ends = [_end(connection, query, end) for end in ("src", "dst")]
    if ends == [None, None]:
        raise InvalidInput("say where: src_rse, dst_rse, src_site or dst_site")
    return ends[0], ends[1]


def _end(connection: Connection, query: Mapping[str, str], end: str) -> list[int] | None:
    rse, site = query.get(f"{end}_rse"), query.get(f"{end}_site")
    # the official client writes what its caller left out as None
    if rse and rse != "None":
        return [int(require_rse(connection, rse)["id"])]
    if not site:
        return None
    found = [known.id for known in load_rses(connection).values() if known.attributes.get("site") == site]
    if not found:
        raise NotFound(f"no RSE has the attribute site={site[:80]!a}", rucio_class="RSENotFound")
    return found


def _number(query: Mapping[str, str], key: str, default: int, most: int) -> int:
    text = query.get(key, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) > most:
        raise InvalidInput(f"{key} is a number from 0 to {most}")
    return int(text)


def _wire(row: RowMapping) -> dict[str, Any]:
    rule = row["rule_uuid"]
    return {
        "id": str(row["request_id"]),
        "request_type": row["type"],
        "scope": row["scope"],
        "name": row["name"],
        "did_type": DidType.FILE,
        "state": row["state"],
        "activity": row["activity"],
        "priority": row["priority"],
        "bytes": row["bytes"],
        "adler32": row["adler32"],
        "md5": row["md5"],
        "source_rse_id": None if row["source_id"] is None else str(row["source_id"]),
        "source_rse": row["source"],
        "dest_rse_id": str(row["destination_id"]),
        "dest_rse": row["destination"],
        "rule_id": None if rule is None else rule.hex,
        "account": row["account"],
        "attributes": {},
        "external_id": None,
        "external_host": None,
        "transfertool": row["mode"],
        "retry_count": max(row["attempt"] - 1, 0),
        "attempt": row["attempt"],
        "err_msg": row["reason"],
        "err_code": row["code"],
        "not_before": row["not_before"],
        "requested_at": row["created_at"],
        "created_at": row["created_at"],
        "submitted_at": row["started_at"],
        "started_at": row["started_at"],
        "transferred_at": row["ended_at"] if row["state"] is RequestState.DONE else None,
        "updated_at": row["ended_at"] or row["started_at"] or row["created_at"],
    }
