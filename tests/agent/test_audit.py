"""`arriero audit` against a real registry: dumps in every form, walks through real storages, dark files moved aside."""

from __future__ import annotations

import gzip
import os
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest
from sqlalchemy import select

from arriero.agent import storage_audit
from arriero.agent.storage_dump import Dump, UnusableDump
from arriero.agent.storage_walk import Walk
from arriero.registry.schema.tables import replicas
from arriero.registry.states import ReplicaState
from arriero.rse.errors import NotFound, Unavailable
from arriero.rse.file import FileProtocol
from arriero.rse.types import Endpoint
from servicelib.server import WebDavServer
from support import cli as support_cli
from support import server
from support.audited import DAY_S, age, age_replicas, findings
from support.rse_copies import pool
from support.rse_endpoints import endpoint_of

registry = server.registry
cli = support_cli.cli
database_kind = support_cli.on_sqlite
environment = support_cli.environment

__all__ = ["pool"]

RSE = "SLAC_RAW_DISK"
FILES = {f"night/f{number}.fits": b"x" * (100 + number) for number in range(5)}


@pytest.fixture
def folder(cli, registry, tmp_path) -> Path:
    """Five files at an RSE, and what nobody knows of."""
    folder = tmp_path / "slac" / "raw"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    cli("scope", "add", "raw")
    cli("rse", "add", RSE)
    cli("rse", "attribute", "set", RSE, "--key", "lfn2pfn_algorithm", "--value", "identity")
    cli("rse", "protocol", "add", RSE, "--scheme", "file", "--prefix", str(folder.parent))
    cli("replica", "add", "--rse", RSE, "--scope", "raw", "night")
    age_replicas(registry.database)
    (folder / "stray.fits").write_bytes(b"nobody knows me")
    return folder.parent


def quickly(registry, **settings) -> None:
    """Have two audits be far enough apart at once."""
    values = {"audit_confirm_s": 0.0, "audit_margin_s": 0.0, **settings}
    registry.context.settings.__dict__.update(values)


def dump_of(folder: Path, path: Path, *, without: str = "", more: str = "") -> Path:
    rows = [
        f"{file.relative_to(folder)},{file.stat().st_size}"
        for file in sorted(folder.rglob("*.fits"))
        if not without or without not in file.name
    ]
    path.write_text("\n".join([*rows, more]))
    return path


def test_a_dump_is_compared_and_what_it_finds_listed(cli, registry, folder, tmp_path):
    dump = dump_of(folder, tmp_path / "dump.csv", without="f3")
    [shown] = cli("-o", "json", "audit", RSE, "--dump", str(dump)).json
    assert [shown[what] for what in ("state", "lines", "judged", "missing", "dark", "declared")] == [
        *("COMPARED", 5, 5, 1, 1, 0)
    ]
    rows = cli("-o", "json", "audit", "findings", "--rse", RSE).json
    assert {(row["kind"], row["state"], row["name"], row["path"]) for row in rows} == {
        ("MISSING", "SEEN", "night/f3.fits", "raw/night/f3.fits"),
        ("DARK", "SEEN", None, "raw/stray.fits"),
    }
    table = cli("-o", "csv", "audit", "findings", "--kind", "dark", "--audit", "1").lines
    assert table[0].startswith("id,rse,kind,state")
    assert len(table) == 2
    assert cli("-o", "json", "audit", "findings", "--state", "confirmed").json == []
    assert [row["id"] for row in cli("-o", "json", "audit", "list", "--rse", RSE).json] == [1]
    assert cli("-o", "json", "audit", "show", "1").json["missing"] == 1
    assert "MISSING" in cli("-o", "table", "audit", "list").out
    again = cli("audit", RSE, "--dump", str(dump), expect=4)
    assert "no newer" in again.err
    cli("audit", "show", "9", expect=3)


def test_a_missing_file_is_declared_bad_by_the_second_audit(cli, registry, folder, tmp_path):
    """D26, from outside: a dump a day, by the day in its name."""
    for day in ("20260101", "20260102"):
        age(registry.database, replicas, 365 * DAY_S, "updated_at", "created_at")
        dump = dump_of(folder, tmp_path / f"dump_{day}.csv", without="f3")
        [shown] = cli("-o", "json", "audit", RSE, "--dump", str(dump)).json
        assert shown["observed_at"].startswith(f"{day[:4]}-{day[4:6]}-{day[6:]}T00:00:00")
    assert shown["declared"] == 1
    with registry.database.snapshot() as connection:
        states = set(connection.scalars(select(replicas.c.state)))
    assert states == {ReplicaState.AVAILABLE, ReplicaState.BAD}


