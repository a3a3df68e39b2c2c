"""Calls about accounts, scopes and RSEs, in Rucio's REST protocol."""

from collections.abc import Iterator, Mapping
from typing import Any

from arriero.registry.calls.transport import Transport, segments
from arriero.registry.errors import Conflict


class RseCalls(Transport):
    """Accounts, scopes and RSEs. Dictionaries are Rucio's."""

    def ping(self) -> dict[str, Any]:
        """Ask for the registry's version; needs no credentials."""
        answer: dict[str, Any] = self._call("GET", "/ping", anonymous=True)
        return answer

    def whoami(self) -> dict[str, Any]:
        """Ask for whom the registry takes us."""
        answer: dict[str, Any] = self._call("GET", "/accounts/whoami")
        return answer

    def add_scope(self, account: str, scope: str) -> None:
        """Add a scope that belongs to ``account``."""
        self._call("POST", f"/accounts{segments(account, 'scopes', scope)}")

    def list_scopes(self, account: str | None = None) -> list[str]:
        """List the names of all scopes, or of those of one account."""
        path = "/scopes/" if account is None else f"/accounts{segments(account)}/scopes/"
        answer = self._call("GET", path)
        return list(answer or [])

    def add_rse(self, rse: str, **settings: Any) -> None:
        """Add an RSE.

        Parameters
        ----------
        rse
            Its name.
        **settings
            Rucio's: ``deterministic``, ``volatile``, ``rse_type``, ``availability_read`` ...
        """
        self._call("POST", f"/rses{segments(rse)}", body=settings)

    def get_rse(self, rse: str) -> dict[str, Any]:
        """Ask for the settings and protocols of an RSE."""
        answer: dict[str, Any] = self._call("GET", f"/rses{segments(rse)}")
        return answer

    def list_rses(self, rse_expression: str | None = None) -> Iterator[dict[str, Any]]:
        """List RSEs, all or those of an expression."""
        return self._stream("GET", "/rses/", params={"expression": rse_expression})

    def add_rse_attribute(self, rse: str, key: str, value: object) -> None:
        """Set an attribute of an RSE."""
        self._call("POST", f"/rses{segments(rse, 'attr', key)}", body={"value": value}, idempotent=True)

    def delete_rse_attribute(self, rse: str, key: str) -> None:
        """Remove an attribute of an RSE."""
        self._call("DELETE", f"/rses{segments(rse, 'attr', key)}")

    def list_rse_attributes(self, rse: str) -> dict[str, Any]:
        """Ask for the attributes of an RSE."""
        answer: dict[str, Any] = self._call("GET", f"/rses{segments(rse, 'attr')}/")
        return answer

    def add_protocol(self, rse: str, protocol: Mapping[str, Any]) -> None:
        """Add a protocol to an RSE (Rucio's keys: scheme, hostname, port, prefix, impl, domains)."""
        self._call("POST", f"/rses{segments(rse, 'protocols', str(protocol['scheme']))}", body=dict(protocol))

    def get_distance(self, source: str, destination: str) -> int | None:
        """Ask for the distance of a link, None where there is none."""
        answer = self._call("GET", f"/rses{segments(source, 'distances', destination)}")
        rows = answer if isinstance(answer, list) else [answer] if answer else []
        return int(rows[0]["distance"]) if rows else None

    def set_distance(self, source: str, destination: str, distance: int) -> None:
        """Set the distance of a link, whether or not it had one."""
        path = f"/rses{segments(source, 'distances', destination)}"
        try:
            self._call("POST", path, body={"distance": distance})
        except Conflict:
            self._call("PUT", path, body={"distance": distance})
