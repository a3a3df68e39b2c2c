"""What holds a rule up, file by file."""

from collections import defaultdict
from typing import Any

from arriero.registry.services.context import Context
from arriero.registry.services.rules import parse_rule_id, require_rule
from arriero.registry.states import RESTING, RuleState
from arriero.registry.store import rule_work as store

MAX_TRANSFERS = 1000
"""Locks that are described; a rule can have a million."""


def examine_rule(context: Context, rule_id: str) -> dict[str, Any]:
    """Tell how a rule is, and of each file that is STUCK why, from where it was tried and from where it could be.

    Returns
    -------
    dict
        Rucio's ``rule_error`` and ``transfers``; ``transfers_total`` says of how many locks the first are described.

    Raises
    ------
    NotFound
        There is no such rule.
    """
    uuid = parse_rule_id(rule_id)
    with context.database.snapshot() as connection:
        row = require_rule(connection, uuid)
        stuck = connection.execute(store.stuck_locks(row["id"], MAX_TRANSFERS)).mappings().all()
        sources: dict[int, list[tuple[str, bool]]] = defaultdict(list)
        for file_id, name, readable in store.sources_of(connection, {lock["file_id"] for lock in stuck}):
            sources[file_id].append((name, readable))
    transfers = [
        {
            "scope": lock["scope"],
            "name": lock["name"],
            "rse_id": str(lock["rse_id"]),
            "rse": lock["rse"],
            "code": lock["code"],
            "attempts": lock["attempts"],
            "last_error": lock["reason"] or lock["last_reason"],
            "last_source": lock["last_source"],
            "sources": sources[lock["file_id"]],
            "last_time": lock["last_time"],
        }
        for lock in stuck
    ]
    error = _sentence(row["state"])
    if row["state"] not in (RuleState.OK, RuleState.REPLICATING) and row["reason"]:
        error = f"{error} {row['reason']}"
    return {"rule_error": error, "transfers": transfers, "transfers_total": row["locks_stuck"]}


def _sentence(state: RuleState) -> str:
    if state is RuleState.OK:
        return "This replication rule is OK"
    if state is RuleState.STUCK:
        return "This replication rule is STUCK:"
    if state in (*RESTING, RuleState.INJECT):
        return f"This replication rule is {state}, and nothing is done for it now."
    return f"This replication rule is currently {state}"