def test_a_walk_finds_the_same_and_a_dry_run_notes_nothing(cli, registry, folder):
    (folder / "raw/night/f1.fits").write_bytes(b"short")
    (folder / "raw/night/f2.fits").unlink()
    quickly(registry)
    [shown] = cli("-o", "json", "audit", "run", RSE, "--walk", "--dry-run").json
    counts = ("missing", "dark", "wrong_size", "declared")
    assert (shown["state"], [shown[what] for what in counts]) == ("ABANDONED", [1, 1, 1, None])
    assert findings(registry.database) == []
    [shown] = cli("-o", "json", "audit", RSE, "--walk", "--per-second", "1000").json
    assert (shown["state"], [shown[what] for what in counts]) == ("COMPARED", [1, 1, 1, 0])
    ended = cli("-o", "table", "audit", RSE, "--walk", "--threads", "2")
    assert "arriero audit findings" in ended.err


def test_an_audit_that_finds_too_much_ends_with_7_and_acts_on_nothing(cli, registry, folder):
    """D27: the catalogue is older than the storage, or the disk is not mounted."""
    quickly(registry, audit_brake_files=2)
    for number in range(3):
        (folder / f"raw/newer{number}.fits").write_bytes(b"registered after the backup was made")
    for _ in range(2):
        ended = cli("-o", "json", "audit", RSE, "--walk", expect=7)
        assert "restored from a backup" in ended.err
    assert findings(registry.database) == []
    assert cli("audit", "quarantine", RSE).err.strip() == "There are no confirmed dark files."
    assert (folder / "raw/newer0.fits").exists()
    empty = folder.parent / "empty.csv"
    empty.write_text("")
    age_replicas(registry.database)
    assert "is it mounted" in cli("audit", RSE, "--dump", str(empty), expect=7).err
    # an administrator who knows better
    cli("audit", RSE, "--walk", "--brake", "0.9")
    assert len(findings(registry.database)) == 4


def test_dark_files_are_moved_aside_on_demand(cli, registry, folder):
    quickly(registry)
    (folder / "raw/deep/er").mkdir(parents=True)
    (folder / "raw/deep/er/dark.fits").write_bytes(b"dark")
    (folder / "raw/gone.fits").write_bytes(b"gone before it is moved")
    for _ in range(2):
        cli("audit", RSE, "--walk")
    shown = cli("-o", "json", "audit", "quarantine", RSE, "--dry-run").json
    assert [row["path"] for row in shown] == ["raw/deep/er/dark.fits", "raw/gone.fits", "raw/stray.fits"]
    (folder / "raw/gone.fits").unlink()
    cli("replica", "add", "--rse", RSE, "--scope", "raw", "stray.fits")
    done = cli("-o", "json", "audit", "quarantine", RSE).json
    assert {what: done[what] for what in ("moved", "gone", "failed")} == {"moved": 1, "gone": 1, "failed": 0}
    assert (folder / "raw/stray.fits").exists()
    [aside] = (folder / ".arriero-quarantine").rglob("dark.fits")
    assert aside.read_bytes() == b"dark"
    assert not (folder / "raw/deep/er/dark.fits").exists()
    age_replicas(registry.database, days=0.01)
    [shown] = cli("-o", "json", "audit", RSE, "--walk").json
    assert (shown["dark"], shown["missing"], shown["lines"]) == (0, 0, 6)


def test_a_file_that_becomes_a_replica_while_it_is_moved_is_moved_back(cli, registry, folder, pool):
    quickly(registry)
    for _ in range(2):
        cli("audit", RSE, "--walk")
    client = registry.client()
    [finding] = client.list_findings(RSE, kind="DARK")
    protocol = pool.get(Endpoint(RSE, "file", "", 0, str(folder)))

    class Racing(FileProtocol):
        def move(self, source, destination, *, replace=False):
            if source.startswith("raw/"):
                cli("replica", "add", "--rse", RSE, "--scope", "raw", "stray.fits")
            super().move(source, destination, replace=replace)

    result = storage_audit.move_aside(client, Racing(protocol.endpoint), RSE, [finding["id"]])
    assert (result.moved, result.registered) == (0, 1)
    assert (folder / "raw/stray.fits").exists()


def test_what_is_asked_for_wrongly_is_refused(cli, registry, folder, tmp_path):
    dump = dump_of(folder, tmp_path / "dump.csv")
    for words in (
        ("audit", RSE),
        ("audit", RSE, "--walk", "--dump", str(dump)),
        ("audit", RSE, "--walk", "--date", "2026-01-01"),
        ("audit", RSE, "--dump", "-"),
        ("audit", RSE, "--dump", str(dump), "--date", "2099-01-01"),
    ):
        cli(*words, expect=2)
    cli("audit", "NOWHERE", "--walk", expect=3)
    (tmp_path / "bad.csv").write_text("raw/a,1\nraw/b,many\n")
    refused = cli("audit", RSE, "--dump", str(tmp_path / "bad.csv"), expect=2)
    assert "line 2: 'many' is no number of bytes" in refused.err
    assert "--resume" in refused.err


