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

    def update_rse(self, rse: str, settings: Mapping[str, Any]) -> None:
        """Change settings of an RSE."""
        self._call("PUT", f"/rses{segments(rse)}", body=dict(settings), idempotent=True)

    def delete_rse(self, rse: str) -> None:
        """Remove an RSE that is empty."""
        self._call("DELETE", f"/rses{segments(rse)}")

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

    def delete_protocols(
        self, rse: str, scheme: str, hostname: str | None = None, port: int | None = None
    ) -> None:
        """Remove the protocols of a scheme, of one host and port if given."""
        narrowed = [part for part in (hostname, None if port is None else str(port)) if part is not None]
        self._call("DELETE", f"/rses{segments(rse, 'protocols', scheme, *narrowed)}")

    def update_protocols(
        self,
        rse: str,
        scheme: str,
        changes: Mapping[str, Any],
        hostname: str | None = None,
        port: int | None = None,
    ) -> None:
        """Change the protocols of a scheme, of one host and port if given; of ``domains`` only what is named."""
        narrowed = [part for part in (hostname, None if port is None else str(port)) if part is not None]
        path = f"/rses{segments(rse, 'protocols', scheme, *narrowed)}"
        self._call("PUT", path, body=dict(changes), idempotent=True)

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

    def delete_distance(self, source: str, destination: str) -> None:
        """Remove the distance of a link."""
        self._call("DELETE", f"/rses{segments(source, 'distances', destination)}")

    def list_rse_usage(self, rse: str, source: str | None = None) -> Iterator[dict[str, Any]]:
        """List what is known of the space of an RSE, by source, bytes."""
        return self._stream("GET", f"/rses{segments(rse, 'usage')}", params={"source": source})

    def list_rse_usage_history(self, rse: str, source: str | None = None) -> Iterator[dict[str, Any]]:
        """List everything that was measured of an RSE, oldest first, bytes."""
        return self._stream("GET", f"/rses{segments(rse, 'usage', 'history')}", params={"source": source})

    def list_removable(self, rse: str) -> Iterator[dict[str, Any]]:
        """List the replicas at an RSE that deletion may take: those that go at once first, then the least read."""
        return self._stream("GET", f"/rses{segments(rse, 'removable')}")

    def set_rse_usage(
        self, rse: str, source: str, *, used: int | None, free: int | None, files: int | None = None
    ) -> None:
        """Write what a source has measured of an RSE, bytes."""
        body = {"source": source, "used": used, "free": free, "files": files}
        self._call("PUT", f"/rses{segments(rse, 'usage')}", body=body)

    def get_rse_limits(self, rse: str) -> dict[str, int]:
        """Ask for the limits of an RSE, bytes."""
        answer: dict[str, int] = self._call("GET", f"/rses{segments(rse, 'limits')}")
        return answer

    def set_rse_limit(self, rse: str, name: str, value: int) -> None:
        """Set a limit of an RSE, bytes."""
        self._call(
            "PUT", f"/rses{segments(rse, 'limits')}", body={"name": name, "value": value}, idempotent=True
        )

    def delete_rse_limit(self, rse: str, name: str) -> None:
        """Remove a limit of an RSE."""
        self._call("DELETE", f"/rses{segments(rse, 'limits')}", body={"name": name})

    def list_qos_policies(self, rse: str) -> list[str]:
        """List the classes of service that an RSE offers."""
        return list(self._call("GET", f"/rses{segments(rse, 'qos_policy')}") or [])

    def add_qos_policy(self, rse: str, policy: str) -> None:
        """Say that an RSE offers a class of service."""
        self._call("POST", f"/rses{segments(rse, 'qos_policy', policy)}")

    def delete_qos_policy(self, rse: str, policy: str) -> None:
        """Say that an RSE does not offer a class of service any more."""
        self._call("DELETE", f"/rses{segments(rse, 'qos_policy', policy)}")

    def export_rses(self) -> dict[str, Any]:
        """Ask for the configuration of all RSEs, as `import_rses` takes it."""
        answer: dict[str, Any] = self._call("GET", "/export")
        return answer

    def import_rses(
        self, document: Mapping[str, Any], *, attributes: str = "edit", protocols: str = "edit"
    ) -> dict[str, int]:
        """Bring the configuration of RSEs in, whole or not at all.

        Parameters
        ----------
        document
            As `export_rses` gives it.
        attributes, protocols
            What becomes of those that are there: ``append`` leaves them, ``edit`` changes them, ``hard`` also removes
            what the document does not name.
        """
        params = {"attr_sync_method": attributes, "protocol_sync_method": protocols}
        answer: dict[str, int] = self._call(
            "POST", "/import", body=dict(document), params=params, idempotent=True
        )
        return answer
