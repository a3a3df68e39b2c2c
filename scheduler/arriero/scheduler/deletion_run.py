"""Runs deletions: finds the RSEs where something is due and works on several of them at once."""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import structlog

from arriero.registry.ports import Bell
from arriero.registry.rse_credentials import RseCredentials, read_credentials
from arriero.registry.services.context import Context
from arriero.registry.store.deletion_terms import Terms, due_rses
from arriero.rse.errors import RSEError
from arriero.rse.pool import ProtocolPool
from arriero.rse.protocol import StorageProtocol
from arriero.rse.types import Endpoint
from arriero.scheduler.core.marks import Refusal
from arriero.scheduler.core.retry import back_off
from arriero.scheduler.deletion_leases import DeletionLeases
from arriero.scheduler.deletion_mark import refused_by_mark
from arriero.scheduler.deletion_settle import note_failure
from arriero.scheduler.deletion_site import LOOK_S, DeletionSite, SiteSummary
from arriero.scheduler.rse_catalogue import Rse, load_rses
from arriero.scheduler.workers import TIME_BUDGET_S, never, worker_name

log = structlog.get_logger(__name__)

SITES = 4
"""RSEs that one worker process deletes at, at once: one that hangs holds up no other."""

MARKED = "deletion_mark"
"""Attribute of an RSE; when it is false no mark is left on its storage, and none is looked for."""


@dataclass(slots=True)
class _Run:
    """The state of one run."""

    leases: DeletionLeases
    owner: str
    until: float
    active: dict[int, Future[SiteSummary]] = field(default_factory=dict)
    exhausted: set[int] = field(default_factory=set)
    """RSEs where this run has found nothing that may go, though something was due."""
    total: SiteSummary = field(default_factory=SiteSummary)


class DeletionRunner:
    """Works on the queue of deletions.

    Parameters
    ----------
    context
        Database, settings, doorbell.
    pool
        Protocols of this process.
    stopping
        Asked all the time; True ends `run`: what was not sent is given back.
    """

    def __init__(
        self, context: Context, *, pool: ProtocolPool | None = None, stopping: Callable[[], bool] = never
    ) -> None:
        self._context = context
        self._pool = pool or ProtocolPool()
        self._credentials = read_credentials(context.settings.credentials_file)
        self._stopping = stopping

    def run(self, *, budget_s: float = TIME_BUDGET_S) -> SiteSummary:
        """Delete what is due until nothing is, or the time is up; then the bell is rung for the rest.

        Parameters
        ----------
        budget_s
            How long deletions are claimed, seconds.
        """
        owner = worker_name("delete")
        lease_s = self._context.settings.deletion_lease_s
        with (
            DeletionLeases(self._context.database, owner, lease_s=lease_s) as leases,
            ThreadPoolExecutor(SITES, thread_name_prefix="arriero-deletions") as sites,
        ):
            run = _Run(leases, owner, time.monotonic() + budget_s)
            self._rounds(run, sites)
        if run.total.claimed:
            log.info("deletions run", **_figures(run.total))
        return run.total

    def _rounds(self, run: _Run, sites: ThreadPoolExecutor) -> None:
        while True:
            in_time = time.monotonic() < run.until and not self._stopping()
            due = self._due(run) if in_time else []
            for terms in due[: SITES - len(run.active)]:
                run.active[terms.rse_id] = sites.submit(self._work, run, terms)
            if not run.active:
                if time.monotonic() >= run.until:
                    self._context.doorbell.ring(Bell.DELETIONS)
                return
            wait(run.active.values(), timeout=LOOK_S, return_when=FIRST_COMPLETED)
            for rse_id in [one for one, future in run.active.items() if future.done()]:
                summary = run.active.pop(rse_id).result()
                for name in SiteSummary.__slots__:
                    setattr(run.total, name, getattr(run.total, name) + getattr(summary, name))
                if not summary.done:
                    run.exhausted.add(rse_id)

    def _due(self, run: _Run) -> list[Terms]:
        with self._context.database.snapshot() as connection:
            due = due_rses(connection)
        return [one for one in due if one.rse_id not in run.active and one.rse_id not in run.exhausted]

    def _work(self, run: _Run, terms: Terms) -> SiteSummary:
        """Delete at one RSE."""
        with self._context.database.snapshot() as connection:
            rse = load_rses(connection).by_id.get(terms.rse_id)
        if rse is None:
            return SiteSummary()
        found = self._storage_of(rse)
        if isinstance(found, Refusal):
            self._refuse(terms, found)
            return SiteSummary()
        site = DeletionSite(
            self._context, rse, found, owner=run.owner, leases=run.leases, stopping=self._stopping
        )
        return site.run(run.until)

    def _storage_of(self, rse: Rse) -> StorageProtocol | Refusal:
        """Give what deletes at an RSE, if its storage is what it should be."""
        protocol = rse.protocol_for("delete")
        if protocol is None:
            step = "switch it on with arriero rse protocol update --domain-json"
            return Refusal("no_protocol", f"{rse.name} has no protocol for delete; {step}")
        try:
            bare = Endpoint(
                rse=rse.name,
                scheme=protocol.scheme,
                hostname=protocol.hostname,
                port=protocol.port,
                prefix=protocol.prefix,
            )
            storage = self._pool.get(self._credentials.get(rse.name, RseCredentials()).of(bare))
            if rse.attributes.get(MARKED, "true").casefold() in {"false", "0", "no"}:
                return storage
            return refused_by_mark(self._context.database, rse.id, rse.name, storage) or storage
        except RSEError as error:
            return Refusal(error.code, str(error))

    def _refuse(self, terms: Terms, refusal: Refusal) -> None:
        settings = self._context.settings
        wait_s = back_off(
            terms.failures + 1,
            base_s=settings.deletion_backoff_s,
            maximum_s=settings.deletion_backoff_max_s,
            seed=terms.name,
        )
        log.warning("nothing is deleted", rse=terms.name, code=refusal.code, wait_s=round(wait_s, 1))
        self._context.database.run(
            lambda tx: note_failure(tx, terms.rse_id, code=refusal.code, reason=refusal.reason, wait_s=wait_s)
        )


def _figures(summary: SiteSummary) -> dict[str, int]:
    return {name: getattr(summary, name) for name in SiteSummary.__slots__ if getattr(summary, name)}
