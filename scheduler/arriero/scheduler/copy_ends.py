"""What becomes of requests whose copies have ended, whoever did them: learnt from, reported, settled."""

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection

from arriero.registry.ports import Bell
from arriero.registry.services.context import Context
from arriero.rse.copy import CopyResult
from arriero.scheduler import hops
from arriero.scheduler.core.breaker import DOWN, FIRST_WAIT_S
from arriero.scheduler.mover import Finished
from arriero.scheduler.plan import Unplanned
from arriero.scheduler.reports import Outcome, Report, Transfer, failure, released, success
from arriero.scheduler.rse_catalogue import RseCatalogue
from arriero.scheduler.settle import Settled, settle
from arriero.scheduler.traffic_record import CopyOutcome, record


class CopyEnds:
    """Takes in how copies ended.

    Parameters
    ----------
    context
        Database, settings, doorbell.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings

    def reports(self, finished: Sequence[Finished], known: RseCatalogue) -> list[Report]:
        """Learn from copies that have ended, and say what becomes of their requests.

        Parameters
        ----------
        known
            The RSEs that they were between.
        """
        ids = {rse.name: rse.id for rse in known.by_id.values()}
        outcomes = [_outcome(one, ids) for one in finished if one.code != "cancelled"]
        down = self._context.database.run(lambda tx: record(tx, outcomes))
        return [self._report(one, ids.get(one.rse or "") in down and one.code in DOWN) for one in finished]

    def _report(self, finished: Finished, is_down: bool) -> Report:
        copy = finished.copy
        order = copy.order
        result = finished.result
        transfer = Transfer(
            mode=None if result is None else result.mode,
            mode_reason=None if result is None else _told_reason(result),
            seconds=None if result is None else result.seconds,
            source_rse=order.source.rse,
            source_url=order.source.pfn(order.source_path),
            destination_url=order.destination.pfn(order.destination_path),
            scheme=order.destination.scheme,
        )
        if result is not None:
            return success(copy.request, transfer)
        if finished.code == "cancelled":
            return released(copy.request, finished.reason)
        if is_down:
            # no fault of the file: no attempt is spent while the RSE is down
            return released(copy.request, finished.reason, code=finished.code, delay_s=FIRST_WAIT_S)
        return failure(
            copy.request,
            self._settings,
            finished.code,
            finished.reason,
            retryable=finished.retryable,
            alternatives=copy.alternatives,
            transfer=transfer,
        )

    def unplanned(self, fault: Unplanned) -> Report:
        """Report a request that no copy could begin for."""
        if fault.wait_s is not None:
            return released(fault.request, fault.reason, code=fault.code, delay_s=fault.wait_s)
        return failure(fault.request, self._settings, fault.code, fault.reason, retryable=fault.retryable)

    def settle(
        self, batch: Sequence[Report], *, note: Callable[[Connection, Settled], None] | None = None
    ) -> Settled:
        """Settle reports, and ring for what may go on now.

        Parameters
        ----------
        note
            Writes what else belongs into the transaction.

        Raises
        ------
        Busy
            Nothing has changed; the same batch may be settled again.
        """
        result = settle(self._context.database, batch, stuck_retry_s=self._settings.stuck_retry_s, note=note)
        self._go_on(batch)
        if result.evaluations:
            self._context.doorbell.ring(Bell.EVALUATIONS)
        return result

    def _go_on(self, batch: Sequence[Report]) -> None:
        """Have what waits for copies of this batch looked at again."""
        ended = [(one.file_id, one.rse_id) for one in batch if one.outcome is not Outcome.RELEASED]
        with self._context.database.snapshot() as connection:
            found = hops.are_hops(connection, ended)
        if found:
            self._context.database.run(lambda tx: hops.go_on(tx, found))
            self._context.doorbell.ring(Bell.REQUESTS)


def _told_reason(result: CopyResult) -> str | None:
    """Say why a copy went its way; nothing where it is the one that is tried first."""
    is_usual = result.mode == "third_party_pull" and not result.steps
    return None if is_usual else result.mode_reason[:1000] or None


def _outcome(finished: Finished, ids: Mapping[str, int]) -> CopyOutcome:
    copy, result = finished.copy, finished.result
    return CopyOutcome(
        copy.source_id,
        copy.request.destination_id,
        bytes=0 if result is None else copy.request.bytes,
        seconds=0.0 if result is None else result.seconds,
        mode=None if result is None else result.mode,
        mode_reason=None if result is None else result.mode_reason,
        code=finished.code or None,
        reason=finished.reason[:1000] or None,
        blamed_id=ids.get(finished.rse or ""),
    )
