"""Calls about the invariants."""

from collections.abc import Iterator, Sequence
from typing import Any

from arriero.registry.calls.transport import Transport

_PATIENCE_S = 3600.0
"""How much longer than others these calls may be silent, seconds: one question may be about a billion rows."""


class DoctorCalls(Transport):
    """Whether the catalogue is whole. For administrators."""

    def examine(self, checks: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """Ask whether the invariants hold.

        Parameters
        ----------
        checks
            Names of checks, or invariants (``I1`` to ``I7``, ``keys``); all when there are none.

        Yields
        ------
        dict
            Of each check ``check``, ``invariant``, ``what``, ``broken`` (how many cases), ``is_broken``, ``examples`` and
            ``next_step``; between them ``step`` and ``of``, which say how far it has come.
        """
        params = {"check": list(checks)} if checks else None
        return self._stream("GET", "/doctor", params=params, wait_s=_PATIENCE_S)

    def repair(self, checks: Sequence[str] = ()) -> dict[str, Any]:
        """Have the counts of rules made anew where they are wrong, and the rules that checks name looked at as a whole.

        Parameters
        ----------
        checks
            As of `examine`.

        Returns
        -------
        dict
            ``recounted`` and ``looked_at`` (how many rules), ``more`` (repeat it for the rest).
        """
        answer: dict[str, Any] = self._call(
            "POST", "/doctor/repair", body={"checks": list(checks)}, wait_s=_PATIENCE_S
        )
        return answer
