"""Datasets that rules have all of at an RSE, told once each: Rucio's DATASETLOCK_OK (docs/adr/0018).

Who calls holds the rows of the rules, so that of two transactions that bring the last files of a dataset the second sees
what the first has done. A candidate is noted, dropped if something of it is missing, and told of if it is left: the
same few statements for any number. What was told is kept, so that it is not told again before it has changed.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Exists,
    FromClause,
    Integer,
    MetaData,
    Select,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
)

from arriero.registry.dialect import id_rows, interpret, use_temporary_table
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    complete_datasets,
    contents,
    dataset_locks,
    dids,
    evaluation_items,
    locks,
    rses,
    rules,
    scopes,
)
from arriero.registry.states import DidType, EvaluationItem, RuleGrouping
from arriero.registry.store import events

DATASETLOCK_OK = "DATASETLOCK_OK"

ALWAYS, WHEN_CLOSED = "Y", "C"
"""Letters of the rules whose owners are told of datasets."""

_GLANCE = 100
"""Missing files among which one of the dataset is looked for before the dataset itself is read."""

candidates = Table(
    "complete_candidates",
    MetaData(),
    Column("rule_id", BigInteger, nullable=False),
    Column("dataset_id", BigInteger, nullable=False),
    Column("rse_id", Integer, nullable=False),
    prefixes=["TEMPORARY"],
)

_KEY = ("rule_id", "dataset_id", "rse_id")


def note_datasets(connection: Connection, held: Select[Any]) -> None:
    """Note datasets that may be complete.

    Parameters
    ----------
    held
        Query for the ids of a rule, of a dataset of which it has got something, and of the RSE where. Those that the rule has
        not placed there as a whole are passed over.
    """
    got = held.distinct().cte("got")
    above = select(got.c.dataset_id, got.c.dataset_id.label("id")).distinct().cte("above", recursive=True)
    above = above.union(
        select(above.c.dataset_id, contents.c.parent_id).join(contents, contents.c.child_id == above.c.id)
    )
    # with grouping ALL a container is placed as a whole, and with it each dataset below
    placed = (
        select(got.c.rule_id, got.c.dataset_id, got.c.rse_id)
        .join(above, above.c.dataset_id == got.c.dataset_id)
        .join(
            dataset_locks,
            and_(
                dataset_locks.c.rule_id == got.c.rule_id,
                dataset_locks.c.group_id == above.c.id,
                dataset_locks.c.rse_id == got.c.rse_id,
            ),
        )
        .distinct()
    )
    _note(connection, placed.subquery("placed"))


def note_all(connection: Connection, rule_ids: list[int]) -> None:
    """Note every dataset that rules have placed."""
    child = dids.alias("child")
    down = (
        select(dataset_locks.c.rule_id, dataset_locks.c.rse_id, dids.c.id.label("dataset_id"), dids.c.type)
        .join(dids, dids.c.id == dataset_locks.c.group_id)
        .where(dataset_locks.c.rule_id.in_(id_rows(connection, rule_ids)))
        .cte("down", recursive=True)
    )
    down = down.union(
        select(down.c.rule_id, down.c.rse_id, child.c.id, child.c.type)
        .join(contents, contents.c.parent_id == down.c.dataset_id)
        .join(child, child.c.id == contents.c.child_id)
        .where(down.c.type == DidType.CONTAINER)
    )
    _note(connection, down)


def note_dataset(connection: Connection, dataset_id: int, rule_ids: list[int]) -> None:
    """Note one dataset, wherever some of the rules on it or above it have placed it."""
    above = select(dids.c.id).where(dids.c.id == dataset_id).cte("above", recursive=True)
    above = above.union(select(contents.c.parent_id).join(above, contents.c.child_id == above.c.id))
    placed = (
        select(dataset_locks.c.rule_id, dids.c.id.label("dataset_id"), dataset_locks.c.rse_id)
        .join(above, above.c.id == dataset_locks.c.group_id)
        .join(dids, dids.c.id == dataset_id)
        .where(dataset_locks.c.rule_id.in_(id_rows(connection, rule_ids)))
        .distinct()
    )
    _note(connection, placed.subquery("placed"))


def _note(connection: Connection, found: FromClause) -> None:
    """Note those of which the owner wants to be told, and has not been."""
    use_temporary_table(connection, candidates)
    told = exists().where(*(complete_datasets.c[key] == found.c[key] for key in _KEY))
    dataset = dids.alias("dataset")
    wanted = (
        select(*(found.c[key] for key in _KEY))
        .join(rules, rules.c.id == found.c.rule_id)
        .join(dataset, dataset.c.id == found.c.dataset_id)
        .where(
            dataset.c.type == DidType.DATASET,
            rules.c.grouping != RuleGrouping.NONE,
            or_(
                rules.c.notification == ALWAYS,
                and_(rules.c.notification == WHEN_CLOSED, ~dataset.c.is_open),
            ),
            ~told,
        )
    )
    connection.execute(insert(candidates).from_select(list(_KEY), wanted))


def drop_incomplete(connection: Connection) -> None:
    """Drop the candidates of which something is missing, or has not been looked at yet."""
    interpret(connection)
    connection.execute(delete(candidates).where(or_(_is_missing(), _is_to_be_looked_at())))


def _is_missing() -> ColumnElement[bool]:
    """Condition that a lock of the dataset's files at the RSE is not OK.

    Read from what the rule misses, of which mostly the first is of the dataset or none is left at all. Only if many are
    left, and the first hundred are of others, is the dataset read.
    """
    first, last = (
        select(extreme(contents.c.child_id))
        .where(contents.c.parent_id == candidates.c.dataset_id)
        .correlate(candidates)
        .scalar_subquery()
        for extreme in (func.min, func.max)
    )
    # written out: the index is of just these
    missing = and_(
        locks.c.rule_id == candidates.c.rule_id,
        locks.c.rse_id == candidates.c.rse_id,
        locks.c.state != literal_column("'OK'"),
    )
    glance = (
        select(locks.c.file_id)
        .where(missing, locks.c.file_id.between(first, last))
        .correlate(candidates)
        .order_by(locks.c.file_id)
        .limit(_GLANCE)
    )
    seen, all_seen = glance.subquery("seen"), glance.subquery("all_seen")
    found = (
        select(seen.c.file_id)
        .where(_is_in_the_dataset(seen.c.file_id).correlate(candidates, seen))
        .correlate(candidates)
        .limit(1)
        .scalar_subquery()
    )
    count = select(func.count()).select_from(all_seen).correlate(candidates).scalar_subquery()
    anywhere = (
        select(contents.c.child_id)
        .where(
            contents.c.parent_id == candidates.c.dataset_id,
            exists().where(missing, locks.c.file_id == contents.c.child_id).correlate(candidates, contents),
        )
        .correlate(candidates)
        .limit(1)
        .scalar_subquery()
    )
    which = case(
        (found.is_not(None), 1),
        (count < _GLANCE, 0),
        (anywhere.is_not(None), 1),
        else_=0,
    )
    return which == 1


def _is_to_be_looked_at() -> ColumnElement[bool]:
    """Condition that an evaluation that is to come may find that something of the dataset is missing."""
    kind, did_id = evaluation_items.c.kind, evaluation_items.c.did_id
    of_the_dataset = _is_in_the_dataset(did_id).correlate(candidates, evaluation_items)
    due = exists().where(
        evaluation_items.c.rule_id == candidates.c.rule_id,
        or_(
            kind == EvaluationItem.CONTAINER,
            and_(kind == EvaluationItem.DATASET, did_id == candidates.c.dataset_id),
            and_(kind == EvaluationItem.FILE, of_the_dataset),
        ),
    )
    return due.correlate(candidates)


def _is_in_the_dataset(file_id: ColumnElement[int]) -> Exists:
    return exists().where(contents.c.parent_id == candidates.c.dataset_id, contents.c.child_id == file_id)


def tell(connection: Connection) -> None:
    """Tell of the candidates that are left, and keep that it was told."""
    rows = connection.execute(
        select(
            rules.c.uuid,
            scopes.c.name.label("scope"),
            dids.c.name,
            rses.c.id.label("rse_id"),
            rses.c.name.label("rse"),
        )
        .select_from(candidates)
        .join(rules, rules.c.id == candidates.c.rule_id)
        .join(dids, dids.c.id == candidates.c.dataset_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(rses, rses.c.id == candidates.c.rse_id)
        .order_by(*(candidates.c[key] for key in _KEY))
    ).all()
    if not rows:
        return
    told = select(*(candidates.c[key] for key in _KEY), now()).order_by(*(candidates.c[key] for key in _KEY))
    connection.execute(
        insert(complete_datasets).from_select([*_KEY, "created_at"], told, include_defaults=False)
    )
    keyed = [
        (
            f"rule:{row.uuid}",
            {
                "scope": row.scope,
                "name": row.name,
                "rse": row.rse,
                "rse_id": str(row.rse_id),
                "rule_id": row.uuid.hex,
            },
        )
        for row in rows
    ]
    events.append(connection, DATASETLOCK_OK, keyed)


def forget(connection: Connection, rule_id: int, lacking: Select[Any]) -> None:
    """Forget what was told of the datasets of files that a rule lacks: it is told again when they are there.

    Parameters
    ----------
    lacking
        Query for the id of a file and of the RSE where its lock is not OK, or is no more.
    """
    lost = lacking.subquery("lost")
    file_id, rse_id = lost.c
    affected = select(contents.c.parent_id, rse_id).join(contents, contents.c.child_id == file_id)
    connection.execute(
        delete(complete_datasets).where(
            complete_datasets.c.rule_id == rule_id,
            tuple_(complete_datasets.c.dataset_id, complete_datasets.c.rse_id).in_(affected),
        )
    )
