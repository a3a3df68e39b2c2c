"""What the owners of rules have asked to be told: Rucio's RULE_OK and RULE_PROGRESS, and when (docs/adr/0018).

The events ``rule-ok``, ``replica-bad`` and the like are Arriero's own and tell of everything; these are written for the
rules that ask for them, by the letter of their column ``notification``, with Rucio's words and keys.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, or_, select

from arriero.registry.schema.tables import dids, rules, scopes
from arriero.registry.states import RESTING, DidType, RuleGrouping, RuleState
from arriero.registry.store import complete_datasets, events
from arriero.registry.store.contents import ancestors

RULE_OK = "RULE_OK"
RULE_PROGRESS = "RULE_PROGRESS"

ALWAYS, WHEN_CLOSED, PROGRESS = "Y", "C", "P"
LETTERS = frozenset({ALWAYS, WHEN_CLOSED, PROGRESS})
"""Letters of the rules whose owners are told something."""

OF_CLOSED_DIDS = frozenset({WHEN_CLOSED, PROGRESS})
"""Letters of the rules whose owners are told only when the DID of the rule is closed."""

OF_DATASETS = frozenset({complete_datasets.ALWAYS, complete_datasets.WHEN_CLOSED})
"""Letters of the rules whose owners are told of each dataset."""

Message = tuple[str, Mapping[str, Any]]
"""The key of an event, by which it is ordered, and its payload."""


def message(uuid: UUID, scope: str, name: str, **more: Any) -> Message:
    """Write an event of a rule, with the scope and name of the rule's DID."""
    return f"rule:{uuid}", {"scope": scope, "name": name, "rule_id": uuid.hex, **more}


def closed_among(connection: Connection, did_ids: set[int]) -> set[int]:
    """Those of some DIDs to which nothing can be attached; a file is one of them.

    Asked in a statement of its own by who holds the rules on them: who closes one at this moment holds them too, before
    or afterwards, and tells what is not told here.
    """
    query = select(dids.c.id).where(
        dids.c.id.in_(sorted(did_ids)), or_(dids.c.type == DidType.FILE, ~dids.c.is_open)
    )
    return set(connection.scalars(query))


def tell_closed(connection: Connection, did_id: int, did_type: DidType) -> None:
    """Tell what those have waited for that wanted to be told when a DID is closed.

    Parameters
    ----------
    connection
        In the transaction that has just closed it.
    """
    waiting = connection.execute(
        select(
            rules.c.id,
            rules.c.uuid,
            rules.c.did_id,
            rules.c.state,
            rules.c.notification,
            rules.c.grouping,
            scopes.c.name.label("scope"),
            dids.c.name,
        )
        .join(dids, dids.c.id == rules.c.did_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(
            rules.c.did_id.in_(select(ancestors([did_id]).c.id)),
            rules.c.notification.in_(sorted(OF_CLOSED_DIDS)),
        )
        .order_by(rules.c.id)
        .with_for_update(of=rules, key_share=True)
    ).all()
    done = [row for row in waiting if row.did_id == did_id and row.state is RuleState.OK]
    tell_ok(connection, [(row.notification, row.uuid, row.scope, row.name) for row in done])
    of_datasets = [
        row.id
        for row in waiting
        if row.notification in OF_DATASETS
        and row.grouping is not RuleGrouping.NONE
        and row.state not in RESTING
    ]
    if of_datasets and did_type is DidType.DATASET:
        complete_datasets.note_dataset(connection, did_id, of_datasets)
        complete_datasets.drop_incomplete(connection)
        complete_datasets.tell(connection)


def tell_ok(connection: Connection, rules_ok: list[tuple[str, UUID, str, str]]) -> None:
    """Tell of rules that are OK.

    Parameters
    ----------
    rules_ok
        The letter of each, its id, and scope and name of its DID.
    """
    events.append(connection, RULE_OK, [message(uuid, scope, name) for _, uuid, scope, name in rules_ok])
    tell_progress(
        connection,
        [
            message(uuid, scope, name, progress=100)
            for letter, uuid, scope, name in rules_ok
            if letter == PROGRESS
        ],
    )


def tell_progress(connection: Connection, messages: list[Message]) -> None:
    """Tell how far rules are."""
    events.append(connection, RULE_PROGRESS, messages)
