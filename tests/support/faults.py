"""What has to hold after trouble at a site: nothing lost, nothing twice, and ledger, Butler and storage agree."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select, update

from arriero.agent.butler_contents import ButlerContents
from arriero.agent.ingest.butler_repository import open_repository
from arriero.agent.reconcile import Reconciler
from arriero.agent.reconcile_findings import Finding
from arriero.registry.schema.tables import arrivals, events
from support.butler import DAY
from support.installation import wait_until
from support.invariants import assert_invariants
from support.ledger_site import BUTLER, LedgerSite


def chance() -> random.Random:
    """Chance with a seed that is printed; ARRIERO_TEST_SEED has it happen again."""
    seed = int(os.environ.get("ARRIERO_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"ARRIERO_TEST_SEED={seed}")
    return random.Random(seed)


def findings(site: LedgerSite, *, mend: bool = False) -> list[Finding]:
    """What `arriero reconcile --files` finds; with `mend`, what it has mended."""
    with (
        ButlerContents(site.repository, writeable=mend) as contents,
        Reconciler(site.agent, contents, site.agent.butler(BUTLER)) as reconciler,
    ):
        reconciler.read()
        found = list(reconciler.findings(look_at_files=True))
        if mend:
            reconciler.mend(found)
        return found


def assert_agreed(site: LedgerSite) -> None:
    """Ledger, Butler and storage agree, and the invariants hold."""
    found = findings(site)
    assert found == [], Counter(one.kind for one in found)
    assert_invariants(site.registry.database)


def hurry(site: LedgerSite, *states: str) -> None:
    """Have what is in some states be due, and what is leased be leased no longer."""
    with site.registry.database.transaction() as connection:
        chosen = update(arrivals).where(arrivals.c.state.in_(states))
        connection.execute(
            chosen.values(lease_until=arrivals.c.created_at)
            if "leased" in states
            else chosen.values(not_before=arrivals.c.created_at)
        )


def visits(site: LedgerSite) -> set[int]:
    """Visits of the Butler."""
    with open_repository(site.repository) as butler:
        found = butler.query_dimension_records("visit", instrument="LSSTComCam", explain=False, limit=None)
        return {record.id for record in found}


def exposures_told(site: LedgerSite) -> set[int]:
    """Exposures that somebody was told of, as being whole."""
    with site.registry.database.snapshot() as connection:
        query = select(events.c.payload).where(events.c.event_type == "exposure-complete")
        return {int(payload["exposure"]) for payload in connection.scalars(query)}


def visits_told(site: LedgerSite) -> set[int]:
    """Visits that somebody was told of."""
    with site.registry.database.snapshot() as connection:
        query = select(events.c.payload).where(events.c.event_type == "visit-defined")
        return {int(payload["visit"]) for payload in connection.scalars(query)}


def wait_for_the_end(site: LedgerSite, names: set[str], numbers: Iterable[int]) -> None:
    """Wait until the files of exposures are in, and everybody knows."""
    whole = {DAY * 100_000 + number for number in numbers}

    def ended() -> bool:
        hurry(site, "pending")
        found = {one.state for name, one in site.ledger().items() if name in names}
        return found == {"ingested"} and whole <= exposures_told(site)

    wait_until(ended, "all is ingested, and told", instead=site.client.counts)


def assert_ingested_once(
    site: LedgerSite, names: set[str], numbers: Iterable[int], known: set[UUID], *, attempts: int
) -> None:
    """The files of exposures are in the Butler, each once, with their visits, after so many attempts.

    Parameters
    ----------
    known
        What the Butler had before.
    """
    ledger = {name: arrival for name, arrival in site.ledger().items() if name in names}
    assert len(ledger) == len(names)
    assert {one.state for one in ledger.values()} == {"ingested"}
    assert {one.attempt for one in ledger.values()} == {attempts}
    assert {one.dataset_id for one in ledger.values()} == site.in_butler() - known
    assert len({one.dataset_id for one in ledger.values()}) == len(names)
    assert {DAY * 100_000 + number for number in numbers} <= visits(site)
    assert {DAY * 100_000 + number for number in numbers} <= visits_told(site)
    assert_agreed(site)
