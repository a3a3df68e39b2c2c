"""Finding what a call names, with one error for what is not there."""

from collections.abc import Iterable

from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import NotFound
from arriero.registry.store import dids as store


def did_missing(scope: str, name: str) -> NotFound:
    """Error for a DID that is not there."""
    return NotFound(
        f"there is no DID {scope[:40]}:{name[:200]}: see `arriero did list {scope[:40]}:*`",
        rucio_class="DataIdentifierNotFound",
    )


def scope_missing(scope: str) -> NotFound:
    """Error for a scope that is not there."""
    return NotFound(f"there is no scope {scope[:40]!r}: add it first", rucio_class="ScopeNotFound")


def require_dids(
    connection: Connection, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], RowMapping]:
    """Give DIDs by (scope, name), with the names of their scope and account.

    Raises
    ------
    NotFound
        One is not there.
    """
    wanted = list(keys)
    rows = store.find_dids(connection, wanted)
    for scope, name in wanted:
        if (scope, name) not in rows:
            raise did_missing(scope, name)
    return rows


def require_did(connection: Connection, scope: str, name: str) -> RowMapping:
    """Give one DID.

    Raises
    ------
    NotFound
        It is not there.
    """
    return require_dids(connection, [(scope, name)])[scope, name]


def require_scopes(connection: Connection, names: Iterable[str]) -> dict[str, store.Scope]:
    """Give scopes by name.

    Raises
    ------
    NotFound
        One is not there.
    """
    wanted = list(dict.fromkeys(names))
    known = store.scopes_by_name(connection, wanted)
    for name in wanted:
        if name not in known:
            raise scope_missing(name)
    return known
