"""What attempts that died may have left at a destination under their own names."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from arriero.rse.copy_order import CopyOrder
from arriero.rse.errors import RSEError
from arriero.rse.paths import temporary_path
from arriero.rse.pool import ProtocolPool

log = structlog.get_logger(__name__)

_REMEMBERED = 5
"""How many earlier attempts of a request are looked for."""


def earlier_attempts(request_id: int, fence: int) -> list[str]:
    """Names of the attempts before the one with this fence."""
    return [f"{request_id}-{earlier}" for earlier in range(max(1, fence - _REMEMBERED), fence)]


def remove_attempts(order: CopyOrder, pool: ProtocolPool, names: Iterable[str]) -> None:
    """Remove the temporary files of attempts; what cannot be removed is left.

    Parameters
    ----------
    order
        Says where they are.
    names
        Of the attempts.
    """
    for name in names:
        path = temporary_path(order.destination_path, name)
        try:
            pool.get(order.destination).delete(path)
        except RSEError as error:
            log.info("earlier attempt not removed", path=path, code=error.code)
