"""Calls about what Rucio has no word for: butlers, arrivals, agent tokens, trace and counts.

`ArrivalCalls` is what an ingest agent works with (its ``ArrivalQueue``).
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol
from uuid import UUID

from arriero.registry.arrival_words import (
    ButlerFile,
    ButlerStatus,
    ChangeArrivals,
    CompleteExposure,
    Prerequisite,
)
from arriero.registry.calls.transport import Transport, segments
from arriero.registry.models import (
    MAX_DATASETS,
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
    def datasets(self) -> tuple[UUID, ...]: ...
    @property
    def code(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def waits_for(self) -> str | None: ...
    @property
    def retryable(self) -> bool: ...
    @property
    def provides(self) -> tuple[str, ...]: ...


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
        rse: str | None = None,
        code: str | None = None,
        scope: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        after: int | None = None,
    ) -> Iterator[Arrival]:
        """List arrivals by id.

        Parameters
        ----------
        butler, state, rse, code, scope
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
            "rse": rse,
            "code": code,
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

    def butler_files(self, butler: str, **chosen: Any) -> Iterator[ButlerFile]:
        """List the files of a Butler's ledger by id, with their URIs.

        Parameters
        ----------
        chosen
            What `ButlerFileFilter` has: ``state``, ``rse``, ``scope``, ``name``, ``code``, ``dataset``, ``limit``, ``after``.
        """
        rows = self._stream("GET", f"/butlers{segments(butler)}/files", params=chosen)
        return map(ButlerFile.model_validate, rows)

    def butler_status(self, butler: str) -> ButlerStatus:
        """Ask how the ledger of a Butler stands."""
        return ButlerStatus.model_validate(self._call("GET", f"/butlers{segments(butler)}/status"))

    def prerequisites(self, butler: str) -> list[Prerequisite]:
        """Ask what the parked arrivals of a Butler wait for, the most wanted first."""
        answer = self._call("GET", f"/butlers{segments(butler)}/prerequisites")
        return [Prerequisite.model_validate(item) for item in answer]

    def tell_complete(self, butler: str, exposures: Sequence[CompleteExposure]) -> None:
        """Tell of exposures that are whole in a Butler; events are sent of them."""
        body = {"exposures": [one.model_dump(mode="json") for one in exposures]}
        self._call("POST", f"/butlers{segments(butler)}/complete", body=body)

    def wake_arrivals(self, butler: str, prerequisites: Sequence[str]) -> int:
        """Say which prerequisites a Butler has now; return how many arrivals are due by that."""
        body = {"butler": butler, "prerequisites": list(prerequisites)}
        return int(self._call("POST", "/arrivals/wake", body=body, idempotent=True)["changed"])

    def release_arrivals(
        self, ids_and_fences: Sequence[tuple[int, int]], reason: str | None = None
    ) -> list[int]:
        """Mark arrivals as released that are out of the Butler; return the ids that have changed meanwhile."""
        return self._held("/arrivals/release", ids_and_fences, reason)

    def ingest_again(self, ids_and_fences: Sequence[tuple[int, int]], reason: str | None = None) -> list[int]:
        """Have arrivals ingested again that the Butler has lost; return the ids that have changed meanwhile."""
        return self._held("/arrivals/ingest-again", ids_and_fences, reason)

    def adopt_arrivals(
        self,
        found: Sequence[tuple[int, int, UUID]],
        several: Mapping[int, Sequence[UUID]] = MappingProxyType({}),
    ) -> list[int]:
        """Write down the datasets that a Butler has; return the ids that have changed meanwhile.

        Parameters
        ----------
        found
            Id, fence and dataset.
        several
            By id: all datasets of a file that has several.
        """
        items = [
            {
                "id": key,
                "fence": fence,
                "dataset_id": str(one),
                "datasets": [str(id_) for id_ in several.get(key, ())][:MAX_DATASETS],
            }
            for key, fence, one in found
        ]
        answer = self._call("POST", "/arrivals/adopt", body={"arrivals": items})
        return [int(item) for item in answer["rejected"]]

    def _held(self, path: str, ids_and_fences: Sequence[tuple[int, int]], reason: str | None) -> list[int]:
        body = {"arrivals": [{"id": key, "fence": fence} for key, fence in ids_and_fences], "reason": reason}
        return [int(item) for item in self._call("POST", path, body=body)["rejected"]]

    def change_arrivals(self, order: ChangeArrivals) -> int:
        """Have arrivals tried again, parked, or left out; return how many that were, or would be."""
        return int(self._call("POST", "/arrivals/change", body=order.model_dump(mode="json"))["changed"])

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
    """Write an outcome; of what most files lack nothing is said."""
    said: dict[str, Any] = {"id": outcome.id, "fence": outcome.fence, "state": str(outcome.state)}
    if outcome.dataset_id is not None:
        said["dataset_id"] = str(outcome.dataset_id)
    if outcome.datasets:
        said["datasets"] = [str(one) for one in outcome.datasets]
    if outcome.code is not None:
        said |= {"code": outcome.code, "reason": outcome.reason, "retryable": outcome.retryable}
    if outcome.waits_for is not None:
        said["waits_for"] = outcome.waits_for
    if outcome.provides:
        said["provides"] = list(outcome.provides)
    return said
