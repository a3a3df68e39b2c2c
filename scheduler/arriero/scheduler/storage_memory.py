"""What storages were found to be able to do: kept in the database for the other workers, and for those who look on."""

import time
from collections.abc import Mapping

import structlog

from arriero.registry.database import Database
from arriero.registry.store.rse_health import keep_abilities, recent_abilities
from arriero.rse.abilities import Abilities
from arriero.rse.pool import ProtocolPool, Storage

log = structlog.get_logger(__name__)

BELIEVED_S = 3600.0
"""How long what another process has found out spares a trial, seconds."""


class StorageMemory:
    """Shares what one process learns of storages.

    Parameters
    ----------
    database
        Where it is kept.
    pool
        The protocols of this process.
    """

    def __init__(self, database: Database, pool: ProtocolPool) -> None:
        self._database = database
        self._pool = pool
        self._known: dict[Storage, Abilities] = {}
        self._read_at: float | None = None

    def recall(self) -> None:
        """Read what others have found out; seldom."""
        if self._read_at is not None and time.monotonic() - self._read_at < BELIEVED_S / 2:
            return
        self._read_at = time.monotonic()
        with self._database.snapshot() as connection:
            rows = recent_abilities(connection, BELIEVED_S)
        told = {storage: one for storage, values in rows.items() if (one := _read(values)) is not None}
        self._pool.believe(told)
        self._known |= told

    def keep(self) -> None:
        """Write down what this process has found out, if that is news."""
        news = {key: one for key, one in self._pool.learnt().items() if self._known.get(key) != one}
        if not news:
            return
        self._database.run(lambda tx: keep_abilities(tx, {key: one.as_dict() for key, one in news.items()}))
        self._known |= news


def _read(values: Mapping[str, object]) -> Abilities | None:
    try:
        return Abilities.from_dict(values)
    except TypeError:
        # another version has written it, which knew less
        return None
