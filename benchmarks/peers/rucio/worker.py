"""Rucio's side in core: its core functions in a process of its own environment (Python with Rucio 41.5.1).

usage: RUCIO_HOME=HOME HOME/venv/bin/python worker.py
"""

import json
import sys
import time
import warnings
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
warnings.simplefilter("ignore")

from rucio.common.types import InternalAccount, InternalScope  # noqa: E402
from rucio.core import did as did_core  # noqa: E402
from rucio.core import replica as replica_core  # noqa: E402
from rucio.core import rse as rse_core  # noqa: E402
from rucio.core.account_limit import set_local_account_limit  # noqa: E402
from rucio.core.scope import add_scope  # noqa: E402
from rucio.db.sqla.constants import DatabaseOperationType, DIDType  # noqa: E402
from rucio.db.sqla.session import db_session, get_engine  # noqa: E402
from sqlalchemy import text  # noqa: E402

from benchlib import data  # noqa: E402
from benchlib.lines import serve  # noqa: E402
from benchlib.stopwatch import Stopwatch  # noqa: E402

ROOT = InternalAccount("root")
SCOPE = InternalScope(data.SCOPE)
EVERYTHING = {"read": 1, "write": 1, "delete": 1}


def set_up() -> None:
    with db_session(DatabaseOperationType.WRITE) as session:
        add_scope(SCOPE, ROOT, session=session)
    rse_id = rse_core.add_rse(data.RSE)
    protocol = {
        "scheme": "davs",
        "hostname": "slac-disk.example.org",
        "port": 1094,
        "prefix": "/data/",
        "impl": "rucio.rse.protocols.webdav.Default",
        "domains": {"lan": EVERYTHING, "wan": EVERYTHING},
    }
    rse_core.add_protocol(rse_id, protocol)
    with db_session(DatabaseOperationType.WRITE) as session:
        set_local_account_limit(ROOT, rse_id, 10**18, session=session)


def _files(prefix, numbers):
    return [
        {
            "scope": SCOPE,
            "name": data.name(prefix, i),
            "bytes": data.size(i),
            "adler32": data.ADLER32,
            "md5": None,
        }
        for i in numbers
    ]


def register(prefix, start, count, chunk):
    rse_id = rse_core.get_rse_id(data.RSE)
    watch = Stopwatch()
    for numbers in data.chunks(start, count, chunk):
        files = _files(prefix, numbers)
        with watch:
            replica_core.add_replicas(rse_id=rse_id, files=files, account=ROOT)
    return watch.report(count)


def attach(prefix, start, count, chunk, dataset):
    did_core.add_did(scope=SCOPE, name=dataset, did_type=DIDType.DATASET, account=ROOT)
    watch = Stopwatch()
    for numbers in data.chunks(start, count, chunk):
        held = [{"scope": SCOPE, "name": data.name(prefix, i)} for i in numbers]
        with watch:
            did_core.attach_dids(scope=SCOPE, name=dataset, dids=held, account=ROOT)
    return watch.report(count)


def _digest(rows):
    return sum(data.digest_of(row["name"], row["bytes"], row["adler32"]) for row in rows)


def list_files(dataset, most, digest):
    watch, count = Stopwatch(), 0
    began, first = time.perf_counter(), 0.0
    with watch:
        for _ in islice(did_core.list_files(scope=SCOPE, name=dataset), most):
            first = first or time.perf_counter() - began
            count += 1
    if most is not None:
        watch.seconds -= first
    return watch.report(
        count, digest=_digest(did_core.list_files(scope=SCOPE, name=dataset)) if digest else None
    )


def _replicas(dataset):
    return replica_core.list_replicas(dids=[{"scope": SCOPE, "name": dataset}], pfns=True)


def list_replicas(dataset, most, digest):
    watch, count, pfns, first = Stopwatch(), 0, 0, 0.0
    began = time.perf_counter()
    with watch:
        for row in islice(_replicas(dataset), most):
            first = first or time.perf_counter() - began
            count += 1
            pfns += len(row["pfns"])
    if most is not None:
        # of a part of a list only the flow counts, not what it took to begin
        watch.seconds -= first
    found = _digest(_replicas(dataset)) if digest else None
    return watch.report(count, pfns=pfns, digest=found, first_s=first)


def set_meta(prefix, start, count, chunk):
    watch = Stopwatch()
    for numbers in data.chunks(start, count, chunk):
        changes = [{"scope": SCOPE, "name": data.name(prefix, i), "meta": data.meta(i)} for i in numbers]
        with watch:
            did_core.set_dids_metadata_bulk(dids=changes)
    return watch.report(count)


def search(filters):
    watch = Stopwatch()
    with watch:
        found = sum(1 for _ in did_core.list_dids(SCOPE, filters=json.loads(filters), did_type="file"))
    return watch.report(1, found=found)


def load(prefix, start, count, dataset):
    """Lay files, replicas and contents beside one that the API registered, as it would: a big catalogue to work on."""
    register(prefix, start, 1, 1)
    attach(prefix, start, 1, 1, dataset)
    found = data.NAME_IN_SQL.format(prefix=prefix)
    with get_engine().begin() as connection:
        for table in ("dids", "replicas", "contents"):
            column = "child_name" if table == "contents" else "name"
            names = connection.execute(
                text(
                    "SELECT column_name FROM information_schema.columns "
                    "WHERE table_name = :t AND table_schema = 'public'"
                ),
                {"t": table},
            ).scalars()
            made = {column: found, "bytes": f"{data.FIRST_BYTES} + i"}
            columns = list(names)
            values = ", ".join(made.get(one, f"t.{one}") for one in columns)
            connection.execute(
                text(
                    f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} t, "  # noqa: S608
                    "generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) i WHERE t.scope = :scope AND t."
                    + column
                    + " = :template"
                ),
                {
                    "first": start + 1,
                    "last": start + count - 1,
                    "scope": data.SCOPE,
                    "template": data.name(prefix, start),
                },
            )
    return {"n": count}


def analyze():
    with get_engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DELETE FROM updated_dids"))
        connection.execute(text("VACUUM ANALYZE"))


COMMANDS = {
    "set_up": set_up,
    "register": register,
    "attach": attach,
    "list_files": list_files,
    "list_replicas": list_replicas,
    "set_meta": set_meta,
    "search": search,
    "load": load,
    "analyze": analyze,
}

if __name__ == "__main__":
    serve(COMMANDS)
