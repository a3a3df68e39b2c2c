"""The scrubber: reads replicas again, the longest verified first and at a pace, and tells what is wrong with them.

Claim, read with no transaction open, settle. A replica is bad when two looks, some time apart, agree that it is; a look
counts only where something else of the same RSE was found (docs/adr/0024).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, select

from arriero.registry.rse_credentials import RseCredentials, read_credentials
from arriero.registry.schema.tables import dids, replicas, rses, scopes
from arriero.registry.services.bad_replicas import Sayer
from arriero.registry.services.context import Context
from arriero.registry.services.storage_findings import act
from arriero.registry.states import ReplicaState, RseType
from arriero.rse.errors import AccessDenied, RSEError, TimedOut, Unavailable, Unsupported
from arriero.rse.lfn2pfn import path_for
from arriero.rse.pool import ProtocolPool
from arriero.rse.protocol import StorageProtocol
from arriero.rse.types import Endpoint
from arriero.scheduler.rse_catalogue import Rse, load_rses
from arriero.scheduler.scrub_doubts import ask_for_doubted
from arriero.scheduler.scrub_queue import Check, claim_checks, due_rses
from arriero.scheduler.scrub_read import RSE_DOUBTED, Looked, Order, Outcome, doubt_missing, look_at_all
from arriero.scheduler.scrub_settle import count_read, leave_alone, settle_checks
from arriero.scheduler.workers import never, worker_name

log = structlog.get_logger(__name__)

BY_DIGEST = "scrub_by_digest"
"""Attribute of an RSE that computes a digest from the bytes whenever it is asked for one: then it is asked, first."""

_DAY_S = 86400.0
_WITNESSES = 3
_OF_THE_RSE = frozenset({Unavailable.code, TimedOut.code, AccessDenied.code, RSE_DOUBTED})
"""What a look can tell of the RSE itself."""


@dataclass(slots=True)
class ScrubSummary:
    """What one run did."""

    good: int = 0
    wrong: int = 0
    unknown: int = 0
    declared: int = 0


class Scrubber:
    """Reads replicas again.

    Parameters
    ----------
    context
        Database, settings, doorbell.
    pool
        Protocols of this process.
    stopping
        Asked all the time; True ends `run`.
    """

    def __init__(
        self, context: Context, *, pool: ProtocolPool | None = None, stopping: Callable[[], bool] = never
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._pool = pool or ProtocolPool()
        self._credentials = read_credentials(context.settings.credentials_file)
        self._owner = worker_name("scrub")
        self._stopping = stopping

    def run(self) -> ScrubSummary:
        """Do one round: at each RSE what its pace allows now."""
        summary = ScrubSummary()
        known = self._readable()
        due = self._context.database.run(lambda tx: self._ask(tx, known))
        for rse_id in due:
            if self._stopping():
                break
            self._scrub(known[rse_id], summary)
        if summary.good or summary.wrong or summary.unknown:
            log.info("replicas read", good=summary.good, wrong=summary.wrong, unknown=summary.unknown)
        return summary

    def _readable(self) -> dict[int, Rse]:
        """RSEs whose files can be read without fetching them from a tape."""
        with self._context.database.snapshot() as connection:
            tapes = set(connection.scalars(select(rses.c.id).where(rses.c.type == RseType.TAPE)))
            found = load_rses(connection).by_id
        return {
            rse.id: rse
            for rse in found.values()
            if rse.readable and rse.id not in tapes and rse.protocol_for("read") is not None
        }

    def _ask(self, tx: Connection, known: dict[int, Rse]) -> list[int]:
        ask_for_doubted(tx, known, since_s=self._settings.suspicious_days * _DAY_S)
        return due_rses(tx, known, turns=self._settings.scrub_bytes_per_s > 0)

    def _scrub(self, rse: Rse, summary: ScrubSummary) -> None:
        settings = self._settings
        database = self._context.database
        checks = database.run(
            lambda tx: claim_checks(
                tx,
                rse.id,
                self._owner,
                limit=settings.scrub_files,
                pace=settings.scrub_bytes_per_s,
                window_s=settings.sweep_s,
                age_s=settings.scrub_age_days * _DAY_S,
            )
        )
        if not checks:
            return
        begun = time.monotonic()
        looked = self._look(rse, checks)
        seconds = time.monotonic() - begun

        def settle(tx: Connection) -> tuple[int, int, int]:
            settled = settle_checks(tx, rse.id, looked, confirm_s=settings.scrub_confirm_s)
            count_read(tx, rse.id, looked, seconds)
            silent = all(one.code in _OF_THE_RSE for one in looked)
            last = looked[-1]
            leave_alone(
                tx, rse.id, code=last.code if silent else None, reason=last.reason if silent else None
            )
            return settled.good, settled.wrong, settled.unknown

        good, wrong, unknown = database.run(settle)
        summary.good += good
        summary.wrong += wrong
        summary.unknown += unknown
        if wrong:
            summary.declared += act(self._context, rse.id, Sayer()).declared

    def _look(self, rse: Rse, checks: Sequence[Check]) -> list[Looked]:
        by_digest = rse.attributes.get(BY_DIGEST, "").lower() in {"true", "1", "yes"}
        orders: list[Order] = []
        looked: list[Looked] = []
        for check in checks:
            try:
                path = _path(rse, check.path, check.scope, check.name)
            except RSEError as error:
                looked.append(Looked(check, Outcome.UNKNOWN, code=error.code, reason=str(error)))
            else:
                # what is doubted is read, whatever its digest
                orders.append(Order(check, path, by_digest=by_digest and check.rank > 0))
        try:
            protocol = self._protocol(rse)
        except RSEError as error:
            return looked + [
                Looked(order.check, Outcome.UNKNOWN, code=error.code, reason=str(error)) for order in orders
            ]
        found = look_at_all(protocol, orders, threads=self._settings.scrub_threads, stopping=self._stopping)
        most = max(self._settings.audit_brake_files, int(self._settings.audit_brake_share * len(found)))
        witnesses = self._witnesses(rse, found) if _has_only_missing(found) else []
        return looked + doubt_missing(protocol, found, witnesses, most=most)

    def _protocol(self, rse: Rse) -> StorageProtocol:
        protocol = rse.protocol_for("read")
        if protocol is None:
            raise Unsupported(f"RSE {rse.name} has no protocol to read from.", rse=rse.name)
        bare = Endpoint(rse.name, protocol.scheme, protocol.hostname, protocol.port, protocol.prefix)
        return self._pool.get(self._credentials.get(rse.name, RseCredentials()).of(bare))

    def _witnesses(self, rse: Rse, looked: Sequence[Looked]) -> list[str]:
        """Paths of other replicas that should be there."""
        query = (
            select(replicas.c.path, scopes.c.name.label("scope"), dids.c.name)
            .join(dids, dids.c.id == replicas.c.file_id)
            .join(scopes, scopes.c.id == dids.c.scope_id)
            .where(
                replicas.c.rse_id == rse.id,
                replicas.c.state == ReplicaState.AVAILABLE,
                replicas.c.file_id.not_in([one.check.file_id for one in looked]),
            )
            .order_by(replicas.c.file_id.desc())
            .limit(_WITNESSES)
        )
        with self._context.database.snapshot() as connection:
            return [_path(rse, row.path, row.scope, row.name) for row in connection.execute(query)]


def _has_only_missing(looked: Sequence[Looked]) -> bool:
    found = [one for one in looked if one.bytes is not None]
    return not found and any(one.outcome is Outcome.MISSING for one in looked)


def _path(rse: Rse, known: str | None, scope: str, name: str) -> str:
    return known or path_for(rse.algorithm, scope, name)
