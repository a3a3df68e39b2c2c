"""Calls about deletions."""

from collections.abc import Iterator

from arriero.registry.calls.transport import Transport
from arriero.registry.deletion_words import (
    DeleteOrder,
    Deletion,
    DeletionFilter,
    DeletionHistoryFilter,
    DeletionSite,
    DeletionStop,
    EndedDeletion,
    GoOrder,
    JudgedReplica,
    Purged,
    PurgeOrder,
    StopOrder,
)
from arriero.registry.operations import plain


class DeletionCalls(Transport):
    """What is being deleted, what would be, and stopping it."""

    def list_deletions(self, chosen: DeletionFilter) -> Iterator[Deletion]:
        """List what is being deleted, the oldest first."""
        params = plain(chosen)
        return map(Deletion.model_validate, self._stream("GET", "/deletions", params=params))

    def list_deletion_history(self, chosen: DeletionHistoryFilter) -> Iterator[EndedDeletion]:
        """List deletions that have ended, the last first."""
        params = plain(chosen)
        return map(EndedDeletion.model_validate, self._stream("GET", "/deletions/history", params=params))

    def list_deletion_sites(self, rse_expression: str | None = None) -> list[DeletionSite]:
        """Ask how deletion stands with RSEs, all or those of an expression."""
        answer = self._call("GET", "/deletions/sites", params={"expression": rse_expression})
        return [DeletionSite.model_validate(one) for one in answer or []]

    def get_deletion_stop(self) -> DeletionStop:
        """Ask whether deletions are stopped everywhere."""
        return DeletionStop.model_validate(self._call("GET", "/deletions/stop"))

    def stop_deletions(self, order: StopOrder) -> DeletionStop:
        """Stop all deletions."""
        answer = self._call("POST", "/deletions/stop", body=plain(order), idempotent=True)
        return DeletionStop.model_validate(answer)

    def let_deletions_go(self, order: GoOrder) -> DeletionStop:
        """Let deletions go on, everywhere or at one RSE."""
        answer = self._call("POST", "/deletions/go", body=plain(order), idempotent=True)
        return DeletionStop.model_validate(answer)

    def plan_deletions(self, order: DeleteOrder) -> Iterator[JudgedReplica]:
        """Ask what would be deleted at an RSE and what would stay, and why."""
        return map(JudgedReplica.model_validate, self._stream("POST", "/deletions/plan", body=plain(order)))

    def purge_replicas(self, order: PurgeOrder) -> Purged:
        """Have deletion take replicas at once, as far as nothing stands against it."""
        return Purged.model_validate(self._call("POST", "/deletions", body=plain(order), idempotent=True))
