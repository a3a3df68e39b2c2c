"""Long lists cost no memory, and readers that stop cost no connection: a real server, real sockets, PostgreSQL."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
import requests
from anyio import sleep_forever
from sqlalchemy import text

from arriero.registry.api import streams
from arriero.registry.api.stalls import ReaderTooSlow, Spool
from arriero.registry.database import Database
from arriero.registry.services.bootstrap import bootstrap
from support.database import migrated_database
from support.installation import Process, installation
from support.server import PASSWORD, ROOT
from support.services import drop_database

LARGE, MEDIUM = 300_000, 20_000
READERS = 64
"""More than the service has threads (40) and connections (20) together."""
GROWTH_MIB = 24
"""A list of 300,000 files is 180 MB on the wire: at most a seventh of that."""
SETTLED_MIB, SETTLED_ROUNDS, MOST_ROUNDS = 1.0, 5, 30

_FILES = """
INSERT INTO dids (id, scope_id, name, type, account_id, is_open, monotonic, bytes, adler32, spread, created_at, updated_at)
SELECT i, 1, 'LSSTComCam/20241108/raw/exposure-' || i || '.fits', 'FILE', 1, false, false, 2880, '0000002a', i, now(), now()
FROM generate_series(1, :count) i
"""
_SETS = """
INSERT INTO dids (id, scope_id, name, type, account_id, is_open, monotonic, spread, created_at, updated_at)
VALUES (:count + 1, 1, 'large', 'DATASET', 1, true, false, 0, now(), now()),
       (:count + 2, 1, 'medium', 'DATASET', 1, true, false, 0, now(), now())
"""
_CONTENTS = """
INSERT INTO contents (parent_id, child_id, created_at)
SELECT :count + 1, i, now() FROM generate_series(1, :count) i
UNION ALL SELECT :count + 2, i, now() FROM generate_series(1, :medium) i
"""
_REPLICAS = """
INSERT INTO replicas (file_id, rse_id, bytes, state, created_at, updated_at)
SELECT i, 1, 2880, 'AVAILABLE', now(), now() FROM generate_series(1, :count) i
"""
_RSE = """
INSERT INTO rses (id, name, type, deterministic, volatile, availability_read, availability_write,
                  availability_delete, staging_area, created_at, updated_at)
VALUES (1, 'SLAC', 'DISK', true, false, true, true, true, false, now(), now())
"""
_PROTOCOL = """
INSERT INTO rse_protocols (rse_id, scheme, hostname, port, prefix, impl, domains)
VALUES (1, 'davs', 'dav.example.org', 1094, '/data', '', '{"wan": {"read": 1}}')
"""


@dataclass
class Served:
    """A server process with two datasets."""

    url: str
    process: Process
    database: Database
    headers: dict[str, str]

    def memory_mib(self, field: str) -> float:
        """``VmRSS`` (now) or ``VmHWM`` (the most ever)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
        assert found
        return int(found[1]) / 1024

    def held(self) -> int:
        """Transactions of the server that are open now."""
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'"
        )
        with self.database.snapshot() as connection:
            return int(connection.scalar(text(query)) or 0)

    def request(self, method: str, path: str, body: object = None) -> bytes:
        sent = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {urlsplit(self.url).netloc}",
            f"Content-Length: {len(sent)}",
        ]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + sent


