"""Calls about subscriptions, in Rucio's REST protocol."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arriero.registry.calls.dids import Did
from arriero.registry.calls.transport import Transport, segments


class SubscriptionCalls(Transport):
    """Subscriptions. Dictionaries are Rucio's."""

    def add_subscription(self, name: str, account: str, options: Mapping[str, Any]) -> str:
        """Add a subscription and give its id.

        Parameters
        ----------
        options
            Rucio's: ``filter``, ``replication_rules``, ``comments``, ``lifetime`` (days), ``retroactive``, ``dry_run``,
            ``priority``.
        """
        path = f"/subscriptions{segments(account, name)}"
        # as Rucio answers: the bare id
        response = self._send("POST", path, {"options": dict(options)}, None, idempotent=False)
        try:
            return str(response.text).strip()
        finally:
            response.close()

    def update_subscription(self, name: str, account: str, options: Mapping[str, Any]) -> None:
        """Change a subscription; as of `add_subscription`, and ``state``.

        With ``retroactive`` everything that there is is looked at again.
        """
        self._call("PUT", f"/subscriptions{segments(account, name)}", body={"options": dict(options)})

    def list_subscriptions(
        self, name: str | None = None, account: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """List subscriptions: all, of an account, of a name, or the one of both."""
        if account is None:
            path = "" if name is None else segments("name", name)
        else:
            path = segments(account) if name is None else segments(account, name)
        return self._stream("GET", f"/subscriptions{path}")

    def list_subscription_rules(self, account: str, name: str) -> Iterator[dict[str, Any]]:
        """List the rules that came from a subscription."""
        return self._stream("GET", f"/subscriptions{segments(account, name, 'rules')}")

    def list_subscription_waiting(self, account: str, name: str) -> Iterator[dict[str, Any]]:
        """List what waits for a subscription, with the reasons."""
        return self._stream("GET", f"/subscriptions{segments(account, name, 'waiting')}")

    def touch_dids(self, dids: Sequence[Did]) -> None:
        """Have every subscription look at some DIDs again."""
        wanted = [{"scope": did["scope"], "name": did["name"], "meta": {"is_new": True}} for did in dids]
        self._call("POST", "/dids/bulkdidsmeta", body={"dids": wanted})
