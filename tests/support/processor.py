"""What work costs the processors: steady where the disk, or another test beside it, holds the work up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from arriero.registry.database import Database

_BACKENDS = text(
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
)


def processor_s(database: Database, work: Callable[[], object]) -> float:
    """Give the processor time of this process and of its connections' backends for some work, seconds.

    The connections have to be the pool's, and to last: what a backend that has ended took is not seen.
    """
    begun = _spent(database)
    work()
    return _spent(database) - begun


def _spent(database: Database) -> float:
    own = time.process_time()
    if not database.is_postgresql:
        return own
    with database.engine.connect() as connection:
        return own + sum(map(_ticks, connection.scalars(_BACKENDS))) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)
