"""What is measured of the whole system, for those who watch it: from the database, where everything that works leaves its state.

A fixed number of statements, each with a time-out of its own; a part that took too long is left out, and said to be.
Labels are links, RSEs, Butlers, senders, activities, states and codes: no names of data, accounts or reasons (docs/adr/0027).
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import structlog
from sqlalchemy import Connection, RowMapping, Select, select
from sqlalchemy.exc import DBAPIError

from arriero.registry.dialect import give_up_after
from arriero.registry.schema.base import now
from arriero.registry.services.context import Context
from arriero.registry.services.hindrances import load_hindrances
from arriero.registry.services.recent import Recent
from arriero.registry.states import BreakerState, RequestState
from arriero.registry.store import links as link_store
from arriero.registry.store import metrics as store
from arriero.registry.store import rse_health as health_store
from arriero.registry.store.hindrances import BLOCKED, RSE_DOWN
from arriero.registry.store.stops import DELETIONS, is_stopped

log = structlog.get_logger(__name__)

KEPT_S = 10.0
"""How long figures are given out at least, seconds."""

STATEMENT_S = 5.0
"""How long one statement may take, seconds."""

MAX_ACTIVITIES = 50
"""Activities that are told apart: anybody who adds a rule can make up one."""

OTHERS = "(others)"

Labels = tuple[str, ...]


@dataclass(slots=True)
class Family:
    """One figure, for each combination of its labels."""

    name: str
    help: str
    labels: Labels = ()
    kind: Literal["gauge", "counter"] = "gauge"
    samples: dict[Labels, float] = field(default_factory=lambda: defaultdict(float))


class Metrics(Recent[Sequence[Family]]):
    """The figures of this process's database, for all who ask.

    Parameters
    ----------
    context
        Of the process.
    kept_s
        How long they are given out at least, seconds.
    """

    def __init__(self, context: Context, *, kept_s: float = KEPT_S) -> None:
        super().__init__(lambda: measure(context), "everything", kept_s=kept_s)


def measure(context: Context) -> Sequence[Family]:
    """Measure everything anew."""
    missing = Family("arriero_metrics_missing", "Whether a part of the metrics took too long.", ("part",))
    took = Family("arriero_metrics_seconds", "How long measuring a part took, seconds.", ("part",))
    families: list[Family] = []
    for name, part in PARTS.items():
        begun = time.monotonic()
        try:
            with context.database.snapshot() as connection, give_up_after(connection, STATEMENT_S):
                found = list(part(connection))
        except DBAPIError as error:
            log.warning("part of the metrics left out", part=name, cause=type(error.orig).__name__)
            missing.samples[name,] = 1
        else:
            families += found
            missing.samples[name,] = 0
        took.samples[name,] = time.monotonic() - begun
    return [*families, missing, took]


def _rows(connection: Connection, query: Select[Any]) -> Sequence[RowMapping]:
    return connection.execute(query).mappings().all()


def _age(at: datetime, since: datetime | None) -> float:
    return 0.0 if since is None else max((at - since).total_seconds(), 0.0)


def _requests(connection: Connection) -> Iterator[Family]:
    rows = _rows(connection, store.requests_query(load_hindrances(connection).words()))
    by = ("destination", "activity", "state")
    files = Family("arriero_requests", "Requests for copies.", by)
    size = Family("arriero_request_bytes", "Bytes of the requests for copies.", by)
    waits = Family(
        "arriero_requests_waiting", "Requests in the queue, by what they wait for.", ("destination", "code")
    )
    failed = Family(
        "arriero_requests_failed", "Requests that were given up, by why.", ("destination", "code")
    )
    oldest = Family(
        "arriero_request_oldest_seconds",
        "Age of the oldest request that waits in the queue, seconds.",
        ("destination", "activity"),
    )
    due = Family(
        "arriero_request_oldest_due_seconds",
        "Since when the longest has been due of those that nothing stands in the way of, seconds.",
        ("destination", "activity"),
    )
    known = _common(rows)
    for row in rows:
        activity = row["activity"] if row["activity"] in known else OTHERS
        key = (row["destination"], activity, row["state"].value)
        files.samples[key] += row["files"]
        size.samples[key] += float(row["bytes"])
        place = (row["destination"], activity)
        if row["state"] is RequestState.FAILED:
            failed.samples[row["destination"], row["code"]] += row["files"]
        if row["state"] is RequestState.QUEUED:
            waits.samples[row["destination"], row["code"]] += row["files"]
            oldest.samples[place] = max(oldest.samples[place], _age(row["at"], row["oldest_at"]))
            if row["code"] not in {BLOCKED, RSE_DOWN}:
                due.samples[place] = max(due.samples[place], _age(row["at"], row["due_at"]))
    yield from (files, size, waits, failed, oldest, due)


def _common(rows: Sequence[RowMapping]) -> frozenset[str]:
    """Activities that are told apart: those with the most requests."""
    counted: Counter[str] = Counter()
    for row in rows:
        counted[row["activity"]] += row["files"]
    return frozenset(activity for activity, _ in counted.most_common(MAX_ACTIVITIES))


_LINK = ("source", "destination")


def _link_totals(connection: Connection) -> Iterator[Family]:
    copies = Family(
        "arriero_transfers_total",
        "Copies that have ended, by how; those that succeeded have no code.",
        (*_LINK, "result", "code"),
        "counter",
    )
    size = Family("arriero_transfer_bytes_total", "Bytes that were copied.", _LINK, "counter")
    seconds = Family(
        "arriero_transfer_seconds_total",
        "Wall time of the copies that succeeded, added up.",
        _LINK,
        "counter",
    )
    for row in _rows(connection, store.link_totals_query()):
        link = (row["source"], row["destination"])
        result = "failed" if row["code"] else "succeeded"
        copies.samples[*link, result, row["code"]] += row["copies"]
        if not row["code"]:
            size.samples[link] += row["bytes"]
            seconds.samples[link] += row["seconds"]
    yield from (copies, size, seconds)


def _links(connection: Connection) -> Iterator[Family]:
    names = link_store.names_of(connection)
    running = Family("arriero_transfers_running", "Copies under way.", _LINK)
    for (source, destination), count in link_store.under_way(connection).items():
        if source in names and destination in names:
            running.samples[names[source], names[destination]] = count
    slots = Family("arriero_link_slots", "Copies at once that a link gets.", _LINK)
    rate = Family("arriero_link_throughput_bytes", "Bytes a second of a link, a moving average.", _LINK)
    success = Family("arriero_link_success_ratio", "Share of copies that succeed, a moving average.", _LINK)
    decided = Family(
        "arriero_link_decided_timestamp_seconds", "Unix time of the last decision about its slots.", _LINK
    )
    for row in _rows(connection, link_store.links_query()):
        link = (row["source"], row["destination"])
        slots.samples[link] = row["slots"]
        for family, key in ((rate, "throughput"), (success, "success")):
            if row[key] is not None:
                family.samples[link] = row[key]
        if row["decided_at"] is not None:
            decided.samples[link] = row["decided_at"].timestamp()
    yield from (running, slots, rate, success, decided)


def _rses(connection: Connection) -> Iterator[Family]:
    is_open = Family("arriero_rse_available", "Whether an RSE is open.", ("rse", "operation"))
    down = Family("arriero_rse_down", "Whether the breaker of an RSE is open.", ("rse",))
    since = Family("arriero_rse_down_seconds", "How long it has been, seconds.", ("rse",))
    failures = Family("arriero_rse_failures", "Failures in a row that an RSE is to blame for.", ("rse",))
    halted = Family(
        "arriero_rse_deletion_halted", "Whether deletion waits at an RSE after failures.", ("rse",)
    )
    at = connection.execute(select(now())).scalar_one()
    for row in _rows(connection, health_store.health_query()):
        rse = row["rse"]
        for operation in ("read", "write", "delete"):
            is_open.samples[rse, operation] = float(row[f"availability_{operation}"])
        is_down = (row["breaker"] or BreakerState.CLOSED) is not BreakerState.CLOSED
        down.samples[rse,] = float(is_down)
        since.samples[rse,] = _age(at, row["opened_at"]) if is_down else 0.0
        failures.samples[rse,] = row["failures"] or 0
        halted.samples[rse,] = float(
            row["deletion_not_before"] is not None and row["deletion_not_before"] > at
        )
    space = Family("arriero_rse_bytes", "Space of an RSE as its storage says, bytes.", ("rse", "kind"))
    for row in _rows(connection, store.usage_query()):
        for kind in ("used", "free", "freed"):
            if row[kind] is not None:
                space.samples[row["rse"], kind] = row[kind]
    yield from (is_open, down, since, failures, halted, space)


def _rules(connection: Connection) -> Iterator[Family]:
    count = Family("arriero_rules", "Rules.", ("state",))
    locks = Family("arriero_locks", "Locks of all rules.", ("state",))
    for row in _rows(connection, store.rules_query()):
        count.samples[row["state"].value,] = row["rules"]
        for state in ("ok", "replicating", "stuck"):
            locks.samples[state.upper(),] += float(row[f"locks_{state}"])
    looks = Family("arriero_evaluations", "Rules that are to be looked at.", ("state",))
    late = Family("arriero_evaluation_oldest_due_seconds", "Since when the longest has been due, seconds.")
    late.samples[()] = 0.0
    for row in _rows(connection, store.evaluations_query()):
        looks.samples[row["state"],] = row["rules"]
        if row["state"] == "due":
            late.samples[()] = _age(row["at"], row["due_at"])
    yield from (count, locks, looks, late)


def _arrivals(connection: Connection) -> Iterator[Family]:
    files = Family("arriero_arrivals", "Files on their way into a Butler.", ("butler", "state"))
    oldest = Family(
        "arriero_arrival_oldest_seconds", "Age of the oldest of them, seconds.", ("butler", "state")
    )
    for row in _rows(connection, store.arrivals_query(waiting=True)):
        key = (row["butler"], row["state"].value)
        files.samples[key] = row["files"]
        oldest.samples[key] = _age(row["at"], row["oldest_at"])
    reasons = Family(
        "arriero_arrival_reasons", "Files that wait for a Butler, by reason.", ("butler", "state", "code")
    )
    for row in _rows(connection, store.arrival_reasons_query()):
        reasons.samples[row["butler"], row["state"].value, row["code"] or ""] = row["files"]
    last = Family("arriero_last_ingest_seconds", "Since something was ingested last, seconds.", ("butler",))
    for row in _rows(connection, store.last_ingests_query()):
        if row["last_at"] is not None:
            last.samples[row["butler"],] = _age(row["at"], row["last_at"])
    yield from (files, oldest, reasons, last)


def _ledger(connection: Connection) -> Iterator[Family]:
    """What has arrived: the ledger is never shortened, so that this may take too long one day."""
    files = Family(
        "arriero_arrived", "Files that are in a Butler, were, or did not get in.", ("butler", "state")
    )
    for row in _rows(connection, store.arrivals_query(waiting=False)):
        files.samples[row["butler"], row["state"].value] = row["files"]
    yield files


def _deletions(connection: Connection) -> Iterator[Family]:
    files = Family("arriero_deletions", "Replicas that are being deleted.", ("rse", "state"))
    size = Family("arriero_deletion_bytes", "Bytes of the replicas that are being deleted.", ("rse", "state"))
    oldest = Family("arriero_deletion_oldest_seconds", "Age of the oldest deletion, seconds.", ("rse",))
    stopped = Family("arriero_deletion_stopped", "Whether somebody has stopped all deletion.")
    stopped.samples[()] = float(is_stopped(connection, DELETIONS))
    for row in _rows(connection, store.deletions_query()):
        files.samples[row["rse"], row["state"]] = row["files"]
        size.samples[row["rse"], row["state"]] = float(row["bytes"])
        oldest.samples[row["rse"],] = max(oldest.samples[row["rse"],], _age(row["at"], row["oldest_at"]))
    yield from (files, size, oldest, stopped)


def _deletion_totals(connection: Connection) -> Iterator[Family]:
    files = Family(
        "arriero_deletions_ended_total",
        "Deletions that have ended, by how; what went well has no code.",
        ("rse", "result", "code"),
        "counter",
    )
    size = Family("arriero_deleted_bytes_total", "Bytes that deletions have freed.", ("rse",), "counter")
    seconds = Family(
        "arriero_deletion_seconds_total",
        "Wall time of the requests to storages that delete, added up.",
        ("rse",),
        "counter",
    )
    for row in _rows(connection, store.deletion_totals_query()):
        files.samples[row["rse"], row["outcome"], row["code"]] += row["files"]
        size.samples[row["rse"],] += row["bytes"]
        seconds.samples[row["rse"],] += row["seconds"]
    yield from (files, size, seconds)


def _workers(connection: Connection) -> Iterator[Family]:
    count = Family("arriero_workers_busy", "Workers that hold something of a queue now.", ("queue",))
    late = Family("arriero_leases_expired", "What is held longer than its lease.", ("queue",))
    for row in _rows(connection, store.workers_query()):
        count.samples[row["queue"],] = row["workers"]
        late.samples[row["queue"],] = row["late"]
    yield from (count, late)


def _events(connection: Connection) -> Iterator[Family]:
    oldest = Family(
        "arriero_event_sender_oldest_seconds",
        "Age of the oldest event behind a sender's place, seconds.",
        ("sender",),
    )
    for row in _rows(connection, store.event_senders_query()):
        oldest.samples[row["name"],] = _age(row["at"], row["oldest"])
    yield oldest


PARTS: Mapping[str, Callable[[Connection], Iterator[Family]]] = {
    "requests": _requests,
    "link_totals": _link_totals,
    "links": _links,
    "rses": _rses,
    "rules": _rules,
    "arrivals": _arrivals,
    "ledger": _ledger,
    "deletions": _deletions,
    "deletion_totals": _deletion_totals,
    "workers": _workers,
    "events": _events,
}
