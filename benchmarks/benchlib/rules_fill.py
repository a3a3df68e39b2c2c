"""Fills Arriero's tables with files, and with the bare rows of a rule: the physical limit of evaluating one."""

import time

import psycopg

from benchlib import data

_FILES = f"""
INSERT INTO dids (scope_id, name, type, account_id, is_open, monotonic, bytes, adler32, spread, created_at, updated_at)
SELECT s.id, {data.NAME_IN_SQL.replace("%", "%%")}, 'FILE', s.account_id, false, false, {data.FIRST_BYTES} + i, '{data.ADLER32}',
  hashint8(i) & 2147483647, now(), now()
FROM scopes s, generate_series(%(first)s::bigint, %(last)s) i WHERE s.name = '{data.SCOPE}' ORDER BY i
"""  # noqa: S608 - constants of this benchmark
_REPLICAS = f"""
INSERT INTO replicas (file_id, rse_id, bytes, state, created_at, updated_at)
SELECT d.id, r.id, d.bytes, 'AVAILABLE', now(), now()
FROM dids d, rses r WHERE d.id > %(before)s AND d.type = 'FILE' AND r.name = '{data.RSE}' ORDER BY d.id
"""  # noqa: S608
_COLLECTIONS = f"""
INSERT INTO dids (scope_id, name, type, account_id, is_open, monotonic, spread, created_at, updated_at)
SELECT s.id, %(prefix)s || CASE WHEN %(count)s::int = 1 THEN '' ELSE lpad(i::text, 6, '0') END, %(type)s, s.account_id, true, false, 0, now(), now()
FROM scopes s, generate_series(0, %(count)s::int - 1) i WHERE s.name = '{data.SCOPE}' ORDER BY i RETURNING id
"""  # noqa: S608
_CONTENTS = """
INSERT INTO contents (parent_id, child_id, created_at)
SELECT %(parent)s + (row_number() OVER (ORDER BY id) - 1) / %(each)s, id, now()
FROM dids WHERE id > %(before)s AND id <= %(last)s AND type = %(type)s ORDER BY id
"""

Connection = psycopg.Connection[tuple[int, ...]]


def fill(url: str, prefix: str, count: int, *, dataset: str | None = None, start: int = 0) -> None:
    """Lay files with a replica each, in a dataset or loose.

    Parameters
    ----------
    url
        A database with Arriero's schema, the benchmark's scope and its RSEs.
    """
    with psycopg.connect(url) as connection:
        before = _last_id(connection)
        values = {"first": start, "last": start + count - 1, "before": before}
        connection.execute(_FILES.replace("{prefix}", prefix).encode(), values)
        connection.execute(_REPLICAS.encode(), values)
        if dataset is not None:
            _collect(connection, before, dataset, count, 1)


def fill_container(url: str, dataset: str, container: str, *, datasets: int, files: int) -> None:
    """Lay a container of datasets that hold the files of a dataset that is there, so many each, in their order."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT id FROM dids WHERE name = %s", [dataset]).fetchone()
        assert found is not None
        before = _last_id(connection)
        first = _collections(connection, f"{container}.", "DATASET", datasets)
        connection.execute(
            "INSERT INTO contents (parent_id, child_id, created_at) "
            "SELECT %s + (row_number() OVER (ORDER BY child_id) - 1) / %s, child_id, now() "
            "FROM contents WHERE parent_id = %s ORDER BY child_id LIMIT %s",
            [first, files, found[0], datasets * files],
        )
        _collect(connection, before, container, datasets, 1, kind="CONTAINER")


def _collect(
    connection: Connection, before: int, prefix: str, each: int, count: int, *, kind: str = "DATASET"
) -> None:
    last = _last_id(connection)
    parent = _collections(connection, prefix, kind, count)
    child = "FILE" if kind == "DATASET" else "DATASET"
    values = {"parent": parent, "each": each, "before": before, "last": last, "type": child}
    connection.execute(_CONTENTS.encode(), values)


def _collections(connection: Connection, prefix: str, kind: str, count: int) -> int:
    values = {"prefix": prefix, "type": kind, "count": count}
    return min(row[0] for row in connection.execute(_COLLECTIONS.encode(), values))


def _last_id(connection: Connection) -> int:
    found = connection.execute("SELECT coalesce(max(id), 0) FROM dids").fetchone()
    assert found is not None
    return found[0]


_LIMIT = """
INSERT INTO locks (rule_id, file_id, rse_id, bytes, state, created_at)
SELECT %(rule)s, d.id, %(rse)s, d.bytes, 'REPLICATING', now()
FROM contents c JOIN dids d ON d.id = c.child_id WHERE c.parent_id = %(dataset)s ORDER BY d.id;
INSERT INTO replicas (file_id, rse_id, bytes, state, created_at, updated_at)
SELECT d.id, %(rse)s, d.bytes, 'COPYING', now(), now()
FROM contents c JOIN dids d ON d.id = c.child_id WHERE c.parent_id = %(dataset)s ORDER BY d.id;
INSERT INTO requests
  (type, file_id, destination_id, rule_id, bytes, activity, priority, state, attempt, not_before, fence, created_at)
SELECT 'TRANSFER', d.id, %(rse)s, %(rule)s, d.bytes, 'User Subscriptions', 3, 'QUEUED', 0, now(), 0, now()
FROM contents c JOIN dids d ON d.id = c.child_id WHERE c.parent_id = %(dataset)s ORDER BY d.id
"""


def insert_rows(url: str, dataset: str, rse: str) -> dict[str, float]:
    """Insert the rows of a rule on a dataset of which every file lacks one copy, in one commit, and time it."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT d.id, r.id, (SELECT count(*) FROM contents c WHERE c.parent_id = d.id) "
            "FROM dids d, rses r WHERE d.name = %s AND r.name = %s",
            [dataset, rse],
        ).fetchone()
        assert found is not None
        connection.commit()
        values = {"dataset": found[0], "rse": found[1], "rule": -found[0]}
        began = time.perf_counter()
        with connection.cursor() as cursor:
            for statement in _LIMIT.split(";"):
                cursor.execute(statement.encode(), values)
                if cursor.rowcount != found[2]:
                    raise RuntimeError(f"{cursor.rowcount} rows instead of {found[2]}")
        connection.commit()
        return {"n": found[2], "seconds": time.perf_counter() - began}
