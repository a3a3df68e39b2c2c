"""What accounts use, derived from the locks of their rules: each file once at each RSE, however many rules hold it.

A fixed number of statements for any number of rules and files; no counter that could be wrong.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CTE,
    Connection,
    RowMapping,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    union,
)

from arriero.registry.schema.base import UtcDateTime, after, now
from arriero.registry.schema.tables import account_usage_history, contents, dids, locks, rses, rules
from arriero.registry.states import DidType, RuleState


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account uses at one RSE."""

    files: int
    bytes: int


NOTHING = Usage(0, 0)


def _held() -> Select[Any]:
    """Files that accounts hold at RSEs, each once: columns ``account_id``, ``rse_id``, ``bytes``."""
    return (
        select(rules.c.account_id, locks.c.rse_id, func.max(locks.c.bytes).label("bytes"))
        .join(rules, rules.c.id == locks.c.rule_id)
        .group_by(rules.c.account_id, locks.c.rse_id, locks.c.file_id)
    )


def usage_of(connection: Connection, account_id: int) -> dict[int, Usage]:
    """What an account uses, by id of the RSE."""
    held = _held().where(rules.c.account_id == account_id).subquery("held")
    query = select(held.c.rse_id, func.count(), func.sum(held.c.bytes)).group_by(held.c.rse_id)
    return {rse_id: Usage(int(files), int(size)) for rse_id, files, size in connection.execute(query)}


def locked_bytes(connection: Connection, account_id: int) -> dict[int, int]:
    """Bytes of all locks of an account's rules, by id of the RSE: what several of them hold counts several times.

    Never less than `usage_of`, and an order of magnitude cheaper.
    """
    query = (
        select(locks.c.rse_id, func.sum(locks.c.bytes))
        .join(rules, rules.c.id == locks.c.rule_id)
        .where(rules.c.account_id == account_id)
        .group_by(locks.c.rse_id)
    )
    return {rse_id: int(size) for rse_id, size in connection.execute(query)}


def rules_to_come(connection: Connection, account_id: int) -> Sequence[RowMapping]:
    """Rules of an account that were added and have not got all their locks yet, in the order of their ids."""
    query = (
        select(
            rules.c.id,
            rules.c.did_id,
            dids.c.type.label("did_type"),
            rules.c.rse_expression,
            rules.c.copies,
            rules.c.grouping,
            rules.c.ignore_availability,
        )
        .join(dids, dids.c.id == rules.c.did_id)
        .where(
            rules.c.account_id == account_id,
            rules.c.state == RuleState.INJECT,
            rules.c.ignore_account_limit.is_(False),
        )
        .order_by(rules.c.id)
    )
    return connection.execute(query).mappings().all()


def rules_stuck(account_id: int) -> Select[tuple[int]]:
    """Query for the ids of the rules of an account that wait for something.

    It waits for a rule that is being taken away at this moment, and passes it over.
    """
    return (
        select(rules.c.id)
        .where(rules.c.account_id == account_id, rules.c.state == RuleState.STUCK)
        .with_for_update(read=True, key_share=True)
    )


def _files_below(roots: Iterable[int]) -> CTE:
    """Files of each of some DIDs, at any depth, each once for each of them: columns ``root`` and ``id``."""
    tree = (
        select(dids.c.id.label("root"), dids.c.id, dids.c.type)
        .where(dids.c.id.in_(sorted(set(roots))))
        .cte("tree", recursive=True)
    )
    child = dids.alias("child")
    tree = tree.union(
        select(tree.c.root, child.c.id, child.c.type)
        .join(contents, and_(contents.c.parent_id == tree.c.id, tree.c.type == DidType.CONTAINER))
        .join(child, child.c.id == contents.c.child_id)
    )
    held = (
        select(tree.c.root, contents.c.child_id.label("id"))
        .join(contents, contents.c.parent_id == tree.c.id)
        .where(tree.c.type == DidType.DATASET)
    )
    named = select(tree.c.root, tree.c.id).where(tree.c.type == DidType.FILE)
    return union(held, named).cte("below")


def sizes_below(connection: Connection, roots: Iterable[int]) -> dict[int, int]:
    """Bytes of the files of each of some DIDs, by its id."""
    below = _files_below(roots)
    query = (
        select(below.c.root, func.coalesce(func.sum(dids.c.bytes), 0))
        .join(dids, dids.c.id == below.c.id)
        .group_by(below.c.root)
    )
    return {root: int(size) for root, size in connection.execute(query)}


def held_below(connection: Connection, account_id: int, roots: Iterable[int]) -> dict[int, dict[int, int]]:
    """Bytes of the files of each of some DIDs that the account's rules hold already, by DID and RSE."""
    below = _files_below(roots)
    held = (
        select(below.c.root, locks.c.rse_id, func.max(locks.c.bytes).label("bytes"))
        .join(locks, locks.c.file_id == below.c.id)
        .join(rules, rules.c.id == locks.c.rule_id)
        .where(rules.c.account_id == account_id)
        .group_by(below.c.root, locks.c.rse_id, locks.c.file_id)
        .subquery("held")
    )
    query = select(held.c.root, held.c.rse_id, func.sum(held.c.bytes)).group_by(held.c.root, held.c.rse_id)
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for root, rse_id, size in connection.execute(query):
        found[root][rse_id] = int(size)
    return found


def is_recent(connection: Connection, *, interval_s: float) -> bool:
    """Whether what accounts use was written not long ago."""
    recent = exists().where(account_usage_history.c.at > after(literal(-interval_s)))
    return connection.scalar(select(recent)) is True


def append_history(connection: Connection) -> int:
    """Write what every account uses now, all with the same time; give the rows.

    What was used at the last time and no longer is, is written once more, as nothing.
    """
    history = account_usage_history
    last = select(func.max(history.c.at)).scalar_subquery()
    before = select(history.c.account_id, history.c.rse_id).where(history.c.at == last, history.c.files > 0)
    gone = connection.execute(before).all()
    held = _held().subquery("held")
    at = connection.scalar(select(now()))
    current = select(
        held.c.account_id,
        held.c.rse_id,
        literal(at, UtcDateTime()),
        func.count(),
        func.sum(held.c.bytes),
    ).group_by(held.c.account_id, held.c.rse_id)
    columns = ["account_id", "rse_id", "at", "files", "bytes"]
    connection.execute(insert(history).from_select(columns, current))
    written = select(history.c.account_id, history.c.rse_id).where(history.c.at == at)
    there = {tuple(row) for row in connection.execute(written)}
    if missing := [row for row in gone if tuple(row) not in there]:
        connection.execute(
            insert(history),
            [
                {"account_id": account_id, "rse_id": rse_id, "at": at, "files": 0, "bytes": 0}
                for account_id, rse_id in missing
            ],
        )
    return len(there) + len(missing)


def drop_history(connection: Connection, *, keep_days: int) -> None:
    """Forget what is older."""
    connection.execute(
        delete(account_usage_history).where(account_usage_history.c.at < after(literal(-86400.0 * keep_days)))
    )


def history_rows(account_id: int, rse: str) -> Select[Any]:
    """Query for what an account has used at an RSE, the oldest first."""
    history = account_usage_history
    return (
        select(history.c.at, history.c.files, history.c.bytes)
        .join(rses, rses.c.id == history.c.rse_id)
        .where(history.c.account_id == account_id, rses.c.name == rse)
        .order_by(history.c.at)
    )
