"""The smallest main job: one night's files at one site, and a rule that wants them at another."""

from __future__ import annotations

from sqlalchemy import select

from arriero.registry.services.context import Actor
from arriero.registry.services.replicas import NewReplica, add_replicas
from arriero.registry.services.rule_removal import remove_rule
from arriero.registry.states import Role
from arriero.scheduler.claim import ClaimedRequest, claim_requests
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.reports import Report, Transfer, failure
from arriero.scheduler.settle import Settled, settle
from support.scheduling import Catalogue, replicas

COPIED = Transfer("third_party_pull", 0.5, "SLAC", "davs://slac/x", "davs://in2p3/x", "davs")


class Night:
    """A dataset of files at SLAC that a rule wants at IN2P3."""

    def __init__(self, catalogue: Catalogue, files: int = 3) -> None:
        self.catalogue = catalogue
        self.context = catalogue.context
        self.root = Actor(catalogue.account_id, "root", Role.ADMIN)
        attributes = {"lfn2pfn_algorithm": "identity"}
        self.slac = catalogue.rse("SLAC", attributes=attributes)
        self.in2p3 = catalogue.rse("IN2P3", attributes=attributes)
        self.files = catalogue.files(files, at=[self.slac])
        self.dataset = catalogue.collection("night", children=self.files)
        self.rule = catalogue.rule(self.dataset, "IN2P3")
        self.evaluate()

    def evaluate(self) -> None:
        Evaluator(self.context).run()

    def claim(self, owner: str = "w") -> list[ClaimedRequest]:
        return self.catalogue.database.run(lambda tx: claim_requests(tx, owner, limit=100, lease_s=30))

    def settle(self, *reports: Report) -> Settled:
        return settle(self.catalogue.database, reports, stuck_retry_s=7200)

    def fails(self, request: ClaimedRequest, *, retryable: bool):
        return failure(request, self.context.settings, "timed_out", "no answer", retryable=retryable)

    def declare(self, count: int | None = None, rse: str = "IN2P3") -> None:
        """Have a client register the first files where the rule wants them."""
        new = [NewReplica("raw", f"file-{i:06d}", 1000, "0a0b0c0d") for i in range(count or len(self.files))]
        add_replicas(self.context, self.root, rse, new)

    def remove(self, rule: int | None = None, *, purge: bool = False) -> None:
        uuid = self.catalogue.rule_row(rule or self.rule).uuid
        remove_rule(self.context, self.root, uuid.hex, purge_replicas=purge, now=True)

    def replica(self, file: int = 0):
        query = select(replicas).where(
            replicas.c.rse_id == self.in2p3, replicas.c.file_id == self.files[file]
        )
        return self.catalogue.one(query)
