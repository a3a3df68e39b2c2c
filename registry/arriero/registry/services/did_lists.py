"""Lists of data identifiers: found by filters, held by collections, above and below others. All of them stream."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import RowMapping

from arriero.registry.dialect import prefer_indexes
from arriero.registry.errors import InvalidInput, NotFound
from arriero.registry.services.context import Context
from arriero.registry.services.did_filters import read_filters
from arriero.registry.services.lookups import did_missing, require_did, require_dids, require_scopes
from arriero.registry.services.metadata import check_number
from arriero.registry.states import DidType
from arriero.registry.store import contents as tree
from arriero.registry.store import did_search, erasure
from arriero.registry.store.did_sets import numbered
from arriero.registry.store.streaming import streamed

MAX_DEPTH = 20
"""Levels of collections that a list goes down."""


def search(
    context: Context,
    scope: str,
    *,
    filters: str | None,
    did_type: str,
    long: bool,
    recursive: bool,
    behind: str | None = None,
    limit: int | None = None,
) -> Iterator[Any]:
    """Find DIDs of a scope, in the order of their names.

    Parameters
    ----------
    filters
        Rucio's: a list of mappings, any of which may fit, written as JSON or as a Python literal.
    did_type
        ``all``, ``collection``, ``dataset``, ``container`` or ``file``.
    long
        Give scope, name and type instead of the name only.
    recursive
        Also what lies below the collections that are found.
    behind, limit
        A page: at most so many names, behind this one.

    Raises
    ------
    InvalidInput
        The filters cannot be read.
    NotFound
        There is no such scope.
    """
    groups = read_filters(filters, did_type)
    if recursive and behind is not None:
        raise InvalidInput("a recursive list has no pages: its names are of several scopes")
    with context.database.snapshot() as connection:
        scope_id = require_scopes(connection, [scope])[scope].id
        if did_search.is_served_by_index(groups):
            prefer_indexes(connection)
        query = did_search.search(
            connection, scope_id, groups, recursive=recursive, behind=behind, limit=limit
        )
        with streamed(connection, query) as rows:
            for row in rows:
                yield _found(row) if long else row["name"]


def _found(row: RowMapping) -> dict[str, Any]:
    return {
        "scope": row["scope"],
        "name": row["name"],
        "did_type": row["type"],
        "bytes": row["bytes"],
        "length": 1 if row["type"] is DidType.FILE else None,
    }


def scope_list(
    context: Context, scope: str, *, name: str | None, recursive: bool
) -> Iterator[dict[str, Any]]:
    """List a scope from the top: what nothing of it holds, or what one DID of it holds.

    Parameters
    ----------
    name
        Of the DID whose contents are wanted; None: the top of the scope.
    recursive
        Down to the files.
    """
    with context.database.snapshot() as connection:
        scope_id = require_scopes(connection, [scope])[scope].id
        if name is not None:
            row = require_did(connection, scope, name)
            depth = MAX_DEPTH if recursive else 1
            with streamed(connection, tree.levels_below(row["id"], depth=depth)) as below:
                yield from map(_level, below)
            return
        with streamed(connection, tree.tops_of(scope_id)) as tops:
            for top in tops:
                yield {
                    "scope": scope,
                    "name": top["name"],
                    "type": top["type"],
                    "parent": None,
                    "level": 0,
                    "bytes": top["bytes"],
                }
                if recursive and top["type"] is not DidType.FILE:
                    with streamed(connection, tree.levels_below(top["id"], depth=MAX_DEPTH)) as below:
                        yield from map(_level, below)


def _level(row: RowMapping) -> dict[str, Any]:
    return {
        "scope": row["scope"],
        "name": row["name"],
        "type": row["type"],
        "parent": {"scope": row["parent_scope"], "name": row["parent_name"]},
        "level": row["level"],
        "bytes": row["bytes"],
    }


def list_content(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """List what a collection holds directly."""
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        with streamed(connection, tree.children_of(row["id"])) as children:
            for child in children:
                yield dict(child)


def list_content_history(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """List what a collection holds and has held, also one that was erased; ``deleted_at`` of what it holds is None.

    Raises
    ------
    NotFound
        There never was such a DID.
    """
    with context.database.snapshot() as connection:
        ids = erasure.ids_ever(connection, scope, name)
        if not ids:
            raise did_missing(scope, name)
        with streamed(connection, erasure.contents_ever(ids)) as rows:
            for row in rows:
                yield {
                    "scope": row["scope"],
                    "name": row["name"],
                    "type": row["type"],
                    "bytes": row["bytes"],
                    "adler32": row["adler32"],
                    "md5": row["md5"],
                    "created_at": row["attached_at"],
                    "updated_at": row["detached_at"] or row["attached_at"],
                    "deleted_at": row["detached_at"],
                }


def list_files(context: Context, scope: str, name: str, *, long: bool = False) -> Iterator[dict[str, Any]]:
    """List the files that a DID is or holds, at any depth, each once.

    Parameters
    ----------
    long
        With what their metadata say of ``guid``, ``events`` and ``lumiblocknr``.
    """
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        query = tree.files_below([row["id"]])
        with streamed(connection, tree.with_metadata(query) if long else query) as files:
            for file in files:
                yield _file(file)


def list_files_of_many(context: Context, dids: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """List the files that DIDs are or hold, at any depth, each once for each DID, which it names as its parent.

    Raises
    ------
    NotFound
        A DID is not there.
    """
    check_number(context, dids)
    wanted = list(dict.fromkeys(dids))
    with context.database.snapshot() as connection:
        found = require_dids(connection, wanted)
        roots = numbered(connection, [found[key]["id"] for key in wanted])
        with streamed(connection, tree.files_below_each(roots)) as files:
            for file in files:
                scope, name = wanted[file["root"]]
                yield {"parent_scope": scope, "parent_name": name, **_file(file)}


def _file(file: RowMapping) -> dict[str, Any]:
    meta = file.get("meta") or {}
    return {
        "scope": file["scope"],
        "name": file["name"],
        "bytes": file["bytes"],
        "adler32": file["adler32"],
        "md5": file["md5"],
        "guid": meta.get("guid"),
        "events": meta.get("events"),
        "lumiblocknr": meta.get("lumiblocknr"),
    }


def list_parents(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """List the collections that hold a DID directly."""
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        with streamed(connection, tree.parents_of(row["id"])) as parents:
            for parent in parents:
                yield dict(parent)


def datasets_of_guid(context: Context, guid: str) -> Iterator[dict[str, Any]]:
    """List the datasets that hold the file whose metadata have this ``guid``.

    Raises
    ------
    NotFound
        There is none.
    """
    nothing = True
    with context.database.snapshot() as connection:
        with streamed(connection, tree.datasets_with(connection, "guid", guid)) as rows:
            for row in rows:
                nothing = False
                yield dict(row)
        if nothing:
            raise NotFound(
                f"no dataset holds a file with guid {guid[:64]!a}", rucio_class="DataIdentifierNotFound"
            )
