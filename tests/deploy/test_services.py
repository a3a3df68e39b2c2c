"""The private servers: they do what the tests rely on, and nothing of them is left."""

from __future__ import annotations

import os
import socket
import ssl
import urllib.request
import zlib
from pathlib import Path

import psycopg
import pytest

from servicelib.postgresql import PostgreSQL
from servicelib.server import WebDavServer
from servicelib.wsgidav import WsgiDav
from servicelib.xrootd import XRootD
from support.services import Services

STORAGE = ("xrootd_slac", "xrootd_in2p3", "apache", "wsgidav")


def call(
    server: WebDavServer,
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    trust = ssl.create_default_context(cafile=server.ca_bundle) if url.startswith("https") else None
    with urllib.request.urlopen(request, timeout=20, context=trust) as answer:
        return answer.status, answer.read(), dict(answer.headers)


@pytest.mark.parametrize("name", STORAGE)
def test_a_file_written_over_http_lies_in_the_data_directory(services: Services, name: str) -> None:
    server = services.webdav(name)
    call(server, "PUT", f"{server.url}/from-http", body=b"muleteer")
    assert (server.data_dir / "from-http").read_bytes() == b"muleteer"


@pytest.mark.parametrize("name", STORAGE)
def test_a_file_put_behind_the_servers_back_can_be_read_and_deleted(services: Services, name: str) -> None:
    server = services.webdav(name)
    path = server.write_file("LSSTComCam/20241108/a b.fits", b"x" * 10_000)
    url = f"{server.url}/LSSTComCam/20241108/a%20b.fits"
    assert call(server, "GET", url)[1] == b"x" * 10_000
    call(server, "DELETE", url)
    assert not path.exists()


@pytest.mark.parametrize("name", ["xrootd_slac", "apache"])
def test_https_is_trusted_through_the_ca_bundle_only(services: Services, name: str) -> None:
    server = services.webdav(name)
    server.write_file("secure", b"1")
    assert server.https_url is not None
    assert call(server, "GET", f"{server.https_url}/secure")[1] == b"1"
    port = int(server.https_url.split(":")[2].split("/")[0])
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
        ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1"),
    ):
        pass


@pytest.mark.parametrize("source", ["xrootd_slac", "apache", "wsgidav"])
def test_in2p3_pulls_a_third_party_copy_and_knows_its_checksum(services: Services, source: str) -> None:
    origin, destination = services.webdav(source), services.xrootd_in2p3
    content = os.urandom(200_000)
    origin.write_file("pulled.bin", content)
    address = f"{origin.https_url or origin.url}/pulled.bin"
    target = f"{destination.https_url}/from-{source}.bin"
    _, said, _ = call(destination, "COPY", target, headers={"Source": address, "Credential": "none"})
    assert said.decode().strip().splitlines()[-1].startswith("success")
    headers = call(destination, "HEAD", target, headers={"Want-Digest": "adler32"})[2]
    assert headers["Digest"] == f"adler32={zlib.adler32(content):08x}"
    assert f"remote={address}" in destination.log_path.read_text()


@pytest.mark.parametrize("name", ["xrootd_slac", "xrootd_in2p3"])
def test_every_checksum_is_kept_when_the_file_is_closed(services: Services, name: str) -> None:
    """XRootD 5.5.3 crashes when it has to compute checksums itself."""
    server = services.webdav(name)
    call(server, "PUT", f"{server.url}/stamped", body=b"stamped")
    assert call(server, "HEAD", f"{server.url}/stamped", headers={"Want-Digest": "adler32"})[0] == 200
    assert "user.XrdCks.adler32" in os.listxattr(server.data_dir / "stamped")
    assert "user.XrdCks.adler32" in os.listxattr(server.write_file("put/by/test", b"1"))


def test_a_killed_server_comes_back_with_its_data_on_its_port(services: Services) -> None:
    server = XRootD(services.directory, "crashing")
    server.start()
    server.write_file("kept", b"kept")
    server.kill()
    assert not server.is_running()
    with pytest.raises(OSError, match="refused"):
        call(server, "GET", f"{server.url}/kept")
    server.start()
    assert call(server, "GET", f"{server.url}/kept")[1] == b"kept"
    server.stop()


def test_another_data_root_is_shown_as_it_is(services: Services) -> None:
    root = services.directory / "elsewhere"
    root.mkdir()
    server = XRootD(services.directory, "elsewhere-server", data_root=root)
    server.account.own(root)
    server.start()
    call(server, "PUT", f"{server.url}/file", body=b"1")
    assert (root / "rucio" / "file").read_bytes() == b"1"
    server.stop()


def test_a_second_handle_ends_what_the_first_started(services: Services) -> None:
    server = WsgiDav(services.directory, "shared")
    server.start()
    other = WsgiDav(services.directory, "shared")
    assert other.url == server.url
    assert other.is_running()
    other.stop()
    assert not server.is_running()


def test_postgresql_keeps_what_it_commits_and_lets_tests_add_extensions(services: Services) -> None:
    server = PostgreSQL(services.directory, "default-settings")
    server.start()
    url = server.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        connection.execute("CREATE EXTENSION btree_gist")
        connection.execute("CREATE TABLE mules (name text)")
    copy = server.create_database(template=url.rpartition("/")[2])
    with psycopg.connect(copy) as connection:
        assert connection.execute("SELECT count(*) FROM mules").fetchone() == (0,)
    server.drop_database(copy)
    server.drop_database(url)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)
    server.stop()


def test_redis_forgets_when_told_and_asks_for_its_password(services: Services) -> None:
    import redis

    with redis.Redis.from_url(services.redis.url) as client:
        client.set("load", "mule")
        services.redis.flush()
        assert client.get("load") is None
    with socket.create_connection(("127.0.0.1", services.redis.port), timeout=5) as stranger:
        stranger.sendall(b"PING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")


def test_the_database_fixture_is_empty(empty_database: str, database_kind: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(empty_database)
    assert engine.dialect.name == database_kind
    assert sqlalchemy.inspect(engine).get_table_names() == []
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE leftover (id int)"))
    engine.dispose()


def test_servers_do_not_run_as_root(services: Services) -> None:
    for name in ("postgresql", "redis", "xrootd_slac", "apache"):
        server = getattr(services, name)
        identity = server._daemon.identity()
        assert Path(f"/proc/{identity.pid}").stat().st_uid == server.account.uid != 0
