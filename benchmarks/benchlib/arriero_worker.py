"""Arriero's side in core: the registry's services in a process of their own, without HTTP.

usage: arriero_worker.py DATABASE_URL
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from sqlalchemy import select

from arriero.registry import migrate
from arriero.registry.database import Database
from arriero.registry.ports import SilentDoorbell
from arriero.registry.schema.tables import accounts as account_table
from arriero.registry.services import accounts, contents, did_lists, dids, metadata, replica_lists, rses
from arriero.registry.services.bootstrap import bootstrap
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.new_replicas import NewReplica
from arriero.registry.services.replica_lines import list_replica_lines
from arriero.registry.services.replicas import add_replicas
from arriero.registry.services.rse_protocols import add_protocol
from arriero.registry.settings import Settings
from arriero.registry.states import Role
from benchlib import data
from benchlib.lines import serve
from benchlib.stopwatch import Stopwatch

URL = sys.argv[1]
EVERYTHING = {"read": 1, "write": 1, "delete": 1}


class Side:
    """What the commands work with."""

    def __init__(self) -> None:
        self.use(URL)

    def use(self, url: str) -> None:
        """Work with this database."""
        self.url = url
        self.database = Database(url)
        self.context = Context(self.database, Settings(), SilentDoorbell())

    def actor(self) -> Actor:
        with self.database.snapshot() as connection:
            root = connection.scalar(select(account_table.c.id).where(account_table.c.name == "root"))
        assert root is not None
        return Actor(root, "root", Role.ADMIN)


side = Side()


def set_up() -> None:
    migrate.upgrade(side.url)
    bootstrap(side.database, "ddmlab", "secret")
    root = side.actor()
    accounts.add_scope(side.context, root, "root", data.SCOPE)
    rses.add_rse(side.context, root, data.RSE, {})
    protocol = {
        "hostname": "slac-disk.example.org",
        "port": 1094,
        "prefix": "/data/",
        "domains": {"lan": EVERYTHING, "wan": EVERYTHING},
    }
    add_protocol(side.context, root, data.RSE, "davs", protocol)


def register(prefix: str, start: int, count: int, chunk: int) -> dict[str, object]:
    root, watch = side.actor(), Stopwatch()
    for numbers in data.chunks(start, count, chunk):
        files = [
            NewReplica(data.SCOPE, data.name(prefix, i), data.size(i), adler32=data.ADLER32) for i in numbers
        ]
        with watch:
            add_replicas(side.context, root, data.RSE, files)
    return watch.report(count)


def attach(prefix: str, start: int, count: int, chunk: int, dataset: str) -> dict[str, object]:
    root, watch = side.actor(), Stopwatch()
    dids.add_collections(side.context, root, [dids.NewCollection(data.SCOPE, dataset, "DATASET")])
    for numbers in data.chunks(start, count, chunk):
        held = [contents.Child(data.SCOPE, data.name(prefix, i)) for i in numbers]
        with watch:
            contents.attach(side.context, root, [contents.Attachment(data.SCOPE, dataset, held)])
    return watch.report(count)


def _digest(rows: Iterable[dict[str, Any]]) -> int:
    return sum(data.digest_of(row["name"], row["bytes"], row["adler32"]) for row in rows)


def _listed(dataset: str) -> Iterator[dict[str, Any]]:
    return did_lists.list_files(side.context, data.SCOPE, dataset)


def list_files(dataset: str, most: int | None, digest: bool) -> dict[str, object]:
    watch, count = Stopwatch(), 0
    with watch:
        for _ in islice(_listed(dataset), most):
            count += 1
    return watch.report(count, digest=_digest(_listed(dataset)) if digest else None)


def _replicas(dataset: str) -> Iterator[dict[str, Any]]:
    return replica_lists.list_replicas(side.context, replica_lists.ReplicaQuery([(data.SCOPE, dataset)]))


def list_replicas(dataset: str, most: int | None, digest: bool) -> dict[str, object]:
    watch, count, pfns, first = Stopwatch(), 0, 0, 0.0
    began = time.perf_counter()
    query = replica_lists.ReplicaQuery([(data.SCOPE, dataset)])
    with watch:
        # as the service sends them: what makes the lines is part of it
        for lines in list_replica_lines(side.context, query):
            first = first or time.perf_counter() - began
            count += lines.count(b"\n")
            pfns += lines.count(b'"client_extract"')
            if most is not None and count >= most:
                break
    found = _digest(_replicas(dataset)) if digest else None
    return watch.report(count, pfns=pfns, digest=found, first_s=first)


def set_meta(prefix: str, start: int, count: int, chunk: int) -> dict[str, object]:
    root, watch = side.actor(), Stopwatch()
    for numbers in data.chunks(start, count, chunk):
        changes = [(data.SCOPE, data.name(prefix, i), data.meta(i)) for i in numbers]
        with watch:
            metadata.set_metadata(side.context, root, changes)
    return watch.report(count)


def search(filters: str) -> dict[str, object]:
    watch = Stopwatch()
    with watch:
        rows = did_lists.search(
            side.context, data.SCOPE, filters=filters, did_type="file", long=False, recursive=False
        )
        found = sum(1 for _ in rows)
    return watch.report(1, found=found)


def analyze() -> None:
    with side.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


COMMANDS: dict[str, Callable[..., Any]] = {
    "set_up": set_up,
    "register": register,
    "attach": attach,
    "list_files": list_files,
    "list_replicas": list_replicas,
    "set_meta": set_meta,
    "search": search,
    "analyze": analyze,
}

if __name__ == "__main__":
    serve(COMMANDS)
