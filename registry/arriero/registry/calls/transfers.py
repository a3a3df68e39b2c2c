"""Calls about transfers, links and the health of RSEs: what operators look at, and what they do about it."""

from collections.abc import Iterator
from typing import Any

from arriero.registry.calls.transport import Transport, segments
from arriero.registry.operations import (
    Cancelled,
    CancelOrder,
    LinkDetail,
    LinkInfo,
    Retried,
    RetryOrder,
    RseHealth,
    Transfer,
    TransferDetail,
    TransferFilter,
    TransferPage,
    TransferTotal,
    plain,
)

_PATIENCE_S = 3600.0
"""How much longer than others a change may be silent, seconds: it may be of a million transfers."""


class TransferCalls(Transport):
    """Transfers, links and the health of RSEs."""

    def list_transfers(self, page: TransferPage) -> Iterator[Transfer]:
        """List transfers that are wanted, under way, or given up."""
        return map(Transfer.model_validate, self._stream("GET", "/transfers", params=_given(page)))

    def total_transfers(self, chosen: TransferFilter) -> list[TransferTotal]:
        """Count transfers by what they wait for and where they go, the most first."""
        answer = self._call("GET", "/transfers/totals", params=_given(chosen))
        return [TransferTotal.model_validate(one) for one in answer or []]

    def show_transfers(self, scope: str, name: str, destination: str | None = None) -> list[TransferDetail]:
        """Ask for all that is known of the copies of a file, by RSE, or to one of them."""
        path = f"/transfers{segments(scope, name)}"
        answer = self._call("GET", path, params={"destination": destination})
        return [TransferDetail.model_validate(one) for one in answer or []]

    def retry_transfers(self, order: RetryOrder) -> Retried:
        """Have transfers be due now, with all their attempts; those that were given up begin anew."""
        answer = self._call(
            "POST", "/transfers/retry", body=plain(order), idempotent=True, wait_s=_PATIENCE_S
        )
        return Retried.model_validate(answer)

    def cancel_transfers(self, order: CancelOrder) -> Cancelled:
        """Take transfers back."""
        answer = self._call("POST", "/transfers/cancel", body=plain(order), wait_s=_PATIENCE_S)
        return Cancelled.model_validate(answer)

    def list_links(self, source: str | None = None, destination: str | None = None) -> Iterator[LinkInfo]:
        """List links, all or those with an RSE at an end."""
        params = {"source": source, "destination": destination}
        return map(LinkInfo.model_validate, self._stream("GET", "/links", params=params))

    def show_link(self, source: str, destination: str) -> LinkDetail:
        """Ask for all that is known of a link."""
        return LinkDetail.model_validate(self._call("GET", f"/links{segments(source, destination)}"))

    def list_rse_health(self, rse_expression: str | None = None) -> Iterator[RseHealth]:
        """List whether RSEs are open and up, all or those of an expression."""
        params = {"expression": rse_expression}
        return map(RseHealth.model_validate, self._stream("GET", "/health", params=params))

    def get_rse_health(self, rse: str) -> RseHealth:
        """Ask whether an RSE is open and up, since when and why."""
        return RseHealth.model_validate(self._call("GET", f"/health{segments(rse)}"))

    def retry_rse(self, rse: str) -> dict[str, Any]:
        """Have an RSE count as up, and what waits for it be due now: ``was_down``, ``due_now``."""
        answer: dict[str, Any] = self._call("DELETE", f"/health{segments(rse)}")
        return answer


def _given(chosen: TransferFilter) -> dict[str, Any]:
    return {key: value for key, value in plain(chosen).items() if value not in (None, [])}