@pytest.mark.parametrize("compress", [False, True])
def test_dumps_come_in_several_forms(tmp_path, compress):
    def read(text: str, name: str = "dump", strip: str = "") -> list[tuple[str, int | None, str | None]]:
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if compress else text.encode())
        return list(Dump(path, strip).files())

    assert read("a/b\nc\n") == [("a/b", None, None), ("c", None, None)]
    assert read("/a/b,10,0A\n\nc,,\n") == [("a/b", 10, "0A"), ("c", None, None)]
    assert read('"with, comma",3,-\r\nünï,4,adler32:1f\r\n') == [("with, comma", 3, None), ("ünï", 4, "1f")]
    assert read("Size,Path\n7,x\n") == [("x", 7, None)]
    assert read("path\nname\n") == [("name", None, None)]
    assert read("name\n") == [("name", None, None)]
    assert read("/sps/raw/x,1\n/other/y,2\n", strip="/sps/") == [("raw/x", 1, None)]
    for wrong in ("a,1,2,3\n", "a,-1\n", 'a,"1\n'):
        with pytest.raises(UnusableDump):
            read(wrong)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(os.urandom(5000).hex().encode())[:-100])
    (tmp_path / "latin").write_bytes(b"\xff\xfe,1\n")
    for name in ("cut.gz", "latin"):
        with pytest.raises(UnusableDump, match="cannot be read"):
            list(Dump(tmp_path / name).files())


def test_the_moment_of_a_dump_is_the_earlier_of_its_name_and_its_time(tmp_path):
    def made(name: str, at: datetime) -> datetime | None:
        path = tmp_path / name
        path.touch()
        os.utime(path, (at.timestamp(), at.timestamp()))
        return Dump(path).date()

    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert made("dump.csv", noon) == noon
    assert made("dump_20261120", noon) == datetime(2026, 11, 20, tzinfo=UTC)
    assert made("dump-2026-11-30.csv", noon) == noon
    assert made("dump_20269999", noon) == noon
    assert Dump(Path("-")).date() is None


@pytest.fixture(params=["file", "xrootd_slac", "apache"])
def storage(request, tmp_path, pool):
    """A tree on a folder, and on a storage of each kind, with its protocol."""
    names = [f"d{a}/e{b}/f{c}" for a in range(3) for b in range(3) for c in range(3)]
    names += ["top", "d1/file", "d1/zz", "d1.d/x", "ünï/a b", ".arriero-quarantine/20260101/x"]
    if request.param == "file":
        for name in names:
            path = tmp_path / "tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        return pool.get(Endpoint("X", "file", "", 0, str(tmp_path / "tree"))), names[:-1]
    server: WebDavServer = request.getfixturevalue("services").webdav(request.param)
    for name in names:
        server.write_file(f"{tmp_path.name}/{name}", name.encode())
    return pool.get(endpoint_of(server, folder=tmp_path.name)), names[:-1]


def test_a_walk_gives_every_file_once_and_goes_on_wherever_it_broke_off(storage):
    protocol, names = storage
    whole = list(Walk(protocol, threads=3).files())
    assert sorted(whole) == sorted((name, len(name.encode())) for name in names)
    for count in range(1, len(whole) + 1):
        first = list(islice(Walk(protocol, threads=2).files(), count))
        rest = list(Walk(protocol, threads=2, after=first[-1][0]).files())
        assert first + rest == whole


class Trees:
    """A protocol that lists what it is told."""

    endpoint = Endpoint("X", "file", "", 0, "/nowhere")

    def __init__(self, **folders) -> None:
        self.folders = folders

    def list_directory(self, path):
        found = self.folders[path or "root"]
        if isinstance(found, Exception):
            raise found
        return found


def test_a_walk_that_cannot_see_everything_is_worth_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("arriero.agent.storage_walk._FIRST_PAUSE_S", 0.0)
    from arriero.rse.types import DirectoryEntry

    folder = DirectoryEntry("gone", 0, is_directory=True)
    file = DirectoryEntry("a", 1, is_directory=False)
    unreadable = DirectoryEntry("\udcff", 1, is_directory=False)
    walk = Walk(Trees(root=[folder, file, unreadable], gone=NotFound("removed meanwhile")))
    assert list(walk.files()) == [("a", 1)]
    assert walk.unusable == 1
    for wrong in ({"root": [folder], "gone": Unavailable("no answer")}, {"root": NotFound("no prefix")}):
        with pytest.raises(type(list(wrong.values())[-1])):
            list(Walk(Trees(**wrong)).files())


def test_a_walk_that_broke_off_is_resumed(cli, registry, folder, monkeypatch):
    monkeypatch.setattr(storage_audit, "LINES_A_CALL", 2)
    quickly(registry)
    sent = []
    original = storage_audit.Upload._send

    def breaking(self, lines, *, with_cursor):
        if not sent:
            sent.append(1)
            original(self, islice(lines, 4), with_cursor=with_cursor)
            raise Unavailable("the connection is gone")
        return original(self, lines, with_cursor=with_cursor)

    monkeypatch.setattr(storage_audit.Upload, "_send", breaking)
    broken = cli("audit", RSE, "--walk", expect=5)
    assert "--resume 1" in broken.err
    [shown] = cli("-o", "json", "audit", RSE, "--walk", "--resume", "1").json
    assert [shown[what] for what in ("state", "lines", "missing", "dark")] == ["COMPARED", 6, 0, 1]
    cli("audit", RSE, "--walk", "--resume", "1", expect=4)
