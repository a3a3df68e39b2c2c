"""The hot tables can be partitioned as they are: same keys, same indexes, same statements.

Twice: new tables by hash, and the tables of a running catalogue in place, with the very SQL of
``docs/operations/scaling.md``, which rewrites no row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from arriero.registry import migrate
from arriero.registry.database import Database
from arriero.registry.schema.tables import contents, locks, replicas, requests
from arriero.registry.services.replica_lines import list_replica_lines
from arriero.registry.services.replica_lists import ReplicaQuery
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import RuleGrouping
from arriero.scheduler.evaluate import Evaluator
from support.database import migrated_database
from support.in_process import InProcess
from support.services import drop_database

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations" / "scaling.md"
HOT = ("contents", "locks", "replicas")
HASHED = {"replicas": "rse_id", "contents": "parent_id", "locks": "file_id"}
NAMES = [f"file-{number:04d}" for number in range(300)]


def in_place() -> list[str]:
    """The statements of the page."""
    blocks = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [statement for block in blocks for statement in block.split(";\n") if statement.strip()]


def by_hash() -> list[str]:
    made = []
    for table, column in HASHED.items():
        made += [
            f"ALTER TABLE {table} RENAME TO {table}_before",
            f"CREATE TABLE {table} (LIKE {table}_before INCLUDING ALL) PARTITION BY HASH ({column})",
            *(
                f"CREATE TABLE {table}_{number} PARTITION OF {table}"
                f" FOR VALUES WITH (MODULUS 4, REMAINDER {number})"
                for number in range(4)
            ),
            f"DROP TABLE {table}_before",
        ]
    return made


def run(url: str, statements: list[str]) -> None:
    database = Database(url)
    with database.transaction() as connection:
        for statement in statements:
            connection.execute(text(statement))
    database.dispose()


@pytest.fixture
def url(services, tmp_path) -> Iterator[str]:
    made = migrated_database(services, "postgresql", tmp_path)
    yield made
    drop_database(services, made)


def prepare(url: str) -> InProcess:
    site = InProcess(url)
    site.scope("raw")
    for name in ("SLAC", "IN2P3", "RAL"):
        site.rse(name)
    site.rse("BUTLER", algorithm="lsst_butler")
    return site


def work(site: InProcess, name: str, files: list[str]) -> None:
    """Register, register again, attach, list, ask for copies, evaluate: nothing of it knows of partitions."""
    site.files("SLAC", files)
    site.files("SLAC", files)
    site.files("BUTLER", files[:10])
    site.dataset(name, files)
    wanted = ReplicaQuery([("raw", name)])
    lines = b"".join(list_replica_lines(site.context, wanted)).decode().splitlines()
    assert {json.loads(line)["name"] for line in lines} == set(files)
    assert sum(len(json.loads(line)["pfns"]) for line in lines) == len(files) + 10
    before = site.count(locks), site.count(requests)
    spec = RuleSpec("IN2P3|RAL", copies=2, grouping=RuleGrouping.NONE)
    add_rules(site.context, site.root, spec, [("raw", name)])
    Evaluator(site.context).run()
    assert (site.count(locks), site.count(requests)) == (
        before[0] + 2 * len(files),
        before[1] + 2 * len(files),
    )


def rows_by_partition(site: InProcess, table) -> dict[str, int]:
    query = select(text("tableoid::regclass::text"), func.count()).select_from(table).group_by(text("1"))
    with site.database.snapshot() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}


def test_new_tables_by_hash(url):
    run(url, by_hash())
    site = prepare(url)
    work(site, "night", NAMES)
    work(site, "next", [f"next-{name}" for name in NAMES])
    for table in (locks, replicas):
        assert len(rows_by_partition(site, table)) >= 2
    site.close()


def test_a_running_catalogue_in_place_without_rewriting_a_row(url):
    site = prepare(url)
    work(site, "before", NAMES[:100])
    nodes = text("SELECT relname, relfilenode FROM pg_class WHERE relname = ANY(:names) ORDER BY relname")
    with site.database.snapshot() as connection:
        before = [row[1] for row in connection.execute(nodes, {"names": list(HOT)})]
    site.database.dispose()
    run(url, in_place())
    with site.database.snapshot() as connection:
        after = [row[1] for row in connection.execute(nodes, {"names": [f"{name}_first" for name in HOT]})]
    assert after == before
    migrate.compare(url)
    # the RSE that the page makes a partition for
    site.rse("LARGE")
    work(site, "after", [f"after-{name}" for name in NAMES])
    site.files("LARGE", NAMES)
    assert rows_by_partition(site, replicas)["replicas_5"] == len(NAMES)
    assert site.count(contents) == 100 + len(NAMES)
    site.close()
