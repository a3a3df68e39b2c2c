"""Calls of the mover of a site: it claims requests of its RSEs, extends their leases, and reports."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from arriero.registry.calls.transport import Transport
from arriero.registry.moving import RequestOrder, RequestOutcome


class MoverCalls(Transport):
    """What the mover of a site works with."""

    def claim_requests(
        self, worker: str, limit: int, wait_s: float, lease_s: float, *, rses: Sequence[str] = ()
    ) -> list[RequestOrder]:
        """Lease due requests of a site's RSEs.

        Parameters
        ----------
        worker
            Who holds the leases; one name for each process.
        limit
            At most so many.
        wait_s
            Wait so long for the first, seconds.
        lease_s
            Length of the lease, seconds.
        rses
            Only of these; all that the token is bound to when empty.

        Returns
        -------
        list of RequestOrder
            Empty when nothing became due.
        """
        body = {
            "worker": worker,
            "rses": list(rses),
            "limit": limit,
            "lease_s": lease_s,
            "wait_s": wait_s,
        }
        answer = self._call("POST", "/requests/claim", body=body, wait_s=wait_s)
        return [RequestOrder.model_validate(item) for item in answer]

    def extend_requests(
        self,
        worker: str,
        ids_and_fences: Sequence[tuple[int, int]],
        lease_s: float,
        *,
        copied: Mapping[int, int] = MappingProxyType({}),
    ) -> list[int]:
        """Extend leases to ``lease_s`` seconds from now, and say how far copies are; return the ids whose lease is lost."""
        body = {
            "worker": worker,
            "requests": [
                {"id": key, "fence": fence} | ({"copied": copied[key]} if key in copied else {})
                for key, fence in ids_and_fences
            ],
            "lease_s": lease_s,
        }
        answer = self._call("POST", "/requests/extend", body=body, idempotent=True)
        return [int(item) for item in answer["lost"]]

    def report_requests(self, worker: str, outcomes: Sequence[RequestOutcome]) -> list[int]:
        """Report outcomes; return the ids that were not accepted because their fence has moved."""
        body = {"worker": worker, "outcomes": [one.model_dump(mode="json") for one in outcomes]}
        answer = self._call("POST", "/requests/report", body=body)
        return [int(item) for item in answer["rejected"]]
