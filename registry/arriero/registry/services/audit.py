"""Writes down who did what, in the transaction that does it, and who was refused."""

import threading
import time
from typing import Any

from sqlalchemy import Connection

from arriero.registry.services.authorisation import Action, Denied
from arriero.registry.services.context import Actor, Context
from arriero.registry.store import audit as store

_MINUTE_S = 60.0


def record(connection: Connection, actor: Actor, action: Action, target: str, **detail: Any) -> None:
    """Write that an actor did something.

    Parameters
    ----------
    connection
        In the transaction of the change itself.
    target
        What it was done to; for many at once the first of them, with their number in ``detail``.
    detail
        Counts and chosen values; never a secret.
    """
    store.append(
        connection,
        account=actor.account,
        action=action,
        target=target,
        allowed=True,
        detail=detail,
        request_id=actor.request_id,
    )


def record_denial(context: Context, error: Denied) -> None:
    """Write that an actor was refused, after the transaction in which it happened was rolled back."""
    context.database.run(
        lambda connection: store.append(
            connection,
            account=error.actor.account,
            action=error.action,
            target=error.target.name,
            allowed=False,
            request_id=error.actor.request_id,
        )
    )


class StrangerLog:
    """Writes that somebody with a wrong or outlived credential was turned away; only so often.

    Whoever needs no credential to be written down could fill the disk: of a flood the first calls of each minute are
    written, and how many were passed over goes with the next one. Calls without any credential are not written at all.

    Parameters
    ----------
    context
        Of the process.
    per_minute
        Rows of one minute of this process.
    """

    def __init__(self, context: Context, *, per_minute: int = 60) -> None:
        self._context = context
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._written = 0
        self._passed_over = 0

    def record(self, *, what: str, request_id: str | None) -> bool:
        """Write one row, unless this minute has its fill.

        Parameters
        ----------
        what
            Method and path that were asked for.

        Returns
        -------
        bool
            Whether it was written.
        """
        passed_over = self._take()
        if passed_over is None:
            return False
        self._context.database.run(
            lambda connection: store.append(
                connection,
                account=None,
                action="authenticate",
                target=what[:500],
                allowed=False,
                detail={"passed_over": passed_over} if passed_over else None,
                request_id=request_id,
            )
        )
        return True

    def _take(self) -> int | None:
        """Give how many were passed over before this one; None when this one is too."""
        with self._lock:
            if time.monotonic() - self._begun >= _MINUTE_S:
                self._begun, self._written = time.monotonic(), 0
            if self._written >= self._per_minute:
                self._passed_over += 1
                return None
            self._written += 1
            passed_over, self._passed_over = self._passed_over, 0
            return passed_over
