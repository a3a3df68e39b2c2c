"""Files and their replicas a page at a time, in the order of the ids of the files.

A page is a range of ids that was settled beforehand, so each is read by itself: in any transaction, once, with the same
statement. What a list covers is resolved once; the pages read the datasets that were found then.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    Subquery,
    and_,
    func,
    select,
    type_coerce,
    union,
)

from arriero.registry.dialect import id_rows
from arriero.registry.schema.tables import contents, dids, replicas, scopes
from arriero.registry.states import DidType, ReplicaState
from arriero.registry.store.contents import collections_below

FILES_A_PAGE = 5000


@dataclass(frozen=True, slots=True)
class Covered:
    """What a list covers: files by themselves, and those that datasets hold."""

    files: tuple[int, ...]
    datasets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Files with ids above one and up to another; None: no end."""

    above: int
    upto: int | None

    def holds(self, column: ColumnElement[int]) -> ColumnElement[bool]:
        """Condition that an id is in the page."""
        return column > self.above if self.upto is None else and_(column > self.above, column <= self.upto)


@dataclass(frozen=True, slots=True)
class Narrowing:
    """Which replicas of a file are looked at."""

    rse_ids: Collection[int] | None = None
    """None: at every RSE."""
    all_states: bool = False
    updated_after: datetime | None = None

    def holds(self) -> list[ColumnElement[bool]]:
        """Conditions on ``replicas``."""
        conditions: list[ColumnElement[bool]] = []
        if not self.all_states:
            conditions.append(replicas.c.state == ReplicaState.AVAILABLE)
        if self.rse_ids is not None:
            conditions.append(replicas.c.rse_id.in_(sorted(self.rse_ids)))
        if self.updated_after is not None:
            conditions.append(replicas.c.updated_at >= self.updated_after)
        return conditions


class ReplicaRow(NamedTuple):
    """A replica of a file as a page has it; of a file without one, the last three are None."""

    id: int
    scope: str
    name: str
    bytes: int | None
    adler32: str | None
    md5: str | None
    rse_id: int | None
    state: str | None
    path: str | None


def covered(connection: Connection, did_ids: Sequence[int]) -> Covered:
    """Resolve DIDs to files and datasets, at any depth, each once."""
    tree = collections_below(did_ids)
    rows = connection.execute(select(tree.c.id, tree.c.type).order_by(tree.c.id)).all()
    return Covered(
        files=tuple(row.id for row in rows if row.type is DidType.FILE),
        datasets=tuple(row.id for row in rows if row.type is DidType.DATASET),
    )


def pages(connection: Connection, what: Covered, *, size: int = FILES_A_PAGE) -> list[Page]:
    """Cut what a list covers into pages of ``size`` files; one statement, an id a page."""
    if not what.datasets:
        ends = list(what.files[size - 1 : -1 : size])
    else:
        below = file_ids(connection, what)
        place = func.row_number().over(order_by=below.c.id).label("place")
        numbered = select(below.c.id, place).subquery()
        query = select(numbered.c.id).where(numbered.c.place % size == 0).order_by(numbered.c.id)
        ends = list(connection.scalars(query))
    return [Page(above, upto) for above, upto in zip([0, *ends], [*ends, None], strict=True)]


def some_files(connection: Connection, what: Covered, narrowing: Narrowing, number: int) -> Covered:
    """Choose files at random among those that have a replica to show."""
    below = file_ids(connection, what)
    shown = select(replicas.c.file_id).where(replicas.c.file_id == below.c.id, *narrowing.holds())
    query = select(below.c.id).where(shown.exists()).order_by(func.random()).limit(number)
    return Covered(files=tuple(sorted(connection.scalars(query))), datasets=())


def file_ids(connection: Connection, what: Covered, page: Page | None = None) -> Subquery:
    """Ids of the files that a list covers, each once; one column ``id``.

    Parameters
    ----------
    page
        Only of this one. The range stands in each branch, and again at each table that is joined, where the planner
        does not carry it by itself: whatever it knows of the tables, it reads no more than the range.
    """
    branches: list[Select[tuple[int]]] = []
    if what.datasets:
        child = contents.c.child_id
        held = select(child.label("id"))
        if len(what.datasets) == 1:
            held = held.where(contents.c.parent_id == what.datasets[0])
        else:
            held = held.where(contents.c.parent_id.in_(id_rows(connection, what.datasets))).distinct()
        branches.append(held if page is None else held.where(page.holds(child)))
    if what.files or not branches:
        named = what.files
        if page is not None:
            named = tuple(
                one for one in named if one > page.above and (page.upto is None or one <= page.upto)
            )
        if named or not branches:
            branches.append(id_rows(connection, named))
    return (union(*branches) if len(branches) > 1 else branches[0]).subquery("below")


def replicas_of_page(
    connection: Connection, what: Covered, page: Page, narrowing: Narrowing
) -> Sequence[ReplicaRow]:
    """Read a page: a row for each replica, in the order of the files; a file without one has a row too.

    Returns
    -------
    rows
        They read as `ReplicaRow`. With ``updated_after``, files without a replica to show are left out.
    """
    below = file_ids(connection, what, page)
    shown = and_(replicas.c.file_id == dids.c.id, page.holds(replicas.c.file_id), *narrowing.holds())
    query = (
        select(
            dids.c.id,
            scopes.c.name.label("scope"),
            dids.c.name,
            dids.c.bytes,
            dids.c.adler32,
            dids.c.md5,
            replicas.c.rse_id,
            # the word as it is: to make it one of an enumeration costs as much as the rest of the row
            type_coerce(replicas.c.state, String),
            replicas.c.path,
        )
        .select_from(below)
        .join(dids, and_(dids.c.id == below.c.id, page.holds(dids.c.id)))
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(replicas, shown, isouter=narrowing.updated_after is None)
        .order_by(dids.c.id)
    )
    rows: Sequence[Any] = connection.execute(query).all()
    return rows


def parents_of_page(connection: Connection, what: Covered, page: Page) -> Iterator[tuple[int, str]]:
    """Everything above the files of a page: pairs of a file's id and ``scope:name``, in the order of the files."""
    below = file_ids(connection, what, page)
    up = (
        select(contents.c.child_id.label("file_id"), contents.c.parent_id.label("id"))
        .join(below, below.c.id == contents.c.child_id)
        .where(page.holds(contents.c.child_id))
        .cte("above", recursive=True)
    )
    up = up.union(
        select(up.c.file_id, contents.c.parent_id.label("id")).join(up, contents.c.child_id == up.c.id)
    )
    query: Any = (
        select(up.c.file_id, scopes.c.name, dids.c.name)
        .join(dids, dids.c.id == up.c.id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .order_by(up.c.file_id, scopes.c.name, dids.c.name)
    )
    for file_id, scope, name in connection.execute(query):
        yield file_id, f"{scope}:{name}"
