"""Calls about audits of storages and what they have found."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from arriero.registry.calls.transport import Transport

_PATIENCE_S = 3600.0
"""How much longer than others a comparison may be silent, seconds: it may be of a hundred million lines."""


class AuditCalls(Transport):
    """What is at the storages, held against the catalogue."""

    def begin_audit(self, rse: str, source: str, observed_at: datetime | None = None) -> dict[str, Any]:
        """Begin an audit.

        Parameters
        ----------
        source
            ``DUMP`` or ``WALK``.
        observed_at
            When the storage looked like this; None: now.

        Returns
        -------
        dict
            ``id``, ``rse``, ``observed_at``, and how far its lines have come: ``chunks``, ``lines``, ``cursor``.
        """
        body = {
            "rse": rse,
            "source": source,
            "observed_at": None if observed_at is None else observed_at.isoformat(),
        }
        answer: dict[str, Any] = self._call("POST", "/audits", body=body)
        return answer

    def resume_audit(self, audit: int) -> dict[str, Any]:
        """Ask how far the lines of an audit have come, as `begin_audit` answers."""
        answer: dict[str, Any] = self._call("GET", f"/audits/{audit}/resume")
        return answer

    def add_audit_lines(
        self,
        audit: int,
        chunk: int,
        lines: Sequence[tuple[str, int | None, str | None]],
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Add a chunk of lines; the same one may be sent again.

        Parameters
        ----------
        chunk
            Its number, from 0.
        lines
            Path, bytes and adler32 of each file.
        cursor
            Where a walk goes on after it.
        """
        body = {"chunk": chunk, "lines": [list(line) for line in lines], "cursor": cursor}
        answer: dict[str, Any] = self._call("POST", f"/audits/{audit}/lines", body=body, idempotent=True)
        return answer

    def compare_audit(
        self, audit: int, *, brake: float | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """Have an audit whose lines are all there compared with the catalogue.

        Parameters
        ----------
        brake
            Part of the replicas that is believed to be missing or wrong, instead of the setting; for administrators.
        dry_run
            Only count: nothing is noted or done.

        Returns
        -------
        dict
            The audit, as `get_audit` gives it.
        """
        answer: dict[str, Any] = self._call(
            "POST", f"/audits/{audit}/compare", body={"brake": brake, "dry_run": dry_run}, wait_s=_PATIENCE_S
        )
        return answer

    def get_audit(self, audit: int) -> dict[str, Any]:
        """Ask for an audit: its state, and how much it has found."""
        answer: dict[str, Any] = self._call("GET", f"/audits/{audit}")
        return answer

    def list_audits(self, rse: str | None = None) -> Iterator[dict[str, Any]]:
        """List audits, the latest first."""
        return self._stream("GET", "/audits", params={"rse": rse})

    def list_findings(
        self,
        rse: str | None = None,
        *,
        kind: str | None = None,
        state: str | None = None,
        audit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """List what was found wrong and is not settled, the oldest first."""
        params = {"rse": rse, "kind": kind, "state": state, "audit": audit}
        return self._stream("GET", "/audits/findings", params=params)

    def move_aside(self, rse: str, findings: Sequence[int]) -> list[dict[str, str]]:
        """Have written down that dark files are moved aside; gives ``path`` and ``moved_to`` of those that are to be."""
        body = {"rse": rse, "findings": list(findings)}
        return list(self._call("POST", "/audits/quarantine", body=body) or [])

    def moved_aside(self, rse: str, moved: Sequence[str], not_moved: Sequence[str] = ()) -> list[str]:
        """Tell what has become of them; gives the paths of those that are to be moved back: they were registered."""
        body = {"rse": rse, "moved": list(moved), "not_moved": list(not_moved)}
        answer = self._call("POST", "/audits/quarantine/moved", body=body, idempotent=True)
        return list(answer["registered"])
