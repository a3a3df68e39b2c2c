"""Calls about data identifiers and replicas, in Rucio's REST protocol."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from arriero.registry.calls.transport import Transport, segments
from arriero.registry.pages import pages_of

BULK = 1000
"""Items that one bulk call carries: what Rucio's own schema allows."""

Did = Mapping[str, str]
"""``{"scope": ..., "name": ...}``."""


class DidCalls(Transport):
    """DIDs and replicas. Dictionaries are Rucio's."""

    def add_did(
        self,
        scope: str,
        name: str,
        did_type: str,
        *,
        monotonic: bool = False,
        meta: Mapping[str, Any] | None = None,
        lifetime: int | None = None,
    ) -> None:
        """Add a dataset or container.

        Parameters
        ----------
        scope, name
            Its identifier.
        did_type
            ``DATASET`` or ``CONTAINER``.
        monotonic
            What is attached stays attached.
        meta
            Metadata.
        lifetime
            Seconds until it expires; None: never.
        """
        body: dict[str, Any] = {"type": did_type, "statuses": {"monotonic": monotonic}}
        if meta:
            body["meta"] = dict(meta)
        if lifetime is not None:
            body["lifetime"] = lifetime
        self._call("POST", f"/dids{segments(scope, name)}", body=body)

    def get_did(self, scope: str, name: str, *, totals: bool = False) -> dict[str, Any]:
        """Ask for a DID; with ``totals``, bytes and length are counted over all files below it."""
        params = {"dynamic_depth": "FILE"} if totals else None
        answer: dict[str, Any] = self._call("GET", f"/dids{segments(scope, name)}", params=params)
        return answer

    def list_dids(
        self, scope: str, name: str = "*", *, did_type: str = "collection"
    ) -> Iterator[dict[str, Any] | str]:
        """List the DIDs of a scope by name pattern.

        Parameters
        ----------
        scope
            Scope.
        name
            Pattern; ``*`` is any text.
        did_type
            ``all``, ``collection``, ``dataset``, ``container`` or ``file``.
        """
        params = {"type": did_type, "filters": json.dumps([{"name": name}]), "long": "1"}
        return self._stream("GET", f"/dids{segments(scope, 'dids', 'search')}", params=params)

    def list_content(self, scope: str, name: str) -> Iterator[dict[str, Any]]:
        """List what is attached to a dataset or container."""
        return self._stream("GET", f"/dids{segments(scope, name, 'dids')}")

    def list_files(self, scope: str, name: str) -> Iterator[dict[str, Any]]:
        """List the files below a DID."""
        return self._stream("GET", f"/dids{segments(scope, name, 'files')}")

    def attach_dids(self, scope: str, name: str, dids: Iterable[Did]) -> int:
        """Attach DIDs, in batches; those that are attached already stay so.

        Returns
        -------
        int
            How many were sent.
        """
        sent = 0
        for batch in pages_of([{"scope": did["scope"], "name": did["name"]} for did in dids], BULK):
            body = {
                "ignore_duplicate": True,
                "attachments": [{"scope": scope, "name": name, "dids": batch}],
            }
            self._call("POST", "/dids/attachments", body=body, idempotent=True)
            sent += len(batch)
        return sent

    def detach_dids(self, scope: str, name: str, dids: Sequence[Did]) -> None:
        """Detach DIDs."""
        for batch in pages_of([{"scope": did["scope"], "name": did["name"]} for did in dids], BULK):
            self._call(
                "DELETE", f"/dids{segments(scope, name, 'dids')}", body={"dids": batch}, idempotent=False
            )

    def set_status(self, scope: str, name: str, *, is_open: bool) -> None:
        """Open or close a dataset or container."""
        self._call("PUT", f"/dids{segments(scope, name, 'status')}", body={"open": is_open})

    def list_losses(self, *, scope: str | None = None, accepted: bool = False) -> Iterator[dict[str, Any]]:
        """List lost files, the oldest loss first; with ``accepted`` also those that nobody waits for any more."""
        params = {} if scope is None else {"scope": scope}
        if accepted:
            params["accepted"] = "true"
        return self._stream("GET", "/losses", params=params)

    def accept_losses(self, dids: Sequence[Did], *, reason: str | None = None) -> None:
        """Say that lost files are not to be waited for any more; all of them, or none, of each thousand."""
        for batch in pages_of([{"scope": did["scope"], "name": did["name"]} for did in dids], BULK):
            self._call("POST", "/losses/accept", body={"dids": batch, "reason": reason}, idempotent=False)

    def get_metadata(self, scope: str, name: str, plugin: str = "ALL") -> dict[str, Any]:
        """Ask for the metadata of a DID."""
        answer: dict[str, Any] = self._call(
            "GET", f"/dids{segments(scope, name, 'meta')}", params={"plugin": plugin}
        )
        return answer

    def set_metadata_bulk(self, scope: str, name: str, meta: Mapping[str, Any]) -> None:
        """Set metadata of a DID; keys that are not named stay."""
        body = {"meta": dict(meta), "recursive": False}
        self._call("POST", f"/dids{segments(scope, name, 'meta')}", body=body, idempotent=True)

    def add_replicas(self, rse: str, files: Iterable[Mapping[str, Any]]) -> int:
        """Register files that lie at an RSE, in batches; what is registered already the same way is passed over.

        Parameters
        ----------
        rse
            RSE where they are.
        files
            Rucio's keys: scope, name, bytes, adler32, md5, pfn, meta, state.

        Returns
        -------
        int
            How many were sent.
        """
        sent = 0
        for batch in pages_of([dict(file) for file in files], BULK):
            body = {"rse": rse, "files": batch, "ignore_availability": True}
            self._call("POST", "/replicas", body=body, idempotent=True)
            sent += len(batch)
        return sent

    def list_replicas(
        self,
        dids: Sequence[Did],
        *,
        rse_expression: str | None = None,
        schemes: Sequence[str] | None = None,
        all_states: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """List the replicas of files, or of the files below datasets and containers.

        Parameters
        ----------
        dids
            What to look up.
        rse_expression
            Only at these RSEs.
        schemes
            Only PFNs with these schemes.
        all_states
            Also replicas that are not AVAILABLE.
        """
        body: dict[str, Any] = {
            "dids": [{"scope": did["scope"], "name": did["name"]} for did in dids],
            "all_states": all_states,
            "ignore_availability": True,
            "domain": "all",
            "resolve_archives": False,
            "resolve_parents": False,
        }
        if rse_expression:
            body["rse_expression"] = rse_expression
        if schemes:
            body["schemes"] = list(schemes)
        return self._stream("POST", "/replicas/list", body=body)
