"""The system under the state machine over REST: what people do goes through the client, by HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from arriero.registry.client import RegistryClient
from arriero.registry.services.context import Context
from arriero.registry.states import REPLICA_LETTERS, ReplicaState
from scheduler.model.drivers import ADLER32, SCOPE, Services, refused
from scheduler.model.judge import Seen
from scheduler.model.reference import Key, Model, Rule


class Rest(Services):
    """The same by the client, over HTTP.

    Parameters
    ----------
    context
        Of the registry that the client talks to.
    """

    def __init__(self, context: Context, client: RegistryClient) -> None:
        super().__init__(context)
        self.client = client

    def add_files(self, rse: str, files: Iterable[str]) -> None:
        self.client.add_replicas(
            rse,
            [{"scope": SCOPE, "name": name, "bytes": Model.size(name), "adler32": ADLER32} for name in files],
        )

    def add_collection(self, name: str, kind: str) -> None:
        self.client.add_did(SCOPE, name, kind)

    def attach(self, parent: str, children: Sequence[str]) -> None:
        # not `attach_dids`, which passes over what is attached already
        body = {"dids": [{"scope": SCOPE, "name": child} for child in children]}
        self.client._call("POST", f"/dids/{SCOPE}/{parent}/dids", body=body)

    def detach(self, parent: str, children: Sequence[str]) -> None:
        self.client.detach_dids(SCOPE, parent, [{"scope": SCOPE, "name": child} for child in children])

    def set_open(self, name: str, *, is_open: bool) -> None:
        self.client.set_status(SCOPE, name, is_open=is_open)

    def add_rule(self, rule: Rule) -> str:
        return self.client.add_replication_rule(
            [{"scope": SCOPE, "name": rule.did}],
            rule.copies,
            rule.expression,
            grouping=rule.grouping,
            priority=rule.priority,
            source_replica_expression=rule.sources,
            ignore_availability=rule.ignore_availability,
            ask_approval=rule.state == "WAITING_APPROVAL",
        )[0]

    def remove_rule(self, rule_id: str) -> None:
        self.client.delete_replication_rule(rule_id, now=True)

    def update_rule(self, rule_id: str, **options: Any) -> None:
        self.client.update_replication_rule(rule_id, options)

    def decide(self, rule_id: str, *, approve: bool) -> None:
        if approve:
            self.client.approve_replication_rule(rule_id)
        else:
            self.client.deny_replication_rule(rule_id)

    def move(self, rule_id: str, expression: str) -> str:
        return self.client.move_replication_rule(rule_id, expression)

    def block(self, rse: str, what: str, *, is_open: bool) -> None:
        self.client.update_rse(rse, {f"availability_{what}": is_open})

    def set_attribute(self, rse: str, key: str, value: str) -> None:
        self.client.add_rse_attribute(rse, key, value)

    def declare(self, key: Key, state: str) -> None:
        file, rse = key
        if state == "BAD":
            body = {"replicas": [{"scope": SCOPE, "name": file, "rse": rse}], "reason": "checked by hand"}
            refused(self.client._call("POST", "/replicas/bad", body=body))
            return
        letter = REPLICA_LETTERS[ReplicaState(state)]
        body = {"rse": rse, "files": [{"scope": SCOPE, "name": file, "state": letter}]}
        self.client._call("PUT", "/replicas", body=body)

    def check_told(self, seen: Seen) -> None:
        for rule in self.client.list_replication_rules():
            row = seen.rules[rule["id"]]
            told = [rule["state"], rule["error"], *(rule[f"locks_{kind}_cnt"] for kind in ("ok", "stuck"))]
            there = [row.state, row.reason, row.counts["OK"], row.counts["STUCK"]]
            assert told == there, f"{rule['id']}: REST tells {told}, and there is {there}"
            held = {
                (one["name"], one["rse"]): one["state"] for one in self.client.list_replica_locks(rule["id"])
            }
            locked = {key: state for key, (state, _) in seen.locks.get(rule["id"], {}).items()}
            assert held == locked, f"{rule['id']}: REST tells of {held}, and there are {locked}"
