"""Rules whose owners are told something: two datasets to copy, the copies, and what was told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from arriero.registry.services.context import Actor
from arriero.registry.services.dids import set_status
from arriero.registry.states import DidType, Role
from arriero.scheduler.claim import ClaimedRequest, claim_requests
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.reports import Transfer, success
from arriero.scheduler.settle import settle
from support.scheduling import Catalogue, events

COPIED = Transfer("third_party_pull", 0.5, "SLAC", "davs://slac/x", "davs://in2p3/x", "davs")

TOLD = ("RULE_OK", "RULE_PROGRESS", "DATASETLOCK_OK")


def evaluate(catalogue: Catalogue) -> None:
    Evaluator(catalogue.context).run()


def claim(catalogue: Catalogue, limit: int = 1000) -> list[ClaimedRequest]:
    return catalogue.database.run(lambda tx: claim_requests(tx, "w", limit=limit, lease_s=300))


def bring(catalogue: Catalogue, taken: Sequence[ClaimedRequest]) -> None:
    settle(catalogue.database, [success(request, COPIED) for request in taken], stuck_retry_s=7200)


def bring_files(catalogue: Catalogue, taken: Sequence[ClaimedRequest], files: Sequence[int]) -> None:
    bring(catalogue, [request for request in taken if request.file_id in set(files)])


def told(catalogue: Catalogue) -> list[tuple[str, Any]]:
    """Give what was told: the event, and the progress or the dataset with its RSE."""
    found = []
    for row in catalogue.rows(select(events).order_by(events.c.id)):
        if row.event_type not in TOLD:
            continue
        payload = row.payload
        detail = payload.get("progress")
        if row.event_type == "DATASETLOCK_OK":
            detail = f"{payload['name']} at {payload['rse']}"
        found.append((row.event_type, detail))
    return found


def datasets_told(catalogue: Catalogue) -> list[str]:
    return [detail for kind, detail in told(catalogue) if kind == "DATASETLOCK_OK"]


def set_open(catalogue: Catalogue, name: str, *, is_open: bool) -> None:
    root = Actor(catalogue.account_id, "root", Role.ADMIN)
    set_status(catalogue.context, root, "raw", name, is_open=is_open)


def close(catalogue: Catalogue, *names: str) -> None:
    for name in names:
        set_open(catalogue, name, is_open=False)


class Night:
    """Two datasets of four files in a container, all at SLAC."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.slac = catalogue.rse("SLAC")
        self.in2p3 = catalogue.rse("IN2P3")
        self.lancs = catalogue.rse("LANCS")
        self.first = catalogue.files(4, prefix="a", at=[self.slac])
        self.second = catalogue.files(4, prefix="b", at=[self.slac])
        self.raw = catalogue.collection("raw", children=self.first)
        self.flats = catalogue.collection("flats", children=self.second)
        self.night = catalogue.collection("night", DidType.CONTAINER, children=[self.raw, self.flats])
