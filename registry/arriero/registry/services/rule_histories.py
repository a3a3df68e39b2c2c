"""What happened to rules, and which rules there were: listed for as long as histories are kept."""

from collections.abc import Iterator
from typing import Any

from arriero.registry.errors import NotFound
from arriero.registry.services.context import Context
from arriero.registry.services.rules import parse_rule_id, rule_missing
from arriero.registry.store import dids as did_store
from arriero.registry.store import rules as store
from arriero.registry.store.rule_history import changes_of, lives_of
from arriero.registry.store.streaming import streamed


def list_history(context: Context, rule_id: str) -> Iterator[dict[str, Any]]:
    """List what happened to a rule, also to one that is there no more: when, who, from which state to which, and why.

    ``account`` is None where nobody asked for the change: the system has made it.

    Raises
    ------
    NotFound
        There is no such rule, and there was none as far back as histories are kept.
    """
    uuid = parse_rule_id(rule_id)
    with context.database.snapshot() as connection:
        if not store.known_uuids(connection, [uuid]):
            raise rule_missing(uuid.hex)
        with streamed(connection, changes_of(uuid)) as changes:
            for change in changes:
                yield {
                    "rule_id": uuid.hex,
                    "at": change["at"],
                    "account": change["account"],
                    "from_state": change["from_state"],
                    "to_state": change["to_state"],
                    "code": change["code"],
                    "reason": change["reason"],
                }


def list_did_history(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """List when rules on a DID came to be and when they went, also those that are there no more.

    Raises
    ------
    NotFound
        There is no such DID.
    """
    with context.database.snapshot() as connection:
        row = did_store.find_dids(connection, [(scope, name)]).get((scope, name))
        if row is None:
            raise NotFound(
                f"there is no DID {scope[:40]}:{name[:200]}, and so no rule on it", rucio_class="RuleNotFound"
            )
        with streamed(connection, lives_of(row["id"])) as lives:
            for life in lives:
                yield {
                    "rule_id": life["rule_uuid"].hex,
                    "account": life["owner"],
                    "rse_expression": life["rse_expression"],
                    "state": life["to_state"] or life["from_state"],
                    "locks_ok_cnt": life["locks_ok"],
                    "locks_replicating_cnt": life["locks_replicating"],
                    "locks_stuck_cnt": life["locks_stuck"],
                    "created_at": life["rule_created_at"],
                    "updated_at": life["at"],
                    "changed_by": life["account"],
                    "reason": life["reason"],
                }
