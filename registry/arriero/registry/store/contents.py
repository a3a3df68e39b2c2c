"""What holds what: walking the tree up and down in SQL."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Connection,
    FromClause,
    Integer,
    Select,
    Subquery,
    and_,
    cast,
    func,
    literal,
    select,
    text,
    union,
)

from arriero.registry.dialect import insert_into
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import contents, did_meta, dids, evaluation_items, rules, scopes
from arriero.registry.states import DidType
from arriero.registry.store.json_filters import is_one_of


def ancestors(ids: Iterable[int]) -> CTE:
    """DIDs and everything above them, one column ``id``; ends on circles too."""
    up = select(dids.c.id).where(dids.c.id.in_(list(ids))).cte("ancestors", recursive=True)
    return up.union(select(contents.c.parent_id).join(up, contents.c.child_id == up.c.id))


def ancestor_ids(connection: Connection, ids: Iterable[int]) -> frozenset[int]:
    """DIDs and everything above them."""
    return frozenset(connection.scalars(select(ancestors(ids).c.id)))


def collections_below(ids: Iterable[int] | Select[Any]) -> CTE:
    """DIDs and the collections below them, columns ``id`` and ``type``; the files of datasets are not looked at."""
    chosen = ids if isinstance(ids, Select) else list(ids)
    down = select(dids.c.id, dids.c.type).where(dids.c.id.in_(chosen)).cte("collections", recursive=True)
    child = dids.alias("child")
    return down.union(
        select(child.c.id, child.c.type)
        .select_from(down)
        .join(contents, and_(contents.c.parent_id == down.c.id, down.c.type == DidType.CONTAINER))
        .join(child, child.c.id == contents.c.child_id)
    )


def file_ids_below(ids: Sequence[int]) -> Subquery:
    """Files that DIDs are or hold, at any depth, each once; one column ``id``.

    What is a file follows from what holds it: a condition on ``dids.type`` here has the planner of a database without
    statistics expect a handful of rows, and join them one by one.
    """
    tree = collections_below(ids)
    held = (
        select(contents.c.child_id.label("id"))
        .join(tree, contents.c.parent_id == tree.c.id)
        .where(tree.c.type == DidType.DATASET)
    )
    named = select(tree.c.id).where(tree.c.type == DidType.FILE)
    return union(held, named).subquery("below")


def files_below(ids: Sequence[int]) -> Select[Any]:
    """Query for the files that DIDs are or hold, at any depth, each once."""
    below = file_ids_below(ids)
    return (
        select(dids.c.id, scopes.c.name.label("scope"), dids.c.name, dids.c.bytes, dids.c.adler32, dids.c.md5)
        .join(below, below.c.id == dids.c.id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
    )


def everything_below(roots: FromClause) -> Select[Any]:
    """Query for what DIDs are or hold, at any depth: ``root`` and ``id``, each once for each root.

    Parameters
    ----------
    roots
        Columns ``id`` and ``root``: a DID, and what to call it in the answer.
    """
    down = _down_from(roots)
    held = (
        select(down.c.root, contents.c.child_id.label("id"))
        .join(contents, contents.c.parent_id == down.c.id)
        .where(down.c.type == DidType.DATASET)
    )
    return select(down.c.root, down.c.id).union(held)  # type: ignore[return-value]


def _down_from(roots: FromClause) -> CTE:
    down = (
        select(cast(roots.c.root, BigInteger).label("root"), dids.c.id, dids.c.type)
        .join(dids, dids.c.id == roots.c.id)
        .cte("down", recursive=True)
    )
    child = dids.alias("child")
    return down.union(
        select(down.c.root, child.c.id, child.c.type)
        .select_from(down)
        .join(contents, and_(contents.c.parent_id == down.c.id, down.c.type == DidType.CONTAINER))
        .join(child, child.c.id == contents.c.child_id)
    )


def files_below_each(roots: FromClause) -> Select[Any]:
    """Query for the files that DIDs are or hold, at any depth, each once for each root; ``root`` says below which.

    Parameters
    ----------
    roots
        As of `everything_below`.
    """
    down = _down_from(roots)
    held = (
        select(down.c.root, contents.c.child_id.label("id"))
        .join(contents, contents.c.parent_id == down.c.id)
        .where(down.c.type == DidType.DATASET)
    )
    named = select(down.c.root, down.c.id).where(down.c.type == DidType.FILE)
    below = union(held, named).subquery("below")
    return (
        select(
            below.c.root, scopes.c.name.label("scope"), dids.c.name, dids.c.bytes, dids.c.adler32, dids.c.md5
        )
        .join(dids, dids.c.id == below.c.id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
    )


def with_metadata(files: Select[Any]) -> Select[Any]:
    """Have a query for files give their metadata too, as ``meta``."""
    return files.add_columns(did_meta.c.meta).outerjoin(did_meta, did_meta.c.did_id == dids.c.id)


def levels_below(did_id: int, *, depth: int) -> Select[Any]:
    """Query for what a collection holds, level by level, with what holds it; a child once for each parent.

    Parameters
    ----------
    depth
        Levels; a limit, since nothing but the refusal of circles ends the descent.
    """
    down = select(dids.c.id.label("id"), literal(0, Integer).label("level")).where(dids.c.id == did_id)
    tree = down.cte("levels", recursive=True)
    tree = tree.union(
        select(contents.c.child_id, tree.c.level + 1)
        .join(tree, contents.c.parent_id == tree.c.id)
        .where(tree.c.level < depth)
    )
    parent, parent_scope = dids.alias("parent"), scopes.alias("parent_scope")
    return (
        select(
            scopes.c.name.label("scope"),
            dids.c.name,
            dids.c.type,
            dids.c.bytes,
            parent_scope.c.name.label("parent_scope"),
            parent.c.name.label("parent_name"),
            (tree.c.level + 1).label("level"),
        )
        .select_from(tree)
        .join(contents, contents.c.parent_id == tree.c.id)
        .join(dids, dids.c.id == contents.c.child_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(parent, parent.c.id == tree.c.id)
        .join(parent_scope, parent_scope.c.id == parent.c.scope_id)
        .where(tree.c.level < depth)
        .order_by(tree.c.level, tree.c.id, scopes.c.name, dids.c.name)
    )


def tops_of(scope_id: int) -> Select[Any]:
    """Query for the DIDs of a scope that nothing of the same scope holds, in the order of their names."""
    parent = dids.alias("parent")
    held = (
        select(literal(1))
        .select_from(contents)
        .join(parent, parent.c.id == contents.c.parent_id)
        .where(contents.c.child_id == dids.c.id, parent.c.scope_id == scope_id)
        .exists()
    )
    return (
        select(dids.c.id, dids.c.name, dids.c.type, dids.c.bytes)
        .where(dids.c.scope_id == scope_id, ~held)
        .order_by(dids.c.name)
    )


def datasets_with(connection: Connection, key: str, value: str) -> Select[Any]:
    """Query for the datasets that hold a file whose metadata have a value."""
    parent = dids.alias("parent")
    files = select(did_meta.c.did_id).where(is_one_of(connection, key, [value]))
    return (
        select(scopes.c.name.label("scope"), parent.c.name)
        .join(contents, contents.c.parent_id == parent.c.id)
        .join(scopes, scopes.c.id == parent.c.scope_id)
        .where(contents.c.child_id.in_(files), parent.c.type == DidType.DATASET)
        .distinct()
        .order_by(scopes.c.name, parent.c.name)
    )


def sample(connection: Connection, source_id: int, target_id: int, files: int) -> int:
    """Attach so many files below a DID, drawn at random, to a dataset; give how many there were."""
    below = file_ids_below([source_id])
    drawn = select(below.c.id).order_by(func.random()).limit(files).subquery("drawn")
    rows = select(literal(target_id), drawn.c.id, now()).order_by(drawn.c.id)
    statement = insert_into(connection, contents).from_select(["parent_id", "child_id", "created_at"], rows)
    return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount


def children_of(parent_id: int) -> Select[Any]:
    """Query for what a collection holds, in the order of the ids."""
    return (
        select(
            scopes.c.name.label("scope"), dids.c.name, dids.c.type, dids.c.bytes, dids.c.adler32, dids.c.md5
        )
        .join(contents, contents.c.child_id == dids.c.id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(contents.c.parent_id == parent_id)
        .order_by(contents.c.child_id)
    )


def parents_of(child_id: int) -> Select[Any]:
    """Query for the collections that hold a DID."""
    return (
        select(scopes.c.name.label("scope"), dids.c.name, dids.c.type)
        .join(contents, contents.c.parent_id == dids.c.id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(contents.c.child_id == child_id)
        .order_by(scopes.c.name, dids.c.name)
    )


def totals_below(connection: Connection, did_id: int) -> tuple[int, int]:
    """Files and bytes that a collection holds, at any depth, each file once."""
    files = files_below([did_id]).subquery()
    query = select(func.count(), func.coalesce(func.sum(files.c.bytes), 0)).select_from(files)
    count, total = connection.execute(query).one()
    return int(count), int(total)


def pairs_of(parent_id: int) -> Select[tuple[int, int]]:
    """Query for the id of a collection and that of each of its children."""
    return select(contents.c.parent_id, contents.c.child_id).where(contents.c.parent_id == parent_id)


_IS_LOOKED_AT = text("evaluation_items.kind IN ('DATASET', 'CONTAINER')")
"""Spelt out, so that both databases see that the partial index serves."""


def rules_above(ids: Iterable[int]) -> Select[Any]:
    """Query for the ids of the rules on DIDs or anything above them, and of those that have yet to look at one of these.

    What is detached from a collection that was itself detached before is in no rule's contents any more: only that the
    rule has yet to look at the collection leads to it. It waits for a rule that is being taken away at this moment, and
    passes it over.
    """
    above = select(ancestors(ids).c.id)
    on_them = select(rules.c.id).where(rules.c.did_id.in_(above))
    looking = select(evaluation_items.c.rule_id).where(_IS_LOOKED_AT, evaluation_items.c.did_id.in_(above))
    return (
        select(rules.c.id)
        .where(rules.c.id.in_(on_them.union(looking)))
        .order_by(rules.c.id)
        .with_for_update(read=True, key_share=True, of=rules)
    )


def rules_above_each(ids: Iterable[int]) -> Subquery:
    """What `rules_above` finds, each with the DID that it is above: ``parent_id`` and ``rule_id``."""
    up = (
        select(dids.c.id.label("parent_id"), dids.c.id.label("id"))
        .where(dids.c.id.in_(list(ids)))
        .cte("above_each", recursive=True)
    )
    up = up.union(select(up.c.parent_id, contents.c.parent_id).join(contents, contents.c.child_id == up.c.id))
    on_them = select(up.c.parent_id, rules.c.id.label("rule_id")).join(rules, rules.c.did_id == up.c.id)
    looking = (
        select(up.c.parent_id, evaluation_items.c.rule_id)
        .join(evaluation_items, evaluation_items.c.did_id == up.c.id)
        .where(_IS_LOOKED_AT)
    )
    return on_them.union(looking).subquery("rules_above_each")
