"""Calls about rules, in Rucio's REST protocol."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arriero.registry.calls.dids import Did
from arriero.registry.calls.transport import Transport, segments
from arriero.registry.errors import InvalidInput, NotFound
from arriero.registry.explanations import RuleExplanation

_RULE_ID = re.compile(r"[0-9a-f]{32}")
_SHORTEST_PREFIX = 4


class RuleCalls(Transport):
    """Rules. Dictionaries are Rucio's."""

    def add_replication_rule(
        self, dids: Sequence[Did], copies: int, rse_expression: str, **options: Any
    ) -> list[str]:
        """Add a rule to each of ``dids``; all or none.

        Parameters
        ----------
        dids
            What to replicate.
        copies
            How many copies of each file.
        rse_expression
            Where.
        **options
            Rucio's: ``weight``, ``lifetime`` (seconds), ``grouping``, ``account``, ``locked``,
            ``source_replica_expression``, ``activity``, ``notify``, ``purge_replicas``, ``ignore_availability``,
            ``comment``, ``ask_approval``, ``priority``, ``meta``. Those that are None take the registry's default.

        Returns
        -------
        list of str
            Ids, in the order of ``dids``.
        """
        body: dict[str, Any] = {
            "dids": [{"scope": did["scope"], "name": did["name"]} for did in dids],
            "copies": copies,
            "rse_expression": rse_expression,
        }
        body.update({key: value for key, value in options.items() if value is not None})
        answer = self._call("POST", "/rules/", body=body)
        return [str(rule_id) for rule_id in answer]

    def plan_replication_rule(
        self, dids: Sequence[Did], copies: int, rse_expression: str, **options: Any
    ) -> list[dict[str, Any]]:
        """Ask what a rule on each of ``dids`` would do; nothing is added.

        Parameters
        ----------
        dids, copies, rse_expression, **options
            As of `add_replication_rule`.

        Returns
        -------
        list of dict
            For each DID ``rule_id`` (give it as one of ``rule_ids`` to add exactly this rule), ``state``, ``reason``,
            ``files``, ``bytes``, and ``rses``: for each RSE of the expression whether it is chosen and why, and how much
            is there, under way, to move and stuck.
        """
        body: dict[str, Any] = {
            "dids": [{"scope": did["scope"], "name": did["name"]} for did in dids],
            "copies": copies,
            "rse_expression": rse_expression,
            "dry_run": True,
        }
        body.update({key: value for key, value in options.items() if value is not None})
        answer: list[dict[str, Any]] = self._call("POST", "/rules/", body=body)
        return answer

    def update_replication_rule(self, rule_id: str, options: Mapping[str, Any]) -> None:
        """Change a rule (Rucio's options: lifetime, locked, comment, priority, state, boost_rule ...)."""
        self._call("PUT", f"/rules{segments(rule_id)}", body={"options": dict(options)})

    def approve_replication_rule(self, rule_id: str) -> None:
        """Let a rule that waits for approval go on."""
        self.update_replication_rule(rule_id, {"approve": True})

    def deny_replication_rule(self, rule_id: str, reason: str | None = None) -> None:
        """Take a rule that waits for approval away."""
        said = {} if reason is None else {"comment": reason}
        self.update_replication_rule(rule_id, {"approve": False, **said})

    def move_replication_rule(
        self, rule_id: str, rse_expression: str, override: Mapping[str, Any] | None = None
    ) -> str:
        """Have a rule replaced by one on other RSEs; give the new one's id."""
        body = {"rse_expression": rse_expression, "override": dict(override or {})}
        return str(self._call("POST", f"/rules{segments(rule_id, 'move')}", body=body))

    def reduce_replication_rule(
        self, rule_id: str, copies: int, exclude_expression: str | None = None
    ) -> str:
        """Have a rule replaced, at once, by one with fewer copies; give the new one's id."""
        body = {"copies": copies, "exclude_expression": exclude_expression}
        return str(self._call("POST", f"/rules{segments(rule_id, 'reduce')}", body=body))

    def plan_reduction(
        self, rule_id: str, copies: int, exclude_expression: str | None = None
    ) -> dict[str, Any]:
        """Ask what `reduce_replication_rule` would keep and let go; nothing is changed.

        Returns
        -------
        dict
            ``rule_id``, ``scope``, ``name``, ``copies``, ``rse_expression`` and ``purge_replicas`` of the new rule, and
            ``rses``: for each RSE, as ``..._files`` and ``..._bytes``, what would be ``kept``, what would be ``let_go``,
            and what of that would be ``unheld``: no other rule holds it.
        """
        body = {"copies": copies, "exclude_expression": exclude_expression, "dry_run": True}
        answer: dict[str, Any] = self._call("POST", f"/rules{segments(rule_id, 'reduce')}", body=body)
        return answer

    def examine_replication_rule(self, rule_id: str) -> dict[str, Any]:
        """Ask what holds a rule up."""
        answer: dict[str, Any] = self._call("GET", f"/rules{segments(rule_id, 'analysis')}")
        return answer

    def explain_replication_rule(self, rule_id: str) -> RuleExplanation:
        """Ask why a rule is as it is: its RSEs, what its files wait for, until when, and what can be done."""
        return RuleExplanation.model_validate(self._call("GET", f"/rules{segments(rule_id, 'explain')}"))

    def list_rule_history(self, rule_id: str) -> Iterator[dict[str, Any]]:
        """List what happened to a rule: when, who (None for the system), from which state to which, and why."""
        return self._stream("GET", f"/rules{segments(rule_id, 'history')}")

    def list_replication_rule_full_history(self, scope: str, name: str) -> Iterator[dict[str, Any]]:
        """List when rules on a DID came to be and when they went."""
        return self._stream("GET", f"/rules{segments(scope, name, 'history')}")

    def get_replication_rule(self, rule_id: str) -> dict[str, Any]:
        """Ask for one rule."""
        answer: dict[str, Any] = self._call("GET", f"/rules{segments(rule_id)}")
        return answer

    def list_replication_rules(self, filters: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """List rules (Rucio's filters: scope, name, account, rse_expression, state, activity ...)."""
        return self._stream("GET", "/rules/", params=filters)

    def list_did_rules(self, scope: str, name: str) -> Iterator[dict[str, Any]]:
        """List the rules that stand on a DID itself."""
        return self._stream("GET", f"/dids{segments(scope, name, 'rules')}")

    def list_associated_rules_for_file(self, scope: str, name: str) -> Iterator[dict[str, Any]]:
        """List the rules that ask for a file, on whatever holds it."""
        return self._stream("GET", f"/dids{segments(scope, name, 'associated_rules')}")

    def list_replica_locks(self, rule_id: str) -> Iterator[dict[str, Any]]:
        """List the locks of a rule."""
        return self._stream("GET", f"/rules{segments(rule_id, 'locks')}")

    def delete_replication_rule(
        self, rule_id: str, *, purge_replicas: bool | None = None, now: bool = False
    ) -> None:
        """Remove a rule.

        Parameters
        ----------
        rule_id
            Its whole id.
        purge_replicas
            Delete at once what no other rule wants, instead of when space is needed; None: as the rule says.
        now
            Without Rucio's hour in which one may think again.
        """
        body = {"purge_replicas": purge_replicas, "now": now}
        self._call("DELETE", f"/rules{segments(rule_id)}", body=body, idempotent=False)

    def resolve_rule_id(self, text: str) -> str:
        """Find the one rule whose id begins with ``text``.

        Raises
        ------
        InvalidInput
            It is no beginning of an id, or several rules have it.
        NotFound
            No rule has it.
        """
        prefix = text.replace("-", "").lower()
        if _RULE_ID.fullmatch(prefix):
            return prefix
        if len(prefix) < _SHORTEST_PREFIX or not re.fullmatch(r"[0-9a-f]{1,31}", prefix):
            raise InvalidInput(
                f"{text!r} is not a rule id: give 32 hexadecimal digits, or at least its first {_SHORTEST_PREFIX}."
            )
        found = [
            str(rule["id"]) for rule in self.list_replication_rules() if str(rule["id"]).startswith(prefix)
        ]
        if not found:
            raise NotFound(
                f"No rule has an id that begins with {prefix}; see 'arriero rule list'.",
                code="rule_not_found",
            )
        if len(found) > 1:
            raise InvalidInput(f"{len(found)} rules have ids that begin with {prefix}: give more digits.")
        return found[0]
