"""Where replicas lie at RSEs whose paths do not follow from names."""

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, and_, select

from arriero.registry.pages import pages_of
from arriero.registry.schema.tables import dids, replicas, scopes
from arriero.registry.store.dids import KEYS_A_STATEMENT, find_dids
from arriero.registry.store.staging import staged_files


def path_taken(connection: Connection, rse_id: int) -> RowMapping | None:
    """First staged file whose path at an RSE belongs to the replica of another file."""
    query = (
        select(staged_files.c.name, staged_files.c.path, scopes.c.name.label("scope"))
        .select_from(staged_files)
        .join(
            replicas,
            and_(
                replicas.c.rse_id == rse_id,
                replicas.c.path == staged_files.c.path,
                replicas.c.file_id != staged_files.c.file_id,
            ),
        )
        .join(dids, dids.c.id == replicas.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .limit(1)
    )
    return connection.execute(query).mappings().one_or_none()


def stored_paths(
    connection: Connection, rse_id: int, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """Paths at an RSE where they do not follow from names, by (scope, name); files without a replica there are not in it."""
    files = {row["id"]: key for key, row in find_dids(connection, keys).items()}
    found: dict[tuple[str, str], str] = {}
    for chunk in pages_of(files, KEYS_A_STATEMENT):
        query = select(replicas.c.file_id, replicas.c.path).where(
            replicas.c.rse_id == rse_id, replicas.c.file_id.in_(chunk), replicas.c.path.is_not(None)
        )
        found.update((files[row.file_id], row.path) for row in connection.execute(query))
    return found
