"""Calls about what Rucio has no word for: butlers, arrivals, agent tokens, trace and counts.

`ArrivalCalls` is what an ingest agent works with (its ``ArrivalQueue``).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol
from uuid import UUID

from arriero.registry.calls.transport import Transport, segments
from arriero.registry.models import (
    Arrival,
    ArrivalFile,
    ButlerInfo,
    Counts,
    IssuedToken,
    NewButler,
    NewToken,
    Token,
    Trace,
)


class Outcome(Protocol):
    """What an agent made of one arrival, as `report_arrivals` reads it."""

    @property
    def id(self) -> int: ...
    @property
    def fence(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def dataset_id(self) -> UUID | None: ...
    @property
    def code(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def waits_for(self) -> str | None: ...
    @property
    def retryable(self) -> bool: ...


class ArrivalCalls(Transport):
    """Butlers, arrivals, tokens, trace and counts."""

    def add_butler(self, butler: NewButler) -> None:
        """Add a butler; what is AVAILABLE at its RSEs and belongs in it becomes arrivals at once."""
        self._call("POST", "/butlers", body=butler.model_dump(mode="json"))

    def butler(self, name: str) -> ButlerInfo:
        """Ask for one butler."""
        return ButlerInfo.model_validate(self._call("GET", f"/butlers{segments(name)}"))

    def list_butlers(self) -> Iterator[ButlerInfo]:
        """List butlers."""
        return map(ButlerInfo.model_validate, self._stream("GET", "/butlers"))

    def list_arrivals(
        self,
        *,
        butler: str | None = None,
        state: str | None = None,
        scope: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        after: int | None = None,
    ) -> Iterator[Arrival]:
        """List arrivals by id.

        Parameters
        ----------
        butler, state, scope
            Only those.
        name
            Pattern of file names; ``*`` is any text.
        limit
            At most so many; None: all.
        after
            Only ids above this one: the last of the page before.
        """
        params = {
            "butler": butler,
            "state": state,
            "scope": scope,
            "name": name,
            "limit": limit,
            "after": after,
        }
        return map(Arrival.model_validate, self._stream("GET", "/arrivals", params=params))

    def claim_arrivals(
        self, butler: str, worker: str, limit: int, wait_s: float, lease_s: float
    ) -> list[ArrivalFile]:
        """Lease due arrivals of a butler.

        Parameters
        ----------
        butler
            Name of the butler.
        worker
            Who holds the leases; for people.
        limit
            At most so many.
        wait_s
            Wait so long for the first, seconds.
        lease_s
            Length of the lease, seconds.

        Returns
        -------
        list of ArrivalFile
            Empty when nothing became due.
        """
        body = {"butler": butler, "worker": worker, "limit": limit, "lease_s": lease_s, "wait_s": wait_s}
        answer = self._call("POST", "/arrivals/claim", body=body, wait_s=wait_s)
        return [ArrivalFile.model_validate(item) for item in answer]

    def report_arrivals(self, outcomes: Sequence[Outcome]) -> list[int]:
        """Report outcomes; return the ids that were not accepted because their fence has moved."""
        answer = self._call("POST", "/arrivals/report", body=[_outcome(outcome) for outcome in outcomes])
        return [int(item) for item in answer["rejected"]]

    def extend_arrivals(self, ids_and_fences: Sequence[tuple[int, int]], lease_s: float) -> list[int]:
        """Extend leases to ``lease_s`` seconds from now; return the ids whose lease is lost."""
        body = {
            "arrivals": [{"id": key, "fence": fence} for key, fence in ids_and_fences],
            "lease_s": lease_s,
        }
        answer = self._call("POST", "/arrivals/extend", body=body, idempotent=True)
        return [int(item) for item in answer["lost"]]

    def create_token(self, token: NewToken) -> IssuedToken:
        """Make a standing token; the answer is the only place where its secret ever is."""
        return IssuedToken.model_validate(self._call("POST", "/tokens", body=token.model_dump(mode="json")))

    def list_tokens(self) -> Iterator[Token]:
        """List standing tokens, without their secrets."""
        return map(Token.model_validate, self._stream("GET", "/tokens"))

    def revoke_token(self, token_id: int) -> None:
        """Revoke a token, from now on."""
        self._call("DELETE", f"/tokens{segments(str(token_id))}")

    def trace(self, scope: str, name: str) -> Trace:
        """Ask for the way of one file through the system."""
        return Trace.model_validate(self._call("GET", f"/trace{segments(scope, name)}"))

    def counts(self) -> Counts:
        """Ask how much there is of everything."""
        return Counts.model_validate(self._call("GET", "/counts"))


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "id": outcome.id,
        "fence": outcome.fence,
        "state": str(outcome.state),
        "dataset_id": str(outcome.dataset_id) if outcome.dataset_id else None,
        "code": outcome.code,
        "reason": outcome.reason,
        "waits_for": outcome.waits_for,
        "retryable": outcome.retryable,
    }
