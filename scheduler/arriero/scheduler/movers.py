"""Which mover does a copy: threads of this process, or an FTS where the settings name one."""

from collections.abc import Collection, Mapping, Sequence

from arriero.registry.settings import Settings
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import WIRE_SCHEMES
from arriero.scheduler.fts import FtsClient, FtsMover
from arriero.scheduler.mover import Finished, Mover, ThreadMover
from arriero.scheduler.plan import PlannedCopy
from arriero.scheduler.traffic import Link


def mover_of(settings: Settings, pool: ProtocolPool) -> Mover:
    """Make the mover that the settings ask for.

    Parameters
    ----------
    pool
        Protocols of this process.
    """
    threads = ThreadMover(pool, threads=settings.transfer_threads)
    if settings.fts_url is None:
        return threads
    client = FtsClient(settings.fts_url, token_file=settings.fts_token_file, ca_bundle=settings.fts_ca_bundle)
    return EitherMover(FtsMover(client, pool, threads=settings.transfer_threads), threads)


class EitherMover:
    """Has an FTS copy between storages that speak HTTP, and threads the rest.

    Parameters
    ----------
    fts, threads
        The two.
    """

    def __init__(self, fts: Mover, threads: Mover) -> None:
        self._fts = fts
        self._threads = threads

    def submit(self, copies: Sequence[PlannedCopy], slots: Mapping[Link, int]) -> None:
        """Begin copies, each where it belongs."""
        theirs = [copy for copy in copies if _is_for_fts(copy)]
        self._fts.submit(theirs, slots)
        self._threads.submit([copy for copy in copies if not _is_for_fts(copy)], slots)

    def poll(self, timeout_s: float) -> list[Finished]:
        """Give the copies that have ended."""
        ended = self._fts.poll(0.0)
        return ended + self._threads.poll(0.0 if ended else timeout_s)

    def cancel(self, request_ids: Collection[int]) -> None:
        """Have copies end soon."""
        self._fts.cancel(request_ids)
        self._threads.cancel(request_ids)

    def progress(self) -> Mapping[int, int]:
        """Give the bytes so far, by request."""
        return {**self._fts.progress(), **self._threads.progress()}

    def close(self) -> None:
        """End what runs and wait for it."""
        self._fts.close()
        self._threads.close()


def _is_for_fts(copy: PlannedCopy) -> bool:
    return {copy.order.source.scheme, copy.order.destination.scheme} <= WIRE_SCHEMES.keys()
