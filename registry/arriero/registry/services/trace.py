"""The way of one file, as DESIGN section 2 draws it: every arrow with its state, reason and age."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, get_args

from arriero.registry.errors import NotFound
from arriero.registry.models import (
    Arrival,
    StepName,
    Trace,
    TraceLock,
    TraceReplica,
    TraceRequest,
    TraceRule,
    TraceStep,
)
from arriero.registry.services.context import Context
from arriero.registry.services.hindrances import Hindrances, load_hindrances, next_attempt, told
from arriero.registry.states import ReplicaState, RequestState
from arriero.registry.store import trace as store

_ORDER = get_args(StepName)
"""Order of things that happened in the same transaction."""


def trace_file(context: Context, scope: str, name: str) -> Trace:
    """Tell the way of a file, in a fixed number of statements.

    Raises
    ------
    NotFound
        There is no such DID.
    """
    with context.database.snapshot() as connection:
        did = store.did_row(connection, scope, name)
        if did is None:
            raise NotFound(
                f"there is no DID {scope}:{name}: check scope and name, or register it",
                rucio_class="DataIdentifierNotFound",
                code="did_not_found",
            )
        key = did["id"]
        rules = [
            TraceRule.model_validate({**row, "id": row["rule_id"]})
            for row in store.fetch(connection, store.rule_rows(key))
        ]
        locks = [TraceLock.model_validate(row) for row in store.fetch(connection, store.lock_rows(key))]
        attempts = [
            TraceRequest.model_validate(row) for row in store.fetch(connection, store.attempt_rows(key))
        ]
        waiting = store.fetch(connection, store.request_rows(key))
        hindrances = load_hindrances(connection)
        replicas = [
            TraceReplica.model_validate(row) for row in store.fetch(connection, store.replica_rows(key))
        ]
        arrivals = [Arrival.model_validate(row) for row in store.fetch(connection, store.arrivals_of(key))]
    live = [_request(row, hindrances) for row in waiting]
    trace = Trace(
        scope=scope,
        name=name,
        **{field: did[field] for field in ("type", "bytes", "adler32", "account", "created_at", "now")},
        rules=rules,
        locks=locks,
        requests=[*attempts, *live],
        replicas=replicas,
        arrivals=arrivals,
    )
    steps = sorted(_steps(trace), key=lambda step: (step.at, _ORDER.index(step.step)))
    return trace.model_copy(update={"steps": steps})


def _request(row: Mapping[str, Any], hindrances: Hindrances) -> TraceRequest:
    """A copy that is wanted, with what stands in its way beside what it says itself."""
    if row["state"] is not RequestState.QUEUED:
        return TraceRequest.model_validate(row)
    found = hindrances.of(row["destination_id"], row["activity"], row["code"])
    if found is None:
        return TraceRequest.model_validate(row)
    said = {"code": found.code, "reason": told(found, row["reason"])}
    return TraceRequest.model_validate({**row, **said, "not_before": next_attempt(found, row["not_before"])})


def _steps(trace: Trace) -> Iterator[TraceStep]:
    maker = _StepMaker(trace.now)
    yield maker.step(trace.created_at, "registered", trace.account, trace.type)
    for rule in trace.rules:
        told = f"{rule.copies} at {rule.rse_expression}, on {rule.scope}:{rule.name}"
        yield maker.step(rule.created_at, "rule", rule.id, rule.state, _told(told, rule))
    asked = {rule.id: rule.created_at for rule in trace.rules}
    for lock in trace.locks:
        told = _told(f"rule {lock.rule_id[:8]}", lock)
        took_s = _between(asked.get(lock.rule_id), lock.created_at)
        yield maker.step(lock.created_at, "lock", lock.rse, lock.state, told, took_s)
    for request in trace.requests:
        yield _request_step(maker, request)
    copied = {request.destination: request.started_at for request in trace.requests}
    for replica in trace.replicas:
        if replica.verified_at is None:
            yield maker.step(replica.created_at, "replica", replica.rse, replica.state, _told("", replica))
            continue
        # what Arriero has verified it has copied: the row began as COPYING
        yield maker.step(replica.created_at, "replica", replica.rse, ReplicaState.COPYING)
        told = _told(f"{replica.bytes} bytes", replica)
        took_s = _between(copied.get(replica.rse), replica.verified_at)
        yield maker.step(replica.verified_at, "verified", replica.rse, replica.state, told, took_s)
    for arrival in trace.arrivals:
        yield from _arrival_steps(maker, arrival)


@dataclass(frozen=True, slots=True)
class _StepMaker:
    """Makes steps whose ages are seen from one moment."""

    now: datetime

    def step(  # noqa: PLR0917 - one line of a table
        self,
        at: datetime,
        kind: StepName,
        where: str,
        state: str,
        detail: str = "",
        took_s: float | None = None,
    ) -> TraceStep:
        age_s = max(0.0, (self.now - at).total_seconds())
        return TraceStep(
            at=at, age_s=age_s, step=kind, where=where, state=state, detail=detail, took_s=took_s
        )


def _request_step(maker: _StepMaker, request: TraceRequest) -> TraceStep:
    told = f"attempt {request.attempt}"
    if request.source:
        told += f" from {request.source}"
    if request.mode:
        told += f", {request.mode}"
    if request.ended_at is not None:
        return maker.step(
            request.started_at or request.ended_at,
            "attempt",
            request.destination,
            request.state,
            _told(told, request),
            request.seconds,
        )
    if request.not_before is not None and request.not_before > maker.now:
        told += f", next in {(request.not_before - maker.now).total_seconds():.0f} s"
    at = request.started_at or request.created_at
    return maker.step(at, "request", request.destination, request.state, _told(told, request))


def _arrival_steps(maker: _StepMaker, arrival: Arrival) -> Iterator[TraceStep]:
    told = _told(f"at {arrival.rse}", arrival)
    if arrival.waits_for:
        told += f"; waits for {arrival.waits_for}"
    waited_s = _between(arrival.created_at, arrival.started_at)
    yield maker.step(arrival.created_at, "arrival", arrival.butler, arrival.state, told, waited_s)
    if arrival.ingested_at is not None:
        told = f"dataset {arrival.dataset_id}"
        took_s = _between(arrival.started_at, arrival.ingested_at)
        yield maker.step(arrival.ingested_at, "ingested", arrival.butler, arrival.state, told, took_s)


def _between(begin: datetime | None, end: datetime | None) -> float | None:
    """Seconds from one moment to a later one, by the database's clock; None when one of them is not known."""
    return None if begin is None or end is None else max(0.0, (end - begin).total_seconds())


class _Reasoned(Protocol):
    @property
    def code(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...


def _told(what: str, thing: _Reasoned) -> str:
    why = ": ".join(part for part in (thing.code, thing.reason) if part)
    return "; ".join(part for part in (what, why) if part)