@pytest.fixture(scope="module")
def served(services, tmp_path_factory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("streams")
    url = migrated_database(services, "postgresql", directory)
    database = Database(url)
    bootstrap(database, ROOT, PASSWORD)
    with database.transaction() as connection:
        sizes = {"count": LARGE, "medium": MEDIUM}
        connection.execute(
            text("INSERT INTO scopes (id, name, account_id, created_at) VALUES (1, 'raw', 1, now())")
        )
        for statement in (_RSE, _PROTOCOL, _FILES, _SETS, _CONTENTS, _REPLICAS):
            connection.execute(text(statement), {key: sizes[key] for key in sizes if f":{key}" in statement})
    settings = {
        "ARRIERO_DATABASE_URL": url,
        "ARRIERO_BROKER_URL": "memory://",
        "ARRIERO_LOG_LEVEL": "WARNING",
    }
    with installation(directory / "run", settings) as made:
        address = made.start_service()
        login = {"X-Rucio-Account": ROOT, "X-Rucio-Username": ROOT, "X-Rucio-Password": PASSWORD}
        token = requests.get(f"{address}/auth/userpass", headers=login, timeout=20).headers[
            "X-Rucio-Auth-Token"
        ]
        yield Served(address, made._processes[0], database, {"X-Rucio-Auth-Token": token})
    database.dispose()
    drop_database(services, url)


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


LIST = ("POST", "/replicas/list", {"dids": [{"scope": "raw", "name": "medium"}]})
FILES = ("GET", "/dids/raw/medium/files", None)


def lines_of(served: Served, method: str, path: str, body: object) -> int:
    """Read a list as it comes, and keep nothing of it."""
    count = 0
    data = None if body is None else json.dumps(body)
    with requests.request(
        method, served.url + path, data=data, headers=served.headers, stream=True, timeout=60
    ) as answer:
        assert answer.status_code == 200
        for chunk in answer.iter_content(1 << 20):
            count += chunk.count(b"\n")
    return count


def settled_mib(served: Served) -> float:
    """Read lists until they have the process grow no more: its caches are full, and the allocator has the room that it keeps.

    A process that goes on growing fails here.
    """
    highest: list[float] = []
    for _ in range(MOST_ROUNDS):
        for method, path, body in (LIST, FILES):
            assert lines_of(served, method, path, body) == MEDIUM
        highest.append(max([served.memory_mib("VmRSS"), *highest[-1:]]))
        if len(highest) > SETTLED_ROUNDS and highest[-1] - highest[-1 - SETTLED_ROUNDS] < SETTLED_MIB:
            return served.memory_mib("VmRSS")
    raise AssertionError(f"still grows after {MOST_ROUNDS} rounds: {highest}")


@pytest.mark.parametrize("what", ["replicas", "files"])
def test_a_long_list_does_not_grow_the_process(served, what):
    """The most memory while it is sent, over what the process rests at.

    A list of any length needs room for a few pages of rows, each in several shapes (rows, models, text, bytes), which is
    given back behind it: 11 to 14 MiB over the rest for 20,000 files as for 300,000. What the allocator asks for beyond,
    when other threads work at the same moment, is a few MiB that do not grow with the list either.
    """
    before = settled_mib(served)
    # the most from here on
    Path(f"/proc/{served.process.pid}/clear_refs").write_text("5")
    body = {"dids": [{"scope": "raw", "name": "large"}]}
    if what == "replicas":
        assert lines_of(served, "POST", "/replicas/list", body) == LARGE
    else:
        assert lines_of(served, "GET", "/dids/raw/large/files", None) == LARGE
    grown = served.memory_mib("VmHWM") - before
    print(f"{what}: grown by {grown:.1f} MiB from {before:.1f}")
    assert grown < GROWTH_MIB, f"grown by {grown:.1f} MiB from {before:.0f}"


def test_many_readers_that_stall_leave_the_service_to_others(served):
    address = urlsplit(served.url)
    with ExitStack() as stack:
        stalled = []
        for number in range(READERS):
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.settimeout(60)
            reader.connect((address.hostname, address.port))
            reader.sendall(served.request(*(LIST if number % 2 else FILES)))
            stalled.append(reader)
        begun = time.monotonic()
        for path in ("/ping", "/live"):
            assert requests.get(served.url + path, timeout=20).status_code == 200
        assert time.monotonic() - begun < 5
        described = requests.get(f"{served.url}/dids/raw/medium", headers=served.headers, timeout=60)
        assert described.status_code == 200
        assert time.monotonic() - begun < 55
        first = [reader.recv(64, socket.MSG_PEEK).split(b" ", 2)[1] for reader in stalled]
        # on a slow machine the last of them have waited as long for a connection as anybody may
        assert set(first) <= {b"200", b"503"}
        assert first.count(b"200") > READERS // 2
        until(lambda: served.held() == 0)
        begun = time.monotonic()
        for path in ("/ping", "/dids/raw/medium"):
            assert requests.get(served.url + path, headers=served.headers, timeout=20).status_code == 200
        assert time.monotonic() - begun < 5
        # they have stopped, and are not cut off: the list is whole when they go on
        served_readers = [reader for reader, status in zip(stalled, first, strict=True) if status == b"200"]
        for reader in served_readers[:2]:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            with http.client.HTTPResponse(reader) as answer:
                answer.begin()
                assert len({json.loads(line)["name"] for line in answer}) == MEDIUM
    until(lambda: served.held() == 0)
    assert served.process.is_running


class Pieces:
    """An answer that tells whether it was closed."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.closed = False

    def __next__(self) -> bytes:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return b"x" * 100

    def close(self) -> None:
        self.closed = True


def test_a_reader_that_is_gone_for_good_is_cut_off(monkeypatch):
    monkeypatch.setattr(streams, "GONE_S", 0.1)
    closed = []

    def pieces():
        try:
            yield b"x"
            yield b"y"
        finally:
            closed.append(True)

    async def sent(message):
        if message["type"] == "http.response.body":
            await sleep_forever()

    async def received():
        await sleep_forever()

    answer = streams.byte_stream(pieces(), "text/plain")
    scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
    with pytest.raises(ReaderTooSlow):
        anyio.run(answer, scope, received, sent)
    assert closed


def test_what_is_kept_for_the_slow_is_bounded():
    spool = Spool(list_bytes=1000, process_bytes=1500)
    first, second, third = Pieces(10), Pieces(6), Pieces(11)
    kept = spool.keep(first)
    assert (first.closed, spool.used) == (True, 1000)
    for too_long in (second, third):
        with pytest.raises(ReaderTooSlow):
            spool.keep(too_long)
        assert too_long.closed
    assert spool.used == 1000
    assert next(kept) == b"x" * 1000
    with pytest.raises(StopIteration):
        next(kept)
    kept.close()
    kept.close()
    assert spool.used == 0
